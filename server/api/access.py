"""AccessService: who calls, and who may."""

import time
from importlib.metadata import version

from angarium.v1 import access_service_pb2 as wire
from angarium.v1.access_service_pb2_grpc import AccessServiceServicer

from server.api.caller import current_call
from server.api.convert import access as convert
from server.api.convert.checks import CAPTION_CHARS_MAX, ID_CHARS_MAX, Checks
from server.api.limits import LIMITS
from server.api.pages import listing_of
from server.api.tokens import page_token, read_page_token
from server.model.enums import Scope
from server.store.store import Store
from server.vault import api_keys

SERVER_VERSION = version("angarium")


class Access(AccessServiceServicer):
    """Keys are shown whole once, by CreateApiKey."""

    def __init__(self, store: Store) -> None:
        self._access = store.access

    async def WhoAmI(self, request: wire.WhoAmIRequest, context: object) -> wire.WhoAmIResponse:
        caller = current_call().caller
        return wire.WhoAmIResponse(
            tenant=convert.tenant(await self._access.tenant(caller.tenant_id)),
            client=convert.client(await self._access.client(caller.tenant_id, caller.client_id)),
            api_key=convert.api_key(await self._access.api_key(caller.tenant_id, caller.key_id)),
            server_version=SERVER_VERSION,
            limits=LIMITS,
        )

    async def CreateTenant(self, request: wire.CreateTenantRequest, context: object) -> wire.CreateTenantResponse:
        row, created = await self._access.create_tenant(convert.new_tenant(request))
        return wire.CreateTenantResponse(tenant=convert.tenant(row), created=created)

    async def ListTenants(self, request: wire.ListTenantsRequest, context: object) -> wire.ListTenantsResponse:
        call = current_call()
        size, listing = _page_size(request.page_size), listing_of("ListTenants", request)
        after = read_page_token(call.vault, listing, request.page_token)
        is_active = request.is_active if request.HasField("is_active") else None
        if Scope.TENANT_OVERRIDE in call.caller.scopes:
            rows = await self._access.list_tenants(is_active=is_active, after=after[0] if after else "", limit=size + 1)
        else:
            own = await self._access.tenant(call.tenant_id)
            rows = [] if is_active is False else [own]
        token = page_token(call.vault, listing, [rows[size - 1].tenant_id]) if len(rows) > size else ""
        return wire.ListTenantsResponse(tenants=map(convert.tenant, rows[:size]), next_page_token=token)

    async def UpdateTenant(self, request: wire.UpdateTenantRequest, context: object) -> wire.UpdateTenantResponse:
        change = convert.tenant_change(request)
        row = await self._access.update_tenant(current_call().tenant_id, change, request.etag)
        return wire.UpdateTenantResponse(tenant=convert.tenant(row))

    async def CreateClient(self, request: wire.CreateClientRequest, context: object) -> wire.CreateClientResponse:
        row, created = await self._access.create_client(convert.new_client(request, current_call().tenant_id))
        return wire.CreateClientResponse(client=convert.client(row), created=created)

    async def ListClients(self, request: wire.ListClientsRequest, context: object) -> wire.ListClientsResponse:
        call = current_call()
        size, listing = _page_size(request.page_size), listing_of("ListClients", request)
        after = read_page_token(call.vault, listing, request.page_token)
        is_active = request.is_active if request.HasField("is_active") else None
        rows = await self._access.list_clients(
            call.tenant_id, is_active=is_active, after=after[0] if after else "", limit=size + 1
        )
        token = page_token(call.vault, listing, [rows[size - 1].client_id]) if len(rows) > size else ""
        return wire.ListClientsResponse(clients=map(convert.client, rows[:size]), next_page_token=token)

    async def UpdateClient(self, request: wire.UpdateClientRequest, context: object) -> wire.UpdateClientResponse:
        checks = Checks()
        checks.line("client_id", request.client_id, ID_CHARS_MAX, required=True)
        checks.line("caption", request.caption, CAPTION_CHARS_MAX)
        checks.settle()
        row = await self._access.update_client(
            current_call().tenant_id,
            request.client_id,
            caption=request.caption if request.HasField("caption") else None,
            is_active=request.is_active if request.HasField("is_active") else None,
        )
        return wire.UpdateClientResponse(client=convert.client(row))

    async def CreateApiKey(self, request: wire.CreateApiKeyRequest, context: object) -> wire.CreateApiKeyResponse:
        call, minted = current_call(), api_keys.mint()
        key = convert.new_key(request, call.tenant_id, call.caller, minted, time.time_ns() // 1000)
        row = await self._access.create_api_key(key)
        return wire.CreateApiKeyResponse(api_key=convert.api_key(row), secret=minted.secret)

    async def ListApiKeys(self, request: wire.ListApiKeysRequest, context: object) -> wire.ListApiKeysResponse:
        call = current_call()
        checks = Checks()
        size = checks.page_size(request.page_size)
        checks.line("client_id", request.client_id, ID_CHARS_MAX)
        checks.settle()
        listing = listing_of("ListApiKeys", request)
        after = read_page_token(call.vault, listing, request.page_token)
        rows = await self._access.newest_api_keys(
            call.tenant_id,
            request.client_id,
            before=(int(after[0]), after[1]) if after else None,
            limit=size + 1,
        )
        shown = rows[:size]
        last = [str(shown[-1].created_at), shown[-1].key_id] if len(rows) > size else []
        token = page_token(call.vault, listing, last) if last else ""
        return wire.ListApiKeysResponse(api_keys=map(convert.api_key, shown), next_page_token=token)

    async def RevokeApiKey(self, request: wire.RevokeApiKeyRequest, context: object) -> wire.RevokeApiKeyResponse:
        checks = Checks()
        checks.line("key_id", request.key_id, ID_CHARS_MAX, required=True)
        checks.settle()
        row = await self._access.revoke_api_key(current_call().tenant_id, request.key_id)
        return wire.RevokeApiKeyResponse(api_key=convert.api_key(row))


def _page_size(asked: int) -> int:
    checks = Checks()
    size = checks.page_size(asked)
    checks.settle()
    return size
