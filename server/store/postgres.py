"""Postgres (14 or newer, through psycopg 3): any number of processes."""

from collections.abc import Sequence
from functools import cache
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine
from sqlalchemy.exc import DBAPIError, OperationalError

from server.model.clock import Micros
from server.store.dialect import (
    FREE,
    TAKEN,
    Columns,
    Lane,
    Taking,
    Trouble,
    UnsafeDatabase,
    Value,
    Values,
)

CONNECT_SECONDS = 5
STATEMENT_MILLIS = 5_000
LOCK_MILLIS = 2_000
IDLE_IN_TRANSACTION_MILLIS = 3_000
"""A process that stands still in a transaction holds its locks no longer than until others take it for dead."""
UNANSWERED_MILLIS = 10_000
"""After so long without any sign of the other host a connection is given up."""

SCHEMA_LOCK = 0x616E676172  # "angar"
SCHEMA_LOCK_MILLIS = 10_000
"""How long a statement of a migration may wait for a lock."""

_SET_HERE = {("event", "xid"): "pg_current_xact_id()::text::bigint"}
"""Columns that the database fills in, whatever a row says."""


class Postgres:
    """A database on a server."""

    postgres = True
    mark = "%s"

    def __init__(self, url: URL) -> None:
        self._url = url

    def hold(self) -> None:
        """Any number of processes may."""

    def let_go(self) -> None:
        """Nothing is held."""

    def open_writer(self) -> Engine:
        return self._engine(kept=1)

    def open_readers(self, count: int) -> Engine:
        engine = self._engine("-c default_transaction_read_only=on", kept=count, more=count + 1)
        return engine.execution_options(isolation_level="REPEATABLE READ")

    def _engine(self, *options: str, kept: int, more: int = 0) -> Engine:
        settings = (
            f"-c statement_timeout={STATEMENT_MILLIS}",
            f"-c lock_timeout={LOCK_MILLIS}",
            f"-c idle_in_transaction_session_timeout={IDLE_IN_TRANSACTION_MILLIS}",
            "-c jit=off",
            *options,
        )
        connect: dict[str, Any] = {
            "options": " ".join((str(self._url.query.get("options", "")), *settings)).strip(),
            "application_name": "angarium",
            "connect_timeout": CONNECT_SECONDS,
            "keepalives_idle": 5,
            "keepalives_interval": 2,
            "keepalives_count": 3,
            "tcp_user_timeout": UNANSWERED_MILLIS,
        }
        return create_engine(self._url, pool_size=kept, max_overflow=more, connect_args=connect, hide_parameters=True)

    def refuse_unsafe(self, connection: Connection) -> None:
        if connection.exec_driver_sql("SHOW synchronous_commit").scalar_one() == "off":
            raise UnsafeDatabase("synchronous_commit is off: what this server acknowledges could be lost. Turn it on.")

    def now(self, connection: Connection) -> Micros:
        return connection.exec_driver_sql(_NOW).scalar_one()

    def identity(self, connection: Connection) -> str:
        return connection.exec_driver_sql(_IDENTITY).scalar_one()

    def lock_schema(self, connection: Connection) -> None:
        connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
        connection.exec_driver_sql("SET LOCAL lock_timeout = 0")
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({SCHEMA_LOCK})")
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = {SCHEMA_LOCK_MILLIS}")

    def trouble(self, error: DBAPIError) -> Trouble:
        if error.connection_invalidated:
            return Trouble.LOST
        state = getattr(error.orig, "sqlstate", None)
        if state is None:
            return Trouble.LOST if isinstance(error, OperationalError) else Trouble.FAULT
        return _TROUBLES.get(state) or _TROUBLES.get(state[:2], Trouble.FAULT)

    def insert(self, connection: Connection, into: Columns, rows: Sequence[Values]) -> None:
        connection.exec_driver_sql(_insert(into), _arrays(rows))

    def insert_new(self, connection: Connection, into: Columns, rows: Sequence[Values], returning: str) -> set[Value]:
        statement = f"{_insert(into)} ON CONFLICT DO NOTHING RETURNING {returning}"
        return set(connection.exec_driver_sql(statement, _arrays(rows)).scalars())

    def upsert(self, connection: Connection, into: Columns, rows: Sequence[Values]) -> None:
        connection.exec_driver_sql(_upsert(into), _arrays(rows))

    def update(self, connection: Connection, into: Columns, rows: Sequence[Values]) -> None:
        connection.exec_driver_sql(_update(into), _arrays(rows))

    def delete(self, connection: Connection, table: str, column: str, values: Sequence[str]) -> None:
        statement = f"DELETE FROM {table} WHERE {self.among(column)}"  # noqa: S608
        connection.exec_driver_sql(statement, (self.texts(values),))

    def among(self, column: str) -> str:
        return f"{column} = ANY(%s::text[])"

    def texts(self, values: Sequence[str]) -> Value:
        return list(values)

    def locked(self, *, skip: bool = False) -> str:
        return " FOR UPDATE SKIP LOCKED" if skip else " FOR UPDATE"

    def take_due(
        self, connection: Connection, into: Columns, lanes: Sequence[Lane], taking: Taking
    ) -> Sequence[Sequence[Value]]:
        kinds, tenants = [lane.kind for lane in lanes], [lane.tenant_id for lane in lanes]
        values = (
            kinds,
            tenants,
            taking.message_class,
            taking.now,
            taking.each,
            taking.limit,
            taking.worker,
        )
        return connection.exec_driver_sql(_take_due(into), values).all()


_NOW = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
# The name of the running log file begins with its timeline; the control file learns of a new one at a checkpoint only.
_TIMELINE = "substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)"
_IDENTITY = f"SELECT system_identifier::text || '/' || {_TIMELINE} FROM pg_control_system()"  # noqa: S608

_TROUBLES = {
    "40001": Trouble.REPEAT,
    "40P01": Trouble.REPEAT,
    "53100": Trouble.FULL,
    "55P03": Trouble.LOCKED,
    "08": Trouble.LOST,
    "25006": Trouble.BUSY,  # the server has become a standby
    "55000": Trouble.BUSY,  # it is one still
    "53": Trouble.BUSY,
    "57": Trouble.BUSY,
    "58": Trouble.BUSY,
}


def _arrays(rows: Sequence[Values]) -> Values:
    return tuple([*column] for column in zip(*rows, strict=True))


@cache
def _source(into: Columns) -> str:
    arrays = ", ".join(f"%s::{kind}[]" for kind in into.types)
    return f"unnest({arrays}) AS v ({', '.join(into.names)})"


@cache
def _insert(into: Columns) -> str:
    values = ", ".join(_SET_HERE.get((into.table, name), f"v.{name}") for name in into.names)
    return f"INSERT INTO {into.table} ({', '.join(into.names)}) SELECT {values} FROM {_source(into)}"  # noqa: S608


@cache
def _upsert(into: Columns) -> str:
    new = ", ".join(f"{name} = excluded.{name}" for name in into.rest)
    return f"{_insert(into)} ON CONFLICT ({', '.join(into.key)}) DO UPDATE SET {new}"


@cache
def _update(into: Columns) -> str:
    new = ", ".join(f"{name} = v.{name}" for name in into.rest)
    same = " AND ".join(f"{into.table}.{name} = v.{name}" for name in into.key)
    return f"UPDATE {into.table} SET {new} FROM {_source(into)} WHERE {same}"  # noqa: S608


@cache
def _take_due(into: Columns) -> str:
    # Materialised: a planner that ran the choice again for every row would take more than the limit.
    return (
        "WITH lane AS (SELECT * FROM unnest(%s::text[], %s::text[]) AS lane (kind, tenant_id)), "  # noqa: S608
        "free AS MATERIALIZED (SELECT found.message_id FROM lane CROSS JOIN LATERAL ("
        f"SELECT message_id FROM due WHERE {FREE} AND message_class = %s AND kind = lane.kind "
        "AND tenant_id = lane.tenant_id AND due_at <= %s ORDER BY due_at LIMIT %s FOR UPDATE SKIP LOCKED) AS found "
        f"LIMIT %s) UPDATE due SET {TAKEN.format('%s')} FROM free WHERE due.message_id = free.message_id "
        f"RETURNING {', '.join(f'due.{name}' for name in into.names)}"
    )
