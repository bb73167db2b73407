"""What an account with Twilio needs, as a form asks for it and as it is judged."""

from dataclasses import replace

import pytest

from server.api.convert.providers import check_account, provider_type
from server.model.configuration import Snapshot
from server.model.errors import Invalid
from server.providers.roster import Roster
from server.providers.transport import Transport
from server.providers.twilio import TYPE
from tests.providers.twilio_upstream import ACCOUNT_SID, KEY_SID, NUMBER, SERVICE_SID, twilio_at

TYPES = {TYPE.type: TYPE}


def test_a_form_can_be_made_of_it() -> None:
    """What must be there, what is secret, and that a sender's number or a messaging service will do."""
    shown = {setting.name: setting for setting in provider_type(TYPE).settings}
    assert [name for name, setting in shown.items() if setting.required] == ["account_sid", "auth_token"]
    assert [name for name, setting in shown.items() if setting.secret] == ["auth_token", "api_key_secret"]
    assert {setting.control for name, setting in shown.items() if setting.secret} == {"password"}
    assert "required_without:messaging_service_sid" in shown["from"].rules
    assert all(setting.label and setting.help for setting in shown.values())
    assert provider_type(TYPE).requires_setup


@pytest.mark.parametrize(
    ("there", "missing"),
    [
        ((), ["account_sid", "auth_token", "from"]),
        (("account_sid", "auth_token"), ["from"]),
        (("account_sid", "auth_token", "from"), []),
        (("account_sid", "auth_token", "messaging_service_sid"), []),
        (("account_sid", "auth_token", "messaging_service_sid", "from"), []),
        (("account_sid", "api_key_sid", "api_key_secret", "from"), ["auth_token"]),
    ],
)
def test_what_is_missing(there: tuple[str, ...], missing: list[str]) -> None:
    """The token proves receipts, so no key stands in for it."""
    assert TYPE.missing(there) == missing


async def test_an_account_without_a_sender_does_not_live(transport: Transport) -> None:
    """With a number or a service it does."""
    service = twilio_at("http://127.0.0.1:9", {"messaging_service_sid": SERVICE_SID})
    number = replace(twilio_at("http://127.0.0.1:9"), uid="u-3")
    neither = replace(number, uid="u-4", settings={"account_sid": ACCOUNT_SID, "from": ""})
    roster = Roster(transport)
    roster.follow(Snapshot(accounts={"t": (service, number, neither)}))
    assert [roster.provider(uid) is not None for uid in ("u-2", "u-3", "u-4")] == [True, True, False]


@pytest.mark.parametrize("sender", [NUMBER, "+989120000111", "12345", "Angarium", "My Shop 24", "A-1_&+"])
def test_senders_of_every_kind(sender: str) -> None:
    """A number, a short code, or a name with a letter in it."""
    check_account(twilio_at("", {"from": sender, "api_key_sid": KEY_SID, "messaging_service_sid": SERVICE_SID}), TYPES)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("account_sid", "AC0123"),
        ("account_sid", ACCOUNT_SID + "\n"),
        ("account_sid", KEY_SID),
        ("messaging_service_sid", ACCOUNT_SID),
        ("api_key_sid", SERVICE_SID),
        ("from", "09"),
        ("from", "+0912"),
        ("from", "A name too long"),
        ("from", "123456789"),
        ("from", "سلام"),
        ("from", "<b>"),
        ("auth_token", "not here"),
    ],
)
def test_what_is_spelled_wrongly_is_refused(name: str, value: str) -> None:
    """Each by the field that holds it."""
    account = twilio_at("", {"from": NUMBER, name: value})
    with pytest.raises(Invalid) as refused:
        check_account(account, TYPES)
    assert [violation.field for violation in refused.value.violations] == [f"settings.{name}"]
