"""What is judged of a message when it is accepted: whether it can reach anybody."""

from dataclasses import replace

import pytest

from server.model.accounts import Account
from server.model.configuration import TenantSettings
from server.model.enums import Channel, MessageClass, MessageKind, Mode, State
from server.model.errors import AngariumError, Invalid, NotFound, Precondition, Reason
from server.model.explanation import DETAILS
from server.model.messages import CodeSource, Content, Message, NewMessage, Recipient
from server.model.reach import require_reach
from server.model.routing import Rule, Step
from server.model.segments import SEGMENTS_MAX
from server.model.templates import NO_TEMPLATES, ProviderTemplate, Template, Variant, beside

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
        require_reach(asked, tenant, rules, accounts, NO_TEMPLATES)
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
    found = require_reach(asked, tenant, rules, accounts, NO_TEMPLATES)
    assert (found.message.rule, found.message.segments) == (rule, segments)
    assert found == replace(asked, message=replace(asked.message, rule=rule, segments=segments))


LOGIN = Template(
    "login",
    1,
    "Code %CODE% of %shop%",
    variants=(Variant("", Channel.EMAIL, "%CODE% " * 300),),
    provider_templates=(ProviderTemplate("kept", "login", {"token": "CODE"}),),
)
KEPT = account("kept", Channel.SMS)
DERIVED = CodeSource("v", "k", 1, 6)


def templated(kind: MessageKind | None = None, recipient: Recipient = PHONE, **fields: object) -> NewMessage:
    asked = new(recipient=recipient, text="")
    content = replace(asked.content, params={"shop": "Mall"}, code=DERIVED)
    return replace(asked, message=replace(asked.message, message_kind=kind), content=replace(content, **fields))


def segments(
    asked: NewMessage, *accounts: Account, own: Template | None = LOGIN, rules: list[Rule] | None = None
) -> int:
    """The parts that the message is accepted with; a tenant's other template is `loud`. A text has none of its own."""
    others = {"loud": Template("loud", 1, "%CODE%" * 300)}
    mine = None if asked.content.text else own
    return require_reach(asked, LIVE, rules or [], accounts, beside(others, mine)).message.segments


def test_a_code_that_is_not_yet_derived_takes_its_room() -> None:
    """The parts are those of the first SMS that goes out, with a code of its length in it."""
    fits = Template("t", 1, "%CODE%" + "x" * 154)
    assert segments(templated(), SMS, own=fits) == 1
    assert segments(templated(code=replace(DERIVED, length=7)), SMS, own=fits) == 2
    assert segments(templated(recipient=EMAIL), MAIL) == 0


def test_an_account_that_can_not_say_it_does_not_count() -> None:
    """Without a template of their own, accounts are passed over where one is asked for; without a text, where not."""
    only_kept = replace(LOGIN, text="")
    assert segments(templated(MessageKind.PROVIDER_TEMPLATED), SMS, KEPT) == 1
    assert segments(templated(), SMS, KEPT, own=only_kept) == 0
    for refused in (
        (templated(MessageKind.PROVIDER_TEMPLATED), SMS, LOGIN),
        (templated(MessageKind.TEXT), KEPT, only_kept),
        (templated(), SMS, only_kept),
        (templated(), SMS, None),
    ):
        asked, by_account, own = refused
        with pytest.raises(Precondition) as no_way:
            segments(asked, by_account, own=own)
        assert no_way.value.reason == Reason.NO_ROUTE


def test_too_many_parts_are_the_parameters_fault() -> None:
    """Of a text the text is to blame; what a provider's own template makes of parameters nobody here can count."""
    with pytest.raises(Invalid) as long:
        segments(templated(params={"shop": "س" * 671}), SMS)
    assert [violation.field for violation in long.value.violations] == ["params"]
    assert segments(templated(params={"shop": "س" * 671}), KEPT) > 10


def test_a_rule_that_is_asked_for_by_name() -> None:
    """One that there is not is NOT_FOUND; one that is switched off is no route."""
    asked = new()
    asked = replace(asked, message=replace(asked.message, scenario="r"))
    with pytest.raises(NotFound) as missing:
        segments(asked, SMS)
    assert missing.value.metadata == {"resource": "routing_rule"}
    with pytest.raises(Precondition) as off:
        segments(asked, SMS, rules=[Rule("r", steps=(Step(),), is_active=False)])
    assert off.value.reason == Reason.NO_ROUTE
    assert segments(asked, SMS, rules=[Rule("r", ("PAID",), (Step(),))]) == 1


def test_a_step_says_it_by_a_template_of_its_own() -> None:
    """The parts are those of the step's template; a step whose template is gone can say nothing."""
    steps = (Step(template_key="loud"), Step(template_key="gone"))
    with pytest.raises(Invalid):
        segments(templated(), SMS, rules=by(*steps))
    with pytest.raises(Precondition):
        segments(templated(), SMS, rules=by(*steps[1:]))


OFF, UNSET = replace(SMS, is_active=False), account("unset", Channel.SMS, configured=False)


@pytest.mark.parametrize(
    ("asked", "tenant", "rules", "accounts", "reasons", "why"),
    [
        (new(), SANDBOX, [], [SMS], "sms:NOT_FOR_SANDBOX", f"sms: {DETAILS['NOT_FOR_SANDBOX']}"),
        (new(), LIVE, [], [OFF], "sms:INACTIVE", f"sms: {DETAILS['INACTIVE']}"),
        (new(), LIVE, by(Step(Channel.SMS)), [UNSET], "unset:NOT_CONFIGURED", f"unset: {DETAILS['NOT_CONFIGURED']}"),
        (new(BOTH, Channel.EMAIL), LIVE, [], [SMS], "sms:CHANNEL", f"sms: {DETAILS['CHANNEL']}"),
        (
            new(BOTH, Channel.EMAIL),
            LIVE,
            by(Step(Channel.SMS)),
            [SMS],
            "step 1:CHANNEL",
            f"step 1: {DETAILS['CHANNEL']}",
        ),
        (new(), LIVE, [], [CALL], "call:CHANNEL", f"call: {DETAILS['CHANNEL']}"),
        (new(), LIVE, by(Step(providers=("nobody",))), [SMS], "nobody:UNKNOWN", f"nobody: {DETAILS['UNKNOWN']}"),
        (
            new(),
            LIVE,
            by(Step(providers=("nobody", "sms")), Step(Channel.SMS, ("sms", "mail")), Step(providers=("lost",))),
            [OFF, MAIL],
            "sms:INACTIVE,nobody:UNKNOWN,mail:CHANNEL,lost:UNKNOWN",
            f"sms: {DETAILS['INACTIVE']} nobody, lost: {DETAILS['UNKNOWN']} mail: {DETAILS['CHANNEL']}",
        ),
        (new(), LIVE, [], [], None, "The route has none."),
    ],
)
def test_no_route_says_why(
    asked: NewMessage, tenant: TenantSettings, rules: list[Rule], accounts: list[Account], reasons: str | None, why: str
) -> None:
    """Of the route's accounts by step, each reason once, in the words and sentences of an explanation."""
    with pytest.raises(Precondition) as refused:
        require_reach(asked, tenant, rules, accounts, NO_TEMPLATES)
    assert refused.value.metadata == {"intent": "PAID"} | ({"reasons": reasons} if reasons else {})
    assert refused.value.message == (f"No active provider account can take the message. {why} ExplainRoute tells more.")


def test_no_route_says_who_cannot_say_it() -> None:
    """Beside who has no template for it: who has no address, is switched off, or is not there."""
    rules = by(Step(providers=("sms", "lost")), Step(Channel.EMAIL), Step(providers=("off",)))
    with pytest.raises(Precondition) as refused:
        segments(
            templated(), SMS, MAIL, replace(OFF, name="off"), own=replace(LOGIN, text="", variants=()), rules=rules
        )
    assert refused.value.metadata["reasons"] == "sms:TEMPLATE,lost:UNKNOWN,mail:NO_ADDRESS,off:INACTIVE"
    assert refused.value.message.startswith(
        f"No provider account of the route can say the message. sms: {DETAILS['TEMPLATE']}"
    )
    assert refused.value.message.endswith(" ExplainRoute tells more.")


@pytest.mark.parametrize("letter", ["a", "س", "\U0001f4e8"])
@pytest.mark.parametrize("count", [6, 20])
def test_what_no_route_says_is_bounded(letter: str, count: int) -> None:
    """However many accounts a rule names, and whatever they are called, both texts go out uncut, with whole words."""
    names = tuple(f"{n:02}{letter * 61}" for n in range(count))
    accounts = [account(name, Channel.SMS, is_active=n % 2 == 0, configured=False) for n, name in enumerate(names)]
    with pytest.raises(Precondition) as refused:
        require_reach(new(), LIVE, by(Step(Channel.SMS, names)), accounts, NO_TEMPLATES)
    reasons = refused.value.metadata["reasons"].split(",")
    kept = [f"{name}:{'INACTIVE' if n % 2 else 'NOT_CONFIGURED'}" for n, name in enumerate(names[: len(reasons)])]
    assert reasons == kept
    assert len(reasons) == 3
    assert len(refused.value.metadata["reasons"].encode()) < 1_000
    assert len(refused.value.message) <= 300
    assert f"{names[0]}: {DETAILS['NOT_CONFIGURED']}" in refused.value.message
    assert refused.value.message.endswith(" ExplainRoute tells more.")


def test_five_accounts_are_told_of_at_most() -> None:
    """Of seven short names the first five, gathered by their reason."""
    accounts = [account(name, Channel.SMS, is_active=False) for name in "abcdefg"]
    with pytest.raises(Precondition) as refused:
        require_reach(new(), LIVE, [], accounts, NO_TEMPLATES)
    assert refused.value.metadata["reasons"] == ",".join(f"{name}:INACTIVE" for name in "abcde")
    assert f" a, b, c, d, e: {DETAILS['INACTIVE']} " in refused.value.message


def test_every_text_of_the_route_is_short_enough() -> None:
    """Also that of an account behind one that has a template of its own: it is the fallback's to send."""
    long = replace(LOGIN, text="%CODE%" + "x" * 2_000)
    with pytest.raises(Invalid):
        segments(templated(), KEPT, SMS, own=long)
    assert segments(templated(), KEPT, own=long) > SEGMENTS_MAX
