"""All that goes on without a caller: the lanes, the followers, and what keeps the process alive among its peers."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine

import structlog

from server.dispatch.delivery import Delivery
from server.dispatch.follow import Follower
from server.dispatch.insist import insist
from server.dispatch.lane import SENDS, Lane
from server.model.enums import MessageClass
from server.model.facts import WorkerLost
from server.model.faults import trail_of
from server.model.messages import Hold
from server.model.reporting import ReportTo, nowhere
from server.model.work import Claim
from server.providers.roster import Roster
from server.store.store import Store

WIDTHS = {MessageClass.OTP: 64, MessageClass.TRANSACTIONAL: 64, MessageClass.BULK: 32}
BEAT_SECONDS = 1.0
SWEEP_SECONDS = 1.0
CLOCK_SECONDS = 1.0
CONFIGURATION_SECONDS = 1.0
PRUNE_SECONDS = 60.0
PRUNE_PAUSE_SECONDS = 0.05
"""Between two helpings, so that callers get their turn at the writer."""
PRUNES_MAX = 1_000
STRAYS_SECONDS = 5.0
QUARANTINE_SECONDS = 1.0
RECEIPTS_SECONDS = 5.0

_log = structlog.get_logger("dispatch")


class Dispatcher:
    """Runs from `start` to `drain`. Every task has this owner, which logs its end if it ends unasked."""

    def __init__(self, store: Store, roster: Roster, report_to: ReportTo = nowhere) -> None:
        self._store = store
        self._delivery = Delivery(store, roster, report_to)
        self._lanes = {c: Lane(store, self._delivery, c, width) for c, width in WIDTHS.items()}
        self._followers = [Follower(store, roster, c, self.wake) for c in MessageClass]
        self._strays: set[tuple[str, Hold]] = set()
        self._quarantined: set[tuple[str, Hold]] = set()
        self._claiming: list[asyncio.Task[None]] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = asyncio.Event()

    async def start(self) -> None:
        """Begin to beat and to claim."""
        await self._store.beat()
        self._store.on_assigned = self._assigned
        for room in (*self._lanes.values(), *self._followers):
            self._claiming.append(_owned(room.run(), f"{type(room).__name__} {room.message_class}"))
        self._claiming.append(_owned(self._deliver_suspects(), "quarantine"))
        self._every("beat", BEAT_SECONDS, self._store.beat)
        self._every("sweep", SWEEP_SECONDS, self._sweep)
        self._every("clock", CLOCK_SECONDS, self._keep_time)
        self._every("configuration", CONFIGURATION_SECONDS, self._store.configuration.refresh_if_changed)
        self._every("prune", PRUNE_SECONDS, self._prune)
        self._every("strays", STRAYS_SECONDS, self._find_strays)
        self._every("receipts", RECEIPTS_SECONDS, self._store.sweep_receipts)

    def wake(self, message_class: MessageClass) -> None:
        """Something of this class may be due."""
        self._lanes[message_class].wake()

    async def drain(self, seconds: float) -> None:
        """Claim nothing more, finish what is on its way within `seconds`, and end.

        What is not finished by then is found by the next start, or by another process, as any dead worker's work is.
        """
        self._stopping.set()
        rooms = [*self._lanes.values(), *self._followers]
        for room in rooms:
            room.drain()
        try:
            async with asyncio.timeout(seconds):
                await asyncio.gather(*self._claiming, return_exceptions=True)
                await asyncio.gather(*(room.finish() for room in rooms))
        except TimeoutError:
            _log.warning("the drain timed out", seconds=seconds)
        for task in (*self._claiming, *self._tasks):
            task.cancel()
        await asyncio.gather(*(room.abandon() for room in rooms))
        await asyncio.gather(*self._claiming, *self._tasks, return_exceptions=True)

    def _assigned(self, claim: Claim) -> None:
        self._lanes[claim.case.message.message_class].take(claim)

    async def _sweep(self) -> None:
        if await self._store.sweep():
            for lane in self._lanes.values():
                lane.wake()

    async def _keep_time(self) -> None:
        if await self._store.keep_time():
            for lane in self._lanes.values():
                lane.wake()

    async def _prune(self) -> None:
        for _ in range(PRUNES_MAX):
            if not await self._store.prune():
                return
            await asyncio.sleep(PRUNE_PAUSE_SECONDS)

    async def _deliver_suspects(self) -> None:
        """One message at a time whose claims keep dying: should it kill the process, it kills nothing else's work."""
        while not self._stopping.is_set():
            for message_class in MessageClass:
                await self._deliver_suspect(message_class)
            await self._rest(QUARANTINE_SECONDS)

    async def _rest(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return

    async def _deliver_suspect(self, message_class: MessageClass) -> None:
        try:
            for claim in await self._store.claim(message_class, SENDS, 1, alone=True):
                self._quarantined.add((claim.case.message.id, claim.hold))
                await self._delivery.deliver(claim)
        except Exception as error:  # noqa: BLE001 - the outermost frame of this work: the next suspect must have its turn
            _log.error("a suspect could not be delivered", trail=trail_of(error))
        finally:
            self._quarantined.clear()

    async def _find_strays(self) -> None:
        """Rows that this process holds unknowingly: the answer of a commit was lost. Seen twice, they go back."""
        strays = set(await self._store.held()) - self._in_hand()
        for message_id, hold in strays & self._strays:
            await insist(self._store, message_id, WorkerLost(hold))
        self._strays = strays

    def _in_hand(self) -> set[tuple[str, Hold]]:
        rooms = (*self._lanes.values(), *self._followers)
        return self._quarantined.union(*(room.in_hand for room in rooms))

    def _every(self, name: str, seconds: float, act: Callable[[], Awaitable[object]]) -> None:
        self._tasks.append(_owned(_every(name, seconds, act), name))


def _owned(work: Coroutine[None, None, None], name: str) -> asyncio.Task[None]:
    task = asyncio.create_task(work, name=name)
    task.add_done_callback(_report_end)
    return task


async def _every(name: str, seconds: float, act: Callable[[], Awaitable[object]]) -> None:
    while True:
        try:
            await act()
        except Exception as error:  # noqa: BLE001 - the outermost loop of this task: a database that is away must not end it
            _log.error("a periodic task failed", task=name, trail=trail_of(error))
        await asyncio.sleep(seconds)


def _report_end(task: asyncio.Task[None]) -> None:
    error = None if task.cancelled() else task.exception()
    if error is not None:
        _log.critical("a task ended", task=task.get_name(), trail=trail_of(error))
