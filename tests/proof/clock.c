/* A wall clock that another process moves: LD_PRELOAD this into a process, and it tells the time that a file says.
 *
 * CLOCK_FILE  a file of 8 bytes: microseconds, signed, that are added to CLOCK_REALTIME; whoever writes there moves it
 *
 * Moved are time, gettimeofday and clock_gettime, which Python, SQLite, gRPC and Postgres ask. As on a machine whose
 * clock is set, the other clocks, sleeps and timers do not move; sleeps and timers up to a moment of the wall clock
 * are not seen, because none of the four makes any. Nor are the times of files: the kernel writes these by its own.
 *
 * A wait up to a moment of the wall clock would be up to the kernel's: too long by as much as this one is ahead. So it
 * is made here, in steps by the monotonic clock, and ends when this clock comes to the moment, set there or gone there.
 * Such are sem_timedwait (multiprocessing), pthread_cond_timedwait (OpenSSL) and the futex (gRPC). The waits of
 * threading, uvloop and psycopg are by the monotonic clock, or last a span; these are handed on as they are.
 *
 * Linux on 64 bits with glibc from 2.30, which keeps the clock of a condition variable in bit 1 of its __wrefs.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000ll
#define STEP (20 * 1000000ll)
#define COND_IS_MONOTONIC 2u
#define EXPORTED __attribute__((visibility("default")))
#define REAL(name)                                                                                                     \
    ({                                                                                                                 \
        if (!real_##name) real_##name = (name##_call)dlsym(RTLD_NEXT, #name);                                          \
        real_##name;                                                                                                   \
    })

typedef int (*clock_gettime_call)(clockid_t, struct timespec *);
typedef long (*syscall_call)(long, ...);

static clock_gettime_call real_clock_gettime;
static syscall_call real_syscall;
static const int64_t *offset;

/* Nothing runs under this by a clock that cannot be moved: a test would hold for the wrong reason. */
__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("CLOCK_FILE");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    void *shared = mmap(NULL, sizeof *offset, PROT_READ, MAP_SHARED, file, 0);
    if (file < 0 || shared == MAP_FAILED) {
        dprintf(STDERR_FILENO, "clock.c: cannot read CLOCK_FILE, %s: %s\n", path ? path : "unset", strerror(errno));
        _exit(127);
    }
    close(file);
    offset = shared;
}

static struct timespec later(struct timespec at, int64_t nanoseconds) {
    int64_t sum = at.tv_nsec + nanoseconds % SECOND;
    at.tv_sec += nanoseconds / SECOND + (sum >= SECOND) - (sum < 0);
    at.tv_nsec = (sum + SECOND) % SECOND;
    return at;
}

EXPORTED int clock_gettime(clockid_t clock, struct timespec *at) {
    int result = REAL(clock_gettime)(clock, at);
    if (!result && offset && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        *at = later(*at, 1000 * __atomic_load_n(offset, __ATOMIC_RELAXED));
    return result;
}

EXPORTED int gettimeofday(struct timeval *restrict at, void *restrict zone) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    *at = (struct timeval){now.tv_sec, now.tv_nsec / 1000};
    if (zone) memset(zone, 0, sizeof(struct timezone));
    return 0;
}

EXPORTED time_t time(time_t *at) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at) *at = now.tv_sec;
    return now.tv_sec;
}


/* The end of the next step, on the monotonic clock, of a wait up to a moment of ours; whether it is the last one. */
static int step(const struct timespec *until, struct timespec *end) {
    struct timespec now;
    int64_t left = STEP;
    clock_gettime(CLOCK_REALTIME, &now);
    if (until->tv_sec < now.tv_sec) left = 0;
    else if (until->tv_sec - now.tv_sec <= 1)
        left = (until->tv_sec - now.tv_sec) * SECOND + until->tv_nsec - now.tv_nsec;
    int last = left < STEP;
    clock_gettime(CLOCK_MONOTONIC, end);
    *end = later(*end, left < 0 ? 0 : last ? left : STEP);
    return last;
}

EXPORTED int sem_timedwait(sem_t *restrict semaphore, const struct timespec *restrict until) {
    for (;;) {
        struct timespec end;
        int last = step(until, &end), result = sem_clockwait(semaphore, CLOCK_MONOTONIC, &end);
        if (!result || errno != ETIMEDOUT || last) return result;
    }
}

/* After a step that is not the last it says that it was woken, as POSIX lets it: a signal may have come in between. */
EXPORTED int pthread_cond_timedwait(
    pthread_cond_t *restrict cond, pthread_mutex_t *restrict mutex, const struct timespec *restrict until
) {
    struct timespec end = *until;
    int last = cond->__data.__wrefs & COND_IS_MONOTONIC || step(until, &end);
    int error = pthread_cond_clockwait(cond, mutex, CLOCK_MONOTONIC, &end);
    return error == ETIMEDOUT && !last ? 0 : error;
}

EXPORTED long syscall(long number, ...) {
    long a[6];
    va_list rest;
    va_start(rest, number);
    for (int i = 0; i < 6; i++) a[i] = va_arg(rest, long);
    va_end(rest);
    int waits = number == SYS_futex && (a[1] & FUTEX_CMD_MASK) == FUTEX_WAIT_BITSET;
    if (!waits || !(a[1] & FUTEX_CLOCK_REALTIME) || !a[3])
        return REAL(syscall)(number, a[0], a[1], a[2], a[3], a[4], a[5]);
    for (;;) {
        struct timespec end;
        int last = step((const struct timespec *)a[3], &end);
        long result = REAL(syscall)(number, a[0], a[1] & ~FUTEX_CLOCK_REALTIME, a[2], &end, a[4], a[5]);
        if (!result || errno != ETIMEDOUT || last) return result;
    }
}
