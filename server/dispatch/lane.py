"""A lane: the sends of one class, so many at once. An OTP never waits behind bulk."""

import asyncio

import structlog

from server.dispatch.delivery import Delivery, wakes
from server.model.clock import SECOND
from server.model.conclude import Decision
from server.model.enums import DueKind, MessageClass
from server.model.work import Claim
from server.store.store import Store

IDLE_POLL_SECONDS = 0.25
LEAST_PAUSE_SECONDS = 0.02
ERROR_PAUSE_SECONDS = 1.0
SENDS = frozenset({DueKind.SEND})

_log = structlog.get_logger("dispatch")


class Lane:
    """Claims due sends of its class while it has room, and offers the store its free room while nothing is due."""

    def __init__(self, store: Store, delivery: Delivery, message_class: MessageClass, width: int) -> None:
        self.message_class = message_class
        self._store = store
        self._delivery = delivery
        self._width = width
        self._running: set[asyncio.Task[None]] = set()
        self.in_hand: set[str] = set()
        self._wake = asyncio.Event()
        self._idle = False
        self._draining = False

    @property
    def free(self) -> int:
        """How many more messages this lane can take up now."""
        return self._width - len(self._running)

    def wake(self) -> None:
        """Something may be due: look at once."""
        self._wake.set()

    def take(self, claim: Claim) -> None:
        """Begin with a message that was assigned to this process as it was accepted."""
        self.in_hand.add(claim.case.message.id)
        task = asyncio.create_task(self._carry(claim), name=f"deliver {claim.case.message.id}")
        self._running.add(task)
        task.add_done_callback(self._finished)

    async def run(self) -> None:
        """Claim and deliver until `drain`; a failing store only makes it pause."""
        while not self._draining:
            self._wake.clear()
            try:
                await self._turn()
            except Exception:  # noqa: BLE001 - the outermost loop of this task: it must outlive whatever a turn meets
                _log.exception("lane_turn_failed", message_class=self.message_class)
                await asyncio.sleep(ERROR_PAUSE_SECONDS)

    async def drain(self) -> None:
        """Take up nothing more, and wait for what is on its way."""
        self._draining = True
        self._store.offer(self.message_class, 0)
        self._wake.set()
        while self._running:
            await asyncio.wait(self._running)

    async def _turn(self) -> None:
        if self.free <= 0:
            await self._wait(IDLE_POLL_SECONDS)
            return
        room = self.free
        self._idle = False
        self._store.offer(self.message_class, 0)
        claims = await self._store.claim(self.message_class, SENDS, room)
        for claim in claims:
            self.take(claim)
        if len(claims) < room and not self._draining:
            self._idle = True
            self._store.offer(self.message_class, self.free)
            await self._wait(await self._pause_seconds())

    async def _pause_seconds(self) -> float:
        wait = await self._store.next_due(self.message_class, SENDS)
        return IDLE_POLL_SECONDS if wait is None else min(max(wait / SECOND, LEAST_PAUSE_SECONDS), IDLE_POLL_SECONDS)

    async def _wait(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            return

    async def _carry(self, claim: Claim) -> None:
        try:
            concluded = await self._delivery.deliver(claim)
        except Exception:  # noqa: BLE001 - the outermost frame of this task: the row stays held, and is found as a stray
            _log.exception("delivery_failed", tracking_id=claim.case.message.id)
            return
        finally:
            self.in_hand.discard(claim.case.message.id)
        if isinstance(concluded, Decision) and wakes(concluded):
            self._wake.set()

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if self._idle and not self._draining:
            self._store.offer(self.message_class, self.free)
        elif not self._running or self.free == 1:
            self._wake.set()
