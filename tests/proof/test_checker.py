"""Each promise's check refuses the histories that break it, and none refuses a history that keeps them all."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from server.model.clock import SECOND
from server.model.enums import Channel, EventKind, MessageClass, OnUnconfirmed, OutcomeKind, State
from server.model.policy import LIVES as LIVES_OF_CLASS
from tests.model.history import START, History as Life
from tests.proof.breaks import (
    Break,
    another_attempt,
    another_event,
    another_message,
    both,
    due_under,
    nothing,
    with_attempt,
    with_entry,
    with_event,
    with_logs,
    with_message,
    with_op,
    with_ops,
    with_row,
    with_watch,
    without_entries,
    without_events,
    without_message,
)
from tests.proof.checker import violations_of
from tests.proof.history import Canary, History, Op, Result
from tests.proof.stories import (
    LIVES,
    PHONE,
    SECRET,
    TEXT,
    corrected,
    delivered,
    failed,
    history_of,
    life_of,
    looked_up,
    pushed,
    sent_twice,
)


@pytest.mark.parametrize("live", LIVES, ids=lambda live: live.__name__)
def test_a_history_that_keeps_the_promises_is_passed(live: Callable[[], Life]) -> None:
    """Whatever may rightly happen to a message, no check finds fault with it."""
    assert violations_of(history_of(live())) == []


EXPIRY = START + LIVES_OF_CLASS[MessageClass.TRANSACTIONAL].default

BROKEN: dict[str, tuple[str, Callable[[], Life], Break]] = {
    "accepted and not stored": ("C1 not in the database", delivered, without_message),
    "accepted from another client": ("C1 stored as another's", delivered, with_message(client_id="c2")),
    "nobody will take it up": ("C1 nobody will ever take it up", looked_up, with_message(due=None)),
    "still waiting": ("C1 although there was time", life_of, nothing),
    "failed for no reason": ("C1 FAILED without a reason", failed, with_message(failure=None)),
    "never left": ("C1 no upstream has read it", delivered, without_entries),
    "a number that no attempt has": ("C2 no attempt bears its number", delivered, with_entry(0, localid="4711")),
    "no caller asked": ("C2 no caller asked for it", delivered, with_ops()),
    "the caller was refused": (
        "C2 no caller asked for it",
        delivered,
        with_ops(Op(Result.FAIL, "t1", "c1", key="order-17")),
    ),
    "another client asked": (
        "C2 no caller asked for it",
        delivered,
        with_ops(Op(Result.INFO, "t1", "c2", key="order-17")),
    ),
    "left before its intent": ("C2 left before its intent", delivered, with_entry(0, at=START)),
    "another text": ("C2 another text", delivered, with_entry(0, text="buy now")),
    "another number": ("C2 another number", delivered, with_entry(0, receptor="09121234568")),
    "a second text": ("C3 2 texts, 1 are", delivered, another_attempt()),
    "a second text, no reason to know": (
        "C3 2 attempts may arrive",
        delivered,
        another_attempt(outcome=OutcomeKind.AMBIGUOUS, receipt=None),
    ),
    "a second text that the gateway believes refused": (
        "C3 2 texts, 1 are",
        delivered,
        another_attempt(outcome=OutcomeKind.UNAVAILABLE, receipt=None),
    ),
    "a second attempt under the same number": (
        "C3 2 attempts may arrive",
        sent_twice,
        both(with_message(message_class=MessageClass.BULK), with_attempt(2, provider_key=71)),
    ),
    "a third text of an OTP": ("C3 3 texts, 2 are", sent_twice, another_attempt()),
    "a third text of an OTP in another step": ("C3 3 texts, 2 are", sent_twice, another_attempt(step=2)),
    "a second text over another channel": ("C3 2 texts, 1 are", delivered, another_attempt(channel=Channel.VOICE)),
    "a fourth push to one device": ("C3 4 attempts", pushed, both(another_attempt(), another_attempt())),
    "one key, two messages told": ("C4 more than one message", delivered, with_op(2, tracking_id="m2")),
    "one key, two messages stored": ("C4 under the same key", delivered, another_message),
    "one key, two requests": ("C4 were both accepted", delivered, with_op(2, fingerprint="f2")),
    "made twice": ("C4 each had made it", delivered, with_op(2, replayed=False)),
    "refused for nothing": ("C4 there was none", delivered, with_op(3, fingerprint="f1")),
    "its key leads elsewhere": ("C4 its key leads to it", delivered, with_message(request_id="order-18")),
    "a gap": ("C5 the last should be", delivered, without_events(lambda e: e.seq == 2)),
    "the last event missing": ("C5 the last should be", delivered, with_message(last_seq=9)),
    "a number twice": ("C5 the last should be", delivered, with_event(3, seq=2)),
    "a change that the table forbids": ("C5 DELIVERED became SENDING", delivered, with_event(1, state=State.DELIVERED)),
    "a false start": ("C5 the first event says SENDING", delivered, with_event(1, state=State.SENDING)),
    "another end than the log's": ("C5 the last event says", delivered, with_message(state=State.SENT)),
    "done and not done": ("C5 takes `done` back", corrected, with_event(5, done=False)),
    "an event after the end": ("C5 is no correction to DELIVERED", delivered, another_event()),
    "two corrections": ("C5 2 events after the one", corrected, another_event()),
    "a correction to something else": (
        "C5 is no correction to DELIVERED",
        corrected,
        with_event(5, state=State.UNDELIVERED),
    ),
    "wrong about moving": ("C5 whether it moved", delivered, with_event(2, moved=False)),
    "out of time": ("C5 older than the one before", delivered, with_event(3, at=1)),
    "events of nobody": (
        "C5 a message that is not there",
        delivered,
        lambda h: replace(h, dump=replace(h.dump, messages={}), watches=()),
    ),
    "a watcher misses one": (
        "C5 saw the events [1, 3, 4]",
        delivered,
        with_watch(1, lambda seen: [*seen[:1], *seen[2:]]),
    ),
    "a watcher misses the last": ("C5 saw 3 of 4", delivered, with_watch(0, lambda seen: seen[:-1])),
    "a watcher sees one twice": ("C5 saw the events [2, 2,", delivered, with_watch(3, lambda seen: [seen[0], *seen])),
    "a watcher sees them out of order": (
        "C5 saw the events [2, 1,",
        delivered,
        with_watch(1, lambda seen: [seen[1], seen[0], *seen[2:]]),
    ),
    "a watcher sees nothing": ("C5 saw 0 of 4", delivered, with_watch(1, lambda seen: [])),
    "a watcher sees another state": (
        "C5 as it is not in the log",
        delivered,
        with_watch(1, lambda seen: [*seen[:-1], replace(seen[-1], state=State.FAILED)]),
    ),
    "a watcher sees what is not there": (
        "C5 as it is not in the log",
        delivered,
        with_watch(1, lambda seen: [*seen, replace(seen[-1], seq=len(seen) + 1)]),
    ),
    "read after its expiry": ("C6 an upstream read it", delivered, with_entry(0, at=EXPIRY)),
    "begun after its expiry": ("C6 begun after its expiry", delivered, with_message(expires_at=START + 1)),
    "another expiry was told": ("C6 another expiry", delivered, with_op(1, expires_at=1)),
    "another tenant reads it": ("C8 GetStatus of t2", delivered, with_op(4, result=Result.OK)),
    "another tenant cancels it": ("C8 Cancel of t2", delivered, with_op(4, result=Result.OK, method="Cancel")),
    "another tenant watches it": (
        "C8 of t2",
        delivered,
        lambda h: replace(h, watches=[replace(h.watches[1], tenant_id="t2", complete=False)]),
    ),
    "an event lies about its tenant": (
        "C8 shown to",
        delivered,
        with_watch(1, lambda s: [replace(s[0], tenant_id="t2")]),
    ),
    "another tenant pays": ("C8 another tenant's account", delivered, with_entry(0, account="key-of-t2")),
    "the number is logged": ("C9 the log of gateway", delivered, with_logs('{"to":"09121234567"}')),
    "the text is logged": ("C9 the log of gateway", delivered, with_logs(f"sending {TEXT!r}")),
    "a URL with the secret is logged": (
        "C9 the log of gateway",
        delivered,
        with_logs(f"POST https://api.example/v1/{SECRET}/sms"),
    ),
    "an error tells the text": (
        "C9 an error of Send",
        delivered,
        with_op(0, error=f"UNKNOWN\nUnexpected ValueError: {TEXT}"),
    ),
    "an event tells the number": (
        "C9 an event told to",
        delivered,
        with_watch(1, lambda s: [replace(s[0], whole=PHONE)]),
    ),
    "a row keeps the text unsealed": (
        "C9 a row of the database",
        delivered,
        with_row(f"event {{'failure': '{TEXT}'}}"),
    ),
    "an older claim begins": ("C10 under the epochs [1, 0]", looked_up, with_attempt(2, epoch=0)),
    "due under an older claim": ("C10 due under epoch 1", looked_up, due_under(epoch=1)),
    "two claims in flight": (
        "C10 in flight under another claim",
        looked_up,
        without_events(lambda e: (e.attempt, e.kind) == (1, EventKind.ATTEMPT_ENDED)),
    ),
    "an outcome is overwritten": (
        "C10 was ACCEPTED and became UNAVAILABLE",
        delivered,
        another_event(kind=EventKind.ATTEMPT_ENDED, attempt=1, outcome=OutcomeKind.UNAVAILABLE),
    ),
    "a worker that was given up says no": (
        "C10 became REJECTED without proof",
        sent_twice,
        another_event(kind=EventKind.ATTEMPT_ENDED, attempt=2, outcome=OutcomeKind.REJECTED),
    ),
    "a worker that was given up says that it never left": (
        "C10 became UNAVAILABLE without proof",
        looked_up,
        without_entries,
    ),
    "an outcome without an event": (
        "C10 its last event says AMBIGUOUS",
        sent_twice,
        with_attempt(1, outcome=OutcomeKind.UNAVAILABLE),
    ),
    "an attempt begins twice": (
        "C10 was begun twice",
        delivered,
        another_event(kind=EventKind.ATTEMPT_STARTED, attempt=1),
    ),
    "an attempt without a start": (
        "C10 no event of its start",
        delivered,
        without_events(lambda e: e.kind == EventKind.ATTEMPT_STARTED),
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_history_that_breaks_a_promise_is_refused(name: str) -> None:
    """The check of that promise finds it."""
    expected, live, breaks = BROKEN[name]
    check, why = expected.split(" ", 1)
    found = violations_of(breaks(history_of(live())))
    assert any(violation.check == check and why in violation.why for violation in found), found


@pytest.mark.parametrize(
    "spelled",
    [
        "\\u0628\\u0633\\u062a\\u0647 \\u0634\\u0645\\u0627",
        "%D8%A8%D8%B3%D8%AA%D9%87%20%D8%B4%D9%85%D8%A7",
        "%d8%a8%d8%b3%d8%aa%d9%87+%d8%b4%d9%85%d8%a7",
        "b'\\xd8\\xa8\\xd8\\xb3\\xd8\\xaa\\xd9\\x87 \\xd8\\xb4\\xd9\\x85\\xd8\\xa7'",
        "eyJ0ZXh0IjogItio2LPYqtmHINi02YXYpyJ9",
        "بسته شما",
    ],
    ids=["json", "url", "form", "repr", "base64", "plain"],
)
def test_a_canary_is_found_however_it_is_spelled(spelled: str) -> None:
    """A text in JSON, in a URL, as bytes or in base64 is the same text."""
    canaries = (Canary("text", "بسته شما"),)
    history = History(logs={"gateway": f"before {spelled} after"}, canaries=canaries)
    assert [violation.check for violation in violations_of(history)] == ["C9"]


def test_a_canary_that_could_be_there_by_chance_is_refused() -> None:
    """Six digits are in many a time stamp."""
    with pytest.raises(ValueError, match="too short"):
        Canary("code", "123456")


def test_a_hand_off_may_take_its_time_to_arrive() -> None:
    """What left before the expiry may be read within the slack after it, and no later."""
    history = history_of(delivered())
    late = with_entry(0, at=EXPIRY + SECOND)(history)
    assert violations_of(replace(late, slack=2 * SECOND)) == []
    assert {v.check for v in violations_of(replace(late, slack=SECOND))} == {"C6"}


def test_what_is_under_way_is_not_lost_yet() -> None:
    """Only a run that was given the time to finish must have finished."""
    assert violations_of(replace(history_of(life_of()), quiet=False)) == []


def test_sends_again_only_where_the_caller_allows_it() -> None:
    """The caller's own choice widens what its class allows."""
    history = with_message(message_class=MessageClass.TRANSACTIONAL)(history_of(sent_twice()))
    assert {v.check for v in violations_of(history)} == {"C3"}
    assert violations_of(with_message(on_unconfirmed=OnUnconfirmed.SEND_AGAIN)(history)) == []
