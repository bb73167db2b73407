"""The bell: tells those who read the log that it has grown. It only saves latency; a poll bounds every wait."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import psycopg
import structlog

NOTIFY_EVERY_SECONDS = 0.05
SILENCE_SECONDS = 30.0
"""After so long without a word a listening connection is asked whether it is still there."""
RECONNECT_SECONDS = 1.0
CONNECT_SECONDS = 5
CLOSE_SECONDS = 1.0

_log = structlog.get_logger("store")

Connection = psycopg.AsyncConnection[Any]


class Bell:
    """Rung from any thread, waited for on the loop that it was made on."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._rung = asyncio.Event()

    def ring(self) -> None:
        """Wake who waits; many rings before that are one."""
        if not self._rung.is_set():
            self._loop.call_soon_threadsafe(self._rung.set)

    async def wait(self, seconds: float | None = None) -> None:
        """Until it rings, or for so long; what rang before is forgotten."""
        try:
            async with asyncio.timeout(seconds):
                await self._rung.wait()
        except TimeoutError:
            return
        finally:
            self._rung.clear()


class PostgresBell:
    """Carries the bell between processes: LISTEN and NOTIFY, each on a connection of its own, outside all commits.

    `heard` is called for every ring of another process, and after a connection was lost, for rings may have been too.
    """

    def __init__(self, conninfo: str, heard: Callable[[], None]) -> None:
        self._conninfo = conninfo
        self._heard = heard
        self._news = Bell()
        self._own_pid = 0

    def ring(self) -> None:
        """Tell the other processes, soon; at most 20 times a second. From any thread."""
        self._news.ring()

    async def listen(self) -> None:
        """Hear the others until cancelled."""
        await self._connected(self._listen)

    async def notify(self) -> None:
        """Tell the others until cancelled."""
        await self._connected(self._notify)

    async def _connected(self, use: Callable[[Connection], Awaitable[None]]) -> None:
        while True:
            try:
                async with await self._connection() as connection:
                    await use(connection)
            except (psycopg.Error, OSError) as lost:
                _log.warning("bell lost its connection", error=type(lost).__name__)
                await asyncio.sleep(RECONNECT_SECONDS)

    async def _connection(self) -> Connection:
        """A new connection. Cancelled while it makes one, psycopg would leave it open: it is awaited and closed."""
        connecting = asyncio.create_task(
            psycopg.AsyncConnection.connect(
                self._conninfo,
                autocommit=True,
                application_name="angarium bell",
                connect_timeout=CONNECT_SECONDS,
                keepalives_idle=5,
                keepalives_interval=2,
                keepalives_count=3,
            )
        )
        try:
            return await asyncio.shield(connecting)
        except asyncio.CancelledError:
            await asyncio.wait({connecting}, timeout=CLOSE_SECONDS)
            if connecting.done() and not connecting.cancelled() and connecting.exception() is None:
                await connecting.result().close()
            connecting.cancel()
            raise

    async def _listen(self, connection: Connection) -> None:
        await connection.execute("LISTEN angarium_event")
        self._heard()
        while True:
            async for notice in connection.notifies(timeout=SILENCE_SECONDS):
                if notice.pid != self._own_pid:
                    self._heard()
            await connection.execute("SELECT 1")

    async def _notify(self, connection: Connection) -> None:
        self._own_pid = connection.info.backend_pid
        while True:
            await self._news.wait()
            await connection.execute("NOTIFY angarium_event")
            await asyncio.sleep(NOTIFY_EVERY_SECONDS)
