"""The first start on an empty database: a tenant to try things in, and the operator's key."""

from collections.abc import Callable

from sqlalchemy import Connection, select
from sqlmodel import col

from server.model.clock import Micros
from server.model.configuration import NewApiKey
from server.model.configuration_tables import ClientAccount, Tenant
from server.model.enums import Mode, Scope
from server.store.access import Access, add_api_key
from server.vault.api_keys import Minted, mint

TENANT_ID = "default"
CLIENT_ID = "operator"
REGION = "IR"


def bootstrap(access: Access, show: Callable[[str], None]) -> Callable[[Connection, Micros], bool]:
    """The configuring job that makes tenant `default`, client `operator` and a key with every scope.

    It tells whether it did: only where there is no tenant yet, and of two processes at once in one. `show` gets the
    key's secret, on the writer's thread before the commit, so that no key is ever made that nobody has seen.
    """
    minted = mint()

    def job(connection: Connection, now: Micros) -> bool:
        if connection.execute(select(col(Tenant.tenant_id)).limit(1)).one_or_none() is not None:
            return False
        tenant = Tenant(tenant_id=TENANT_ID, caption="Default", mode=Mode.SANDBOX.value, default_region=REGION)
        if not access.add_tenant(connection, tenant, now)[1]:
            return False
        access.add_client(connection, ClientAccount(tenant_id=TENANT_ID, client_id=CLIENT_ID, caption="Operator"), now)
        add_api_key(connection, _key(minted), now)
        show(minted.secret)
        return True

    return job


def _key(minted: Minted) -> NewApiKey:
    return NewApiKey(
        key_id=minted.key_id,
        tenant_id=TENANT_ID,
        client_id=CLIENT_ID,
        caption="made at the first start",
        prefix=minted.prefix,
        digest=minted.digest,
        scopes=tuple(Scope),
        expires_at=0,
    )
