"""Streams of those who may no longer call."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from angarium.v1 import access_service_pb2 as access, notification_service_pb2 as wire
from angarium.v1.message_pb2 import NotificationFilter
from grpc import StatusCode

from tests.api.edge import SECONDS, Client, Edge, letter, refused, soon

TOLD_SECONDS = 2.0
INVALID = (StatusCode.UNAUTHENTICATED, "CREDENTIALS_INVALID")
DISABLED = (StatusCode.PERMISSION_DENIED, "TENANT_DISABLED")


async def open_streams(caller: Client) -> list[Any]:
    """A stream of each kind, each of which has told its first answer and waits."""
    sent = await caller.notifications.Send(letter())
    streams = [
        caller.notifications.WatchStatus(wire.WatchStatusRequest(tracking_id=sent.tracking_id)),
        caller.notifications.WatchStatus(wire.WatchStatusRequest(filter=NotificationFilter())),
        caller.notifications.SendAndWatch(wire.SendAndWatchRequest(send=letter())),
    ]
    for stream in streams:
        await asyncio.wait_for(stream.read(), SECONDS)
    return streams


async def own_key(edge: Edge, caller: Client) -> str:
    return (await caller.access.WhoAmI(access.WhoAmIRequest())).api_key.key_id


async def revoke(edge: Edge, caller: Client) -> None:
    key_id = await own_key(edge, caller)
    await edge.operator.access.RevokeApiKey(access.RevokeApiKeyRequest(tenant_id="mall", key_id=key_id))


async def revoke_elsewhere(edge: Edge, caller: Client) -> None:
    """As another process does: this one learns of it by its look at the version."""
    key_id = await own_key(edge, caller)

    def write(connection: Any) -> None:
        connection.exec_driver_sql(f"UPDATE api_key SET revoked_at = 1 WHERE key_id = '{key_id}'")
        connection.exec_driver_sql("UPDATE config_version SET version = version + 1")

    await edge.store._database.write(write)
    await edge.store.configuration.refresh_if_changed()


async def switch_client_off(edge: Edge, caller: Client) -> None:
    request = access.UpdateClientRequest(tenant_id="mall", client_id="shop", is_active=False)
    await edge.operator.access.UpdateClient(request)


async def switch_tenant_off(edge: Edge, caller: Client) -> None:
    await edge.operator.access.UpdateTenant(access.UpdateTenantRequest(tenant_id="mall", is_active=False))


@pytest.mark.parametrize(
    ("end", "told"),
    [
        (revoke, INVALID),
        (revoke_elsewhere, INVALID),
        (switch_client_off, INVALID),
        (switch_tenant_off, DISABLED),
    ],
)
async def test_open_streams_end_with_the_right_to_call(
    edge: Edge, end: Callable[[Edge, Client], Awaitable[None]], told: tuple[StatusCode, str]
) -> None:
    """A key revoked, a client or a tenant switched off: its silent streams end in time, those of others go on."""
    await edge.tenant("mall")
    caller, other = await edge.key("send", "read", tenant_id="mall"), await edge.key("send", "read")
    streams, others = await open_streams(caller), await open_streams(other)
    await end(edge, caller)
    started = time.monotonic()
    for stream in streams:
        refusal = await asyncio.wait_for(refused(stream), SECONDS)
        assert (refusal.code, refusal.reason) == told
    assert time.monotonic() - started < TOLD_SECONDS
    sent = await other.notifications.Send(letter())
    told_of: set[str] = set()
    async with asyncio.timeout(SECONDS):
        while sent.tracking_id not in told_of:
            told_of |= {event.tracking_id for event in (await others[1].read()).events}
    for stream in others:
        stream.cancel()


async def test_open_streams_end_with_their_key(edge: Edge) -> None:
    """A key that expires takes its silent streams with it, though nothing is configured then."""
    await edge.operator.access.CreateClient(access.CreateClientRequest(client_id="shop"))
    asked = access.CreateApiKeyRequest(client_id="shop", scopes=["send", "read"], expire_time=soon(3))
    made = await edge.operator.access.CreateApiKey(asked)
    streams = await open_streams(edge.client(made.secret))
    for stream in streams:
        refusal = await asyncio.wait_for(refused(stream), SECONDS)
        assert (refusal.code, refusal.reason) == INVALID
        assert -0.1 < time.time() - asked.expire_time.seconds < TOLD_SECONDS
