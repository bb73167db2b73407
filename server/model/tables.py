"""The schema. A declaration is no I/O: only `store` opens sessions.

The configuration tables are also the shape in which configuration travels; on the message path rows are written from
and read into the frozen nouns of `messages`. Times are microseconds UTC, ids are UUIDv7 text made in Python, words are
text, JSON is text. Whatever names a person or a secret is sealed (bytes).
"""

from sqlalchemy import BigInteger, CheckConstraint, Column, Index, Integer, LargeBinary, text
from sqlmodel import Field

from server.model import configuration_tables
from server.model.clock import Micros
from server.model.enums import DueKind, State, Stop
from server.model.schema import METADATA, Table, added, one_of, time_column

__all__ = ["METADATA", "configuration_tables"]


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
        one_of("state", list(State)),
        CheckConstraint(f"stop IS NULL OR stop IN ({', '.join(repr(str(s)) for s in Stop)})", name="stop"),
        Index("ix_message_tenant", "tenant_id", "id"),
        Index("ix_message_phone", "tenant_id", "phone_index", "id", postgresql_where=text("phone_index <> ''")),
        Index(
            "ix_message_verification",
            "tenant_id",
            "verification_id",
            postgresql_where=text("verification_id <> ''"),
            sqlite_where=text("verification_id <> ''"),
        ),
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
    schedule_at: Micros = time_column()
    created_at: Micros = time_column()
    updated_at: Micros = time_column()
    expires_at: Micros = time_column()
    done_at: Micros = time_column()
    body: bytes = Field(default=b"", sa_type=LargeBinary)
    recipient: bytes = Field(default=b"", sa_type=LargeBinary)
    erased: bool = False
    scenario: str = Field(default="", sa_column_kwargs=added("''"))
    template_key: str = Field(default="", sa_column_kwargs=added("''"))
    template_revision: int = Field(default=0, sa_column_kwargs=added("0"))
    message_kind: str = Field(default="", sa_column_kwargs=added("''"))
    verification_id: str = Field(default="", sa_column_kwargs=added("''"))


class MessageTag(Table, table=True):
    """The tags of a message, for filters."""

    __table_args__ = (Index("ix_message_tag_tag", "tenant_id", "tag", "message_id"),)

    message_id: str = Field(primary_key=True)
    tag: str = Field(primary_key=True)
    tenant_id: str


class DueRow(Table, table=True):
    """What is to be done with a message next, and who is at it."""

    __table_args__ = (
        one_of("kind", list(DueKind)),
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
    due_at: Micros = time_column()
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
    started_at: Micros = time_column()
    deadline: Micros = time_column()
    follow: str = "{}"
    behind: str = "{}"
    outcome: str = ""
    refusal: str = ""
    fault: str = ""
    failure: str = ""
    receipt: str = ""
    provider_message_id: str = ""
    ended_at: Micros = time_column()
    receipt_at: Micros = time_column()
    retry_at: Micros = time_column()
    segments: int = 0
    given_up: bool = False
    patience: Micros = Field(default=0, sa_type=BigInteger, nullable=False, sa_column_kwargs=added("0"))
    overdue: bool = Field(default=False, sa_column_kwargs=added("false"))


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
    at: Micros = time_column()
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
    created_at: Micros = time_column()


class Idempotency(Table, table=True):
    """One key, one message: kept for seven days. Of a check, `answer` is what was answered, as JSON."""

    __table_args__ = (Index("ix_idempotency_created", "created_at"),)

    tenant_id: str = Field(primary_key=True)
    client_id: str = Field(primary_key=True)
    kind: str = Field(primary_key=True)
    request_id: str = Field(primary_key=True)
    message_id: str
    fingerprint: bytes = Field(sa_type=LargeBinary)
    created_at: Micros = time_column()
    answer: str = Field(default="", sa_column_kwargs=added("''"))


class Worker(Table, table=True):
    """A process that dispatches. `beat` is a counter; no clocks are compared."""

    boot_id: str = Field(primary_key=True)
    beat: int = Field(default=0, sa_type=BigInteger)
    started_at: Micros = time_column()


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
    created_at: Micros = time_column()


class VerificationRow(Table, table=True):
    """A one-time code for one address and intent. `mac` is that of the code.

    `length` is 0 where the caller brought the code: then `code` is it, sealed, while the verification is live. One of
    ours is stored nowhere. The indexes are keyed hashes.
    """

    __table_args__ = (
        Index(
            "uq_verification_live",
            "tenant_id",
            "destination_index",
            "intent",
            unique=True,
            postgresql_where=text("is_live"),
            sqlite_where=text("is_live"),
        ),
        Index("ix_verification_destination", "tenant_id", "destination_index", "intent", "created_at"),
        Index("ix_verification_prefix", "tenant_id", "prefix_index", "created_at"),
        Index("ix_verification_expiry", "expires_at"),
        Index(
            "ix_verification_own",
            "expires_at",
            postgresql_where=text("is_live AND length = 0"),
            sqlite_where=text("is_live AND length = 0"),
        ),
    )

    id: str = Field(primary_key=True)
    tenant_id: str
    intent: str
    destination_index: str
    prefix_index: str = ""
    is_live: bool = True
    key_id: str
    generation: int = 1
    length: int = 0
    mac: bytes = Field(sa_type=LargeBinary)
    code: bytes = Field(default=b"", sa_type=LargeBinary)
    sends: int = 0
    attempts: int = 0
    attempts_max: int
    created_at: Micros = time_column()
    expires_at: Micros = time_column()
    verified_at: Micros = time_column()


class LimitBucket(Table, table=True):
    """What was counted against one limit: the times of the latest hits, as a JSON list. `subject` is a keyed hash."""

    __table_args__ = (Index("ix_limit_bucket_updated", "updated_at"),)

    tenant_id: str = Field(primary_key=True)
    kind: str = Field(primary_key=True)
    subject: str = Field(primary_key=True)
    hits: str = "[]"
    blocks: int = 0
    blocked_until: Micros = time_column()
    updated_at: Micros = time_column()


class ReceiptInbox(Table, table=True):
    """Receipts of messages that no attempt is known to have the id of, as when one comes before the send's answer."""

    __table_args__ = (Index("ix_receipt_inbox_received", "received_at"),)

    account_uid: str = Field(primary_key=True)
    provider_message_id: str = Field(primary_key=True)
    kind: str = Field(primary_key=True)
    tenant_id: str
    failure: str = ""
    received_at: Micros = time_column()


class ExplanationRow(Table, table=True):
    """Why a message took its way, as of the last time that its route was planned: JSON."""

    message_id: str = Field(primary_key=True)
    tenant_id: str
    content: str
