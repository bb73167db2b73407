"""Receipts that providers post: early, late, twice, in any order, of nobody and by nobody; each does what it may."""

import asyncio
import time

import pytest

from server.model.clock import HOUR, MINUTE
from server.model.conclude import Decision
from server.model.decide import Refused
from server.model.enums import DueKind, EventKind, MessageClass, OutcomeKind, ReceiptKind, State
from server.model.facts import LookedUp, Settled, WorkerLost
from server.model.outcomes import Accepted, Found, ambiguous
from server.store import receipts
from server.store.store import Store
from tests.store.conftest import OpenStore
from tests.store.letters import TENANTS, change, everything, rows
from tests.store.posts import (
    DELIVERED,
    ON_ITS_WAY,
    OTHER_UID,
    SEND,
    UID,
    UNDELIVERED,
    add_accounts,
    attempt_of,
    begun,
    case_of,
    claimed,
    post,
    start_of,
    waiting,
)


@pytest.fixture(autouse=True)
async def accounts(store: Store) -> None:
    """Two accounts with one provider."""
    await add_accounts(store, UID, OTHER_UID)


async def test_a_receipt_by_its_url_ends_an_attempt_whose_answer_has_not_come(store: Store) -> None:
    """The attempt has the id from it; the answer, when it comes, changes nothing that is known better."""
    claim = await begun(store)
    assert isinstance(await post(store, "p-1", DELIVERED, claim), Decision)
    assert (await attempt_of(store, claim)).provider_message_id == "p-1"
    await store.apply(claim.case.message.id, Settled(claim.hold, 1, ambiguous()))
    case = await case_of(store, claim)
    assert (case.message.state, case.message.done) == (State.DELIVERED, True)
    assert (case.attempts[0].outcome, case.attempts[0].provider_message_id) == (OutcomeKind.ACCEPTED, "p-1")
    assert await waiting(store) == []


async def test_a_receipt_that_outruns_the_answer_waits_and_is_applied_with_it(store: Store) -> None:
    """Nobody knows its id; the answer brings it, and the message is delivered in the same transaction, in one event."""
    claim = await begun(store)
    assert await post(store, "p-1", DELIVERED) is None
    assert await waiting(store) == [(UID, "p-1", "DELIVERED")]
    assert await rows(store, "SELECT tenant_id FROM receipt_inbox") == [(TENANTS[0],)]
    ruling = await store.apply(claim.case.message.id, Settled(claim.hold, 1, Accepted("p-1")))
    assert isinstance(ruling, Decision)
    assert [(e.kind, e.state, e.done) for e in ruling.events] == [(EventKind.ATTEMPT_ENDED, State.DELIVERED, True)]
    assert await waiting(store) == []


async def test_what_waits_is_applied_when_a_look_up_finds_the_message(store: Store) -> None:
    """The answer was lost, its receipt waits: the look-up brings the id, and the receipt with it."""
    claim = await begun(store, steps=1)
    await store.apply(claim.case.message.id, Settled(claim.hold, 1, ambiguous()))
    await post(store, "p-1", UNDELIVERED)
    ruling = await store.apply(claim.case.message.id, LookedUp(claim.hold, 1, Found("p-1")))
    assert isinstance(ruling, Decision)
    assert ruling.message.due is not None
    assert ruling.message.due.kind == DueKind.SEND
    attempt = await attempt_of(store, claim)
    assert (attempt.receipt, attempt.failure) == (ReceiptKind.UNDELIVERED, UNDELIVERED.failure)
    assert await waiting(store) == []


async def test_what_waits_is_applied_when_another_receipt_brings_the_id(store: Store) -> None:
    """One came without a URL of ours, a later one by it: both are applied."""
    claim = await begun(store)
    await post(store, "p-1", DELIVERED)
    await post(store, "p-1", ON_ITS_WAY, claim)
    assert (await attempt_of(store, claim)).delivered
    assert await waiting(store) == []


async def test_of_two_that_wait_for_one_id_the_better_one_stands(store: Store) -> None:
    """Undelivered and delivered, in either order."""
    for number, order in enumerate(((UNDELIVERED, DELIVERED), (DELIVERED, UNDELIVERED))):
        claim = await begun(store)
        for receipt in order:
            await post(store, f"p-{number}", receipt)
        await store.apply(claim.case.message.id, Settled(claim.hold, 1, Accepted(f"p-{number}")))
        assert (await case_of(store, claim)).message.state == State.DELIVERED
    assert await waiting(store) == []


async def test_a_late_receipt_corrects_what_is_done_and_the_same_again_changes_nothing(store: Store) -> None:
    """UNDELIVERED becomes DELIVERED by one event, whatever comes after it."""
    claim = await begun(store)
    await store.apply(claim.case.message.id, Settled(claim.hold, 1, Accepted("p-1")))
    await post(store, "p-1", UNDELIVERED)
    assert (await case_of(store, claim)).message.done
    await post(store, "p-1", DELIVERED)
    after = await everything(store)
    for receipt in (DELIVERED, UNDELIVERED, ON_ITS_WAY):
        assert await post(store, "p-1", receipt) == Refused("SAME")
        assert await post(store, "p-1", receipt, claim) == Refused("SAME")
    assert await everything(store) == after
    assert [row[0] for row in await rows(store, "SELECT state FROM event ORDER BY seq")][-1] == "DELIVERED"


async def test_a_url_counts_for_its_own_account_alone(store: Store) -> None:
    """Whoever may post for one account says nothing of another's attempt, and what it says waits for its own."""
    claim = await begun(store)
    before = await everything(store)
    assert await post(store, "p-1", DELIVERED, claim, uid=OTHER_UID) is None
    assert await post(store, "p-1", DELIVERED, claim, number=2) is None
    assert await everything(store) == before
    assert await waiting(store) == [(UID, "p-1", "DELIVERED"), (OTHER_UID, "p-1", "DELIVERED")]
    await store.apply(claim.case.message.id, Settled(claim.hold, 1, Accepted("p-2")))
    assert (await case_of(store, claim)).message.state == State.SENT


async def test_a_url_is_not_believed_against_a_known_id(store: Store) -> None:
    """A receipt with another id by the URL of this attempt belongs to the message with that id, or waits."""
    first, second = await begun(store), await begun(store)
    for number, claim in enumerate((first, second), 1):
        await store.apply(claim.case.message.id, Settled(claim.hold, 1, Accepted(f"p-{number}")))
    await post(store, "p-2", UNDELIVERED, first)
    assert await post(store, "p-3", DELIVERED, first) is None
    assert (await case_of(store, first)).message.state == State.SENT
    assert (await case_of(store, second)).message.state == State.UNDELIVERED
    assert await waiting(store) == [(UID, "p-3", "DELIVERED")]


async def test_two_ids_by_one_url_at_once_are_not_both_believed(store: Store) -> None:
    """Posted side by side for an attempt in flight: the first one is its id, the other one waits."""
    claim = await begun(store)
    rulings = await asyncio.gather(*(post(store, f"p-{n}", UNDELIVERED, claim) for n in (1, 2)))
    assert [isinstance(ruling, Decision) for ruling in rulings] == [True, False]
    assert (await attempt_of(store, claim)).provider_message_id == "p-1"
    assert await waiting(store) == [(UID, "p-2", "UNDELIVERED")]


async def test_of_two_messages_with_one_id_the_later_one_is_meant(store: Store) -> None:
    """A provider that counts anew, as after a restore, reports on what it took last."""
    claims = [await begun(store), await begun(store)]
    for claim in claims:
        await store.apply(claim.case.message.id, Settled(claim.hold, 1, Accepted("p-1")))
    await post(store, "p-1", DELIVERED)
    assert [(await case_of(store, claim)).message.state for claim in claims] == [State.SENT, State.DELIVERED]


async def test_what_would_tell_nothing_is_not_kept(store: Store) -> None:
    """Of unknown messages: what is no end, what has no id, and what is of an account that is gone."""
    assert await post(store, "p-1", ON_ITS_WAY) is None
    assert await post(store, "", DELIVERED) is None
    assert await post(store, "p-1", DELIVERED, uid="uid-gone") is None
    assert await waiting(store) == []


async def test_a_receipt_without_an_id_counts_by_its_url(store: Store) -> None:
    """Some providers name none."""
    claim = await begun(store)
    await store.apply(claim.case.message.id, Settled(claim.hold, 1, Accepted("p-1")))
    await post(store, "", DELIVERED, claim)
    assert (await case_of(store, claim)).message.state == State.DELIVERED
    assert (await attempt_of(store, claim)).provider_message_id == "p-1"


async def test_posts_of_many_messages_share_their_commits(store: Store) -> None:
    """A hundred at once cost a few transactions."""
    claims = await claimed(store, 100)
    await asyncio.gather(*(store.apply(claim.case.message.id, start_of(claim)) for claim in claims))
    commits: list[None] = []
    store._database.on_commit.append(lambda: commits.append(None))
    rulings = await asyncio.gather(*(post(store, f"p-{n}", DELIVERED, claim) for n, claim in enumerate(claims)))
    assert all(isinstance(ruling, Decision) for ruling in rulings)
    assert len(commits) <= 3


async def test_a_sweep_joins_what_slipped_past_the_answer(store: Store) -> None:
    """What lies in the inbox although its attempt is known is applied and gone; what is unknown stays."""
    claim = await begun(store)
    await store.apply(claim.case.message.id, Settled(claim.hold, 1, Accepted("p-1")))
    await lay(store, {"p-1": 0, "p-9": 0})
    assert await store.sweep_receipts() == 1
    assert (await case_of(store, claim)).message.state == State.DELIVERED
    assert await waiting(store) == [(UID, "p-9", "DELIVERED")]
    assert await store.sweep_receipts() == 0


async def test_a_sweep_that_came_too_early_leaves_it_to_the_next(store: Store) -> None:
    """What was unknown when it was looked at may have been on its way to be known in another transaction."""
    claim = await begun(store)
    await store.apply(claim.case.message.id, Settled(claim.hold, 1, Accepted("p-1")))
    await change(store, "UPDATE attempt SET provider_message_id = ''")
    await lay(store, {"p-1": 0})
    assert await store.sweep_receipts() == 0
    await change(store, "UPDATE attempt SET provider_message_id = 'p-1'")
    assert await store.sweep_receipts() == 1
    assert (await case_of(store, claim)).message.state == State.DELIVERED


async def test_a_sweep_removes_what_tells_nothing_new(store: Store) -> None:
    """A duplicate that slipped is not looked at for ever."""
    claim = await begun(store)
    await store.apply(claim.case.message.id, Settled(claim.hold, 1, Accepted("p-1")))
    await post(store, "p-1", DELIVERED)
    await lay(store, {"p-1": 0})
    assert await store.sweep_receipts() == 0
    assert await waiting(store) == []


async def test_sweeps_come_to_the_end_however_much_is_unknown(store: Store) -> None:
    """Thousands of receipts of nobody hold up a known one for a sweep or two; one sweep applies 200 at most."""
    claims = await claimed(store, 205)
    for claim in claims:
        await store.apply(claim.case.message.id, start_of(claim))
    facts = ((c.case.message.id, Settled(c.hold, 1, Accepted(f"p-{n}"))) for n, c in enumerate(claims))
    await asyncio.gather(*(store.apply(id_, fact) for id_, fact in facts))
    await lay(store, {f"unknown-{n}": HOUR - n for n in range(receipts.LOOK_MAX)} | {f"p-{n}": n for n in range(205)})
    moved = [await store.sweep_receipts() for _ in range(4)]
    assert moved == [0, 200, 5, 0]
    assert len(await waiting(store)) == receipts.LOOK_MAX


async def test_what_waits_too_long_is_forgotten_little_by_little(store: Store) -> None:
    """Three days after it came nothing asks for it any more."""
    ages = {f"old-{n}": receipts.KEPT + MINUTE for n in range(250)} | {"young": receipts.KEPT - MINUTE}
    await lay(store, ages)
    left = [len(await waiting(store)) for _ in range(3) if await store.sweep_receipts() == 0]
    assert left == [51, 1, 1]


async def test_a_dead_workers_message_is_ended_by_its_receipt(store: Store) -> None:
    """The process died after its hand-off; the receipt by the URL says what the answer would have."""
    claim = await begun(store)
    await store.apply(claim.case.message.id, WorkerLost(claim.hold))
    await post(store, "p-1", DELIVERED, claim)
    assert (await case_of(store, claim)).message.state == State.DELIVERED
    assert await store.claim(MessageClass.TRANSACTIONAL, SEND, 5) == []


async def test_answers_and_receipts_of_two_processes_at_once_leave_nothing_behind(
    store: Store, another: OpenStore
) -> None:
    """One keeps the answers while the other takes the receipts, by id alone: a sweep later all are delivered."""
    other = await another() if store.engine_name == "postgres" else store
    for turn in range(10):
        claims = await claimed(store, 40)
        await asyncio.gather(*(store.apply(claim.case.message.id, start_of(claim)) for claim in claims))
        ids = [f"p-{turn}-{n}" for n in range(40)]
        settles = (
            store.apply(claim.case.message.id, Settled(claim.hold, 1, Accepted(id_)))
            for claim, id_ in zip(claims, ids, strict=True)
        )
        await asyncio.gather(*settles, *(post(other, id_, DELIVERED) for id_ in ids))
        await asyncio.gather(store.sweep_receipts(), other.sweep_receipts())
        states = {(await case_of(store, claim)).message.state for claim in claims}
        assert states == {State.DELIVERED}
    assert await waiting(store) == []
    gaps = "SELECT message_id FROM event GROUP BY message_id HAVING max(seq) <> count(*)"
    assert await rows(store, gaps) == []


async def lay(store: Store, ages: dict[str, int]) -> None:
    """Put receipts of these ids into the inbox behind the store's back; how long ago they came, in µs."""
    now = time.time_ns() // 1000
    values = ", ".join(f"('{UID}', '{id_}', 'DELIVERED', 'north', '', {now - age})" for id_, age in ages.items())
    names = "account_uid, provider_message_id, kind, tenant_id, failure, received_at"
    await change(store, f"INSERT INTO receipt_inbox ({names}) VALUES {values}")
