"""Cursors and page tokens hold for what they were made for, and for nothing else."""

import base64

import pytest

from server.api.tokens import (
    TOKEN_CHARS_MAX,
    log_cursor,
    message_cursor,
    page_token,
    read_log_cursor,
    read_message_cursor,
    read_page_token,
)
from server.model.enums import State
from server.model.errors import Invalid, Reason
from server.model.watching import Filter, LogCursor, MessageCursor
from server.vault.identity import new_id
from server.vault.ring import MasterKeys
from server.vault.vault import TenantVault, Vault

VAULT = Vault(MasterKeys.parse("test:" + base64.b64encode(bytes(range(32))).decode()))


def tenant(name: str) -> TenantVault:
    return VAULT.open_tenant(name, [VAULT.new_tenant_key(name)])


SHOP, MALL = tenant("shop"), tenant("mall")
MESSAGE = new_id()
PLACE = LogCursor(1_790_000_000_000, 2**63, 2**62)
WANTED = Filter(states=frozenset({State.SENT, State.FAILED}), tags=frozenset({"a", "b"}))


def test_a_cursor_comes_back_as_it_was() -> None:
    """Every number of a cursor survives, the largest too, within the promised length."""
    of_message = message_cursor(SHOP, MessageCursor(MESSAGE, 2**31 - 1, 1_790_000_000_000_000))
    of_log = log_cursor(SHOP, PLACE, WANTED)
    assert read_message_cursor(SHOP, of_message, MESSAGE) == MessageCursor(MESSAGE, 2**31 - 1, 1_790_000_000_000_000)
    assert read_log_cursor(SHOP, of_log, WANTED) == PLACE
    assert max(len(of_message), len(of_log)) <= TOKEN_CHARS_MAX


def test_a_filter_is_the_same_whatever_the_order_of_its_lists() -> None:
    """Sets have no order that counts."""
    same = Filter(states=frozenset({State.FAILED, State.SENT}), tags=frozenset({"b", "a"}))
    assert read_log_cursor(SHOP, log_cursor(SHOP, PLACE, WANTED), same) == PLACE


@pytest.mark.parametrize("wanted", [Filter(), Filter(states=WANTED.states), Filter(tags=frozenset({"a,b"}))])
def test_a_cursor_of_another_filter_is_refused(wanted: Filter) -> None:
    """A cursor for one filter is none for another."""
    with pytest.raises(Invalid) as refused:
        read_log_cursor(SHOP, log_cursor(SHOP, PLACE, WANTED), wanted)
    assert refused.value.reason == Reason.CURSOR_INVALID


def test_a_cursor_of_another_tenant_message_or_kind_is_refused() -> None:
    """A cursor holds for one tenant and one message; that of a message is none of the log."""
    mine = message_cursor(SHOP, MessageCursor(MESSAGE, 1, 5))
    for read in (
        lambda: read_message_cursor(MALL, mine, MESSAGE),
        lambda: read_message_cursor(SHOP, mine, new_id()),
        lambda: read_log_cursor(SHOP, mine, Filter()),
        lambda: read_message_cursor(SHOP, log_cursor(SHOP, PLACE, Filter()), MESSAGE),
    ):
        with pytest.raises(Invalid):
            read()


def test_no_changed_bit_passes() -> None:
    """Whatever bit of a cursor is turned, it is refused."""
    raw = base64.urlsafe_b64decode(message_cursor(SHOP, MessageCursor(MESSAGE, 1, 5)) + "==")
    for position in range(len(raw) * 8):
        turned = bytearray(raw)
        turned[position // 8] ^= 1 << position % 8
        with pytest.raises(Invalid):
            read_message_cursor(SHOP, base64.urlsafe_b64encode(turned).decode().rstrip("="), MESSAGE)


@pytest.mark.parametrize("text", ["x", "سلام", "=", "bQ", "m" * 513, "\x00", "not a token", "bW1t" * 20])
def test_what_is_no_token_is_refused(text: str) -> None:
    """Garbage is CURSOR_INVALID or PAGE_TOKEN_INVALID, never an exception of another kind."""
    with pytest.raises(Invalid) as of_cursor:
        read_message_cursor(SHOP, text, MESSAGE)
    with pytest.raises(Invalid) as of_page:
        read_page_token(SHOP, "list", text)
    assert of_cursor.value.reason == Reason.CURSOR_INVALID
    assert of_page.value.reason == Reason.PAGE_TOKEN_INVALID


def test_a_page_token_is_of_one_list() -> None:
    """The first page needs no token; another list's is refused."""
    token = page_token(SHOP, "list of a", ["5", "name"])
    assert read_page_token(SHOP, "list of a", "") == []
    assert read_page_token(SHOP, "list of a", token) == ["5", "name"]
    with pytest.raises(Invalid):
        read_page_token(SHOP, "list of b", token)
    with pytest.raises(Invalid):
        read_page_token(MALL, "list of a", token)
