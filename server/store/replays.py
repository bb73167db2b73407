"""What a key that was used before is answered with."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from server.model.errors import AlreadyExists, Reason, Unavailable
from server.model.messages import Message, NewMessage
from server.model.work import Acceptance
from server.store.cases import read_cases
from server.store.dialect import Dialect
from server.store.rows import IDEMPOTENCY
from server.store.tuples import among_tuples, flat

Key = tuple[str, str, str, str]
"""(tenant, client, kind, request_id)."""


@dataclass(frozen=True, slots=True)
class Kept:
    """The message that a key belongs to, as it stands now, and the fingerprint of the request that made it."""

    message: Message
    fingerprint: bytes


def key_of(message: Message) -> Key:
    """The key under which a message is made once."""
    return message.tenant_id, message.client_id, message.kind, message.request_id


def read_kept(connection: Connection, dialect: Dialect, keys: Sequence[Key]) -> dict[Key, Kept]:
    """What these keys belong to; those that belong to nothing are left out."""
    rows = connection.exec_driver_sql(
        "SELECT tenant_id, client_id, kind, request_id, message_id, fingerprint FROM idempotency "  # noqa: S608
        f"WHERE {among_tuples(dialect, IDEMPOTENCY.key, len(keys))}",
        flat(keys),
    ).all()
    cases = read_cases(connection, dialect, [row.message_id for row in rows])
    return {
        (row.tenant_id, row.client_id, row.kind, row.request_id): Kept(
            cases[row.message_id].message, bytes(row.fingerprint)
        )
        for row in rows
        if row.message_id in cases
    }


def forget_keys(connection: Connection, dialect: Dialect, keys: Sequence[Key]) -> None:
    """Take back keys that this transaction took: their calls were refused and may come again."""
    if keys:
        these = among_tuples(dialect, IDEMPOTENCY.key, len(keys))
        connection.exec_driver_sql(f"DELETE FROM idempotency WHERE {these}", flat(keys))  # noqa: S608


def replay(new: NewMessage, kept: Kept | None) -> Acceptance | Exception:
    """The first answer again for the same request, AlreadyExists for another one under its key."""
    if kept is None:
        # Its seven days ended between the flush and this read: the next call makes a message.
        return Unavailable(Reason.STORE_UNAVAILABLE, "The key was just being forgotten. Repeat the call.")
    if kept.fingerprint != new.fingerprint:
        return AlreadyExists(
            Reason.REQUEST_ID_REUSED,
            "The request_id was used for another request.",
            {"tracking_id": kept.message.id},
        )
    return Acceptance(kept.message, replayed=True)
