/* What a power cut would leave of a folder: LD_PRELOAD this into a process that writes there, then end it by SIGKILL.
 *
 * POWERCUT_FOLDER  the folder that is watched
 * POWERCUT_SHADOW  a copy of it as it was at the start; kept as a disk would be that loses all that was not synced
 * POWERCUT_EARLY   0..1000: how many writes in a thousand reach the disk unasked, some of them torn at sectors
 * POWERCUT_SEED    for the choice of these
 *
 * A write or truncation reaches the shadow at the next fsync or fdatasync of its file, through whichever descriptor. A
 * new, linked, renamed or removed name reaches it at the next fsync of any folder or of a file whose own name is new,
 * all in their order: as on a journalled file system. Nothing is really synced: a SIGKILL leaves the page cache whole.
 *
 * It sees the calls that SQLite and Python make to files. Not mmap: SQLite maps nothing but the -shm file, which it
 * makes anew after a crash. Linux on 64 bits. Extra descriptors of a file stay open as long as the process has it open:
 * closing one would drop SQLite's POSIX locks.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define DESCRIPTORS_MAX 65536
#define SECTOR 512
#define EXPORTED __attribute__((visibility("default")))
#define REAL(name)                                                                                                     \
    ({                                                                                                                 \
        if (!real_##name) real_##name = (name##_call)dlsym(RTLD_NEXT, #name);                                          \
        real_##name;                                                                                                   \
    })

typedef int (*open_call)(const char *, int, ...);
typedef int (*openat_call)(int, const char *, int, ...);
typedef int (*close_call)(int);
typedef ssize_t (*write_call)(int, const void *, size_t);
typedef ssize_t (*pwrite_call)(int, const void *, size_t, off_t);
typedef int (*ftruncate_call)(int, off_t);
typedef int (*fsync_call)(int);
typedef int (*unlinkat_call)(int, const char *, int);
typedef int (*renameat_call)(int, const char *, int, const char *);
typedef int (*linkat_call)(int, const char *, int, const char *, int);

static open_call real_open;
static openat_call real_openat;
static close_call real_close;
static write_call real_write;
static pwrite_call real_pwrite;
static ftruncate_call real_ftruncate;
static fsync_call real_fsync;
static unlinkat_call real_unlinkat;
static renameat_call real_renameat;
static linkat_call real_linkat;

struct range { off_t from, to; };

struct file {
    dev_t device;
    ino_t inode;
    int folder;       /* a directory */
    int source;       /* our own descriptor of it, to read from */
    int kept;         /* its copy in the shadow; -1 until its name is kept */
    int users;        /* descriptors of the process */
    int gone;         /* no name is left */
    int cut;          /* truncated since the last sync, at the least to `shortest` */
    off_t shortest;
    struct range *dirty;
    size_t dirty_count, dirty_room;
    struct file *next;
};

enum change { CREATED, REMOVED, LINKED, RENAMED };

struct name_change {
    enum change change;
    struct file *file;
    char *name, *to;
    struct name_change *next;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char folder[PATH_MAX], shadow[PATH_MAX];
static struct file *files, *by_descriptor[DESCRIPTORS_MAX];
static struct name_change *changes, **last_change = &changes;
static unsigned early_permille;
static uint64_t random_state = 88172645463325252u;

__attribute__((constructor)) static void begin(void) {
    const char *watched = getenv("POWERCUT_FOLDER"), *kept = getenv("POWERCUT_SHADOW");
    const char *early = getenv("POWERCUT_EARLY"), *seed = getenv("POWERCUT_SEED");
    if (!watched || !kept || !realpath(watched, folder) || !realpath(kept, shadow)) folder[0] = 0;
    if (early) early_permille = (unsigned)strtoul(early, NULL, 10);
    if (seed) random_state ^= strtoull(seed, NULL, 10) * 0x9e3779b97f4a7c15u;
    if (!random_state) random_state = 1;
}

static unsigned dice(unsigned sides) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (unsigned)((random_state >> 11) % sides);
}


/* The path below the watched folder ("" for itself); NULL for any other. */
static const char *below(const char *path) {
    size_t length = strlen(folder);
    if (!length || strncmp(path, folder, length)) return NULL;
    if (!path[length]) return "";
    return path[length] == '/' ? path + length + 1 : NULL;
}

static int path_of(int descriptor, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    if (length <= 0) return 0;
    path[length] = 0;
    return 1;
}

/* A copy of the name below the watched folder that a path stands for, its last part not followed; NULL for others. */
static char *name_of(int at, const char *path) {
    char joined[2 * PATH_MAX], parent[PATH_MAX], whole[2 * PATH_MAX], base[PATH_MAX] = ".";
    if (!folder[0]) return NULL;
    if (path[0] != '/' && at != AT_FDCWD && !path_of(at, base)) return NULL;
    if (path[0] == '/') snprintf(joined, sizeof joined, "%s", path);
    else snprintf(joined, sizeof joined, "%s/%s", base, path);
    char *slash = strrchr(joined, '/');
    const char *last = slash + 1;
    if (slash == joined) return NULL;
    *slash = 0;
    if (!realpath(joined, parent)) return NULL;
    snprintf(whole, sizeof whole, "%s/%s", parent, last);
    const char *name = below(whole);
    return name && *name ? strdup(name) : NULL;
}

static void in_shadow(const char *name, char *path) {
    snprintf(path, PATH_MAX, "%.*s/%.*s", PATH_MAX / 2 - 1, shadow, PATH_MAX / 2 - 1, name);
}

static void make_parents(char *path) {
    for (char *slash = path + strlen(shadow) + 1; (slash = strchr(slash, '/')); slash++) {
        *slash = 0;
        mkdir(path, 0700);
        *slash = '/';
    }
}

static void note_change(enum change change, struct file *file, char *name, char *to) {
    struct name_change *noted = calloc(1, sizeof *noted);
    if (!noted) abort();
    *noted = (struct name_change){change, file, name, to, NULL};
    *last_change = noted;
    last_change = &noted->next;
}

static void let_go(struct file *file) {
    if (!file->gone || file->users) return;
    if (file->source >= 0) REAL(close)(file->source);
    if (file->kept >= 0) REAL(close)(file->kept);
    file->source = file->kept = -1;
}

static void keep_names(void) {
    char path[PATH_MAX], to[PATH_MAX];
    while (changes) {
        struct name_change *done = changes;
        in_shadow(done->name, path);
        if (done->to) in_shadow(done->to, to);
        switch (done->change) {
        case CREATED:
            make_parents(path);
            REAL(unlinkat)(AT_FDCWD, path, 0);
            done->file->kept = REAL(open)(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
            let_go(done->file);
            break;
        case REMOVED: REAL(unlinkat)(AT_FDCWD, path, 0); break;
        case LINKED: REAL(linkat)(AT_FDCWD, path, AT_FDCWD, to, 0); break;
        case RENAMED: REAL(renameat)(AT_FDCWD, path, AT_FDCWD, to); break;
        }
        changes = done->next;
        free(done->name);
        free(done->to);
        free(done);
    }
    last_change = &changes;
}


static void soil(struct file *file, off_t from, off_t to) {
    struct range *last = file->dirty_count ? &file->dirty[file->dirty_count - 1] : NULL;
    if (last && from <= last->to && to >= last->from) {
        if (from < last->from) last->from = from;
        if (to > last->to) last->to = to;
        return;
    }
    if (file->dirty_count == file->dirty_room) {
        file->dirty_room = file->dirty_room ? 2 * file->dirty_room : 64;
        file->dirty = realloc(file->dirty, file->dirty_room * sizeof *file->dirty);
        if (!file->dirty) abort();
    }
    file->dirty[file->dirty_count++] = (struct range){from, to};
}

static void copy(struct file *file, off_t from, off_t to) {
    char bytes[65536];
    while (from < to) {
        size_t wanted = (size_t)(to - from) < sizeof bytes ? (size_t)(to - from) : sizeof bytes;
        ssize_t count = pread(file->source, bytes, wanted, from);
        if (count <= 0 || REAL(pwrite)(file->kept, bytes, (size_t)count, from) != count) return;
        from += count;
    }
}

static void fit(int descriptor, off_t size, int only_shorter) {
    struct stat found;
    if (fstat(descriptor, &found) || found.st_size == size || (only_shorter && found.st_size < size)) return;
    if (REAL(ftruncate)(descriptor, size)) return;
}

static void keep(struct file *file) {
    struct stat found;
    if (file->kept < 0) keep_names();
    if (file->kept < 0 || file->source < 0 || fstat(file->source, &found)) return;
    if (file->cut) fit(file->kept, file->shortest, 1);
    for (size_t i = 0; i < file->dirty_count; i++) copy(file, file->dirty[i].from, file->dirty[i].to);
    fit(file->kept, found.st_size, 0);
    file->dirty_count = 0;
    file->cut = 0;
}

/* The disk takes a write before it is asked to: the whole of it, or some of its sectors. */
static void keep_early(struct file *file, off_t from, off_t to) {
    if (!early_permille || file->kept < 0 || file->cut || dice(1000) >= early_permille) return;
    if (dice(2)) {
        copy(file, from, to);
        return;
    }
    for (off_t at = from; at < to;) {
        off_t end = (at / SECTOR + 1) * SECTOR;
        if (end > to) end = to;
        if (dice(2)) copy(file, at, end);
        at = end;
    }
}

static void shorten(struct file *file, off_t size) {
    if (!file->cut || size < file->shortest) file->shortest = size;
    file->cut = 1;
}


static struct file *known(const struct stat *found) {
    for (struct file *file = files; file; file = file->next)
        if (!file->gone && file->device == found->st_dev && file->inode == found->st_ino) return file;
    return NULL;
}

static struct file *meet(int descriptor, const struct stat *found, const char *name) {
    char path[PATH_MAX];
    struct file *file = calloc(1, sizeof *file);
    if (!file) abort();
    *file = (struct file){.device = found->st_dev, .inode = found->st_ino, .source = -1, .kept = -1, .next = files};
    file->folder = S_ISDIR(found->st_mode);
    files = file;
    if (file->folder) return file;
    snprintf(path, sizeof path, "/proc/self/fd/%d", descriptor);
    file->source = REAL(open)(path, O_RDONLY | O_CLOEXEC);
    in_shadow(name, path);
    struct name_change *pending = changes;
    while (pending && strcmp(pending->name, name) && (!pending->to || strcmp(pending->to, name)))
        pending = pending->next;
    if (!pending) file->kept = REAL(open)(path, O_RDWR | O_CLOEXEC);
    if (file->kept < 0) {
        note_change(CREATED, file, strdup(name), NULL);
        soil(file, 0, found->st_size);
    }
    return file;
}

static void opened(int descriptor, int flags) {
    char path[PATH_MAX];
    struct stat found;
    int error = errno;
    if (folder[0] && descriptor >= 0 && descriptor < DESCRIPTORS_MAX && path_of(descriptor, path)) {
        const char *name = below(path);
        size_t length = strlen(path);
        if (length > 4 && !strcmp(path + length - 4, "-shm")) name = NULL;
        pthread_mutex_lock(&lock);
        by_descriptor[descriptor] = NULL;
        if (name && !fstat(descriptor, &found) && (S_ISREG(found.st_mode) || S_ISDIR(found.st_mode))) {
            struct file *file = known(&found);
            if (!file) file = meet(descriptor, &found, name);
            if (flags & O_TRUNC) shorten(file, 0);
            file->users++;
            by_descriptor[descriptor] = file;
        }
        pthread_mutex_unlock(&lock);
    }
    errno = error;
}

/* The watched file behind a descriptor, with the lock held; NULL, and no lock, for any other. */
static struct file *seize(int descriptor) {
    struct stat found;
    if (descriptor < 0 || descriptor >= DESCRIPTORS_MAX || !by_descriptor[descriptor]) return NULL;
    pthread_mutex_lock(&lock);
    struct file *file = by_descriptor[descriptor];
    if (file && !fstat(descriptor, &found) && file->device == found.st_dev && file->inode == found.st_ino) return file;
    pthread_mutex_unlock(&lock);
    return NULL;
}

static void wrote(struct file *file, off_t from, ssize_t count) {
    if (count <= 0) return;
    soil(file, from, from + count);
    keep_early(file, from, from + count);
}

static int synced(int descriptor) {
    struct file *file = seize(descriptor);
    if (!file) return REAL(fsync)(descriptor);
    if (file->folder) keep_names();
    else keep(file);
    pthread_mutex_unlock(&lock);
    return 0;
}

/* Before a name goes: the file behind it, when this is its last name. */
static struct file *last_of(int at, const char *path) {
    struct stat found;
    if (fstatat(at, path, &found, AT_SYMLINK_NOFOLLOW) || found.st_nlink > 1) return NULL;
    return known(&found);
}

static void forget(struct file *file) {
    if (!file) return;
    file->gone = 1;
    let_go(file);
}


#define MODE(flags, mode)                                                                                              \
    mode_t mode = 0;                                                                                                   \
    if (__OPEN_NEEDS_MODE(flags)) {                                                                                    \
        va_list rest;                                                                                                  \
        va_start(rest, flags);                                                                                         \
        mode = va_arg(rest, mode_t);                                                                                   \
        va_end(rest);                                                                                                  \
    }

EXPORTED int openat(int at, const char *path, int flags, ...) {
    MODE(flags, mode)
    int descriptor = REAL(openat)(at, path, flags, mode);
    opened(descriptor, flags);
    return descriptor;
}

EXPORTED int open(const char *path, int flags, ...) {
    MODE(flags, mode)
    return openat(AT_FDCWD, path, flags, mode);
}

EXPORTED int open64(const char *path, int flags, ...) {
    MODE(flags, mode)
    return openat(AT_FDCWD, path, flags, mode);
}

EXPORTED int openat64(int at, const char *path, int flags, ...) {
    MODE(flags, mode)
    return openat(at, path, flags, mode);
}

EXPORTED int __open_2(const char *path, int flags) { return openat(AT_FDCWD, path, flags); }
EXPORTED int __open64_2(const char *path, int flags) { return openat(AT_FDCWD, path, flags); }
EXPORTED int __openat_2(int at, const char *path, int flags) { return openat(at, path, flags); }
EXPORTED int __openat64_2(int at, const char *path, int flags) { return openat(at, path, flags); }

EXPORTED int close(int descriptor) {
    struct file *file = seize(descriptor);
    if (file) {
        by_descriptor[descriptor] = NULL;
        file->users--;
        let_go(file);
        pthread_mutex_unlock(&lock);
    }
    return REAL(close)(descriptor);
}

EXPORTED ssize_t pwrite(int descriptor, const void *bytes, size_t size, off_t at) {
    struct file *file = seize(descriptor);
    ssize_t count = REAL(pwrite)(descriptor, bytes, size, at);
    if (file) {
        wrote(file, at, count);
        pthread_mutex_unlock(&lock);
    }
    return count;
}

EXPORTED ssize_t pwrite64(int descriptor, const void *bytes, size_t size, off_t at) {
    return pwrite(descriptor, bytes, size, at);
}

EXPORTED ssize_t write(int descriptor, const void *bytes, size_t size) {
    struct file *file = seize(descriptor);
    ssize_t count = REAL(write)(descriptor, bytes, size);
    if (file) {
        wrote(file, lseek(descriptor, 0, SEEK_CUR) - count, count);
        pthread_mutex_unlock(&lock);
    }
    return count;
}

EXPORTED int ftruncate(int descriptor, off_t size) {
    struct file *file = seize(descriptor);
    int result = REAL(ftruncate)(descriptor, size);
    if (file) {
        if (!result) shorten(file, size);
        pthread_mutex_unlock(&lock);
    }
    return result;
}

EXPORTED int ftruncate64(int descriptor, off_t size) { return ftruncate(descriptor, size); }
EXPORTED int fsync(int descriptor) { return synced(descriptor); }
EXPORTED int fdatasync(int descriptor) { return synced(descriptor); }

EXPORTED int unlinkat(int at, const char *path, int flags) {
    char *name = flags & AT_REMOVEDIR ? NULL : name_of(at, path);
    if (!name) return REAL(unlinkat)(at, path, flags);
    pthread_mutex_lock(&lock);
    struct file *last = last_of(at, path);
    int result = REAL(unlinkat)(at, path, flags);
    if (result) free(name);
    else {
        note_change(REMOVED, NULL, name, NULL);
        forget(last);
    }
    pthread_mutex_unlock(&lock);
    return result;
}

EXPORTED int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }

EXPORTED int renameat(int at, const char *path, int to_at, const char *to_path) {
    char *name = name_of(at, path), *to = name_of(to_at, to_path);
    pthread_mutex_lock(&lock);
    struct file *last = to ? last_of(to_at, to_path) : NULL;
    int result = REAL(renameat)(at, path, to_at, to_path);
    if (!result && name && to) {
        note_change(RENAMED, NULL, name, to);
        forget(last);
        name = to = NULL;
    }
    pthread_mutex_unlock(&lock);
    free(name);
    free(to);
    return result;
}

EXPORTED int rename(const char *path, const char *to_path) { return renameat(AT_FDCWD, path, AT_FDCWD, to_path); }

EXPORTED int linkat(int at, const char *path, int to_at, const char *to_path, int flags) {
    char *name = name_of(at, path), *to = name_of(to_at, to_path);
    pthread_mutex_lock(&lock);
    int result = REAL(linkat)(at, path, to_at, to_path, flags);
    if (!result && name && to) {
        note_change(LINKED, NULL, name, to);
        name = to = NULL;
    }
    pthread_mutex_unlock(&lock);
    free(name);
    free(to);
    return result;
}

EXPORTED int link(const char *path, const char *to_path) { return linkat(AT_FDCWD, path, AT_FDCWD, to_path, 0); }
