"""Tenants, client accounts and keys: checked, turned into rows, and shown again."""

import json
import zoneinfo
from functools import cache

from angarium.v1 import access_service_pb2 as wire

from server.api.caller import Caller
from server.api.convert.checks import CAPTION_CHARS_MAX, ID_CHARS_MAX, Checks
from server.api.convert.times import timestamp
from server.api.convert.words import MODES
from server.model.clock import Micros
from server.model.configuration import NewApiKey, TenantChange
from server.model.configuration_tables import ApiKey, ClientAccount, Tenant
from server.model.countries import is_country
from server.model.enums import Mode, Scope
from server.vault.api_keys import Minted

COUNTRIES_MAX = 250
TENANT_CLEARABLE = frozenset({"caption", "default_region", "default_locale", "time_zone", "allowed_countries"})


def new_tenant(request: wire.CreateTenantRequest) -> Tenant:
    """The tenant that a request makes. Raises Invalid with every bad field."""
    checks = Checks()
    checks.identity("tenant_id", request.tenant_id)
    checks.line("caption", request.caption, CAPTION_CHARS_MAX)
    mode = checks.word("mode", MODES, request.mode) or Mode.LIVE
    default_locale = checks.locale("default_locale", request.default_locale)
    _check_defaults(checks, request)
    checks.settle()
    return Tenant(
        tenant_id=request.tenant_id,
        caption=request.caption,
        mode=mode,
        default_region=request.default_region,
        default_locale=default_locale,
        time_zone=request.time_zone,
        allowed_countries=json.dumps(sorted(set(request.allowed_countries))),
    )


def tenant_change(request: wire.UpdateTenantRequest) -> TenantChange:
    """What a request changes of a tenant. Raises Invalid with every bad field."""
    checks = Checks()
    checks.line("etag", request.etag, ID_CHARS_MAX)
    checks.line("caption", request.caption, CAPTION_CHARS_MAX)
    mode = checks.word("mode", MODES, request.mode)
    default_locale = checks.locale("default_locale", request.default_locale)
    _check_defaults(checks, request)
    checks.count("clear", request.clear, len(TENANT_CLEARABLE))
    if not TENANT_CLEARABLE.issuperset(request.clear):
        checks.fail("clear", f"can hold {', '.join(sorted(TENANT_CLEARABLE))}")
    checks.settle()
    return TenantChange(
        caption=request.caption if request.HasField("caption") else None,
        mode=mode,
        is_active=request.is_active if request.HasField("is_active") else None,
        default_region=request.default_region if request.HasField("default_region") else None,
        default_locale=default_locale if request.HasField("default_locale") else None,
        time_zone=request.time_zone if request.HasField("time_zone") else None,
        allowed_countries=tuple(sorted(set(request.allowed_countries))) or None,
        clear=frozenset(request.clear),
    )


def _check_defaults(checks: Checks, request: wire.CreateTenantRequest | wire.UpdateTenantRequest) -> None:
    if request.default_region and not is_country(request.default_region):
        checks.fail("default_region", "is no country's two letters such as IR")
    if request.time_zone and request.time_zone not in _time_zones():
        checks.fail("time_zone", "is no IANA time zone such as Asia/Tehran")
    if checks.count("allowed_countries", request.allowed_countries, COUNTRIES_MAX):
        for number, country in enumerate(request.allowed_countries):
            if not is_country(country):
                checks.fail(f"allowed_countries[{number}]", "is no country's two letters such as IR")


@cache
def _time_zones() -> frozenset[str]:
    return frozenset(zoneinfo.available_timezones())


def new_client(request: wire.CreateClientRequest, tenant_id: str) -> ClientAccount:
    """The client account that a request makes. Raises Invalid with every bad field."""
    checks = Checks()
    checks.identity("client_id", request.client_id)
    checks.line("caption", request.caption, CAPTION_CHARS_MAX)
    checks.settle()
    return ClientAccount(tenant_id=tenant_id, client_id=request.client_id, caption=request.caption)


def scopes_of(request: wire.CreateApiKeyRequest, caller: Caller) -> tuple[Scope, ...]:
    """The scopes that a new key shall have. Raises Invalid, and Forbidden for one that the calling key lacks."""
    checks = Checks()
    known = set(Scope)
    if not request.scopes:
        checks.fail("scopes", "is required")
    if any(scope not in known for scope in request.scopes):
        checks.fail("scopes", f"can hold {', '.join(Scope)}")
    checks.settle()
    scopes = tuple(scope for scope in Scope if scope in request.scopes)
    for scope in scopes:
        caller.require(scope)
    return scopes


def new_key(
    request: wire.CreateApiKeyRequest, tenant_id: str, caller: Caller, minted: Minted, now: Micros
) -> NewApiKey:
    """The key that a request makes. Raises Invalid with every bad field, Forbidden."""
    checks = Checks()
    checks.identity("client_id", request.client_id)
    checks.line("caption", request.caption, CAPTION_CHARS_MAX)
    expires_at = checks.time("expire_time", request.expire_time) if request.HasField("expire_time") else None
    if expires_at is not None and expires_at <= now:
        checks.fail("expire_time", "is not in the future")
    checks.settle()
    return NewApiKey(
        key_id=minted.key_id,
        tenant_id=tenant_id,
        client_id=request.client_id,
        caption=request.caption,
        prefix=minted.prefix,
        digest=minted.digest,
        scopes=scopes_of(request, caller),
        expires_at=expires_at or 0,
    )


def tenant(row: Tenant) -> wire.Tenant:
    """A tenant as it is shown."""
    return wire.Tenant(
        tenant_id=row.tenant_id,
        caption=row.caption,
        mode=MODES.number(Mode(row.mode)),
        is_active=row.is_active,
        default_region=row.default_region,
        default_locale=row.default_locale,
        time_zone=row.time_zone,
        allowed_countries=json.loads(row.allowed_countries),
        etag=str(row.revision),
        create_time=timestamp(row.created_at),
        update_time=timestamp(row.updated_at),
    )


def client(row: ClientAccount) -> wire.ClientAccount:
    """A client account as it is shown."""
    return wire.ClientAccount(
        client_id=row.client_id,
        tenant_id=row.tenant_id,
        caption=row.caption,
        is_active=row.is_active,
        create_time=timestamp(row.created_at),
    )


def api_key(row: ApiKey) -> wire.ApiKey:
    """A key as it is shown: never its secret."""
    return wire.ApiKey(
        key_id=row.key_id,
        client_id=row.client_id,
        tenant_id=row.tenant_id,
        prefix=row.prefix,
        scopes=json.loads(row.scopes),
        create_time=timestamp(row.created_at),
        expire_time=timestamp(row.expires_at),
        revoke_time=timestamp(row.revoked_at),
        last_used_time=timestamp(row.last_used_at),
        caption=row.caption,
    )
