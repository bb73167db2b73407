"""Attempt ↔ row, one function each way."""

import json
from dataclasses import astuple
from functools import lru_cache

from server.model.enums import Channel, OutcomeKind, ReceiptKind
from server.model.messages import Attempt, Behind, Follow
from server.model.outcomes import Fault, Refusal
from server.store.dialect import Columns, Values
from server.store.rows import Row, dump, failure_of, failure_text, word

ATTEMPT = Columns(
    "attempt",
    ("message_id", "number"),
    (
        "step",
        "channel",
        "account",
        "account_uid",
        "destination",
        "epoch",
        "provider_key",
        "started_at",
        "deadline",
        "follow",
        "behind",
        "outcome",
        "refusal",
        "fault",
        "failure",
        "receipt",
        "provider_message_id",
        "ended_at",
        "receipt_at",
        "retry_at",
        "segments",
        "given_up",
        "patience",
        "overdue",
    ),
)


def attempt_row(message_id: str, attempt: Attempt) -> Values:
    """A row of ATTEMPT."""
    return (
        message_id,
        attempt.number,
        attempt.step,
        attempt.channel.value,
        attempt.account,
        attempt.account_uid,
        attempt.destination,
        attempt.epoch,
        attempt.provider_key,
        attempt.started_at,
        attempt.deadline,
        _fields_text(attempt.follow),
        _fields_text(attempt.behind),
        word(attempt.outcome),
        word(attempt.refusal),
        word(attempt.fault),
        failure_text(attempt.failure),
        word(attempt.receipt),
        attempt.provider_message_id,
        attempt.ended_at,
        attempt.receipt_at,
        attempt.retry_at,
        attempt.segments,
        attempt.given_up,
        attempt.patience,
        attempt.overdue,
    )


def attempt_of(row: Row) -> Attempt:
    """The attempt in a row of ATTEMPT; its message's id is the first value."""
    return Attempt(
        number=row[1],
        step=row[2],
        channel=Channel(row[3]),
        account=row[4],
        account_uid=row[5],
        destination=row[6],
        epoch=row[7],
        provider_key=row[8],
        started_at=row[9],
        deadline=row[10],
        follow=Follow(*json.loads(row[11])),
        behind=Behind(*json.loads(row[12])),
        outcome=OutcomeKind(row[13]) if row[13] else None,
        refusal=Refusal(row[14]) if row[14] else None,
        fault=Fault(row[15]) if row[15] else None,
        failure=failure_of(row[16]),
        receipt=ReceiptKind(row[17]) if row[17] else None,
        provider_message_id=row[18],
        ended_at=row[19],
        receipt_at=row[20],
        retry_at=row[21],
        segments=row[22],
        given_up=bool(row[23]),
        patience=row[24],
        overdue=bool(row[25]),
    )


@lru_cache(1024)
def _fields_text(noun: Follow | Behind) -> str:
    return dump(astuple(noun))
