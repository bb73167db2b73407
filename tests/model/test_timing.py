"""A message that was changed under a clock that was ahead is timed anew by the clock that is right."""

from dataclasses import replace

from hypothesis import given, strategies as st

from server.model.clock import HOUR, MINUTE, SECOND, Micros
from server.model.conclude import Decision
from server.model.decide import Refused, decide
from server.model.enums import Channel, DueKind
from server.model.facts import ClockSetBack, Postponed
from server.model.messages import Attempt, Case, Due, Follow, Hold
from tests.model.history import START, message_of

AHEAD = START + HOUR
TIMES = ("started_at", "deadline", "ended_at", "receipt_at", "retry_at")


def case(due_at: Micros, updated_at: Micros = AHEAD, schedule_at: Micros = 0, **times: Micros) -> Case:
    """A message that waits until `due_at`, with one attempt where times are given."""
    due = Due(DueKind.SEND, due_at, epoch=3)
    attempt = Attempt(1, 1, Channel.SMS, "a", "uid", 0, 3, provider_key=7, started_at=0, deadline=0)
    message = replace(message_of(), updated_at=updated_at, due=due, schedule_at=schedule_at)
    return Case(message, (replace(attempt, **times),) if times else ())


def anew(told: Case, now: Micros = START) -> Case:
    """The case after the clock was found to show `now`."""
    ruling = decide(told, ClockSetBack(), now)
    assert isinstance(ruling, Decision)
    assert ruling.events == ()
    return Case(ruling.message, ruling.attempts)


def due_of(told: Case) -> Due:
    assert told.message.due is not None
    return told.message.due


def test_what_is_due_in_a_moment_is_due_in_that_moment() -> None:
    """A retry 2 s after a change that an hour ahead was timed for is due in 2 s; nobody's claim is touched."""
    found = anew(case(AHEAD + 2 * SECOND, deadline=AHEAD + SECOND, started_at=AHEAD - SECOND))
    assert due_of(found) == Due(DueKind.SEND, START + 2 * SECOND, epoch=3)
    assert (found.attempts[0].deadline, found.attempts[0].started_at) == (START + SECOND, START - SECOND)
    assert found.message.updated_at == START


def test_what_the_caller_named_stays() -> None:
    """The time at which to send, and the expiry that the caller was told."""
    found = anew(case(AHEAD + MINUTE, schedule_at=AHEAD + MINUTE))
    assert due_of(found).at == AHEAD + MINUTE
    assert found.message.expires_at == message_of().expires_at


def test_a_scheduled_message_that_was_put_off_is_due_at_its_time_again() -> None:
    """Postponed under a clock that had come to its time too early, it waits for that time and no longer."""
    told = case(AHEAD + MINUTE, schedule_at=START + 30 * MINUTE)
    assert due_of(anew(told)).at == START + 30 * MINUTE


def test_a_pause_by_a_clock_of_before_is_no_longer_than_any() -> None:
    """Planned while the clock was an hour ahead, applied after it was set right: a minute at most is waited."""
    due = Due(DueKind.SEND, START, epoch=3, worker="w")
    told = Case(replace(message_of(), due=due))
    ruling = decide(told, Postponed(Hold("w", 3), AHEAD + SECOND), START)
    assert isinstance(ruling, Decision)
    assert due_of(Case(ruling.message)).at == START + MINUTE


def test_what_is_in_time_is_let_be() -> None:
    """A message that was changed before now is refused, and so is one that has been timed anew."""
    assert decide(case(AHEAD, updated_at=START), ClockSetBack(), START) == Refused("SAME")
    assert decide(anew(case(AHEAD)), ClockSetBack(), START) == Refused("SAME")


@given(ahead=st.integers(1, 48 * HOUR), times=st.lists(st.integers(-HOUR, 50 * HOUR), min_size=6, max_size=6))
def test_times_move_together_and_the_past_stays(ahead: Micros, times: list[Micros]) -> None:
    """Every time that is after the clock's is earlier by as much; those before it stay as they are."""
    told = case(START + times[0], START + ahead, **dict(zip(TIMES, (START + t for t in times[1:]), strict=True)))
    found = anew(told)
    before = [getattr(told.attempts[0], name) for name in TIMES] + [due_of(told).at]
    after = [getattr(found.attempts[0], name) for name in TIMES] + [due_of(found).at]
    for old, new in zip(before, after, strict=True):
        assert new == (old - ahead if old > START else old)


def test_patience_is_a_span_and_moves_with_its_attempt() -> None:
    """A step that had 30 s left to wait for its receipt has 30 s left by the clock that is right."""
    followed = Follow(pushes=True)
    told = case(AHEAD + 30 * SECOND, ended_at=AHEAD - 20 * SECOND)
    told = Case(told.message, tuple(replace(a, patience=50 * SECOND, follow=followed) for a in told.attempts))
    found = anew(told)
    (attempt,) = found.attempts
    assert attempt.ended_at + attempt.patience == due_of(found).at == START + 30 * SECOND
