"""The schema: made once however many start, the same as the table classes say, and only ever added to."""

import asyncio
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, inspect

from server.model.tables import METADATA
from server.store.database import Database
from server.store.dialect import DatabaseInUse, UnsafeDatabase
from server.store.migrations import HEAD, upgrade
from server.store.store import Store
from tests.store.conftest import OpenAt, OpenStore
from tests.store.letters import accept_all, change, letter, rows

START_SECONDS = 60


async def _run(program: str, url: str) -> str:
    """What another Python process prints."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, url, stdout=asyncio.subprocess.PIPE)
    output, _ = await asyncio.wait_for(process.communicate(), START_SECONDS)
    return output.decode()


async def test_three_that_start_at_once_migrate_one_postgres(postgres_url: str, open_at: OpenAt) -> None:
    """Each of three processes that find an empty database comes up, and the schema is made once."""
    stores = await asyncio.gather(*(open_at(postgres_url) for _ in range(3)))
    assert await rows(stores[0], "SELECT version_num FROM alembic_version") == [(HEAD,)]
    assert await rows(stores[0], "SELECT count(*) FROM log") == [(1,)]
    assert len({store._database.log_epoch for store in stores}) == 1


async def test_the_revisions_make_what_the_table_classes_say(store: Store) -> None:
    """Autogenerate finds no difference, and every index and check of the classes is there."""

    def look(connection: Connection) -> tuple[list[object], set[str], set[str]]:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        found = inspect(connection)
        tables = METADATA.tables
        indexes = {str(index["name"]) for table in tables for index in found.get_indexes(table)}
        checks = {str(check["name"]) for table in tables for check in found.get_check_constraints(table)}
        return compare_metadata(context, METADATA), indexes, checks

    differences, indexes, checks = await store._database.write(look)
    assert differences == []
    assert {str(index.name) for table in METADATA.tables.values() for index in table.indexes} <= indexes
    assert {"ck_message_state", "ck_message_stop", "ck_due_kind"} <= checks


async def test_partial_indexes_are_partial_as_declared(store: Store) -> None:
    """Autogenerate does not look at the conditions of indexes: those that the classes give one have one."""
    dialect = store.engine_name.replace("postgres", "postgresql")
    declared = {
        str(index.name)
        for table in METADATA.tables.values()
        for index in table.indexes
        if index.dialect_options[dialect].get("where") is not None
    }
    sources = {
        "sqlite": "SELECT name FROM sqlite_master WHERE type = 'index' AND sql LIKE '% WHERE %'",
        "postgres": "SELECT indexname FROM pg_indexes WHERE strpos(indexdef, ' WHERE ') > 0 AND schemaname = 'public'",
    }
    assert {row[0] for row in await rows(store, sources[store.engine_name])} == declared


@pytest.mark.parametrize(
    ("state", "stop", "kind"), [("NONSENSE", None, "SEND"), ("SENT", "NO", "SEND"), ("SENT", None, "X")]
)
async def test_the_database_refuses_states_that_there_are_not(
    store: Store, state: str, stop: str | None, kind: str
) -> None:
    """States, stops and kinds of due rows are checked by the database itself."""
    await store.accept(letter())
    setting = "NULL" if stop is None else f"'{stop}'"
    with pytest.raises(Exception, match=r"(?i)check"):
        await store._database.write(
            lambda connection: (
                connection.exec_driver_sql(f"UPDATE message SET state = '{state}', stop = {setting}").close(),
                connection.exec_driver_sql(f"UPDATE due SET kind = '{kind}'").close(),
            )
        )


async def test_a_start_on_a_current_schema_does_not_load_alembic(sqlite_url: str, open_at: OpenAt) -> None:
    """Only a start that migrates pays for the migration tool."""
    await (await open_at(sqlite_url)).close()
    program = (
        "import asyncio, sys\n"
        "from server.store.database import Database\n"
        "from server.store.migrations import upgrade\n"
        "async def main():\n"
        "    database = Database.open(sys.argv[1])\n"
        "    await upgrade(database)\n"
        "    await database.close()\n"
        "asyncio.run(main())\n"
        "print('alembic' in sys.modules)\n"
    )
    assert await _run(program, sqlite_url) == "False\n"


async def test_a_schema_one_ahead_is_served_and_two_ahead_is_refused(store: Store, another: OpenStore) -> None:
    """A release runs on its own schema and on the next one: a roll-back of the program needs none of the database."""
    await change(store, f"UPDATE alembic_version SET version_num = '{int(HEAD) + 1:04}'")
    await store.close()
    following = await another()
    await following.accept(letter())
    await change(following, f"UPDATE alembic_version SET version_num = '{int(HEAD) + 2:04}'")
    await following.close()
    with pytest.raises(UnsafeDatabase, match="schema"):
        await another()


async def test_a_second_process_on_one_sqlite_is_refused(sqlite_url: str, open_at: OpenAt) -> None:
    """While one lives no other starts, and it says why; once it has ended, one does."""
    first = await open_at(sqlite_url)
    with pytest.raises(DatabaseInUse, match="Another process"):
        Database.open(sqlite_url)
    program = (
        "import sys\n"
        "from server.store.database import Database\n"
        "from server.store.dialect import DatabaseInUse\n"
        "try:\n"
        "    Database.open(sys.argv[1])\n"
        "except DatabaseInUse:\n"
        "    print('refused')\n"
    )
    assert await _run(program, sqlite_url) == "refused\n"
    await first.close()
    await (await open_at(sqlite_url)).close()


async def test_files_of_the_database_are_their_owners_alone(on_sqlite: Store, sqlite_url: str) -> None:
    """Nobody else on the machine reads the database, its log or its lock."""
    await accept_all(on_sqlite, [letter()])
    path = Path(sqlite_url.removeprefix("sqlite:///"))
    files = [file for file in path.parent.iterdir() if file.name.startswith(path.name)]
    assert {file.name.removeprefix(path.name) for file in files} == {"", "-wal", "-shm", ".lock"}
    assert {file.stat().st_mode & 0o077 for file in files} == {0}


async def test_the_log_begins_a_new_epoch_at_every_start_on_sqlite(sqlite_url: str, open_at: OpenAt) -> None:
    """A copy of the file may have been put back in between: no old cursor fits what is written now."""
    epochs: list[int] = []
    for _ in range(3):
        store = await open_at(sqlite_url)
        epochs.append(store._database.log_epoch)
        await store.close()
    assert epochs == sorted(set(epochs))


async def test_the_log_goes_on_in_its_epoch_on_the_same_postgres(postgres_url: str, open_at: OpenAt) -> None:
    """Starts change nothing; another cluster or timeline raises the epoch, even where the stored one lies ahead."""
    first, second = await open_at(postgres_url), await open_at(postgres_url)
    assert first._database.log_epoch == second._database.log_epoch > 0
    ahead = first._database.log_epoch + 10**9
    await change(first, f"UPDATE log SET system = 'another/1', log_epoch = {ahead}")
    assert (await open_at(postgres_url))._database.log_epoch == ahead + 1
    assert (await open_at(postgres_url))._database.log_epoch == ahead + 1


async def test_an_upgrade_can_be_repeated(store: Store) -> None:
    """A second upgrade of a current schema changes nothing."""
    before = await rows(store, "SELECT * FROM config_version")
    await upgrade(store._database)
    assert await rows(store, "SELECT * FROM config_version") == before
