"""Access: tenants, clients and keys; who is refused is refused everywhere within two seconds."""

import asyncio
import time
from dataclasses import replace

import pytest

from server.model.configuration import NewApiKey, TenantChange
from server.model.configuration_tables import ClientAccount, Tenant
from server.model.enums import Mode, Scope
from server.model.errors import AlreadyExists, Invalid, NotFound, Precondition, Reason
from server.store.access import Access
from server.store.configuration import ABSENT_SECONDS, Configuration
from server.store.keys import TenantKeys
from server.store.store import Store
from server.vault.api_keys import matches, mint, parse
from server.vault.ring import MasterKeys
from server.vault.vault import Unopenable, Vault
from tests.store.conftest import OpenStore
from tests.store.letters import letter, rows, until

ACME = Tenant(tenant_id="acme", caption="Acme", mode="LIVE", default_region="IR", allowed_countries='["IR"]')
SHOP = ClientAccount(tenant_id="acme", client_id="shop", caption="Shop")


@pytest.fixture
async def store(another: OpenStore) -> Store:
    """A store on an empty database."""
    return await another()


@pytest.fixture
async def acme(store: Store) -> Store:
    """A store with a tenant and a client."""
    await store.access.create_tenant(Tenant(**ACME.model_dump()))
    await store.access.create_client(ClientAccount(**SHOP.model_dump()))
    return store


def new_key(client: str = "shop", expires_at: int = 0) -> NewApiKey:
    minted = mint()
    scopes = (Scope.SEND, Scope.READ)
    return NewApiKey(minted.key_id, "acme", client, "a key", minted.prefix, minted.digest, scopes, expires_at)


async def test_a_tenant_is_made_once(store: Store) -> None:
    """The same again is answered as it is kept; another content is RESOURCE_EXISTS; its key is there at once."""
    made, created = await store.access.create_tenant(ACME)
    assert (created, made.revision, made.caption) == (True, 1, "Acme")
    assert made.created_at == made.updated_at > 0
    assert await store.access.create_tenant(ACME) == (made, False)
    with pytest.raises(AlreadyExists) as taken:
        await store.access.create_tenant(Tenant(tenant_id="acme", caption="Other", mode="LIVE"))
    assert taken.value.reason == Reason.RESOURCE_EXISTS
    settings = store.configuration.snapshot.tenants["acme"]
    assert (settings.mode, settings.is_active, settings.allowed_countries) == (Mode.LIVE, True, frozenset({"IR"}))
    assert store.keys.get("acme").index("x")
    assert (await store.accept(letter("acme"))).message.tenant_id == "acme"


async def test_many_who_make_one_tenant_at_once_make_one(store: Store) -> None:
    """One creates, the others are told that it is there; one key."""
    answers = await asyncio.gather(*(store.access.create_tenant(ACME) for _ in range(8)))
    assert sorted(created for _, created in answers) == [False] * 7 + [True]
    assert len(await rows(store, "SELECT key_id FROM tenant_key")) == 1


async def test_a_tenant_is_changed_field_by_field(acme: Store) -> None:
    """What is None stays, what is cleared is back at its default; fenced by the etag; the same again is no change."""
    change_ = TenantChange(mode=Mode.SANDBOX, is_active=False, allowed_countries=("TR", "IR"))
    changed = await acme.access.update_tenant("acme", change_, "1")
    assert (changed.mode, changed.is_active, changed.caption, changed.revision) == ("SANDBOX", False, "Acme", 2)
    assert changed.allowed_countries == '["IR","TR"]'
    assert acme.configuration.snapshot.tenants["acme"].mode == Mode.SANDBOX
    assert not acme.configuration.snapshot.tenants["acme"].is_active
    assert await acme.access.update_tenant("acme", change_) == changed
    cleared = await acme.access.update_tenant("acme", TenantChange(clear=frozenset({"allowed_countries", "caption"})))
    assert (cleared.allowed_countries, cleared.caption, cleared.default_region) == ("[]", "", "IR")
    assert await acme.access.tenant("acme") == cleared
    with pytest.raises(Precondition) as stale:
        await acme.access.update_tenant("acme", TenantChange(caption="x"), "1")
    assert stale.value.reason == Reason.ETAG_MISMATCH
    with pytest.raises(Invalid):
        await acme.access.update_tenant("acme", TenantChange(clear=frozenset({"mode"})))
    with pytest.raises(NotFound):
        await acme.access.update_tenant("none", TenantChange(caption="x"))


async def test_clients_are_made_changed_and_listed_within_their_tenant(acme: Store) -> None:
    """As tenants; a client that is switched off takes its keys along."""
    assert (await acme.access.create_client(SHOP))[1] is False
    with pytest.raises(AlreadyExists):
        await acme.access.create_client(ClientAccount(tenant_id="acme", client_id="shop", caption="Other"))
    for refused in (
        acme.access.create_client(ClientAccount(tenant_id="none", client_id="shop")),
        acme.access.update_client("none", "shop", is_active=False),
        acme.access.client("none", "shop"),
        acme.access.create_api_key(new_key("nobody")),
    ):
        with pytest.raises(NotFound):
            await refused
    key = await acme.access.create_api_key(new_key())
    off = await acme.access.update_client("acme", "shop", is_active=False)
    assert (off.is_active, off.caption) == (False, "Shop")
    credential = await acme.configuration.credential(key.key_id)
    assert credential is not None
    assert not credential.client_active
    assert await acme.access.list_clients("acme", is_active=False, limit=5) == [off]
    assert await acme.access.list_clients("acme", is_active=True, limit=5) == []
    assert await acme.access.list_clients("none", limit=5) == []


async def test_lists_go_page_by_page(acme: Store) -> None:
    """In the order of ids, each behind the last, nothing twice."""
    for n in range(5):
        await acme.access.create_tenant(Tenant(tenant_id=f"t{n}", mode="LIVE", is_active=n != 2))
        await acme.access.create_client(ClientAccount(tenant_id="acme", client_id=f"c{n}"))
        await acme.access.create_api_key(new_key(f"c{n % 2}"))
    first = await acme.access.list_tenants(limit=4)
    rest = await acme.access.list_tenants(after=first[-1].tenant_id, limit=4)
    assert [t.tenant_id for t in first + rest] == ["acme", "t0", "t1", "t2", "t3", "t4"]
    assert [t.tenant_id for t in await acme.access.list_tenants(is_active=False, limit=9)] == ["t2"]
    clients = await acme.access.list_clients("acme", limit=3)
    clients += await acme.access.list_clients("acme", after=clients[-1].client_id, limit=9)
    assert [c.client_id for c in clients] == ["c0", "c1", "c2", "c3", "c4", "shop"]
    keys = await acme.access.list_api_keys("acme", limit=2)
    keys += await acme.access.list_api_keys("acme", after=keys[-1].key_id, limit=9)
    assert len({key.key_id for key in keys}) == len(keys) == 5
    assert {key.client_id for key in await acme.access.list_api_keys("acme", "c1", limit=9)} == {"c1"}
    assert await acme.access.list_api_keys("t0", limit=9) == []


async def test_a_key_is_kept_as_its_digest_and_found_by_its_id(acme: Store) -> None:
    """Who presents the secret matches; nothing of it is in the database."""
    minted = mint()
    key = replace(new_key(expires_at=7), key_id=minted.key_id, prefix=minted.prefix, digest=minted.digest)
    row = await acme.access.create_api_key(key)
    assert row.created_at > 0
    presented = parse(minted.secret)
    assert presented is not None
    credential = await acme.configuration.credential(presented.key_id)
    assert credential is not None
    assert matches(credential.digest, presented.digest)
    assert (credential.tenant_id, credential.client_id, credential.expires_at) == ("acme", "shop", 7)
    assert credential.scopes == {Scope.SEND, Scope.READ}
    assert minted.secret.split("_")[2] not in repr(await rows(acme, "SELECT * FROM api_key"))


async def test_a_revoked_key_is_told_by_the_next_look_of_every_process(acme: Store) -> None:
    """At once here, within the second's look elsewhere; revoking again keeps the first time; not by another tenant."""
    key = await acme.access.create_api_key(new_key())
    other = Configuration(acme._database, acme.keys, {})
    await other.refresh()
    with pytest.raises(NotFound):
        await acme.access.revoke_api_key("other", key.key_id)
    revoked = await acme.access.revoke_api_key("acme", key.key_id)
    assert revoked.revoked_at > 0
    assert await acme.access.revoke_api_key("acme", key.key_id) == revoked
    for configuration in (acme.configuration, other):
        await configuration.refresh_if_changed()
        credential = await configuration.credential(key.key_id)
        assert credential is not None
        assert credential.revoked_at == revoked.revoked_at


async def test_a_key_made_elsewhere_is_found_at_once(acme: Store) -> None:
    """A process that has not looked yet finds the key, its tenant and the tenant's vault in the database."""
    other = Configuration(acme._database, acme.keys, {})
    await other.refresh()
    await acme.access.create_tenant(Tenant(tenant_id="new", mode="LIVE"))
    await acme.access.create_client(ClientAccount(tenant_id="new", client_id="shop"))
    key = await acme.access.create_api_key(replace(new_key(), tenant_id="new"))
    credential = await other.credential(key.key_id)
    assert credential is not None
    assert credential.tenant_id == "new"
    assert "new" in other.snapshot.tenants


async def test_a_key_that_is_not_there_is_looked_for_once_a_second(acme: Store) -> None:
    """Until then it stays unknown though it has come; then it is found."""
    key, other = new_key(), Configuration(acme._database, acme.keys, {})
    assert await other.credential(key.key_id) is None
    began = time.monotonic()
    await acme.access.create_api_key(key)
    seen_absent = await other.credential(key.key_id) is None
    assert seen_absent or time.monotonic() - began >= ABSENT_SECONDS

    async def found() -> bool:
        return await other.credential(key.key_id) is not None

    await until(found, 3 * ABSENT_SECONDS)


async def test_the_last_use_of_keys_is_written_in_batches(acme: Store) -> None:
    """However often keys are used, one write soon, at the latest at the end; it is no change of configuration."""
    keys = [await acme.access.create_api_key(new_key()) for _ in range(3)]
    version = acme.configuration.snapshot.version
    access = Access(acme._database, acme.keys, acme.configuration)
    began = time.time_ns() // 1000
    for key in keys[:2] * 100:
        access.note_used(key.key_id)
    assert [key.last_used_at for key in await acme.access.list_api_keys("acme", limit=9)] == [0, 0, 0]
    await access.close()
    used = {key.key_id: key.last_used_at for key in await acme.access.list_api_keys("acme", limit=9)}
    assert all(used[key.key_id] >= began for key in keys[:2])
    assert used[keys[2].key_id] == 0
    assert await rows(acme, "SELECT version FROM config_version") == [(version,)]


async def test_the_first_start_makes_a_sandbox_and_an_operator_once(store: Store) -> None:
    """The secret is shown before the commit and opens everything; where there is a tenant nothing is made."""
    shown: list[str] = []
    assert await store.bootstrap(shown.append)
    assert not await store.bootstrap(shown.append)
    (secret,) = shown
    presented = parse(secret)
    assert presented is not None
    credential = await store.configuration.credential(presented.key_id)
    assert credential is not None
    assert matches(credential.digest, presented.digest)
    assert (credential.tenant_id, credential.client_id, credential.scopes) == ("default", "operator", frozenset(Scope))
    settings = store.configuration.snapshot.tenants["default"]
    assert (settings.mode, settings.default_region) == (Mode.SANDBOX, "IR")


async def test_a_first_start_that_nobody_saw_did_not_happen(store: Store) -> None:
    """When the secret can not be shown, nothing is kept, and the next start makes another."""

    def fail(_: str) -> None:
        raise OSError("no room for the file")

    with pytest.raises(OSError, match="no room"):
        await store.bootstrap(fail)
    assert await rows(store, "SELECT tenant_id FROM tenant") == []
    assert await rows(store, "SELECT key_id FROM tenant_key") == []
    assert await store.bootstrap(lambda _: None)


async def test_a_rotated_master_key_takes_the_tenants_along(acme: Store) -> None:
    """With both in the ring all are wrapped anew; then the new one alone opens them, and the old one does not."""
    old, new = "test:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", "new:" + "AA" * 21 + "A="
    sealed = acme.keys.get("acme").seal(b"text", "x")

    def keys(*ring: str) -> TenantKeys:
        return TenantKeys(acme._database, Vault(MasterKeys.parse(",".join(ring))))

    assert await keys(new, old).rewrap_all() == 1
    assert await keys(new, old).rewrap_all() == 0
    assert (await keys(new).ready("acme")).open(sealed, "x") == b"text"
    with pytest.raises(Unopenable):
        await keys(old).ready("acme")
    assert await keys(old).rewrap_all() == 0
