"""The gRPC server: which services it has, how it is set up, how it starts and stops."""

import asyncio
import time
from collections.abc import Sequence

import grpc
from angarium.v1 import (
    access_service_pb2,
    access_service_pb2_grpc,
    notification_service_pb2,
    notification_service_pb2_grpc,
    otp_service_pb2,
    otp_service_pb2_grpc,
    provider_service_pb2,
    provider_service_pb2_grpc,
    routing_service_pb2,
    routing_service_pb2_grpc,
    sandbox_service_pb2,
    sandbox_service_pb2_grpc,
    template_service_pb2,
    template_service_pb2_grpc,
)
from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1.health import SERVICE_NAME as HEALTH_SERVICE

from server.api.access import Access
from server.api.admission import Admission
from server.api.health import Health
from server.api.interceptor import RESPONSE_BYTES_MAX, Interceptor
from server.api.notifications import Notifications
from server.api.otp import Otp
from server.api.providers import Providers
from server.api.reflection import add_reflection
from server.api.routing import Routing
from server.api.sandbox import Sandbox
from server.api.scopes import require_complete
from server.api.templates import Templates
from server.providers.roster import Roster
from server.store.store import Store

RECEIVE_BYTES_MAX = 2 * 1024 * 1024
"""What the transport takes, also after decompression. The interceptor allows half of it, and says so in its answer."""

GZIP_OR_NONE = 0b101
"""By the numbers of grpc's algorithms: none 0, deflate 1, gzip 2."""

OPTIONS: tuple[tuple[str, int], ...] = (
    # By gRPC's default a second process on the port starts, and the two share its callers unseen. It must be refused.
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", RECEIVE_BYTES_MAX),
    ("grpc.max_send_message_length", RESPONSE_BYTES_MAX + 1024),
    ("grpc.compression_enabled_algorithms_bitset", GZIP_OR_NONE),
    ("grpc.max_metadata_size", 8 * 1024),
    ("grpc.absolute_max_metadata_size", 16 * 1024),
    ("grpc.max_concurrent_streams", 128),
    ("grpc.server_handshake_timeout_ms", 5_000),
    ("grpc.max_connection_idle_ms", 5 * 60_000),
    ("grpc.max_connection_age_ms", 30 * 60_000),
    ("grpc.max_connection_age_grace_ms", 30_000),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
)

SERVICES: Sequence[ServiceDescriptor] = tuple(
    service
    for file in (
        notification_service_pb2,
        provider_service_pb2,
        routing_service_pb2,
        access_service_pb2,
        sandbox_service_pb2,
        template_service_pb2,
        otp_service_pb2,
    )
    for service in file.DESCRIPTOR.services_by_name.values()
)


LEAVING_SECONDS_MAX = 1.0
QUIET_SECONDS = 0.1
"""When no call has come for so long, those who could learn that this server stops have."""


class GrpcServer:
    """All services behind the one interceptor, with health and reflection."""

    def __init__(self, store: Store, roster: Roster, *, allow_private_upstreams: bool = False) -> None:
        require_complete(SERVICES)
        self._store = store
        self._admission = Admission()
        self._names = [service.full_name for service in SERVICES]
        self._health = Health(store, self._names)
        self._server = grpc.aio.server(
            interceptors=(Interceptor(store, self._admission, on_refused=self._health.note),),
            options=OPTIONS,
        )
        self._add_services(roster, allow_private_upstreams=allow_private_upstreams)

    async def start(self, listen: str) -> int:
        """Bind HOST:PORT and serve; the port. Raises RuntimeError where it is taken. SERVING once the store answers."""
        add_reflection(self._server, (*self._names, HEALTH_SERVICE))
        self._health.add_to(self._server)
        port = self._server.add_insecure_port(listen)
        await self._server.start()
        await self._health.follow()
        return port

    async def drain(self) -> None:
        """NOT_SERVING; open streams end with UNAVAILABLE (DRAINING), new ones are turned away. Other calls go on."""
        await self._health.drain()
        self._admission.drain()
        self._store.watching.drain()

    async def stop(self, grace_seconds: float) -> None:
        """Let callers leave, take no new calls, and give those under way what is left of so long to finish."""
        began = time.monotonic()
        await self._let_callers_leave(min(LEAVING_SECONDS_MAX, grace_seconds))
        self._health.close()
        await self._server.stop(max(0.0, grace_seconds - (time.monotonic() - began)))

    async def _let_callers_leave(self, seconds_max: float) -> None:
        """What comes in the moment in which gRPC stops is CANCELLED, and no caller's policy repeats that.

        Who watches this server's health knows by now that it stops, and calls another: calls that still come are from
        those who are about to learn of it.
        """
        until = time.monotonic() + seconds_max
        await asyncio.sleep(min(QUIET_SECONDS, seconds_max))
        while self._admission.quiet_seconds < QUIET_SECONDS and time.monotonic() < until:  # noqa: ASYNC110 - no bell
            await asyncio.sleep(QUIET_SECONDS / 5)

    def _add_services(self, roster: Roster, *, allow_private_upstreams: bool) -> None:
        store, server = self._store, self._server
        notification_service_pb2_grpc.add_NotificationServiceServicer_to_server(Notifications(store), server)
        provider_service_pb2_grpc.add_ProviderServiceServicer_to_server(
            Providers(store, roster, allow_private_upstreams=allow_private_upstreams), server
        )
        routing_service_pb2_grpc.add_RoutingServiceServicer_to_server(Routing(store, roster), server)
        access_service_pb2_grpc.add_AccessServiceServicer_to_server(Access(store), server)
        sandbox_service_pb2_grpc.add_SandboxServiceServicer_to_server(Sandbox(store), server)
        template_service_pb2_grpc.add_TemplateServiceServicer_to_server(Templates(store), server)
        otp_service_pb2_grpc.add_OtpServiceServicer_to_server(Otp(store), server)
