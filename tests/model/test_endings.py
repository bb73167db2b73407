"""What each outcome leads to, what each class does when nobody knows what became of a hand-off, and how lives end."""

from dataclasses import replace

import pytest

from server.model.clock import HOUR, MINUTE, SECOND, Micros
from server.model.conclude import Decision
from server.model.decide import Refused, may_be_stopped
from server.model.enums import (
    Channel,
    DueKind,
    FailureReason,
    MessageClass,
    OnUnconfirmed,
    OutcomeKind,
    ReceiptKind,
    State,
    Status,
    Stop,
)
from server.model.facts import (
    Followed,
    LookedUp,
    Postponed,
    Receipted,
    Settled,
    Started,
    Stopped,
    Unplannable,
    WorkerLost,
)
from server.model.failures import Failure
from server.model.messages import Behind, Follow
from server.model.outcomes import (
    Accepted,
    Fault,
    Misconfigured,
    NeverRegistered,
    NoAnswer,
    Outcome,
    Receipt,
    Refusal,
    Rejected,
    ambiguous,
    misconfigured,
    rate_limited,
    rejected,
    unavailable,
)
from server.model.policy import POISON_CLAIMS
from tests.model.history import History, message_of, opening_of, settle, started

DELIVERED = Receipt(ReceiptKind.DELIVERED)
UNDELIVERED = Receipt(ReceiptKind.UNDELIVERED, Failure(FailureReason.RECIPIENT_UNREACHABLE, "Switched off.", "7"))
NOT_TAKEN = (
    unavailable(),
    rate_limited(),
    misconfigured(Fault.CREDENTIALS),
    misconfigured(Fault.SENDER),
    rejected(Refusal.CONTENT),
)


def left(candidates: int, steps: int = 0, channels: int = 0) -> Behind:
    """What a plan holds behind an attempt: so many others, all of them ready to go."""
    return Behind(candidates, steps, channels)


def end_of(life: History) -> tuple[State, bool, FailureReason | None]:
    failure = life.message.failure
    return life.message.state, life.message.done, failure.reason if failure else None


@pytest.mark.parametrize("outcome", NOT_TAKEN)
def test_not_taken_goes_on_at_once_while_another_way_is_left(outcome: Outcome) -> None:
    """Whatever a provider did not take is due again at once while another account is left."""
    life = settle(started(behind=left(candidates=1)), outcome)
    assert life.due is not None
    assert (life.message.state, life.due.kind, life.due.at) == (State.SENDING, DueKind.SEND, life.now)


@pytest.mark.parametrize("outcome", [misconfigured(Fault.FUNDS), rejected(Refusal.CONTENT)])
def test_refused_with_nothing_left_fails_with_the_providers_reason(outcome: Misconfigured | Rejected) -> None:
    """What no account takes fails, once and for all, with the reason of the last attempt."""
    life = settle(started(), outcome)
    assert end_of(life) == (State.FAILED, True, outcome.failure.reason)


@pytest.mark.parametrize(
    ("message_class", "channel", "repeats", "cap"),
    [
        (MessageClass.OTP, Channel.SMS, 4, 2 * SECOND),
        (MessageClass.TRANSACTIONAL, Channel.SMS, 6, 4 * MINUTE),
        (MessageClass.BULK, Channel.SMS, 8, HOUR),
        (MessageClass.BULK, Channel.PUSH, 5, 2 * MINUTE),
    ],
)
def test_one_account_is_repeated_so_often_and_no_oftener(
    message_class: MessageClass, channel: Channel, repeats: int, cap: Micros
) -> None:
    """On its only account a message is repeated as often as its class allows, with growing pauses under the cap."""
    life = started(message_class, channel=channel)
    pauses: list[Micros] = []
    for number in range(1, repeats + 1):
        settle(life, unavailable(), number, jitter=0.999)
        assert life.due is not None
        pauses.append(life.due.at - life.now)
        life.begin(opening_of(channel=channel))
    settle(life, unavailable(), repeats + 1)
    assert end_of(life) == (State.FAILED, True, FailureReason.PROVIDER_UNAVAILABLE)
    assert pauses == sorted(pauses)
    assert 0 < pauses[0] < pauses[-1] <= cap


def test_a_named_pause_is_kept() -> None:
    """A provider that asks for two minutes is not asked again before, whatever the jitter."""
    life = settle(started(), rate_limited(retry_after=2 * MINUTE), jitter=0.0)
    assert life.due is not None
    assert life.due.at == life.now + 2 * MINUTE


def test_a_request_that_is_wrong_ends_at_once() -> None:
    """A request that a provider finds malformed is our fault: it fails, though other accounts are left."""
    life = settle(started(behind=left(candidates=3, steps=1)), rejected(Refusal.REQUEST))
    assert end_of(life) == (State.FAILED, True, FailureReason.REQUEST_REFUSED)


def test_a_refused_recipient_goes_on_by_another_channel_alone() -> None:
    """Another account of the same channel is no way on for a recipient who was refused; another channel is."""
    same = settle(started(behind=left(candidates=2)), rejected(Refusal.RECIPIENT))
    other = settle(started(behind=left(candidates=2, channels=1)), rejected(Refusal.RECIPIENT))
    assert (same.message.state, other.message.state) == (State.FAILED, State.SENDING)


@pytest.mark.parametrize("outcome", NOT_TAKEN)
def test_a_canceled_call_in_flight_decides(outcome: Outcome) -> None:
    """Canceled while in flight: not taken is CANCELED, taken is SENT; nothing is sent again."""
    life = started(behind=left(candidates=3), follow=Follow(polls=True))
    assert isinstance(life.tell(Stopped(Stop.CANCELED)), Decision)
    taken = started(behind=left(candidates=3), follow=Follow(polls=True))
    taken.tell(Stopped(Stop.CANCELED))
    assert end_of(settle(life, outcome)) == (State.CANCELED, True, None)
    assert settle(taken, Accepted("p1")).message.state == State.SENT


@pytest.mark.parametrize(
    ("message_class", "again", "channel", "window", "sends"),
    [
        (MessageClass.OTP, OnUnconfirmed.STAY, Channel.SMS, 3 * SECOND, 2),
        (MessageClass.OTP, OnUnconfirmed.STAY, Channel.VOICE, 3 * SECOND, 2),
        (MessageClass.TRANSACTIONAL, OnUnconfirmed.STAY, Channel.SMS, MINUTE, 1),
        (MessageClass.TRANSACTIONAL, OnUnconfirmed.SEND_AGAIN, Channel.SMS, MINUTE, 2),
        (MessageClass.TRANSACTIONAL, OnUnconfirmed.SEND_AGAIN, Channel.VOICE, MINUTE, 1),
        (MessageClass.BULK, OnUnconfirmed.SEND_AGAIN, Channel.SMS, MINUTE, 1),
        (MessageClass.TRANSACTIONAL, OnUnconfirmed.STAY, Channel.PUSH, 5 * SECOND, 3),
        (MessageClass.BULK, OnUnconfirmed.STAY, Channel.EMAIL, MINUTE, 2),
    ],
)
def test_the_class_decides_when_nobody_knows(
    message_class: MessageClass, again: OnUnconfirmed, channel: Channel, window: Micros, sends: int
) -> None:
    """When the window is over the same is sent again, as often as class and channel allow; then it stays."""
    life = started(message_class, again, channel=channel)
    for number in range(1, sends + 1):
        settle(life, ambiguous(), number)
        assert life.due is not None
        assert (life.message.state, life.due.kind, life.due.at) == (State.UNCONFIRMED, DueKind.TIMER, life.now + window)
        life.tell(Followed(life.claim()))
        assert life.message.done == (number == sends)
        if number < sends:
            assert (life.message.state, life.kind) == (State.SENDING, DueKind.SEND)
            life.begin(opening_of("b", channel=channel))
    assert end_of(life) == (State.UNCONFIRMED, True, FailureReason.AMBIGUOUS)
    assert life.message.status == Status.SENT


def test_a_window_is_asked_about_each_second() -> None:
    """An unknown hand-off is looked up at once, then each second; proof that it was never taken sends again at once.

    It is no proof while the request may still be on its way: until a second after the hand-off's own deadline.
    """
    life = settle(started(follow=Follow(looks_up=True), behind=left(candidates=1)), ambiguous())
    assert life.due is not None
    assert (life.due.kind, life.due.at) == (DueKind.LOOK_UP, life.now)
    hold = life.claim()
    assert isinstance(life.tell(LookedUp(hold, 1, NoAnswer())), Refused)
    life.tell(Followed(hold))
    assert (life.due.kind, life.due.at) == (DueKind.LOOK_UP, life.now + SECOND)
    early = life.claim()
    assert isinstance(life.tell(LookedUp(early, 1, NeverRegistered())), Refused)
    life.tell(Followed(early))
    life.now += 9 * SECOND
    life.tell(LookedUp(life.claim(), 1, NeverRegistered()))
    assert (life.message.state, life.kind) == (State.SENDING, DueKind.SEND)


@pytest.mark.parametrize(("stop", "state"), [(Stop.CANCELED, State.CANCELED), (Stop.EXPIRED, State.EXPIRED)])
def test_only_proof_ends_what_may_have_arrived(stop: Stop, state: State) -> None:
    """A stopped message that may have arrived stays UNCONFIRMED until a look-up proves that it was never taken."""
    life = settle(started(MessageClass.OTP, follow=Follow(looks_up=True)), ambiguous())
    life.now = life.message.expires_at - 1 if stop == Stop.CANCELED else life.message.expires_at
    assert isinstance(life.tell(Stopped(stop)), Decision)
    assert life.message.state == State.UNCONFIRMED
    life.tell(LookedUp(life.claim(), 1, NeverRegistered()))
    assert (life.message.state, life.message.done) == (state, True)


@pytest.mark.parametrize("state", [State.ACCEPTED, State.SCHEDULED])
def test_the_fifth_death_before_an_intent_is_poison(state: State) -> None:
    """A message whose workers die before they hand it off is given up at the fifth; four deaths leave no trace."""
    life = History(message_of(state=state))
    for _ in range(POISON_CLAIMS - 1):
        life.tell(WorkerLost(life.claim()))
    assert (life.message.state, life.message.last_seq) == (state, 1)
    life.tell(WorkerLost(life.claim()))
    assert end_of(life) == (State.FAILED, True, FailureReason.POISON)


def test_only_deaths_before_an_intent_are_counted() -> None:
    """A hand-off or a pause starts the count of deaths anew."""
    life = History(message_of())
    for _ in range(POISON_CLAIMS - 1):
        life.tell(WorkerLost(life.claim()))
    life.tell(Postponed(life.claim(), life.now))
    for _ in range(POISON_CLAIMS - 1):
        life.tell(WorkerLost(life.claim()))
    assert life.message.state == State.ACCEPTED


def test_a_pause_never_outlasts_the_message() -> None:
    """Postponed beyond its expiry, a message is due at its expiry, to be ended."""
    life = History(message_of(life=30 * SECOND))
    life.tell(Postponed(life.claim(), life.message.expires_at + HOUR))
    assert life.due is not None
    assert life.due.at == life.message.expires_at


def test_nothing_starts_after_the_expiry() -> None:
    """At its expiry to the microsecond an intent is refused; one microsecond earlier it is taken."""
    for early, why in ((1, None), (0, "EXPIRED")):
        life = History(message_of())
        hold = life.claim()
        life.now = life.message.expires_at - early
        answer = life.tell(Started(hold, (opening_of(),)))
        assert (answer.why if isinstance(answer, Refused) else None) == why


def test_a_retry_that_would_come_too_late_expires() -> None:
    """Not taken, and its time over when the answer came: EXPIRED, although another account was left."""
    life = started(MessageClass.OTP, behind=left(candidates=1))
    life.now = life.message.expires_at
    assert end_of(settle(life, unavailable())) == (State.EXPIRED, True, FailureReason.EXPIRED)


@pytest.mark.parametrize(
    ("follow", "message_class", "span"),
    [
        (Follow(), MessageClass.TRANSACTIONAL, 0),
        (Follow(polls=True), MessageClass.TRANSACTIONAL, 72 * HOUR),
        (Follow(polls=True, keeps_seconds=48 * 3600), MessageClass.TRANSACTIONAL, 48 * HOUR),
        (Follow(pushes=True), MessageClass.OTP, 300 * SECOND),
    ],
)
def test_a_receipt_is_awaited_so_long(follow: Follow, message_class: MessageClass, span: Micros) -> None:
    """SENT is done when the provider reports nothing, else when its receipt is overdue: then with NO_RECEIPT."""
    life = settle(started(message_class, follow=follow), Accepted("p1"))
    over = life.message.expires_at if message_class == MessageClass.OTP else life.now + span
    for _ in range(400):
        if life.message.done:
            break
        assert life.now < over
        life.tell(Followed(life.claim()))
    assert end_of(life) == (State.SENT, True, FailureReason.NO_RECEIPT if span else None)
    assert over <= life.now <= over + SECOND


def test_polls_come_seldomer_with_time() -> None:
    """The status is asked for after 2 s, 5 s, 15 s, 60 s and 5 min, then each 15 min."""
    life = settle(started(follow=Follow(polls=True)), Accepted("p1"))
    asked: list[int] = []
    since = life.now
    for _ in range(7):
        assert life.due is not None
        asked.append((life.due.at - since) // SECOND)
        life.tell(Followed(life.claim()))
    assert asked == [2, 5, 15, 60, 300, 1200, 2100]


def test_undelivered_goes_to_the_next_step() -> None:
    """A report of non-delivery makes the next step due at once; without one the message is UNDELIVERED."""
    another = settle(started(behind=left(candidates=1, steps=1), follow=Follow(polls=True)), Accepted("p1"))
    another.tell(Receipted(1, UNDELIVERED))
    assert (another.message.state, another.kind) == (State.SENDING, DueKind.SEND)
    last = settle(started(follow=Follow(polls=True)), Accepted("p1"))
    last.tell(Receipted(1, UNDELIVERED))
    assert (last.message.state, last.message.failure) == (State.UNDELIVERED, UNDELIVERED.failure)


def test_a_failed_next_step_leaves_it_undelivered() -> None:
    """When nothing takes the next step either, the message ends as what the provider reported: UNDELIVERED."""
    life = settle(started(behind=left(candidates=1, steps=1), follow=Follow(polls=True)), Accepted("p1"))
    life.tell(Receipted(1, UNDELIVERED))
    life.tell(Unplannable(life.claim(), FailureReason.NO_ROUTE))
    assert (life.message.state, life.message.failure) == (State.UNDELIVERED, UNDELIVERED.failure)


def test_five_tokens_are_five_attempts() -> None:
    """A push to five tokens is one step of five attempts: it ends when the last is settled, SENT if one was taken."""
    life = History(message_of())
    life.begin(*(opening_of(destination=n, channel=Channel.PUSH) for n in range(5)))
    assert [a.number for a in life.attempts] == [1, 2, 3, 4, 5]
    for number in range(1, 5):
        settle(life, rejected(Refusal.RECIPIENT), number)
        assert life.message.state == State.SENDING
    settle(life, Accepted("p1"), 5)
    assert (life.message.state, life.message.done, life.message.attempt_count) == (State.SENT, True, 5)


def test_what_a_dead_worker_left_is_unknown() -> None:
    """A worker that dies after its intent leaves the attempt AMBIGUOUS, to be looked up at once."""
    life = started(follow=Follow(looks_up=True))
    life.tell(WorkerLost(life.hold))
    assert life.attempts[0].outcome == OutcomeKind.AMBIGUOUS
    assert (life.message.state, life.kind) == (State.UNCONFIRMED, DueKind.LOOK_UP)


def test_a_dead_workers_proof_still_counts() -> None:
    """Its late Accepted is recorded, under the provider's id; anything else it says is not."""
    life = started(follow=Follow(polls=True))
    lost = life.hold
    life.tell(WorkerLost(lost))
    assert isinstance(life.tell(Settled(lost, 1, unavailable())), Refused)
    assert isinstance(life.tell(Settled(lost, 1, Accepted("p9"))), Decision)
    assert (life.message.state, life.attempts[0].provider_message_id) == (State.SENT, "p9")


def test_cancel_needs_something_to_stop() -> None:
    """Before a hand-off, in flight, unknown or with a step left there is something to stop; else there is nothing."""
    sent = settle(started(follow=Follow(polls=True)), Accepted("p1"))
    step_left = settle(started(follow=Follow(polls=True), behind=left(candidates=1, steps=1)), Accepted("p1"))
    unknown = settle(started(), ambiguous())
    waiting = History(message_of())
    assert all(may_be_stopped(life.case) for life in (waiting, started(), unknown, step_left))
    assert not may_be_stopped(sent.case)


def test_a_stopped_message_takes_no_other_stop_but_verified() -> None:
    """A second cancel is refused as STOPPED; VERIFIED outranks it and makes DELIVERED of what may have arrived."""
    life = settle(started(MessageClass.OTP, follow=Follow(looks_up=True)), ambiguous())
    life.tell(Stopped(Stop.CANCELED))
    assert life.tell(Stopped(Stop.CANCELED)) == Refused("STOPPED")
    life.tell(Stopped(Stop.VERIFIED))
    assert (life.message.state, life.message.stop, life.message.done) == (State.DELIVERED, Stop.VERIFIED, True)


def test_the_shown_provider_is_the_one_that_delivered() -> None:
    """A message shows the provider, channel and segments of the attempt that arrived, else of its latest."""
    life = started(account="a", segments=1, behind=left(candidates=1, steps=1), follow=Follow(polls=True))
    settle(life, Accepted("p1"))
    life.tell(Receipted(1, UNDELIVERED))
    life.begin(replace(opening_of("b", step=2, channel=Channel.VOICE), segments=0))
    assert (life.message.provider, life.message.channel) == ("b", Channel.VOICE)
    life.tell(Receipted(1, DELIVERED))
    assert (life.message.provider, life.message.channel, life.message.segments) == ("a", Channel.SMS, 1)
