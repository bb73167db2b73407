"""The tail: the one reader of the log in a process, which hands events to everybody who watches.

Who watches one message is told what has become visible, at once; who watches a tenant is told what is settled, in the
order of the log. Each has a bounded queue; who does not empty it is told that, and comes back with a cursor.
"""

import asyncio
from collections import defaultdict, deque
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager

import structlog
from sqlalchemy import Connection

from server.model.errors import AngariumError, Exhausted, Reason, Unavailable
from server.model.messages import Event
from server.model.watching import LogCursor
from server.store.bell import Bell
from server.store.database import Database
from server.store.log import Entry, EventRowValues, Head, entry_of, event_log, message_id_of, place_of, tenant_id_of

QUEUE_MAX = 256
PAGE = 100
"""Well below what a queue holds: who keeps up empties it between two pages."""
IDLE_SECONDS = 0.25
PAUSE_SECONDS = 0.01
"""Between two readings, so that a busy log is read in pages and not event by event."""
ERROR_PAUSE_SECONDS = 1.0

_BEGINNING = LogCursor(0, 0, 0)

_log = structlog.get_logger("store")


class Subscription:
    """What one watcher has yet to be told: nothing that stands at or before `start` or `after`."""

    def __init__(self, start: LogCursor, after: LogCursor, wants: Callable[[Event], bool]) -> None:
        self.start = start
        self._after = after
        self._wants = wants
        self._entries: deque[Entry] = deque()
        self._stirred = asyncio.Event()
        self._ended: AngariumError | None = None

    def offer(self, entry: Entry) -> None:
        """Add what it wants; ends it with WATCH_LAGGED where it is full."""
        if self._ended is not None or entry.place <= self._after or not self._wants(entry.event):
            return
        if len(self._entries) >= QUEUE_MAX:
            self.end(Exhausted(Reason.WATCH_LAGGED, "The watcher took its events too slowly. Go on from its cursor."))
            return
        self._entries.append(entry)
        self._stirred.set()

    def end(self, error: AngariumError) -> None:
        """`take` raises this once everything before it has been taken."""
        self._ended = self._ended or error
        self._stirred.set()

    async def take(self, seconds: float) -> list[Entry]:
        """All that has come, after waiting so long for a first one; [] where nothing came. Raises what ended it."""
        if not self._entries and self._ended is None:
            self._stirred.clear()
            try:
                async with asyncio.timeout(seconds):
                    await self._stirred.wait()
            except TimeoutError:
                pass  # something may have come in that very moment
        if not self._entries and self._ended is not None:
            raise self._ended
        entries = list(self._entries)
        self._entries.clear()
        return entries


class Tail:
    """Reads the log from `start` on. All but the reading itself happens on the event loop."""

    def __init__(self, database: Database, bell: Bell) -> None:
        self.position = _BEGINNING
        """Up to here who watches a tenant has been told."""
        self._database = database
        self._event_log = event_log(postgres=database.postgres)
        self._bell = bell
        self._joined = Bell()
        self._head = Head(self.position, "")
        self._by_message: defaultdict[str, set[Subscription]] = defaultdict(set)
        self._by_tenant: defaultdict[str, set[Subscription]] = defaultdict(set)
        self._ended: AngariumError | None = None

    async def start(self) -> None:
        """Begin at the log's end."""
        self._begin_at(*await self._database.read(self._look))

    async def run(self) -> None:
        """Read until cancelled; while the database can not be read, everybody just waits."""
        while True:
            try:
                await self._step()
            except Unavailable:
                self._rewind()
                await asyncio.sleep(ERROR_PAUSE_SECONDS)
            except Exception:  # noqa: BLE001 - the outermost loop of this task: all who watch hang on it
                _log.exception("tail failed to read")
                self._rewind()
                await asyncio.sleep(ERROR_PAUSE_SECONDS)
            await asyncio.sleep(PAUSE_SECONDS)
            await (self._bell if self._by_message or self._by_tenant else self._joined).wait(IDLE_SECONDS)

    @contextmanager
    def of_message(self, message_id: str) -> Generator[Subscription]:
        """What becomes visible of a message from now on; some may come twice, and an older event after a newer one."""
        everything = Subscription(self.position, _BEGINNING, lambda _: True)
        with self._subscribed(self._by_message, message_id, everything):
            yield everything

    @contextmanager
    def of_tenant(self, tenant_id: str, after: LogCursor, wants: Callable[[Event], bool]) -> Generator[Subscription]:
        """What is settled of a tenant behind `start` and behind `after`, once and in order."""
        subscription = Subscription(self.position, after, wants)
        with self._subscribed(self._by_tenant, tenant_id, subscription):
            yield subscription

    def end(self, error: AngariumError) -> None:
        """Every watcher, present or to come, is told so."""
        self._ended = error
        self._end_all(error)

    def raise_if_ended(self) -> None:
        """Raise what `end` was given."""
        if self._ended is not None:
            raise self._ended

    @contextmanager
    def _subscribed(
        self, subscriptions: defaultdict[str, set[Subscription]], key: str, subscription: Subscription
    ) -> Generator[None]:
        self.raise_if_ended()
        subscriptions[key].add(subscription)
        self._joined.ring()
        try:
            yield
        finally:
            subscriptions[key].discard(subscription)
            if not subscriptions[key]:
                del subscriptions[key]

    async def _step(self) -> None:
        head, last = await self._database.read(self._look)
        if head.edge.log_epoch != self._head.edge.log_epoch:
            self._begin_at(head, last)
            message = "The log has been restored. Go on from the cursor, if it still stands."
            self._end_all(Unavailable(Reason.STORE_UNAVAILABLE, message, retry_after_seconds=ERROR_PAUSE_SECONDS))
            return
        if head == self._head:
            return
        if self._by_message:
            await self._tell_messages(head)
        self._head = head
        # Nothing is awaited between a look at who watches and the step past what nobody watches.
        if self._by_tenant:
            await self._tell_tenants(head.edge)
        else:
            self.position = max(self.position, last)

    def _look(self, connection: Connection) -> tuple[Head, LogCursor]:
        head = self._event_log.head(connection)
        return head, self._event_log.last_place(connection, head.edge)

    def _begin_at(self, head: Head, last: LogCursor) -> None:
        self._head, self.position = head, last

    def _rewind(self) -> None:
        """After an error read again what may have been told: a server that crashed may number transactions anew."""
        self._head = Head(self._head.edge, self._event_log.seen_before(self.position))

    async def _tell_messages(self, head: Head) -> None:
        since, after = self._head.seen, None
        while True:
            rows = await self._database.read(
                lambda c, since=since, after=after: self._event_log.news(c, since, head, after, PAGE)
            )
            self._tell(self._by_message, rows, message_id_of)
            if len(rows) < PAGE:
                return
            after = place_of(rows[-1])

    async def _tell_tenants(self, edge: LogCursor) -> None:
        while True:
            after = self.position
            rows = await self._database.read(lambda c, after=after: self._event_log.settled(c, after, edge, PAGE))
            self._tell(self._by_tenant, rows, tenant_id_of)
            if rows:
                self.position = place_of(rows[-1])
            if len(rows) < PAGE:
                return

    def _tell(
        self,
        subscriptions: defaultdict[str, set[Subscription]],
        rows: Sequence[EventRowValues],
        key_of: Callable[[EventRowValues], str],
    ) -> None:
        for row in rows:
            watching = subscriptions.get(key_of(row))
            if watching:
                entry = entry_of(row)
                for subscription in watching:
                    subscription.offer(entry)

    def _end_all(self, error: AngariumError) -> None:
        for subscriptions in (self._by_message, self._by_tenant):
            for watching in subscriptions.values():
                for subscription in watching:
                    subscription.end(error)
