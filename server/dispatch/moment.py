"""The database's clock, carried on by this process's monotonic one: no two wall clocks are ever compared."""

import time
from dataclasses import dataclass

from server.model.clock import SECOND, Micros


@dataclass(frozen=True, slots=True)
class Moment:
    """A reading of the database's clock, and when it was taken by time.monotonic()."""

    read: Micros
    taken: float

    def now(self) -> Micros:
        """What the database's clock says now, as far as this process can tell."""
        return self.read + int((time.monotonic() - self.taken) * SECOND)

    def when(self, at: Micros) -> float:
        """When the database's clock will say this, by time.monotonic()."""
        return self.taken + (at - self.read) / SECOND
