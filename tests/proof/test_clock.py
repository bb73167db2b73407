"""The clock that the other tests move: every wall clock goes with it, and nothing does that lasts a span."""

import json
import os
import platform
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import psycopg
import pytest

from server.model.clock import SECOND
from server.store.database import Database
from tests.cluster import Cluster
from tests.proof import preload
from tests.proof.clock import Clock
from tests.proof.powercut import Disk

HOUR = 3600
MOVES = ((0, 0), (HOUR, HOUR), (-2 * HOUR, -HOUR), (HOUR, 0))
"""Seconds to move it by, and how far ahead it is then."""
SPAN = 0.3
EARLY = 0.02
"""A timer may end so much before its span, of seconds."""
ANSWER_SECONDS = 20.0
"""The most that anything takes on a busy machine: far from an hour."""
STILL_SECONDS = 1.0
"""Long enough to see that a wait has not ended."""
STEADY_CLOCKS = (time.monotonic_ns, lambda: time.clock_gettime_ns(time.CLOCK_BOOTTIME))
"""Those that no jump moves, in nanoseconds; all processes of a machine have them in common."""
FUTEX = {"x86_64": 202, "aarch64": 98}[platform.machine()]

TELL = """
import ctypes, datetime, json, sqlite3, sys, time
from server.store.database import Database
libc = ctypes.CDLL(None)
libc.time.restype = ctypes.c_long
CLOCK_REALTIME_COARSE = 5
database, sqlite = Database.open(sys.argv[1]), sqlite3.connect(":memory:")
def seconds(query):
    return sqlite.execute(f"SELECT {query}").fetchone()[0]
for _ in sys.stdin:
    wall = {
        "time": time.time() * 1e6,
        "time_ns": time.time_ns() // 1000,
        "datetime": datetime.datetime.now(datetime.UTC).timestamp() * 1e6,
        "coarse": time.clock_gettime(CLOCK_REALTIME_COARSE) * 1e6,
        "localtime": time.mktime(time.localtime()) * 1e6,
        "libc": libc.time(None) * 1e6,
        "julianday": (seconds("julianday('now')") - 2440587.5) * 86400e6,
        "strftime": seconds("strftime('%s', 'now') + 0") * 1e6,
        "server": database.read_here(database.now),
    }
    steady = [time.monotonic_ns(), time.clock_gettime_ns(time.CLOCK_BOOTTIME)]
    print(json.dumps([wall, steady]), flush=True)
"""

WAIT = """
import json, sys, time
def say(value): print(json.dumps(value), flush=True)
def moment(of_clock): return divmod(time.clock_gettime_ns(of_clock) + int({span} * 1e9), 10**9)
{preparation}
for _ in sys.stdin:
    began, until = time.monotonic(), moment(time.CLOCK_REALTIME)
    say("waiting")
    {wait}
    say(time.monotonic() - began)
"""
THREADS = "import concurrent.futures, queue, threading; lock = threading.Lock(); lock.acquire()"
FOREVER = """
import asyncio, uvloop
async def wait():
    try:
        await asyncio.wait_for(asyncio.Event().wait(), {span})
    except TimeoutError:
        pass
"""
CALL = """
import asyncio, grpc, socket
silent = socket.create_server(("127.0.0.1", 0))
address = f"127.0.0.1:{silent.getsockname()[1]}"
async def wait():
    async with grpc.aio.insecure_channel(address) as channel:
        try:
            await channel.unary_unary("/a.B/C")(b"", timeout={span}, wait_for_ready=True)
        except grpc.aio.AioRpcError as error:
            assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error
"""
PSYCOPG = """
import psycopg
connection = psycopg.connect(sys.argv[1], autocommit=True)
"""
CONDITION = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
ETIMEDOUT = 110
condition, mutex, attributes = (ctypes.create_string_buffer(64) for _ in range(3))
timespec = ctypes.c_long * 2
def wait_by_condition(until):
    libc.pthread_mutex_lock(mutex)
    while not (error := libc.pthread_cond_timedwait(condition, mutex, timespec(*until))):
        pass
    libc.pthread_mutex_unlock(mutex)
    assert error == ETIMEDOUT, error
"""
STEADY = f"""{CONDITION}
libc.pthread_condattr_init(attributes)
libc.pthread_condattr_setclock(attributes, time.CLOCK_MONOTONIC)
libc.pthread_cond_init(condition, attributes)
"""
MOMENT = f"""{CONDITION}
word, semaphore = ctypes.c_int(), ctypes.create_string_buffer(64)
libc.sem_init(semaphore, 0, 0)
bitset_private_realtime = 9 | 128 | 256
def wait_by_futex(until):
    timed_out = libc.syscall(
        {FUTEX}, ctypes.byref(word), bitset_private_realtime, 0, timespec(*until), None, ctypes.c_uint(2**32 - 1)
    )
    assert (timed_out, ctypes.get_errno()) == (-1, ETIMEDOUT)
def wait_by_semaphore(until):
    timed_out = libc.sem_timedwait(semaphore, timespec(*until))
    assert (timed_out, ctypes.get_errno()) == (-1, ETIMEDOUT)
"""
SPANS = {
    "sleep": ("", "time.sleep({span})"),
    "lock": (THREADS, "lock.acquire(timeout={span})"),
    "event": (THREADS, "threading.Event().wait({span})"),
    "queue": (THREADS, "try: queue.Queue().get(timeout={span})\n    except queue.Empty: pass"),
    "future": (THREADS, "concurrent.futures.wait([concurrent.futures.Future()], {span})"),
    "asyncio sleep": (FOREVER, "asyncio.run(asyncio.sleep({span}))"),
    "asyncio timeout": (FOREVER, "asyncio.run(wait())"),
    "uvloop sleep": (FOREVER, "uvloop.run(asyncio.sleep({span}))"),
    "uvloop timeout": (FOREVER, "uvloop.run(wait())"),
    "monotonic condition": (STEADY, "wait_by_condition(moment(time.CLOCK_MONOTONIC))"),
    "gRPC deadline": (CALL, "asyncio.run(wait())"),
    "psycopg notifies": (PSYCOPG, "assert not [*connection.notifies(timeout={span})]"),
    "psycopg query": (PSYCOPG, "connection.execute('SELECT pg_sleep({span})')"),
}
MOMENTS = {
    "semaphore": (MOMENT, "wait_by_semaphore(until)"),
    "condition": (MOMENT, "wait_by_condition(until)"),
    "futex": (MOMENT, "wait_by_futex(until)"),
}


class Program:
    """Python in a process of its own: for each line that it is told it says what it is asked for, in JSON."""

    def __init__(self, script: str, clock: Clock, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", script, *arguments],
            env={**os.environ, **clock.environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate(timeout=ANSWER_SECONDS)

    def tell(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")

    def hear(self, seconds: float = ANSWER_SECONDS) -> Any:
        """What it says next; None where it says nothing in this time."""
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], seconds)[0]:
            return None
        line = self._process.stdout.readline()
        assert line, f"it ended with {self._process.wait(ANSWER_SECONDS)}"
        return json.loads(line)

    def wait(self) -> None:
        """Have it wait, and return when it does."""
        self.tell()
        assert self.hear() == "waiting"


def waiting(wait: tuple[str, str], clock: Clock, *arguments: str, span: float = SPAN) -> Program:
    script = WAIT.replace("{preparation}", wait[0]).replace("{wait}", wait[1])
    return Program(script.replace("{span}", str(span)), clock, *arguments)


@pytest.fixture
def clock() -> Iterator[Clock]:
    with Clock() as right:
        yield right


class Bracket:
    """What may be read of clocks from when it was made to when it is asked; the wall clock is `ahead` seconds."""

    def __init__(self, ahead: int) -> None:
        self._ahead = ahead * SECOND
        self._steady = [read() for read in STEADY_CLOCKS]
        self._wall = time.time_ns() // 1000

    def holds(self, micros: float) -> bool:
        """Whether it is a time of the wall clock, which may have been cut to its second, or rounded to 1 ms."""
        now = time.time_ns() // 1000
        return self._wall - SECOND <= micros - self._ahead <= now + 1000

    def holds_steady(self, nanoseconds: list[int]) -> bool:
        now = [read() for read in STEADY_CLOCKS]
        return all(began <= at <= end for began, at, end in zip(self._steady, nanoseconds, now, strict=True))


def require_told(program: Program, clock: Clock, ahead: int) -> None:
    """All that it tells of the time of day is so far ahead, as the clock says, and all else is true."""
    bracket = Bracket(ahead)
    program.tell()
    wall, steady = program.hear()
    wall["clock"] = clock.now_micros()
    assert {name: micros for name, micros in wall.items() if not bracket.holds(micros)} == {}
    assert bracket.holds_steady(steady)


def test_python_and_sqlite_go_by_the_clock(tmp_path: Path, clock: Clock) -> None:
    """Python's, SQLite's and the server's time of day jump, and come right; the steady clocks never move."""
    with Program(TELL, clock, f"sqlite:///{tmp_path / 'a.db'}") as program:
        for move, ahead in MOVES:
            clock.jump(move)
            require_told(program, clock, ahead)
        clock.set(-HOUR)
        require_told(program, clock, -HOUR)
        clock.right()
        require_told(program, clock, 0)


def test_two_clocks_disagree_and_one_is_shared(tmp_path: Path, clock: Clock) -> None:
    """A clock is that of every process that was given it, and of no other."""
    urls = [f"sqlite:///{tmp_path / name}" for name in ("a.db", "b.db", "c.db")]
    with (
        Clock() as other,
        Program(TELL, clock, urls[0]) as one,
        Program(TELL, clock, urls[1]) as its_neighbour,
        Program(TELL, other, urls[2]) as another,
    ):
        clock.jump(HOUR)
        other.jump(-HOUR)
        require_told(one, clock, HOUR)
        require_told(its_neighbour, clock, HOUR)
        require_told(another, other, -HOUR)


async def test_postgres_goes_by_its_clock(clock: Clock) -> None:
    """The database's clock jumps, as the server reads it and for a transaction, on old connections and on new ones."""
    with Cluster(clock.environment) as cluster, cluster.connect() as old:
        database = Database.open(cluster.url("postgres"), readers=1)
        try:
            for move, ahead in MOVES:
                clock.jump(move)
                bracket = Bracket(ahead)
                with cluster.connect() as new:
                    told = [database.read_here(database.now), began(old), began(new)]
                assert [micros for micros in told if not bracket.holds(micros)] == []
        finally:
            await database.close()


def began(connection: psycopg.Connection) -> float:
    """When a transaction began, in microseconds of the database."""
    row = connection.execute("SELECT extract(epoch FROM now()) * 1000000").fetchone()
    assert row is not None
    return float(row[0])


@pytest.mark.parametrize("ahead", [HOUR, -HOUR], ids=["ahead", "back"])
@pytest.mark.parametrize("name", SPANS)
def test_a_span_lasts_as_long_when_the_clock_jumps(name: str, ahead: int, clock: Clock, cluster: Cluster) -> None:
    """Sleeps and timeouts neither end by a jump nor wait for one: before them, and while they last."""
    clock.set(-ahead)
    with waiting(SPANS[name], clock, f"host={cluster.folder} user=angarium dbname=postgres") as program:
        program.wait()
        clock.jump(2 * ahead)
        lasted = program.hear()
        assert lasted is not None
        assert lasted >= SPAN - EARLY


@pytest.mark.parametrize("ahead", [HOUR, -HOUR], ids=["ahead", "behind"])
@pytest.mark.parametrize("name", MOMENTS)
def test_a_wait_for_a_moment_goes_by_the_clock(name: str, ahead: int, clock: Clock) -> None:
    """Where the clock is an hour wrong and stays so, a wait up to its moment takes as long as on a right one."""
    clock.set(ahead)
    with waiting(MOMENTS[name], clock) as program:
        program.wait()
        lasted = program.hear()
        assert lasted is not None
        assert lasted >= SPAN - EARLY


@pytest.mark.parametrize("name", MOMENTS)
def test_a_moment_comes_when_the_clock_jumps_past_it(name: str, clock: Clock) -> None:
    """A wait up to a moment lasts on when the clock jumps back and comes right, and ends when it jumps over it."""
    with waiting(MOMENTS[name], clock, span=HOUR / 2) as program:
        program.wait()
        clock.jump(-HOUR)
        assert program.hear(STILL_SECONDS) is None
        clock.right()
        assert program.hear(STILL_SECONDS) is None
        clock.jump(HOUR)
        assert program.hear() is not None


def test_a_process_without_its_clock_does_not_run(clock: Clock) -> None:
    """Where the clock cannot be read the process ends and says so: it would go by the true time."""
    environment = {**os.environ, **clock.environment, "CLOCK_FILE": "/nowhere/clock"}
    ended = subprocess.run(["/bin/true"], env=environment, capture_output=True, timeout=ANSWER_SECONDS, check=False)
    assert ended.returncode == 127
    assert b"/nowhere/clock" in ended.stderr


@pytest.mark.parametrize("clock_first", [True, False], ids=["clock first", "disk first"])
def test_a_process_can_have_a_clock_and_a_disk(tmp_path: Path, clock: Clock, clock_first: bool) -> None:
    """Both libraries are in one process, in either order: its clock is moved, and its power can be cut."""
    disk = Disk.under(tmp_path, "disk")
    script = """if True:
        import os, signal, sys, time
        for name in ("synced", "lost"):
            file = os.open(os.path.join(sys.argv[1], name), os.O_RDWR | os.O_CREAT)
            os.write(file, b"%d" % (time.time_ns() // 1000))
            if name == "synced":
                os.fsync(file)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    both = (clock.environment, disk.environment) if clock_first else (disk.environment, clock.environment)
    clock.jump(HOUR)
    bracket = Bracket(HOUR)
    ended = subprocess.run(
        [sys.executable, "-c", script, disk.folder],
        env={**os.environ, **preload.together(*both)},
        timeout=ANSWER_SECONDS,
        check=False,
    )
    assert ended.returncode == -signal.SIGKILL
    assert [path.name for path in disk.shadow.iterdir()] == ["synced"]
    assert bracket.holds(int((disk.shadow / "synced").read_bytes()))
