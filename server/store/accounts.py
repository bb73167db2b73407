"""Provider accounts as rows: what a change makes of one, and what the message path sees of it."""

import json
from collections.abc import Callable, Mapping, Set as AbstractSet
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import Connection, Delete, Update, delete, select, update
from sqlmodel import col

from server.model.accounts import Account, ProviderType
from server.model.clock import SECOND, Micros
from server.model.configuration import ProviderChange
from server.model.configuration_tables import ProviderAccount, RoutingRule
from server.model.errors import AlreadyExists, NotFound, Precondition, Reason, invalid_field, not_found
from server.model.messages import Follow
from server.store.dialect import Dialect, columns
from server.store.rows import dump
from server.vault.identity import new_id
from server.vault.vault import TenantVault

Statement = TypeVar("Statement", Update, Delete)

TIMEOUT_SECONDS = 8.0
SHOWN_LENGTH_MIN = 8
"""Of a shorter secret not even the last four characters are shown."""

_CLEARED: Mapping[str, tuple[str, object]] = {
    "caption": ("caption", ""),
    "is_active": ("is_active", True),
    "priority": ("priority", 0),
    "base_url": ("base_url", ""),
    "timeout": ("timeout_micros", 0),
    "resources": ("resources", "[]"),
}
_ACCOUNT = columns("provider_account")
_PLAIN = ("caption", "is_active", "priority", "base_url", "timeout_micros", "resources")


@dataclass(frozen=True, slots=True)
class Configuring:
    """Who wants which account changed, and how."""

    tenant_id: str
    name: str
    change: ProviderChange
    client_id: str
    etag: str


def find_account(connection: Connection, tenant_id: str, name: str, *, lock: bool = False) -> ProviderAccount | None:
    """The tenant's account of this name. `lock`: nobody else changes it until the transaction ends."""
    query = select(ProviderAccount).where(
        col(ProviderAccount.tenant_id) == tenant_id, col(ProviderAccount.name) == name
    )
    row = connection.execute(query.with_for_update() if lock else query).mappings().one_or_none()
    return ProviderAccount(**row) if row is not None else None


def list_accounts(connection: Connection, tenant_id: str) -> list[ProviderAccount]:
    """All accounts of a tenant, by name."""
    query = select(ProviderAccount).where(col(ProviderAccount.tenant_id) == tenant_id)
    rows = connection.execute(query.order_by(col(ProviderAccount.name))).mappings()
    return [ProviderAccount(**row) for row in rows]


def configure(
    connection: Connection,
    dialect: Dialect,
    vault: TenantVault,
    types: Mapping[str, ProviderType],
    wanted: Configuring,
    check: Callable[[Account], None],
    now: Micros,
) -> tuple[ProviderAccount, bool, bool]:
    """Merge a change into an account, or make one of it: the row, whether it was created, whether anything changed.

    Raises Precondition(ETAG_MISMATCH), AlreadyExists(RESOURCE_EXISTS) where the name has another type, NotFound for a
    type that nobody knows, Invalid, and whatever `check` raises.
    """
    while True:
        before = find_account(connection, wanted.tenant_id, wanted.name, lock=True)
        after = _merge(vault, types, before, wanted, check, now)
        if before is not None and after is before:
            return before, False, False
        # Another process may have made the account since: then this change is merged into that.
        if _is_written(connection, dialect, after, is_new=before is None):
            return after, before is None, True


def _merge(
    vault: TenantVault,
    types: Mapping[str, ProviderType],
    before: ProviderAccount | None,
    wanted: Configuring,
    check: Callable[[Account], None],
    now: Micros,
) -> ProviderAccount:
    """The account as it is to be; the very same one where nothing changes."""
    if wanted.etag and (before is None or wanted.etag != str(before.revision)):
        raise etag_mismatch("provider", wanted.name)
    base = before or _new(wanted, now)
    if wanted.change.type not in (None, base.type):
        message = f"The provider {wanted.name!r} is of type {base.type!r}."
        raise AlreadyExists(Reason.RESOURCE_EXISTS, message, {"resource": "provider", "name": wanted.name})
    kind = types.get(base.type)
    if kind is None:
        raise no_such_type(base.type)
    old_secrets = open_secrets(vault, base)
    secrets = _merged(old_secrets, wanted.change.secrets, "secrets", wanted.change.clear)
    after = _changed(base, wanted.change)
    check(account_of(after, secrets, kind))
    if before is not None and secrets == old_secrets and after.model_dump() == before.model_dump():
        return before
    return ProviderAccount(
        **after.model_dump(exclude={"secrets", "secret_marks", "revision", "updated_at"}),
        secrets=vault.seal(dump(secrets).encode(), _about(after.uid)),
        secret_marks=_marks(vault, before, old_secrets, secrets, now),
        revision=base.revision + (before is not None),
        updated_at=now,
    )


def remove(connection: Connection, tenant_id: str, name: str, etag: str, *, force: bool) -> ProviderAccount:
    """Delete an account. Raises NotFound; Precondition: ETAG_MISMATCH, RESOURCE_IN_USE with the rules that name it."""
    row = find_account(connection, tenant_id, name, lock=True)
    if row is None:
        raise not_found("provider", name)
    if etag and etag != str(row.revision):
        raise etag_mismatch("provider", name)
    naming = [] if force else _rules_naming(connection, tenant_id, name)
    if naming:
        message = f"Rules name the provider {name!r}. Change them first, or delete by force."
        raise Precondition(Reason.RESOURCE_IN_USE, message, {"resource": "provider", "rules": ",".join(naming)})
    connection.execute(_this(delete(ProviderAccount), row))
    return row


def etag_mismatch(resource: str, name: str) -> Precondition:
    """Somebody else has changed it since it was read."""
    told = {"resource": resource}
    return Precondition(Reason.ETAG_MISMATCH, f"The {resource} {name!r} has been changed since. Read it again.", told)


def no_such_type(name: str) -> NotFound:
    """Nobody knows a provider type of this name."""
    message = f"There is no provider type {name!r}. ListProviderTypes tells which there are, in lower case."
    return NotFound(Reason.RESOURCE_NOT_FOUND, message, {"resource": "provider_type"})


def account_of(row: ProviderAccount, secrets: Mapping[str, str], kind: ProviderType | None) -> Account:
    """The account as the message path sees it, with the type's defaults. Of an unknown type it is not configured."""
    defaults = {s.name: s.default for s in kind.settings if s.default and not s.secret} if kind else {}
    settings: dict[str, str] = {**defaults, **json.loads(row.settings)}
    there = {name for values in (settings, secrets) for name, value in values.items() if value}
    return Account(
        tenant_id=row.tenant_id,
        uid=row.uid,
        name=row.name,
        type=row.type,
        channels=kind.channels if kind else (),
        version=row.revision,
        configured=kind is not None and not kind.missing(there),
        is_active=row.is_active,
        priority=row.priority,
        base_url=row.base_url,
        timeout_seconds=row.timeout_micros / SECOND if row.timeout_micros else TIMEOUT_SECONDS,
        settings=settings,
        secrets=secrets,
        follow=kind.follow if kind else Follow(),
        in_process=kind.in_process if kind else False,
        default_base_url=kind.default_base_url if kind else "",
    )


def open_secrets(vault: TenantVault, row: ProviderAccount) -> dict[str, str]:
    """The account's secrets by name. Raises Unopenable."""
    return json.loads(vault.open(row.secrets, _about(row.uid))) if row.secrets else {}


def _new(wanted: Configuring, now: Micros) -> ProviderAccount:
    if not wanted.change.type:
        raise invalid_field("type", "is required, for there is no provider of this name yet")
    return ProviderAccount(
        tenant_id=wanted.tenant_id,
        name=wanted.name,
        uid=new_id(),
        type=wanted.change.type,
        client_id=wanted.client_id,
        created_at=now,
        updated_at=now,
    )


def _changed(row: ProviderAccount, change: ProviderChange) -> ProviderAccount:
    """What is cleared goes first, so that a change may clear all settings and give new ones."""
    cleared = dict(_CLEARED[name] for name in change.clear if name in _CLEARED)
    given = {name: value for name in _PLAIN if (value := getattr(change, name)) is not None}
    settings = _merged(json.loads(row.settings), change.settings, "settings", change.clear)
    values: dict[str, Any] = {**row.model_dump(), **cleared, **given, "settings": dump(dict(sorted(settings.items())))}
    return ProviderAccount(**values)


def _merged(old: Mapping[str, str], given: Mapping[str, str], part: str, clear: AbstractSet[str]) -> dict[str, str]:
    kept = {} if part in clear else {name: value for name, value in old.items() if f"{part}.{name}" not in clear}
    return {name: value for name, value in {**kept, **given}.items() if value}


def _marks(
    vault: TenantVault,
    before: ProviderAccount | None,
    old: Mapping[str, str],
    new: Mapping[str, str],
    now: Micros,
) -> str:
    """What may be shown of each secret; that of one which has not changed stays."""
    marks: dict[str, dict[str, str | int]] = json.loads(before.secret_marks) if before else {}
    return dump(
        {name: _mark(vault, marks.get(name), old.get(name), secret, now) for name, secret in sorted(new.items())}
    )


def _mark(
    vault: TenantVault, mark: dict[str, str | int] | None, old: str | None, secret: str, now: Micros
) -> dict[str, str | int]:
    if mark is not None and old == secret:
        return mark
    return {
        "last_four": secret[-4:] if len(secret) >= SHOWN_LENGTH_MIN else "",
        "fingerprint": vault.fingerprint(secret),
        "updated_at": now,
        "version": int(mark["version"]) + 1 if mark else 1,
    }


def _is_written(connection: Connection, dialect: Dialect, row: ProviderAccount, *, is_new: bool) -> bool:
    """Keep the row; whether it was: a new one is not where its name is taken."""
    if is_new:
        values = row.model_dump()
        return bool(dialect.insert_new(connection, _ACCOUNT, [tuple(values[n] for n in _ACCOUNT.names)], "uid"))
    connection.execute(_this(update(ProviderAccount), row).values(**row.model_dump(exclude={"tenant_id", "name"})))
    return True


def _this(statement: Statement, row: ProviderAccount) -> Statement:
    return statement.where(col(ProviderAccount.tenant_id) == row.tenant_id, col(ProviderAccount.name) == row.name)


def _rules_naming(connection: Connection, tenant_id: str, provider: str) -> list[str]:
    query = select(col(RoutingRule.name), col(RoutingRule.steps)).where(col(RoutingRule.tenant_id) == tenant_id)
    rules = connection.execute(query.order_by(col(RoutingRule.name)))
    return [name for name, steps in rules if any(provider in step.get("providers", ()) for step in json.loads(steps))]


def _about(uid: str) -> str:
    return f"secrets:{uid}"
