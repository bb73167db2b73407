"""What is judged of a message when it is accepted: whether it can reach anybody."""

from dataclasses import replace

import pytest

from server.model.accounts import Account
from server.model.configuration import TenantSettings
from server.model.enums import Channel, MessageClass, Mode, State
from server.model.errors import AngariumError, Invalid, Precondition, Reason
from server.model.messages import Content, Message, NewMessage, Recipient
from server.model.reach import require_reach
from server.model.routing import Rule, Step

LIVE = TenantSettings("shop", Mode.LIVE, is_active=True)
SANDBOX = TenantSettings("shop", Mode.SANDBOX, is_active=True)
IRAN_ONLY = replace(LIVE, allowed_countries=frozenset({"IR"}))
PHONE = Recipient(phone="+989120000111")
EMAIL = Recipient(email="a@example.com")
BOTH = Recipient(phone="+989120000111", email="a@example.com")


def new(
    recipient: Recipient = PHONE, channel: Channel | None = None, text: str = "Paid.", sender: str = ""
) -> NewMessage:
    message = Message(
        id="m",
        tenant_id="shop",
        client_id="c",
        intent="PAID",
        message_class=MessageClass.TRANSACTIONAL,
        state=State.ACCEPTED,
        created_at=1,
        updated_at=1,
        expires_at=2,
        channel_wanted=channel,
    )
    return NewMessage(message, Content(recipient, text, sender))


def account(name: str, *channels: Channel, **fields: object) -> Account:
    return replace(Account("shop", name, name, "t", channels), **fields)


SMS = account("sms", Channel.SMS)
MAIL = account("mail", Channel.EMAIL)
CALL = account("call", Channel.VOICE)
INSIDE = account("inside", Channel.SMS, in_process=True)
OWN_LINE = account("own", Channel.SMS, settings={"sender": "1000"})


def by(*steps: Step) -> list[Rule]:
    return [Rule("r", ("PAID",), steps)]


def reason(error: AngariumError) -> Reason:
    return error.reason


@pytest.mark.parametrize(
    ("asked", "tenant", "rules", "accounts", "expected"),
    [
        (new(), LIVE, [], [], Reason.NO_ROUTE),
        (new(), LIVE, [], [replace(SMS, is_active=False)], Reason.NO_ROUTE),
        (new(), LIVE, [], [replace(SMS, configured=False)], Reason.NO_ROUTE),
        (new(), SANDBOX, [], [SMS], Reason.NO_ROUTE),
        (new(), LIVE, [], [CALL], Reason.NO_ROUTE),
        (new(channel=Channel.EMAIL, recipient=BOTH), LIVE, [], [SMS], Reason.NO_ROUTE),
        (new(), LIVE, by(Step(providers=("nobody",))), [SMS], Reason.NO_ROUTE),
        (new(), LIVE, by(Step(providers=("sms",))), [replace(SMS, is_active=False)], Reason.NO_ROUTE),
        (new(recipient=EMAIL), LIVE, [], [SMS], Reason.RECIPIENT_UNRESOLVED),
        (new(recipient=Recipient(user_id="u")), LIVE, [], [SMS, MAIL], Reason.RECIPIENT_UNRESOLVED),
        (new(recipient=EMAIL), LIVE, by(Step(Channel.SMS)), [SMS, MAIL], Reason.RECIPIENT_UNRESOLVED),
        (new(recipient=Recipient(phone="+4915123456789")), IRAN_ONLY, [], [SMS], Reason.COUNTRY_NOT_ALLOWED),
        (new(sender="2000"), LIVE, [], [OWN_LINE], Reason.SENDER_NOT_ALLOWED),
        (new(text="س" * 671), LIVE, [], [SMS], Reason.INVALID_FIELD),
    ],
)
def test_what_cannot_go_out(
    asked: NewMessage, tenant: TenantSettings, rules: list[Rule], accounts: list[Account], expected: Reason
) -> None:
    """Each way in which nobody can be reached has its reason."""
    with pytest.raises((Precondition, Invalid)) as refused:
        require_reach(asked, tenant, rules, accounts)
    assert reason(refused.value) == expected


@pytest.mark.parametrize(
    ("asked", "tenant", "rules", "accounts", "rule", "segments"),
    [
        (new(), LIVE, [], [SMS], "", 1),
        (new(), SANDBOX, [], [SMS, INSIDE], "", 1),
        (new(), SANDBOX, [], [replace(SMS, base_url="http://127.0.0.1:1")], "", 1),
        (new(recipient=EMAIL, text="x" * 1_600), LIVE, [], [SMS, MAIL], "", 0),
        (new(recipient=BOTH, channel=Channel.EMAIL), IRAN_ONLY, [], [MAIL], "", 0),
        (new(text="س" * 71), LIVE, by(Step(Channel.SMS), Step(Channel.EMAIL)), [SMS, MAIL], "r", 2),
        (new(sender="2000"), LIVE, [], [OWN_LINE, SMS], "", 1),
        (new(sender="1000"), LIVE, [], [OWN_LINE], "", 1),
        (new(channel=Channel.VOICE), LIVE, [], [CALL], "", 0),
    ],
)
def test_what_can(
    asked: NewMessage,
    tenant: TenantSettings,
    rules: list[Rule],
    accounts: list[Account],
    rule: str,
    segments: int,
) -> None:
    """A message with a way out gets its rule and its parts, and is otherwise as it was."""
    found = require_reach(asked, tenant, rules, accounts)
    assert (found.message.rule, found.message.segments) == (rule, segments)
    assert found == replace(asked, message=replace(asked.message, rule=rule, segments=segments))
