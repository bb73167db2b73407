"""All that goes on without a caller: the lanes, the followers, and what keeps the process alive among its peers."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from server.dispatch.delivery import Delivery
from server.dispatch.follow import Follower
from server.dispatch.insist import insist
from server.dispatch.lane import SENDS, Lane
from server.model.enums import MessageClass
from server.model.facts import WorkerLost
from server.model.messages import Hold
from server.model.work import Claim
from server.providers.roster import Roster
from server.store.store import Store

WIDTHS = {MessageClass.OTP: 64, MessageClass.TRANSACTIONAL: 64, MessageClass.BULK: 32}
BEAT_SECONDS = 1.0
SWEEP_SECONDS = 1.0
CONFIGURATION_SECONDS = 1.0
PRUNE_SECONDS = 60.0
STRAYS_SECONDS = 5.0
QUARANTINE_SECONDS = 1.0

_log = structlog.get_logger("dispatch")


class Dispatcher:
    """Runs from `start` to `drain`. Every task has this owner, which logs its end if it ends unasked."""

    def __init__(self, store: Store, roster: Roster) -> None:
        self._store = store
        self._delivery = Delivery(store, roster)
        self._lanes = {c: Lane(store, self._delivery, c, width) for c, width in WIDTHS.items()}
        self._followers = [Follower(store, roster, c, self.wake) for c in MessageClass]
        self._strays: set[tuple[str, Hold]] = set()
        self._quarantined: set[str] = set()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begin to beat and to claim."""
        await self._store.beat()
        self._store.on_assigned = self._assigned
        for lane in self._lanes.values():
            self._own(lane.run(), f"lane {lane.message_class}")
        for follower in self._followers:
            self._own(follower.run(), f"follow {follower.message_class}")
        self._own(_every(BEAT_SECONDS, self._store.beat), "beat")
        self._own(_every(SWEEP_SECONDS, self._sweep), "sweep")
        self._own(_every(CONFIGURATION_SECONDS, self._store.configuration.refresh_if_changed), "configuration")
        self._own(_every(PRUNE_SECONDS, self._store.prune), "prune")
        self._own(_every(STRAYS_SECONDS, self._find_strays), "strays")
        self._own(_every(QUARANTINE_SECONDS, self._deliver_suspects), "quarantine")

    def wake(self, message_class: MessageClass) -> None:
        """Something of this class may be due."""
        self._lanes[message_class].wake()

    async def drain(self, seconds: float) -> None:
        """Claim nothing more, finish what is on its way within `seconds`, and end.

        What is not finished by then is found by the next start, or by another process, as any dead worker's work is.
        """
        for follower in self._followers:
            follower.drain()
        try:
            async with asyncio.timeout(seconds):
                await asyncio.gather(*(lane.drain() for lane in self._lanes.values()))
        except TimeoutError:
            _log.warning("drain_timed_out", seconds=seconds)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _assigned(self, claim: Claim) -> None:
        self._lanes[claim.case.message.message_class].take(claim)

    async def _sweep(self) -> None:
        if await self._store.sweep():
            for lane in self._lanes.values():
                lane.wake()

    async def _deliver_suspects(self) -> None:
        """One message at a time whose claims keep dying: should it kill the process, it kills nothing else's work."""
        for message_class in MessageClass:
            for claim in await self._store.claim(message_class, SENDS, 1, alone=True):
                self._quarantined.add(claim.case.message.id)
                try:
                    await self._delivery.deliver(claim)
                finally:
                    self._quarantined.discard(claim.case.message.id)

    async def _find_strays(self) -> None:
        """Rows that this process holds unknowingly: the answer of a commit was lost. Seen twice, they go back."""
        held = set(await self._store.held())
        strays = {(message_id, hold) for message_id, hold in held if message_id not in self._in_hand()}
        for message_id, hold in strays & self._strays:
            await insist(self._store, message_id, WorkerLost(hold))
        self._strays = strays

    def _in_hand(self) -> set[str]:
        lanes = (message_id for lane in self._lanes.values() for message_id in lane.in_hand)
        followed = (message_id for follower in self._followers for message_id in follower.in_hand)
        return {*lanes, *followed, *self._quarantined}

    def _own(self, work: Awaitable[None], name: str) -> None:
        async def owned() -> None:
            await work

        task = asyncio.create_task(owned(), name=name)
        task.add_done_callback(_report_end)
        self._tasks.append(task)


async def _every(seconds: float, act: Callable[[], Awaitable[object]]) -> None:
    while True:
        try:
            await act()
        except Exception:  # noqa: BLE001 - the outermost loop of this task: a database that is away must not end the beat
            _log.exception("periodic_task_failed", task=asyncio.current_task().get_name())  # type: ignore[union-attr]
        await asyncio.sleep(seconds)


def _report_end(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        _log.critical("task_ended", task=task.get_name(), exc_info=task.exception())
