"""Configuration as the message path sees it, and the changes that callers may make to it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from server.model.accounts import Account
from server.model.clock import Micros
from server.model.enums import Mode, Scope
from server.model.routing import Rule
from server.model.templates import Template


@dataclass(frozen=True, slots=True)
class TenantSettings:
    """What the message path needs of a tenant."""

    tenant_id: str
    mode: Mode
    is_active: bool
    default_region: str = ""
    default_locale: str = ""
    allowed_countries: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Credential:
    """An API key as calls are checked against it. `client_active` is its client's."""

    key_id: str
    tenant_id: str
    client_id: str
    digest: bytes = field(repr=False)
    scopes: frozenset[Scope]
    expires_at: Micros
    revoked_at: Micros
    client_active: bool


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All configuration at one version; never changed, only replaced."""

    version: int = 0
    tenants: Mapping[str, TenantSettings] = field(default_factory=dict[str, TenantSettings])
    credentials: Mapping[str, Credential] = field(default_factory=dict[str, Credential])
    accounts: Mapping[str, tuple[Account, ...]] = field(default_factory=dict[str, tuple[Account, ...]])
    rules: Mapping[str, tuple[Rule, ...]] = field(default_factory=dict[str, tuple[Rule, ...]])
    revisions: Mapping[str, str] = field(default_factory=dict[str, str])
    """Of each tenant's rules."""
    templates: Mapping[str, Mapping[str, Template]] = field(default_factory=dict[str, Mapping[str, Template]])
    """Of each tenant, by key, at their latest revision; inactive ones too, deleted ones not."""


@dataclass(frozen=True, slots=True)
class TenantChange:
    """None: kept. `clear` names fields that go back to their default."""

    caption: str | None = None
    mode: Mode | None = None
    is_active: bool | None = None
    default_region: str | None = None
    default_locale: str | None = None
    time_zone: str | None = None
    allowed_countries: tuple[str, ...] | None = None
    clear: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class ProviderChange:
    """None: kept. Settings and secrets are merged by key; a `clear` entry `settings.NAME` removes one."""

    type: str | None = None
    caption: str | None = None
    is_active: bool | None = None
    priority: int | None = None
    base_url: str | None = None
    timeout_micros: Micros | None = None
    settings: Mapping[str, str] = field(default_factory=dict[str, str])
    secrets: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    resources: str | None = None
    clear: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class NewApiKey:
    """A key about to be kept: the digest of its secret, never the secret."""

    key_id: str
    tenant_id: str
    client_id: str
    caption: str
    prefix: str
    digest: bytes = field(repr=False)
    scopes: tuple[Scope, ...]
    expires_at: Micros
