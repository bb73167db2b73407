"""Watching: one message's log until it is done, or a tenant's log for as long as one likes."""

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Sequence
from dataclasses import dataclass

import structlog
from sqlalchemy import Connection, make_url, select

from server.model.clock import Micros
from server.model.errors import CursorExpired, Reason, Unavailable, not_found
from server.model.messages import Event
from server.model.tables import METADATA
from server.model.watching import Filter, Heartbeat, LogCursor, MessageCursor
from server.store.bell import Bell, PostgresBell
from server.store.database import Database
from server.store.filters import wanted_rows
from server.store.log import Entry, EventLog, entry_of, event_log, own_events, reaches_back
from server.store.tail import Subscription, Tail

HEARTBEAT_SECONDS = 20.0
DRAIN_RETRY_SECONDS = 1.0
PAGE = 500

_MESSAGE = METADATA.tables["message"]
_EVENT = METADATA.tables["event"]

_log = structlog.get_logger("store")


class Watching:
    """All watchers of this process. `url` is the database's, for the bell between processes."""

    def __init__(self, database: Database, url: str, *, heartbeat_seconds: float = HEARTBEAT_SECONDS) -> None:
        self._database = database
        self._url = url
        self._heartbeat_seconds = heartbeat_seconds
        self._bell = Bell()
        self._tail = Tail(database, self._bell)
        self._event_log = event_log(postgres=database.postgres)
        self._remote: PostgresBell | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begin to follow the log. Needs the schema and the log's epoch."""
        await self._tail.start()
        self._own(self._tail.run(), "tail")
        if self._database.postgres:
            conninfo = make_url(self._url).set(drivername="postgresql").render_as_string(hide_password=False)
            self._remote = PostgresBell(conninfo, self._bell.ring)
            self._own(self._remote.listen(), "listen")
            self._own(self._remote.notify(), "notify")
        self._database.on_commit.append(self._committed)

    async def close(self) -> None:
        """End every watcher and stop following."""
        self.drain()
        if self._committed in self._database.on_commit:
            self._database.on_commit.remove(self._committed)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def drain(self) -> None:
        """Every watcher, present or to come, gets Unavailable(DRAINING) once it has what was ready for it."""
        message = "The server is stopping. Go on from the cursor at another, or at this one once it is back."
        self._tail.end(Unavailable(Reason.DRAINING, message, retry_after_seconds=DRAIN_RETRY_SECONDS))

    async def cursor_now(self) -> LogCursor:
        """A place behind which everything stands that is committed after this call."""
        return await self._database.read(self._end)

    async def watch_message(
        self, tenant_id: str, message_id: str, after: MessageCursor | None, *, states_only: bool = False
    ) -> AsyncGenerator[Event | Heartbeat]:
        """A message's events behind a cursor (None: from the first), in order, without a gap; ends when it is done.

        `states_only` leaves out events that moved no state. Raises NotFound; CursorExpired where the history is not
        the one that the cursor was made in; Exhausted(WATCH_LAGGED), Unavailable: go on from the last event.
        """
        with self._tail.of_message(message_id) as subscription:
            told = after.seq if after else 0
            events, done = await self._database.read(lambda c: _first_look(c, tenant_id, message_id, after))
            while True:
                for event in events:
                    told = event.seq
                    if event.moved or not states_only:
                        yield event
                if done:
                    return
                events = await self._news(subscription, told)
                if events is None:
                    yield Heartbeat()
                    events = []
                elif not _gapless(events, told) or any(event.done for event in events):
                    # What came with the last event, and what was missing, stands in the message's own rows.
                    events, done = await self._database.read(lambda c, told=told: _look(c, tenant_id, message_id, told))

    async def watch_tenant(
        self, tenant_id: str, wanted: Filter, after: LogCursor | None, *, states_only: bool = False
    ) -> AsyncGenerator[tuple[LogCursor, list[Event]]]:
        """A tenant's events behind a cursor (None: from now), in the log's order, with the cursor that stands behind.

        Where two processes change one message at once, that order may not be that of its events' numbers. It never
        ends by itself. The first answer after the backlog, and a heartbeat, is an empty list. Raises CursorExpired
        where the log does not reach back to the cursor or is another one; Exhausted(WATCH_LAGGED), Unavailable: go
        on from the last cursor.
        """
        look = _Look(tenant_id, wanted, states_only)
        place, more = after or await self.cursor_now(), after is not None
        while more:
            self._tail.raise_if_ended()
            place, events, more = await self._page(look, place, None)
            if events:
                yield place, events
        with self._tail.of_tenant(tenant_id, place, look.wants) as subscription:
            while place < subscription.start:
                place, events, _ = await self._page(look, place, subscription.start)
                if events:
                    yield place, events
            yield place, []
            while True:
                entries = await subscription.take(self._heartbeat_seconds)
                place = entries[-1].place if entries else max(place, self._tail.position)
                yield place, [entry.event for entry in entries]

    async def _news(self, subscription: Subscription, told: int) -> list[Event] | None:
        """What has come behind an event, by number, each once; None after a while without any."""
        entries = await subscription.take(self._heartbeat_seconds)
        if not entries:
            return None
        by_seq = {entry.event.seq: entry.event for entry in entries if entry.event.seq > told}
        return [by_seq[seq] for seq in sorted(by_seq)]

    async def _page(
        self, look: "_Look", after: LogCursor, edge: LogCursor | None
    ) -> tuple[LogCursor, list[Event], bool]:
        """A page of the backlog up to an edge, None for the log's; the place behind it; whether there is more."""

        def read(connection: Connection) -> tuple[LogCursor, list[Entry]]:
            until = edge or self._end(connection)
            return until, look.read(connection, self._event_log, after, until)

        until, entries = await self._database.read(read)
        more = len(entries) == PAGE
        return entries[-1].place if more else max(after, until), [entry.event for entry in entries], more

    def _end(self, connection: Connection) -> LogCursor:
        return self._event_log.last_place(connection, self._event_log.head(connection).edge)

    def _own(self, work: Coroutine[None, None, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(_tell_of_end)
        self._tasks.append(task)

    def _committed(self) -> None:
        self._bell.ring()
        if self._remote is not None:
            self._remote.ring()


@dataclass(frozen=True, slots=True)
class _Look:
    """What one watcher of a tenant wants to see."""

    tenant_id: str
    wanted: Filter
    states_only: bool

    def wants(self, event: Event) -> bool:
        return (event.moved or not self.states_only) and self.wanted.matches(event)

    def read(self, connection: Connection, log: EventLog, after: LogCursor, edge: LogCursor) -> list[Entry]:
        if not reaches_back(connection, after):
            message = "The log does not reach back to the cursor, or was restored. List what there is, and watch anew."
            raise CursorExpired(Reason.CURSOR_EXPIRED, message)
        conditions = wanted_rows(_EVENT, self.tenant_id, self.wanted)
        if self.states_only:
            conditions.append(_EVENT.c.moved)
        return [entry_of(row) for row in log.settled_of(connection, conditions, after, edge, PAGE)]


def _first_look(
    connection: Connection, tenant_id: str, message_id: str, after: MessageCursor | None
) -> tuple[list[Event], bool]:
    seen = _look(connection, tenant_id, message_id, after.seq if after else 0)
    if after is not None and _time_of(connection, tenant_id, message_id, after.seq) != after.at:
        message = "The message's history is not the one that the cursor was made in. Watch it without a cursor."
        raise CursorExpired(Reason.CURSOR_EXPIRED, message)
    return seen


def _look(connection: Connection, tenant_id: str, message_id: str, told: int) -> tuple[list[Event], bool]:
    """A message's events behind a number, and whether it is done; of one moment."""
    this = (_MESSAGE.c.tenant_id == tenant_id, _MESSAGE.c.id == message_id)
    done = connection.execute(select(_MESSAGE.c.done).where(*this)).scalar_one_or_none()
    if done is None:
        raise not_found("message", message_id)
    return own_events(connection, tenant_id, message_id, told), bool(done)


def _time_of(connection: Connection, tenant_id: str, message_id: str, seq: int) -> Micros | None:
    this = (_EVENT.c.tenant_id == tenant_id, _EVENT.c.message_id == message_id, _EVENT.c.seq == seq)
    return connection.execute(select(_EVENT.c.at).where(*this)).scalar_one_or_none()


def _gapless(events: Sequence[Event], told: int) -> bool:
    return all(event.seq == expected for expected, event in enumerate(events, told + 1))


def _tell_of_end(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        _log.error("a task of the store ended", task=task.get_name(), exc_info=task.exception())
