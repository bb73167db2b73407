"""The status log as each database keeps it: in which order it is read, and how far it is settled.

On SQLite ids are given out by the one writer, so whoever has read up to an id has read everything up to it. On
Postgres transactions commit in another order than they took their ids: a place is settled only when every transaction
that could still write before it has ended.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from sqlalchemy import ColumnElement, Connection, Row, Select, select, text, tuple_

from server.model.messages import Event
from server.model.tables import METADATA
from server.model.watching import LogCursor
from server.store.rows import EVENT, event_of

EventRowValues = Row[Any]

_EVENT = METADATA.tables["event"]
_PLACE = (_EVENT.c.log_epoch, _EVENT.c.xid, _EVENT.c.id)
_ENTRY = (*(_EVENT.c[name] for name in EVENT.rest), *_PLACE)
_MESSAGE_ID = EVENT.rest.index("message_id")
_TENANT_ID = EVENT.rest.index("tenant_id")


@dataclass(frozen=True, slots=True)
class Head:
    """How far the log goes at one moment: `edge` is the last place that is settled, `seen` what is visible at all."""

    edge: LogCursor
    seen: str


@dataclass(frozen=True, slots=True)
class Entry:
    """An event and its place in the tenant-wide log."""

    place: LogCursor
    event: Event


class EventLog(Protocol):
    """One database's way. Every method runs in its caller's transaction."""

    def head(self, connection: Connection) -> Head:
        """How far the log goes now."""
        ...

    def news(
        self, connection: Connection, since: str, head: Head, after: LogCursor | None, limit: int
    ) -> Sequence[EventRowValues]:
        """What became visible between two heads, settled or not; in order, the page behind `after`."""
        ...

    def settled(
        self, connection: Connection, after: LogCursor, edge: LogCursor, limit: int
    ) -> Sequence[EventRowValues]:
        """What stands behind one place and not behind another one, which must be settled; in order."""
        ...

    def settled_of(
        self,
        connection: Connection,
        conditions: Sequence[ColumnElement[bool]],
        after: LogCursor,
        edge: LogCursor,
        limit: int,
    ) -> Sequence[EventRowValues]:
        """As `settled`, of what meets the conditions; the first one is the tenant, by whose index they are found."""
        ...

    def last_place(self, connection: Connection, edge: LogCursor) -> LogCursor:
        """The place of the last settled event; where there is none, the place before all events of this epoch.

        Always a place of the database's own history: a cursor that stands there can be told from one of another.
        """
        ...

    def seen_before(self, place: LogCursor) -> str:
        """A `seen` of which it is certain that nothing behind the place was visible in it."""
        ...


class SqliteLog:
    """Ids order it, across epochs too; whatever is visible is settled."""

    def head(self, connection: Connection) -> Head:
        epoch, last = connection.execute(_SQLITE_HEAD).one()
        return Head(LogCursor(epoch, 0, last), str(last))

    def news(
        self, connection: Connection, since: str, head: Head, after: LogCursor | None, limit: int
    ) -> Sequence[EventRowValues]:
        return self.settled(connection, after or LogCursor(0, 0, int(since)), head.edge, limit)

    def settled(
        self, connection: Connection, after: LogCursor, edge: LogCursor, limit: int
    ) -> Sequence[EventRowValues]:
        between = (_EVENT.c.id > after.id, _EVENT.c.id <= edge.id)
        return connection.execute(select(*_ENTRY).where(*between).order_by(_EVENT.c.id).limit(limit)).all()

    def settled_of(
        self,
        connection: Connection,
        conditions: Sequence[ColumnElement[bool]],
        after: LogCursor,
        edge: LogCursor,
        limit: int,
    ) -> Sequence[EventRowValues]:
        query = select(*_ENTRY).where(*conditions, _EVENT.c.id > after.id, _EVENT.c.id <= edge.id).order_by(*_PLACE)
        # In two steps, for SQLite finds no place by comparing three columns at once: it would begin with the epoch.
        same = query.where(_EVENT.c.log_epoch == after.log_epoch, _EVENT.c.xid == 0)
        rows = connection.execute(same.limit(limit)).all()
        if len(rows) < limit:
            later = query.where(_EVENT.c.log_epoch > after.log_epoch)
            rows = [*rows, *connection.execute(later.limit(limit - len(rows)))]
        return rows

    def last_place(self, connection: Connection, edge: LogCursor) -> LogCursor:
        newest_first = select(*_PLACE).where(_EVENT.c.id <= edge.id).order_by(_EVENT.c.id.desc())
        return _first_of(connection, newest_first, edge)

    def seen_before(self, place: LogCursor) -> str:
        return str(place.id)


class PostgresLog:
    """(epoch, transaction, id) order it; settled is what lies below every transaction that is still running."""

    def head(self, connection: Connection) -> Head:
        epoch, horizon, seen = connection.execute(_POSTGRES_HEAD).one()
        return Head(LogCursor(epoch, horizon, 0), seen)

    def news(
        self, connection: Connection, since: str, head: Head, after: LogCursor | None, limit: int
    ) -> Sequence[EventRowValues]:
        first = after or LogCursor(head.edge.log_epoch, int(since.partition(":")[0]), 0)
        fresh = (_EVENT.c.log_epoch == head.edge.log_epoch, _behind(first), _BECAME_VISIBLE)
        query = select(*_ENTRY).where(*fresh).order_by(*_PLACE).limit(limit)
        return connection.execute(query, {"since": since, "seen": head.seen}).all()

    def settled(
        self, connection: Connection, after: LogCursor, edge: LogCursor, limit: int
    ) -> Sequence[EventRowValues]:
        return self.settled_of(connection, (), after, edge, limit)

    def settled_of(
        self,
        connection: Connection,
        conditions: Sequence[ColumnElement[bool]],
        after: LogCursor,
        edge: LogCursor,
        limit: int,
    ) -> Sequence[EventRowValues]:
        between = (*conditions, _behind(after), _up_to(edge))
        return connection.execute(select(*_ENTRY).where(*between).order_by(*_PLACE).limit(limit)).all()

    def last_place(self, connection: Connection, edge: LogCursor) -> LogCursor:
        newest_first = select(*_PLACE).where(_up_to(edge)).order_by(*(place.desc() for place in _PLACE))
        return _first_of(connection, newest_first, edge)

    def seen_before(self, place: LogCursor) -> str:
        return f"{place.xid}:{place.xid}:"


def event_log(*, postgres: bool) -> EventLog:
    """The log of an engine."""
    return PostgresLog() if postgres else SqliteLog()


def entry_of(row: EventRowValues) -> Entry:
    """The entry in a row of the log."""
    return Entry(place_of(row), event_of(row))


def place_of(row: EventRowValues) -> LogCursor:
    """Where a row of the log stands."""
    return LogCursor(*row[len(EVENT.rest) :])


def message_id_of(row: EventRowValues) -> str:
    """Whose event a row of the log is."""
    return row[_MESSAGE_ID]


def tenant_id_of(row: EventRowValues) -> str:
    """Which tenant's event a row of the log is."""
    return row[_TENANT_ID]


def own_events(connection: Connection, tenant_id: str, message_id: str, after_seq: int) -> list[Event]:
    """A message's events behind a number, in order."""
    mine = (_EVENT.c.tenant_id == tenant_id, _EVENT.c.message_id == message_id, _EVENT.c.seq > after_seq)
    query = select(*(_EVENT.c[name] for name in EVENT.rest)).where(*mine).order_by(_EVENT.c.seq)
    return [event_of(row) for row in connection.execute(query)]


def reaches_back(connection: Connection, cursor: LogCursor) -> bool:
    """Whether the log still holds all that came behind a cursor, and is the log that the cursor was made for."""
    epoch, *removed = connection.execute(_LOG).one()
    pruned = LogCursor(*removed)
    if cursor.log_epoch > epoch or cursor < pruned:
        return False
    if not cursor.id or cursor == pruned:
        return True
    # A cursor always stands at an event. Where there is none, a restore has undone it.
    there = tuple_(*_PLACE) == (cursor.log_epoch, cursor.xid, cursor.id)
    return connection.execute(select(_EVENT.c.id).where(there)).one_or_none() is not None


def _first_of(connection: Connection, places: Select[int, int, int], edge: LogCursor) -> LogCursor:
    found = connection.execute(places.limit(1)).one_or_none()
    return LogCursor(*found) if found is not None else LogCursor(edge.log_epoch, 0, 0)


def _behind(place: LogCursor) -> ColumnElement[bool]:
    return tuple_(*_PLACE) > (place.log_epoch, place.xid, place.id)


def _up_to(place: LogCursor) -> ColumnElement[bool]:
    return tuple_(*_PLACE) <= (place.log_epoch, place.xid, place.id)


_LOG = text("SELECT log_epoch, pruned_epoch, pruned_xid, pruned_id FROM log")
_SQLITE_HEAD = text(
    "SELECT log_epoch, coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'event'), 0) FROM log",
)
_POSTGRES_HEAD = text(
    "SELECT log_epoch, pg_snapshot_xmin(pg_current_snapshot())::text::bigint, pg_current_snapshot()::text FROM log"
)
_BECAME_VISIBLE = text(
    "pg_visible_in_snapshot(xid::text::xid8, CAST(:seen AS pg_snapshot)) "
    "AND NOT pg_visible_in_snapshot(xid::text::xid8, CAST(:since AS pg_snapshot))"
)
