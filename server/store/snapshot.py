"""All configuration, read at one version."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import TypeVar

import structlog
from sqlalchemy import Connection, Label, RowMapping, and_, label, or_, select
from sqlmodel import col

from server.model.accounts import Account, ProviderType
from server.model.clock import Micros
from server.model.configuration import Credential, Snapshot, TenantSettings
from server.model.configuration_tables import (
    ApiKey,
    ClientAccount,
    ConfigVersion,
    ProviderAccount,
    RoutingRule,
    RuleSet,
    Tenant,
)
from server.model.enums import Mode, Scope
from server.model.templates import Template
from server.store.accounts import account_of, open_secrets
from server.store.keys import TenantKeys
from server.store.rules import rule_of
from server.store.templates import read_templates
from server.vault.vault import Unopenable

_SCOPES = {str(scope): scope for scope in Scope}

_log = structlog.get_logger("store")


def read_version(connection: Connection) -> int:
    """The version that the configuration is at."""
    return connection.execute(select(col(ConfigVersion.version))).scalar_one_or_none() or 0


def read_snapshot(connection: Connection, keys: TenantKeys, types: Mapping[str, ProviderType], now: Micros) -> Snapshot:
    """The whole configuration, with secrets opened; of the API keys those that are in force at `now`.

    Rows that do not open are left out of use, and logged.
    """
    keys.load(connection)
    tenants = {row["tenant_id"]: _tenant(row) for row in connection.execute(_TENANTS).mappings()}
    return Snapshot(
        version=read_version(connection),
        tenants=MappingProxyType(tenants),
        credentials=MappingProxyType({row["key_id"]: _credential(row) for row in _live_keys(connection, now)}),
        accounts=_grouped((row.tenant_id, _account(row, keys, types)) for row in _accounts(connection)),
        rules=_grouped((row.tenant_id, rule_of(row)) for row in _rules(connection)),
        revisions=MappingProxyType(dict.fromkeys(tenants, "0") | _revisions(connection)),
        templates=_by_key(read_templates(connection)),
    )


def read_credential(connection: Connection, key_id: str) -> Credential | None:
    """The key of this id, whosever it is: it tells the tenant."""
    row = connection.execute(_KEYS.where(col(ApiKey.key_id) == key_id)).mappings().one_or_none()
    return _credential(row) if row is not None else None


_TENANTS = select(Tenant)
_OF_CLIENT = and_(
    col(ClientAccount.tenant_id) == col(ApiKey.tenant_id), col(ClientAccount.client_id) == col(ApiKey.client_id)
)
_CLIENT_ACTIVE: Label[bool] = label("client_active", col(ClientAccount.is_active))
_KEYS = select(ApiKey, _CLIENT_ACTIVE).join(ClientAccount, _OF_CLIENT)

_Noun = TypeVar("_Noun")


def _live_keys(connection: Connection, now: Micros) -> Iterable[RowMapping]:
    unexpired = or_(col(ApiKey.expires_at) == 0, col(ApiKey.expires_at) > now)
    return connection.execute(_KEYS.where(col(ApiKey.revoked_at) == 0, unexpired)).mappings()


def _accounts(connection: Connection) -> list[ProviderAccount]:
    return [ProviderAccount(**row) for row in connection.execute(select(ProviderAccount)).mappings()]


def _rules(connection: Connection) -> list[RoutingRule]:
    return [RoutingRule(**row) for row in connection.execute(select(RoutingRule)).mappings()]


def _revisions(connection: Connection) -> dict[str, str]:
    """Of the tenants that ever had rules."""
    rows = connection.execute(select(col(RuleSet.tenant_id), col(RuleSet.revision)))
    return {tenant_id: str(revision) for tenant_id, revision in rows}


def _by_key(templates: Iterable[tuple[str, Template]]) -> Mapping[str, Mapping[str, Template]]:
    by_tenant: defaultdict[str, dict[str, Template]] = defaultdict(dict)
    for tenant_id, template in templates:
        by_tenant[tenant_id][template.key] = template
    return MappingProxyType({tenant_id: MappingProxyType(found) for tenant_id, found in by_tenant.items()})


def _grouped(nouns: Iterable[tuple[str, _Noun]]) -> Mapping[str, tuple[_Noun, ...]]:
    by_tenant: defaultdict[str, list[_Noun]] = defaultdict(list)
    for tenant_id, noun in nouns:
        by_tenant[tenant_id].append(noun)
    return MappingProxyType({tenant_id: tuple(found) for tenant_id, found in by_tenant.items()})


def _tenant(row: RowMapping) -> TenantSettings:
    return TenantSettings(
        tenant_id=row["tenant_id"],
        mode=Mode(row["mode"]),
        is_active=row["is_active"],
        default_region=row["default_region"],
        default_locale=row["default_locale"],
        allowed_countries=frozenset(json.loads(row["allowed_countries"])),
    )


def _credential(row: RowMapping) -> Credential:
    return Credential(
        key_id=row["key_id"],
        tenant_id=row["tenant_id"],
        client_id=row["client_id"],
        digest=row["digest"],
        # A scope of a newer release is none of ours.
        scopes=frozenset(_SCOPES[name] for name in json.loads(row["scopes"]) if name in _SCOPES),
        expires_at=row["expires_at"],
        revoked_at=row["revoked_at"],
        client_active=row["client_active"],
    )


def _account(row: ProviderAccount, keys: TenantKeys, types: Mapping[str, ProviderType]) -> Account:
    kind = types.get(row.type)
    try:
        return account_of(row, open_secrets(keys.known(row.tenant_id), row), kind)
    except Unopenable:
        _log.error("the secrets of a provider account do not open", tenant_id=row.tenant_id, account=row.uid)
        return replace(account_of(row, {}, kind), configured=False)
