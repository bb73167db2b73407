"""The power cut that the other tests use drops what was not synced, keeps what was, and tells FULL from NORMAL."""

import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.proof.powercut import Disk

CUTS = 10
ANSWER_SECONDS = 20.0

WRITER = """
import sqlite3, sys
path, synchronous, first = sys.argv[1], sys.argv[2], int(sys.argv[3])
connection = sqlite3.connect(path, isolation_level=None)
connection.execute("PRAGMA journal_mode=WAL")
connection.execute(f"PRAGMA synchronous={synchronous}")
connection.execute("PRAGMA wal_autocheckpoint=40")
connection.execute("CREATE TABLE IF NOT EXISTS line (number INTEGER PRIMARY KEY, text TEXT)")
reader = sqlite3.connect(path)
number = first
while True:
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("INSERT INTO line VALUES (?, ?)", (number, "x" * (number % 3000)))
    connection.execute("COMMIT")
    print(number, flush=True)
    if number % 7 == 0:
        assert reader.execute("SELECT count(*) FROM line").fetchone()[0] >= number - first
    number += 1
"""


@dataclass(frozen=True)
class Cut:
    """One power cut: what had been acknowledged before it, and what is there after it."""

    acknowledged: Sequence[int]
    found: Sequence[int]

    @property
    def lost(self) -> set[int]:
        return {*self.acknowledged} - {*self.found}


def cut_writer(disk: Disk, synchronous: str, first: int, rows: int, seconds: float) -> list[int]:
    """The rows that a writer acknowledged; it is killed so long after the given number of them."""
    arguments = [sys.executable, "-c", WRITER, str(disk.folder / "lines.db"), synchronous, str(first)]
    with subprocess.Popen(
        arguments, env={**os.environ, **disk.environment}, stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        acknowledged = [int(writer.stdout.readline()) for _ in range(rows)]
        try:
            writer.wait(seconds)
        except subprocess.TimeoutExpired:
            writer.send_signal(signal.SIGKILL)
        left = writer.stdout.read()
    assert writer.returncode == -signal.SIGKILL, "the writer ended by itself"
    return acknowledged + [int(line) for line in left.splitlines(keepends=True) if line.endswith("\n")]


def rows_in(path: Path) -> list[int]:
    """What the database holds; it must be whole."""
    connection = sqlite3.connect(path)
    try:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        if not connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'line'").fetchone()[0]:
            return []
        return [number for (number,) in connection.execute("SELECT number FROM line ORDER BY number")]
    finally:
        connection.close()


def cuts(folder: Path, synchronous: str, early_permille: int, seed: int) -> list[Cut]:
    """Several cuts, each on what the one before had left."""
    dice = random.Random(seed)
    disk = Disk.under(folder, "disk-0", early_permille=early_permille, seed=seed)
    done: list[Cut] = []
    acknowledged: list[int] = []
    first = 1
    for number in range(1, CUTS + 1):
        acknowledged += cut_writer(disk, synchronous, first, dice.randrange(1, 120), dice.random() * 0.05)
        disk = disk.after_cut(f"disk-{number}", seed=seed + number)
        done.append(Cut(tuple(acknowledged), rows_in(disk.after_cut(f"look-{number}").folder / "lines.db")))
        acknowledged = [*done[-1].found]
        first = max(done[-1].found, default=0) + 1
    return done


@pytest.mark.parametrize("early_permille", [0, 300], ids=["nothing-early", "some-early"])
def test_full_loses_no_acknowledged_row(tmp_path: Path, early_permille: int) -> None:
    """With synchronous=FULL every row whose COMMIT had returned is there, and at most the one at work beside them."""
    done = cuts(tmp_path, "FULL", early_permille, seed=early_permille + 1)
    assert [cut.lost for cut in done] == [set()] * CUTS
    assert all(len({*cut.found} - {*cut.acknowledged}) <= 1 for cut in done)
    assert sum(len(cut.acknowledged) for cut in done) > CUTS


def test_normal_loses_acknowledged_rows(tmp_path: Path) -> None:
    """With synchronous=NORMAL acknowledged rows are gone: a power cut that is none would not tell the two apart."""
    done = cuts(tmp_path, "NORMAL", 0, seed=3)
    assert sum(bool(cut.lost) for cut in done) >= CUTS // 2


PRELUDE = """
import os, signal, socket, sys
path = lambda name: os.path.join(sys.argv[1], name)
opened = lambda name: os.open(path(name), os.O_RDWR | os.O_CREAT)
sync_folder = lambda: os.fsync(os.open(path(""), os.O_RDONLY))
def written(name, text):
    file = opened(name)
    os.write(file, text)
    return file
def synced(name, text=b"one"):
    file = written(name, text)
    os.fsync(file)
    return file
"""
SCRIPTS = {
    "written and not synced": ("written('a', b'one')", {}),
    "synced": ("synced('a')", {"a": b"one"}),
    "data synced": ("os.fdatasync(written('a', b'one'))", {"a": b"one"}),
    "written again after the sync": ("os.write(synced('a'), b'two')", {"a": b"one"}),
    "overwritten after the sync": ("os.pwrite(synced('a'), b'X', 1)", {"a": b"one"}),
    "synced by another descriptor": ("written('a', b'one'); os.fsync(opened('a'))", {"a": b"one"}),
    "another file synced": ("written('a', b'one'); synced('b')", {"a": b"", "b": b"one"}),
    "truncated and not synced": ("os.ftruncate(synced('a'), 1)", {"a": b"one"}),
    "truncated, grown and synced": (
        "w = synced('a'); os.ftruncate(w, 1); os.pwrite(w, b'!', 3); os.fsync(w)",
        {"a": b"o\0\0!"},
    ),
    "opened anew to be emptied": ("synced('a'); open(path('a'), 'w').close()", {"a": b"one"}),
    "emptied and synced": ("synced('a'); f = open(path('a'), 'w'); os.fsync(f.fileno())", {"a": b""}),
    "removed, the folder not synced": ("synced('a'); os.unlink(path('a'))", {"a": b"one"}),
    "removed, the folder synced": ("synced('a'); os.unlink(path('a')); sync_folder()", {}),
    "removed and made anew": ("os.close(synced('a')); os.unlink(path('a')); synced('a', b'x')", {"a": b"x"}),
    "renamed, the folder not synced": ("synced('a'); os.rename(path('a'), path('b'))", {"a": b"one"}),
    "renamed, the folder synced": ("synced('a'); os.rename(path('a'), path('b')); sync_folder()", {"b": b"one"}),
    "renamed over another": (
        "synced('a'); synced('b', b'two'); os.rename(path('a'), path('b')); sync_folder()",
        {"b": b"one"},
    ),
    "linked, written by the other name": (
        "synced('a'); os.link(path('a'), path('b')); sync_folder(); synced('b', b'two')",
        {"a": b"two", "b": b"two"},
    ),
    "the folder synced, the file not": ("written('a', b'one'); sync_folder()", {"a": b""}),
    "in a folder below": ("os.mkdir(path('x')); synced('x/a')", {"x/a": b"one"}),
    "a number of a descriptor that is used again": (
        "w = synced('a'); os.close(w); s, t = socket.socketpair(); assert w == s.fileno(); os.write(w, b'two')",
        {"a": b"one"},
    ),
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_cut_leaves_what_was_synced(tmp_path: Path, name: str) -> None:
    """Of contents what was synced, of names what a sync of a folder or of a new file took along."""
    script, expected = SCRIPTS[name]
    disk = Disk.under(tmp_path, "disk")
    program = f"{PRELUDE}\n{script}\nos.kill(os.getpid(), signal.SIGKILL)"
    ended = subprocess.run(
        [sys.executable, "-c", program, disk.folder],
        env={**os.environ, **disk.environment},
        timeout=ANSWER_SECONDS,
        check=False,
    )
    assert ended.returncode == -signal.SIGKILL
    left = {str(p.relative_to(disk.shadow)): p.read_bytes() for p in disk.shadow.rglob("*") if p.is_file()}
    assert left == expected


def test_some_writes_reach_the_disk_early_and_some_in_part(tmp_path: Path) -> None:
    """Asked to, the disk takes writes that nobody synced: whole, or some of their sectors."""
    disk = Disk.under(tmp_path, "disk", early_permille=500, seed=7)
    script = "w = opened('a'); os.fsync(w); [os.pwrite(w, b'x' * 4096, 4096 * n) for n in range(200)]"
    program = f"{PRELUDE}\n{script}\nos.kill(os.getpid(), signal.SIGKILL)"
    subprocess.run(
        [sys.executable, "-c", program, disk.folder],
        env={**os.environ, **disk.environment},
        timeout=ANSWER_SECONDS,
        check=False,
    )
    left = (disk.shadow / "a").read_bytes().ljust(200 * 4096, b"\0")
    pages = {left[at : at + 4096].count(b"x") for at in range(0, len(left), 4096)}
    assert {0, 4096} < pages
