"""What a caller gets who may not do what it asks for."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest
from angarium.v1 import (
    access_service_pb2 as access,
    notification_service_pb2 as notifications,
    provider_service_pb2 as providers,
    routing_service_pb2 as routing,
    template_service_pb2 as templates,
)
from grpc import StatusCode

from server.vault.api_keys import mint
from tests.api.edge import SEND, Edge, bearer, letter, raw_call, refused, soon

Metadata = Callable[[str], tuple[tuple[str, str], ...]]

CREDENTIALS: dict[str, tuple[Metadata, str]] = {
    "1 none": (lambda _: (), "CREDENTIALS_MISSING"),
    "2 another scheme": (lambda key: (("authorization", f"Basic {key}"),), "CREDENTIALS_MISSING"),
    "2 scheme alone": (lambda _: (("authorization", "Bearer"),), "CREDENTIALS_MISSING"),
    "2 malformed": (lambda _: bearer("hello"), "CREDENTIALS_INVALID"),
    "2 a typing error": (lambda key: bearer(key[:-1] + ("A" if key[-1] != "A" else "B")), "CREDENTIALS_INVALID"),
    "2 not ASCII": (lambda key: (("authorization", f"Bearer {key[:-1]}~"),), "CREDENTIALS_INVALID"),
    "4 twice": (lambda key: bearer(key) + bearer(key), "CREDENTIALS_MISSING"),
}


@pytest.mark.parametrize("row", CREDENTIALS)
async def test_credentials(sqlite_edge: Edge, row: str) -> None:
    """Rows 1, 2 and 4: UNAUTHENTICATED, whatever the request."""
    metadata, reason = CREDENTIALS[row]
    refusal = await raw_call(sqlite_edge, SEND, letter().SerializeToString(), metadata(sqlite_edge.secret))
    assert (refusal.code, refusal.reason, refusal.domain) == (StatusCode.UNAUTHENTICATED, reason, "angarium")


async def test_keys_of_no_use_look_the_same(edge: Edge) -> None:
    """Row 3: a key that is unknown, revoked, expired or of a switched-off client is refused in the same words."""
    operator = edge.operator.access
    await operator.CreateClient(access.CreateClientRequest(client_id="shop"))

    async def key(client_id: str = "shop", **fields: Any) -> access.CreateApiKeyResponse:
        return await operator.CreateApiKey(access.CreateApiKeyRequest(client_id=client_id, scopes=["send"], **fields))

    revoked, expiring = await key(), await key(expire_time=soon(2))
    await operator.RevokeApiKey(access.RevokeApiKeyRequest(key_id=revoked.api_key.key_id))
    await operator.CreateClient(access.CreateClientRequest(client_id="gone"))
    switched_off = await key("gone")
    await operator.UpdateClient(access.UpdateClientRequest(client_id="gone", is_active=False))
    await asyncio.sleep(max(0.0, expiring.api_key.expire_time.seconds + 0.05 - time.time()))
    refusals = [
        await raw_call(edge, SEND, letter().SerializeToString(), bearer(secret))
        for secret in (revoked.secret, expiring.secret, switched_off.secret, mint().secret)
    ]
    assert len(set(refusals)) == 1
    assert (refusals[0].code, refusals[0].reason) == (StatusCode.UNAUTHENTICATED, "CREDENTIALS_INVALID")


async def test_scope_is_asked_before_content(edge: Edge) -> None:
    """Row 5: a key without the scope is refused though the request is bad too; the scope is named."""
    reader = await edge.key("read")
    refusal = await refused(reader.notifications.Send(notifications.SendRequest()))
    assert (refusal.code, refusal.reason) == (StatusCode.PERMISSION_DENIED, "SCOPE_MISSING")
    assert refusal.told == {"scope": "send"}


async def test_a_tenant_that_is_switched_off_may_do_nothing(edge: Edge) -> None:
    """Row 7: its keys are refused, for every RPC; a key of another tenant with the override still manages it."""
    await edge.tenant("mall")
    inside = await edge.key("send", "read", tenant_id="mall")
    await inside.notifications.Send(letter())
    update = access.UpdateTenantRequest(tenant_id="mall", is_active=False)
    await edge.operator.access.UpdateTenant(update)
    for call in (inside.notifications.Send(letter()), inside.access.WhoAmI(access.WhoAmIRequest())):
        refusal = await refused(call)
        assert (refusal.code, refusal.reason) == (StatusCode.PERMISSION_DENIED, "TENANT_DISABLED")
        assert refusal.told == {"tenant_id": "mall"}
    again = access.UpdateTenantRequest(tenant_id="mall", is_active=True)
    assert (await edge.operator.access.UpdateTenant(again)).tenant.is_active


async def test_another_tenant_may_not_be_named(edge: Edge) -> None:
    """Naming a tenant needs the override, whether there is one or not; with it, one that is not there is NOT_FOUND."""
    await edge.tenant("mall")
    caller = await edge.key("send")
    for named in ("mall", "nowhere"):
        refusal = await refused(caller.notifications.Send(letter(tenant_id=named)))
        assert (refusal.code, refusal.reason) == (StatusCode.PERMISSION_DENIED, "TENANT_FORBIDDEN")
    refusal = await refused(edge.operator.notifications.Send(letter(tenant_id="nowhere")))
    assert (refusal.code, refusal.reason, refusal.told) == (
        StatusCode.NOT_FOUND,
        "RESOURCE_NOT_FOUND",
        {"resource": "tenant"},
    )


async def test_what_is_another_tenants_does_not_exist(edge: Edge) -> None:
    """Row 8: another tenant's message, account, rule and template are NOT_FOUND."""
    await edge.tenant("mall")
    inside = await edge.key("send", "read", "configure", tenant_id="mall")
    sent = await edge.operator.notifications.Send(letter(request_id="mine"))
    theirs = templates.Template(key="login", text="Code")
    await edge.operator.templates.CreateTemplate(templates.CreateTemplateRequest(template=theirs))
    calls = (
        inside.templates.GetTemplate(templates.GetTemplateRequest(key="login")),
        inside.notifications.Send(letter(text=None, template_key="login")),
        inside.notifications.GetStatus(notifications.GetStatusRequest(tracking_id=sent.tracking_id)),
        inside.notifications.GetStatus(notifications.GetStatusRequest(request_id="mine")),
        inside.notifications.Cancel(notifications.CancelRequest(tracking_id=sent.tracking_id)),
        inside.notifications.WatchStatus(notifications.WatchStatusRequest(tracking_id=sent.tracking_id)),
        inside.routing.DeleteRoutingRules(routing.DeleteRoutingRulesRequest(names=["none"])),
        inside.providers.GetProvider(providers.GetProviderRequest(name="kavenegar")),
    )
    for call in calls:
        refusal = await refused(call)
        assert (refusal.code, refusal.reason) == (StatusCode.NOT_FOUND, "RESOURCE_NOT_FOUND")
    assert not (await inside.notifications.ListNotifications(notifications.ListNotificationsRequest())).notifications
