"""After a SQLite file was put back, numbers of events come again; no cursor takes one event for another."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import make_url

from server.model.errors import CursorExpired
from server.store.store import Store
from tests.store.conftest import OpenAt
from tests.store.letters import TENANTS, rows
from tests.store.watchers import send, watching

NORTH = TENANTS[0]


async def test_an_event_with_the_number_of_one_that_was_undone_is_not_taken_for_it(
    on_sqlite: Store, sqlite_url: str, open_at: OpenAt, tmp_path: Path
) -> None:
    """A cursor at an undone event is CURSOR_EXPIRED though its number has been given out again: nothing is skipped."""
    await send(on_sqlite, NORTH)
    path = Path(str(make_url(sqlite_url).database))
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(tmp_path / "backup.db")) as backup:
        source.backup(backup)
    await send(on_sqlite, NORTH)
    undone = await on_sqlite.watching.cursor_now()
    await on_sqlite.close()
    for beside in path.parent.glob(f"{path.name}-*"):
        beside.unlink()
    (tmp_path / "backup.db").rename(path)
    again = await open_at(sqlite_url)
    await send(again, NORTH)
    assert await rows(again, "SELECT max(id) FROM event") == [(undone.id,)]
    with pytest.raises(CursorExpired):
        async with watching(again, NORTH, undone) as told:
            await told.more()
