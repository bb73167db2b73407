"""Watching: nothing is missed, nothing comes twice, and a watcher that can not be told so is told that."""

import asyncio
import random
import time
from contextlib import aclosing
from dataclasses import replace

import pytest
from sqlalchemy import Connection, make_url
from sqlalchemy.event import listen

from server.model.enums import Channel, MessageClass, ReceiptKind, State
from server.model.errors import Exhausted, NotFound, Reason, Unavailable
from server.model.facts import Receipted, Settled, Started
from server.model.messages import Behind, Event
from server.model.outcomes import Accepted, Receipt
from server.model.tables import METADATA
from server.model.watching import Filter, Heartbeat, LogCursor
from server.store.log import Entry
from server.store.store import Store
from server.store.tail import QUEUE_MAX
from server.store.watch import Watching
from tests.cluster import Cluster
from tests.store.conftest import OpenAt
from tests.store.letters import TENANTS, accept_all, change, letter, started, until
from tests.store.watchers import (
    BEGINNING,
    EVERYTHING,
    SEND,
    Wanderer,
    all_of,
    behind,
    cancel,
    deliver,
    everybody,
    key,
    log_of,
    send,
    watching,
)

NORTH, SOUTH, WEST = TENANTS


async def test_fifty_watchers_come_and_go_while_sixteen_callers_write(store: Store) -> None:
    """Each is told every event of its tenant behind its first cursor, once, in the log's order, however it left."""
    wanderers = [Wanderer(TENANTS[n % 3], lambda: store, n) for n in range(50)]
    followers = await everybody([store], TENANTS, wanderers, 500)
    for wanderer in wanderers:
        assert wanderer.told == await log_of(store, wanderer.tenant, wanderer.start or BEGINNING)
    assert all(len(wanderer.told) > 300 for wanderer in wanderers)
    assert sum(wanderer.visits for wanderer in wanderers) > 100
    assert len(followers) == 72
    assert all([seq for _, seq in follower.told] == [1, 2] for follower in followers)


async def test_watchers_go_from_one_process_to_another(on_postgres: Store, postgres_url: str, open_at: OpenAt) -> None:
    """Two stores on one Postgres, written to by both: a cursor of one is good at the other, without gap or repeat."""
    stores = [on_postgres, await open_at(postgres_url)]
    chance = random.Random(1)
    wanderers = [Wanderer(TENANTS[n % 3], lambda: chance.choice(stores), n) for n in range(50)]
    followers = await everybody(stores, TENANTS, wanderers, 500)
    for wanderer in wanderers:
        assert wanderer.told == await log_of(on_postgres, wanderer.tenant, wanderer.start or BEGINNING)
    assert all(len(wanderer.told) > 300 for wanderer in wanderers)
    assert all([seq for _, seq in follower.told] == [1, 2] for follower in followers)


async def test_a_message_is_watched_to_its_end(store: Store) -> None:
    """Live or afterwards, from the first event or from any cursor: all that is behind it, and then the watch ends."""
    id_ = await send(store, NORTH)
    live = asyncio.create_task(all_of(store, NORTH, id_))
    await cancel(store, id_)
    assert [key(event) for event in await live] == [(id_, 1), (id_, 2)]
    id_ = await deliver(store, NORTH)
    events = await all_of(store, NORTH, id_)
    assert [event.seq for event in events] == [1, 2, 3, 4]
    assert events == await store.reading.timeline(NORTH, id_)
    for n, event in enumerate(events, 1):
        assert await all_of(store, NORTH, id_, behind(event)) == events[n:]


async def test_a_watch_ends_behind_all_that_came_with_the_end(store: Store) -> None:
    """One transaction may end a message and correct it: the correction is told before the watch ends, live too.

    There are more events in the transaction than in a page of the tail, so that it reads some ends without the rest.
    """
    await accept_all(store, [letter(NORTH) for _ in range(61)])
    claims = await store.claim(MessageClass.TRANSACTIONAL, SEND, 100)
    ids = [claim.case.message.id for claim in claims]
    for claim in claims:
        (opening,) = started(claim).openings
        await store.apply(claim.case.message.id, Started(claim.hold, (replace(opening, behind=Behind()),)))
    settled = [store.apply(c.case.message.id, Settled(c.hold, 1, Accepted("upstream-1"))) for c in claims]
    await asyncio.gather(*settled)
    live = [asyncio.create_task(all_of(store, NORTH, id_)) for id_ in ids[1:]]
    await until(lambda: len(store.watching._tail._by_message) == 60)
    receipts = [Receipted(1, Receipt(kind)) for kind in (ReceiptKind.UNDELIVERED, ReceiptKind.DELIVERED)]
    facts = [(ids[0], receipts[0]), *((id_, receipt) for id_ in ids[1:] for receipt in receipts)]
    await asyncio.gather(*(store.apply(*fact) for fact in facts))
    for events in await asyncio.gather(*live):
        ends = [(event.state, event.done) for event in events[-2:]]
        assert ends == [(State.UNDELIVERED, True), (State.DELIVERED, True)]
        assert events[-1].at == events[-2].at


async def test_what_the_tail_has_not_brought_yet_is_not_left_out(store: Store) -> None:
    """An older transaction may hold a younger event: where a number is missing, the message's own rows are read."""
    id_ = await send(store, NORTH)
    live = asyncio.create_task(all_of(store, NORTH, id_))
    tail = store.watching._tail
    await until(lambda: id_ in tail._by_message)
    store.watching._tasks[0].cancel()  # from here on nothing but this test brings events
    (claim,) = await store.claim(MessageClass.TRANSACTIONAL, SEND, 1)
    await store.apply(id_, started(claim))
    await store.apply(id_, Settled(claim.hold, 1, Accepted("upstream-1")))
    timeline = await store.reading.timeline(NORTH, id_)
    (subscription,) = tail._by_message[id_]
    subscription.offer(Entry(LogCursor(2**40, 0, 0), timeline[2]))
    await store.apply(id_, Receipted(1, Receipt(ReceiptKind.DELIVERED)))
    subscription.offer(Entry(LogCursor(2**40, 0, 1), (await store.reading.timeline(NORTH, id_))[3]))
    assert [event.seq for event in await live] == [1, 2, 3, 4]


async def test_states_only_leaves_out_what_moved_no_state(store: Store) -> None:
    """The rest is as it was, for a message and for a tenant, from the log and live."""
    async with watching(store, NORTH, None, states_only=True) as live:
        await live.more()
        id_ = await deliver(store, NORTH)
        moved = [key(event) for event in await store.reading.timeline(NORTH, id_) if event.moved]
        assert moved
        assert await live.until(len(moved)) == moved
    async with watching(store, NORTH, BEGINNING, states_only=True) as again:
        assert await again.until(len(moved)) == moved
    watch = store.watching.watch_message(NORTH, id_, None, states_only=True)
    assert [key(event) async for event in watch if isinstance(event, Event)] == moved


async def test_a_tenant_sees_its_own_events_alone(store: Store) -> None:
    """Neither the log, nor the live stream, nor another tenant's message is there for anybody else."""
    theirs, ours = await send(store, SOUTH), await send(store, NORTH)
    async with watching(store, NORTH, BEGINNING) as told:
        assert await told.until(1) == [(ours, 1)]
        await send(store, SOUTH)
        await cancel(store, ours)
        assert await told.until(2) == [(ours, 1), (ours, 2)]
    for id_ in (theirs, "none"):
        with pytest.raises(NotFound) as refused:
            await all_of(store, NORTH, id_)
        assert refused.value.metadata == {"resource": "message"}


FILTERS = (
    Filter(states=frozenset({State.CANCELED, State.SENT})),
    Filter(intents=frozenset({"login", "none"})),
    Filter(tags=frozenset({"b", "c"})),
    Filter(reference="order-7"),
    Filter(client_id="office"),
    Filter(message_class=MessageClass.BULK),
    Filter(channel=Channel.SMS, provider="first"),
    Filter(channel=Channel.EMAIL),
    Filter(states=frozenset({State.ACCEPTED}), tags=frozenset({"a"}), intents=frozenset({"order"})),
    Filter(created_min=1, created_max=2),
)


async def test_a_filter_means_the_same_in_the_log_and_live(store: Store) -> None:
    """What a watcher with a filter is told is what the filter matches, whether it was there or came."""

    async def some() -> None:
        await deliver(store, NORTH, tags=("a", "b"), reference="order-7")
        await cancel(store, await send(store, NORTH, tags=("a",), intent="login"))
        await cancel(store, await send(store, NORTH, message_class=MessageClass.BULK, client_id="office", tags=("c",)))

    await some()
    start = await store.watching.cursor_now()
    tracked = frozenset({(await log_of(store, NORTH))[0][0]})
    for wanted in (*FILTERS, Filter(tracking_ids=tracked), Filter(created_min=1)):
        async with watching(store, NORTH, start, wanted) as live:
            await live.more()
            await some()
            all_keys = await log_of(store, NORTH)
            events = {key(e): e for id_ in dict(all_keys) for e in await store.reading.timeline(NORTH, id_)}
            matching = [k for k in all_keys if wanted.matches(events[k])]
            fresh = [k for k in await log_of(store, NORTH, start) if wanted.matches(events[k])]
            assert await live.until(len(fresh)) == fresh
        async with watching(store, NORTH, BEGINNING, wanted) as again:
            assert await again.until(len(matching)) == matching
        start = live.cursor


async def test_cursor_now_misses_nothing_that_comes_later(store: Store) -> None:
    """Whatever is accepted after it is behind it, however many write meanwhile."""

    async def write() -> None:
        for _ in range(20):
            await send(store, NORTH)

    writers = [asyncio.create_task(write()) for _ in range(8)]
    for _ in range(10):
        cursor = await store.watching.cursor_now()
        id_ = await send(store, NORTH)
        assert (id_, 1) in await log_of(store, NORTH, cursor)
        async with watching(store, NORTH, cursor) as told:
            while (id_, 1) not in told.events:
                await told.more()
    await asyncio.gather(*writers)


async def test_a_long_backlog_is_read_in_pages_and_joined_without_a_gap(store: Store) -> None:
    """More events than a page and a queue hold, and more that come while they are read."""
    await accept_all(store, [letter(NORTH) for _ in range(1200)])
    async with watching(store, NORTH, BEGINNING) as told:
        await told.more()
        late = await send(store, NORTH)
        while told.events[-1][0] != late:
            await told.more()
    assert told.events == await log_of(store, NORTH)
    assert len(told.events) == 1201


async def test_a_watcher_that_lags_is_told_and_comes_back(store: Store) -> None:
    """It gets what fitted, then WATCH_LAGGED; by its cursor it gets the rest."""
    async with watching(store, NORTH, None) as told:
        await told.more()
        await accept_all(store, [letter(NORTH) for _ in range(QUEUE_MAX + 50)])
        await until(lambda: told_everything(store, told.cursor))
        assert len(await told.more()) == QUEUE_MAX
        with pytest.raises(Exhausted) as lagged:
            await told.more()
        assert lagged.value.reason == Reason.WATCH_LAGGED
    async with watching(store, NORTH, told.cursor) as rest:
        await rest.until(50)
    assert told.events + rest.events == await log_of(store, NORTH)


async def told_everything(store: Store, since: LogCursor) -> bool:
    """Whether the tail has handed on all that is in the log."""
    return store.watching._tail.position == await store.watching.cursor_now() > since


async def test_draining_tells_every_watcher(store: Store) -> None:
    """Whoever watches gets what was ready and then DRAINING; whoever comes gets it at once."""
    id_ = await send(store, NORTH)
    async with (
        watching(store, NORTH, BEGINNING) as told,
        aclosing(store.watching.watch_message(NORTH, id_, None)) as one,
    ):
        await told.until(1)
        assert isinstance(await anext(one), Event)
        store.watching.drain()
        for waiting in (told.until(2), anext(one), all_of(store, NORTH, id_)):
            with pytest.raises(Unavailable) as draining:
                await waiting
            assert draining.value.reason == Reason.DRAINING
            assert draining.value.retry_after_seconds > 0


async def test_silence_is_filled_with_heartbeats(store: Store, database_url: str) -> None:
    """A watcher of a message and one of a tenant hear that they are heard; the cursor goes on with the log."""
    quiet = Watching(store._database, database_url, heartbeat_seconds=0.1)
    await quiet.start()
    try:
        id_ = await send(store, NORTH)
        async with aclosing(quiet.watch_message(NORTH, id_, None)) as events, asyncio.timeout(20):
            assert isinstance(await anext(events), Event)
            assert isinstance(await anext(events), Heartbeat)
        async with aclosing(quiet.watch_tenant(SOUTH, EVERYTHING, BEGINNING)) as batches, asyncio.timeout(20):
            async for cursor, told in batches:
                assert told == []
                if cursor == await store.watching.cursor_now():
                    break
    finally:
        await quiet.close()


async def test_an_older_transaction_that_commits_later_is_not_missed(
    on_postgres: Store, postgres_url: str, cluster: Cluster
) -> None:
    """Who watches the message is told at once; who watches the tenant waits for the older one, and has it first."""
    names = ", ".join(c.name for c in METADATA.tables["event"].c if c.name not in ("id", "xid", "message_id"))
    first = await send(on_postgres, NORTH)
    start = await on_postgres.watching.cursor_now()
    with cluster.connect(str(make_url(postgres_url).database)) as older:
        older.execute("BEGIN")
        older.execute(
            f"INSERT INTO event (xid, message_id, {names}) SELECT pg_current_xact_id()::text::bigint, 'older', {names} "
            f"FROM event WHERE message_id = '{first}'".encode()
        )
        async with watching(on_postgres, NORTH, start) as told:
            await told.more()
            younger = await send(on_postgres, NORTH)
            async with aclosing(on_postgres.watching.watch_message(NORTH, younger, None)) as events:
                assert isinstance(await anext(events), Event)
                await cancel(on_postgres, younger)
                async with asyncio.timeout(5):
                    assert isinstance(await anext(events), Event)
            assert told.events == []
            assert on_postgres.watching._tail.position == start
            older.execute("COMMIT")
            assert await told.until(3) == [("older", 1), (younger, 1), (younger, 2)]


async def test_watchers_outlive_a_database_that_goes_away(
    on_postgres: Store, postgres_url: str, cluster: Cluster
) -> None:
    """When every connection is cut, the tail and the bell connect again, and what came meanwhile is told."""
    name = str(make_url(postgres_url).database)
    async with watching(on_postgres, NORTH, None) as told:
        await told.more()
        with cluster.connect() as connection:
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
        id_ = await send(on_postgres, NORTH)
        assert await told.until(1) == [(id_, 1)]

        def listening() -> bool:
            with cluster.connect() as connection:
                query = (
                    "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND application_name = 'angarium bell'"
                )
                return connection.execute(query, [name]).fetchone() == (2,)

        await until(listening)


async def test_a_commit_rings_the_bell_of_other_processes(
    on_postgres: Store, postgres_url: str, open_at: OpenAt
) -> None:
    """They hear of a burst soon, and not once for each commit."""
    other = await open_at(postgres_url)
    rung: list[float] = []
    remote = other.watching._remote
    assert remote is not None
    remote._heard = lambda: rung.append(time.monotonic())
    await send(on_postgres, NORTH)
    await until(lambda: bool(rung))
    rung.clear()
    began = time.monotonic()
    for _ in range(100):
        await send(on_postgres, NORTH)
    await until(lambda: bool(rung))
    assert len(rung) <= 20 * (time.monotonic() - began) + 2


async def test_a_database_that_became_another_sends_watchers_away(on_postgres: Store) -> None:
    """When the log's epoch rises under a running process, everybody is told to come back and goes on by the cursor."""
    async with watching(on_postgres, NORTH, None) as told:
        await told.more()
        id_ = await send(on_postgres, NORTH)
        await told.until(1)
        await change(on_postgres, "UPDATE log SET log_epoch = log_epoch + 1")
        with pytest.raises(Unavailable):
            await told.until(2)
    async with watching(on_postgres, NORTH, told.cursor) as again:
        await cancel(on_postgres, id_)
        assert await again.until(1) == [(id_, 2)]


async def test_reading_the_end_of_a_long_log_costs_no_more_than_of_a_short_one(on_sqlite: Store) -> None:
    """SQLite finds what is new by its key, not by going through the epoch, which lasts as long as the process."""
    asked: list[tuple[str, tuple[int, ...]]] = []

    def read(connection: Connection) -> list[str]:
        place = LogCursor(1, 0, 1)
        listen(connection, "before_cursor_execute", lambda _c, _cursor, sql, values, *_: asked.append((sql, values)))
        on_sqlite.watching._event_log.settled(connection, place, place, 10)
        on_sqlite.watching._event_log.last_place(connection, place)
        return [str(connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}", v).all()) for sql, v in asked[:2]]

    plans = await on_sqlite._database.read(read)
    assert len(plans) == 2
    assert all("USING INTEGER PRIMARY KEY (rowid" in plan for plan in plans)
