"""Where the gateway's own Python spends its time: cProfile in the event loop's thread and in the store's writer.

It counts wall-clock time while a function runs, waiting for the interpreter's lock included (a clock of CPU time costs
more than most functions), and makes short functions look dearer than they are: compare lines, not figures. What grpc
and uvloop do below Python is not seen. Python 3.11 only: newer ones profile one thread at a time.
"""

import cProfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from server.store.database import Database

ROOT = str(Path(__file__).parent.parent)
LOOP, WRITER = "event loop", "writer"
BUILTIN = "~"
IDLE = "SimpleQueue"
"""What the writer waits in while there is nothing to do."""

Function = tuple[str, int, str]


@dataclass(frozen=True, slots=True)
class Line:
    """One function: its calls, its own seconds with the built-in functions that it calls, and those with all it calls.

    Each time that a coroutine is resumed is a call.
    """

    where: str
    package: str
    calls: int
    own: float
    whole: float


class Profiles:
    """A profile of each of the two threads, from `start` to `stop`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._profiles: Mapping[str, cProfile.Profile] = {}

    async def start(self) -> dict[str, Any]:
        """Begin. A thread's profile is begun and ended by the thread itself."""
        self._profiles = {thread: cProfile.Profile() for thread in (LOOP, WRITER)}
        await self._database.write(lambda _: self._profiles[WRITER].enable())
        self._profiles[LOOP].enable()
        return {}

    async def stop(self) -> dict[str, Any]:
        """End; what each thread did, the functions with the most time of their own first."""
        self._profiles[LOOP].disable()
        await self._database.write(lambda _: self._profiles[WRITER].disable())
        return {thread: [asdict(line) for line in _lines(profile)] for thread, profile in self._profiles.items()}


def _lines(profile: cProfile.Profile) -> list[Line]:
    """Built-in functions have no place of their own: their time is their callers'."""
    profile.create_stats()
    stats: dict[Function, Any] = profile.stats
    own: Counter[Function] = Counter()
    for function, (_, _, seconds, _, callers) in stats.items():
        if IDLE in function[2]:
            continue
        if function[0] != BUILTIN:
            own[function] += seconds
            continue
        for caller, (_, _, called_seconds, _) in callers.items():
            own[caller] += called_seconds
    return [
        Line(_where(function), _package(function), stats[function][1], seconds, stats[function][3])
        for function, seconds in own.most_common()
        if function in stats
    ]


def _where(function: Function) -> str:
    file, line, name = function
    return f"{_short(file)}:{line} {name}" if line else name


def _package(function: Function) -> str:
    """The package; of ours the room, of the standard library the module."""
    parts = Path(_short(function[0])).with_suffix("").parts
    return "/".join(parts[:2]) if parts[0] == "server" else parts[0]


def _short(file: str) -> str:
    for root in ("site-packages/", f"{ROOT}/", "/python3.11/"):
        if root in file:
            return file.rpartition(root)[2]
    return file
