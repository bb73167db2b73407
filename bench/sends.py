"""The message that everybody sends in a run, and the gateway's configuration for it."""

import time
from typing import Any

import grpc
from angarium.v1 import (
    access_service_pb2,
    access_service_pb2_grpc,
    message_pb2,
    notification_service_pb2 as notifications,
    provider_service_pb2,
    provider_service_pb2_grpc,
)
from google.protobuf.timestamp_pb2 import Timestamp
from grpc_health.v1 import health_pb2, health_pb2_grpc

CALL_SECONDS_MAX = 10.0
LATER_SECONDS = 24 * 3600
TEXT = "n{}. Your parcel is on its way and will be with you today."
API_KEY = "the-key-of-a-bench"
LINE = "10004346"


def phone(number: int) -> str:
    """The recipient of message `number`, as people type it."""
    return f"0912{number % 10_000_000:07d}"


def text(number: int) -> str:
    """The text of message `number`, by which the upstream knows it."""
    return TEXT.format(number)


def tag(number: int) -> str:
    """The tag that watcher `number` waits for, where each has its own."""
    return f"own-{number}"


def request(number: int, *, later: bool = False, tag: str = "") -> notifications.SendRequest:
    """Message `number`, with a key of its own. `later`: for tomorrow, so that it is kept and goes nowhere."""
    wanted = notifications.SendRequest(
        request_id=f"bench-{number}",
        intent="ORDER_SHIPPED",
        recipient=message_pb2.Recipient(phone=phone(number)),
        text=text(number),
        tags=[tag] if tag else [],
    )
    if later:
        wanted.schedule_time.CopyFrom(Timestamp(seconds=int(time.time()) + LATER_SECONDS))
    return wanted


def credentials(key: str) -> tuple[tuple[str, str], ...]:
    """The metadata of every call."""
    return (("authorization", f"Bearer {key}"),)


def require_serving(port: int) -> None:
    """Raises where the health service does not say SERVING."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=CALL_SECONDS_MAX)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def configure(port: int, key: str, upstream_port: int) -> None:
    """A live tenant, whose one account is with the upstream."""
    who = credentials(key)
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        access = access_service_pb2_grpc.AccessServiceStub(channel)
        live = access_service_pb2.UpdateTenantRequest(tenant_id="default", mode=access_service_pb2.Tenant.MODE_LIVE)
        access.UpdateTenant(live, timeout=CALL_SECONDS_MAX, metadata=who)
        account = provider_service_pb2.ConfigureProviderRequest(
            name="main",
            type="kavenegar",
            secrets={"api_key": API_KEY},
            settings={"sender": LINE},
            base_url=f"http://127.0.0.1:{upstream_port}",
        )
        accounts = provider_service_pb2_grpc.ProviderServiceStub(channel)
        accounts.ConfigureProvider(account, timeout=CALL_SECONDS_MAX, metadata=who)
