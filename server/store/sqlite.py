"""SQLite: one process, one writer connection, readers beside it on the write-ahead log."""

import fcntl
import json
import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from sqlalchemy import URL, Connection, Engine, QueuePool, create_engine, event
from sqlalchemy.exc import DBAPIError

from server.model.clock import Micros
from server.store.dialect import (
    FREE,
    TAKEN,
    Columns,
    DatabaseInUse,
    Lane,
    Taking,
    Trouble,
    UnsafeDatabase,
    Value,
    Values,
)

BUSY_SECONDS = 5
CHECKPOINT_PAGES = 1000
CACHE_KIB = 16_384


class Sqlite:
    """A file. Its lock file beside it is held for life."""

    postgres = False
    mark = "?"

    def __init__(self, url: URL) -> None:
        if not url.database or url.database == ":memory:":
            raise UnsafeDatabase("A SQLite database must be a file: what is in memory is not durable.")
        self._url = url
        self._path = Path(url.database)
        self._lock: int | None = None

    def hold(self) -> None:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(f"{self._path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as held:
            os.close(lock)
            raise DatabaseInUse(
                f"Another process uses {self._path}: it holds {self._path}.lock. SQLite serves one process; "
                "several need Postgres."
            ) from held
        self._lock = lock
        # The log and the shared memory beside it take the file's own permissions.
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))

    def let_go(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def open_writer(self) -> Engine:
        return self._engine("BEGIN IMMEDIATE", _prepare_writer, kept=1)

    def open_readers(self, count: int) -> Engine:
        return self._engine("BEGIN", _prepare_reader, kept=count, more=count + 1)

    def _engine(
        self, begin: str, prepare: Callable[[sqlite3.Connection, object], None], *, kept: int, more: int = 0
    ) -> Engine:
        engine = create_engine(
            self._url,
            poolclass=QueuePool,
            pool_size=kept,
            max_overflow=more,
            hide_parameters=True,
            connect_args={"check_same_thread": False, "timeout": BUSY_SECONDS},
        )
        event.listen(engine, "connect", prepare)

        def start(connection: Connection) -> None:
            connection.exec_driver_sql(begin)

        event.listen(engine, "begin", start)
        return engine

    def refuse_unsafe(self, connection: Connection) -> None:
        mode = connection.exec_driver_sql("PRAGMA journal_mode").scalar_one()
        if mode != "wal":
            raise UnsafeDatabase(f"{self._path} can not keep a write-ahead log (its mode is {mode}).")

    def now(self, connection: Connection) -> Micros:  # noqa: ARG002 - the database has no clock but this machine's
        return time.time_ns() // 1000

    def identity(self, connection: Connection) -> str:  # noqa: ARG002 - a file has none
        return ""

    def lock_schema(self, connection: Connection) -> None:
        """The lock file is held already."""

    def trouble(self, error: DBAPIError) -> Trouble:
        code = getattr(error.orig, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        return _TROUBLES.get(code, Trouble.FAULT)

    def insert(self, connection: Connection, into: Columns, rows: Sequence[Values]) -> None:
        connection.exec_driver_sql(_insert(into), list(rows))

    def insert_new(self, connection: Connection, into: Columns, rows: Sequence[Values], returning: str) -> set[Value]:
        flat = tuple(value for row in rows for value in row)
        statement = _insert(into, len(rows)) + f" ON CONFLICT DO NOTHING RETURNING {returning}"
        return set(connection.exec_driver_sql(statement, flat).scalars())

    def upsert(self, connection: Connection, into: Columns, rows: Sequence[Values]) -> None:
        connection.exec_driver_sql(_upsert(into), list(rows))

    def update(self, connection: Connection, into: Columns, rows: Sequence[Values]) -> None:
        connection.exec_driver_sql(_update(into), list(rows))

    def delete(self, connection: Connection, table: str, column: str, values: Sequence[str]) -> None:
        statement = f"DELETE FROM {table} WHERE {self.among(column)}"  # noqa: S608
        connection.exec_driver_sql(statement, (self.texts(values),))

    def among(self, column: str) -> str:
        return f"{column} IN (SELECT value FROM json_each(?))"  # noqa: S608

    def texts(self, values: Sequence[str]) -> Value:
        return json.dumps(list(values))

    def locked(self, *, skip: bool = False) -> str:  # noqa: ARG002 - the writer is alone
        return ""

    def take_due(
        self, connection: Connection, into: Columns, lanes: Sequence[Lane], taking: Taking
    ) -> Sequence[Sequence[Value]]:
        taken: list[Sequence[Value]] = []
        for lane in lanes:
            count = min(taking.each, taking.limit - len(taken))
            values = (taking.worker, taking.message_class, lane.kind, lane.tenant_id, taking.now, count)
            taken.extend(connection.exec_driver_sql(_take_due(into), values).all())
        return taken


_TROUBLES = {
    sqlite3.SQLITE_FULL: Trouble.FULL,
    sqlite3.SQLITE_BUSY: Trouble.BUSY,
    sqlite3.SQLITE_LOCKED: Trouble.BUSY,
    sqlite3.SQLITE_IOERR: Trouble.LOST,
    sqlite3.SQLITE_CANTOPEN: Trouble.LOST,
    sqlite3.SQLITE_READONLY: Trouble.BUSY,
    sqlite3.SQLITE_NOMEM: Trouble.BUSY,
}


def _prepare_writer(connection: sqlite3.Connection, _record: object) -> None:
    _pragmas(
        connection,
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
        "secure_delete=ON",
        f"wal_autocheckpoint={CHECKPOINT_PAGES}",
        f"cache_size=-{CACHE_KIB}",
    )


def _prepare_reader(connection: sqlite3.Connection, _record: object) -> None:
    _pragmas(connection, "query_only=ON")


def _pragmas(connection: sqlite3.Connection, *settings: str) -> None:
    # Python's own transactions would begin only at the first write: too late to lock before reading.
    connection.isolation_level = None
    for setting in (f"busy_timeout={BUSY_SECONDS * 1000}", *settings):
        connection.execute(f"PRAGMA {setting}")


@cache
def _insert(into: Columns, rows: int = 1) -> str:
    one = f"({', '.join('?' * len(into.names))})"
    return f"INSERT INTO {into.table} ({', '.join(into.names)}) VALUES {', '.join([one] * rows)}"  # noqa: S608


@cache
def _upsert(into: Columns) -> str:
    new = ", ".join(f"{name} = excluded.{name}" for name in into.rest)
    return f"{_insert(into)} ON CONFLICT ({', '.join(into.key)}) DO UPDATE SET {new}"


@cache
def _update(into: Columns) -> str:
    count = len(into.key)
    new = ", ".join(f"{name} = ?{number}" for number, name in enumerate(into.rest, count + 1))
    same = " AND ".join(f"{name} = ?{number}" for number, name in enumerate(into.key, 1))
    return f"UPDATE {into.table} SET {new} WHERE {same}"  # noqa: S608


@cache
def _take_due(into: Columns) -> str:
    return (
        f"UPDATE due SET {TAKEN.format('?')} WHERE message_id IN (SELECT message_id FROM due "  # noqa: S608
        f"WHERE {FREE} AND message_class = ? AND kind = ? AND tenant_id = ? AND due_at <= ? ORDER BY due_at LIMIT ?) "
        f"RETURNING {', '.join(into.names)}"
    )
