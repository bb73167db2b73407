"""Reads a gateway's database from outside, by SQL of its own, after the run."""

import json
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, TypeVar

from sqlalchemy import Connection, NullPool, create_engine, make_url, text

from server.model.enums import (
    Channel,
    DueKind,
    EventKind,
    FailureReason,
    MessageClass,
    OnUnconfirmed,
    OutcomeKind,
    ReceiptKind,
    State,
    Status,
    Stop,
)
from server.model.failures import Failure
from server.model.messages import Attempt, Due, Event, Follow, Message
from server.model.outcomes import Fault, Refusal
from tests.proof.history import Dump, Key

Row = Mapping[Any, Any]
W = TypeVar("W", bound=StrEnum)

TOLD_BY_WORDS = frozenset(
    [
        "message_class",
        "state",
        "status",
        "done",
        "stop",
        "failure",
        "tags",
        "on_unconfirmed",
        "channel_wanted",
        "channel",
        "follow",
        "behind",
        "outcome",
        "refusal",
        "fault",
        "receipt",
        "given_up",
        "overdue",
        "message_kind",
        "kind",
        "moved",
    ]
)
"""Columns that are more than numbers and text, or that no check needs."""
SEALED = frozenset({"body", "recipient", "content", "secrets", "wrapped", "digest", "fingerprint", "mac", "code"})
PLAIN_TABLES = (
    "message",
    "message_tag",
    "attempt",
    "event",
    "due",
    "idempotency",
    "sandbox_message",
    "explanation",
    "verification",
    "limit_bucket",
    "receipt_inbox",
)


def read_dump(url: str) -> Dump:
    """All messages with what belongs to them. `url` is the gateway's own, `sqlite:///PATH` or `postgresql://…`.

    One transaction that writes nothing; on SQLite it may open the log of a process that was killed.
    """
    postgres = not url.startswith("sqlite")
    address = make_url(url).set(drivername="postgresql+psycopg" if postgres else "sqlite")
    options = {"isolation_level": "REPEATABLE READ"} if postgres else {}
    engine = create_engine(address, poolclass=NullPool, **options)
    with engine.connect() as connection:
        # SQLite's driver begins no transaction for reading by itself.
        if not postgres:
            connection.exec_driver_sql("BEGIN")
        return _dump(connection)


def _dump(connection: Connection) -> Dump:
    due = {row["message_id"]: _due(row) for row in _rows(connection, "due")}
    messages = [_message(row, due.get(row["id"])) for row in _rows(connection, "message")]
    attempts: dict[str, list[Attempt]] = {}
    for row in _rows(connection, "attempt ORDER BY message_id, number"):
        attempts.setdefault(row["message_id"], []).append(_attempt(row))
    events: dict[str, list[Event]] = {}
    for row in _rows(connection, "event ORDER BY message_id, seq"):
        events.setdefault(row["message_id"], []).append(_event(row))
    keys = [Key(*(row[name] for name in Key.__dataclass_fields__)) for row in _rows(connection, "idempotency")]
    plain = [_shown(table, row) for table in PLAIN_TABLES for row in _rows(connection, table)]
    return Dump({m.id: m for m in messages}, attempts, events, keys, plain)


def _rows(connection: Connection, table: str) -> Sequence[Row]:
    return connection.execute(text(f"SELECT * FROM {table}")).mappings().all()


def _shown(table: str, row: Row) -> str:
    return f"{table} { ({name: value for name, value in row.items() if name not in SEALED}) }"


def _due(row: Row) -> Due:
    return Due(DueKind(row["kind"]), row["due_at"], row["epoch"], row["claims"], row["worker"])


def _message(row: Row, due: Due | None) -> Message:
    return Message(
        **_copied(Message, row),
        kind=row["kind"],
        message_class=MessageClass(row["message_class"]),
        state=State(row["state"]),
        status=Status(row["status"]),
        channel_wanted=_word(Channel, row["channel_wanted"]),
        channel=_word(Channel, row["channel"]),
        done=bool(row["done"]),
        stop=_word(Stop, row["stop"]),
        failure=_failure(row["failure"]),
        tags=tuple(json.loads(row["tags"])),
        on_unconfirmed=OnUnconfirmed(row["on_unconfirmed"]),
        due=due,
    )


def _attempt(row: Row) -> Attempt:
    return Attempt(
        **_copied(Attempt, row),
        channel=Channel(row["channel"]),
        follow=Follow(*json.loads(row["follow"])),
        outcome=_word(OutcomeKind, row["outcome"]),
        refusal=_word(Refusal, row["refusal"]),
        fault=_word(Fault, row["fault"]),
        failure=_failure(row["failure"]),
        receipt=_word(ReceiptKind, row["receipt"]),
        given_up=bool(row["given_up"]),
        overdue=bool(row["overdue"]),
    )


def _event(row: Row) -> Event:
    return Event(
        **_copied(Event, row),
        kind=EventKind(row["kind"]),
        state=State(row["state"]),
        status=Status(row["status"]),
        done=bool(row["done"]),
        moved=bool(row["moved"]),
        message_class=MessageClass(row["message_class"]),
        channel=_word(Channel, row["channel"]),
        outcome=_word(OutcomeKind, row["outcome"]),
        failure=_failure(row["failure"]),
        tags=tuple(json.loads(row["tags"])),
    )


def _copied(noun: type[Message] | type[Attempt] | type[Event], row: Row) -> dict[str, Any]:
    """The columns that stand in the noun as they are."""
    return {name: row[name] for name in noun.__dataclass_fields__ if name in row and name not in TOLD_BY_WORDS}


def _word(words: type[W], value: str | None) -> W | None:
    return words(value) if value else None


def _failure(value: str) -> Failure | None:
    if not value:
        return None
    reason, *rest = json.loads(value)
    return Failure(FailureReason(reason), *rest)
