"""Sealing, indexing and signing, each for one tenant alone."""

import base64
from itertools import product

import pytest
from hypothesis import given, strategies as st

from server.vault.ring import MasterKeys
from server.vault.vault import TenantVault, Unopenable, Vault, WrappedKey

OLD, NEW = (f"{name}:{base64.b64encode(bytes([n]) * 32).decode()}" for n, name in enumerate(("old", "new"), 1))


def vault(*entries: str) -> Vault:
    return Vault(MasterKeys.parse(",".join(entries or (OLD,))))


def tenant(name: str = "north", of: Vault | None = None) -> TenantVault:
    of = of or vault()
    return of.open_tenant(name, [of.new_tenant_key(name)])


NORTH = tenant("north")


@given(st.binary(max_size=300), st.text(max_size=60))
def test_what_is_sealed_opens_again(plaintext: bytes, about: str) -> None:
    """Any bytes about anything; the seal shows nothing of them and is never the same twice."""
    sealed = NORTH.seal(plaintext, about)
    assert NORTH.open(sealed, about) == plaintext
    assert sealed != NORTH.seal(plaintext, about)
    assert len(plaintext) < 4 or plaintext not in sealed


def test_a_seal_opens_for_its_tenant_and_its_subject_alone() -> None:
    """Rows that are moved to another message or tenant do not open."""
    of = vault()
    key = of.new_tenant_key("north")
    sealed = of.open_tenant("north", [key]).seal(b"text", "body:1")
    for about in ("body:2", "recipient:1", ""):
        with pytest.raises(Unopenable):
            of.open_tenant("north", [key]).open(sealed, about)
    with pytest.raises(Unopenable):
        tenant("south", of).open(sealed, "body:1")
    with pytest.raises(Unopenable):
        of.open_tenant("south", [key])


@given(st.data())
def test_changed_bytes_do_not_open(data: st.DataObject) -> None:
    """One flipped bit anywhere, or a piece cut off, is found out."""
    sealed = NORTH.seal(b"a text of some length", "body:1")
    place, bit = data.draw(st.integers(0, len(sealed) - 1)), data.draw(st.integers(0, 7))
    flipped = bytearray(sealed)
    flipped[place] ^= 1 << bit
    for broken in (bytes(flipped), sealed[:place]):
        with pytest.raises(Unopenable):
            NORTH.open(broken, "body:1")


def test_tenant_and_subject_are_kept_apart() -> None:
    """("a", "bc") is not ("ab", "c"), though their letters are the same and so is the key."""
    a, ab = TenantVault("a", [("00000000", bytes(32))]), TenantVault("ab", [("00000000", bytes(32))])
    with pytest.raises(Unopenable):
        ab.open(a.seal(b"text", "bc"), "c")


def test_a_rotated_tenant_key_opens_the_old_and_keeps_the_index() -> None:
    """The newest key seals; what older ones sealed, indexed and signed stays good."""
    of = vault()
    first, second = of.new_tenant_key("north"), of.new_tenant_key("north")
    before, after = of.open_tenant("north", [first]), of.open_tenant("north", [first, second])
    assert after.open(before.seal(b"old", "x"), "x") == b"old"
    assert after.index("+989120000111") == before.index("+989120000111")
    assert after.verify(b"cursor", before.sign(b"cursor"))
    with pytest.raises(Unopenable):
        before.open(after.seal(b"new", "x"), "x")


def test_master_keys_rotate_by_wrapping_anew() -> None:
    """With both in the ring everything opens; once wrapped anew, the old one may leave; the key itself stays."""
    old, both, new = vault(OLD), vault(NEW, OLD), vault(NEW)
    key = old.new_tenant_key("north")
    sealed = old.open_tenant("north", [key]).seal(b"text", "x")
    with pytest.raises(Unopenable):
        new.open_tenant("north", [key])
    fresh = both.rewrapped("north", key)
    assert fresh is not None
    assert new.open_tenant("north", [fresh]).open(sealed, "x") == b"text"
    assert both.rewrapped("north", fresh) is None
    with pytest.raises(Unopenable):
        vault(NEW).rewrapped("north", key)


def test_a_wrapped_key_is_bound_to_its_tenant_its_id_and_its_master_key() -> None:
    """Rows of tenant_key can not be exchanged, renamed or cut."""
    of, key = vault(NEW, OLD), vault(OLD).new_tenant_key("north")
    for wrapped in (
        b"",
        key.wrapped[:1],
        key.wrapped[:20],
        b"\x02" + key.wrapped[1:],
        key.wrapped.replace(b"old", b"new"),
    ):
        with pytest.raises(Unopenable):
            of.open_tenant("north", [WrappedKey(key.key_id, wrapped)])
    with pytest.raises(Unopenable):
        of.open_tenant("north", [WrappedKey("12345678", key.wrapped)])
    with pytest.raises(Unopenable):
        of.open_tenant("north", [])


def test_an_index_finds_the_same_text_of_the_same_tenant_alone() -> None:
    """Equal texts have equal indexes; nobody without the key can make one; nothing has no index."""
    north, south = tenant("north"), tenant("south")
    phones = [f"+98912000{n:04}" for n in range(50)]
    assert len({v.index(phone) for v, phone in product((north, south), phones)}) == 100
    assert north.index(phones[0]) == north.index(phones[0])
    assert north.index("") == ""
    assert north.fingerprint(phones[0]) != north.index(phones[0])[:8]


def test_a_signature_holds_for_its_payload_and_tenant_alone() -> None:
    """Cursors can not be made up, changed or carried to another tenant."""
    north, south = tenant("north"), tenant("south")
    mac = north.sign(b"payload")
    assert north.verify(b"payload", mac)
    assert not north.verify(b"Payload", mac)
    assert not north.verify(b"payload", mac[:-1])
    assert not north.verify(b"payload", b"")
    assert not south.verify(b"payload", mac)
