"""A clock that a test moves: to the processes under `clock.c` the time of day is what is said here.

Processes that were given the environment of one clock have it in common, as those of one machine do. To have two that
disagree, give them two clocks.
"""

import mmap
import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from server.model.clock import SECOND, Micros
from tests.proof import preload

SOURCE = Path(__file__).with_suffix(".c")
NUMBER_SIZE = 8


class Clock:
    """Right at first; use as a context manager. A process that outlives it goes by what it was set to last.

    A move is seen at once by every thread of every process under it. Not for several threads to move.
    """

    def __init__(self) -> None:
        descriptor, path = tempfile.mkstemp(prefix="angarium-clock-", dir=preload.public_folder())
        self._path = Path(path)
        with os.fdopen(descriptor, "r+b") as file:
            os.fchmod(descriptor, 0o644)
            file.truncate(NUMBER_SIZE)
            self._map = mmap.mmap(descriptor, NUMBER_SIZE)
        # An item of a view is written in one go: no process reads half a move.
        self._ahead = memoryview(self._map).cast("q")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ahead.release()
        self._map.close()
        self._path.unlink()

    @property
    def environment(self) -> Mapping[str, str]:
        """The variables that a process needs to have this clock, as every user."""
        return preload.environment(SOURCE, CLOCK_FILE=str(self._path))

    def jump(self, seconds: float) -> None:
        """Move it by so much, from wherever it is: ahead, or back where that is negative."""
        self._ahead[0] += round(seconds * SECOND)

    def set(self, seconds: float) -> None:
        """Set it so much ahead of the true time, or behind where that is negative."""
        self._ahead[0] = round(seconds * SECOND)

    def right(self) -> None:
        """Set it to the true time."""
        self._ahead[0] = 0

    def now_micros(self) -> Micros:
        """What a process under it sees."""
        return time.time_ns() // 1000 + self._ahead[0]
