"""The tenants' own keys, unwrapped once and kept in memory."""

import threading
from collections import defaultdict
from collections.abc import Sequence

import structlog
from sqlalchemy import Connection, insert, select, update
from sqlmodel import col

from server.model.clock import Micros
from server.model.configuration_tables import TenantKey
from server.store.database import Database
from server.store.dialect import UnsafeDatabase
from server.vault.vault import TenantVault, Unopenable, Vault, WrappedKey

_log = structlog.get_logger("store")


class TenantKeys:
    """The vault of each tenant. Safe to use from every thread."""

    def __init__(self, database: Database, vault: Vault) -> None:
        self._database = database
        self._vault = vault
        self._lock = threading.Lock()
        self._vaults: dict[str, TenantVault] = {}

    def get(self, tenant_id: str) -> TenantVault:
        """The tenant's vault. One short read on the calling thread for a tenant that this process has not met yet.

        Raises Unopenable where the tenant has no key, or none that the master keys open; Unavailable.
        """
        known = self._vaults.get(tenant_id)
        return known or self._keep(tenant_id, self._database.read_here(lambda c: _keys(c, tenant_id)))

    async def ready(self, tenant_id: str) -> TenantVault:
        """As `get`, without holding up the event loop."""
        known = self._vaults.get(tenant_id)
        return known or self._keep(tenant_id, await self._database.read(lambda c: _keys(c, tenant_id)))

    def known(self, tenant_id: str) -> TenantVault:
        """The tenant's vault as `load` or `get` left it, without a look into the database. Raises Unopenable."""
        known = self._vaults.get(tenant_id)
        if known is None:
            raise Unopenable(f"the key of tenant {tenant_id!r} is not open")
        return known

    def load(self, connection: Connection) -> None:
        """Unwraps every tenant's keys. A tenant whose keys do not open is left out; `get` says why."""
        keys: defaultdict[str, list[WrappedKey]] = defaultdict(list)
        ordered = select(TenantKey).order_by(col(TenantKey.created_at), col(TenantKey.key_id))
        for row in connection.execute(ordered):
            keys[row.tenant_id].append(WrappedKey(row.key_id, row.wrapped))
        for tenant_id in sorted(keys.keys() - self._vaults.keys()):
            try:
                self._keep(tenant_id, keys[tenant_id])
            except Unopenable as sealed:
                _log.error("a tenant can not be served", tenant_id=tenant_id, why=str(sealed))

    def refuse_foreign(self, connection: Connection) -> None:
        """Raise UnsafeDatabase where tenants have keys and the master keys open none of them."""
        rows = connection.execute(select(TenantKey)).all()
        if rows and not any(self._vault.opens(row.tenant_id, WrappedKey(row.key_id, row.wrapped)) for row in rows):
            raise UnsafeDatabase(
                "The master keys open none of the tenants' keys. Bring the ring of master keys that wrapped them."
            )

    def create(self, connection: Connection, tenant_id: str, now: Micros) -> TenantVault:
        """Makes a tenant's key in the caller's transaction. It is kept in memory only once `get` reads it back."""
        key = self._vault.new_tenant_key(tenant_id)
        values = {"tenant_id": tenant_id, "key_id": key.key_id, "wrapped": key.wrapped, "created_at": now}
        connection.execute(insert(TenantKey), values)
        return self._vault.open_tenant(tenant_id, [key])

    async def rewrap_all(self) -> int:
        """Wraps by the first master key every tenant key that another one of the ring wrapped; how many there were.

        After it, and not before, the others may leave the ring. Keys that none of them opens stay, and are logged.
        """
        return await self._database.write(self._rewrap)

    def _rewrap(self, connection: Connection) -> int:
        count = 0
        for row in connection.execute(select(TenantKey)).all():
            fresh = self._rewrapped(row.tenant_id, WrappedKey(row.key_id, row.wrapped))
            if fresh is not None:
                count += 1
                this = (col(TenantKey.tenant_id) == row.tenant_id, col(TenantKey.key_id) == row.key_id)
                connection.execute(update(TenantKey).where(*this).values(wrapped=fresh.wrapped))
        return count

    def _rewrapped(self, tenant_id: str, key: WrappedKey) -> WrappedKey | None:
        try:
            return self._vault.rewrapped(tenant_id, key)
        except Unopenable as sealed:
            _log.error("a tenant's key can not be wrapped anew", tenant_id=tenant_id, why=str(sealed))
            return None

    def _keep(self, tenant_id: str, keys: Sequence[WrappedKey]) -> TenantVault:
        opened = self._vault.open_tenant(tenant_id, keys)
        with self._lock:
            return self._vaults.setdefault(tenant_id, opened)


def _keys(connection: Connection, tenant_id: str) -> list[WrappedKey]:
    """Oldest first: the last one seals."""
    of_tenant = select(TenantKey).where(col(TenantKey.tenant_id) == tenant_id)
    rows = connection.execute(of_tenant.order_by(col(TenantKey.created_at), col(TenantKey.key_id)))
    return [WrappedKey(row.key_id, row.wrapped) for row in rows]
