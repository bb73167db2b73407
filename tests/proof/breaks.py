"""Ways to break a history, each in one place."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from server.model.clock import SECOND
from server.model.messages import Event
from tests.ledger import Entry
from tests.proof.history import Dump, History, Op, Seen, Watch
from tests.proof.stories import seen_of

Break = Callable[[History], History]


def nothing(history: History) -> History:
    return history


def with_message(**changes: Any) -> Break:
    def apply(history: History) -> History:
        stored = {id_: replace(message, **changes) for id_, message in history.dump.messages.items()}
        return replace(history, dump=replace(history.dump, messages=stored))

    return apply


def due_under(epoch: int) -> Break:
    """The message due under another epoch."""

    def apply(history: History) -> History:
        due = history.dump.messages["m1"].due
        assert due is not None
        return with_message(due=replace(due, epoch=epoch))(history)

    return apply


def without_message(history: History) -> History:
    return replace(history, dump=Dump(), watches=(), ledger=())


def with_attempt(number: int, **changes: Any) -> Break:
    def apply(history: History) -> History:
        attempts = [replace(a, **changes) if a.number == number else a for a in history.dump.attempts["m1"]]
        return replace(history, dump=replace(history.dump, attempts={"m1": attempts}))

    return apply


def with_event(number: int, **changes: Any) -> Break:
    """One event changed; its watchers saw the same."""

    def apply(history: History) -> History:
        return with_events([replace(e, **changes) if e.seq == number else e for e in history.dump.events["m1"]])(
            history
        )

    return apply


def without_events(unwanted: Callable[[Event], bool]) -> Break:
    """Some events gone from the log; its watchers saw the same."""
    return lambda history: with_events([e for e in history.dump.events["m1"] if not unwanted(e)])(history)


def with_events(events: Sequence[Event]) -> Break:
    def apply(history: History) -> History:
        watch = Watch("the tenant's", "t1", [seen_of(e) for e in events])
        return replace(history, dump=replace(history.dump, events={"m1": events}), watches=[watch])

    return apply


def another_event(**changes: Any) -> Break:
    """One event more at the end of the log."""

    def apply(history: History) -> History:
        events = [*history.dump.events["m1"]]
        last = replace(events[-1], seq=len(events) + 1, at=events[-1].at + SECOND, moved=False)
        return both(with_message(last_seq=last.seq), with_events([*events, replace(last, **changes)]))(history)

    return apply


def with_entry(index: int, **changes: Any) -> Break:
    def apply(history: History) -> History:
        entries = _entries(history)
        entries[index] = replace(entries[index], **changes)
        return replace(history, ledger=entries)

    return apply


def another_entry(**changes: Any) -> Break:
    def apply(history: History) -> History:
        entries = _entries(history)
        return replace(history, ledger=[*entries, replace(entries[-1], **changes)])

    return apply


def _entries(history: History) -> list[Entry]:
    return [*(history.ledger or ())]


def without_entries(history: History) -> History:
    return replace(history, ledger=())


def with_op(index: int, **changes: Any) -> Break:
    def apply(history: History) -> History:
        ops = [*history.ops]
        ops[index] = replace(ops[index], **changes)
        return replace(history, ops=ops)

    return apply


def with_ops(*ops: Op) -> Break:
    return lambda history: replace(history, ops=ops)


def with_watch(index: int, change: Callable[[list[Seen]], list[Seen]]) -> Break:
    def apply(history: History) -> History:
        watches = [*history.watches]
        watches[index] = replace(watches[index], seen=change([*watches[index].seen]))
        return replace(history, watches=watches)

    return apply


def with_logs(text: str) -> Break:
    return lambda history: replace(history, logs={"gateway": text})


def with_row(text: str) -> Break:
    return lambda history: replace(history, dump=replace(history.dump, plain=[text]))


def another_message(history: History) -> History:
    """A second message under the same key."""
    second = replace(history.dump.messages["m1"], id="m2")
    events = [replace(event, message_id="m2") for event in history.dump.events["m1"]]
    dump = replace(
        history.dump,
        messages={**history.dump.messages, "m2": second},
        events={**history.dump.events, "m2": events},
    )
    return replace(history, dump=dump, watches=())


def another_attempt(**changes: Any) -> Break:
    """One attempt more, under a number of its own, that an upstream has read."""

    def apply(history: History) -> History:
        attempts = [*history.dump.attempts["m1"]]
        last = replace(attempts[-1], number=len(attempts) + 1, provider_key=99, **changes)
        added = replace(history, dump=replace(history.dump, attempts={"m1": [*attempts, last]}))
        return another_entry(localid="99")(added)

    return apply


def both(first: Break, second: Break) -> Break:
    return lambda history: second(first(history))
