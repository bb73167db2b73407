"""Watchers that come and go resume by their cursors and miss nothing, while many callers write."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

import grpc
from angarium.v1.message_pb2 import Notification, NotificationFilter, Recipient, StatusEvent
from angarium.v1.notification_service_pb2 import WatchStatusRequest, WatchStatusResponse

from server.model.enums import Channel
from server.model.magic import Fate, magic_destination
from tests.api.edge import Client, refusal_of
from tests.gateway import Callers, Gateway, GatewayProcess, eventually

CALLERS = 16
MESSAGES_PER_CALLER = 20
BY_FILTER, BY_ID = 25, 25
CONNECTIONS = 4
EVENTS_AT_MOST = 25
"""A watcher leaves after so many events at the latest."""
AWAY_SECONDS = 0.05

FATES = (Fate.DELIVERED, Fate.UNDELIVERED, Fate.REJECTED, Fate.OUT_OF_ORDER)
"""Without the lost answers: the sandbox type remembers them in its own process alone."""
STATES = (Notification.STATE_SENT, Notification.STATE_DELIVERED)
WANTED: Sequence[tuple[NotificationFilter, Callable[[StatusEvent], bool]]] = (
    (NotificationFilter(), lambda _: True),
    (NotificationFilter(tags=["even"]), lambda event: "even" in event.tags),
    (NotificationFilter(intents=["ORDER_3", "ORDER_4"]), lambda event: event.intent in ("ORDER_3", "ORDER_4")),
    (NotificationFilter(reference="5/7"), lambda event: event.reference == "5/7"),
    (NotificationFilter(states=STATES), lambda event: event.state in STATES),
)


class Watcher:
    """One stream after the other, each from the last one's cursor, at a replica that chance picks."""

    def __init__(self, stubs: Sequence[Client], request: WatchStatusRequest, chance: Random) -> None:
        self._stubs = stubs
        self._request = request
        self._chance = chance
        self.seen: list[StatusEvent] = []
        self.streams = 0

    @property
    def cursor(self) -> str:
        """Behind everything that was seen."""
        return self._request.cursor

    async def run(self) -> None:
        """Until a stream ends by itself."""
        ended = False
        while not ended:
            ended = await self._watch()

    async def _watch(self) -> bool:
        await asyncio.sleep(self._chance.random() * AWAY_SECONDS)
        left = self._chance.randint(1, EVENTS_AT_MOST)
        call = self._chance.choice(self._stubs).notifications.WatchStatus(self._request, timeout=60)
        try:
            async for answer in call:
                left -= self._keep(answer)
                if left <= 0:
                    return False
        except grpc.aio.AioRpcError as error:
            if refusal_of(error).reason != "WATCH_LAGGED":
                raise
            return False
        finally:
            self.streams += 1
            call.cancel()
        return True

    def _keep(self, answer: WatchStatusResponse) -> int:
        self.seen.extend(answer.events)
        self._request.cursor = answer.cursor
        return len(answer.events)


async def test_watchers_of_one_process_miss_nothing(gateway: Gateway) -> None:
    """Fifty watchers, by filter and by message, disconnect at random while sixteen callers write: no gap, no repeat."""
    await gateway.configure_sandbox()
    await watch_and_write([gateway])


async def test_watchers_of_two_processes_miss_nothing(tmp_path: Path, postgres_url: str) -> None:
    """As with one process, the callers writing to both and a cursor of either resumed at either."""
    async with GatewayProcess(tmp_path, url=postgres_url) as one, GatewayProcess(tmp_path, url=postgres_url) as other:
        await one.configure_sandbox()
        await has_heard(other)
        await watch_and_write([one, other])


async def watch_and_write(gateways: Sequence[Callers]) -> None:
    chance = Random(17)
    stubs = [gateway.another() for gateway in gateways for _ in range(CONNECTIONS)]
    followers = [
        Watcher(stubs, WatchStatusRequest(filter=WANTED[n % len(WANTED)][0]), Random(chance.random()))
        for n in range(BY_FILTER)
    ]
    async with asyncio.TaskGroup() as tasks:
        following = [tasks.create_task(follower.run()) for follower in followers]
        await eventually(lambda: all(follower.cursor for follower in followers))
        written = [tasks.create_task(write(gateways[n % len(gateways)], n)) for n in range(CALLERS)]
        ids = [tracking_id for writing in written for tracking_id in await writing]
        chosen = chance.sample(ids, BY_ID)
        readers = {i: Watcher(stubs, WatchStatusRequest(tracking_id=i), Random(chance.random())) for i in chosen}
        reading = [tasks.create_task(reader.run()) for reader in readers.values()]
        truth = await truth_of(gateways[0], ids)
        await asyncio.gather(*reading)
        for n, follower in enumerate(followers):
            wanted = [event for told in truth.values() for event in told if WANTED[n % len(WANTED)][1](event)]
            await eventually(lambda f=follower, w=wanted: len(f.seen) >= len(w))
        for task in following:
            task.cancel()
    for n, follower in enumerate(followers):
        require_all(follower, truth, WANTED[n % len(WANTED)][1])
    for tracking_id, reader in readers.items():
        assert reader.seen == truth[tracking_id]
    assert sum(follower.streams for follower in followers) > 5 * len(followers)


async def has_heard(replica: Callers) -> None:
    """Until it knows of the account that another replica made: within two seconds. What it sent by then is over."""
    made: list[str] = []

    async def accepts() -> bool:
        try:
            made.append(await replica.send(recipient=recipient_of(Fate.REJECTED)))
        except grpc.aio.AioRpcError as error:
            assert refusal_of(error).reason == "NO_ROUTE"  # noqa: PT017 - until then no other error is expected
            return False
        return True

    await eventually(accepts, 2)
    await replica.reach(made[0], "FAILED")


async def write(gateway: Callers, caller: int) -> list[str]:
    """One caller's messages, one after the other."""
    return [
        await gateway.send(
            intent=f"ORDER_{caller % 8}",
            reference=f"{caller}/{n}",
            tags=["even"] if n % 2 == 0 else ["odd"],
            recipient=recipient_of(FATES[(caller + n) % len(FATES)]),
        )
        for n in range(MESSAGES_PER_CALLER)
    ]


def recipient_of(fate: Fate) -> Recipient:
    return Recipient(phone=magic_destination(fate, Channel.SMS))


async def truth_of(gateway: Callers, ids: Sequence[str]) -> dict[str, list[StatusEvent]]:
    """Every message's events, numbered from 1 without a gap, once it is done."""
    ends = await asyncio.gather(*(gateway.until(i, lambda found: found.notification.done, 40) for i in ids))
    truth = {i: list(end.timeline) for i, end in zip(ids, ends, strict=True)}
    for told in truth.values():
        assert [event.sequence for event in told] == list(range(1, len(told) + 1))
    return truth


def require_all(follower: Watcher, truth: dict[str, list[StatusEvent]], wants: Callable[[StatusEvent], bool]) -> None:
    """It was told every event that it wants, once, each message's in order."""
    seen: defaultdict[str, list[StatusEvent]] = defaultdict(list)
    for event in follower.seen:
        seen[event.tracking_id].append(event)
    assert seen == {i: wanted for i, told in truth.items() if (wanted := [event for event in told if wants(event)])}
