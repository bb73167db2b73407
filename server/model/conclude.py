"""How a decision is drawn up: state, status, done and failure from the attempts, and the events that tell of it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from server.model.clock import Micros
from server.model.enums import EventKind, State
from server.model.failures import Failure
from server.model.messages import Attempt, Case, Due, Event, Message
from server.model.states import status_of
from server.model.verdict import failure_for, is_done, state_of


@dataclass(frozen=True, slots=True)
class Decision:
    """The message after the fact, the attempts that are new or changed, and the events to append to its log."""

    message: Message
    attempts: tuple[Attempt, ...] = ()
    events: tuple[Event, ...] = ()


@dataclass(frozen=True, slots=True)
class Told:
    """What an event says beside the state: its kind, its attempt, and a failure that the fact itself named."""

    kind: EventKind = EventKind.STATE
    attempt: Attempt | None = None
    failure: Failure | None = None


def conclude(case: Case, changed: Sequence[Attempt], due: Due | None, told: Sequence[Told], now: Micros) -> Decision:
    """State, status, done and failure follow from the attempts; the events tell of it."""
    before, attempts = case.message, merge(case.attempts, changed)
    if before.done:
        return _correct(case, changed, attempts, told, now)
    state = state_of(before, attempts, due)
    done = is_done(state, attempts, due)
    taken = any(a.accepted or a.delivered for a in attempts)
    named = next((t.failure for t in told if t.failure is not None), None)
    after = replace(
        before,
        state=state,
        status=status_of(state, done=done, taken=taken),
        done=done,
        failure=failure_for(state, attempts, done=done, otherwise=named),
        due=None if done else _renumber(due, before, attempts),
        attempt_count=max((a.number for a in attempts), default=before.attempt_count),
        updated_at=now,
        done_at=now if done else 0,
        **_shown(attempts),
    )
    return _with_events(before, after, changed, told, now)


def _correct(
    case: Case, changed: Sequence[Attempt], attempts: Sequence[Attempt], told: Sequence[Told], now: Micros
) -> Decision:
    """After `done` a late receipt may still correct it to DELIVERED; all else is noted on its attempt alone."""
    before = case.message
    correctable = before.state in (State.UNDELIVERED, State.SENT, State.UNCONFIRMED)
    if not (correctable and any(a.delivered for a in attempts)):
        return Decision(replace(before, due=None), tuple(changed))
    state = State.DELIVERED
    status = status_of(state, done=True, taken=True)
    after = replace(before, state=state, status=status, failure=None, due=None, updated_at=now, **_shown(attempts))
    return _with_events(before, after, changed, told, now)


def _shown(attempts: Sequence[Attempt]) -> dict[str, object]:
    """Channel, provider and segments of the message: those of the attempt that arrived, else of the latest."""
    shown = next((a for a in attempts if a.delivered), attempts[-1] if attempts else None)
    if shown is None:
        return {}
    return {"channel": shown.channel, "provider": shown.account, "segments": shown.segments}


def _renumber(due: Due | None, before: Message, attempts: Sequence[Attempt]) -> Due | None:
    """A due row made anew goes on from the highest epoch seen, so that no old claim can ever match it."""
    if due is None or due is before.due or due.worker:
        return due
    seen = max((a.epoch for a in attempts), default=0)
    return replace(due, epoch=max(seen, before.due.epoch if before.due else 0))


def _with_events(
    before: Message, after: Message, changed: Sequence[Attempt], told: Sequence[Told], now: Micros
) -> Decision:
    moved = (before.state, before.done) != (after.state, after.done)
    if not moved:
        told = [t for t in told if t.kind != EventKind.STATE]
    events = tuple(_event(after, t, before.last_seq + n, now, moved=moved and n == 1) for n, t in enumerate(told, 1))
    return Decision(replace(after, last_seq=before.last_seq + len(events)), tuple(changed), events)


def _event(message: Message, told: Told, seq: int, now: Micros, *, moved: bool) -> Event:
    attempt = told.attempt
    return Event(
        message_id=message.id,
        seq=seq,
        kind=told.kind,
        at=now,
        state=message.state,
        status=message.status,
        done=message.done,
        tenant_id=message.tenant_id,
        client_id=message.client_id,
        intent=message.intent,
        message_class=message.message_class,
        moved=moved,
        channel=attempt.channel if attempt else message.channel,
        provider=attempt.account if attempt else message.provider,
        attempt=attempt.number if attempt else 0,
        outcome=attempt.outcome if attempt else None,
        failure=attempt.failure if attempt else message.failure,
        reference=message.reference,
        tags=message.tags,
        phone_index=message.phone_index,
        created_at=message.created_at,
    )


def accepted_event(message: Message) -> Event:
    """The first event of every log."""
    return _event(message, Told(), 1, message.created_at, moved=True)


def merge(attempts: Sequence[Attempt], changed: Sequence[Attempt]) -> list[Attempt]:
    """All attempts in order of their number, the changed ones in their new shape."""
    by_number = {a.number: a for a in attempts} | {a.number: a for a in changed}
    return [by_number[number] for number in sorted(by_number)]
