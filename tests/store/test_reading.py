"""Reading: by id or by key, in pages, by every filter; and never another tenant's."""

import random
from dataclasses import replace

import pytest

from server.model.enums import Channel, DueKind, MessageClass, State
from server.model.errors import NotFound
from server.model.facts import Settled
from server.model.messages import Message
from server.model.outcomes import Accepted
from server.model.watching import Filter
from server.model.work import Beside, SandboxCopy
from server.store.reading import SandboxRecord
from server.store.store import Store
from tests.store.letters import TENANTS, accept_all, change, letter, started
from tests.store.watchers import SEND, cancel, deliver, send

NORTH, SOUTH, WEST = TENANTS
PHONE, OTHER_PHONE = "+989120000111", "+989120000112"


async def test_a_message_is_read_by_its_id_and_by_the_key_it_was_sent_under(store: Store) -> None:
    """Either way the same message, with its attempts and what is due."""
    id_ = await send(store, NORTH, request_id="order-1", tags=("a", "b"), reference="r")
    by_id = await store.reading.message(NORTH, tracking_id=id_)
    assert by_id == await store.reading.message(NORTH, client_id="shop", request_id="order-1")
    assert (by_id.message.id, by_id.message.tags, by_id.message.reference) == (id_, ("a", "b"), "r")
    assert by_id.message.due is not None
    assert by_id.message.due.kind == DueKind.SEND
    delivered = await deliver(store, NORTH)
    case = await store.reading.message(NORTH, tracking_id=delivered)
    assert [attempt.delivered for attempt in case.attempts] == [True]


async def test_what_is_another_tenants_does_not_exist(store: Store) -> None:
    """By id, by key, in lists, logs and the outbox: the same answers as for what was never there."""
    id_ = await send(store, NORTH, request_id="order-1", tags=("a",))
    unknown: list[NotFound] = []
    for tenant, named in (
        (SOUTH, {"tracking_id": id_}),
        (SOUTH, {"client_id": "shop", "request_id": "order-1"}),
        (NORTH, {"client_id": "other", "request_id": "order-1"}),
        (NORTH, {"client_id": "shop", "request_id": "order-2"}),
        (NORTH, {"tracking_id": "none"}),
        (NORTH, {}),
    ):
        with pytest.raises(NotFound) as refused:
            await store.reading.message(tenant, **named)
        unknown.append(refused.value)
    assert {(error.reason, tuple(error.metadata.items())) for error in unknown} == {
        ("RESOURCE_NOT_FOUND", (("resource", "message"),))
    }
    assert await store.reading.timeline(SOUTH, id_) == []
    for wanted in (Filter(), Filter(tracking_ids=frozenset({id_})), Filter(tags=frozenset({"a"}))):
        assert await store.reading.messages(SOUTH, wanted, limit=10) == []
    phone = store.keys.get(NORTH).index(PHONE)
    assert await store.reading.messages(SOUTH, Filter(phone_index=phone), limit=10) == []


async def test_pages_hold_everything_once_newest_first(store: Store) -> None:
    """Whatever the size of the pages, also while new messages come."""
    await accept_all(store, [letter(NORTH) for _ in range(23)])
    await accept_all(store, [letter(SOUTH) for _ in range(5)])
    ids = [message.id for message in await store.reading.messages(NORTH, Filter(), limit=100)]
    assert ids == sorted(ids, reverse=True)
    assert len(ids) == 23
    for size in (1, 7, 22, 23):
        found: list[str] = []
        while page := await store.reading.messages(NORTH, Filter(), before=found[-1] if found else "", limit=size):
            assert len(page) <= size
            found += [message.id for message in page]
            await send(store, NORTH)
        assert [id_ for id_ in found if id_ in ids] == ids


async def test_every_filter_finds_just_what_it_names(store: Store) -> None:
    """Fields are joined by AND, the values of a list by OR; judged against all messages read without a filter."""
    chance = random.Random(7)
    intents, tags, references = ("order", "login", "news"), ("a", "b", "c"), ("", "r1", "r2")
    for n in range(40):
        new = letter(
            NORTH,
            intent=chance.choice(intents),
            tags=tuple(chance.sample(tags, chance.randrange(3))),
            reference=chance.choice(references),
            client_id=chance.choice(("shop", "office")),
            message_class=chance.choice(tuple(MessageClass)),
        )
        recipient = replace(new.content.recipient, phone=chance.choice((PHONE, OTHER_PHONE)))
        accepted = await store.accept(replace(new, content=replace(new.content, recipient=recipient)))
        if n % 3 == 0:
            await cancel(store, accepted.message.id)
    await deliver(store, NORTH)
    everything = await store.reading.messages(NORTH, Filter(), limit=100)
    times = sorted(message.created_at for message in everything)
    index = store.keys.get(NORTH).index(PHONE)
    ids = frozenset(message.id for message in everything[:5])
    for wanted in (
        Filter(states=frozenset({State.CANCELED, State.DELIVERED})),
        Filter(intents=frozenset({"order", "news"})),
        Filter(tags=frozenset({"a", "c"})),
        Filter(tracking_ids=ids | {"none"}),
        Filter(reference="r1"),
        Filter(client_id="office"),
        Filter(phone_index=index),
        Filter(channel=Channel.SMS),
        Filter(provider="first"),
        Filter(message_class=MessageClass.BULK),
        Filter(created_min=times[10]),
        Filter(created_max=times[10]),
        Filter(created_min=times[5], created_max=times[30], intents=frozenset({"order"}), tags=frozenset({"a", "b"})),
        Filter(states=frozenset({State.ACCEPTED}), client_id="shop", phone_index=index),
    ):
        found = await store.reading.messages(NORTH, wanted, limit=100)
        assert found == [message for message in everything if _is_wanted(message, wanted)], wanted
        assert 0 < len(found) < len(everything), wanted


def _is_wanted(message: Message, wanted: Filter) -> bool:
    return (
        (not wanted.states or message.state in wanted.states)
        and (not wanted.intents or message.intent in wanted.intents)
        and (not wanted.tags or bool(wanted.tags & set(message.tags)))
        and (not wanted.tracking_ids or message.id in wanted.tracking_ids)
        and wanted.reference in ("", message.reference)
        and wanted.client_id in ("", message.client_id)
        and wanted.phone_index in ("", message.phone_index)
        and wanted.channel in (None, message.channel)
        and wanted.provider in ("", message.provider)
        and wanted.message_class in (None, message.message_class)
        and message.created_at >= wanted.created_min
        and (not wanted.created_max or message.created_at < wanted.created_max)
    )


async def _handed_off(store: Store, tenant: str, recipient: str) -> SandboxRecord:
    """A hand-off that the sandbox keeps a copy of."""
    message = (await store.accept(letter(tenant))).message
    claims = await store.claim(message.message_class, SEND, 100)
    claim = next(claim for claim in claims if claim.case.message.id == message.id)
    copy = SandboxCopy(1, Channel.SMS, "first", recipient, "Shop", "Your order is on its way.")
    await store.apply(message.id, started(claim))
    await store.apply(message.id, Settled(claim.hold, 1, Accepted("p")), Beside(copy))
    return SandboxRecord(message.id, copy, 0)


async def test_the_outbox_shows_what_was_handed_off(store: Store) -> None:
    """Newest first, in pages, of a message or to an address; of the tenant alone."""
    sent = [await _handed_off(store, NORTH, PHONE if n % 2 else OTHER_PHONE) for n in range(5)]
    await _handed_off(store, SOUTH, PHONE)
    page = await store.reading.outbox(NORTH, limit=2)
    rest = await store.reading.outbox(NORTH, before=page[-1].place, limit=9)
    assert [replace(record, created_at=0) for record in page + rest] == sent[::-1]
    assert [record.created_at for record in page + rest] == sorted((r.created_at for r in page + rest), reverse=True)
    to_phone = await store.reading.outbox(NORTH, phone=PHONE, limit=9)
    assert [record.tracking_id for record in to_phone] == [sent[3].tracking_id, sent[1].tracking_id]
    (one,) = await store.reading.outbox(NORTH, tracking_id=sent[2].tracking_id, limit=9)
    assert one.copy == sent[2].copy
    assert await store.reading.outbox(NORTH, email="nobody@example.test", limit=9) == []
    assert await store.reading.outbox(SOUTH, tracking_id=sent[2].tracking_id, limit=9) == []


async def test_a_copy_that_does_not_open_is_left_out(store: Store) -> None:
    """The others are shown all the same."""
    first, second = [await _handed_off(store, NORTH, PHONE) for _ in range(2)]
    await change(store, f"UPDATE sandbox_message SET attempt = 9 WHERE message_id = '{first.tracking_id}'")
    assert [record.tracking_id for record in await store.reading.outbox(NORTH, limit=9)] == [second.tracking_id]
