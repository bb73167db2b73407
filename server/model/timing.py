"""What becomes of a message's times when the database's clock was set back behind them."""

from dataclasses import replace

from server.model.clock import Micros
from server.model.messages import Attempt, Case, Due, Message


def timed_anew(case: Case, now: Micros) -> tuple[Message, tuple[Attempt, ...]] | None:
    """The message and its attempts as the clock that is right now would have timed them; None where nothing is ahead.

    A message that was changed after `now` was timed by a clock that was ahead by at least as much: all that it waits
    for is earlier by that. What its caller named or was told stays: when to send, and its expiry.
    """
    message = case.message
    ahead = message.updated_at - now
    if ahead <= 0 or message.done:
        return None
    attempts = tuple(_earlier(attempt, ahead, now) for attempt in case.attempts)
    return replace(message, updated_at=now, due=_due_earlier(case, ahead, now)), attempts


def _due_earlier(case: Case, ahead: Micros, now: Micros) -> Due | None:
    due = case.message.due
    if due is None:
        return None
    earliest = 0 if case.attempts else case.message.schedule_at
    return replace(due, at=max(_back(due.at, ahead, now), earliest))


def _earlier(attempt: Attempt, ahead: Micros, now: Micros) -> Attempt:
    times = ("started_at", "deadline", "ended_at", "receipt_at", "retry_at")
    return replace(attempt, **{name: _back(getattr(attempt, name), ahead, now) for name in times})


def _back(at: Micros, ahead: Micros, now: Micros) -> Micros:
    return at - ahead if at > now else at
