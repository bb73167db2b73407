"""What becomes of a message whose step waits for its receipt before the next one goes, and of a code once verified."""

from typing import Any

import pytest

from server.model.clock import HOUR, SECOND
from server.model.conclude import Decision
from server.model.decide import Refused, may_be_stopped
from server.model.enums import Channel, DueKind, FailureReason, MessageClass, ReceiptKind, State, Status, Stop
from server.model.facts import Followed, Receipted, Settled, Started, Stopped, Unplannable
from server.model.failures import Failure
from server.model.messages import Behind, Follow
from server.model.outcomes import Accepted, Outcome, Receipt, Refusal, ambiguous, kind_of, rejected, unavailable
from server.model.policy import receipt_deadline
from tests.model.history import History, message_of, opening_of, settle, started

DELIVERED = Receipt(ReceiptKind.DELIVERED)
UNDELIVERED = Receipt(ReceiptKind.UNDELIVERED, Failure(FailureReason.RECIPIENT_UNREACHABLE, "Switched off.", "7"))
ONE_STEP = Behind(candidates=1, steps=1, channels=1)
"""What a plan holds behind an attempt: one more step, by another channel."""
PATIENCE = 50 * SECOND
TURNS_MAX = 20
POLLED, PUSHED, MUTE = Follow(polls=True), Follow(polls=True, pushes=True), Follow()


def end_of(life: History) -> tuple[State, bool, FailureReason | None]:
    failure = life.message.failure
    return life.message.state, life.message.done, failure.reason if failure else None


def patient(
    message_class: MessageClass = MessageClass.TRANSACTIONAL, follow: Follow = POLLED, **opening: Any
) -> History:
    """Taken by an account after which another step would go, in 50 s unless told otherwise."""
    opened = {"patience": PATIENCE, "behind": ONE_STEP, "follow": follow, **opening}
    return settle(started(message_class, **opened), Accepted("p1"))


def wait_out(life: History) -> list[DueKind | None]:
    """Follow until something other than a receipt is due; what was done meanwhile."""
    asked: list[DueKind | None] = []
    while life.due and life.kind != DueKind.SEND and not life.attempts[0].overdue:
        assert len(asked) < TURNS_MAX
        asked.append(life.kind)
        life.tell(Followed(life.claim()))
    return asked


@pytest.mark.parametrize(
    ("follow", "asked"),
    [
        (POLLED, [DueKind.POLL] * 4),
        (PUSHED, [DueKind.POLL]),
        (Follow(pushes=True), [DueKind.TIMER]),
        (MUTE, [DueKind.TIMER]),
    ],
)
def test_a_receipt_that_is_late_lets_the_next_step_go(follow: Follow, asked: list[DueKind]) -> None:
    """At the end of its patience, after a last look where there is one to take; however receipts come, or do not."""
    life = patient(follow=follow)
    taken = life.now
    assert (life.message.state, life.message.done) == (State.SENT, False)
    assert wait_out(life) == asked
    assert taken + PATIENCE <= life.now < taken + PATIENCE + SECOND
    assert (life.message.state, life.kind, life.attempts[0].overdue) == (State.SENDING, DueKind.SEND, True)
    assert life.message.status == Status.SENT


@pytest.mark.parametrize("changes", [{"patience": 0}, {"behind": Behind()}, {"patience": HOUR}])
def test_without_patience_a_step_or_time_a_receipt_is_awaited_as_ever(changes: dict[str, Any]) -> None:
    """No timeout, no step left, or an expiry before the timeout's end: nothing becomes overdue."""
    life = patient(follow=Follow(pushes=True), **changes)
    assert wait_out(life) == [DueKind.TIMER]
    assert (life.message.state, life.message.done, life.attempts[0].overdue) == (State.SENT, True, False)


def test_a_step_that_cannot_go_leaves_it_sent() -> None:
    """Nothing plannable is no failure: its receipt is awaited as before, and may still come."""
    life = patient()
    wait_out(life)
    life.tell(Unplannable(life.claim(), FailureReason.NO_ROUTE))
    assert (life.message.state, life.message.done, life.kind) == (State.SENT, False, DueKind.POLL)
    assert life.message.failure is None
    life.tell(Receipted(1, DELIVERED))
    assert end_of(life) == (State.DELIVERED, True, None)


def test_nothing_is_due_for_a_step_that_cannot_go() -> None:
    """Given up on while a device's receipt is awaited, a message waits for that receipt alone, to its end."""
    life = History(message_of())
    opened = {"channel": Channel.PUSH, "behind": ONE_STEP, "follow": Follow(pushes=True), "patience": PATIENCE}
    hold = life.begin(*(opening_of(destination=n, **opened) for n in range(2)))
    life.tell(Settled(hold, 1, Accepted("p1")))
    life.tell(Settled(hold, 2, unavailable()))
    life.tell(Unplannable(life.claim(), FailureReason.NO_ROUTE))
    assert life.due is not None
    assert life.due.at == receipt_deadline(life.message, life.attempts[0])


def test_an_expired_message_takes_no_next_step() -> None:
    """The timer that is taken up only after the expiry leaves the message SENT."""
    life = patient(follow=Follow(pushes=True))
    life.now = life.message.expires_at
    life.tell(Followed(life.claim()))
    assert (life.message.state, life.kind, life.message.done) == (State.SENT, DueKind.TIMER, False)


@pytest.mark.parametrize("outcome", [Accepted("p2"), unavailable(), ambiguous()])
def test_a_late_receipt_ends_it_while_the_next_step_is_in_flight(outcome: Outcome) -> None:
    """DELIVERED at once; what becomes of the call in flight is noted on its attempt alone."""
    life = patient()
    wait_out(life)
    hold = life.begin(opening_of("b", step=2, channel=Channel.EMAIL))
    life.tell(Receipted(1, DELIVERED))
    assert end_of(life) == (State.DELIVERED, True, None)
    events = len(life.events)
    assert isinstance(life.tell(Settled(hold, 2, outcome)), Decision)
    assert (life.message.state, len(life.events)) == (State.DELIVERED, events)
    assert (life.message.provider, life.attempts[1].outcome) == ("a", kind_of(outcome))


@pytest.mark.parametrize(
    ("others", "goes"),
    [
        ((Accepted("p2"),), False),
        ((ambiguous(),), False),
        ((rejected(Refusal.RECIPIENT),), True),
        ((rejected(Refusal.RECIPIENT), rejected(Refusal.RECIPIENT)), True),
    ],
)
def test_the_next_step_goes_when_nobody_of_the_step_is_awaited(others: tuple[Outcome, ...], goes: bool) -> None:
    """Of a push to several devices the last that may still be reported holds the next step up."""
    life = History(message_of())
    opened = {"channel": Channel.PUSH, "behind": ONE_STEP, "follow": Follow(pushes=True)}
    patience = [SECOND, *[PATIENCE] * len(others)]
    hold = life.begin(*(opening_of(destination=n, patience=span, **opened) for n, span in enumerate(patience)))
    for number, outcome in enumerate((Accepted("p1"), *others), 1):
        life.tell(Settled(hold, number, outcome))
    wait_out(life)
    assert life.attempts[0].overdue
    assert (life.kind == DueKind.SEND) == goes
    assert life.message.state == (State.SENDING if goes else State.SENT)


def test_only_the_step_that_it_has_come_to_can_be_canceled() -> None:
    """While a step is left a Cancel stops it; once the last is taken there is nothing to stop."""
    life = patient()
    assert may_be_stopped(life.case)
    wait_out(life)
    assert may_be_stopped(life.case)
    hold = life.begin(opening_of("b", step=2, channel=Channel.EMAIL, follow=POLLED))
    assert may_be_stopped(life.case)
    life.tell(Settled(hold, 2, Accepted("p2")))
    assert not may_be_stopped(life.case)


def test_a_canceled_step_does_not_go() -> None:
    """A Cancel before the timeout leaves the message SENT, and no timeout starts anything any more."""
    life = patient(follow=Follow(pushes=True))
    life.tell(Stopped(Stop.CANCELED))
    assert life.kind == DueKind.TIMER
    life.tell(Followed(life.claim()))
    assert (life.message.state, life.message.done, life.attempts[0].overdue) == (State.SENT, True, False)


def test_pushed_receipts_are_asked_for_seldomer() -> None:
    """Where receipts are pushed the first look comes after 60 s, then after 5 min and every 15 min."""
    life = settle(started(follow=PUSHED), Accepted("p1"))
    since, asked = life.now, []
    for _ in range(4):
        assert life.due is not None
        asked.append((life.due.at - since) // SECOND)
        life.tell(Followed(life.claim()))
    assert asked == [60, 300, 1200, 2100]


@pytest.mark.parametrize(
    ("outcome", "receipt", "state"),
    [
        (None, None, State.CANCELED),
        (unavailable(), None, State.CANCELED),
        (ambiguous(), None, State.DELIVERED),
        (Accepted("p1"), None, State.DELIVERED),
        (Accepted("p1"), UNDELIVERED, State.UNDELIVERED),
    ],
)
@pytest.mark.parametrize("canceled", [False, True])
def test_a_verified_code_ends_its_message(
    outcome: Outcome | None, receipt: Receipt | None, state: State, canceled: bool
) -> None:
    """VERIFIED outranks a Cancel, stops retries and steps, and makes DELIVERED of what may have arrived."""
    life = History(message_of(MessageClass.OTP))
    if outcome is not None:
        hold = life.begin(opening_of(behind=ONE_STEP, follow=Follow(polls=True, looks_up=True)))
        if canceled:
            life.tell(Stopped(Stop.CANCELED))
        life.tell(Settled(hold, 1, outcome))
    if receipt is not None:
        life.tell(Receipted(1, receipt))
    over = life.message.done
    told = life.tell(Stopped(Stop.VERIFIED))
    assert isinstance(told, Refused) == over, "only what is over already is left as it is"
    assert life.message.done
    assert life.due is None
    assert life.message.state == state


def test_a_code_that_is_verified_while_its_next_step_is_due_goes_nowhere_else() -> None:
    """The text had arrived although its receipt was late: the fallback that is due is dropped."""
    life = patient(MessageClass.OTP)
    wait_out(life)
    hold = life.claim()
    life.tell(Stopped(Stop.VERIFIED))
    assert end_of(life) == (State.DELIVERED, True, None)
    assert life.tell(Started(hold, (opening_of("b", step=2),))) == Refused("FINAL")
