"""A whole gateway for the system tests, inside this process or as a process of its own, and what callers do with it."""

import asyncio
import base64
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from inspect import isawaitable
from pathlib import Path
from typing import Any, Self

import grpc
from angarium.v1.access_service_pb2 import CreateApiKeyRequest, CreateClientRequest, CreateTenantRequest, Tenant
from angarium.v1.message_pb2 import CHANNEL_SMS, Failure, Notification, Outcome
from angarium.v1.notification_service_pb2 import GetStatusRequest, GetStatusResponse
from angarium.v1.provider_service_pb2 import ConfigureProviderRequest
from angarium.v1.routing_service_pb2 import RouteStep, RoutingRule, SetRoutingRulesRequest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from pydantic import SecretStr

from server import app
from server.app import OPERATOR_KEY_FILE
from server.settings import Settings
from tests.api.edge import Client, bearer, letter
from tests.cluster import free_port

ROOT = Path(__file__).parent.parent
MASTER_KEY = "test:" + base64.b64encode(bytes(range(32))).decode()
START_SECONDS = 30.0
STOP_SECONDS = 20.0
POLL_SECONDS = 0.02
CALLS_AT_ONCE = 64
"""Of one connection: a server refuses what comes in a burst above its number of streams."""

EAGER = (
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 200),
)
"""Of a connection that is tried again at once when its server is back."""

# A killed test run leaves no gateway behind: the kernel ends it with its parent. Kept over exec, as the pid is.
_ENDS_WITH_PARENT = "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 9); os.execv(sys.argv[1], sys.argv[1:])"


class Callers:
    """Who calls a gateway at an address, beginning with its operator."""

    def __init__(self) -> None:
        self.address = ""
        self._secret = ""
        self._clients: list[Client] = []
        self._channel: grpc.aio.Channel | None = None
        self._gate = asyncio.Semaphore(CALLS_AT_ONCE)

    @property
    def operator(self) -> tuple[tuple[str, str], ...]:
        """The metadata of the operator's calls over `channel`."""
        return bearer(self._secret)

    @property
    def channel(self) -> grpc.aio.Channel:
        """A connection that adds no key by itself."""
        if self._channel is None:
            self._channel = grpc.aio.insecure_channel(self.address)
        return self._channel

    @property
    def stubs(self) -> Client:
        """The operator's stubs, which add its key and a deadline."""
        return self._clients[0] if self._clients else self.client(self._secret)

    def another(self) -> Client:
        """The operator's stubs over one more connection."""
        return self.client(self._secret)

    def client(self, secret: str) -> Client:
        """A caller with this key, over a connection of its own."""
        made = Client(self.address, secret)
        self._clients.append(made)
        return made

    async def tenant(self, tenant_id: str) -> None:
        """A SANDBOX tenant of this name, without any account."""
        asked = CreateTenantRequest(tenant_id=tenant_id, mode=Tenant.MODE_SANDBOX, default_region="IR")
        await self.stubs.access.CreateTenant(asked)

    async def secret(self, *scopes: str, tenant_id: str = "", client_id: str = "shop") -> tuple[str, str]:
        """A new key of a client account: its id and its secret."""
        await self.stubs.access.CreateClient(CreateClientRequest(tenant_id=tenant_id, client_id=client_id))
        asked = CreateApiKeyRequest(tenant_id=tenant_id, client_id=client_id, scopes=scopes)
        made = await self.stubs.access.CreateApiKey(asked)
        return made.api_key.key_id, made.secret

    async def configure_kavenegar(
        self,
        base_url: str,
        name: str = "kavenegar",
        *,
        tenant_id: str = "",
        timeout_seconds: int = 2,
        priority: int = 0,
    ) -> None:
        """An account of this name whose upstream is there; its API key is its name, made long enough."""
        asked = ConfigureProviderRequest(
            tenant_id=tenant_id,
            name=name,
            type="kavenegar",
            secrets={"api_key": key_of(name)},
            base_url=base_url,
            priority=priority,
        )
        asked.timeout.FromSeconds(timeout_seconds)
        await self.stubs.providers.ConfigureProvider(asked)

    async def configure_sandbox(self, *, tenant_id: str = "", priority: int = 0) -> None:
        """The in-process account that takes every channel."""
        asked = ConfigureProviderRequest(tenant_id=tenant_id, type="sandbox", priority=priority)
        await self.stubs.providers.ConfigureProvider(asked)

    async def route(self, *providers: str, tenant_id: str = "") -> None:
        """Texts of every intent go to these accounts, in this order."""
        rule = RoutingRule(name="texts", steps=[RouteStep(channel=CHANNEL_SMS, providers=providers)])
        await self.stubs.routing.SetRoutingRules(SetRoutingRulesRequest(tenant_id=tenant_id, rules=[rule]))

    async def send(self, **fields: Any) -> str:
        """A letter with these fields, accepted: its tracking id."""
        async with self._gate:
            return (await self.stubs.notifications.Send(letter(**fields))).tracking_id

    async def send_all(self, letters: Iterable[Mapping[str, Any]]) -> list[str]:
        """Letters with these fields, many at once; their tracking ids in order."""
        return await asyncio.gather(*(self.send(**fields) for fields in letters))

    async def status(self, tracking_id: str, *, tenant_id: str = "") -> GetStatusResponse:
        """All that is known of a message."""
        asked = GetStatusRequest(tenant_id=tenant_id, tracking_id=tracking_id)
        async with self._gate:
            return await self.stubs.notifications.GetStatus(asked)

    async def until(
        self,
        tracking_id: str,
        holds: Callable[[GetStatusResponse], bool],
        seconds: float = 15.0,
        *,
        tenant_id: str = "",
        pause_seconds: float = POLL_SECONDS,
    ) -> GetStatusResponse:
        """The message's status as soon as this holds of it; fails with what it came to instead."""
        deadline = time.monotonic() + seconds
        found = await self.status(tracking_id, tenant_id=tenant_id)
        while not holds(found):
            assert time.monotonic() < deadline, f"after {seconds} s it is still:\n{found}"
            await asyncio.sleep(pause_seconds)
            found = await self.status(tracking_id, tenant_id=tenant_id)
        return found

    async def reach(self, tracking_id: str, state: str, seconds: float = 15.0) -> GetStatusResponse:
        """The message's status as soon as it is in this state (`SENT`)."""
        return await self.until(tracking_id, lambda found: state_of(found) == state, seconds)

    async def hang_up(self) -> None:
        """Close every connection."""
        for client in self._clients:
            await client.channel.close()
        if self._channel is not None:
            await self._channel.close()
        self._clients, self._channel = [], None


def key_of(name: str) -> str:
    """The API key of the account of this name: a segment of its calls' paths."""
    return f"key-of-{name}"


def state_of(found: GetStatusResponse) -> str:
    """A message's state, without its prefix."""
    return Notification.State.Name(found.notification.state).removeprefix("STATE_")


def outcomes(found: GetStatusResponse) -> list[tuple[str, str]]:
    """Which account each attempt went to, and what it came to; without its prefix."""
    return [(a.provider, Outcome.Name(a.outcome).removeprefix("OUTCOME_")) for a in found.attempts]


def reason_of(found: GetStatusResponse) -> str:
    """Why a message failed, without its prefix."""
    return Failure.Reason.Name(found.notification.failure.reason).removeprefix("REASON_")


def names_of(found: GetStatusResponse) -> list[str]:
    """The states that a message went through."""
    states = found.notification.DESCRIPTOR.enum_types_by_name["State"].values_by_number
    return [states[event.state].name.removeprefix("STATE_") for event in found.timeline]


class Gateway(Callers):
    """A gateway in this process, as the application puts it together, on a free port."""

    def __init__(self, url: str, *, drain_seconds: float = 2.0) -> None:
        super().__init__()
        self.settings = Settings(
            database_url=url,
            listen="127.0.0.1:0",
            master_key=SecretStr(MASTER_KEY),
            allow_private_upstreams=True,
            drain_seconds=drain_seconds,
        )

    async def __aenter__(self) -> Self:
        store = await app.opened_store(self.settings)
        shown: list[str] = []
        await store.bootstrap(shown.append)
        self.application = await app.build(self.settings, store=store)
        self.address = f"127.0.0.1:{await self.application.start()}"
        self._secret = shown[0]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.hang_up()
        await self.application.stop()


class GatewayProcess(Callers):
    """A gateway as a process of its own on a free port, its data in a folder; stderr goes to a file there.

    `command` replaces `python -m server`. On Postgres `url` is the database's; its first process makes the key.
    """

    def __init__(
        self,
        folder: Path,
        command: Sequence[str] | None = None,
        environment: Mapping[str, str] | None = None,
        *,
        url: str = "",
    ) -> None:
        super().__init__()
        self.folder = folder
        self.address = f"127.0.0.1:{free_port()}"
        self.environment = {**surroundings(folder, url, self.address), **(environment or {})}
        self._command = command or (sys.executable, "-m", "server")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of the gateway itself."""
        return self._running.pid

    @property
    def stderr(self) -> str:
        """What it has written so far."""
        return self._written.read_text(errors="replace") if self._written.exists() else ""

    async def __aenter__(self) -> Self:
        try:
            await self._bootstrap()
            self.start()
            await self.serving()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.hang_up()
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                await self.ended(STOP_SECONDS)
            except TimeoutError:
                self._process.kill()
                await self.ended(STOP_SECONDS)

    def start(self, command: Sequence[str] | None = None) -> None:
        """Start it, or once more when it has ended, by another command where one is given; it does not serve yet."""
        with self._written.open("ab") as stderr:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _ENDS_WITH_PARENT, *(command or self._command)],
                cwd=ROOT,
                env=self.environment,
                stdout=stderr,
                stderr=stderr,
            )

    async def _bootstrap(self) -> None:
        """On Postgres nobody but `bootstrap` makes the operator's key, which is left where SQLite has it."""
        key, url = self.folder / OPERATOR_KEY_FILE, self.environment["ANGARIUM_DATABASE_URL"]
        if url.startswith("postgresql") and not key.exists():
            shown: list[str] = []
            await app.bootstrap(Settings(database_url=url, master_key=SecretStr(MASTER_KEY)), shown.append)
            key.write_text(shown[0])

    async def serving(self) -> None:
        """Wait until it says SERVING; fails with its stderr where it ends instead."""
        deadline = time.monotonic() + START_SECONDS
        async with grpc.aio.insecure_channel(self.address, options=EAGER) as channel:
            while not await _serves(channel):
                ended = self._running.poll()
                assert ended is None, f"it ended with {ended}:\n{self.stderr}"
                assert time.monotonic() < deadline, f"it does not serve:\n{self.stderr}"
        self._secret = (self.folder / OPERATOR_KEY_FILE).read_text().strip()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._running.send_signal(number)

    def kill(self) -> None:
        """End it as a crash does."""
        self._running.kill()

    async def ended(self, seconds: float = 15.0) -> int:
        """Wait until it has ended; its exit code, negative where a signal ended it."""
        await eventually(lambda: self._running.poll() is not None, seconds)
        return self._running.returncode

    @property
    def _running(self) -> "subprocess.Popen[bytes]":
        assert self._process is not None, "it was not started"
        return self._process

    @property
    def _written(self) -> Path:
        return self.folder / f"stderr-{self.address.rpartition(':')[2]}"


async def eventually(holds: Callable[[], object], seconds: float = 15.0) -> None:
    """Wait until this holds, or what it awaits does; TimeoutError where it does not in time."""
    async with asyncio.timeout(seconds):
        while not (await held if isawaitable(held := holds()) else held):  # noqa: ASYNC110 - it rings no bell
            await asyncio.sleep(POLL_SECONDS)


def surroundings(folder: Path, url: str, address: str) -> dict[str, str]:
    """The environment of a gateway; without a URL on SQLite in the folder, which keeps its keys too."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ANGARIUM_")}
    chosen = {"ANGARIUM_DATABASE_URL": url or f"sqlite:///{folder / 'angarium.db'}", "ANGARIUM_LISTEN": address}
    on_postgres = {"ANGARIUM_MASTER_KEY": MASTER_KEY} if url else {}
    return {**kept, **chosen, **on_postgres, "ANGARIUM_ALLOW_PRIVATE_UPSTREAMS": "true"}


def run_server(folder: Path, *arguments: str, environment: Mapping[str, str]) -> "subprocess.CompletedProcess[bytes]":
    """A command of the server's in this folder, to its end."""
    command = [sys.executable, "-m", "server", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, timeout=START_SECONDS, check=False)


async def _serves(channel: grpc.aio.Channel) -> bool:
    check: Any = HealthStub(channel).Check  # type: ignore[no-untyped-call]
    try:
        answer = await check(HealthCheckRequest(), timeout=0.5, wait_for_ready=True)
    except grpc.aio.AioRpcError:
        return False
    return answer.status == HealthCheckResponse.SERVING
