"""Tenants, clients and API keys: who may call, and for whom."""

import asyncio
import time
from collections.abc import Mapping
from typing import Any, TypeVar

import structlog
from sqlalchemy import Connection, Select, insert, select, tuple_, update
from sqlalchemy.orm import Mapped
from sqlmodel import col

from server.model.clock import Micros
from server.model.configuration import NewApiKey, TenantChange
from server.model.configuration_tables import ApiKey, ClientAccount, Tenant
from server.model.errors import AlreadyExists, Reason, Unavailable, invalid_field, not_found
from server.store.accounts import etag_mismatch
from server.store.configuration import Configuration, raise_version
from server.store.database import Database
from server.store.dialect import columns
from server.store.keys import TenantKeys
from server.store.rows import dump

USED_EVERY_SECONDS = 60.0
"""How often at most the last use of a key is written."""
USED_BATCH_SECONDS = 5.0

_TENANT = columns("tenant")
_CLIENT = columns("client_account")
_TENANT_DEFAULTS: Mapping[str, object] = {
    "caption": "",
    "is_active": True,
    "default_region": "",
    "default_locale": "",
    "time_zone": "",
    "allowed_countries": "[]",
}
_NOT_CONTENT = {"created_at", "updated_at", "revision"}

Noun = TypeVar("Noun", Tenant, ClientAccount, ApiKey)

_log = structlog.get_logger("store")


class Access:
    """Who may call. Changes are in this process's snapshot at once, in every other within 2 s."""

    def __init__(self, database: Database, keys: TenantKeys, configuration: Configuration) -> None:
        self._database = database
        self._keys = keys
        self._configuration = configuration
        self._used: dict[str, Micros] = {}
        self._noted: dict[str, float] = {}
        self._writing: asyncio.Task[None] | None = None

    async def close(self) -> None:
        """Write what was noted of the use of keys."""
        if self._writing is not None:
            self._writing.cancel()
            await asyncio.gather(self._writing, return_exceptions=True)
        try:
            await self._write_used()
        except Unavailable:
            _log.warning("the last use of keys is not written")

    async def tenant(self, tenant_id: str) -> Tenant:
        """The tenant. Raises NotFound."""
        return await self._database.read(lambda c: _tenant(c, tenant_id))

    async def create_tenant(self, row: Tenant) -> tuple[Tenant, bool]:
        """Make a tenant with a key of its own; the row, and whether it is new.

        The same again is answered as it is kept. Raises AlreadyExists(RESOURCE_EXISTS) for another of this id.
        """
        return await self._configuration.change(lambda c, now: self.add_tenant(c, row, now))

    def add_tenant(self, connection: Connection, row: Tenant, now: Micros) -> tuple[Tenant, bool]:
        """As `create_tenant`, in the caller's transaction."""
        fresh = row.model_dump(exclude=_NOT_CONTENT)
        row = Tenant(**fresh, created_at=now, updated_at=now)
        if not self._is_new(connection, row):
            return _same(_tenant(connection, row.tenant_id), row, "tenant", row.tenant_id), False
        self._keys.create(connection, row.tenant_id, now)
        raise_version(connection)
        return row, True

    async def update_tenant(self, tenant_id: str, change: TenantChange, etag: str = "") -> Tenant:
        """Change a tenant; as it is then. Raises NotFound, Precondition(ETAG_MISMATCH), Invalid (`clear`)."""
        return await self._configuration.change(lambda c, now: _update_tenant(c, tenant_id, change, etag, now))

    async def list_tenants(self, *, is_active: bool | None = None, after: str = "", limit: int) -> list[Tenant]:
        """At most `limit` tenants by id, behind the id `after`."""
        query = select(Tenant).order_by(col(Tenant.tenant_id)).where(col(Tenant.tenant_id) > after).limit(limit)
        return await self._listed(Tenant, _active(query, col(Tenant.is_active), is_active))

    async def client(self, tenant_id: str, client_id: str) -> ClientAccount:
        """The client of the tenant. Raises NotFound."""
        return await self._database.read(lambda c: _client(c, tenant_id, client_id))

    async def create_client(self, row: ClientAccount) -> tuple[ClientAccount, bool]:
        """Make a client; the row, and whether it is new. The same again is answered as it is kept.

        Raises NotFound for an unknown tenant, AlreadyExists(RESOURCE_EXISTS) for another client of this id.
        """

        def job(connection: Connection, now: Micros) -> tuple[ClientAccount, bool]:
            _tenant(connection, row.tenant_id)
            return self.add_client(connection, row, now)

        return await self._configuration.change(job)

    def add_client(self, connection: Connection, row: ClientAccount, now: Micros) -> tuple[ClientAccount, bool]:
        """As `create_client`, in the caller's transaction, for a tenant that is there."""
        row = ClientAccount(**row.model_dump(exclude=_NOT_CONTENT), created_at=now)
        if not self._is_new(connection, row):
            return _same(_client(connection, row.tenant_id, row.client_id), row, "client", row.client_id), False
        raise_version(connection)
        return row, True

    async def update_client(
        self, tenant_id: str, client_id: str, *, caption: str | None = None, is_active: bool | None = None
    ) -> ClientAccount:
        """Change a client; None keeps. Raises NotFound."""
        given = {"caption": caption, "is_active": is_active}

        def job(connection: Connection, _: Micros) -> ClientAccount:
            before = _client(connection, tenant_id, client_id, lock=True)
            after = ClientAccount(**{**before.model_dump(), **_present(given)})
            if after.model_dump() != before.model_dump():
                this = (col(ClientAccount.tenant_id) == tenant_id, col(ClientAccount.client_id) == client_id)
                connection.execute(update(ClientAccount).where(*this).values(**_present(given)))
                raise_version(connection)
            return after

        return await self._configuration.change(job)

    async def list_clients(
        self, tenant_id: str, *, is_active: bool | None = None, after: str = "", limit: int
    ) -> list[ClientAccount]:
        """At most `limit` clients of the tenant by id, behind the id `after`."""
        mine = (col(ClientAccount.tenant_id) == tenant_id, col(ClientAccount.client_id) > after)
        query = select(ClientAccount).where(*mine).order_by(col(ClientAccount.client_id)).limit(limit)
        return await self._listed(ClientAccount, _active(query, col(ClientAccount.is_active), is_active))

    async def create_api_key(self, new: NewApiKey) -> ApiKey:
        """Keep a key of a client. Raises NotFound for an unknown client."""

        def job(connection: Connection, now: Micros) -> ApiKey:
            _client(connection, new.tenant_id, new.client_id)
            return add_api_key(connection, new, now)

        return await self._configuration.change(job)

    async def api_key(self, tenant_id: str, key_id: str) -> ApiKey:
        """The key of the tenant. Raises NotFound."""
        this = select(ApiKey).where(col(ApiKey.tenant_id) == tenant_id, col(ApiKey.key_id) == key_id)
        return await self._database.read(lambda c: _one(c, ApiKey, this, "api_key", key_id))

    async def list_api_keys(self, tenant_id: str, client_id: str = "", *, after: str = "", limit: int) -> list[ApiKey]:
        """At most `limit` keys of the tenant, or of one of its clients, by id, behind the id `after`."""
        mine = select(ApiKey).where(col(ApiKey.tenant_id) == tenant_id, col(ApiKey.key_id) > after)
        if client_id:
            mine = mine.where(col(ApiKey.client_id) == client_id)
        return await self._listed(ApiKey, mine.order_by(col(ApiKey.key_id)).limit(limit))

    async def newest_api_keys(
        self, tenant_id: str, client_id: str = "", *, before: tuple[Micros, str] | None = None, limit: int
    ) -> list[ApiKey]:
        """At most `limit` keys of the tenant, or of one of its clients, newest first.

        `before`: `created_at` and `key_id` of the last key of the page before; keys of one time go by id, downwards.
        """
        place = (col(ApiKey.created_at), col(ApiKey.key_id))
        mine = select(ApiKey).where(col(ApiKey.tenant_id) == tenant_id)
        if client_id:
            mine = mine.where(col(ApiKey.client_id) == client_id)
        if before is not None:
            mine = mine.where(tuple_(*place) < before)
        return await self._listed(ApiKey, mine.order_by(*(column.desc() for column in place)).limit(limit))

    async def revoke_api_key(self, tenant_id: str, key_id: str) -> ApiKey:
        """Revoke a key; one that is revoked stays as it is. Raises NotFound."""

        def job(connection: Connection, now: Micros) -> ApiKey:
            this = (col(ApiKey.tenant_id) == tenant_id, col(ApiKey.key_id) == key_id)
            query = select(ApiKey).where(*this).with_for_update()
            row = _one(connection, ApiKey, query, "api_key", key_id)
            if not row.revoked_at:
                connection.execute(update(ApiKey).where(*this).values(revoked_at=now))
                raise_version(connection)
                row.revoked_at = now
            return row

        return await self._configuration.change(job)

    def note_used(self, key_id: str) -> None:
        """A call was made with this key. Written a little later, for one key at most once a minute."""
        now = time.monotonic()
        if now - self._noted.get(key_id, -USED_EVERY_SECONDS) < USED_EVERY_SECONDS:
            return
        self._noted[key_id] = now
        self._used[key_id] = time.time_ns() // 1000
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write_used_soon(), name="note used keys")

    async def _write_used_soon(self) -> None:
        await asyncio.sleep(USED_BATCH_SECONDS)
        try:
            await self._write_used()
        except Unavailable:
            _log.info("the last use of keys is not written now")

    async def _write_used(self) -> None:
        used, self._used = self._used, {}
        if not used:
            return

        def write(connection: Connection) -> None:
            for key_id, at in sorted(used.items()):
                this = (col(ApiKey.key_id) == key_id, col(ApiKey.last_used_at) < at)
                connection.execute(update(ApiKey).where(*this).values(last_used_at=at))

        await self._database.write(write)

    def _is_new(self, connection: Connection, row: Tenant | ClientAccount) -> bool:
        """Add the row where its name is free. Two processes that do so at once do not both succeed."""
        into, name = (_TENANT, "tenant_id") if isinstance(row, Tenant) else (_CLIENT, "client_id")
        values = row.model_dump()
        added = self._database.dialect.insert_new(connection, into, [tuple(values[n] for n in into.names)], name)
        return bool(added)

    async def _listed(self, noun: type[Noun], query: Select[Any]) -> list[Noun]:
        return await self._database.read(lambda c: [noun(**row) for row in c.execute(query).mappings()])


def add_api_key(connection: Connection, new: NewApiKey, now: Micros) -> ApiKey:
    """Keep a key, in the caller's transaction, of a client that is there."""
    row = ApiKey(
        key_id=new.key_id,
        tenant_id=new.tenant_id,
        client_id=new.client_id,
        caption=new.caption,
        prefix=new.prefix,
        digest=new.digest,
        scopes=dump([str(scope) for scope in new.scopes]),
        created_at=now,
        expires_at=new.expires_at,
    )
    connection.execute(insert(ApiKey).values(**row.model_dump()))
    raise_version(connection)
    return row


def _update_tenant(connection: Connection, tenant_id: str, change: TenantChange, etag: str, now: Micros) -> Tenant:
    before = _tenant(connection, tenant_id, lock=True)
    if etag and etag != str(before.revision):
        raise etag_mismatch("tenant", tenant_id)
    unknown = change.clear - _TENANT_DEFAULTS.keys()
    if unknown:
        raise invalid_field("clear", f"can hold {', '.join(sorted(_TENANT_DEFAULTS))}, not {min(unknown)!r}")
    countries = None if change.allowed_countries is None else dump(sorted(change.allowed_countries))
    given = {
        "caption": change.caption,
        "mode": str(change.mode) if change.mode else None,
        "is_active": change.is_active,
        "default_region": change.default_region,
        "default_locale": change.default_locale,
        "time_zone": change.time_zone,
        "allowed_countries": countries,
    }
    cleared = {name: _TENANT_DEFAULTS[name] for name in change.clear}
    values: dict[str, Any] = {**before.model_dump(), **cleared, **_present(given)}
    if values == before.model_dump():
        return before
    values |= {"revision": before.revision + 1, "updated_at": now}
    connection.execute(update(Tenant).where(col(Tenant.tenant_id) == tenant_id).values(**values))
    raise_version(connection)
    return Tenant(**values)


def _tenant(connection: Connection, tenant_id: str, *, lock: bool = False) -> Tenant:
    query = select(Tenant).where(col(Tenant.tenant_id) == tenant_id)
    return _one(connection, Tenant, query.with_for_update() if lock else query, "tenant", tenant_id)


def _client(connection: Connection, tenant_id: str, client_id: str, *, lock: bool = False) -> ClientAccount:
    this = (col(ClientAccount.tenant_id) == tenant_id, col(ClientAccount.client_id) == client_id)
    query = select(ClientAccount).where(*this)
    return _one(connection, ClientAccount, query.with_for_update() if lock else query, "client", client_id)


def _one(connection: Connection, noun: type[Noun], query: Select[Any], resource: str, name: str) -> Noun:
    row = connection.execute(query).mappings().one_or_none()
    if row is None:
        raise not_found(resource, name)
    return noun(**row)


def _same(kept: Noun, asked: Noun, resource: str, name: str) -> Noun:
    if kept.model_dump(exclude=_NOT_CONTENT) != asked.model_dump(exclude=_NOT_CONTENT):
        message = f"There is another {resource} {name!r}. Update it instead."
        raise AlreadyExists(Reason.RESOURCE_EXISTS, message, {"resource": resource, "name": name})
    return kept


def _active(query: Select[Any], column: Mapped[bool], is_active: bool | None) -> Select[Any]:  # noqa: FBT001 - three-valued
    return query if is_active is None else query.where(column == is_active)


def _present(given: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if value is not None}
