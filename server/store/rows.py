"""Noun ↔ row, one function each way; the only place that knows how a noun lies in its table.

A row is a tuple in the order of its columns' `names`. JSON in a row is compact and keeps its letters.
"""

import json
from collections.abc import Sequence
from typing import Any

from server.model.enums import (
    Channel,
    DueKind,
    EventKind,
    FailureReason,
    MessageClass,
    MessageKind,
    OnUnconfirmed,
    OutcomeKind,
    State,
    Status,
    Stop,
    Word,
)
from server.model.explanation import DETAILS, Candidate, Explanation, RuleLook, Verdict
from server.model.failures import Failure
from server.model.messages import Due, Event, Message
from server.store.dialect import Columns, Values, columns

Row = Sequence[Any]

_SEALED = ("body", "recipient", "erased")
_FOUND_BY = ("email_index", "user_index")

MESSAGE = Columns(
    "message",
    ("id",),
    (
        "tenant_id",
        "client_id",
        "request_id",
        "kind",
        "intent",
        "message_class",
        "state",
        "status",
        "done",
        "stop",
        "failure",
        "last_seq",
        "attempt_count",
        "rule",
        "reference",
        "tags",
        "on_unconfirmed",
        "channel_wanted",
        "channel",
        "provider",
        "recipient_hint",
        "phone_index",
        "segments",
        "schedule_at",
        "created_at",
        "updated_at",
        "expires_at",
        "done_at",
        "scenario",
        "template_key",
        "template_revision",
        "message_kind",
        "verification_id",
    ),
)
"""What a Message is read from."""

MESSAGE_NEW = Columns("message", ("id",), (*MESSAGE.rest, *_FOUND_BY, *_SEALED))
"""What a message is first written with."""

MESSAGE_MOVED = Columns(
    "message",
    ("id",),
    (
        "state",
        "status",
        "done",
        "stop",
        "failure",
        "last_seq",
        "attempt_count",
        "rule",
        "channel",
        "provider",
        "segments",
        "updated_at",
        "done_at",
    ),
)
"""What a fact may change of a message."""

MESSAGE_TAG = Columns("message_tag", ("message_id", "tag"), ("tenant_id",))
DUE = Columns("due", ("message_id",), ("tenant_id", "message_class", "kind", "due_at", "worker", "epoch", "claims"))
EVENT = Columns(
    "event",
    (),
    (
        "message_id",
        "seq",
        "kind",
        "at",
        "state",
        "status",
        "done",
        "moved",
        "tenant_id",
        "client_id",
        "intent",
        "message_class",
        "channel",
        "provider",
        "attempt",
        "outcome",
        "failure",
        "reference",
        "tags",
        "phone_index",
        "created_at",
    ),
)
"""What an Event is read from."""

EVENT_NEW = Columns("event", (), (*EVENT.rest, "log_epoch", "xid"))
IDEMPOTENCY = columns("idempotency")
SANDBOX_MESSAGE = columns("sandbox_message")
EXPLANATION = columns("explanation")


dump = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
"""JSON as it is stored."""


def message_row(message: Message) -> Values:
    """A row of MESSAGE."""
    return (
        message.id,
        message.tenant_id,
        message.client_id,
        message.request_id,
        message.kind,
        message.intent,
        message.message_class.value,
        message.state.value,
        message.status.value,
        message.done,
        message.stop.value if message.stop else None,
        failure_text(message.failure),
        message.last_seq,
        message.attempt_count,
        message.rule,
        message.reference,
        dump(message.tags) if message.tags else "[]",
        message.on_unconfirmed.value,
        word(message.channel_wanted),
        word(message.channel),
        message.provider,
        message.recipient_hint,
        message.phone_index,
        message.segments,
        message.schedule_at,
        message.created_at,
        message.updated_at,
        message.expires_at,
        message.done_at,
        message.scenario,
        message.template_key,
        message.template_revision,
        word(message.message_kind),
        message.verification_id,
    )


def moved_row(message: Message) -> Values:
    """A row of MESSAGE_MOVED."""
    return (
        message.id,
        message.state.value,
        message.status.value,
        message.done,
        message.stop.value if message.stop else None,
        failure_text(message.failure),
        message.last_seq,
        message.attempt_count,
        message.rule,
        word(message.channel),
        message.provider,
        message.segments,
        message.updated_at,
        message.done_at,
    )


def message_of(row: Row, due: Due | None) -> Message:
    """The message in a row of MESSAGE, and what is due with it."""
    return Message(
        id=row[0],
        tenant_id=row[1],
        client_id=row[2],
        request_id=row[3],
        kind=row[4],
        intent=row[5],
        message_class=MessageClass(row[6]),
        state=State(row[7]),
        status=Status(row[8]),
        done=bool(row[9]),
        stop=Stop(row[10]) if row[10] else None,
        failure=failure_of(row[11]),
        last_seq=row[12],
        attempt_count=row[13],
        rule=row[14],
        reference=row[15],
        tags=_tags_of(row[16]),
        on_unconfirmed=OnUnconfirmed(row[17]),
        channel_wanted=Channel(row[18]) if row[18] else None,
        channel=Channel(row[19]) if row[19] else None,
        provider=row[20],
        recipient_hint=row[21],
        phone_index=row[22],
        segments=row[23],
        schedule_at=row[24],
        created_at=row[25],
        updated_at=row[26],
        expires_at=row[27],
        done_at=row[28],
        scenario=row[29],
        template_key=row[30],
        template_revision=row[31],
        message_kind=MessageKind(row[32]) if row[32] else None,
        verification_id=row[33],
        due=due,
    )


def due_row(message: Message, due: Due) -> Values:
    """A row of DUE."""
    return (
        message.id,
        message.tenant_id,
        message.message_class.value,
        due.kind.value,
        due.at,
        due.worker,
        due.epoch,
        due.claims,
    )


def due_of(row: Row) -> Due:
    """What is due, in a row of DUE."""
    return Due(kind=DueKind(row[3]), at=row[4], worker=row[5], epoch=row[6], claims=row[7])


def event_row(event: Event, log_epoch: int) -> Values:
    """A row of EVENT_NEW; its xid is 0, for Postgres sets its own."""
    return (
        event.message_id,
        event.seq,
        event.kind.value,
        event.at,
        event.state.value,
        event.status.value,
        event.done,
        event.moved,
        event.tenant_id,
        event.client_id,
        event.intent,
        event.message_class.value,
        word(event.channel),
        event.provider,
        event.attempt,
        word(event.outcome),
        failure_text(event.failure),
        event.reference,
        dump(event.tags) if event.tags else "[]",
        event.phone_index,
        event.created_at,
        log_epoch,
        0,
    )


def event_of(row: Row) -> Event:
    """The event in a row of EVENT."""
    return Event(
        message_id=row[0],
        seq=row[1],
        kind=EventKind(row[2]),
        at=row[3],
        state=State(row[4]),
        status=Status(row[5]),
        done=bool(row[6]),
        moved=bool(row[7]),
        tenant_id=row[8],
        client_id=row[9],
        intent=row[10],
        message_class=MessageClass(row[11]),
        channel=Channel(row[12]) if row[12] else None,
        provider=row[13],
        attempt=row[14],
        outcome=OutcomeKind(row[15]) if row[15] else None,
        failure=failure_of(row[16]),
        reference=row[17],
        tags=_tags_of(row[18]),
        phone_index=row[19],
        created_at=row[20],
    )


def word(word: Word | None) -> str:
    """A word as a column holds it: drivers take plain text, all of one type in a column."""
    return "" if word is None else word.value


def failure_text(failure: Failure | None) -> str:
    """A failure as a column holds it."""
    return "" if failure is None else dump((failure.reason, failure.message, failure.provider_code))


def failure_of(text: str) -> Failure | None:
    """The failure in a column; None in an empty one."""
    if not text:
        return None
    reason, message, provider_code = json.loads(text)
    return Failure(FailureReason(reason), message, provider_code)


def explanation_text(explanation: Explanation) -> str:
    """An explanation as a column holds it: rules up to the one that is followed, reasons without their sentences."""
    followed = next((n for n, rule in enumerate(explanation.rules, 1) if rule.matched), len(explanation.rules))
    return dump(
        [
            [(rule.name, rule.matched, rule.why) for rule in explanation.rules[:followed]],
            [(c.step, c.channel or "", c.provider, c.verdict, c.reason) for c in explanation.candidates],
            explanation.country,
            explanation.operator,
            explanation.segments,
            explanation.encoding,
            explanation.revision,
        ]
    )


def explanation_of(text: str) -> Explanation:
    """The explanation in a column."""
    rules, candidates, *rest = json.loads(text)
    looked = tuple(RuleLook(*rule) for rule in rules)
    weighed = tuple(_candidate_of(*candidate) for candidate in candidates)
    return Explanation(looked, weighed, *rest)


def _candidate_of(step: int, channel: str, provider: str, verdict: str, reason: str) -> Candidate:
    named = Channel(channel) if channel else None
    return Candidate(step, named, provider, Verdict(verdict), reason, DETAILS.get(reason, ""))


def _tags_of(text: str) -> tuple[str, ...]:
    return () if text == "[]" else tuple(json.loads(text))
