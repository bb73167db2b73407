"""Every life that a message can have keeps the promises, and receipts may come in any order, as often as they like."""

from collections.abc import Iterator, Sequence
from itertools import product

import pytest
from hypothesis import given, settings, strategies as st

from server.model.clock import SECOND
from server.model.conclude import Decision
from server.model.decide import Refused
from server.model.enums import Channel, EventKind, FailureReason, MessageClass, ReceiptKind, State, Status
from server.model.facts import Receipted, Settled
from server.model.failures import Failure
from server.model.messages import Follow
from server.model.outcomes import Accepted, Outcome, Receipt, ambiguous
from tests.model.history import History, message_of, opening_of, settle, started
from tests.model.life import Life

DELIVERED = Receipt(ReceiptKind.DELIVERED)
UNDELIVERED = Receipt(ReceiptKind.UNDELIVERED, Failure(FailureReason.RECIPIENT_UNREACHABLE, "Switched off.", "7"))
OTHER = Receipt(ReceiptKind.OTHER)
RECEIPTS = {receipt.kind: receipt for receipt in (DELIVERED, UNDELIVERED, OTHER)}
Reports = Sequence[tuple[int, ReceiptKind]]


@settings(max_examples=3000)
@given(st.binary(min_size=60, max_size=400))
def test_every_life_keeps_the_promises(tape: bytes) -> None:
    """Whatever workers, providers and callers do, in any order: no promise breaks, and every message comes to an end.

    What is checked after every fact stands in `history.check_step` and `check_log`.
    """
    Life(tape).play()


@settings(max_examples=3000)
@given(st.binary(min_size=60, max_size=400))
def test_every_life_in_which_steps_wait_for_receipts_keeps_the_promises(tape: bytes) -> None:
    """Where most is taken and receipts are late: no second text over a channel that the class forbids it.

    A late receipt makes it DELIVERED at any moment, and no step begins after it: `check_late_receipt`.
    """
    Life(tape, taken=True).play()


@pytest.mark.parametrize(("attempts", "length_max"), [(1, 7), (2, 4)])
@pytest.mark.parametrize("outcome", [Accepted("p1"), ambiguous()])
def test_receipts_end_the_same_in_any_order(attempts: int, length_max: int, outcome: Outcome) -> None:
    """The end depends on which receipts came, not on their order or number: all of 9,600 sequences are tried."""
    for reports in _sequences(attempts, length_max):
        life = _settled(attempts, outcome)
        for number, kind in reports:
            life.now += SECOND
            life.tell(Receipted(number, RECEIPTS[kind]))
        assert life.message.state == _end(attempts, outcome, reports), reports


@pytest.mark.parametrize("early", [0, 1, 2, 3])
def test_receipts_before_the_answer_end_the_same(early: int) -> None:
    """It makes no difference how many of the receipts came before the answer to the call."""
    for reports in product([(1, kind) for kind in ReceiptKind], repeat=3):
        life = History(message_of(MessageClass.TRANSACTIONAL))
        hold = life.begin(opening_of(follow=Follow(pushes=True)))
        for number, kind in reports[:early]:
            life.tell(Receipted(number, RECEIPTS[kind]))
        life.tell(Settled(hold, 1, Accepted("p1")))
        for number, kind in reports[early:]:
            life.tell(Receipted(number, RECEIPTS[kind]))
        assert life.message.state == _end(1, Accepted("p1"), reports), reports


def test_a_report_while_the_call_runs_is_kept() -> None:
    """A report that comes before its call's answer is neither lost nor overwritten by the answer."""
    delivered, undelivered = started(), started()
    delivered.tell(Receipted(1, DELIVERED))
    undelivered.tell(Receipted(1, UNDELIVERED))
    settle(undelivered, Accepted("p1"))
    assert (delivered.message.state, delivered.message.done) == (State.DELIVERED, True)
    assert (undelivered.message.state, undelivered.message.failure) == (State.UNDELIVERED, UNDELIVERED.failure)


def test_early_receipts_are_settled_with_the_answer() -> None:
    """Receipts that waited in the inbox are applied in the decision that settles the attempt, in one event."""
    life = started(follow=Follow(pushes=True))
    decision = life.tell(Settled(life.hold, 1, Accepted("p1"), receipts=(DELIVERED, UNDELIVERED)))
    assert isinstance(decision, Decision)
    assert (life.message.state, life.message.done) == (State.DELIVERED, True)
    assert [event.kind for event in decision.events] == [EventKind.ATTEMPT_ENDED]


def test_the_correction_is_the_last_word() -> None:
    """After UNDELIVERED one late receipt corrects to DELIVERED; then nothing more is told, whatever comes."""
    life = settle(started(follow=Follow(polls=True)), Accepted("p1"))
    life.tell(Receipted(1, UNDELIVERED))
    ended = life.message.done_at
    life.tell(Receipted(1, DELIVERED))
    assert (life.message.state, life.message.status, life.message.failure) == (State.DELIVERED, Status.SENT, None)
    assert (life.message.done_at, life.events[-1].seq) == (ended, life.message.last_seq)
    assert isinstance(life.tell(Receipted(1, UNDELIVERED)), Refused)


def _sequences(attempts: int, length_max: int) -> Iterator[Reports]:
    possible = [(number, kind) for number in range(1, attempts + 1) for kind in ReceiptKind]
    for length in range(1, length_max + 1):
        yield from product(possible, repeat=length)


def _settled(attempts: int, outcome: Outcome) -> History:
    life = History(message_of(MessageClass.TRANSACTIONAL))
    openings = [opening_of(destination=n, channel=Channel.PUSH, follow=Follow(pushes=True)) for n in range(attempts)]
    hold = life.begin(*openings)
    for number in range(1, attempts + 1):
        life.tell(Settled(hold, number, outcome))
    return life


def _end(attempts: int, outcome: Outcome, reports: Reports) -> State:
    kinds = [{kind for number, kind in reports if number == n} for n in range(1, attempts + 1)]
    undelivered = [ReceiptKind.UNDELIVERED in own for own in kinds]
    taken = [isinstance(outcome, Accepted) or ReceiptKind.OTHER in own for own in kinds]
    if any(ReceiptKind.DELIVERED in own for own in kinds):
        return State.DELIVERED
    if all(undelivered):
        return State.UNDELIVERED
    awaited = [known for known, over in zip(taken, undelivered, strict=True) if not over]
    return State.SENT if any(awaited) else State.UNCONFIRMED
