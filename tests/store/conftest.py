"""Stores on a fresh database, closed after the test."""

import base64
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from server.store.store import Store, open_store
from server.vault.identity import new_id
from server.vault.ring import MasterKeys
from server.vault.vault import Vault
from tests.store.letters import TENANTS, add_tenants

OpenAt = Callable[[str], Awaitable[Store]]
OpenStore = Callable[[], Awaitable[Store]]


@pytest.fixture
def vault() -> Vault:
    """A vault whose master key every store of the test shares."""
    return Vault(MasterKeys.parse("test:" + base64.b64encode(bytes(range(32))).decode()))


@pytest.fixture
async def open_at(vault: Vault) -> AsyncIterator[OpenAt]:
    """Opens a store on a database, as a process of its own would."""
    opened: list[Store] = []

    async def open_one(url: str) -> Store:
        store = await open_store(url, boot_id=new_id(), vault=vault, provider_types={})
        opened.append(store)
        return store

    yield open_one
    for store in reversed(opened):
        await store.close()


@pytest.fixture
def another(database_url: str, open_at: OpenAt) -> OpenStore:
    """Opens one more store on the test's database."""
    return lambda: open_at(database_url)


@pytest.fixture
async def store(another: OpenStore) -> Store:
    """A store with three tenants."""
    return await _with_tenants(await another())


@pytest.fixture
async def on_sqlite(sqlite_url: str, open_at: OpenAt) -> Store:
    """A store with three tenants on SQLite alone."""
    return await _with_tenants(await open_at(sqlite_url))


@pytest.fixture
async def on_postgres(postgres_url: str, open_at: OpenAt) -> Store:
    """A store with three tenants on Postgres alone."""
    return await _with_tenants(await open_at(postgres_url))


async def _with_tenants(store: Store) -> Store:
    await add_tenants(store, *TENANTS)
    return store
