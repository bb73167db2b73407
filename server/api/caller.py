"""Who calls, and for which tenant."""

import time
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass

from server.model.clock import Micros
from server.model.configuration import Credential, Snapshot, TenantSettings
from server.model.enums import Scope
from server.model.errors import Forbidden, Reason, Unauthenticated, not_found
from server.store.store import Store
from server.vault import api_keys
from server.vault.vault import TenantVault

SCHEME = "bearer"
_NO_DIGEST = bytes(32)


@dataclass(frozen=True, slots=True)
class Caller:
    """A client account, by one of its keys."""

    tenant_id: str
    client_id: str
    key_id: str
    scopes: frozenset[Scope]
    expires_at: Micros = 0

    def require(self, scope: Scope | None) -> None:
        """Raise Forbidden where the key lacks the scope; None asks for nothing."""
        if scope is not None and scope not in self.scopes:
            raise Forbidden(Reason.SCOPE_MISSING, f"The key lacks the scope {scope}.", {"scope": scope})


@dataclass(frozen=True, slots=True)
class Call:
    """One call: who makes it, the tenant it acts for, and that tenant's vault."""

    caller: Caller
    tenant: TenantSettings
    vault: TenantVault

    @property
    def tenant_id(self) -> str:
        """The tenant that the call acts for."""
        return self.tenant.tenant_id


_current: ContextVar[Call] = ContextVar("call")


def current_call() -> Call:
    """The call that this task answers; the interceptor has put it there before the servicer runs."""
    return _current.get()


def begin_call(call: Call) -> None:
    """Make it this task's call; gRPC gives every call a task of its own."""
    _current.set(call)


def bearer_of(authorizations: Sequence[str | bytes]) -> str:
    """The key that a call bears in its one `authorization` entry. Raises Unauthenticated(CREDENTIALS_MISSING)."""
    if len(authorizations) == 1 and isinstance(authorizations[0], str):
        scheme, _, key = authorizations[0].partition(" ")
        if scheme.lower() == SCHEME and key:
            return key.strip()
    raise Unauthenticated(
        Reason.CREDENTIALS_MISSING, "The call needs the metadata `authorization: Bearer <key>`, exactly once."
    )


async def authenticate(store: Store, secret: str) -> Caller:
    """Whose key this is. Raises Unauthenticated; unknown, revoked and expired keys cost the same and say the same."""
    presented = api_keys.parse(secret)
    if presented is None:
        raise key_invalid()
    credential = await store.configuration.credential(presented.key_id)
    matches = api_keys.matches(presented.digest, credential.digest if credential else _NO_DIGEST)
    if credential is None or not matches or not _in_force(credential, time.time_ns() // 1000):
        raise key_invalid()
    store.access.note_used(credential.key_id)
    return Caller(
        credential.tenant_id, credential.client_id, credential.key_id, credential.scopes, credential.expires_at
    )


def require_standing(caller: Caller, snapshot: Snapshot, now: Micros) -> None:
    """Ask of a caller whose call goes on: may it still call? A key that is not in the snapshot is of no use any more.

    Raises Unauthenticated (CREDENTIALS_INVALID), Forbidden (TENANT_DISABLED).
    """
    credential = snapshot.credentials.get(caller.key_id)
    if credential is None or not _in_force(credential, now):
        raise key_invalid()
    _require_active(snapshot.tenants.get(caller.tenant_id), caller)


def _in_force(credential: Credential, now: Micros) -> bool:
    unexpired = not credential.expires_at or now < credential.expires_at
    return unexpired and not credential.revoked_at and credential.client_active


def key_invalid() -> Unauthenticated:
    """What is said of a key that is unknown, revoked or expired: the same of each."""
    return Unauthenticated(Reason.CREDENTIALS_INVALID, "The key is not valid.")


async def tenant_for(store: Store, caller: Caller, named: str, *, may_be_new: bool = False) -> TenantSettings:
    """The tenant that a call acts for: its key's own, or the one it names with the scope `tenant.override`.

    Raises Forbidden (TENANT_DISABLED, TENANT_FORBIDDEN) or NotFound. Where the tenant may be new, the key's own counts.
    """
    own = _require_active(await _tenant(store, caller.tenant_id), caller)
    if named in ("", caller.tenant_id):
        return own
    if Scope.TENANT_OVERRIDE not in caller.scopes:
        message = f"The key lacks the scope {Scope.TENANT_OVERRIDE}, which another tenant than its own needs."
        raise Forbidden(Reason.TENANT_FORBIDDEN, message, {"scope": Scope.TENANT_OVERRIDE})
    if may_be_new:
        return own
    other = await _tenant(store, named)
    if other is None:
        raise not_found("tenant", named)
    return other


def _require_active(own: TenantSettings | None, caller: Caller) -> TenantSettings:
    if own is None or not own.is_active:
        raise Forbidden(Reason.TENANT_DISABLED, "The tenant is not active.", {"tenant_id": caller.tenant_id})
    return own


async def _tenant(store: Store, tenant_id: str) -> TenantSettings | None:
    found = store.configuration.snapshot.tenants.get(tenant_id)
    if found is None:
        await store.configuration.refresh_if_changed()
        found = store.configuration.snapshot.tenants.get(tenant_id)
    return found
