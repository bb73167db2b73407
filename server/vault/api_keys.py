"""API keys: `ang_<key id>_<secret>_<checksum>`. Only a digest is kept; the checksum tells a typing error early."""

import hashlib
import hmac
import re
import secrets
import zlib
from dataclasses import dataclass, field

_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_SECRET_BYTES = 32
_SECRET_LENGTH = 43
_CHECK_LENGTH = 6
_KEY_ID_LENGTH = 12
_SHAPE = re.compile(
    rf"ang_(?P<key_id>[0-9A-Za-z]{{{_KEY_ID_LENGTH}}})_[0-9A-Za-z]{{{_SECRET_LENGTH}}}_[0-9A-Za-z]{{{_CHECK_LENGTH}}}",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Minted:
    """A new key: `secret` is shown once, `prefix` may be shown always, `digest` is kept."""

    secret: str = field(repr=False)
    key_id: str
    prefix: str
    digest: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Presented:
    """A key as a caller presents it: well formed, not yet known to be right."""

    key_id: str
    digest: bytes = field(repr=False)


def mint() -> Minted:
    """A new key with 256 random bits."""
    key_id = "".join(secrets.choice(_DIGITS) for _ in range(_KEY_ID_LENGTH))
    prefix = f"ang_{key_id}"
    body = f"{prefix}_{_base62(secrets.randbits(8 * _SECRET_BYTES), _SECRET_LENGTH)}"
    secret = f"{body}_{_checksum(body)}"
    return Minted(secret, key_id, prefix, _digest(secret))


def parse(text: str) -> Presented | None:
    """The id and digest of a key; None for what is no key, or has a typing error."""
    shape = _SHAPE.fullmatch(text)
    if shape is None:
        return None
    body, _, checksum = text.rpartition("_")
    return Presented(shape["key_id"], _digest(text)) if checksum == _checksum(body) else None


def matches(digest: bytes, other: bytes) -> bool:
    """Whether two digests are equal, in constant time."""
    return hmac.compare_digest(digest, other)


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def _checksum(body: str) -> str:
    return _base62(zlib.crc32(body.encode()), _CHECK_LENGTH)


def _base62(number: int, length: int) -> str:
    digits = ""
    for _ in range(length):
        number, digit = divmod(number, 62)
        digits = _DIGITS[digit] + digits
    return digits
