"""AccessService, by real stubs, on both engines."""

import pytest
from angarium.v1 import access_service_pb2 as wire, notification_service_pb2 as notifications
from grpc import StatusCode

from server.model.errors import NotFound
from tests.api.edge import Edge, letter, refused, soon


async def test_a_key_tells_who_it_is(edge: Edge) -> None:
    """Tenant, client, key without its secret, version and limits."""
    told = await edge.operator.access.WhoAmI(wire.WhoAmIRequest())
    assert (told.tenant.tenant_id, told.client.client_id) == ("default", "operator")
    assert told.tenant.mode == wire.Tenant.MODE_SANDBOX
    assert edge.secret.startswith(told.api_key.prefix)
    assert edge.secret.encode() not in told.SerializeToString()
    assert told.server_version
    assert told.limits["text_characters_max"] == "1600"
    assert told.limits["watch_streams_per_client_max"] == "500"


async def test_a_key_is_told_of_itself_among_others(edge: Edge) -> None:
    """Whoever has several keys is told of the one that the call bears; another tenant's key does not exist."""
    operator = edge.operator.access
    for _ in range(3):
        caller = await edge.key("read")
        told = (await caller.access.WhoAmI(wire.WhoAmIRequest())).api_key
        newest = (await operator.ListApiKeys(wire.ListApiKeysRequest(client_id="shop", page_size=1))).api_keys[0]
        assert told.key_id == newest.key_id
    assert (await edge.store.access.api_key("default", told.key_id)).client_id == "shop"
    with pytest.raises(NotFound):
        await edge.store.access.api_key("mall", told.key_id)


async def test_every_key_may_ask_who_it_is(edge: Edge) -> None:
    """WhoAmI needs no scope; ListTenants shows a key without the override its own tenant alone."""
    await edge.tenant("mall")
    inside = await edge.key("access", tenant_id="mall")
    told = await inside.access.WhoAmI(wire.WhoAmIRequest())
    assert (told.tenant.tenant_id, list(told.api_key.scopes)) == ("mall", ["access"])
    seen = await inside.access.ListTenants(wire.ListTenantsRequest())
    assert [tenant.tenant_id for tenant in seen.tenants] == ["mall"]
    assert not (await inside.access.ListTenants(wire.ListTenantsRequest(is_active=False))).tenants


async def test_tenants_are_made_once_and_changed_by_presence(edge: Edge) -> None:
    """The same again answers the same; another content is refused; what is absent is kept."""
    operator = edge.operator.access
    asked = wire.CreateTenantRequest(tenant_id="mall", caption="Mall", default_region="DE", allowed_countries=["DE"])
    made, again = [await operator.CreateTenant(asked) for _ in range(2)]
    assert (made.created, again.created, made.tenant == again.tenant) == (True, False, True)
    assert made.tenant.mode == wire.Tenant.MODE_LIVE
    taken = await refused(operator.CreateTenant(wire.CreateTenantRequest(tenant_id="mall", caption="Other")))
    assert (taken.code, taken.reason) == (StatusCode.ALREADY_EXISTS, "RESOURCE_EXISTS")
    changed = await operator.UpdateTenant(
        wire.UpdateTenantRequest(tenant_id="mall", time_zone="Asia/Tehran", clear=["allowed_countries"])
    )
    assert (changed.tenant.caption, changed.tenant.default_region) == ("Mall", "DE")
    assert (changed.tenant.time_zone, list(changed.tenant.allowed_countries)) == ("Asia/Tehran", [])
    late = wire.UpdateTenantRequest(tenant_id="mall", caption="Late", etag=made.tenant.etag)
    assert (await refused(operator.UpdateTenant(late))).reason == "ETAG_MISMATCH"
    listed = await operator.ListTenants(wire.ListTenantsRequest(page_size=1))
    rest = await operator.ListTenants(wire.ListTenantsRequest(page_size=1, page_token=listed.next_page_token))
    assert [t.tenant_id for t in (*listed.tenants, *rest.tenants)] == ["default", "mall"]
    assert not rest.next_page_token


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"tenant_id": ""}, "tenant_id"),
        ({"tenant_id": "a b"}, "tenant_id"),
        ({"mode": 99}, "mode"),
        ({"default_region": "XX"}, "default_region"),
        ({"default_region": "ir"}, "default_region"),
        ({"default_locale": "fa__IR"}, "default_locale"),
        ({"time_zone": "Mars/Phobos"}, "time_zone"),
        ({"allowed_countries": ["IR", "Iran"]}, "allowed_countries[1]"),
        ({"caption": "a\nb"}, "caption"),
    ],
)
async def test_tenants_that_cannot_be(sqlite_edge: Edge, fields: dict[str, object], field: str) -> None:
    """A tenant with a bad field is INVALID_ARGUMENT with that field."""
    asked = wire.CreateTenantRequest(**{"tenant_id": "mall", **fields})
    refusal = await refused(sqlite_edge.operator.access.CreateTenant(asked))
    assert (refusal.code, refusal.fields) == (StatusCode.INVALID_ARGUMENT, (field,))


async def test_a_key_works_until_it_is_revoked(edge: Edge) -> None:
    """A key calls as its client; revoked it is refused at once, and revoking it again answers the same."""
    operator = edge.operator.access
    caller = await edge.key("send", "read", client_id="shop")
    sent = await caller.notifications.Send(letter())
    asked = notifications.GetStatusRequest(tracking_id=sent.tracking_id)
    assert (await caller.notifications.GetStatus(asked)).notification.client_id == "shop"
    keys = (await operator.ListApiKeys(wire.ListApiKeysRequest(client_id="shop"))).api_keys
    assert [list(key.scopes) for key in keys] == [["send", "read"]]
    first, again = [await operator.RevokeApiKey(wire.RevokeApiKeyRequest(key_id=keys[0].key_id)) for _ in range(2)]
    assert first == again
    assert first.api_key.HasField("revoke_time")
    assert (await refused(caller.notifications.Send(letter()))).reason == "CREDENTIALS_INVALID"


async def test_nobody_gives_what_it_has_not(edge: Edge) -> None:
    """A key makes keys of its own scopes alone, for clients that there are, with an end that is ahead."""
    await edge.operator.access.CreateClient(wire.CreateClientRequest(client_id="shop"))
    maker = await edge.key("access", "send")
    more = wire.CreateApiKeyRequest(client_id="shop", scopes=["send", "tenant.override"])
    refusal = await refused(maker.access.CreateApiKey(more))
    assert (refusal.code, refusal.told) == (StatusCode.PERMISSION_DENIED, {"scope": "tenant.override"})
    bad = wire.CreateApiKeyRequest(client_id="shop", scopes=["fly"])
    assert (await refused(maker.access.CreateApiKey(bad))).fields == ("scopes",)
    ended = wire.CreateApiKeyRequest(client_id="shop", scopes=["send"], expire_time=soon(-5))
    assert (await refused(maker.access.CreateApiKey(ended))).fields == ("expire_time",)
    nobody = wire.CreateApiKeyRequest(client_id="nobody", scopes=["send"])
    assert (await refused(maker.access.CreateApiKey(nobody))).told == {"resource": "client"}


async def test_clients_and_keys_are_listed_in_pages(edge: Edge) -> None:
    """Clients by id, keys the newest first, each once."""
    operator = edge.operator.access
    for name in ("c", "a", "b"):
        await operator.CreateClient(wire.CreateClientRequest(client_id=name, caption=name))
        await operator.CreateApiKey(wire.CreateApiKeyRequest(client_id=name, scopes=["send"]))
    again = await operator.CreateClient(wire.CreateClientRequest(client_id="a", caption="a"))
    assert not again.created
    clients: list[str] = []
    asked = wire.ListClientsRequest(page_size=3)
    while not clients or asked.page_token:
        page = await operator.ListClients(asked)
        clients += [client.client_id for client in page.clients]
        asked.page_token = page.next_page_token
    assert clients == ["a", "b", "c", "operator"]
    keys: list[str] = []
    wanted = wire.ListApiKeysRequest(page_size=1)
    while not keys or wanted.page_token:
        found = await operator.ListApiKeys(wanted)
        keys += [key.client_id for key in found.api_keys]
        wanted.page_token = found.next_page_token
    assert keys == ["b", "a", "c", "operator"]
