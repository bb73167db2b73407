"""A hundred thousand orders in which an answer, receipts and wishes may come: the end depends on what came alone."""

import random
from collections.abc import Sequence
from functools import cache

import pytest

from server.model.clock import SECOND
from server.model.conclude import Decision
from server.model.decide import Refused, decide
from server.model.enums import DueKind, ReceiptKind, State, Stop
from server.model.facts import Fact, LookedUp, Receipted, Settled, Started, Stopped
from server.model.messages import Attempt, Behind, Case, Event, Follow, Hold
from server.model.outcomes import Accepted, Found, Receipt, ambiguous
from tests.model.history import CORRECTABLE, MAY_BECOME, START, History, message_of, opening_of

ORDERS = 100_000
SHARES = 4
RANKS = (ReceiptKind.OTHER, ReceiptKind.UNDELIVERED, ReceiptKind.DELIVERED)
STOPS = (None, None, Stop.CANCELED, Stop.VERIFIED)


@cache
def in_flight(steps: int) -> Case:
    """A message whose first attempt is being handed off, with so many steps behind it."""
    history = History(message_of())
    history.begin(opening_of(follow=Follow(pushes=True), behind=Behind(candidates=steps, steps=steps)))
    return history.case


def facts_of(draw: random.Random, hold: Hold) -> list[Fact]:
    """An answer, each of some receipts up to three times, a wish; in any order, but a look-up comes behind a loss."""
    kinds = draw.sample(RANKS, draw.randint(0, 3))
    facts: list[Fact] = [Receipted(1, Receipt(kind), "p1") for kind in kinds for _ in range(draw.randint(1, 3))]
    lost = draw.random() < 0.3
    facts.append(Settled(hold, 1, ambiguous() if lost else Accepted("p1")))
    stop = draw.choice(STOPS)
    facts += [Stopped(stop)] if stop else []
    draw.shuffle(facts)
    return [*facts, LookedUp(hold, 1, Found("p1"))] if lost and draw.random() < 0.5 else facts


def told(case: Case, facts: Sequence[Fact]) -> tuple[Case, list[Event]]:
    """What the facts make of a message, and the events that tell of it; what is done moves to DELIVERED alone."""
    events: list[Event] = []
    for number, fact in enumerate(facts, 1):
        ruling = decide(case, fact, START + number * SECOND)
        if isinstance(ruling, Refused):
            continue
        old, new = case.message, ruling.message
        assert new.state == old.state or new.state in MAY_BECOME[old.state], f"{old.state} became {new.state}"
        assert new.state == old.state or not old.done or old.state in CORRECTABLE
        assert not old.done or new.done
        case = Case(new, ruling.attempts or case.attempts)
        events += ruling.events
    return case, events


def best_of(facts: Sequence[Fact]) -> ReceiptKind | None:
    """What the receipts among them come to."""
    kinds = [fact.receipt.kind for fact in facts if isinstance(fact, Receipted)]
    return max(kinds, key=RANKS.index, default=None)


def check(facts: Sequence[Fact], before: Case, after: Case, events: Sequence[Event]) -> None:
    """The attempt tells the best that was told of it; the log has no gap; nothing is due that should not be sent."""
    (attempt,), message, best = after.attempts, after.message, best_of(facts)
    assert attempt.receipt in ((best,) if best != ReceiptKind.OTHER else (None, best))
    assert attempt.provider_message_id == "p1" or (best is None and attempt.ambiguous)
    assert [event.seq for event in events] == list(range(before.message.last_seq + 1, message.last_seq + 1))
    stopped = any(isinstance(fact, Stopped) for fact in facts)
    again = bool(attempt.undelivered and attempt.behind.steps and not stopped)
    assert (message.due is not None and message.due.kind == DueKind.SEND) == again
    assert message.state in _states(facts, attempt, again=again)


def _states(facts: Sequence[Fact], attempt: Attempt, *, again: bool) -> set[State]:
    if attempt.delivered:
        return {State.DELIVERED}
    verified = {State.DELIVERED} if Stopped(Stop.VERIFIED) in facts else set[State]()
    if attempt.undelivered:
        return {State.SENDING} if again else verified | {State.UNDELIVERED}
    return verified or {State.UNCONFIRMED if attempt.ambiguous else State.SENT}


@pytest.mark.parametrize("share", range(SHARES))
def test_receipts_count_alike_in_every_order(share: int) -> None:
    """Early, late, twice and reordered: legal moves alone, no gap, and no second send of what may have arrived."""
    seeds = range(first := random.SystemRandom().randrange(10**9), first + ORDERS // SHARES)
    print(f"share {share}: {seeds}")  # noqa: T201 - shown where it fails
    ends: set[State] = set()
    for seed in seeds:
        draw = random.Random(seed)
        before = in_flight(draw.randint(0, 1))
        due = before.message.due
        assert due is not None
        facts = facts_of(draw, Hold(due.worker, due.epoch))
        after, events = told(before, facts)
        try:
            check(facts, before, after, events)
        except AssertionError as failed:
            raise AssertionError(f"seed {seed}: {facts} came to {after}") from failed
        ends.add(after.message.state)
    assert ends == {State.DELIVERED, State.UNDELIVERED, State.SENDING, State.SENT, State.UNCONFIRMED}


def test_nothing_is_begun_again_of_what_was_delivered() -> None:
    """Whatever came, a worker that holds the message still is refused its second hand-off."""
    for seed in range(1_000):
        draw = random.Random(seed)
        before = in_flight(1)
        due = before.message.due
        assert due is not None
        hold = Hold(due.worker, due.epoch)
        facts = [*facts_of(draw, hold), Receipted(1, Receipt(ReceiptKind.DELIVERED))]
        draw.shuffle(facts)
        after, _ = told(before, facts)
        ruling = decide(after, Started(hold, (opening_of(step=2),)), START + 60 * SECOND)
        assert not isinstance(ruling, Decision), f"seed {seed}"
