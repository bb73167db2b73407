"""The database goes away, fills up or is locked: callers are told, nothing is lost, the store comes back by itself."""

import asyncio
import threading
from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import event, make_url

from server.model.enums import DueKind, MessageClass
from server.model.errors import Reason, Unavailable
from server.store.dialect import UnsafeDatabase
from server.store.store import Store
from tests.cluster import Cluster
from tests.store.conftest import OpenAt
from tests.store.letters import TENANTS, accept_all, add_tenants, change, letter, rows, started, until

SEND = frozenset({DueKind.SEND})
BACKENDS = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()"


@pytest.fixture
def own_cluster() -> Iterator[Cluster]:
    """A Postgres that a test may stop."""
    with Cluster() as running:
        yield running


def _database_of(url: str) -> str:
    return str(make_url(url).database)


def _connect(url: str) -> psycopg.Connection:
    return psycopg.connect(make_url(url).set(drivername="postgresql").render_as_string(hide_password=False))


async def test_a_full_disk_is_said_and_got_over(on_sqlite: Store) -> None:
    """STORAGE_FULL while the disk is full, and no half message is left; once it is not, the same store accepts."""
    await on_sqlite._database.write(lambda c: c.exec_driver_sql("PRAGMA max_page_count = 1").close())
    answers = await accept_all(on_sqlite, [letter(reference="x" * 200) for _ in range(1000)])
    assert {answer.reason for answer in answers if isinstance(answer, Unavailable)} == {Reason.STORAGE_FULL}
    count = len(await rows(on_sqlite, "SELECT id FROM message"))
    assert len(await rows(on_sqlite, "SELECT id FROM event")) == count
    await on_sqlite._database.write(lambda c: c.exec_driver_sql("PRAGMA max_page_count = 1000000").close())
    await on_sqlite.accept(letter())
    assert len(await rows(on_sqlite, "SELECT id FROM message")) == count + 1


async def test_a_lost_connection_costs_nobody_an_answer(
    on_postgres: Store, postgres_url: str, cluster: Cluster
) -> None:
    """Connections that were cut while nothing was on its way are made anew; no caller notices."""
    await on_postgres.accept(letter())
    await rows(on_postgres, "SELECT 1")
    with cluster.connect() as connection:
        connection.execute(BACKENDS, (_database_of(postgres_url),))
    answers = await accept_all(on_postgres, [letter() for _ in range(20)])
    assert [answer for answer in answers if isinstance(answer, BaseException)] == []
    assert len(await rows(on_postgres, "SELECT id FROM message")) == 21


async def test_without_a_server_callers_are_told_and_with_it_all_goes_on(own_cluster: Cluster, open_at: OpenAt) -> None:
    """STORE_UNAVAILABLE while Postgres is down, within seconds; what was accepted before and after is there."""
    store = await open_at(own_cluster.url(own_cluster.create()))
    await add_tenants(store, *TENANTS)
    before = await store.accept(letter())
    own_cluster.stop()
    answers = await asyncio.wait_for(accept_all(store, [letter() for _ in range(5)]), 20)
    assert {type(answer) for answer in answers} == {Unavailable}
    assert {answer.reason for answer in answers} == {Reason.STORE_UNAVAILABLE}
    own_cluster.start()
    after = await store.accept(letter())
    found = {row[0] for row in await rows(store, "SELECT id FROM message")}
    assert found == {before.message.id, after.message.id}
    await store.close()


async def test_a_deadlock_is_repeated_and_nobody_hears_of_it(
    on_postgres: Store, postgres_url: str, cluster: Cluster
) -> None:
    """The victim of a deadlock is tried again: 40P01 never reaches a caller."""
    insert = "INSERT INTO idempotency VALUES (%s, 'shop', 'notification', %s, 'x', 'x', 1)"
    other = _connect(postgres_url)
    other.execute("SET deadlock_timeout = '30s'")  # the other side finds the deadlock first, and is its victim
    other.execute(insert, (TENANTS[0], "b"))
    calls = asyncio.create_task(accept_all(on_postgres, [letter(request_id="a"), letter(request_id="b")]))
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = %s"
    with cluster.connect() as look:
        await until(lambda: look.execute(waiting, (_database_of(postgres_url),)).fetchone() == (1,))
    # It waits for us; now we wait for it.
    stranger = threading.Thread(target=lambda: (other.execute(insert, (TENANTS[0], "a")), other.rollback()))
    stranger.start()
    answers = await calls
    stranger.join(10)
    other.close()
    assert [answer.replayed for answer in answers] == [False, False]


async def test_a_row_that_is_locked_holds_up_its_own_call_alone(on_postgres: Store, postgres_url: str) -> None:
    """Who meets a lock that is not let go is told after a while; its neighbours are accepted."""
    insert = "INSERT INTO idempotency VALUES (%s, 'shop', 'notification', 'b', 'x', 'x', 1)"
    with _connect(postgres_url) as other:
        other.execute(insert, (TENANTS[0],))
        answers = await accept_all(on_postgres, [letter(request_id=key) for key in "abc"])
        other.rollback()
    assert isinstance(answers[1], Unavailable)
    assert [answer.replayed for answer in (answers[0], answers[2])] == [False, False]
    assert not (await on_postgres.accept(letter(request_id="b"))).replayed


async def test_a_commit_whose_answer_is_lost_can_be_repeated_by_its_key(
    on_postgres: Store, postgres_url: str, cluster: Cluster
) -> None:
    """The connection is cut at the COMMIT: the caller is told Unavailable, and its key finds what became of it."""

    def cut(_: object) -> None:
        with cluster.connect() as connection:
            connection.execute(BACKENDS, (_database_of(postgres_url),))

    engine = on_postgres._database._writer_engine
    event.listen(engine, "commit", cut)
    with pytest.raises(Unavailable):
        await on_postgres.accept(letter(request_id="r-1"))
    event.remove(engine, "commit", cut)
    again = await on_postgres.accept(letter(request_id="r-1"))
    assert await rows(on_postgres, "SELECT id FROM message") == [(again.message.id,)]


async def test_after_a_restart_of_the_server_facts_are_applied(own_cluster: Cluster, open_at: OpenAt) -> None:
    """A claim from before the crash of Postgres goes on after it."""
    store = await open_at(own_cluster.url(own_cluster.create()))
    await add_tenants(store, *TENANTS)
    await store.accept(letter())
    claim = (await store.claim(MessageClass.TRANSACTIONAL, SEND, 1))[0]
    own_cluster.restart()
    await store.apply(claim.case.message.id, started(claim))
    assert await rows(store, "SELECT number, epoch FROM attempt") == [(1, 1)]
    await store.close()


async def test_events_of_a_failed_over_server_stand_in_a_new_epoch(on_postgres: Store) -> None:
    """Whenever a connection is made anew the cluster's identity is looked at: another one raises the log's epoch."""
    before = on_postgres._database.log_epoch
    await on_postgres.accept(letter())
    await change(on_postgres, "UPDATE log SET system = 'another cluster'")
    await change(on_postgres, "SELECT 1")
    assert on_postgres._database.log_epoch == before
    on_postgres._database._drop_connection()
    await on_postgres.accept(letter())
    ((first,), (second,)) = await rows(on_postgres, "SELECT log_epoch FROM event ORDER BY id")
    assert first == before
    assert second == on_postgres._database.log_epoch > before


async def test_a_database_that_may_lose_commits_is_refused(
    postgres_url: str, cluster: Cluster, open_at: OpenAt
) -> None:
    """synchronous_commit = off: the server does not start."""
    with cluster.connect() as connection:
        name = sql.Identifier(_database_of(postgres_url))
        connection.execute(sql.SQL("ALTER DATABASE {} SET synchronous_commit = off").format(name))
    with pytest.raises(UnsafeDatabase, match="synchronous_commit"):
        await open_at(postgres_url)


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:"])
async def test_a_database_in_memory_is_refused(open_at: OpenAt, url: str) -> None:
    """What is in memory is not durable."""
    with pytest.raises(UnsafeDatabase):
        await open_at(url)
