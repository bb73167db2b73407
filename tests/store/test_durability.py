"""What was acknowledged survives whatever ends the machine: the power is cut, or Postgres crashes."""

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from server.store.store import Store
from tests.cluster import Cluster
from tests.proof.powercut import Disk
from tests.store.conftest import OpenAt
from tests.store.letters import TENANTS, accept_all, add_tenants, letter, rows

MESSAGES = 20
FULL = 2
"""What SQLite calls `synchronous=FULL`."""

ACCEPT = """
import asyncio, base64, sys
from server.store.store import open_store
from server.vault.identity import new_id
from server.vault.ring import MasterKeys
from server.vault.vault import Vault
from tests.store.letters import TENANTS, add_tenants, letter

async def accept():
    vault = Vault(MasterKeys.parse("test:" + base64.b64encode(bytes(range(32))).decode()))
    store = await open_store(sys.argv[1], boot_id=new_id(), vault=vault, provider_types={})
    await add_tenants(store, *TENANTS)
    while True:
        print((await store.accept(letter())).message.id, flush=True)

asyncio.run(accept())
"""


@pytest.fixture
def own_cluster() -> Iterator[Cluster]:
    """A Postgres that a test may crash."""
    with Cluster() as running:
        yield running


async def test_every_commit_waits_for_the_disk(store: Store) -> None:
    """The connection that writes asks its database to sync each commit."""
    if store.engine_name == "sqlite":
        asked, answer = "PRAGMA synchronous", FULL
    else:
        asked, answer = "SHOW synchronous_commit", "on"
    assert await store._database.write(lambda c: c.exec_driver_sql(asked).scalar_one()) == answer


def test_a_power_cut_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    """Every message that SQLite had accepted when the power was cut is there when it is back."""
    disk = Disk.under(tmp_path, "disk")
    url = f"sqlite:///{disk.folder / 'angarium.db'}"
    with subprocess.Popen(
        [sys.executable, "-c", ACCEPT, url], env={**os.environ, **disk.environment}, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        acknowledged = {process.stdout.readline().strip() for _ in range(MESSAGES)}
        process.send_signal(signal.SIGKILL)
    assert len(acknowledged) == MESSAGES
    with closing(sqlite3.connect(disk.after_cut("power is back").folder / "angarium.db")) as connection:
        tables = connection.execute("SELECT name FROM sqlite_master WHERE name = 'message'").fetchall()
        found = {id_ for _ in tables for (id_,) in connection.execute("SELECT id FROM message")}
    assert acknowledged - found == set()


async def test_a_crash_of_postgres_loses_nothing_that_was_acknowledged(own_cluster: Cluster, open_at: OpenAt) -> None:
    """Every message that Postgres had accepted when it crashed is there when it runs again.

    It is told to write its log behind the commits' back once in ten seconds: no luck saves what did not wait for it.
    """
    with own_cluster.connect() as connection:
        connection.execute("ALTER SYSTEM SET wal_writer_delay = '10s'")
        connection.execute("SELECT pg_reload_conf()")
    store = await open_at(own_cluster.url(own_cluster.create()))
    await add_tenants(store, *TENANTS)
    with own_cluster.connect() as connection:
        connection.execute("CHECKPOINT")
    answers = await accept_all(store, [letter() for _ in range(MESSAGES)])
    own_cluster.restart()
    found = {id_ for (id_,) in await rows(store, "SELECT id FROM message")}
    assert {answer.message.id for answer in answers} - found == set()
    await store.close()
