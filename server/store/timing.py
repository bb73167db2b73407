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
        now = await self._database.read(self._database.now)
        offset = now - time.monotonic_ns() // 1000
        back = 0 if self._offset is None else self._offset - offset
        if self._offset is not None and back < SET_BACK_MIN:
            self._offset = max(offset, self._offset)
            return 0
        anew = await self._time_anew()
        self._offset = offset
        if back or anew:
            _log.warning("the database's clock was set back", seconds=back / SECOND, messages=anew)
        return anew

    async def _time_anew(self) -> int:
        """Every message that was changed later than now."""
        anew = 0
        while ids := await self._database.read(self._ahead):
            rulings = await asyncio.gather(*(self._apply(message_id, ClockSetBack()) for message_id in ids))
            moved = sum(isinstance(ruling, Decision) for ruling in rulings)
            anew += moved
            if not moved:
                break
        return anew

    def _ahead(self, connection: Connection) -> list[str]:
        values = {"now": self._database.now(connection), "most": BATCH_MAX}
        return list(connection.execute(_AHEAD, values).scalars())


_AHEAD = text(
    "SELECT message.id FROM due JOIN message ON message.id = due.message_id "
    "WHERE message.updated_at > :now ORDER BY message.id LIMIT :most"
)
