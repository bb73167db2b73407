"""C5 and C10: what the status log, its watchers and the attempts say of each other."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

from server.model.enums import EventKind, OutcomeKind, State
from server.model.messages import Attempt, Event, Message
from server.model.states import may_become
from tests.ledger import LOOK_UP
from tests.proof.history import History, Seen, Watch
from tests.proof.violations import Violation

FIRST_STATES = frozenset({State.ACCEPTED, State.SCHEDULED})
NEVER_REGISTERED = 100


def check_events(history: History) -> Iterator[Violation]:
    """C5: events 1..n, changes that the table allows, `done` once, one correction after it, and the row agrees."""
    for message in history.dump.messages.values():
        events = history.events_of(message.id)
        if [event.seq for event in events] != list(range(1, message.last_seq + 1)):
            yield Violation(
                "C5", message.id, f"events {[e.seq for e in events]}, the last should be {message.last_seq}"
            )
        else:
            yield from (Violation("C5", message.id, why) for why in _log_faults(message, events))
            if not history.jumps and any(new.at < old.at for old, new in pairwise(events)):
                yield Violation("C5", message.id, "an event is older than the one before it")
    for id_ in history.dump.events.keys() - history.dump.messages.keys():
        yield Violation("C5", id_, "events of a message that is not there")


def _log_faults(message: Message, events: Sequence[Event]) -> Iterator[str]:
    if events[0].state not in FIRST_STATES:
        yield f"the first event says {events[0].state}"
    if (events[-1].state, events[-1].done) != (message.state, message.done):
        yield f"the last event says {events[-1].state}, the message is {message.state}"
    for old, new in pairwise(events):
        if not may_become(old.state, new.state):
            yield f"{old.state} became {new.state} in event {new.seq}"
        if old.done and not new.done:
            yield f"event {new.seq} takes `done` back"
        if new.moved != ((old.state, old.done) != (new.state, new.done)):
            yield f"event {new.seq} is wrong about whether it moved the message"
    yield from _after_done(events)


def _after_done(events: Sequence[Event]) -> Iterator[str]:
    """The events of the deciding transaction bear its time; behind them there is one more at most."""
    ending = [event for event in events if event.done]
    late = [event for event in ending if event.at != ending[0].at]
    if len(late) > 1:
        yield f"{len(late)} events after the one that was done"
    if late and not (late[0].moved and late[0].state == State.DELIVERED):
        yield f"after it was done, event {late[0].seq} is no correction to DELIVERED"


def check_watches(history: History) -> Iterator[Violation]:
    """C5: what a watcher saw over all its connections is the log itself: nothing missing, twice, or out of order."""
    for watch in history.watches:
        by_message: dict[str, list[Seen]] = {}
        for seen in watch.seen:
            by_message.setdefault(seen.message_id, []).append(seen)
        for id_ in by_message.keys() | _followed(history, watch):
            faults = _watch_faults(watch, by_message.get(id_, []), history.events_of(id_))
            yield from (Violation("C5", id_, f"{watch.name} {why}") for why in faults)


def _followed(history: History, watch: Watch) -> set[str]:
    """The messages that a watcher must have seen."""
    if watch.message_id:
        return {watch.message_id}
    mine = {id_ for id_, message in history.dump.messages.items() if message.tenant_id == watch.tenant_id}
    return mine if watch.from_first and watch.complete else set()


def _watch_faults(watch: Watch, seen: Sequence[Seen], events: Sequence[Event]) -> Iterator[str]:
    numbers = [one.seq for one in seen]
    first = 1 if watch.from_first else min(numbers, default=1)
    if numbers != list(range(first, first + len(numbers))):
        yield f"saw the events {numbers}"
    last = _last_told(watch, events)
    if watch.complete and max(numbers, default=0) < last:
        yield f"saw {max(numbers, default=0)} of {last} events"
    logged = {event.seq: (event.kind, event.state, event.done) for event in events}
    for one in seen:
        if logged.get(one.seq) != (one.kind, one.state, one.done):
            yield f"saw event {one.seq} as it is not in the log"


def _last_told(watch: Watch, events: Sequence[Event]) -> int:
    """Of one message a watch ends with the transaction that made it done; a tenant's goes on."""
    ending = [event for event in events if event.done]
    if not watch.message_id or not ending:
        return len(events)
    return max(event.seq for event in ending if event.at == ending[0].at)


def check_fences(history: History) -> Iterator[Violation]:
    """C10: only the claim that holds a message moves it; who lost it may at most prove that the provider took it."""
    for message in history.dump.messages.values():
        attempts = history.attempts_of(message.id)
        faults = [*_epoch_faults(message, attempts)]
        faults += _overlaps(attempts, history.events_of(message.id))
        for attempt in attempts:
            told = [e for e in history.events_of(message.id) if e.attempt == attempt.number]
            faults += _attempt_faults(history, message, attempt, told)
        yield from (Violation("C10", message.id, why) for why in faults)


def _epoch_faults(message: Message, attempts: Sequence[Attempt]) -> Iterator[str]:
    epochs = [attempt.epoch for attempt in attempts]
    if epochs != sorted(epochs):
        yield f"attempts were begun under the epochs {epochs}"
    if message.due is not None and epochs and message.due.epoch < max(epochs):
        yield f"due under epoch {message.due.epoch}, an attempt was begun under {max(epochs)}"


def _overlaps(attempts: Sequence[Attempt], events: Sequence[Event]) -> Iterator[str]:
    """One claim may have several attempts in flight, one for each destination; two claims never."""
    epochs = {attempt.number: attempt.epoch for attempt in attempts}
    flying: set[int] = set()
    for event in events:
        if event.kind == EventKind.ATTEMPT_ENDED:
            flying.discard(event.attempt)
        elif event.kind == EventKind.ATTEMPT_STARTED:
            for other in flying:
                if epochs.get(other) != epochs.get(event.attempt):
                    yield f"attempt {event.attempt} was begun while {other} was in flight under another claim"
            flying.add(event.attempt)


def _attempt_faults(history: History, message: Message, attempt: Attempt, events: Sequence[Event]) -> Iterator[str]:
    if not events or events[0].kind != EventKind.ATTEMPT_STARTED:
        yield f"attempt {attempt.number} has no event of its start"
    before: OutcomeKind | None = None
    for event in events[1:]:
        if event.kind == EventKind.ATTEMPT_STARTED:
            yield f"attempt {attempt.number} was begun twice"
        if event.kind == EventKind.ATTEMPT_ENDED and before is not None:
            why = _second_outcome(history, attempt, before, event)
            if why:
                yield f"attempt {attempt.number} {why}"
        before = event.outcome
    # Once it is done, what is proved late is noted on the attempt alone.
    if attempt.outcome != before and not (message.done and attempt.outcome == OutcomeKind.ACCEPTED):
        yield f"attempt {attempt.number} is {attempt.outcome}, its last event says {before}"


def _second_outcome(history: History, attempt: Attempt, before: OutcomeKind, event: Event) -> str:
    """Why an outcome may not replace an earlier one; "" where it may."""
    if before != OutcomeKind.AMBIGUOUS:
        return f"was {before} and became {event.outcome}"
    if event.outcome == OutcomeKind.ACCEPTED:
        return ""
    if event.outcome == OutcomeKind.UNAVAILABLE and _proved_absent(history, attempt, event):
        return ""
    return f"was AMBIGUOUS and became {event.outcome} without proof"


def _proved_absent(history: History, attempt: Attempt, event: Event) -> bool:
    if history.ledger is None:
        return attempt.follow.looks_up
    number = str(attempt.provider_key)
    return any(
        entry.call == LOOK_UP and entry.found.get(number) == NEVER_REGISTERED and entry.at <= event.at + history.slack
        for entry in history.ledger
    )
