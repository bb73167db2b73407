"""Nouns and rows: what is written is what is read."""

import base64
import json
from dataclasses import fields, replace
from functools import cache
from typing import Any, TypeVar

import pytest
from hypothesis import given, strategies as st

from server.model.enums import Channel
from server.model.messages import Attempt, Behind, CodeSource, Content, Due, Event, Follow, Message, Recipient
from server.model.tables import METADATA
from server.model.work import SandboxCopy
from server.store import attempts, rows
from server.store.dialect import Columns
from server.store.sealing import open_content, seal_content, seal_copy, with_code
from server.vault.ring import MasterKeys
from server.vault.vault import TenantVault, Unopenable, Vault

Noun = TypeVar("Noun")

_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
_NUMBER = st.integers(0, 2**62)
st.register_type_strategy(str, _TEXT)
st.register_type_strategy(int, _NUMBER)


def _whole(noun: type[Noun], **given: st.SearchStrategy[Any]) -> st.SearchStrategy[Noun]:
    """Nouns of which no field is left at its default."""
    by_type = {field.name: ... for field in fields(noun)}  # pyright: ignore[reportArgumentType]
    return st.builds(noun, **{**by_type, **given})


_DUE = _whole(Due)
_MESSAGE = _whole(Message, tags=st.lists(_TEXT, max_size=4).map(tuple), due=st.none() | _DUE)
_ATTEMPT = _whole(Attempt, follow=_whole(Follow), behind=_whole(Behind))
_EVENT = _whole(Event, tags=st.lists(_TEXT, max_size=4).map(tuple))
_CODE = st.builds(CodeSource, _TEXT, st.just("key"), st.integers(1, 9), st.integers(4, 10))
_CONTENT = _whole(
    Content,
    recipient=_whole(Recipient, device_tokens=st.lists(_TEXT, max_size=3).map(tuple)),
    params=st.dictionaries(_TEXT, _TEXT, max_size=3),
    code=st.none() | _CODE,
)


@cache
def _tenant_vault() -> TenantVault:
    vault = Vault(MasterKeys.parse("test:" + base64.b64encode(bytes(32)).decode()))
    return vault.open_tenant("north", [vault.new_tenant_key("north")])


@given(_MESSAGE)
def test_a_message_is_read_as_it_was_written(message: Message) -> None:
    """Every field of a message survives its row."""
    assert rows.message_of(rows.message_row(message), message.due) == message


@given(_MESSAGE, _DUE)
def test_what_is_due_is_read_as_it_was_written(message: Message, due: Due) -> None:
    """Every field of what is due survives its row."""
    assert rows.due_of(rows.due_row(message, due)) == due


@given(_ATTEMPT)
def test_an_attempt_is_read_as_it_was_written(attempt: Attempt) -> None:
    """Every field of an attempt survives its row."""
    assert attempts.attempt_of(attempts.attempt_row("m", attempt)) == attempt


@given(_EVENT)
def test_an_event_is_read_as_it_was_written(event: Event) -> None:
    """Every field of an event survives its row."""
    assert rows.event_of(rows.event_row(event, 1)) == event


@given(_MESSAGE)
def test_what_a_fact_may_change_of_a_message_is_what_stands_in_its_row(message: Message) -> None:
    """The row for a change holds the same values as the whole row, column by column."""
    whole = dict(zip(rows.MESSAGE.names, rows.message_row(message), strict=True))
    assert dict(zip(rows.MESSAGE_MOVED.names, rows.moved_row(message), strict=True)).items() <= whole.items()


@given(_CONTENT)
def test_content_is_opened_as_it_was_sealed(content: Content) -> None:
    """Every field of the content survives its seal; under another message's id it does not open, erased it is None."""
    vault = _tenant_vault()
    if content.code is not None:
        content = with_code(vault, replace(content, code=replace(content.code, key_id=vault.code_key)))
    body, recipient = seal_content(vault, "m-1", content)
    assert open_content(vault, "m-1", body, recipient) == content
    with pytest.raises(Unopenable):
        open_content(vault, "m-2", body, recipient)
    assert open_content(vault, "m-1", b"", b"") is None


def test_a_plain_text_is_sealed_as_the_release_before_did() -> None:
    """While replicas are replaced one by one, the older ones open what the newer ones accept."""
    vault = _tenant_vault()
    body, _ = seal_content(vault, "m-1", Content(Recipient(phone="+989120000111"), "text", "sender"))
    assert json.loads(vault.open(body, "body:m-1")) == ["text", "sender"]
    sealed = seal_copy(vault, "m-1", SandboxCopy(1, Channel.SMS, "main", "+989120000111", "sender", "text"))
    assert json.loads(vault.open(sealed, "sandbox:m-1:1")) == ["+989120000111", "sender", "text"]


@pytest.mark.parametrize(
    "columns",
    [
        rows.MESSAGE_NEW,
        rows.MESSAGE_TAG,
        rows.DUE,
        attempts.ATTEMPT,
        rows.EVENT_NEW,
        rows.IDEMPOTENCY,
        rows.SANDBOX_MESSAGE,
    ],
    ids=lambda columns: columns.table,
)
def test_a_new_row_fills_every_column_of_its_table(columns: Columns) -> None:
    """No column is left to a default that a migration would have to know."""
    declared = {column.name for column in METADATA.tables[columns.table].c}
    assert set(columns.names) == declared - {"id"} if columns.table == "event" else set(columns.names) == declared
