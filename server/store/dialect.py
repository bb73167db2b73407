"""What differs between the two databases, and the tables as both write them."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import auto
from typing import Any, Protocol

from sqlalchemy import BigInteger, Boolean, Connection, Engine, Integer, LargeBinary
from sqlalchemy.exc import DBAPIError
from sqlalchemy.types import TypeEngine

from server.model.clock import Micros
from server.model.enums import Word
from server.model.policy import POISON_ALONE_AFTER
from server.model.tables import METADATA

Value = Any
"""What a driver takes and gives: str, int, bool, bytes or None."""

Values = tuple[Value, ...]


class DatabaseInUse(Exception):
    """Another process holds this SQLite database; only one may."""


class UnsafeDatabase(Exception):
    """It must not be served by this process: commits could be lost, or its schema or its keys are not ours."""


class Trouble(Word):
    """What an error of a database calls for."""

    REPEAT = auto()
    """Deadlock or serialisation: the same again succeeds."""
    LOST = auto()
    """No connection."""
    FULL = auto()
    """The disk is full."""
    LOCKED = auto()
    """Something else kept a lock too long; other rows may be free."""
    BUSY = auto()
    """The database can not do it now."""
    FAULT = auto()
    """The statement or its values are at fault."""


@dataclass(frozen=True, slots=True)
class Columns:
    """Some columns of a table, its key first; rows for it are tuples in the order of `names`."""

    table: str
    key: tuple[str, ...]
    rest: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """All columns, in the order of a row."""
        return self.key + self.rest

    @property
    def types(self) -> tuple[str, ...]:
        """What Postgres calls their types."""
        columns = METADATA.tables[self.table].c
        return tuple(_type_name(columns[name].type) for name in self.names)


def columns(table: str, *, without: frozenset[str] = frozenset()) -> Columns:
    """All columns of a table, its primary key first, less those that the database fills in."""
    declared = METADATA.tables[table]
    key = tuple(column.name for column in declared.primary_key if column.name not in without)
    rest = tuple(column.name for column in declared.c if column.name not in without and column.name not in key)
    return Columns(table, key, rest)


def _type_name(declared: TypeEngine[Any]) -> str:
    match declared:
        case BigInteger():
            return "bigint"
        case Boolean():
            return "boolean"
        case Integer():
            return "integer"
        case LargeBinary():
            return "bytea"
        case _:
            return "text"


@dataclass(frozen=True, slots=True)
class Lane:
    """The due rows of one kind of one tenant."""

    kind: str
    tenant_id: str


@dataclass(frozen=True, slots=True)
class Taking:
    """Who takes due rows of which class, at what time; `each` at most of a lane, `limit` at most in all."""

    worker: str
    message_class: str
    now: Micros
    each: int
    limit: int


class Dialect(Protocol):
    """One database's way. Every method that takes a connection runs in its caller's transaction, on one thread."""

    postgres: bool
    mark: str
    """The placeholder of a value in the driver's own SQL."""

    def hold(self) -> None:
        """Make sure that this process may use the database; raises DatabaseInUse."""
        ...

    def let_go(self) -> None:
        """Undo `hold`."""
        ...

    def open_writer(self) -> Engine:
        """An engine for the one writer connection; its transactions lock before they read where that matters."""
        ...

    def open_readers(self, count: int) -> Engine:
        """An engine for read-only transactions, each of one snapshot. Each of `count` threads may need two at once."""
        ...

    def refuse_unsafe(self, connection: Connection) -> None:
        """Raise UnsafeDatabase where a commit would not be durable."""
        ...

    def now(self, connection: Connection) -> Micros:
        """The database's clock."""
        ...

    def identity(self, connection: Connection) -> str:
        """Which history of the database this is; another after a restore. Empty where it can not be told."""
        ...

    def lock_schema(self, connection: Connection) -> None:
        """Wait until no other process migrates; held until the transaction ends."""
        ...

    def trouble(self, error: DBAPIError) -> Trouble:
        """What an error calls for."""
        ...

    def insert(self, connection: Connection, into: Columns, rows: Sequence[Values]) -> None:
        """Add rows."""
        ...

    def insert_new(self, connection: Connection, into: Columns, rows: Sequence[Values], returning: str) -> set[Value]:
        """Add the rows whose key is not taken; `returning` of those that were added."""
        ...

    def upsert(self, connection: Connection, into: Columns, rows: Sequence[Values]) -> None:
        """Add rows, or give the rows of their keys these values."""
        ...

    def update(self, connection: Connection, into: Columns, rows: Sequence[Values]) -> None:
        """Give the rows of these keys these values; keys that are not there are passed over."""
        ...

    def delete(self, connection: Connection, table: str, column: str, values: Sequence[str]) -> None:
        """Remove the rows whose column holds one of these texts."""
        ...

    def among(self, column: str) -> str:
        """A condition: the column holds one of the texts in the one value that `texts` makes."""
        ...

    def texts(self, values: Sequence[str]) -> Value:
        """The value for a condition made by `among`."""
        ...

    def locked(self, *, skip: bool = False) -> str:
        """What ends a SELECT so that its rows stay as they are until the transaction ends."""
        ...

    def take_due(
        self, connection: Connection, into: Columns, lanes: Sequence[Lane], taking: Taking
    ) -> Sequence[Sequence[Value]]:
        """Hold the longest due free rows of each lane; the rows as they are then, in the order of `into`."""
        ...


FREE = f"worker = '' AND claims < {POISON_ALONE_AFTER}"
"""Rows that anybody may take among others. The words are those of the partial indexes."""

TAKEN = "worker = {0}, epoch = epoch + 1, claims = claims + CASE WHEN kind = 'SEND' THEN 1 ELSE 0 END"
"""What taking a row sets; `{0}` is the worker's placeholder. Only what dies before a hand-off counts as a claim."""
