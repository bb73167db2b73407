"""Acceptance: durable, once for a key, and nobody pays for a neighbour."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import event

from server.model.enums import DueKind, MessageClass, State
from server.model.errors import AlreadyExists, Reason, Unavailable
from server.model.work import Acceptance, Claim
from server.store.store import Store
from tests.store.conftest import OpenStore
from tests.store.letters import TENANTS, accept_all, letter, rows, started, until

_SEND = frozenset({DueKind.SEND})


@asynccontextmanager
async def held_commit(store: Store) -> AsyncIterator[threading.Event]:
    """The writer stops in front of its next COMMIT until the block ends; the event is set once it stands there."""
    reached, gate = threading.Event(), threading.Event()

    def stand(_: object) -> None:
        reached.set()
        gate.wait(20)

    # It stays for the life of the engine: once the gate is open, it is nothing.
    event.listen(store._database._writer_engine, "commit", stand)
    try:
        yield reached
    finally:
        gate.set()


async def test_an_accepted_message_stands_with_its_event_its_tags_and_what_is_due(store: Store) -> None:
    """What accept answered is in the database: message, first event, tags and due row, its content sealed."""
    new = letter(tags=("spring", "sale"), reference="order-7")
    accepted = await store.accept(new)
    assert accepted.message.id == new.message.id
    assert not accepted.replayed
    case = await store.reading.message(TENANTS[0], tracking_id=new.message.id)
    assert case.message == accepted.message
    assert case.message.phone_index == store.keys.get(TENANTS[0]).index("+989120000111") != ""
    assert await rows(store, "SELECT seq, kind, state, done FROM event") == [(1, "STATE", "ACCEPTED", False)]
    assert sorted(await rows(store, "SELECT tag FROM message_tag")) == [("sale",), ("spring",)]
    assert await rows(store, "SELECT kind, worker, epoch, claims FROM due") == [("SEND", "", 0, 0)]
    sealed = (await rows(store, "SELECT body, recipient FROM message"))[0]
    assert all(new.content.text.encode() not in value and b"989120000111" not in value for value in sealed)


async def test_the_same_key_twice_in_one_flush_is_one_message(store: Store) -> None:
    """Two calls with one key that come together make one message; the second one is told so."""
    answers = await accept_all(store, [letter(request_id="r-1"), letter(request_id="r-1")])
    assert [answer.replayed for answer in answers] == [False, True]
    assert answers[0].message.id == answers[1].message.id
    assert len(await rows(store, "SELECT id FROM message")) == 1


async def test_the_same_key_in_a_later_flush_is_answered_with_the_message_as_it_stands(store: Store) -> None:
    """A repeat makes no second message and shows the current state, not the first answer's."""
    first = await store.accept(letter(request_id="r-1"))
    claim = (await store.claim(MessageClass.TRANSACTIONAL, _SEND, 1))[0]
    await store.apply(claim.case.message.id, started(claim))
    again = await store.accept(letter(request_id="r-1"))
    assert again.replayed
    assert again.message.id == first.message.id
    assert again.message.state == State.SENDING
    assert len(await rows(store, "SELECT id FROM message")) == 1


async def test_64_identical_calls_at_once_make_one_message(store: Store) -> None:
    """One key, one message, under any number of callers."""
    answers = await accept_all(store, [letter(request_id="r-1") for _ in range(64)])
    assert len({answer.message.id for answer in answers}) == 1
    assert sum(not answer.replayed for answer in answers) == 1
    assert len(await rows(store, "SELECT id FROM message")) == 1
    assert len(await rows(store, "SELECT id FROM event")) == 1


@pytest.mark.parametrize("together", [True, False])
async def test_another_request_under_the_same_key_is_refused(store: Store, *, together: bool) -> None:
    """The key of another request is taken, in the same flush and later; the first message's id is told."""
    first, other = letter(request_id="r-1"), letter(request_id="r-1", fingerprint=b"other")
    if together:
        answers = await accept_all(store, [first, other])
    else:
        answers = [*await accept_all(store, [first]), *await accept_all(store, [other])]
    assert isinstance(answers[0], Acceptance)
    assert isinstance(answers[1], AlreadyExists)
    assert answers[1].reason == Reason.REQUEST_ID_REUSED
    assert answers[1].metadata == {"tracking_id": first.message.id}
    assert len(await rows(store, "SELECT id FROM message")) == 1


async def test_a_key_is_a_tenants_and_a_clients_own(store: Store) -> None:
    """The same request_id of another tenant, client or kind is another key."""
    letters = [
        letter(request_id="r-1"),
        letter(TENANTS[1], request_id="r-1"),
        letter(request_id="r-1", client_id="billing"),
        letter(request_id="r-1", kind="check"),
    ]
    assert [answer.replayed for answer in await accept_all(store, letters)] == [False] * 4


async def test_flushes_in_opposite_key_order_do_not_deadlock(store: Store, another: OpenStore) -> None:
    """Two writers that are given the same keys in opposite order both answer, and each key has one message."""
    second = await another() if store.engine_name == "postgres" else store
    for turn in range(5):
        keys = [f"{turn}-{number:03}" for number in range(60)]
        both = await asyncio.gather(
            accept_all(store, [letter(request_id=key) for key in keys]),
            accept_all(second, [letter(request_id=key) for key in reversed(keys)]),
        )
        pairs = list(zip(both[0], reversed(both[1]), strict=True))
        assert all(one.message.id == other.message.id for one, other in pairs)
        assert all(one.replayed != other.replayed for one, other in pairs)
    assert len(await rows(store, "SELECT id FROM message")) == 300


@pytest.mark.parametrize("fault", ["unwritable text", "taken id", "tenant without a key"])
async def test_one_bad_row_fails_alone(store: Store, fault: str) -> None:
    """A row that can not be written fails its own call; its neighbours in the flush are accepted."""
    taken = (await store.accept(letter())).message.id
    bad = {
        "unwritable text": letter(request_id="bad", reference="\ud800"),
        "taken id": letter(request_id="bad", id=taken),
        "tenant without a key": letter("nobody", request_id="bad"),
    }[fault]
    letters = [letter(request_id=f"r-{number}") for number in range(10)]
    letters.insert(4, bad)
    answers = await accept_all(store, letters)
    assert isinstance(answers.pop(4), Exception)
    assert all(isinstance(answer, Acceptance) and not answer.replayed for answer in answers)
    assert len(await rows(store, "SELECT id FROM message")) == 11
    assert await rows(store, "SELECT message_id FROM idempotency WHERE request_id = 'bad'") == []


async def test_a_caller_that_leaves_in_the_middle_of_a_commit_has_its_message(store: Store) -> None:
    """A cancelled caller takes nothing back that is on its way: the message is there, its neighbour is answered."""
    new, neighbour = letter(request_id="r-1"), letter()
    async with held_commit(store) as reached:
        leaving = asyncio.create_task(store.accept(new))
        staying = asyncio.create_task(store.accept(neighbour))
        await until(reached.is_set)
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
    assert (await staying).message.id == neighbour.message.id
    assert (await store.accept(letter(request_id="r-1"))).message.id == new.message.id


async def test_what_is_not_committed_is_not_answered(store: Store) -> None:
    """No caller hears of its message before COMMIT has returned."""
    async with held_commit(store) as reached:
        waiting = asyncio.create_task(store.accept(letter()))
        await until(reached.is_set)
        await asyncio.sleep(0.05)
        assert not waiting.done()
    assert (await waiting).message.state == State.ACCEPTED


async def test_an_otp_overtakes_what_waits(store: Store) -> None:
    """While more callers wait than one flush takes, an OTP that comes last is in the first one."""
    order: list[MessageClass] = []

    async def accept(message_class: MessageClass) -> None:
        await store.accept(letter(message_class=message_class))
        order.append(message_class)

    async with held_commit(store) as reached:
        calls = [asyncio.create_task(accept(MessageClass.BULK))]
        await until(reached.is_set)
        calls += [asyncio.create_task(accept(MessageClass.BULK)) for _ in range(300)]
        await asyncio.sleep(0)
        calls.append(asyncio.create_task(accept(MessageClass.OTP)))
        await asyncio.sleep(0)
    await asyncio.gather(*calls)
    assert order.index(MessageClass.OTP) <= 200


async def test_a_lone_caller_never_waits_for_others(store: Store) -> None:
    """After a big flush and a pause, one call is written at once: the linger is for crowds."""
    await accept_all(store, [letter() for _ in range(100)])
    await asyncio.sleep(0.1)
    fastest = 1.0
    for _ in range(20):
        began = time.monotonic()
        await store.accept(letter())
        fastest = min(fastest, time.monotonic() - began)
    assert fastest < 0.008


async def test_a_scheduled_message_is_due_at_its_time_and_given_to_nobody(store: Store) -> None:
    """Room that was offered is not for messages of later; they fall due at their time."""
    assigned: list[Claim] = []
    store.on_assigned = assigned.append
    store.offer(MessageClass.TRANSACTIONAL, 5)
    later = time.time_ns() // 1000 + 60_000_000
    accepted = await store.accept(letter(schedule_at=later, state=State.SCHEDULED))
    assert accepted.message.state == State.SCHEDULED
    assert await rows(store, "SELECT due_at, worker FROM due") == [(later, "")]
    assert assigned == []
    assert await store.claim(MessageClass.TRANSACTIONAL, _SEND, 5) == []


async def test_offered_room_is_filled_in_the_flush_itself(store: Store) -> None:
    """As many as there is room for are this process's own at once, with their content; the others are for anybody."""
    assigned: list[Claim] = []
    store.on_assigned = assigned.append
    store.offer(MessageClass.TRANSACTIONAL, 3)
    letters = [letter(request_id=f"r-{number}") for number in range(5)]
    accepted = [answer.message for answer in await accept_all(store, letters)]
    await until(lambda: len(assigned) == 3)
    held = dict(await store.held())
    assert {claim.case.message.id: claim.hold for claim in assigned} == held
    assert all(claim.content == letters[0].content for claim in assigned)
    assert all(claim.case.message in accepted for claim in assigned)
    assert {(claim.hold.epoch, claim.case.message.due.claims) for claim in assigned if claim.case.message.due} == {
        (1, 1)
    }
    assert len(await store.claim(MessageClass.TRANSACTIONAL, _SEND, 9)) == 2
    await store.accept(letter())
    assert len(await store.held()) == 5


async def test_room_is_for_its_class_and_comes_back_when_a_key_was_used_before(store: Store) -> None:
    """A repeat takes no room, and neither does another class."""
    assigned: list[Claim] = []
    await store.accept(letter(request_id="r-1"))
    store.on_assigned = assigned.append
    store.offer(MessageClass.TRANSACTIONAL, 1)
    await store.accept(letter(request_id="r-1"))
    await store.accept(letter(message_class=MessageClass.BULK))
    assert await store.held() == []
    await store.accept(letter())
    await until(lambda: len(assigned) == 1)
    await store.accept(letter())
    assert len(await store.held()) == 1


async def test_a_closed_store_says_so(store: Store) -> None:
    """Whoever comes after the close is told to go elsewhere, and nothing hangs."""
    await store.close()
    with pytest.raises(Unavailable):
        await store.accept(letter())
