"""The schema. A declaration is no I/O: only `store` opens sessions.

The configuration tables are also the shape in which configuration travels; on the message path rows are written from
and read into the frozen nouns of `messages`. Times are microseconds UTC, ids are UUIDv7 text made in Python, words are
text, JSON is text. Whatever names a person or a secret is sealed (bytes).
"""

import re
from collections.abc import Sequence

from sqlalchemy import BigInteger, CheckConstraint, Column, Index, Integer, LargeBinary, MetaData, text
from sqlalchemy.orm import declared_attr
from sqlmodel import Field, SQLModel

from server.model.clock import Micros
from server.model.enums import DueKind, State, Stop

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}
SQLModel.metadata.naming_convention = NAMING
METADATA: MetaData = SQLModel.metadata


class Table(SQLModel):
    """A table is named after its class in the singular, without `Row`: the frozen nouns have the plain names."""

    @declared_attr.directive
    def __tablename__(cls) -> str:  # noqa: N805  # pyright: ignore[reportIncompatibleVariableOverride] - SQLModel's own type is narrower than its use
        return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", cls.__name__.removesuffix("Row")).lower()


def _one_of(column: str, words: Sequence[str]) -> CheckConstraint:
    return CheckConstraint(f"{column} IN ({', '.join(repr(str(word)) for word in words)})", name=column)


def _at() -> Micros:
    return Field(default=0, sa_type=BigInteger, nullable=False)


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
    created_at: Micros = _at()
    updated_at: Micros = _at()


class TenantKey(Table, table=True):
    """A tenant's own key, wrapped by the master key."""

    tenant_id: str = Field(primary_key=True)
    key_id: str = Field(primary_key=True)
    wrapped: bytes = Field(sa_type=LargeBinary)
    created_at: Micros = _at()


class ClientAccount(Table, table=True):
    """A calling service. Its keys rotate, it stays."""

    tenant_id: str = Field(primary_key=True)
    client_id: str = Field(primary_key=True)
    caption: str = ""
    is_active: bool = True
    created_at: Micros = _at()


class ApiKey(Table, table=True):
    """A key of a client: SHA-256 of its secret, never the secret. `scopes` is a JSON list."""

    key_id: str = Field(primary_key=True)
    tenant_id: str = Field(index=True)
    client_id: str
    caption: str = ""
    prefix: str
    digest: bytes = Field(sa_type=LargeBinary)
    scopes: str = "[]"
    created_at: Micros = _at()
    expires_at: Micros = _at()
    revoked_at: Micros = _at()
    last_used_at: Micros = _at()


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
    timeout_micros: Micros = _at()
    settings: str = "{}"
    resources: str = "[]"
    secrets: bytes = Field(default=b"", sa_type=LargeBinary)
    secret_marks: str = "{}"  # noqa: S105 - what may be shown of secrets
    revision: int = 1
    created_at: Micros = _at()
    updated_at: Micros = _at()


class RoutingRule(Table, table=True):
    """A routing rule. `intents` is a JSON list, `steps` a JSON list of {channel, providers, fallback}."""

    tenant_id: str = Field(primary_key=True)
    name: str = Field(primary_key=True)
    caption: str = ""
    intents: str = "[]"
    steps: str = "[]"
    is_active: bool = True
    priority: int = 0
    created_at: Micros = _at()
    updated_at: Micros = _at()


class RuleSet(Table, table=True):
    """The revision of a tenant's rules, raised by every change of them."""

    tenant_id: str = Field(primary_key=True)
    revision: int = 0


class ConfigVersion(Table, table=True):
    """One row: raised by every configuring transaction, so that replicas know when to read again."""

    id: int = Field(primary_key=True)
    version: int = Field(sa_type=BigInteger)


class Log(Table, table=True):
    """One row: the epoch of the event log, on Postgres the identity of the cluster that wrote it, and where it begins.

    `pruned_…` is the greatest place among the events that retention removed.
    """

    id: int = Field(primary_key=True)
    log_epoch: int = Field(sa_type=BigInteger)
    system: str = ""
    pruned_epoch: int = Field(default=0, sa_type=BigInteger)
    pruned_xid: int = Field(default=0, sa_type=BigInteger)
    pruned_id: int = Field(default=0, sa_type=BigInteger)


class MessageRow(Table, table=True):
    """A message. `body` and `recipient` are sealed, the indexes are keyed hashes, `failure` and `tags` are JSON.

    `erased`: retention has emptied `body` and `recipient`.
    """

    __table_args__ = (
        _one_of("state", list(State)),
        CheckConstraint(f"stop IS NULL OR stop IN ({', '.join(repr(str(s)) for s in Stop)})", name="stop"),
        Index("ix_message_tenant", "tenant_id", "id"),
        Index("ix_message_phone", "tenant_id", "phone_index", "id", postgresql_where=text("phone_index <> ''")),
        Index("ix_message_reference", "tenant_id", "reference", "id", postgresql_where=text("reference <> ''")),
        Index("ix_message_done", "done_at", postgresql_where=text("done_at > 0"), sqlite_where=text("done_at > 0")),
        Index(
            "ix_message_unerased",
            "done_at",
            postgresql_where=text("done_at > 0 AND NOT erased"),
            sqlite_where=text("done_at > 0 AND NOT erased"),
        ),
    )

    id: str = Field(primary_key=True)
    tenant_id: str
    client_id: str
    request_id: str = ""
    kind: str
    intent: str
    message_class: str
    state: str
    status: str
    done: bool = False
    stop: str | None = None
    failure: str = ""
    last_seq: int = 1
    attempt_count: int = 0
    rule: str = ""
    reference: str = ""
    tags: str = "[]"
    on_unconfirmed: str
    channel_wanted: str = ""
    channel: str = ""
    provider: str = ""
    recipient_hint: str = ""
    phone_index: str = ""
    email_index: str = ""
    user_index: str = ""
    segments: int = 0
    schedule_at: Micros = _at()
    created_at: Micros = _at()
    updated_at: Micros = _at()
    expires_at: Micros = _at()
    done_at: Micros = _at()
    body: bytes = Field(default=b"", sa_type=LargeBinary)
    recipient: bytes = Field(default=b"", sa_type=LargeBinary)
    erased: bool = False


class MessageTag(Table, table=True):
    """The tags of a message, for filters."""

    __table_args__ = (Index("ix_message_tag_tag", "tenant_id", "tag", "message_id"),)

    message_id: str = Field(primary_key=True)
    tag: str = Field(primary_key=True)
    tenant_id: str


class DueRow(Table, table=True):
    """What is to be done with a message next, and who is at it."""

    __table_args__ = (
        _one_of("kind", list(DueKind)),
        Index(
            "ix_due_ready",
            "message_class",
            "kind",
            "tenant_id",
            "due_at",
            postgresql_where=text("worker = ''"),
            sqlite_where=text("worker = ''"),
        ),
        Index(
            "ix_due_alone",
            "message_class",
            "kind",
            "due_at",
            postgresql_where=text("worker = '' AND claims >= 2"),
            sqlite_where=text("worker = '' AND claims >= 2"),
        ),
        Index("ix_due_held", "worker", postgresql_where=text("worker <> ''"), sqlite_where=text("worker <> ''")),
        {"postgresql_with": {"fillfactor": "70", "autovacuum_vacuum_scale_factor": "0.01"}},
    )

    message_id: str = Field(primary_key=True)
    tenant_id: str
    message_class: str
    kind: str
    due_at: Micros = _at()
    worker: str = ""
    epoch: int = 0
    claims: int = 0


class AttemptRow(Table, table=True):
    """One hand-off to one destination. `follow`, `behind` and `failure` are JSON."""

    __table_args__ = (Index("ix_attempt_provider", "account_uid", "provider_message_id"),)

    message_id: str = Field(primary_key=True)
    number: int = Field(primary_key=True, sa_type=Integer)
    step: int = 0
    channel: str
    account: str
    account_uid: str
    destination: int = 0
    epoch: int = 0
    provider_key: int = Field(sa_type=BigInteger)
    started_at: Micros = _at()
    deadline: Micros = _at()
    follow: str = "{}"
    behind: str = "{}"
    outcome: str = ""
    refusal: str = ""
    fault: str = ""
    failure: str = ""
    receipt: str = ""
    provider_message_id: str = ""
    ended_at: Micros = _at()
    receipt_at: Micros = _at()
    retry_at: Micros = _at()
    segments: int = 0
    given_up: bool = False


class EventRow(Table, table=True):
    """The status log. `id` orders it on SQLite, (`log_epoch`, `xid`, `id`) on Postgres; `xid` is 0 on SQLite.

    `phone_index` and `created_at` are there for filters.
    """

    __table_args__ = (
        Index("uq_event_message_seq", "message_id", "seq", unique=True),
        Index("ix_event_log", "log_epoch", "xid", "id"),
        Index("ix_event_tenant", "tenant_id", "log_epoch", "xid", "id"),
        {"sqlite_autoincrement": True},
    )

    id: int | None = Field(
        default=None,
        sa_column=Column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    )
    log_epoch: int = Field(sa_type=BigInteger)
    xid: int = Field(default=0, sa_type=BigInteger)
    message_id: str
    seq: int
    kind: str
    at: Micros = _at()
    state: str
    status: str
    done: bool
    moved: bool
    tenant_id: str
    client_id: str
    intent: str
    message_class: str
    channel: str = ""
    provider: str = ""
    attempt: int = 0
    outcome: str = ""
    failure: str = ""
    reference: str = ""
    tags: str = "[]"
    phone_index: str = ""
    created_at: Micros = _at()


class Idempotency(Table, table=True):
    """One key, one message: kept for seven days."""

    __table_args__ = (Index("ix_idempotency_created", "created_at"),)

    tenant_id: str = Field(primary_key=True)
    client_id: str = Field(primary_key=True)
    kind: str = Field(primary_key=True)
    request_id: str = Field(primary_key=True)
    message_id: str
    fingerprint: bytes = Field(sa_type=LargeBinary)
    created_at: Micros = _at()


class Worker(Table, table=True):
    """A process that dispatches. `beat` is a counter; no clocks are compared."""

    boot_id: str = Field(primary_key=True)
    beat: int = Field(default=0, sa_type=BigInteger)
    started_at: Micros = _at()


class SandboxMessage(Table, table=True):
    """What a SANDBOX tenant's message looked like when it was handed off; `content` is sealed JSON."""

    __table_args__ = (Index("ix_sandbox_message_tenant", "tenant_id", "created_at"),)

    message_id: str = Field(primary_key=True)
    attempt: int = Field(primary_key=True, sa_type=Integer)
    tenant_id: str
    channel: str
    provider: str
    address_index: str = ""
    content: bytes = Field(sa_type=LargeBinary)
    created_at: Micros = _at()
