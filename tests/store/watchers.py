"""Watchers for the claims about watching: what they were told, and what they should have been."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

from server.model.enums import DueKind, ReceiptKind, Stop
from server.model.errors import Exhausted
from server.model.facts import Receipted, Settled, Stopped
from server.model.messages import Event
from server.model.outcomes import Accepted, Receipt
from server.model.watching import Filter, LogCursor, MessageCursor
from server.store.store import Store
from tests.store.letters import letter, rows, started, until

EVERYTHING = Filter()
BEGINNING = LogCursor(0, 0, 0)
SEND = frozenset({DueKind.SEND})
TAKE_SECONDS = 20.0
Key = tuple[str, int]
Choose = Callable[[], Store]


def key(event: Event) -> Key:
    """What an event is known by."""
    return event.message_id, event.seq


def behind(event: Event) -> MessageCursor:
    """The place behind an event in its message's log."""
    return MessageCursor(event.message_id, event.seq, event.at)


async def log_of(store: Store, tenant: str, after: LogCursor = BEGINNING) -> list[Key]:
    """All events of a tenant behind a place, in the log's order."""
    place = f"({after.log_epoch}, {after.xid}, {after.id})"
    where = f"tenant_id = '{tenant}' AND (log_epoch, xid, id) > {place} ORDER BY log_epoch, xid, id"
    return [(row[0], row[1]) for row in await rows(store, f"SELECT message_id, seq FROM event WHERE {where}")]


async def send(store: Store, tenant: str, **changes: Any) -> str:
    """Accept a message; its id."""
    return (await store.accept(letter(tenant, **changes))).message.id


async def cancel(store: Store, message_id: str) -> None:
    """A second event, with which the message is done."""
    await store.apply(message_id, Stopped(Stop.CANCELED))


async def deliver(store: Store, tenant: str, **changes: Any) -> str:
    """Take a message to DELIVERED, as a dispatcher would: four events."""
    message = (await store.accept(letter(tenant, **changes))).message
    claims = await store.claim(message.message_class, SEND, 100)
    claim = next(claim for claim in claims if claim.case.message.id == message.id)
    await store.release([other for other in claims if other is not claim])
    await store.apply(message.id, started(claim))
    await store.apply(message.id, Settled(claim.hold, 1, Accepted("upstream-1")))
    await store.apply(message.id, Receipted(1, Receipt(ReceiptKind.DELIVERED)))
    return message.id


@asynccontextmanager
async def watching(
    store: Store, tenant: str, after: LogCursor | None, wanted: Filter = EVERYTHING, *, states_only: bool = False
) -> AsyncIterator["Told"]:
    """Watch a tenant while the block runs."""
    async with aclosing(store.watching.watch_tenant(tenant, wanted, after, states_only=states_only)) as batches:
        yield Told(batches)


async def all_of(store: Store, tenant: str, id_: str, after: MessageCursor | None = None) -> list[Event]:
    """A message's watch, to its end."""
    async with asyncio.timeout(20):
        watch = store.watching.watch_message(tenant, id_, after)
        return [event async for event in watch if isinstance(event, Event)]


class Told:
    """What a watcher of a tenant is told, as it comes."""

    def __init__(self, batches: AsyncIterator[tuple[LogCursor, list[Event]]]) -> None:
        self.events: list[Key] = []
        self.cursor = BEGINNING
        self._batches = batches

    async def more(self) -> list[Key]:
        """The next answer; [] for one without events."""
        async with asyncio.timeout(TAKE_SECONDS):
            self.cursor, events = await anext(self._batches)
        fresh = [key(event) for event in events]
        self.events += fresh
        return fresh

    async def until(self, count: int) -> list[Key]:
        """All events so far, once there are so many."""
        while len(self.events) < count:
            await self.more()
        return self.events


class Wanderer:
    """Watches a tenant, leaves at random in the middle of anything, and comes back by its cursor, to any store."""

    def __init__(self, tenant: str, choose: Choose, seed: int) -> None:
        self.tenant = tenant
        self.told: list[Key] = []
        self.start: LogCursor | None = None
        self.visits = 0
        self._cursor: LogCursor | None = None
        self._choose = choose
        self._random = random.Random(seed)

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            self.visits += 1
            try:
                async with asyncio.timeout(self._random.expovariate(4)):
                    await self._visit()
            except TimeoutError:
                await asyncio.sleep(self._random.random() / 20)
            except Exhausted:  # it lagged: its cursor is where it stood
                continue

    async def _visit(self) -> None:
        watch = self._choose().watching.watch_tenant(self.tenant, EVERYTHING, self._cursor)
        async with aclosing(watch) as batches:
            async for cursor, events in batches:
                self.start = self.start or cursor
                self._cursor = cursor
                self.told += [key(event) for event in events]


class Follower:
    """Watches one message until that ends by itself; leaves at random and comes back behind the last event."""

    def __init__(self, tenant: str, message_id: str, choose: Choose, seed: int) -> None:
        self.told: list[Key] = []
        self._tenant = tenant
        self._message_id = message_id
        self._cursor: MessageCursor | None = None
        self._choose = choose
        self._random = random.Random(seed)

    async def run(self) -> None:
        """Watch until the watch has ended."""
        while True:
            try:
                async with asyncio.timeout(self._random.expovariate(10)):
                    await self._visit()
                    return
            except TimeoutError:
                await asyncio.sleep(self._random.random() / 20)

    async def _visit(self) -> None:
        watch = self._choose().watching.watch_message(self._tenant, self._message_id, self._cursor)
        async with aclosing(watch) as events:
            async for event in events:
                assert isinstance(event, Event)
                self._cursor = behind(event)
                self.told.append(key(event))


async def everybody(
    stores: list[Store], tenants: tuple[str, ...], wanderers: list[Wanderer], messages: int
) -> list[Follower]:
    """Sixteen callers write while the wanderers watch; every seventh message has a follower. All are told all."""
    left = iter(range(messages))
    followers: list[Follower] = []
    following: list[asyncio.Task[None]] = []

    async def call(seed: int) -> None:
        chance = random.Random(seed)
        for n in left:
            store, tenant = chance.choice(stores), tenants[n % len(tenants)]
            id_ = await send(store, tenant)
            if n % 7 == 0:
                followers.append(Follower(tenant, id_, lambda: chance.choice(stores), n))
                following.append(asyncio.create_task(followers[-1].run()))
            await cancel(chance.choice(stores), id_)

    roaming = [asyncio.create_task(wanderer.run()) for wanderer in wanderers]
    try:
        async with asyncio.timeout(60):
            await until(lambda: all(wanderer.start for wanderer in wanderers))
            await asyncio.gather(*(call(n) for n in range(16)))
            await asyncio.gather(*following)
            for wanderer in wanderers:
                expected = await log_of(stores[0], wanderer.tenant, wanderer.start or BEGINNING)
                await until(lambda told=wanderer.told, expected=expected: len(told) >= len(expected))
    finally:
        for task in (*roaming, *following):
            task.cancel()
        await asyncio.gather(*roaming, *following, return_exceptions=True)
    return followers
