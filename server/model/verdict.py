"""What follows from a message and its attempts: its state, its failure, and what is due next."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import groupby

from server.model.clock import Micros
from server.model.enums import Channel, DueKind, FailureReason, State, Stop
from server.model.failures import Failure
from server.model.messages import Attempt, Due, Message
from server.model.outcomes import Refusal
from server.model.policy import (
    LOOK_UP_EVERY,
    backoff,
    next_poll,
    receipt_deadline,
    retry_of,
    sends_max,
    window_of,
)
from server.model.states import FINAL

Attempts = Sequence[Attempt]


def state_of(message: Message, attempts: Attempts, due: Due | None) -> State:
    """The state that follows from the attempts; the first rule that holds decides.

    What may have arrived never ends as FAILED, EXPIRED or CANCELED.
    """
    if any(a.delivered for a in attempts) or (message.stop == Stop.VERIFIED and any(a.may_arrive for a in attempts)):
        return State.DELIVERED
    if any(a.in_flight for a in attempts) or (due is not None and due.kind == DueKind.SEND):
        return State.SENDING if attempts else message.state
    if any(a.accepted for a in attempts):
        return State.SENT
    if any(a.ambiguous for a in attempts):
        return State.UNCONFIRMED
    if any(a.undelivered for a in attempts):
        return State.UNDELIVERED
    return _unsent_end(message.stop)


def _unsent_end(stop: Stop | None) -> State:
    match stop:
        case Stop.EXPIRED:
            return State.EXPIRED
        case Stop.CANCELED | Stop.VERIFIED:
            return State.CANCELED
        case Stop.EXHAUSTED | None:
            return State.FAILED


def failure_for(state: State, attempts: Attempts, *, done: bool, otherwise: Failure | None) -> Failure | None:
    """Why it is where it is; None where nothing is wrong. `otherwise` is what the deciding fact itself said."""
    match state:
        case State.FAILED:
            return (
                otherwise or _last_failure(attempts) or Failure(FailureReason.NO_ROUTE, "No provider was left to try.")
            )
        case State.EXPIRED:
            return Failure(FailureReason.EXPIRED, "Its time was over before a provider took it.")
        case State.UNDELIVERED:
            return _last_failure([a for a in attempts if a.undelivered])
        case State.UNCONFIRMED:
            return Failure(FailureReason.AMBIGUOUS, "It is not known whether the provider took it.")
        case State.SENT if done and any(a.accepted and a.follow.reports for a in attempts):
            return Failure(FailureReason.NO_RECEIPT, "No receipt came in time.")
        case _:
            return None


def _last_failure(attempts: Attempts) -> Failure | None:
    return next((a.failure for a in reversed(attempts) if a.failure is not None), None)


def is_done(state: State, attempts: Attempts, due: Due | None) -> bool:
    """Nothing is in flight, due or awaited."""
    if state in FINAL:
        return True
    return due is None and not any(a.in_flight for a in attempts)


def resend_at(message: Message, attempts: Attempts, now: Micros, jitter: float) -> Micros | None:
    """When the next attempt is due, or None when nothing is left to try or nothing needs trying.

    Every destination is judged by its latest attempt. Where another destination of the step may be reached, only the
    step itself goes on; a later step is for messages that reached nobody, or of which no receipt came in time.
    """
    if message.stop is not None or any(a.refusal == Refusal.REQUEST for a in attempts):
        return None
    latest = latest_by_destination(attempts)
    if any(a.overdue and a.behind.steps for a in latest) and not any(a.delivered or is_awaited(a) for a in latest):
        return now
    reached = any(a.may_arrive and not (a.accepted and a.overdue) for a in latest)
    times = [at for a in latest if (at := _again_at(message, attempts, a, now, jitter, reached=reached)) is not None]
    return min(times, default=None)


def is_awaited(attempt: Attempt) -> bool:
    """Whether what becomes of it is waited for before anything else is handed off in its stead."""
    if attempt.accepted:
        return not attempt.overdue
    return attempt.in_flight or (attempt.ambiguous and not attempt.given_up)


def latest_by_destination(attempts: Attempts) -> list[Attempt]:
    """The latest attempt for each destination of the latest step."""
    if not attempts:
        return []
    step = latest_step(attempts)
    current = sorted((a for a in attempts if a.step == step), key=lambda a: (a.destination, a.number))
    return [list(group)[-1] for _, group in groupby(current, key=lambda a: a.destination)]


def _again_at(
    message: Message, attempts: Attempts, last: Attempt, now: Micros, jitter: float, *, reached: bool
) -> Micros | None:
    if last.undelivered:
        return now if last.behind.steps and not reached else None
    if last.ambiguous and not last.given_up:
        return None
    if doubt_forbids(message, attempts, last.channel, last.destination, last.step):
        return None
    if last.ambiguous:
        return now
    here = [a for a in attempts if (a.step, a.destination) == (last.step, last.destination)]
    if any(a.may_arrive and not (a.ambiguous and a.given_up) for a in here):
        return None
    if _others_left(last, reached=reached):
        return now
    return _repeat_at(message, attempts, last, now, jitter)


def _others_left(last: Attempt, *, reached: bool) -> int:
    if last.refusal == Refusal.RECIPIENT:
        return 0 if reached else last.behind.channels
    return last.behind.candidates - (last.behind.steps if reached else 0)


def _repeat_at(message: Message, attempts: Attempts, last: Attempt, now: Micros, jitter: float) -> Micros | None:
    """When the first of the step's accounts that failed this destination without processing it may be tried again."""
    mine = [a for a in attempts if (a.step, a.destination) == (last.step, last.destination)]
    refusing = {a.channel for a in mine if a.refusal == Refusal.RECIPIENT}
    latest = {a.account_uid: a for a in mine if a.channel not in refusing}.values()
    return min((at for a in latest if (at := _pause(message, mine, a, now, jitter)) is not None), default=None)


def _pause(message: Message, attempts: Attempts, failed: Attempt, now: Micros, jitter: float) -> Micros | None:
    retry = retry_of(message.message_class, failed.channel)
    failures = failures_on(attempts, failed.account_uid, failed.destination, failed.step)
    if not failed.repeatable or failures > retry.repeats_max:
        return None
    return max(now + backoff(retry, failures, jitter), failed.retry_at)


def failures_on(attempts: Iterable[Attempt], account_uid: str, destination: int, step: int) -> int:
    """How often this account failed this destination in this step without having processed it."""
    return sum(
        a.repeatable and a.account_uid == account_uid and a.destination == destination and a.step == step
        for a in attempts
    )


def doubt_forbids(message: Message, attempts: Attempts, channel: Channel, destination: int, step: int) -> bool:
    """Whether an earlier hand-off that may have been taken forbids another one for this destination.

    What may arrive over other channels counts once a step, however many devices it went to.
    """
    here = _taken(attempts, channel, destination)
    if not any(a.ambiguous and (a in here or a.step < step) for a in attempts):
        return False
    elsewhere = {a.step for a in attempts if a.channel != channel and a.may_arrive}
    return len(here) + len(elsewhere) >= sends_max(message, channel)


def class_forbids(message: Message, attempts: Attempts, channel: Channel, destination: int) -> bool:
    """Whether a second text over this channel is one too many: the first was taken, and its receipt is overdue."""
    here = _taken(attempts, channel, destination)
    return any(a.overdue for a in here) and len(here) >= sends_max(message, channel)


def may_repeat_taken(message: Message, attempts: Attempts, channel: Channel, destination: int) -> bool:
    """Whether over this channel one more may follow the one that is about to go, although that is taken."""
    return len(_taken(attempts, channel, destination)) + 1 < sends_max(message, channel)


def _taken(attempts: Attempts, channel: Channel, destination: int) -> Attempts:
    return [a for a in attempts if (a.channel, a.destination) == (channel, destination) and a.may_arrive]


def give_up_windows(message: Message, attempts: Attempts, now: Micros) -> list[Attempt]:
    """Ambiguous attempts whose window is over are marked so; the class's policy may then be asked."""
    return [
        replace(a, given_up=True) if a.ambiguous and not a.given_up and _window_end(message, a) <= now else a
        for a in attempts
    ]


def _window_end(message: Message, attempt: Attempt) -> Micros:
    return attempt.ended_at + window_of(message.message_class, attempt.channel)


def lose_patience(message: Message, attempts: Attempts, now: Micros) -> list[Attempt]:
    """Attempts whose receipt has not come in the time that their step gave it are overdue; the next step may go."""
    step = latest_step(attempts)
    return [
        replace(a, overdue=True) if (end := _patience_end(message, a, step)) is not None and end <= now else a
        for a in attempts
    ]


def _patience_end(message: Message, attempt: Attempt, latest: int) -> Micros | None:
    """When the receipt of an attempt is overdue; None where nothing would follow from that."""
    waits = attempt.accepted and not attempt.overdue and attempt.patience > 0
    if not waits or message.stop is not None or attempt.step < latest or not attempt.behind.steps:
        return None
    end = attempt.ended_at + attempt.patience
    return end if end < message.expires_at else None


def latest_step(attempts: Attempts) -> int:
    """The step that the message has come to; 0 before the first attempt."""
    return max((a.step for a in attempts), default=0)


def follow_up(message: Message, attempts: Attempts, now: Micros) -> Due | None:
    """The earliest thing that is awaited: a window's end, a look-up, a poll, a receipt's deadline or its step's."""
    step = latest_step(attempts)
    waits = [wait for a in attempts if (wait := _wait(message, a, step, now)) is not None]
    return min(waits, key=lambda due: due.at, default=None)


def _wait(message: Message, attempt: Attempt, latest: int, now: Micros) -> Due | None:
    if attempt.ambiguous and not attempt.given_up:
        return _reconcile(message, attempt, now)
    if not (attempt.ambiguous or attempt.accepted):
        return None
    deadline, patience = receipt_deadline(message, attempt), _patience_end(message, attempt, latest)
    ends = [end for end in (deadline if now < deadline else None, patience) if end is not None]
    if not ends:
        return None
    kind = _asking(attempt, now) if now < deadline else DueKind.TIMER
    if kind == DueKind.TIMER:
        return Due(kind, min(ends))
    return Due(kind, min(next_poll(attempt.ended_at, now, pushed=attempt.follow.pushes), *ends))


def _asking(attempt: Attempt, now: Micros) -> DueKind:
    if attempt.ambiguous:
        return DueKind.LOOK_UP if attempt.may_look_up(now) else DueKind.TIMER
    return DueKind.POLL if attempt.follow.polls else DueKind.TIMER


def _reconcile(message: Message, attempt: Attempt, now: Micros) -> Due:
    end = _window_end(message, attempt)
    if not attempt.may_look_up(now):
        return Due(DueKind.TIMER, end)
    pause = 0 if now == attempt.ended_at else LOOK_UP_EVERY
    return Due(DueKind.LOOK_UP, min(now + pause, end))
