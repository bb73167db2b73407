"""Which workers are alive, and what becomes of what the dead ones held. No clocks are compared."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field

import structlog
from sqlalchemy import Connection, text

from server.model.conclude import Decision
from server.model.decide import Refused
from server.model.facts import WorkerLost
from server.store.claim import held_by
from server.store.database import Database

DEAD_AFTER_SECONDS = 4.0
BLIND_SECONDS = 2.5
"""After a longer pause between two looks (the database was away, or this process slept) nothing seen before counts."""

NO_BEAT = -1
"""Of a worker that holds something and has no row."""

_log = structlog.get_logger("store")


@dataclass(slots=True)
class Sightings:
    """What one process has seen of the others' beats, on its own monotonic clock."""

    looked_at: float = 0.0
    seen: dict[str, tuple[int, float]] = field(default_factory=dict[str, tuple[int, float]])

    def look(self, beats: Mapping[str, int], now: float) -> list[str]:
        """Take note of the beats; the workers whose beat has stood still for 4 s of steady looking."""
        steady = now - self.looked_at <= BLIND_SECONDS
        before = self.seen if steady else {}
        self.seen = {worker: _since(before.get(worker), beat, now) for worker, beat in beats.items()}
        self.looked_at = now
        return sorted(worker for worker, (_, since) in self.seen.items() if now - since >= DEAD_AFTER_SECONDS)


def _since(before: tuple[int, float] | None, beat: int, now: float) -> tuple[int, float]:
    return before if before is not None and before[0] == beat else (beat, now)


class Liveness:
    """The beat of a worker, and its look at the others'. `beating`: when it last committed one, by time.monotonic()."""

    def __init__(
        self, database: Database, boot_id: str, apply: Callable[[str, WorkerLost], Awaitable[Decision | Refused]]
    ) -> None:
        self.beating = 0.0
        self._database = database
        self._boot_id = boot_id
        self._apply = apply
        self._sightings = Sightings()

    async def beat(self) -> None:
        """Raise this worker's counter. A worker that was taken for dead is known again by it."""
        started = time.monotonic()
        await self._database.write(self._beat)
        self.beating = started

    async def sweep(self) -> int:
        """Take from the dead what they held, and forget them; how many messages that were.

        On Postgres a worker is dead whose beat has not moved for 4 s of this process's looking: call it every second.
        On SQLite every other worker is, because nobody else can hold the lock on the database.
        """
        beats = await self._database.read(self._read_beats)
        beats.pop(self._boot_id, None)
        dead = self._sightings.look(beats, time.monotonic()) if self._database.postgres else sorted(beats)
        return sum([await self._bury(worker) for worker in dead])

    async def leave(self) -> None:
        """Say that this worker ends; what it holds still is found by the others' sweeps."""
        await self._database.write(lambda connection: _forget(connection, self._boot_id))

    async def _bury(self, worker: str) -> int:
        held = await self._database.read(lambda connection: held_by(connection, worker))
        rulings = await asyncio.gather(*(self._apply(message_id, WorkerLost(hold)) for message_id, hold in held))
        taken = sum(isinstance(ruling, Decision) for ruling in rulings)
        await self._database.write(lambda connection: _forget(connection, worker))
        _log.warning("worker dead", worker=worker, messages=taken)
        return taken

    def _beat(self, connection: Connection) -> None:
        now = self._database.now(connection)
        connection.execute(_BEAT, {"worker": self._boot_id, "now": now})

    def _read_beats(self, connection: Connection) -> dict[str, int]:
        holding: Iterable[str] = connection.execute(_HOLDING).scalars()
        return dict.fromkeys(holding, NO_BEAT) | {row.boot_id: row.beat for row in connection.execute(_BEATS)}


def _forget(connection: Connection, worker: str) -> None:
    connection.execute(_FORGET, {"worker": worker})


_BEAT = text(
    "INSERT INTO worker (boot_id, beat, started_at) VALUES (:worker, 1, :now) "
    "ON CONFLICT (boot_id) DO UPDATE SET beat = worker.beat + 1"
)
_BEATS = text("SELECT boot_id, beat FROM worker")
# Jumps from worker to worker on the index, however much is due and held.
_HOLDING = text(
    "WITH RECURSIVE holding AS (SELECT (SELECT worker FROM due WHERE worker <> '' ORDER BY worker LIMIT 1) AS worker "
    "UNION ALL SELECT (SELECT worker FROM due WHERE worker <> '' AND worker > holding.worker ORDER BY worker LIMIT 1) "
    "FROM holding WHERE holding.worker IS NOT NULL) SELECT worker FROM holding WHERE worker IS NOT NULL"
)
_FORGET = text("DELETE FROM worker WHERE boot_id = :worker")
