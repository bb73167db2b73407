"""The processes of a run. Each takes a line of JSON on standard input and answers with one on standard output.

A child ends when its standard input does, so none outlives the run. What it costs is read from /proc.
"""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Timer
from typing import Any

import uvloop

ROOT = Path(__file__).parent.parent
START_SECONDS_MAX = 30.0
ANSWER_SECONDS_MAX = 90.0
STOP_SECONDS_MAX = 20.0
_TICKS = os.sysconf("SC_CLK_TCK")

Verbs = Mapping[str, Callable[..., Awaitable[Mapping[str, Any]]]]


class Child:
    """One process: a module of this folder. `ready` is what it said when it had started, `start_seconds` after."""

    def __init__(self, process: subprocess.Popen[bytes], began: float) -> None:
        self._process = process
        self.ready = self._line(START_SECONDS_MAX)
        self.start_seconds = time.perf_counter() - began

    def ask(self, verb: str, **values: object) -> dict[str, Any]:
        """Have it do something; its answer. Raises RuntimeError where it died or is not done in time."""
        assert self._process.stdin
        self._process.stdin.write(json.dumps({"verb": verb, **values}).encode() + b"\n")
        self._process.stdin.flush()
        return self._line(ANSWER_SECONDS_MAX)

    def cpu_seconds(self) -> float:
        """CPU time so far, all threads, user and system; in steps of 10 ms."""
        return sum(map(int, _stat(self._process.pid)[11:13])) / _TICKS

    def rss_mib(self) -> float:
        """Memory that is resident now."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024

    def end(self) -> None:
        """Close its input and wait for it."""
        assert self._process.stdin
        self._process.stdin.close()
        try:
            self._process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self._process.kill()

    def _line(self, seconds: float) -> dict[str, Any]:
        assert self._process.stdout
        late = Timer(seconds, self._process.kill)
        late.start()
        line = self._process.stdout.readline()
        late.cancel()
        if not line:
            raise RuntimeError(f"{self._process.args} ended, or was killed after saying nothing for {seconds:.0f} s.")
        return json.loads(line)


@contextmanager
def child(module: str, *arguments: object, **environment: str) -> Iterator[Child]:
    """Run `python -m bench.MODULE`, in a session of its own so that Ctrl-C reaches the run alone."""
    began = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-m", f"bench.{module}", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        try:
            started = Child(process, began)
            yield started
            started.end()
        finally:
            process.kill()


def tree_cpu_seconds(pid: int) -> float:
    """CPU time so far of a process and its children, with those that have ended."""
    stats = [stat for path in Path("/proc").glob("[0-9]*") if (stat := _stat(int(path.name)))]
    mine = [stat for stat in stats if int(stat[1]) == pid]
    return (sum(map(int, _stat(pid)[11:15])) + sum(int(tick) for stat in mine for tick in stat[11:13])) / _TICKS


def _stat(pid: int) -> list[str]:
    """What the kernel counts for a process, from its state on; nothing where it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


async def obey(verbs: Verbs, **ready: object) -> None:
    """A child's side: say `ready`, then do what it is told until its input ends."""
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    _say(ready)
    async for line in lines:
        order = json.loads(line)
        _say(await verbs[order.pop("verb")](**order))


def _say(answer: Mapping[str, object]) -> None:
    print(json.dumps(answer), flush=True)


def run(main: Callable[..., Awaitable[None]]) -> None:
    """A child's `main`, with the arguments of its command line, on uvloop."""
    uvloop.run(main(*sys.argv[1:]))  # type: ignore[arg-type]
