"""Seals what names a person or holds a secret. Each tenant has keys of its own, wrapped by the master key."""

import hmac
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from server.model.messages import CodeSource
from server.vault.ring import KEY_LENGTH, MasterKeys

_FORMAT = b"\x01"
_NONCE_LENGTH = 12
_KEY_ID_LENGTH = 8
_MAC_LENGTH = 16


class Unopenable(Exception):
    """What was sealed can not be opened: another key, another place, or changed bytes."""


@dataclass(frozen=True, slots=True)
class WrappedKey:
    """A tenant key as it is stored: its id, and its bytes under a master key."""

    key_id: str
    wrapped: bytes = field(repr=False)


class Vault:
    """Makes, wraps and unwraps tenant keys under a ring of master keys. Safe to use from every thread."""

    def __init__(self, master_keys: MasterKeys) -> None:
        self._first = master_keys.first
        self._wrappers = {name: AESGCM(_subkey(key, "wrap")) for name, key in master_keys.keys.items()}

    def new_tenant_key(self, tenant_id: str) -> WrappedKey:
        """A new random key for this tenant, wrapped by the first master key."""
        key_id = secrets.token_hex(_KEY_ID_LENGTH // 2)
        return WrappedKey(key_id, self._wrap(tenant_id, key_id, secrets.token_bytes(KEY_LENGTH)))

    def open_tenant(self, tenant_id: str, keys: Sequence[WrappedKey]) -> "TenantVault":
        """The vault of a tenant from its keys, oldest first. Raises Unopenable: no keys, or no master key fits."""
        if not keys:
            raise Unopenable(f"tenant {tenant_id!r} has no key")
        return TenantVault(tenant_id, [(key.key_id, self._unwrap(tenant_id, key)) for key in keys])

    def opens(self, tenant_id: str, key: WrappedKey) -> bool:
        """Whether a master key of the ring opens this tenant key."""
        try:
            self._unwrap(tenant_id, key)
        except Unopenable:
            return False
        return True

    def rewrapped(self, tenant_id: str, key: WrappedKey) -> WrappedKey | None:
        """The same key under the first master key; None when it is so already. Raises Unopenable."""
        if _master_of(key.wrapped) == self._first:
            return None
        return WrappedKey(key.key_id, self._wrap(tenant_id, key.key_id, self._unwrap(tenant_id, key)))

    def _wrap(self, tenant_id: str, key_id: str, key: bytes) -> bytes:
        name = self._first.encode()
        nonce = os.urandom(_NONCE_LENGTH)
        front = _FORMAT + bytes((len(name),)) + name
        return front + nonce + self._wrappers[self._first].encrypt(nonce, key, _bound(front, tenant_id, key_id))

    def _unwrap(self, tenant_id: str, key: WrappedKey) -> bytes:
        name = _master_of(key.wrapped)
        wrapper = self._wrappers.get(name)
        if wrapper is None:
            raise Unopenable(f"the master key {name!r} that wrapped the key of tenant {tenant_id!r} is not in the ring")
        length = 2 + len(name)
        return _decrypt(wrapper, key.wrapped, length, _bound(key.wrapped[:length], tenant_id, key.key_id))


class TenantVault:
    """Seals, opens, indexes and signs for one tenant. Safe to use from every thread."""

    def __init__(self, tenant_id: str, keys: Sequence[tuple[str, bytes]]) -> None:
        self.tenant_id = tenant_id
        self._seals = {key_id.encode(): AESGCM(_subkey(key, "seal")) for key_id, key in keys}
        self._current = keys[-1][0].encode()
        self._derive = {key_id: _subkey(key, "derive") for key_id, key in keys}
        self._verify = {key_id: _subkey(key, "verify") for key_id, key in keys}
        self._cursor = [_subkey(key, "cursor") for _, key in reversed(keys)]
        self._index = _subkey(keys[0][1], "index")  # never rotated: what is indexed stays findable
        self._receipt = _subkey(keys[0][1], "receipt")  # nor this: providers keep the URLs that they were given

    def seal(self, plaintext: bytes, about: str) -> bytes:
        """Encrypts by AES-256-GCM, bound to the tenant and to what it is about (`body:<message id>`)."""
        front = _FORMAT + self._current
        nonce = os.urandom(_NONCE_LENGTH)
        bound = _bound(front, self.tenant_id, about)
        return front + nonce + self._seals[self._current].encrypt(nonce, plaintext, bound)

    def open(self, sealed: bytes, about: str) -> bytes:
        """What was sealed about this very thing. Raises Unopenable."""
        length = len(_FORMAT) + _KEY_ID_LENGTH
        front = sealed[:length]
        cipher = self._seals.get(front[1:]) if front[:1] == _FORMAT else None
        if cipher is None:
            raise Unopenable(f"no key of tenant {self.tenant_id!r} fits {about!r}")
        return _decrypt(cipher, sealed, length, _bound(front, self.tenant_id, about))

    def index(self, text: str) -> str:
        """A keyed hash by which a text can be found without being stored; "" for "". 32 hex digits."""
        return hmac.digest(self._index, text.encode(), "sha256").hex()[:32] if text else ""

    def fingerprint(self, secret: str) -> str:
        """Eight hex digits by which two people can tell whether they mean the same secret; useless without the key."""
        return hmac.digest(self._index, b"fingerprint\x00" + secret.encode(), "sha256").hex()[:8]

    def receipt_token(self, account_uid: str) -> str:
        """The part of the URL for an account's receipts that nobody can guess: 32 hex digits, always the same."""
        return hmac.digest(self._receipt, account_uid.encode(), "sha256").hex()[:32]

    @property
    def code_key(self) -> str:
        """The id of the key by which new codes are derived."""
        return self._current.decode()

    def code(self, source: CodeSource) -> str:
        """The decimal code that belongs to a verification, the same each time. Raises Unopenable: the key is gone."""
        key = _key_of(self._derive, source.key_id)
        digest = hmac.digest(key, f"{source.verification_id}\x00{source.generation}".encode(), "sha256")
        return f"{int.from_bytes(digest[:8], 'big') % 10**source.length:0{source.length}}"

    def code_mac(self, key_id: str, verification_id: str, code: str) -> bytes:
        """What a code is recognised by, 32 bytes; tells nothing of it without the key. Raises Unopenable."""
        key = _key_of(self._verify, key_id)
        return hmac.digest(key, f"{verification_id}\x00{code}".encode(), "sha256")

    def sign(self, payload: bytes) -> bytes:
        """The mac of a cursor or page token: 16 bytes."""
        return hmac.digest(self._cursor[0], payload, "sha256")[:_MAC_LENGTH]

    def verify(self, payload: bytes, mac: bytes) -> bool:
        """Whether this tenant signed the payload, under any of its keys. Constant time for each."""
        macs = [hmac.digest(key, payload, "sha256")[:_MAC_LENGTH] for key in self._cursor]
        return any([hmac.compare_digest(mac, expected) for expected in macs])  # noqa: C419 - all are compared


def _key_of(keys: Mapping[str, bytes], key_id: str) -> bytes:
    key = keys.get(key_id)
    if key is None:
        raise Unopenable(f"there is no tenant key {key_id!r}")
    return key


def _subkey(key: bytes, purpose: str) -> bytes:
    return HKDF(algorithm=SHA256(), length=KEY_LENGTH, salt=None, info=b"angarium/" + purpose.encode()).derive(key)


def _bound(front: bytes, tenant_id: str, about: str) -> bytes:
    """What a seal is bound to; the length keeps ("a", "bc") and ("ab", "c") apart."""
    tenant = tenant_id.encode()
    return front + len(tenant).to_bytes(4, "big") + tenant + about.encode()


def _master_of(wrapped: bytes) -> str:
    if len(wrapped) < 2 or wrapped[:1] != _FORMAT:  # noqa: PLR2004 - the format and the length of the name
        raise Unopenable("a tenant key is stored in a format that is not known")
    return wrapped[2 : 2 + wrapped[1]].decode("ascii", errors="replace")


def _decrypt(cipher: AESGCM, sealed: bytes, offset: int, bound: bytes) -> bytes:
    nonce, rest = sealed[offset : offset + _NONCE_LENGTH], sealed[offset + _NONCE_LENGTH :]
    try:
        return cipher.decrypt(nonce, rest, bound)
    except (InvalidTag, ValueError):  # ValueError: too short to hold a nonce
        raise Unopenable("sealed bytes do not open: another key, another place, or changed") from None
