"""Receipts that came before anybody here knew the id that they name, as one may that outruns the send's answer."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from server.model.enums import ReceiptKind
from server.model.outcomes import Receipt
from server.store.dialect import Dialect, Values, columns
from server.store.rows import failure_of

INBOX = columns("receipt_inbox")

Name = tuple[str, str]
"""What a provider calls a message: the account's uid, and the id there."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """One receipt that waits."""

    name: Name
    receipt: Receipt

    @property
    def key(self) -> Values:
        """Its row's key."""
        return (*self.name, self.receipt.kind.value)


class Inbox:
    """What waits for some names, read and locked in one transaction; what is taken there is removed by `forget`."""

    def __init__(self, waiting: Iterable[Waiting] = ()) -> None:
        self._waiting: defaultdict[Name, list[Waiting]] = defaultdict(list)
        self._taken: list[Waiting] = []
        for one in waiting:
            self._waiting[one.name].append(one)

    def look(self, name: Name) -> tuple[Receipt, ...]:
        """What waits for a name."""
        return tuple(one.receipt for one in self._waiting.get(name, ()))

    def take(self, name: Name) -> None:
        """It has been applied, all that waits for a name."""
        self._taken += self._waiting.pop(name, ())

    def forget(self, connection: Connection, dialect: Dialect) -> None:
        """Remove what was taken, and nothing that has come since it was read."""
        remove(connection, dialect, [one.key for one in self._taken])


def read_inbox(connection: Connection, dialect: Dialect, uids: Collection[str], ids: Collection[str]) -> Inbox:
    """What waits for any of these ids of any of these accounts. Rows are locked in the order of their keys."""
    if not uids or not ids:
        return Inbox()
    rows = connection.exec_driver_sql(
        f"SELECT {', '.join((*INBOX.key, 'failure'))} FROM receipt_inbox "  # noqa: S608
        f"WHERE {dialect.among('account_uid')} AND {dialect.among('provider_message_id')} "
        f"ORDER BY {', '.join(INBOX.key)}{dialect.locked()}",
        (dialect.texts(sorted(uids)), dialect.texts(sorted(ids))),
    )
    return Inbox(waiting_of(row) for row in rows)


def waiting_of(row: Sequence[str]) -> Waiting:
    """The receipt in a row of the key and `failure`."""
    uid, id_, kind, failure = row
    return Waiting((uid, id_), Receipt(ReceiptKind(kind), failure_of(failure)))


def keep(connection: Connection, dialect: Dialect, rows: Mapping[Values, Values]) -> None:
    """Have receipts wait: of each key the rest of its row."""
    if rows:
        dialect.upsert(connection, INBOX, [(*key, *rows[key]) for key in sorted(rows)])


def remove(connection: Connection, dialect: Dialect, keys: Sequence[Values]) -> None:
    """Remove the rows of these keys."""
    if keys:
        this = " AND ".join(f"{name} = {dialect.mark}" for name in INBOX.key)
        connection.exec_driver_sql(f"DELETE FROM receipt_inbox WHERE {this}", sorted(keys))  # noqa: S608
