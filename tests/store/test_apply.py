"""The one place that changes a message: fenced, whole or not at all, and told event by event."""

import asyncio
from dataclasses import replace

from server.model.conclude import Decision
from server.model.decide import Refused
from server.model.enums import Channel, DueKind, FailureReason, MessageClass, OutcomeKind, ReceiptKind, State, Stop
from server.model.facts import Postponed, Receipted, Settled, Stopped, WorkerLost
from server.model.failures import Failure
from server.model.outcomes import Accepted, Receipt, Unavailable
from server.model.work import Beside, Claim, SandboxCopy
from server.store.store import Store
from tests.store.conftest import OpenStore
from tests.store.letters import TENANTS, accept_all, everything, letter, rows, started

SEND = frozenset({DueKind.SEND})
FOLLOW = frozenset({DueKind.TIMER, DueKind.LOOK_UP, DueKind.POLL})


async def claimed(store: Store, count: int = 1) -> list[Claim]:
    """As many fresh messages, claimed."""
    await accept_all(store, [letter() for _ in range(count)])
    claims = await store.claim(MessageClass.TRANSACTIONAL, SEND, count)
    assert len(claims) == count
    return claims


async def test_a_message_goes_from_accepted_to_delivered_event_by_event(store: Store) -> None:
    """Each fact leaves the state, the attempt, what is due and its events; the numbers of the events have no gap."""
    (claim,) = await claimed(store)
    id_ = claim.case.message.id
    decision = await store.apply(id_, started(claim))
    assert isinstance(decision, Decision)
    assert decision.message.state == State.SENDING
    assert await rows(store, "SELECT worker, claims FROM due") == [(store.boot_id, 0)]
    await store.apply(id_, Settled(claim.hold, 1, Accepted("p-1")))
    case = await store.reading.message(TENANTS[0], tracking_id=id_)
    assert (case.message.state, case.message.due.kind if case.message.due else None) == (State.SENT, DueKind.POLL)
    assert case.attempts[0].provider_message_id == "p-1"
    await store.apply(id_, Receipted(1, Receipt(ReceiptKind.DELIVERED)))
    case = await store.reading.message(TENANTS[0], tracking_id=id_)
    assert case.message.done
    assert case.message.due is None
    assert await rows(store, "SELECT message_id FROM due") == []
    told = await rows(store, "SELECT seq, kind, state, done FROM event ORDER BY id")
    assert [row[0] for row in told] == [1, 2, 3, 4]
    assert [row[1] for row in told] == ["STATE", "ATTEMPT_STARTED", "ATTEMPT_ENDED", "RECEIPT"]
    assert [bool(row[3]) for row in told] == [False, False, False, True]
    assert case.message.last_seq == 4


async def test_what_decide_makes_of_a_message_is_what_is_read_back(store: Store) -> None:
    """Message and attempts lie in the database exactly as the decision has them."""
    (claim,) = await claimed(store)
    failure = Failure(FailureReason.PROVIDER_UNAVAILABLE, "Busy: «لطفاً بعداً».", "503")
    for fact in (started(claim), Settled(claim.hold, 1, Unavailable(failure), jitter=0.9)):
        decision = await store.apply(claim.case.message.id, fact)
        assert isinstance(decision, Decision)
        case = await store.reading.message(TENANTS[0], tracking_id=claim.case.message.id)
        assert case.message == decision.message
        assert case.attempts == decision.attempts
    assert case.attempts[0].failure == failure


async def test_a_refused_fact_writes_nothing(store: Store) -> None:
    """After a refusal every row is as it was, the sandbox copy left out too."""
    (claim,) = await claimed(store)
    id_ = claim.case.message.id
    before = await everything(store)
    stale = replace(claim.hold, epoch=claim.hold.epoch + 1)
    copy = SandboxCopy(1, Channel.SMS, "first", "+989120000111", "Shop", "Your order is on its way.")
    assert await store.apply(id_, Settled(claim.hold, 1, Accepted("p-1")), Beside(copy)) == Refused("UNKNOWN")
    assert await store.apply(id_, started(replace(claim, hold=stale))) == Refused("STALE")
    assert await store.apply("no-such-message", WorkerLost(claim.hold)) == Refused("UNKNOWN")
    assert await everything(store) == before


async def test_facts_of_one_message_are_applied_in_the_order_of_the_calls(store: Store) -> None:
    """Intent, outcome and receipt that are stated at once, in one batch, follow each other."""
    (claim,) = await claimed(store)
    facts = (started(claim), Settled(claim.hold, 1, Accepted("p-1")), Receipted(1, Receipt(ReceiptKind.DELIVERED)))
    rulings = await asyncio.gather(*(store.apply(claim.case.message.id, fact) for fact in facts))
    states = [ruling.message.state for ruling in rulings if isinstance(ruling, Decision)]
    assert states == [State.SENDING, State.SENT, State.DELIVERED]
    assert await rows(store, "SELECT seq FROM event ORDER BY id") == [(1,), (2,), (3,), (4,)]


async def test_facts_of_many_messages_share_their_commits(store: Store) -> None:
    """A hundred intents stated at once cost a few transactions, not a hundred."""
    claims = await claimed(store, 100)
    commits: list[None] = []
    store._database.on_commit.append(lambda: commits.append(None))
    rulings = await asyncio.gather(*(store.apply(claim.case.message.id, started(claim)) for claim in claims))
    assert all(isinstance(ruling, Decision) for ruling in rulings)
    assert len(commits) <= 3
    assert len(await rows(store, "SELECT number FROM attempt")) == 100


async def test_one_bad_fact_fails_alone(store: Store) -> None:
    """A fact that can not be written fails its own call; its neighbours in the batch are applied."""
    claims = await claimed(store, 6)
    await asyncio.gather(*(store.apply(claim.case.message.id, started(claim)) for claim in claims))
    facts = [Settled(claim.hold, 1, Accepted(f"p-{number}")) for number, claim in enumerate(claims)]
    facts[2] = Settled(claims[2].hold, 1, Accepted("\ud800"))
    answers = await asyncio.gather(
        *(store.apply(claim.case.message.id, fact) for claim, fact in zip(claims, facts, strict=True)),
        return_exceptions=True,
    )
    assert isinstance(answers.pop(2), Exception)
    assert all(isinstance(answer, Decision) for answer in answers)
    outcomes = await rows(store, "SELECT outcome FROM attempt ORDER BY outcome")
    assert outcomes == [("",)] + [(OutcomeKind.ACCEPTED.value,)] * 5
    again = await store.apply(claims[2].case.message.id, Settled(claims[2].hold, 1, Accepted("p-2")))
    assert isinstance(again, Decision)


async def test_a_claim_that_was_taken_away_can_begin_nothing(store: Store) -> None:
    """Once a message is due again and claimed anew, the former holder's intent is refused, the new one's is not."""
    (old,) = await claimed(store)
    id_ = old.case.message.id
    await store.apply(id_, WorkerLost(old.hold))
    (new,) = await store.claim(MessageClass.TRANSACTIONAL, SEND, 5)
    assert new.hold.epoch == old.hold.epoch + 1
    assert await store.apply(id_, started(old)) == Refused("STALE")
    assert isinstance(await store.apply(id_, started(new)), Decision)


async def test_a_canceled_message_is_not_begun(store: Store) -> None:
    """Cancel between claim and intent: the intent is refused, the message ends CANCELED."""
    (claim,) = await claimed(store)
    id_ = claim.case.message.id
    canceled = await store.apply(id_, Stopped(Stop.CANCELED))
    assert isinstance(canceled, Decision)
    assert canceled.message.state == State.CANCELED
    assert isinstance(await store.apply(id_, started(claim)), Refused)
    assert await rows(store, "SELECT number FROM attempt") == []


async def test_a_postponed_message_moves_in_its_due_row_alone(store: Store) -> None:
    """No event and no new state; nobody holds it, and it can not be claimed before its time."""
    (claim,) = await claimed(store)
    events = await rows(store, "SELECT id FROM event")
    until = claim.now + 60_000_000
    await store.apply(claim.case.message.id, Postponed(claim.hold, until))
    assert await rows(store, "SELECT due_at, worker, claims FROM due") == [(until, "", 0)]
    assert await rows(store, "SELECT id FROM event") == events
    assert await store.claim(MessageClass.TRANSACTIONAL, SEND, 5) == []


async def test_a_sandbox_copy_stands_beside_its_outcome_and_is_sealed(store: Store) -> None:
    """What a sandbox tenant would have been sent can be read back by it, and by nobody who reads the file."""
    (claim,) = await claimed(store)
    id_ = claim.case.message.id
    copy = SandboxCopy(1, Channel.SMS, "first", "+989120000111", "Shop", "Your order is on its way.")
    await store.apply(id_, started(claim))
    await store.apply(id_, Settled(claim.hold, 1, Accepted("p-1")), Beside(copy))
    (found,) = await store.reading.outbox(TENANTS[0], phone="+989120000111", limit=10)
    assert (found.tracking_id, found.copy) == (id_, copy)
    ((content,),) = await rows(store, "SELECT content FROM sandbox_message")
    assert b"+989120000111" not in content
    assert b"Your order" not in content


async def test_claims_and_cancels_at_once_never_leave_a_lost_hold(store: Store, another: OpenStore) -> None:
    """While one process claims what another cancels, every message ends canceled and unsent, with nothing due."""
    other = await another() if store.engine_name == "postgres" else store
    for _ in range(10):
        ids = [answer.message.id for answer in await accept_all(store, [letter() for _ in range(20)])]
        claims, rulings = await asyncio.gather(
            other.claim(MessageClass.TRANSACTIONAL, SEND, 20),
            asyncio.gather(*(store.apply(id_, Stopped(Stop.CANCELED)) for id_ in ids)),
        )
        assert all(isinstance(ruling, Decision) for ruling in rulings)
        begun = await asyncio.gather(*(other.apply(claim.case.message.id, started(claim)) for claim in claims))
        assert all(isinstance(ruling, Refused) for ruling in begun)
    assert await rows(store, "SELECT DISTINCT state FROM message") == [("CANCELED",)]
    assert await rows(store, "SELECT message_id FROM due") == []
