"""The one rule book: what a fact makes of a message. Pure; `store.apply` is its only caller on the message path."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import assert_never

from server.model.clock import Micros
from server.model.conclude import Decision, Told, conclude, merge
from server.model.enums import DueKind, EventKind, FailureReason, OutcomeKind, ReceiptKind, Stop
from server.model.facts import (
    ClockSetBack,
    Fact,
    Followed,
    LookedUp,
    Opening,
    Postponed,
    Receipted,
    Settled,
    Started,
    Stopped,
    Unplannable,
    WorkerLost,
)
from server.model.failures import Failure
from server.model.messages import Attempt, Case, Due, Hold
from server.model.outcomes import (
    Accepted,
    Ambiguous,
    Found,
    Misconfigured,
    NeverRegistered,
    NoAnswer,
    Outcome,
    RateLimited,
    Receipt,
    Rejected,
    Unavailable,
    failure_of,
    kind_of,
)
from server.model.policy import LOOK_UP_MARGIN, PAUSE_MAX, POISON_CLAIMS
from server.model.states import FINAL
from server.model.timing import timed_anew
from server.model.verdict import follow_up, give_up_windows, latest_step, lose_patience, resend_at


@dataclass(frozen=True, slots=True)
class Refused:
    """The fact changes nothing. `why`: STALE, FINAL, STOPPED, EXPIRED, UNKNOWN, SAME or NOTHING_TO_CANCEL."""

    why: str


def decide(case: Case, fact: Fact, now: Micros) -> Decision | Refused:  # noqa: C901 - one case a fact
    """Apply one fact to a message. `now` is the database's clock; nothing else is read."""
    match fact:
        case Started():
            return _start(case, fact, now)
        case Settled():
            return _settle(case, fact, now)
        case WorkerLost():
            return _lose_worker(case, fact, now)
        case LookedUp():
            return _look_up(case, fact, now)
        case Receipted():
            return _receive(case, fact, now)
        case Followed():
            return _follow(case, fact, now)
        case Postponed():
            return _postpone(case, fact, now)
        case Stopped():
            return _stop(case, fact, now)
        case Unplannable():
            return _give_up(case, fact, now)
        case ClockSetBack():
            anew = timed_anew(case, now)
            return Refused("SAME") if anew is None else Decision(*anew)
        case _:
            assert_never(fact)


def may_be_stopped(case: Case) -> bool:
    """Whether an attempt, a retry or a step is left that a Cancel would stop. A call in flight always has its retry."""
    due = case.message.due
    if due is not None and due.kind == DueKind.SEND:
        return True
    latest = latest_step(case.attempts)
    return any(
        a.in_flight or _may_be_repeated(a) or (a.accepted and a.behind.steps and a.step == latest)
        for a in case.attempts
    )


def _may_be_repeated(attempt: Attempt) -> bool:
    return attempt.ambiguous and (not attempt.given_up or attempt.follow.looks_up)


def _start(case: Case, fact: Started, now: Micros) -> Decision | Refused:
    message = case.message
    if message.state in FINAL:
        return Refused("FINAL")
    if message.due is None or not _claimed_to_send(message.due, fact.hold):
        return Refused("STALE")
    begun = tuple(a for a in case.attempts if a.in_flight and a.epoch == fact.hold.epoch)
    if begun:
        # The same intent again: its first commit had gone through although its answer was lost.
        return Decision(message, begun)
    if message.stop is not None:
        return Refused("STOPPED")
    if now >= message.expires_at:
        return Refused("EXPIRED")
    if any(_awaits(case, opening) for opening in fact.openings):
        # It has been heard of since the plan was made: nothing is handed off, what is known is followed.
        return conclude(case, (), follow_up(message, case.attempts, now), [Told()], now)
    opened = tuple(_open(o, message.attempt_count + n, fact.hold.epoch, now) for n, o in enumerate(fact.openings, 1))
    deadline = max(a.deadline for a in opened)
    due = replace(message.due, kind=DueKind.SEND, at=deadline, claims=0)
    told = [Told(EventKind.ATTEMPT_STARTED, attempt) for attempt in opened]
    return conclude(case, opened, due, told, now)


def _awaits(case: Case, opening: Opening) -> bool:
    return any(
        a.may_arrive and not (a.ambiguous and a.given_up)
        for a in case.attempts
        if (a.step, a.destination) == (opening.step, opening.destination)
    )


def _open(opening: Opening, number: int, epoch: int, now: Micros) -> Attempt:
    return Attempt(
        number=number,
        step=opening.step,
        channel=opening.channel,
        account=opening.account,
        account_uid=opening.account_uid,
        destination=opening.destination,
        epoch=epoch,
        provider_key=opening.provider_key,
        started_at=now,
        deadline=opening.deadline,
        follow=opening.follow,
        behind=opening.behind,
        segments=opening.segments,
        patience=opening.patience,
    )


def _settle(case: Case, fact: Settled, now: Micros) -> Decision | Refused:
    attempt = _find(case, fact.number)
    if attempt is None or attempt.epoch != fact.hold.epoch:
        return Refused("UNKNOWN" if attempt is None else "STALE")
    # A worker that was given up may still bring proof that the provider took the message; it may bring nothing else.
    if not attempt.in_flight and not (attempt.ambiguous and isinstance(fact.outcome, Accepted)):
        return Refused("STALE")
    ended = _end(attempt, fact.outcome, now)
    for receipt in fact.receipts:
        ended = _with_receipt(ended, receipt, now) or ended
    return _move_on(case, (ended,), [Told(EventKind.ATTEMPT_ENDED, ended)], now, fact.jitter)


def _end(attempt: Attempt, outcome: Outcome, now: Micros) -> Attempt:
    ended = replace(attempt, outcome=kind_of(outcome), failure=failure_of(outcome), ended_at=now)
    if attempt.receipt is not None and not isinstance(outcome, Accepted):
        # A report came before the answer: it was taken, whatever became of the answer.
        return replace(ended, outcome=OutcomeKind.ACCEPTED, failure=attempt.failure)
    match outcome:
        case Accepted(provider_message_id):
            return replace(ended, provider_message_id=provider_message_id, failure=attempt.failure)
        case Rejected(refusal):
            return replace(ended, refusal=refusal)
        case Misconfigured(fault):
            return replace(ended, fault=fault)
        case RateLimited(_, retry_after):
            return replace(ended, retry_at=now + retry_after)
        case Unavailable() | Ambiguous():
            return ended
        case _:
            assert_never(outcome)


def _lose_worker(case: Case, fact: WorkerLost, now: Micros) -> Decision | Refused:
    due = case.message.due
    if due is None or not due.held_by(fact.hold):
        return Refused("STALE")
    lost = tuple(_end(a, Ambiguous(_WORKER_LOST), now) for a in case.attempts if a.in_flight)
    if lost:
        return _move_on(case, lost, [Told(EventKind.ATTEMPT_ENDED, a) for a in lost], now, jitter=0.0)
    if due.kind == DueKind.SEND and due.claims >= POISON_CLAIMS:
        return _end_unplanned(case, FailureReason.POISON, now)
    return Decision(replace(case.message, updated_at=now, due=replace(due, at=now, worker="")))


_WORKER_LOST = Failure(
    FailureReason.AMBIGUOUS, "The process that was sending it ended before the provider's answer was kept."
)


def _look_up(case: Case, fact: LookedUp, now: Micros) -> Decision | Refused:
    attempt = _find(case, fact.number)
    if attempt is None or not attempt.ambiguous:
        return Refused("UNKNOWN" if attempt is None else "SAME")
    match fact.result:
        case Found(provider_message_id):
            outcome: Outcome = Accepted(provider_message_id)
        case NeverRegistered() if now < attempt.deadline + LOOK_UP_MARGIN:
            # The request may be on its way still: what was not there yet may be there in a moment.
            return Refused("SAME")
        case NeverRegistered():
            outcome = Unavailable(_NEVER_REGISTERED)
        case NoAnswer():
            return Refused("SAME")
        case _:
            assert_never(fact.result)
    ended = replace(_end(attempt, outcome, now), ended_at=attempt.ended_at)
    return _move_on(case, (ended,), [Told(EventKind.ATTEMPT_ENDED, ended)], now, fact.jitter)


_NEVER_REGISTERED = Failure(FailureReason.PROVIDER_UNAVAILABLE, "The provider says that it never took it.")


def _receive(case: Case, fact: Receipted, now: Micros) -> Decision | Refused:
    attempt = _find(case, fact.number)
    if attempt is None:
        return Refused("UNKNOWN")
    reported = _with_receipt(attempt, fact.receipt, now)
    if reported is None:
        return Refused("SAME")
    if not reported.provider_message_id:
        reported = replace(reported, provider_message_id=fact.provider_message_id)
    return _move_on(case, (reported,), [Told(EventKind.RECEIPT, reported)], now, jitter=0.0)


def _with_receipt(attempt: Attempt, receipt: Receipt, now: Micros) -> Attempt | None:
    """The attempt after a report; None when the report tells nothing new. A receipt only moves forward."""
    if attempt.delivered or attempt.receipt == receipt.kind:
        return None
    if receipt.kind == ReceiptKind.OTHER:
        if attempt.in_flight and attempt.receipt is None:
            return replace(attempt, receipt=ReceiptKind.OTHER, receipt_at=now)
        return replace(attempt, outcome=OutcomeKind.ACCEPTED, failure=None) if attempt.ambiguous else None
    if attempt.undelivered and receipt.kind != ReceiptKind.DELIVERED:
        return None
    failure = receipt.failure or _UNDELIVERED if receipt.kind == ReceiptKind.UNDELIVERED else None
    outcome = attempt.outcome if attempt.in_flight else OutcomeKind.ACCEPTED
    return replace(attempt, outcome=outcome, receipt=receipt.kind, failure=failure, receipt_at=now)


_UNDELIVERED = Failure(FailureReason.RECIPIENT_UNREACHABLE, "The provider reports that it was not delivered.")


def _follow(case: Case, fact: Followed, now: Micros) -> Decision | Refused:
    due = case.message.due
    if due is None or not due.held_by(fact.hold) or due.kind == DueKind.SEND:
        return Refused("STALE")
    judged = lose_patience(case.message, give_up_windows(case.message, case.attempts, now), now)
    changed = tuple(new for old, new in zip(case.attempts, judged, strict=True) if new != old)
    return _move_on(case, changed, [Told()], now, jitter=0.0)


def _postpone(case: Case, fact: Postponed, now: Micros) -> Decision | Refused:
    due = case.message.due
    if due is None or not _claimed_to_send(due, fact.hold) or _was_in_flight(case):
        return Refused("STALE")
    # No pause is longer: what asks for more was read from a clock that has been set back since.
    until = min(max(fact.until, now), now + PAUSE_MAX, case.message.expires_at)
    return Decision(replace(case.message, updated_at=now, due=replace(due, at=until, worker="", claims=0)))


def _stop(case: Case, fact: Stopped, now: Micros) -> Decision | Refused:
    message = case.message
    if message.done:
        return Refused("FINAL")
    if message.stop is not None and fact.stop != Stop.VERIFIED:
        return Refused("STOPPED")
    if fact.stop == Stop.EXPIRED and now < message.expires_at:
        return Refused("SAME")
    if fact.stop == Stop.CANCELED and not may_be_stopped(case):
        return Refused("NOTHING_TO_CANCEL")
    stopped = replace(case, message=replace(message, stop=fact.stop))
    return _move_on(stopped, (), [Told()], now, jitter=0.0)


def _give_up(case: Case, fact: Unplannable, now: Micros) -> Decision | Refused:
    due = case.message.due
    if due is None or not _claimed_to_send(due, fact.hold) or _was_in_flight(case):
        return Refused("STALE")
    return _end_unplanned(case, fact.reason, now)


def _end_unplanned(case: Case, reason: FailureReason, now: Micros) -> Decision:
    failure = (
        None if reason == FailureReason.NO_ROUTE and case.attempts else Failure(reason, _UNPLANNED.get(reason, ""))
    )
    exhausted = replace(case, message=replace(case.message, stop=Stop.EXHAUSTED))
    due = follow_up(exhausted.message, case.attempts, now)
    return conclude(exhausted, (), due, [Told(failure=failure)], now)


_UNPLANNED = {
    FailureReason.NO_ROUTE: "No rule and no active provider could carry it.",
    FailureReason.POISON: "Five times the process that took it up ended before it could be handed off.",
    FailureReason.PROVIDER_UNAVAILABLE: "Every provider of its route was tried as often as its class allows.",
}


def _move_on(case: Case, changed: Sequence[Attempt], told: Sequence[Told], now: Micros, jitter: float) -> Decision:
    """Work out what is due next and conclude. A send that is due already, or in flight, stays as it is."""
    message, attempts = case.message, merge(case.attempts, changed)
    if message.due is not None and any(a.in_flight for a in attempts):
        return conclude(case, changed, message.due, told, now)
    pending = message.due is not None and message.due.kind == DueKind.SEND and not _was_in_flight(case)
    if pending and message.stop is None:
        return conclude(case, changed, message.due, told, now)
    again = resend_at(message, attempts, now, jitter)
    if again is not None and now >= message.expires_at:
        case = replace(case, message=replace(message, stop=Stop.EXPIRED))
        again = None
    due = follow_up(message, attempts, now) if again is None else Due(DueKind.SEND, min(again, message.expires_at))
    return conclude(case, changed, due, told, now)


def _claimed_to_send(due: Due, hold: Hold) -> bool:
    return due.kind == DueKind.SEND and due.held_by(hold)


def _was_in_flight(case: Case) -> bool:
    return any(a.in_flight for a in case.attempts)


def _find(case: Case, number: int) -> Attempt | None:
    return next((a for a in case.attempts if a.number == number), None)
