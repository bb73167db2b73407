"""A lane: the sends of one class, so many at once. An OTP never waits behind bulk."""

import asyncio

import structlog

from server.dispatch.delivery import Delivery
from server.dispatch.pace import ERROR_PAUSE_SECONDS, IDLE_POLL_SECONDS, pause_seconds
from server.model.enums import DueKind, MessageClass
from server.model.faults import trail_of
from server.model.messages import Hold
from server.model.work import Claim
from server.store.store import Store

SENDS = frozenset({DueKind.SEND})

_log = structlog.get_logger("dispatch")


class Lane:
    """Claims due sends of its class while it has room, and offers the store its free room while nothing is due."""

    def __init__(self, store: Store, delivery: Delivery, message_class: MessageClass, width: int) -> None:
        self.message_class = message_class
        self.in_hand: set[tuple[str, Hold]] = set()
        self._store = store
        self._delivery = delivery
        self._width = width
        self._running: set[asyncio.Task[None]] = set()
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
        """Begin with a message that is this process's; while draining it goes back untouched."""
        work = self._give_back(claim) if self._draining else self._carry(claim)
        self.in_hand.add((claim.case.message.id, claim.hold))
        task = asyncio.create_task(work, name=f"deliver {claim.case.message.id}")
        self._running.add(task)
        task.add_done_callback(self._finished)

    async def run(self) -> None:
        """Claim and deliver until `drain`; a failing store only makes it pause."""
        while not self._draining:
            self._wake.clear()
            try:
                await self._turn()
            except Exception as error:  # noqa: BLE001 - the outermost loop of this task: it must outlive a turn
                _log.error("a turn of the lane failed", message_class=self.message_class, trail=trail_of(error))
                await self._wait(ERROR_PAUSE_SECONDS)

    def drain(self) -> None:
        """Take up nothing more."""
        self._draining = True
        self._store.offer(self.message_class, 0)
        self._wake.set()

    async def finish(self) -> None:
        """Wait for what is on its way."""
        while self._running:
            await asyncio.wait(self._running)

    async def abandon(self) -> None:
        """End what is on its way where it stands; whoever takes it up next treats it as a dead worker's."""
        for task in self._running:
            task.cancel()
        await self.finish()

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
            await self._wait(pause_seconds(await self._store.next_due(self.message_class, SENDS)))

    async def _wait(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            return

    async def _carry(self, claim: Claim) -> None:
        try:
            again = await self._delivery.deliver(claim)
        except Exception as error:  # noqa: BLE001 - the outermost frame of this task: the row is found as a stray
            _log.error("a delivery failed", tracking_id=claim.case.message.id, trail=trail_of(error))
            return
        finally:
            self.in_hand.discard((claim.case.message.id, claim.hold))
        if again:
            self._wake.set()

    async def _give_back(self, claim: Claim) -> None:
        try:
            await self._store.release([claim])
        except Exception as error:  # noqa: BLE001 - the outermost frame of this task: the next start finds the row
            _log.error("a claim was not given back", tracking_id=claim.case.message.id, trail=trail_of(error))
        finally:
            self.in_hand.discard((claim.case.message.id, claim.hold))

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if self._draining:
            return
        if self._idle:
            self._store.offer(self.message_class, self.free)
        elif not self._running or self.free == 1:
            self._wake.set()
