"""What goes wrong around the store, keys, readings, listeners or other processes, and must cost nobody anything."""

import asyncio
import socket
import time
from dataclasses import replace

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.event import listen

from server.model.accounts import Account, ProviderType
from server.model.configuration import NewApiKey, ProviderChange, Snapshot
from server.model.configuration_tables import ClientAccount, Tenant
from server.model.enums import Channel, DueKind, MessageClass, Scope
from server.model.errors import Reason, Unavailable
from server.model.tables import METADATA
from server.model.watching import LogCursor
from server.store import postgres
from server.store.configuration import ABSENT_SECONDS, Configuration
from server.store.database import Database
from server.store.dialect import UnsafeDatabase
from server.store.log import place_of
from server.store.retention import _LONG_DONE, _OLD_KEYS, _UNERASED
from server.store.store import Store, open_store
from server.vault.api_keys import mint
from server.vault.identity import new_id
from server.vault.ring import MasterKeys
from server.vault.vault import Vault
from tests.store.conftest import OpenAt, OpenStore
from tests.store.letters import TENANTS, accept_all, change, letter, rows

SEND = frozenset({DueKind.SEND})
CLASS = MessageClass.TRANSACTIONAL
_BYTES = {"sqlite": "", "postgres": "::bytea"}
FOREIGN = "other:" + "AA" * 21 + "A="
OF_NORTH = [METADATA.tables["event"].c.tenant_id == TENANTS[0]]
TYPES = {"courier": ProviderType("courier", "Courier", (Channel.SMS,))}


def new_key(expires_at: int = 0) -> NewApiKey:
    minted = mint()
    return NewApiKey(minted.key_id, "acme", "shop", "", minted.prefix, minted.digest, (Scope.SEND,), expires_at)


async def with_client(store: Store) -> Store:
    await store.access.create_tenant(Tenant(tenant_id="acme", mode="LIVE"))
    await store.access.create_client(ClientAccount(tenant_id="acme", client_id="shop"))
    return store


def anything(_: Account) -> None:
    """Every account will do."""


async def test_a_message_whose_content_does_not_open_waits(store: Store) -> None:
    """It is not claimed, no claim is counted, it is tried again in a minute; the tenants' other messages go on."""
    first, second, other = await accept_all(store, [letter(), letter(), letter(TENANTS[1])])
    await change(store, f"UPDATE message SET body = recipient WHERE id = '{first.message.id}'")
    began = time.time_ns() // 1000
    claims = await store.claim(CLASS, SEND, 5)
    assert {claim.case.message.id for claim in claims} == {second.message.id, other.message.id}
    ((worker, count, due_at),) = await rows(
        store, f"SELECT worker, claims, due_at FROM due WHERE message_id = '{first.message.id}'"
    )
    assert (worker, count) == ("", 0)
    assert 59_000_000 < due_at - began < 65_000_000
    assert await rows(store, "SELECT DISTINCT state FROM message") == [("ACCEPTED",)]


async def test_a_tenant_whose_key_is_lost_keeps_its_messages(store: Store, another: OpenStore) -> None:
    """With its key gone nothing of it is claimed or failed; with the key back all is."""
    await accept_all(store, [letter(), letter()])
    await change(store, f"UPDATE tenant_key SET tenant_id = 'away' WHERE tenant_id = '{TENANTS[0]}'")
    await store.close()
    without = await another()
    assert await without.claim(CLASS, SEND, 5) == []
    await change(without, "UPDATE due SET due_at = 0")
    await change(without, f"UPDATE tenant_key SET tenant_id = '{TENANTS[0]}' WHERE tenant_id = 'away'")
    assert len([claim for claim in await without.claim(CLASS, SEND, 5) if claim.content]) == 2


async def test_a_ring_that_opens_no_tenant_is_refused(store: Store, database_url: str, another: OpenStore) -> None:
    """The start says which; with the right ring it starts again, and a ring for one tenant of several will do."""
    await store.close()
    foreign = Vault(MasterKeys.parse(FOREIGN))
    with pytest.raises(UnsafeDatabase, match="master keys open none of the tenants' keys"):
        await open_store(database_url, boot_id=new_id(), vault=foreign, provider_types={})
    again = await another()
    await change(again, f"UPDATE tenant_key SET wrapped = key_id{_BYTES[again.engine_name]} WHERE tenant_id = 'north'")
    await again.close()
    await another()


async def test_pruning_finds_what_is_old_by_an_index(on_sqlite: Store) -> None:
    """However much is kept, a call goes through nothing but what it forgets."""

    def look(connection: Connection) -> list[str]:
        found = [
            connection.execute(text(f"EXPLAIN QUERY PLAN {select} LIMIT 500"), {"before": 1}).all()
            for select in (_OLD_KEYS, _UNERASED, _LONG_DONE)
        ]
        return [str(plan) for plan in found]

    plans = await on_sqlite._database.read(look)
    assert all("SEARCH" in plan and "USING INDEX ix_" in plan and "TEMP B-TREE" not in plan for plan in plans)


async def test_the_backlog_of_a_tenant_is_read_by_its_own_index(on_sqlite: Store) -> None:
    """From the very place of the cursor, not from the tenant's first event, and without sorting."""
    asked: list[tuple[str, tuple[object, ...]]] = []

    def read(connection: Connection) -> list[str]:
        listen(connection, "before_cursor_execute", lambda _c, _cursor, sql, values, *_: asked.append((sql, values)))
        on_sqlite.watching._event_log.settled_of(connection, OF_NORTH, LogCursor(1, 0, 1), LogCursor(9, 0, 9), 10)
        return [str(connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}", v).all()) for sql, v in asked[:2]]

    same, later = await on_sqlite._database.read(read)
    assert "ix_event_tenant (tenant_id=? AND log_epoch=? AND xid=? AND id>? AND id<?)" in same
    assert "ix_event_tenant (tenant_id=? AND log_epoch>?)" in later
    assert "TEMP B-TREE" not in same + later


async def test_a_backlog_goes_on_from_epoch_to_epoch(store: Store) -> None:
    """Events of older and newer epochs come in the log's order, page by page, each once, and of one tenant alone."""
    await accept_all(store, [letter(TENANTS[n % 2]) for n in range(12)])
    await change(store, "UPDATE event SET log_epoch = log_epoch - 20 + id")
    log = store.watching._event_log
    ((top,),) = await rows(store, "SELECT max(log_epoch) FROM event")
    edge, after = LogCursor(top + 1, 0, 2**60), LogCursor(0, 0, 0)
    found: list[int] = []
    while True:
        page = await store._database.read(lambda c, after=after: log.settled_of(c, OF_NORTH, after, edge, 2))
        if not page:
            break
        after = place_of(page[-1])
        found += [row[-1] for row in page]
    assert found == [row[0] for row in await rows(store, "SELECT id FROM event WHERE tenant_id = 'north' ORDER BY id")]
    assert len(found) == 6


async def test_a_server_that_does_not_answer_costs_one_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs that wait while a connect is never answered are refused together after it, not one by one."""
    monkeypatch.setattr(postgres, "CONNECT_SECONDS", 2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        database = Database.open(f"postgresql://u@127.0.0.1:{silent.getsockname()[1]}/d")
        began = time.monotonic()
        jobs = [database.write(lambda c: c.exec_driver_sql("SELECT 1").close()) for _ in range(5)]
        answers = await asyncio.wait_for(asyncio.gather(*jobs, return_exceptions=True), 30)
        spent = time.monotonic() - began
        await database.close()
    assert [a.reason for a in answers if isinstance(a, Unavailable)] == [Reason.STORE_UNAVAILABLE] * 5
    assert spent < 4


async def test_after_a_restore_the_older_configuration_is_in_force(store: Store) -> None:
    """A lower version is taken, and the same version of another history too; later changes are seen as ever."""
    configuration = store.configuration
    await with_client(store)
    await change(store, "DELETE FROM tenant WHERE tenant_id = 'acme'")
    await change(store, "UPDATE config_version SET version = 0")
    await configuration.refresh_if_changed()
    assert (configuration.snapshot.version, dict(configuration.snapshot.tenants)) == (0, {})
    before = configuration.snapshot
    await configuration.refresh_if_changed()
    assert configuration.snapshot is before
    store._database.log_epoch += 1
    await configuration.refresh_if_changed()
    assert configuration.snapshot is not before


async def test_a_listener_that_fails_is_told_again(store: Store) -> None:
    """The snapshot is in force and the others are told; the one that failed hears of it at the next look, once."""
    told: list[str] = []
    failures = [True]

    def first(_: Snapshot) -> None:
        told.append("first")
        if failures.pop() if failures else False:
            raise ValueError("not now")

    store.configuration.on_snapshot += [first, lambda _: told.append("second")]
    await store.access.create_tenant(Tenant(tenant_id="acme", mode="LIVE"))
    assert "acme" in store.configuration.snapshot.tenants
    assert told == ["first", "second"]
    await store.configuration.refresh_if_changed()
    await store.configuration.refresh_if_changed()
    assert told == ["first", "second", "first"]


async def test_two_processes_make_one_account_together(on_postgres: Store, another_on_postgres: Store) -> None:
    """Each change is in the account, whoever was first; none fails because the other was quicker."""
    for n in range(10):
        stores = [Configuration(s._database, s.keys, TYPES) for s in (on_postgres, another_on_postgres)]
        changes = [
            one.configure_provider(
                TENANTS[0],
                f"account {n}",
                ProviderChange(type="courier", settings={f"from_{place}": "x"}),
                client_id="ops",
                check=anything,
            )
            for place, one in enumerate(stores)
        ]
        answers = await asyncio.gather(*changes)
        assert sorted(created for _, created in answers) == [False, True]
        row = await stores[0].provider(TENANTS[0], f"account {n}")
        assert (row.revision, row.settings) == (2, '{"from_0":"x","from_1":"x"}')


@pytest.fixture
async def another_on_postgres(postgres_url: str, on_postgres: Store, open_at: OpenAt) -> Store:
    """A second process on the same Postgres."""
    return await open_at(postgres_url)


async def test_keys_that_are_not_in_force_are_not_held_in_memory(store: Store) -> None:
    """Revoked and expired ones are looked up, and answered from that look for a second: they are never in force."""
    await with_client(store)
    configuration = store.configuration
    live, revoked, expired = new_key(time.time_ns() // 1000 + 10**9), new_key(), new_key(7)
    for key in (live, revoked, expired):
        await store.access.create_api_key(key)
    assert await configuration.credential(revoked.key_id) is not None
    await store.access.revoke_api_key("acme", revoked.key_id)
    assert set(configuration.snapshot.credentials) == {live.key_id}
    looked = await configuration.credential(revoked.key_id)
    assert looked is not None
    assert looked.revoked_at
    old = await configuration.credential(expired.key_id)
    assert old is not None
    assert old.expires_at == 7
    began = time.monotonic()
    await change(store, "DELETE FROM api_key")
    again = await configuration.credential(revoked.key_id)
    assert again == looked or time.monotonic() - began > ABSENT_SECONDS


async def test_keys_are_listed_newest_first_page_by_page(store: Store) -> None:
    """By the time of their making and then by id, downwards, each once; of one client where that is asked for."""
    await with_client(store)
    await store.access.create_client(ClientAccount(tenant_id="acme", client_id="other"))
    keys = [await store.access.create_api_key(new_key()) for _ in range(5)]
    await store.access.create_api_key(replace(new_key(), client_id="other"))
    same = f"UPDATE api_key SET created_at = 5 WHERE key_id IN ('{keys[1].key_id}', '{keys[3].key_id}')"
    await change(store, same)
    expected = sorted(((5 if n in (1, 3) else key.created_at, key.key_id) for n, key in enumerate(keys)), reverse=True)
    found: list[tuple[int, str]] = []
    while page := await store.access.newest_api_keys("acme", "shop", before=found[-1] if found else None, limit=2):
        found += [(row.created_at, row.key_id) for row in page]
    assert found == expected
    assert len(await store.access.newest_api_keys("acme", limit=9)) == 6
    assert await store.access.newest_api_keys("none", limit=9) == []
