"""Callers who leave, and callers who do not read."""

import asyncio
import random

import grpc
from angarium.v1 import notification_service_pb2 as wire
from angarium.v1.message_pb2 import NotificationFilter
from grpc import StatusCode

from tests.api.edge import SECONDS, Edge, letter, refusal_of


async def test_who_leaves_in_the_middle_finds_one_message(edge: Edge) -> None:
    """Whenever a caller leaves, its message is kept whole or not at all; repeated, every key has one message."""
    keys = [f"key {n}" for n in range(40)]
    calls = [edge.operator.notifications.Send(letter(request_id=key)) for key in keys]
    chance = random.Random(7)
    for call in calls:
        await asyncio.sleep(chance.random() * 0.002)
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    answers = await asyncio.gather(*[edge.operator.notifications.Send(letter(request_id=key)) for key in keys])
    listed = await edge.operator.notifications.ListNotifications(wire.ListNotificationsRequest(page_size=1000))
    assert {n.request_id: n.tracking_id for n in listed.notifications} == dict(
        zip(keys, [answer.tracking_id for answer in answers], strict=True)
    )
    assert len(listed.notifications) == len(keys)


async def test_who_does_not_read_is_told_where_it_stands(sqlite_edge: Edge) -> None:
    """Row 61: a watcher that lags gets WATCH_LAGGED with its cursor; from there on nothing is missed or told twice."""
    slow = sqlite_edge.client(sqlite_edge.secret, ("grpc.http2.bdp_probe", 0))
    watch = wire.WatchStatusRequest(filter=NotificationFilter())
    stream = slow.notifications.WatchStatus(watch)
    await asyncio.wait_for(stream.read(), SECONDS)
    big = {"tags": [f"{n}" + "ش" * 55 for n in range(10)], "reference": "ش" * 255}
    sent: set[str] = set()
    for _ in range(40):
        calls = [sqlite_edge.operator.notifications.Send(letter(**big)) for _ in range(50)]
        sent |= {answer.tracking_id for answer in await asyncio.gather(*calls)}
    told: list[str] = []
    try:
        async for answer in stream:
            told += [event.tracking_id for event in answer.events]
    except grpc.aio.AioRpcError as error:
        refusal = refusal_of(error)
    assert (refusal.code, refusal.reason) == (StatusCode.RESOURCE_EXHAUSTED, "WATCH_LAGGED")
    assert len(told) < len(sent)
    watch.cursor = refusal.told["cursor"]
    rest = sqlite_edge.operator.notifications.WatchStatus(watch)
    async with asyncio.timeout(SECONDS):
        while len(told) < len(sent):
            told += [event.tracking_id for event in (await rest.read()).events]
    rest.cancel()
    assert (len(told), set(told)) == (len(sent), sent)
