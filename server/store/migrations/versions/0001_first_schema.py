"""The first schema."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    _create_api_key()
    _create_attempt()
    _create_client_account()
    _create_config_version()
    _create_due()
    _create_event()
    _create_idempotency()
    _create_log()
    _create_message()
    _create_message_tag()
    _create_provider_account()
    _create_routing_rule()
    _create_rule_set()
    _create_sandbox_message()
    _create_tenant()
    _create_tenant_key()
    _create_worker()

    op.execute("INSERT INTO config_version (id, version) VALUES (1, 0)")
    op.execute(
        "INSERT INTO log (id, log_epoch, system, pruned_epoch, pruned_xid, pruned_id) VALUES (1, 0, '', 0, 0, 0)"
    )


def _texts(*names: str) -> list[sa.Column[str]]:
    return [sa.Column(name, sa.String(), nullable=False) for name in names]


def _integers(*names: str) -> list[sa.Column[int]]:
    return [sa.Column(name, sa.Integer(), nullable=False) for name in names]


def _bigints(*names: str) -> list[sa.Column[int]]:
    return [sa.Column(name, sa.BigInteger(), nullable=False) for name in names]


def _flags(*names: str) -> list[sa.Column[bool]]:
    return [sa.Column(name, sa.Boolean(), nullable=False) for name in names]


def _bytes(*names: str) -> list[sa.Column[bytes]]:
    return [sa.Column(name, sa.LargeBinary(), nullable=False) for name in names]


def _create_api_key() -> None:
    op.create_table(
        "api_key",
        *_texts("key_id", "tenant_id", "client_id", "caption", "prefix"),
        *_bytes("digest"),
        *_texts("scopes"),
        *_bigints("created_at", "expires_at", "revoked_at", "last_used_at"),
        sa.PrimaryKeyConstraint("key_id", name=op.f("pk_api_key")),
    )
    op.create_index("ix_api_key_tenant_id", "api_key", ["tenant_id"])


def _create_attempt() -> None:
    op.create_table(
        "attempt",
        *_texts("message_id"),
        *_integers("number", "step"),
        *_texts("channel", "account", "account_uid"),
        *_integers("destination", "epoch"),
        *_bigints("provider_key", "started_at", "deadline"),
        *_texts("follow", "behind", "outcome", "refusal", "fault", "failure", "receipt", "provider_message_id"),
        *_bigints("ended_at", "receipt_at", "retry_at"),
        *_integers("segments"),
        *_flags("given_up"),
        sa.PrimaryKeyConstraint("message_id", "number", name=op.f("pk_attempt")),
    )
    op.create_index("ix_attempt_provider", "attempt", ["account_uid", "provider_message_id"])


def _create_client_account() -> None:
    op.create_table(
        "client_account",
        *_texts("tenant_id", "client_id", "caption"),
        *_flags("is_active"),
        *_bigints("created_at"),
        sa.PrimaryKeyConstraint("tenant_id", "client_id", name=op.f("pk_client_account")),
    )


def _create_config_version() -> None:
    op.create_table(
        "config_version",
        *_integers("id"),
        *_bigints("version"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_config_version")),
    )


def _create_due() -> None:
    op.create_table(
        "due",
        *_texts("message_id", "tenant_id", "message_class", "kind"),
        *_bigints("due_at"),
        *_texts("worker"),
        *_integers("epoch", "claims"),
        sa.CheckConstraint("kind IN ('SEND', 'TIMER', 'LOOK_UP', 'POLL')", name=op.f("ck_due_kind")),
        sa.PrimaryKeyConstraint("message_id", name=op.f("pk_due")),
        postgresql_with={"fillfactor": "70", "autovacuum_vacuum_scale_factor": "0.01"},
    )
    op.create_index(
        "ix_due_alone",
        "due",
        ["message_class", "kind", "due_at"],
        postgresql_where=sa.text("worker = '' AND claims >= 2"),
        sqlite_where=sa.text("worker = '' AND claims >= 2"),
    )
    op.create_index(
        "ix_due_held", "due", ["worker"], postgresql_where=sa.text("worker <> ''"), sqlite_where=sa.text("worker <> ''")
    )
    op.create_index(
        "ix_due_ready",
        "due",
        ["message_class", "kind", "tenant_id", "due_at"],
        postgresql_where=sa.text("worker = ''"),
        sqlite_where=sa.text("worker = ''"),
    )


def _create_event() -> None:
    op.create_table(
        "event",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        *_bigints("log_epoch", "xid"),
        *_texts("message_id"),
        *_integers("seq"),
        *_texts("kind"),
        *_bigints("at"),
        *_texts("state", "status"),
        *_flags("done", "moved"),
        *_texts("tenant_id", "client_id", "intent", "message_class", "channel", "provider"),
        *_integers("attempt"),
        *_texts("outcome", "failure", "reference", "tags", "phone_index"),
        *_bigints("created_at"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_event")),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_event_log", "event", ["log_epoch", "xid", "id"])
    op.create_index("ix_event_tenant", "event", ["tenant_id", "log_epoch", "xid", "id"])
    op.create_index("uq_event_message_seq", "event", ["message_id", "seq"], unique=True)


def _create_idempotency() -> None:
    op.create_table(
        "idempotency",
        *_texts("tenant_id", "client_id", "kind", "request_id", "message_id"),
        *_bytes("fingerprint"),
        *_bigints("created_at"),
        sa.PrimaryKeyConstraint("tenant_id", "client_id", "kind", "request_id", name=op.f("pk_idempotency")),
    )
    op.create_index("ix_idempotency_created", "idempotency", ["created_at"])


def _create_log() -> None:
    op.create_table(
        "log",
        *_integers("id"),
        *_bigints("log_epoch"),
        *_texts("system"),
        *_bigints("pruned_epoch", "pruned_xid", "pruned_id"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_log")),
    )


def _create_message() -> None:
    op.create_table(
        "message",
        *_texts("id", "tenant_id", "client_id", "request_id", "kind", "intent", "message_class", "state", "status"),
        *_flags("done"),
        sa.Column("stop", sa.String(), nullable=True),
        *_texts("failure"),
        *_integers("last_seq", "attempt_count"),
        *_texts(
            "rule",
            "reference",
            "tags",
            "on_unconfirmed",
            "channel_wanted",
            "channel",
            "provider",
            "recipient_hint",
            "phone_index",
            "email_index",
            "user_index",
        ),
        *_integers("segments"),
        *_bigints("schedule_at", "created_at", "updated_at", "expires_at", "done_at"),
        *_bytes("body", "recipient"),
        *_flags("erased"),
        sa.CheckConstraint(
            "state IN ('ACCEPTED', 'SCHEDULED', 'SENDING', 'SENT', 'DELIVERED', 'UNDELIVERED', "
            "'FAILED', 'EXPIRED', 'CANCELED', 'UNCONFIRMED')",
            name=op.f("ck_message_state"),
        ),
        sa.CheckConstraint(
            "stop IS NULL OR stop IN ('CANCELED', 'EXPIRED', 'VERIFIED', 'EXHAUSTED')", name=op.f("ck_message_stop")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_message")),
    )
    op.create_index(
        "ix_message_done",
        "message",
        ["done_at"],
        postgresql_where=sa.text("done_at > 0"),
        sqlite_where=sa.text("done_at > 0"),
    )
    op.create_index(
        "ix_message_phone", "message", ["tenant_id", "phone_index", "id"], postgresql_where=sa.text("phone_index <> ''")
    )
    op.create_index(
        "ix_message_reference", "message", ["tenant_id", "reference", "id"], postgresql_where=sa.text("reference <> ''")
    )
    op.create_index("ix_message_tenant", "message", ["tenant_id", "id"])
    op.create_index(
        "ix_message_unerased",
        "message",
        ["done_at"],
        postgresql_where=sa.text("done_at > 0 AND NOT erased"),
        sqlite_where=sa.text("done_at > 0 AND NOT erased"),
    )


def _create_message_tag() -> None:
    op.create_table(
        "message_tag",
        *_texts("message_id", "tag", "tenant_id"),
        sa.PrimaryKeyConstraint("message_id", "tag", name=op.f("pk_message_tag")),
    )
    op.create_index("ix_message_tag_tag", "message_tag", ["tenant_id", "tag", "message_id"])


def _create_provider_account() -> None:
    op.create_table(
        "provider_account",
        *_texts("tenant_id", "name", "uid", "type", "client_id", "caption"),
        *_flags("is_active"),
        *_integers("priority"),
        *_texts("base_url"),
        *_bigints("timeout_micros"),
        *_texts("settings", "resources"),
        *_bytes("secrets"),
        *_texts("secret_marks"),
        *_integers("revision"),
        *_bigints("created_at", "updated_at"),
        sa.UniqueConstraint("uid", name=op.f("uq_provider_account_uid")),
        sa.PrimaryKeyConstraint("tenant_id", "name", name=op.f("pk_provider_account")),
    )


def _create_routing_rule() -> None:
    op.create_table(
        "routing_rule",
        *_texts("tenant_id", "name", "caption", "intents", "steps"),
        *_flags("is_active"),
        *_integers("priority"),
        *_bigints("created_at", "updated_at"),
        sa.PrimaryKeyConstraint("tenant_id", "name", name=op.f("pk_routing_rule")),
    )


def _create_rule_set() -> None:
    op.create_table(
        "rule_set",
        *_texts("tenant_id"),
        *_integers("revision"),
        sa.PrimaryKeyConstraint("tenant_id", name=op.f("pk_rule_set")),
    )


def _create_sandbox_message() -> None:
    op.create_table(
        "sandbox_message",
        *_texts("message_id"),
        *_integers("attempt"),
        *_texts("tenant_id", "channel", "provider", "address_index"),
        *_bytes("content"),
        *_bigints("created_at"),
        sa.PrimaryKeyConstraint("message_id", "attempt", name=op.f("pk_sandbox_message")),
    )
    op.create_index("ix_sandbox_message_tenant", "sandbox_message", ["tenant_id", "created_at"])


def _create_tenant() -> None:
    op.create_table(
        "tenant",
        *_texts("tenant_id", "caption", "mode"),
        *_flags("is_active"),
        *_texts("default_region", "default_locale", "time_zone", "allowed_countries"),
        *_integers("revision"),
        *_bigints("created_at", "updated_at"),
        sa.PrimaryKeyConstraint("tenant_id", name=op.f("pk_tenant")),
    )


def _create_tenant_key() -> None:
    op.create_table(
        "tenant_key",
        *_texts("tenant_id", "key_id"),
        *_bytes("wrapped"),
        *_bigints("created_at"),
        sa.PrimaryKeyConstraint("tenant_id", "key_id", name=op.f("pk_tenant_key")),
    )


def _create_worker() -> None:
    op.create_table(
        "worker",
        *_texts("boot_id"),
        *_bigints("beat", "started_at"),
        sa.PrimaryKeyConstraint("boot_id", name=op.f("pk_worker")),
    )
