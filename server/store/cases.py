"""Reading all that is known of some messages."""

from collections import defaultdict
from collections.abc import Iterable, Mapping

from sqlalchemy import Connection

from server.model.messages import Attempt, Case, Due
from server.store.attempts import ATTEMPT, attempt_of
from server.store.dialect import Dialect
from server.store.rows import DUE, MESSAGE, due_of, message_of


def read_cases(
    connection: Connection, dialect: Dialect, message_ids: Iterable[str], *, lock: bool = False
) -> dict[str, Case]:
    """The messages of these ids, with their attempts and what is due; ids that are not there are left out.

    `lock`: nobody else changes them until the transaction ends. Rows are locked in the order of their ids, messages
    before due rows, so that two that do this never wait for each other.
    """
    ids = dialect.texts(sorted(set(message_ids)))
    locked = dialect.locked() if lock else ""
    messages = connection.exec_driver_sql(
        f"SELECT {', '.join(MESSAGE.names)} FROM message WHERE {dialect.among('id')} ORDER BY id{locked}",  # noqa: S608
        (ids,),
    ).all()
    due = _read_due(connection, dialect, ids, locked)
    attempts = read_attempts(connection, dialect, ids)
    return {row[0]: Case(message_of(row, due.get(row[0])), attempts.get(row[0], ())) for row in messages}


def read_attempts(connection: Connection, dialect: Dialect, ids: object) -> Mapping[str, tuple[Attempt, ...]]:
    """The attempts of messages, in order; `ids` is what `dialect.texts` made of the messages' ids."""
    rows = connection.exec_driver_sql(
        f"SELECT {', '.join(ATTEMPT.names)} FROM attempt WHERE {dialect.among('message_id')} "  # noqa: S608
        "ORDER BY message_id, number",
        (ids,),
    ).all()
    attempts: defaultdict[str, list[Attempt]] = defaultdict(list)
    for row in rows:
        attempts[row[0]].append(attempt_of(row))
    return {message_id: tuple(found) for message_id, found in attempts.items()}


def _read_due(connection: Connection, dialect: Dialect, ids: object, locked: str) -> dict[str, Due]:
    rows = connection.exec_driver_sql(
        f"SELECT {', '.join(DUE.names)} FROM due WHERE {dialect.among('message_id')} ORDER BY message_id{locked}",  # noqa: S608
        (ids,),
    ).all()
    return {row[0]: due_of(row) for row in rows}
