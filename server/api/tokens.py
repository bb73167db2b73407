"""Cursors and page tokens: opaque to callers, signed by the tenant's key, bound to what they follow.

A token is base64url of a kind, a payload and a mac. The mac covers the kind, the tenant (its key is its own, in this
installation alone), what the token is good for, and the payload; so a token of another tenant, list or filter does
not verify.
"""

import base64
import binascii
import hashlib
import json
import struct
import uuid
from collections.abc import Sequence
from dataclasses import asdict

from server.model.errors import Invalid, Reason
from server.model.watching import Filter, LogCursor, MessageCursor
from server.vault.vault import TenantVault

TOKEN_CHARS_MAX = 512
_MAC_BYTES = 16
_MESSAGE = struct.Struct(">16sIQ")
_LOG = struct.Struct(">QQQ")


def message_cursor(vault: TenantVault, cursor: MessageCursor) -> str:
    """The cursor of a place in one message's log."""
    payload = _MESSAGE.pack(uuid.UUID(cursor.message_id).bytes, cursor.seq, cursor.at)
    return _sealed(vault, b"m", b"", payload)


def read_message_cursor(vault: TenantVault, text: str, message_id: str) -> MessageCursor | None:
    """The place in this very message's log; None for the one before its first event. Raises Invalid(CURSOR_INVALID)."""
    payload = _opened(vault, b"m", b"", text)
    if payload is None or len(payload) != _MESSAGE.size:
        raise _bad_cursor()
    raw_id, seq, at = _MESSAGE.unpack(payload)
    if str(uuid.UUID(bytes=raw_id)) != message_id:
        raise _bad_cursor()
    return MessageCursor(message_id, seq, at) if seq else None


def log_cursor(vault: TenantVault, cursor: LogCursor, wanted: Filter) -> str:
    """The cursor of a place in the tenant's log, good for watching with this filter."""
    return _sealed(vault, b"l", _bytes_of(wanted), _LOG.pack(cursor.log_epoch, cursor.xid, cursor.id))


def read_log_cursor(vault: TenantVault, text: str, wanted: Filter) -> LogCursor:
    """The place in the tenant's log that was told for this very filter. Raises Invalid(CURSOR_INVALID)."""
    payload = _opened(vault, b"l", _bytes_of(wanted), text)
    if payload is None or len(payload) != _LOG.size:
        raise _bad_cursor()
    return LogCursor(*_LOG.unpack(payload))


def page_token(vault: TenantVault, listing: str, after: Sequence[str]) -> str:
    """The token of the page behind the entry with these keys. `listing` names the list and what chooses its entries."""
    payload = json.dumps(list(after), ensure_ascii=False, separators=(",", ":")).encode()
    return _sealed(vault, b"p", listing.encode(), payload)


def read_page_token(vault: TenantVault, listing: str, text: str) -> list[str]:
    """The keys of the entry that the page stands behind; [] for the first page. Raises Invalid(PAGE_TOKEN_INVALID)."""
    if not text:
        return []
    payload = _opened(vault, b"p", listing.encode(), text)
    if payload is None:
        message = "The page token was not made for this list, these fields and this tenant."
        raise Invalid(Reason.PAGE_TOKEN_INVALID, message)
    return json.loads(payload)


def _sealed(vault: TenantVault, kind: bytes, good_for: bytes, payload: bytes) -> str:
    mac = vault.sign(_signed(vault, kind, good_for, payload))
    return base64.urlsafe_b64encode(kind + payload + mac).decode().rstrip("=")


def _opened(vault: TenantVault, kind: bytes, good_for: bytes, text: str) -> bytes | None:
    raw = _decoded(text)
    if raw is None or len(raw) < 1 + _MAC_BYTES or raw[:1] != kind:
        return None
    payload, mac = raw[1:-_MAC_BYTES], raw[-_MAC_BYTES:]
    return payload if vault.verify(_signed(vault, kind, good_for, payload), mac) else None


def _decoded(text: str) -> bytes | None:
    if not text.isascii() or len(text) > TOKEN_CHARS_MAX:
        return None
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None


def _signed(vault: TenantVault, kind: bytes, good_for: bytes, payload: bytes) -> bytes:
    tenant = hashlib.sha256(vault.tenant_id.encode()).digest()
    return kind + tenant + hashlib.sha256(good_for).digest() + payload


def _bytes_of(wanted: Filter) -> bytes:
    """The filter's content in one spelling, whatever the order of its lists."""
    return json.dumps(asdict(wanted), sort_keys=True, default=sorted).encode()


def _bad_cursor() -> Invalid:
    return Invalid(Reason.CURSOR_INVALID, "The cursor was not made for this tenant and this message or filter.")
