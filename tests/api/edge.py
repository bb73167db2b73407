"""What a test talks to a server with: real stubs, and errors read as a client reads them."""

import asyncio
import base64
import time
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, TypeVar, cast

import grpc
from angarium.v1.access_service_pb2 import CreateApiKeyRequest, CreateClientRequest, CreateTenantRequest, Tenant
from angarium.v1.access_service_pb2_grpc import AccessServiceStub
from angarium.v1.message_pb2 import Recipient
from angarium.v1.notification_service_pb2 import SendRequest
from angarium.v1.notification_service_pb2_grpc import NotificationServiceStub
from angarium.v1.otp_service_pb2_grpc import OtpServiceStub
from angarium.v1.provider_service_pb2 import ConfigureProviderRequest
from angarium.v1.provider_service_pb2_grpc import ProviderServiceStub
from angarium.v1.routing_service_pb2_grpc import RoutingServiceStub
from angarium.v1.sandbox_service_pb2_grpc import SandboxServiceStub
from angarium.v1.template_service_pb2_grpc import TemplateServiceStub
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, QuotaFailure, RetryInfo
from grpc_status import rpc_status

from server.api.server import GrpcServer
from server.model.errors import Unavailable
from server.providers.roster import Roster
from server.providers.transport import Transport
from server.store.store import Store, open_store
from server.vault.identity import new_id
from server.vault.ring import MasterKeys
from server.vault.vault import Vault

SECONDS = 10.0
SEND = "/angarium.v1.NotificationService/Send"
UNKNOWN: Any = 99
"""A number that stands for nothing in any enum."""
T = TypeVar("T")


class UnaryBearer(grpc.aio.UnaryUnaryClientInterceptor):
    """Adds the key, and a deadline where there is none."""

    def __init__(self, secret: str) -> None:
        self._secret = secret

    async def intercept_unary_unary(self, continuation: Any, details: Any, request: Any) -> Any:
        timeout = SECONDS if details.timeout is None else details.timeout
        return await continuation(with_key(details, self._secret)._replace(timeout=timeout), request)


class StreamBearer(grpc.aio.UnaryStreamClientInterceptor):
    """Adds the key."""

    def __init__(self, secret: str) -> None:
        self._secret = secret

    async def intercept_unary_stream(self, continuation: Any, details: Any, request: Any) -> Any:
        return await continuation(with_key(details, self._secret), request)


def with_key(details: Any, secret: str) -> Any:
    return details._replace(metadata=grpc.aio.Metadata(*(details.metadata or ()), *bearer(secret)))


class Client:
    """One key's stubs, over a connection of its own."""

    def __init__(self, address: str, secret: str, options: tuple[tuple[str, int], ...] = ()) -> None:
        self.channel = grpc.aio.insecure_channel(
            address,
            options=(("grpc.use_local_subchannel_pool", 1), *options),
            interceptors=[UnaryBearer(secret), StreamBearer(secret)],
        )
        self.notifications: Any = NotificationServiceStub(self.channel)
        self.providers: Any = ProviderServiceStub(self.channel)
        self.routing: Any = RoutingServiceStub(self.channel)
        self.access: Any = AccessServiceStub(self.channel)
        self.sandbox: Any = SandboxServiceStub(self.channel)
        self.otp: Any = OtpServiceStub(self.channel)
        self.templates: Any = TemplateServiceStub(self.channel)


class Edge:
    """A running server and the clients that a test made of it."""

    def __init__(self, address: str, store: Store, server: GrpcServer, secret: str) -> None:
        self.address = address
        self.store = store
        self.server = server
        self.secret = secret
        self._clients: list[Client] = []
        self.operator = self.client(secret)

    def client(self, secret: str, *options: tuple[str, int]) -> Client:
        """A caller with this key, and with these options of its connection."""
        made = Client(self.address, secret, options)
        self._clients.append(made)
        return made

    async def close(self) -> None:
        for client in self._clients:
            await client.channel.close()

    async def configure_sandbox(self, tenant_id: str = "") -> None:
        await self.operator.providers.ConfigureProvider(ConfigureProviderRequest(tenant_id=tenant_id, type="sandbox"))

    async def tenant(self, tenant_id: str, **fields: Any) -> None:
        """A SANDBOX tenant of this name with a sandbox account."""
        asked = {"mode": Tenant.MODE_SANDBOX, "default_region": "IR", **fields}
        await self.operator.access.CreateTenant(CreateTenantRequest(tenant_id=tenant_id, **asked))
        await self.configure_sandbox(tenant_id)

    async def key(self, *scopes: str, tenant_id: str = "", client_id: str = "shop") -> Client:
        """A client account of a tenant with a key of these scopes."""
        access = self.operator.access
        await access.CreateClient(CreateClientRequest(tenant_id=tenant_id, client_id=client_id))
        asked = CreateApiKeyRequest(tenant_id=tenant_id, client_id=client_id, scopes=scopes)
        return self.client((await access.CreateApiKey(asked)).secret)


def letter(**fields: Any) -> SendRequest:
    """A request that is accepted as it is; fields replace or, where None, remove what it has."""
    asked = {"intent": "ORDER_PAID", "recipient": Recipient(phone="09120000111"), "text": "Paid.", **fields}
    return SendRequest(**{name: value for name, value in asked.items() if value is not None})


def to(**address: Any) -> SendRequest:
    """A letter to a recipient of these addresses."""
    return letter(recipient=Recipient(**address))


def soon(seconds: int) -> Timestamp:
    """So many seconds from now, by whole seconds."""
    return Timestamp(seconds=int(time.time()) + seconds)


def bearer(secret: str) -> tuple[tuple[str, str], ...]:
    """The metadata of a call with this key."""
    return (("authorization", f"Bearer {secret}"),)


@dataclass(frozen=True)
class Refusal:
    """An error as a client reads it."""

    code: grpc.StatusCode
    message: str
    reason: str = ""
    domain: str = ""
    metadata: tuple[tuple[str, str], ...] = ()
    fields: tuple[str, ...] = ()
    descriptions: tuple[str, ...] = ()
    quotas: tuple[str, ...] = ()
    retry_seconds: float = 0.0
    pushback: str = ""
    details_bytes: int = 0

    @property
    def told(self) -> dict[str, str]:
        return dict(self.metadata)


def refusal_of(error: grpc.aio.AioRpcError) -> Refusal:
    """Everything that an error says, in its details and its trailers."""
    trailers = dict(list(error.trailing_metadata() or ()))
    found = Refusal(error.code(), error.details() or "", pushback=str(trailers.get("grpc-retry-pushback-ms", "")))
    status = rpc_status.from_call(cast("grpc.Call", error))
    for detail in status.details if status else ():
        found = _with_detail(found, detail)
    return replace(found, details_bytes=status.ByteSize() if status else 0)


def _with_detail(found: Refusal, detail: Any) -> Refusal:
    info, bad, quota, retry = ErrorInfo(), BadRequest(), QuotaFailure(), RetryInfo()
    if detail.Unpack(info):
        return replace(found, reason=info.reason, domain=info.domain, metadata=tuple(sorted(info.metadata.items())))
    if detail.Unpack(bad):
        fields = tuple(v.field for v in bad.field_violations)
        return replace(found, fields=fields, descriptions=tuple(v.description for v in bad.field_violations))
    if detail.Unpack(quota):
        return replace(found, quotas=tuple(v.subject for v in quota.violations))
    assert detail.Unpack(retry)
    return replace(found, retry_seconds=retry.retry_delay.ToMilliseconds() / 1000)


async def refused(call: Awaitable[Any] | AsyncIterable[Any]) -> Refusal:
    """The error that a call ends with, unary or a stream. Fails where it ends well."""
    try:
        answers = [answer async for answer in call] if isinstance(call, AsyncIterable) else [await call]
    except grpc.aio.AioRpcError as error:
        return refusal_of(error)
    raise AssertionError(f"the call was answered: {len(answers)} answers")


async def raw_call(edge: Edge, method: str, body: bytes, metadata: tuple[tuple[str, str], ...]) -> Refusal:
    """Send bytes as they are to a unary method, with this metadata alone; the error that comes back."""
    async with grpc.aio.insecure_channel(edge.address) as channel:
        call: Callable[..., Awaitable[bytes]] = channel.unary_unary(method)
        return await refused(call(body, timeout=SECONDS, metadata=metadata))


async def beat(store: Store) -> None:
    """What the dispatcher does beside its work: by it the server knows that the store can write."""
    while True:
        with suppress(Unavailable):
            await store.beat()
        await asyncio.sleep(0.5)


@asynccontextmanager
async def running(url: str, *, allow_private_upstreams: bool = False) -> AsyncIterator[Edge]:
    """A server on this database, and its operator's key."""
    vault = Vault(MasterKeys.parse("test:" + base64.b64encode(bytes(range(32))).decode()))
    store = await open_store(url, boot_id=new_id(), vault=vault, provider_types=Roster.types())
    roster = Roster(Transport(allow_private=allow_private_upstreams))
    store.configuration.on_snapshot.append(roster.follow)
    shown: list[str] = []
    await store.bootstrap(shown.append)
    server = GrpcServer(store, roster, allow_private_upstreams=allow_private_upstreams)
    port = await server.start("127.0.0.1:0")
    edge = Edge(f"127.0.0.1:{port}", store, server, shown[0])
    beats = asyncio.create_task(beat(store))
    try:
        yield edge
    finally:
        beats.cancel()
        await asyncio.gather(beats, return_exceptions=True)
        await edge.close()
        await server.drain()
        await server.stop(1)
        await roster.aclose()
        await store.close()
