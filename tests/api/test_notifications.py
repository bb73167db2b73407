"""NotificationService, by real stubs, on both engines."""

import asyncio
import time
from typing import Any

import pytest
from angarium.v1 import notification_service_pb2 as wire
from angarium.v1.message_pb2 import (
    CHANNEL_SMS,
    MESSAGE_CLASS_OTP,
    MESSAGE_CLASS_TRANSACTIONAL,
    Notification,
    NotificationFilter,
    StatusEvent,
)
from angarium.v1.provider_service_pb2 import ConfigureProviderRequest
from google.protobuf.duration_pb2 import Duration
from grpc import StatusCode

from server.model.enums import Channel, DueKind, MessageClass
from server.model.facts import Opening, Settled, Started
from server.model.messages import Follow
from server.model.outcomes import ambiguous
from tests.api.edge import SECONDS, Edge, letter, refused, soon, to


async def next_of(stream: Any) -> Any:
    return await asyncio.wait_for(stream.read(), SECONDS)


async def test_send_answers_with_a_place_to_watch_from(edge: Edge) -> None:
    """A message is accepted with its times and a cursor, behind which its next event stands."""
    sent = await edge.operator.notifications.Send(letter(ttl=Duration(seconds=90)))
    assert sent.state == Notification.STATE_ACCEPTED
    assert sent.expire_time.ToMicroseconds() - sent.create_time.ToMicroseconds() == 90_000_000
    stream = edge.operator.notifications.WatchStatus(
        wire.WatchStatusRequest(tracking_id=sent.tracking_id, cursor=sent.cursor)
    )
    first = await next_of(stream)
    assert (first.notification.tracking_id, list(first.events)) == (sent.tracking_id, [])
    await edge.operator.notifications.Cancel(wire.CancelRequest(tracking_id=sent.tracking_id))
    told = [event async for answer in stream for event in answer.events]
    assert [(event.sequence, event.state, event.done) for event in told] == [(2, Notification.STATE_CANCELED, True)]


async def test_the_same_again_is_the_same_message(edge: Edge) -> None:
    """Callers with one key at once make one message; each is told its id and whether it was there before."""
    calls = [edge.operator.notifications.Send(letter(request_id="once")) for _ in range(20)]
    answers = await asyncio.gather(*calls)
    assert len({answer.tracking_id for answer in answers}) == 1
    assert sum(not answer.replayed for answer in answers) == 1
    await edge.operator.notifications.Cancel(wire.CancelRequest(tracking_id=answers[0].tracking_id))
    later = await edge.operator.notifications.Send(letter(request_id="once"))
    assert (later.replayed, later.state) == (True, Notification.STATE_CANCELED)
    rest = edge.operator.notifications.WatchStatus(
        wire.WatchStatusRequest(tracking_id=later.tracking_id, cursor=later.cursor)
    )
    assert [list(answer.events) for answer in [answer async for answer in rest]] == [[]]


@pytest.mark.parametrize(
    "changed",
    [
        {"text": "Other."},
        {"intent": "OTHER"},
        {"sender": "SHOP"},
        {"reference": "r"},
        {"tags": ["t"]},
        {"channel": CHANNEL_SMS},
        {"message_class": MESSAGE_CLASS_OTP},
        {"ttl": Duration(seconds=60)},
        {"on_unconfirmed": wire.SendRequest.ON_UNCONFIRMED_SEND_AGAIN},
        {"schedule_time": soon(600)},
        {"recipient": to(phone="09120000112").recipient},
    ],
    ids=lambda changed: next(iter(changed)),
)
async def test_whatever_is_asked_differently_is_another_request(sqlite_edge: Edge, changed: dict[str, Any]) -> None:
    """Every field of a Send counts for its fingerprint."""
    await sqlite_edge.operator.notifications.Send(letter(request_id="k"))
    assert (await refused(sqlite_edge.operator.notifications.Send(letter(request_id="k", **changed)))).reason == (
        "REQUEST_ID_REUSED"
    )


async def test_the_same_said_otherwise_is_the_same_request(sqlite_edge: Edge) -> None:
    """Defaults that are spelled out, and another spelling of the number, change nothing."""
    await sqlite_edge.operator.notifications.Send(letter(request_id="k"))
    same = letter(
        request_id="k",
        recipient=to(phone="+98 912 000 0111").recipient,
        message_class=MESSAGE_CLASS_TRANSACTIONAL,
        on_unconfirmed=wire.SendRequest.ON_UNCONFIRMED_STAY,
        ttl=Duration(seconds=3600),
    )
    assert (await sqlite_edge.operator.notifications.Send(same)).replayed


async def test_a_repeat_is_answered_though_the_world_has_moved_on(edge: Edge) -> None:
    """A repeat is the first message, though no route is left and its time is past; another request is refused still."""
    asked = letter(request_id="k", schedule_time=soon(-58))
    first = await edge.operator.notifications.Send(asked)
    await edge.operator.providers.ConfigureProvider(ConfigureProviderRequest(name="sandbox", is_active=False))
    await asyncio.sleep(max(0.0, asked.schedule_time.seconds + 61 - time.time()))
    again = await edge.operator.notifications.Send(asked)
    assert (again.tracking_id, again.replayed) == (first.tracking_id, True)
    other = letter(request_id="k", schedule_time=asked.schedule_time, text="Other.")
    assert (await refused(edge.operator.notifications.Send(other))).reason == "REQUEST_ID_REUSED"
    fresh = letter(request_id="l", schedule_time=asked.schedule_time)
    assert (await refused(edge.operator.notifications.Send(fresh))).fields == ("schedule_time",)


async def test_a_fingerprint_gives_no_code_away(sqlite_edge: Edge) -> None:
    """What is kept of two equal requests of two tenants differs: nobody can try all codes against it."""
    await sqlite_edge.tenant("mall")
    for tenant in ("", "mall"):
        await sqlite_edge.operator.notifications.Send(letter(tenant_id=tenant, request_id="k", text="Code 1234"))
    rows = await sqlite_edge.store._database.read(
        lambda c: c.exec_driver_sql("SELECT fingerprint FROM idempotency").all()
    )
    assert len({row[0] for row in rows}) == 2


async def test_send_and_watch_ends_when_it_is_done(edge: Edge) -> None:
    """The first answer holds the message and its events, the last its end; a repeat tells all of it from the start."""
    asked = wire.SendAndWatchRequest(send=letter(request_id="w"))
    stream = edge.operator.notifications.SendAndWatch(asked)
    first = await next_of(stream)
    assert (first.notification.state, first.replayed) == (Notification.STATE_ACCEPTED, False)
    assert [event.sequence for event in first.events] == [1]
    await edge.operator.notifications.Cancel(wire.CancelRequest(tracking_id=first.notification.tracking_id))
    rest = [event async for answer in stream for event in answer.events]
    assert [(event.sequence, event.done) for event in rest] == [(2, True)]
    again = [answer async for answer in edge.operator.notifications.SendAndWatch(asked)]
    assert (len(again), again[0].replayed) == (1, True)
    assert [event.sequence for event in again[0].events] == [1, 2]


async def test_a_scheduled_message_waits(edge: Edge) -> None:
    """A message for later is SCHEDULED, and its life counts from then."""
    at = soon(3600)
    sent = await edge.operator.notifications.Send(letter(schedule_time=at, ttl=Duration(seconds=60)))
    assert sent.state == Notification.STATE_SCHEDULED
    assert sent.expire_time.seconds == at.seconds + 60


async def test_status_is_of_one_moment(edge: Edge) -> None:
    """However a message moves while it is asked for: state, timeline and cursor go together."""
    operator = edge.operator.notifications
    sent = [(await operator.Send(letter())).tracking_id for _ in range(20)]
    cancels = asyncio.gather(*[operator.Cancel(wire.CancelRequest(tracking_id=id_)) for id_ in sent])
    answers: list[wire.GetStatusResponse] = []
    while not cancels.done():
        asks = [operator.GetStatus(wire.GetStatusRequest(tracking_id=id_)) for id_ in sent * 4]
        answers += await asyncio.gather(*asks)
    await cancels
    for answer in answers:
        assert answer.timeline[-1].state == answer.notification.state


async def test_a_doubt_that_nobody_pursues_cannot_be_canceled(edge: Edge) -> None:
    """UNCONFIRMED, given up, and only a receipt awaited: NOTHING_TO_CANCEL, as nothing would be different."""
    operator, store = edge.operator.notifications, edge.store
    sent = await operator.Send(letter())
    claim = (await store.claim(MessageClass.TRANSACTIONAL, frozenset({DueKind.SEND}), 1))[0]
    account = store.configuration.snapshot.accounts["default"][0]
    opening = Opening(
        step=1,
        channel=Channel.SMS,
        account=account.name,
        account_uid=account.uid,
        destination=0,
        provider_key=7,
        deadline=claim.now + 8_000_000,
        follow=Follow(pushes=True),
    )
    await store.apply(sent.tracking_id, Started(claim.hold, (opening,)))
    await store.apply(sent.tracking_id, Settled(claim.hold, 1, ambiguous("NO_ANSWER")))
    await store._database.write(lambda c: c.exec_driver_sql("UPDATE attempt SET given_up = true"))
    refusal = await refused(operator.Cancel(wire.CancelRequest(tracking_id=sent.tracking_id)))
    assert (refusal.code, refusal.reason) == (StatusCode.FAILED_PRECONDITION, "NOTHING_TO_CANCEL")
    assert refusal.told == {"state": "UNCONFIRMED"}


async def test_status_tells_all_that_is_known(edge: Edge) -> None:
    """By id and by key the same is told; of the address only a hint."""
    sent = await edge.operator.notifications.Send(
        letter(request_id="s", reference="order 7", tags=["vip", "vip", "web"], text="Paid.")
    )
    by_id = await edge.operator.notifications.GetStatus(wire.GetStatusRequest(tracking_id=sent.tracking_id))
    by_key = await edge.operator.notifications.GetStatus(wire.GetStatusRequest(request_id="s"))
    told = by_id.notification
    assert by_id == by_key
    assert (told.tenant_id, told.client_id, told.request_id) == ("default", "operator", "s")
    assert (told.reference, list(told.tags), told.segments) == ("order 7", ["vip", "web"], 1)
    assert told.recipient_hint == "+98•••••0111"
    assert b"9120000111" not in by_id.SerializeToString()
    assert [(event.kind, event.sequence) for event in by_id.timeline] == [(StatusEvent.KIND_STATE, 1)]
    assert by_id.cursor == sent.cursor


async def test_another_clients_key_is_not_ones_own(edge: Edge) -> None:
    """A request id is looked up among the messages of one's own client account."""
    await edge.operator.notifications.Send(letter(request_id="mine"))
    other = await edge.key("read")
    refusal = await refused(other.notifications.GetStatus(wire.GetStatusRequest(request_id="mine")))
    assert refusal.reason == "RESOURCE_NOT_FOUND"
    assert refusal.told == {"resource": "notification"}


async def test_watching_a_filter_resumes_without_a_gap(edge: Edge) -> None:
    """From the list's cursor on nothing is missed; from a stream's cursor on nothing comes twice."""
    wanted = NotificationFilter(tags=["vip"])
    listed = await edge.operator.notifications.ListNotifications(wire.ListNotificationsRequest(filter=wanted))
    sent = [(await edge.operator.notifications.Send(letter(tags=["vip"]))).tracking_id for _ in range(3)]
    await edge.operator.notifications.Send(letter(tags=["web"]))
    watch = wire.WatchStatusRequest(filter=wanted, cursor=listed.cursor)
    told, cursor = await events_of(edge, watch, 3)
    assert [event.tracking_id for event in told] == sent
    sent.append((await edge.operator.notifications.Send(letter(tags=["vip"]))).tracking_id)
    told, _ = await events_of(edge, wire.WatchStatusRequest(filter=wanted, cursor=cursor), 1)
    assert [event.tracking_id for event in told] == sent[3:]


async def events_of(edge: Edge, watch: wire.WatchStatusRequest, count: int) -> tuple[list[StatusEvent], str]:
    """So many events, and the cursor behind them."""
    stream = edge.operator.notifications.WatchStatus(watch)
    told: list[StatusEvent] = []
    async with asyncio.timeout(SECONDS):
        while len(told) < count:
            answer = await stream.read()
            told += answer.events
    stream.cancel()
    return told, answer.cursor


async def test_a_watch_without_a_cursor_begins_now(edge: Edge) -> None:
    """The first answer of a filter's watch is a cursor; what happened before is not told."""
    await edge.operator.notifications.Send(letter())
    stream = edge.operator.notifications.WatchStatus(wire.WatchStatusRequest(filter=NotificationFilter()))
    first = await next_of(stream)
    assert (list(first.events), bool(first.cursor)) == ([], True)
    sent = await edge.operator.notifications.Send(letter())
    answer = await next_of(stream)
    while not answer.events:
        answer = await next_of(stream)
    assert [event.tracking_id for event in answer.events] == [sent.tracking_id]
    stream.cancel()


async def test_pages_hold_every_message_once(edge: Edge) -> None:
    """Pages go from the newest to the oldest; a token fits its filter alone; the size is clamped."""
    sent = [(await edge.operator.notifications.Send(letter(tags=[str(n % 2)]))).tracking_id for n in range(7)]
    pages: list[list[str]] = []
    request = wire.ListNotificationsRequest(page_size=3)
    while not pages or request.page_token:
        answer = await edge.operator.notifications.ListNotifications(request)
        pages.append([n.tracking_id for n in answer.notifications])
        assert bool(answer.cursor) == (len(pages) == 1)
        request.page_token = answer.next_page_token
    assert [len(page) for page in pages] == [3, 3, 1]
    assert [tracking_id for page in pages for tracking_id in page] == sent[::-1]
    first = await edge.operator.notifications.ListNotifications(wire.ListNotificationsRequest(page_size=3))
    other = wire.ListNotificationsRequest(filter=NotificationFilter(tags=["1"]), page_token=first.next_page_token)
    assert (await refused(edge.operator.notifications.ListNotifications(other))).reason == "PAGE_TOKEN_INVALID"
    all_of_them = await edge.operator.notifications.ListNotifications(wire.ListNotificationsRequest(page_size=5000))
    assert len(all_of_them.notifications) == 7


async def test_a_filter_finds_by_phone_however_it_is_typed(edge: Edge) -> None:
    """A number is found by any spelling; another is not."""
    sent = await edge.operator.notifications.Send(letter())
    await edge.operator.notifications.Send(to(phone="09120000112"))
    wanted = NotificationFilter(phone="0098 912 000 0111", states=[Notification.STATE_ACCEPTED], client_id="operator")
    found = await edge.operator.notifications.ListNotifications(wire.ListNotificationsRequest(filter=wanted))
    assert [n.tracking_id for n in found.notifications] == [sent.tracking_id]
