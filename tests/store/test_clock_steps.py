"""Who is dead is told by how long its beat stood still, and no clock that is set has a part in that."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from server.store.liveness import DEAD_AFTER_SECONDS
from server.store.store import Store
from tests.proof.clock import Clock
from tests.store.letters import until

STEP_SECONDS = 1.5
"""Well below the pause after which a watcher counts as blind."""
STEPS = 4
HOUR = 3600.0
WAIT_SECONDS = 20.0

SWEEP = """
import asyncio, base64, json, sys
from server.app import configure_logging
from server.store.store import open_store
from server.vault.identity import new_id
from server.vault.ring import MasterKeys
from server.vault.vault import Vault
from tests.store.letters import rows

async def sweep():
    vault = Vault(MasterKeys.parse("test:" + base64.b64encode(bytes(range(32))).decode()))
    store = await open_store(sys.argv[1], boot_id=new_id(), vault=vault, provider_types={})
    while await asyncio.to_thread(sys.stdin.readline):
        await store.sweep()
        print(json.dumps([boot_id for (boot_id,) in await rows(store, "SELECT boot_id FROM worker")]), flush=True)

configure_logging("INFO")
asyncio.run(sweep())
"""

Sweep = Callable[[], Awaitable[list[str]]]


@asynccontextmanager
async def sweeping(url: str, clock: Clock) -> AsyncIterator[Sweep]:
    """Another process, under this clock: with each call it looks for the dead, and tells which workers are left."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", SWEEP, url),
        env={**os.environ, **clock.environment},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    asked, told = process.stdin, process.stdout
    assert asked is not None
    assert told is not None

    async def sweep() -> list[str]:
        asked.write(b"\n")
        async with asyncio.timeout(WAIT_SECONDS):
            return json.loads(await told.readline())

    try:
        yield sweep
    finally:
        process.kill()
        await process.wait()


async def test_a_clock_that_is_set_ahead_has_nobody_taken_for_dead(on_postgres: Store, postgres_url: str) -> None:
    """In small steps it goes ahead by more than the time after which a silent worker is dead."""
    with Clock() as clock:
        async with sweeping(postgres_url, clock) as sweep:
            for _ in range(STEPS):
                assert on_postgres.boot_id in await sweep()
                clock.jump(STEP_SECONDS)
            assert STEPS * STEP_SECONDS > DEAD_AFTER_SECONDS
            assert on_postgres.boot_id in await sweep()


async def test_a_clock_that_is_set_back_hides_no_dead_worker(on_postgres: Store, postgres_url: str) -> None:
    """A worker that has ended is found within seconds though the clock went back by an hour since it was seen."""
    with Clock() as clock:
        async with sweeping(postgres_url, clock) as sweep:
            assert on_postgres.boot_id in await sweep()
            clock.jump(-HOUR)

            async def found() -> bool:
                return on_postgres.boot_id not in await sweep()

            await until(found)
