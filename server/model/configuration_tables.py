"""The configuration tables, which are also the shape in which configuration travels."""

from sqlalchemy import BigInteger, LargeBinary
from sqlmodel import Field

from server.model.clock import Micros
from server.model.schema import Table, added, time_column


class Tenant(Table, table=True):
    """A tenant: a wall, a mode, and the defaults for what its callers leave out. `allowed_countries` is a JSON list."""

    tenant_id: str = Field(primary_key=True)
    caption: str = ""
    mode: str
    is_active: bool = True
    default_region: str = ""
    default_locale: str = ""
    time_zone: str = ""
    allowed_countries: str = "[]"
    revision: int = 1
    created_at: Micros = time_column()
    updated_at: Micros = time_column()


class TenantKey(Table, table=True):
    """A tenant's own key, wrapped by the master key."""

    tenant_id: str = Field(primary_key=True)
    key_id: str = Field(primary_key=True)
    wrapped: bytes = Field(sa_type=LargeBinary)
    created_at: Micros = time_column()


class ClientAccount(Table, table=True):
    """A calling service. Its keys rotate, it stays."""

    tenant_id: str = Field(primary_key=True)
    client_id: str = Field(primary_key=True)
    caption: str = ""
    is_active: bool = True
    created_at: Micros = time_column()


class ApiKey(Table, table=True):
    """A key of a client: SHA-256 of its secret, never the secret. `scopes` is a JSON list."""

    key_id: str = Field(primary_key=True)
    tenant_id: str = Field(index=True)
    client_id: str
    caption: str = ""
    prefix: str
    digest: bytes = Field(sa_type=LargeBinary)
    scopes: str = "[]"
    created_at: Micros = time_column()
    expires_at: Micros = time_column()
    revoked_at: Micros = time_column()
    last_used_at: Micros = time_column()


class ProviderAccount(Table, table=True):
    """A tenant's account with an upstream. `settings` and `resources` are JSON, `secrets` is sealed JSON.

    `secret_marks` is what may be shown of the secrets: JSON of name → last four, fingerprint, time, version.
    """

    tenant_id: str = Field(primary_key=True)
    name: str = Field(primary_key=True)
    uid: str = Field(unique=True)
    type: str
    client_id: str = ""
    caption: str = ""
    is_active: bool = True
    priority: int = 0
    base_url: str = ""
    timeout_micros: Micros = time_column()
    settings: str = "{}"
    resources: str = "[]"
    secrets: bytes = Field(default=b"", sa_type=LargeBinary)
    secret_marks: str = "{}"  # noqa: S105 - what may be shown of secrets
    revision: int = 1
    created_at: Micros = time_column()
    updated_at: Micros = time_column()


class RoutingRule(Table, table=True):
    """A routing rule. `intents` is a JSON list, `steps` and `match` are JSON as `store/rules.py` reads it."""

    tenant_id: str = Field(primary_key=True)
    name: str = Field(primary_key=True)
    caption: str = ""
    intents: str = "[]"
    steps: str = "[]"
    is_active: bool = True
    priority: int = 0
    match: str = Field(default="{}", sa_column_kwargs=added("'{}'"))
    created_at: Micros = time_column()
    updated_at: Micros = time_column()


class RuleSet(Table, table=True):
    """The revision of a tenant's rules, raised by every change of them."""

    tenant_id: str = Field(primary_key=True)
    revision: int = 0


class TemplateRow(Table, table=True):
    """A template, whose content is that of its latest revision.

    A deleted one stays, so that its revisions never begin anew and a message accepted beside the deletion has its text.
    """

    tenant_id: str = Field(primary_key=True)
    key: str = Field(primary_key=True)
    is_deleted: bool = False
    revision: int = 1
    created_at: Micros = time_column()
    updated_at: Micros = time_column()


class TemplateRevision(Table, table=True):
    """A template as it was at one revision, never changed: JSON of all that a caller may set."""

    tenant_id: str = Field(primary_key=True)
    key: str = Field(primary_key=True)
    revision: int = Field(primary_key=True)
    content: str
    created_at: Micros = time_column()


class ConfigVersion(Table, table=True):
    """One row: raised by every configuring transaction, so that replicas know when to read again."""

    id: int = Field(primary_key=True)
    version: int = Field(sa_type=BigInteger)
