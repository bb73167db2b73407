"""Claims: one holder at a time, in equal shares for the tenants, and nothing before its time."""

import asyncio
import time
from collections import Counter

from server.model.enums import DueKind, MessageClass
from server.model.facts import Postponed, Settled, WorkerLost
from server.model.outcomes import Accepted
from server.model.policy import POISON_CLAIMS
from server.store.store import Store
from tests.store.conftest import OpenStore
from tests.store.letters import TENANTS, accept_all, add_tenants, change, letter, rows, started

SEND = frozenset({DueKind.SEND})
FOLLOW = frozenset({DueKind.TIMER, DueKind.LOOK_UP, DueKind.POLL})
CLASS = MessageClass.TRANSACTIONAL


async def test_a_claim_brings_all_that_is_known(store: Store) -> None:
    """The message with its attempts and its content, held by this worker under a new epoch, and the database's time."""
    new = letter(tags=("a", "b"))
    await store.accept(new)
    (claim,) = await store.claim(CLASS, SEND, 5)
    assert claim.content == new.content
    assert claim.case.message.tags == ("a", "b")
    assert claim.case.message.due is not None
    assert claim.case.message.due.held_by(claim.hold)
    assert (claim.hold.worker, claim.hold.epoch) == (store.boot_id, 1)
    assert abs(claim.now - time.time_ns() // 1000) < 5_000_000
    assert await store.held() == [(new.message.id, claim.hold)]


async def test_nothing_is_claimed_twice(store: Store, another: OpenStore) -> None:
    """Two processes that claim at the same time share what is due; what one holds the other does not get."""
    other = await another() if store.engine_name == "postgres" else store
    ids = {answer.message.id for answer in await accept_all(store, [letter() for _ in range(200)])}
    claimed: list[str] = []
    while len(claimed) < 200:
        both = await asyncio.gather(store.claim(CLASS, SEND, 17), other.claim(CLASS, SEND, 17))
        claimed += [claim.case.message.id for claims in both for claim in claims]
    assert len(claimed) == len(set(claimed))
    assert set(claimed) == ids
    assert await store.claim(CLASS, SEND, 17) == []


async def test_a_flood_of_one_tenant_costs_the_others_nothing_but_a_turn(store: Store) -> None:
    """With a thousand messages of one tenant before theirs, the others are in the very next claim."""
    flood = [letter(TENANTS[0]) for _ in range(1000)]
    await accept_all(store, flood)
    await accept_all(store, [letter(tenant) for tenant in TENANTS[1:] for _ in range(2)])
    shares = Counter(claim.case.message.tenant_id for claim in await store.claim(CLASS, SEND, 30))
    assert shares == {TENANTS[0]: 26, TENANTS[1]: 2, TENANTS[2]: 2}


async def test_with_more_tenants_than_room_each_has_its_turn(store: Store) -> None:
    """Five tenants and room for two: after five claims each was served twice."""
    tenants = ["a", "b", "c", "d", "e"]
    await add_tenants(store, *tenants)
    await accept_all(store, [letter(tenant) for tenant in tenants for _ in range(10)])
    served = Counter[str]()
    for _ in range(5):
        served.update(claim.case.message.tenant_id for claim in await store.claim(CLASS, SEND, 2))
    assert served == dict.fromkeys(tenants, 2)


async def test_the_longest_due_goes_first(store: Store) -> None:
    """Within a tenant the order of claims is the order in which messages fell due."""
    ids = [(await store.accept(letter())).message.id for _ in range(5)]
    claimed = [claim.case.message.id for _ in range(5) for claim in await store.claim(CLASS, SEND, 1)]
    assert claimed == ids


async def test_only_what_was_asked_for_and_is_due_is_claimed(store: Store) -> None:
    """Other classes, other kinds and later times stay where they are."""
    await store.accept(letter(message_class=MessageClass.OTP))
    later = time.time_ns() // 1000 + 600_000_000
    await store.accept(letter(schedule_at=later))
    assert await store.claim(CLASS, SEND, 5) == []
    assert await store.claim(MessageClass.OTP, FOLLOW, 5) == []
    assert len(await store.claim(MessageClass.OTP, SEND, 5)) == 1


async def test_next_due_says_how_long_to_sleep(store: Store) -> None:
    """None with nothing to wait for, a span until the first that nobody holds, 0 once it is due."""
    assert await store.next_due(CLASS, SEND) is None
    later = time.time_ns() // 1000 + 60_000_000
    await store.accept(letter(TENANTS[1], schedule_at=later))
    await store.accept(letter(TENANTS[2], schedule_at=later + 60_000_000))
    wait = await store.next_due(CLASS, SEND)
    assert wait is not None
    assert 50_000_000 < wait <= 60_000_000
    await store.accept(letter())
    assert await store.next_due(CLASS, SEND) == 0
    assert await store.next_due(CLASS, FOLLOW) is None
    await store.claim(CLASS, SEND, 1)
    assert (await store.next_due(CLASS, SEND) or 0) > 50_000_000


async def test_what_is_given_back_may_be_taken_at_once(store: Store) -> None:
    """A release counts no claim, and nothing that has meanwhile been claimed by another is let go by it."""
    await store.accept(letter())
    (claim,) = await store.claim(CLASS, SEND, 1)
    await store.release([claim])
    assert await rows(store, "SELECT worker, epoch, claims FROM due") == [("", 1, 0)]
    (again,) = await store.claim(CLASS, SEND, 1)
    await store.release([claim])
    assert await store.held() == [(again.case.message.id, again.hold)]


async def test_only_claims_that_were_to_send_are_counted(store: Store) -> None:
    """Polls and timers die without harm: they never make a message a poison."""
    await store.accept(letter())
    (claim,) = await store.claim(CLASS, SEND, 1)
    await store.apply(claim.case.message.id, started(claim))
    await store.apply(claim.case.message.id, Settled(claim.hold, 1, Accepted("p-1")))
    await change(store, "UPDATE due SET due_at = 0")
    (poll,) = await store.claim(CLASS, FOLLOW, 1)
    assert poll.case.message.due is not None
    assert (poll.case.message.due.kind, poll.case.message.due.claims) == (DueKind.POLL, 0)


async def test_a_message_whose_claims_die_is_claimed_alone_and_ends(store: Store) -> None:
    """Twice it is claimed among others, then only alone, one at a time; the fifth death ends it as POISON."""
    poison = (await store.accept(letter())).message.id
    for _ in range(2):
        (claim,) = await store.claim(CLASS, SEND, 5)
        await store.apply(poison, WorkerLost(claim.hold))
    await store.accept(letter())
    assert [claim.case.message.id == poison for claim in await store.claim(CLASS, SEND, 5)] == [False]
    for _ in range(POISON_CLAIMS - 2):
        assert await store.next_due(CLASS, SEND) is None
        (claim,) = await store.claim(CLASS, SEND, 5, alone=True)
        assert claim.case.message.id == poison
        await store.apply(poison, WorkerLost(claim.hold))
    assert await rows(store, "SELECT state FROM message ORDER BY id LIMIT 1") == [("FAILED",)]
    assert await store.claim(CLASS, SEND, 5, alone=True) == []


async def test_content_that_was_erased_is_none(store: Store) -> None:
    """Such a message can still be claimed, so that it can be ended; it can not be sent."""
    await accept_all(store, [letter(), letter()])
    erased = "UPDATE message SET body = {0}, recipient = {0}"
    await change(store, erased.format("''::bytea" if store.engine_name == "postgres" else "x''"))
    assert [claim.content for claim in await store.claim(CLASS, SEND, 5)] == [None, None]


async def test_a_postponed_message_of_a_tenant_hides_no_other(store: Store) -> None:
    """A tenant whose first message is for later is served with its second, and none is forgotten."""
    ids = [(await store.accept(letter())).message.id for _ in range(2)]
    (first,) = await store.claim(CLASS, SEND, 1)
    await store.apply(first.case.message.id, Postponed(first.hold, first.now + 60_000_000))
    assert [claim.case.message.id for claim in await store.claim(CLASS, SEND, 5)] == ids[1:]
