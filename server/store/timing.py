"""Notices when the database's clock has been set back, and has what was timed by it before timed anew."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import structlog
from sqlalchemy import Connection, text

from server.model.clock import SECOND, Micros
from server.model.conclude import Decision
from server.model.decide import Refused
from server.model.facts import ClockSetBack
from server.store.database import Database

SET_BACK_MIN: Micros = SECOND
"""Less is the measuring of it."""
BATCH_MAX = 500

_log = structlog.get_logger("store")


class Timing:
    """Compares the database's clock with this process's monotonic one. Nobody knows what it showed before the start."""

    def __init__(self, database: Database, apply: Callable[[str, ClockSetBack], Awaitable[Decision | Refused]]) -> None:
        self._database = database
        self._apply = apply
        self._offset: Micros | None = None

    async def keep(self) -> int:
        """Look at the clock, every second; how many messages were timed anew because it was set back."""
        before = _monotonic()
        now = await self._database.read(self._database.now)
        # It was read between two looks at the other clock, which may lie apart where this process stood still.
        offset, offset_max = now - _monotonic(), now - before
        kept = self._offset
        if kept is not None and kept - offset_max < SET_BACK_MIN:
            self._offset = offset
            return 0
        anew = await self._time_anew()
        self._offset = offset
        if kept is not None or anew:
            seconds = (kept - offset_max) / SECOND if kept is not None else None
            _log.warning("the database's clock was set back", seconds=seconds, messages=anew)
        return anew

    async def _time_anew(self) -> int:
        """Every unfinished message that was changed later than now."""
        anew, last = 0, ""
        while ids := await self._ahead(last):
            rulings = await asyncio.gather(*(self._apply(message_id, ClockSetBack()) for message_id in ids))
            anew += sum(isinstance(ruling, Decision) for ruling in rulings)
            last = ids[-1]
        return anew

    async def _ahead(self, last: str) -> list[str]:
        """The next of them behind the last one."""

        def read(connection: Connection) -> list[str]:
            values = {"now": self._database.now(connection), "last": last, "most": BATCH_MAX}
            return list(connection.execute(_AHEAD, values).scalars())

        return await self._database.read(read)


def _monotonic() -> Micros:
    return time.monotonic_ns() // 1000


_AHEAD = text(
    "SELECT message.id FROM due JOIN message ON message.id = due.message_id "
    "WHERE message.updated_at > :now AND message.id > :last ORDER BY message.id LIMIT :most"
)
