"""Cursors: good as long as the log is the one that they were made in and reaches back to them; else CURSOR_EXPIRED."""

import sqlite3
import time
from pathlib import Path

import pytest
from sqlalchemy import make_url

from server.model.clock import DAY
from server.model.errors import CursorExpired, Reason
from server.model.messages import Event
from server.model.watching import LogCursor, MessageCursor
from server.store.store import Store
from tests.cluster import Cluster
from tests.store.conftest import OpenAt
from tests.store.letters import TENANTS, until
from tests.store.watchers import all_of, behind, cancel, deliver, send, watching

NORTH = TENANTS[0]


async def test_a_restored_message_is_not_resumed(store: Store) -> None:
    """A cursor whose event is gone, or bears another time, is CURSOR_EXPIRED; never silently something else."""
    id_ = await deliver(store, NORTH)
    last = (await store.reading.timeline(NORTH, id_))[-1]
    for cursor in (MessageCursor(id_, last.seq, last.at + 1), MessageCursor(id_, last.seq + 1, last.at)):
        with pytest.raises(CursorExpired) as expired:
            await all_of(store, NORTH, id_, cursor)
        assert expired.value.reason == Reason.CURSOR_EXPIRED


async def test_a_cursor_of_another_log_is_expired(store: Store) -> None:
    """An epoch that has not begun, and a place where no event is, are of another history."""
    await send(store, NORTH)
    now = await store.watching.cursor_now()
    for cursor in (LogCursor(now.log_epoch + 1, 0, 0), LogCursor(now.log_epoch, now.xid, now.id + 7)):
        with pytest.raises(CursorExpired):
            async with watching(store, NORTH, cursor) as told:
                await told.more()


async def test_a_cursor_before_what_retention_removed_is_expired(store: Store) -> None:
    """What it would miss is gone. One behind it stands, though the event it stands at is gone too."""
    before = await send(store, NORTH)
    early = await store.watching.cursor_now()
    await deliver(store, NORTH)
    late = await store.watching.cursor_now()
    while await store.prune(time.time_ns() // 1000 + 8 * DAY):
        pass
    with pytest.raises(CursorExpired):
        async with watching(store, NORTH, early) as told:
            await told.more()
    await cancel(store, before)
    async with watching(store, NORTH, late) as told:
        assert await told.until(1) == [(before, 2)]


async def test_a_restart_does_not_break_a_cursor(on_sqlite: Store, sqlite_url: str, open_at: OpenAt) -> None:
    """The epoch rises with every start on SQLite; cursors of the former one go on without a gap."""
    first = await send(on_sqlite, NORTH)
    cursor = await on_sqlite.watching.cursor_now()
    await cancel(on_sqlite, first)
    await on_sqlite.close()
    again = await open_at(sqlite_url)
    second = await send(again, NORTH)
    async with watching(again, NORTH, cursor) as told:
        assert await told.until(2) == [(first, 2), (second, 1)]


async def test_a_restored_sqlite_expires_later_cursors(
    on_sqlite: Store, sqlite_url: str, open_at: OpenAt, tmp_path: Path
) -> None:
    """After a backup was put back, cursors from before it go on and those from after it are CURSOR_EXPIRED."""
    first = await send(on_sqlite, NORTH)
    kept = await on_sqlite.watching.cursor_now()
    path = Path(str(make_url(sqlite_url).database))
    with sqlite3.connect(path) as source, sqlite3.connect(tmp_path / "backup.db") as backup:
        source.backup(backup)
    source.close()
    backup.close()
    await cancel(on_sqlite, first)
    lost = await on_sqlite.watching.cursor_now()
    lost_event = (await on_sqlite.reading.timeline(NORTH, first))[-1]
    await on_sqlite.close()
    for beside in path.parent.glob(f"{path.name}-*"):
        beside.unlink()
    (tmp_path / "backup.db").rename(path)
    await _expires_lost(await open_at(sqlite_url), first, lost, lost_event, kept)


async def test_a_restored_postgres_expires_later_cursors(
    on_postgres: Store, postgres_url: str, open_at: OpenAt, cluster: Cluster
) -> None:
    """As on SQLite, for a database that was put back beside the others of its cluster."""
    first = await send(on_postgres, NORTH)
    kept = await on_postgres.watching.cursor_now()
    await on_postgres.close()
    name = str(make_url(postgres_url).database)
    with cluster.connect() as connection:
        sessions = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s"
        await until(lambda: connection.execute(sessions, [name]).fetchone() == (0,))
        connection.execute(f"CREATE DATABASE {name}_restored TEMPLATE {name}".encode())
    store = await open_at(postgres_url)
    await cancel(store, first)
    lost = await store.watching.cursor_now()
    lost_event = (await store.reading.timeline(NORTH, first))[-1]
    restored = await open_at(cluster.url(f"{name}_restored"))
    try:
        await _expires_lost(restored, first, lost, lost_event, kept)
    finally:
        await restored.close()
        cluster.drop(f"{name}_restored")


async def _expires_lost(store: Store, id_: str, lost: LogCursor, lost_event: Event, kept: LogCursor) -> None:
    """`lost` and `lost_event` are of the undone history, `kept` is of what is left."""
    with pytest.raises(CursorExpired):
        async with watching(store, NORTH, lost) as told:
            await told.more()
    with pytest.raises(CursorExpired):
        await all_of(store, NORTH, id_, behind(lost_event))
    new = await send(store, NORTH)
    async with watching(store, NORTH, kept) as told:
        assert await told.until(1) == [(new, 1)]
    await cancel(store, id_)
    with pytest.raises(CursorExpired):
        await all_of(store, NORTH, id_, behind(lost_event))
