"""The URLs that providers are given: unguessable, the same for ever, and read back as they were made."""

import pytest
from pydantic import ValidationError

from server.model.reporting import Reference, reference_of, report_url
from server.settings import Settings
from server.vault.identity import new_id
from server.vault.ring import MasterKeys
from server.vault.vault import TenantVault, Vault
from tests.gateway import MASTER_KEY


def vault_of(tenant: str, keys: int = 1) -> TenantVault:
    """The vault of a tenant that has so many keys, the first of them new."""
    vault = Vault(MasterKeys.parse(MASTER_KEY))
    return vault.open_tenant(tenant, [vault.new_tenant_key(tenant) for _ in range(keys)])


def test_a_token_is_of_one_account_and_one_tenants_key() -> None:
    """32 hex digits that no other account, no other key and no other use of the key has."""
    vault, other = vault_of("north"), vault_of("north")
    tokens = [vault.receipt_token("a"), vault.receipt_token("b"), other.receipt_token("a"), vault.index("a")]
    assert len(set(tokens)) == 4
    assert all(len(token) == 32 and int(token, 16) for token in tokens)
    assert vault.receipt_token("a") == tokens[0]


def test_a_token_stays_when_the_tenants_key_is_rotated() -> None:
    """Providers keep the URLs that they were given."""
    vault = Vault(MasterKeys.parse(MASTER_KEY))
    first, second = vault.new_tenant_key("north"), vault.new_tenant_key("north")
    token = vault.open_tenant("north", [first]).receipt_token("a")
    assert vault.open_tenant("north", [first, second]).receipt_token("a") == token
    assert vault.open_tenant("north", [second]).receipt_token("a") != token


def test_a_url_names_the_attempt_that_it_was_made_for() -> None:
    """What `report_url` writes `reference_of` reads; nothing else is a reference."""
    id_ = new_id()
    url = report_url("https://notify.example.test/gate/", "uid", "0a", Reference(id_, 3))
    assert url == f"https://notify.example.test/gate/receipts/uid/0a?m={id_}&n=3"
    assert reference_of({"m": id_, "n": "3"}) == Reference(id_, 3)
    wrong = [("m", ""), ("m", f"{id_}\x00"), ("m", id_[:-1]), ("n", "0"), ("n", "-1"), ("n", "٣"), ("n", "1" * 20)]
    for name, value in wrong:
        assert reference_of({"m": id_, "n": "3", name: value}) == Reference()
    assert reference_of({}) == Reference()


@pytest.mark.parametrize("url", ["https://notify.example.com", "http://127.0.0.1:8080", "https://[::1]:8443/gate/"])
def test_a_public_url_may_have_a_port_and_a_path(url: str) -> None:
    """It is kept as it is given."""
    assert Settings(http_listen="0.0.0.0:8080", public_url=url).public_url == url


@pytest.mark.parametrize(
    "settings",
    [
        {"public_url": "https://notify.example.com"},
        *(
            {"http_listen": "127.0.0.1:8080", "public_url": url}
            for url in (
                "notify.example.com",
                "ftp://notify.example.com",
                "https://",
                "https://notify.example.com?x=1",
                "https://notify.example.com/#rc=2",
                "https://user@notify.example.com",
                "https://notify.example.com:99999",
                "https://notify.example.com:port",
                "https://notify.example.com/a b",
                "https://notify.example.com\n",
            )
        ),
        *({"http_listen": listen} for listen in ("8080", ":8080", "127.0.0.1", "127.0.0.1:x", "127.0.0.1:65536")),
    ],
)
def test_settings_that_would_lead_nowhere_are_refused(settings: dict[str, str]) -> None:
    """A public URL needs a server behind it and must bear paths; an address has a host and a port."""
    with pytest.raises(ValidationError):
        Settings(**settings)  # pyright: ignore[reportArgumentType] - one field or the other
