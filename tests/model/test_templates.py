"""Templates: what they name, what is filled in, and which text a hand-off says."""

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis.strategies import characters, dictionaries, from_regex, lists, one_of, sampled_from, text, tuples

from server.model.enums import Channel, MessageClass, MessageKind, State
from server.model.errors import Precondition, Reason
from server.model.messages import Content, Message, Recipient
from server.model.segments import encoding_of, segments_of
from server.model.templates import (
    BadTemplate,
    ProviderTemplate,
    Template,
    Variant,
    Wording,
    beside,
    chosen,
    chosen_for_code,
    fill,
    locales_of,
    missing_params,
    param_names,
    params_of,
    require_usable,
    unused_params,
    variant_for,
    worded,
    worded_by_step,
    wording_of,
)

NAMES = from_regex(r"[A-Za-z0-9_]{1,64}", fullmatch=True)
PLAIN = text(characters(exclude_characters="%", exclude_categories=["Cs"]), max_size=20)
VALUES = one_of(
    text(max_size=20), sampled_from(["%x%", "%%", "{{7*7}}", "{x.__class__}", "%s", "${}", "\\1", "\\g<0>"])
)
PARTS = lists(one_of(tuples(sampled_from(["plain"]), PLAIN), tuples(sampled_from(["param"]), NAMES)), max_size=8)
PHONE = Recipient(phone="+989120000111")
TEXT = MessageKind.TEXT
TEMPLATED = MessageKind.PROVIDER_TEMPLATED


def written(parts: list[tuple[str, str]]) -> str:
    return "".join(value if kind == "plain" else f"%{value}%" for kind, value in parts)


@given(PARTS, dictionaries(NAMES, VALUES, max_size=4), VALUES)
def test_filling_in_replaces_the_parameters_and_nothing_else(
    parts: list[tuple[str, str]], others: dict[str, str], value: str
) -> None:
    """Whatever values hold, each stands where its parameter stood: none is read again, and nothing is evaluated."""
    names = [name for kind, name in parts if kind == "param"]
    values = {**others, **{name: f"{value}{n}" for n, name in enumerate(sorted(set(names) - {"token", "CODE"}))}}
    values |= {"CODE": value}
    values.pop("token", None)
    expected = "".join(part if kind == "plain" else values["CODE" if part == "token" else part] for kind, part in parts)
    assert fill(written(parts), values) == expected
    assert params_of(written(parts)) == {"CODE" if name == "token" else name for name in names}


@given(text(max_size=40))
def test_a_text_without_parameters_says_itself(plain: str) -> None:
    """What is doubled comes out single, and every text can be written so."""
    doubled = plain.replace("%", "%%")
    assert params_of(doubled) == frozenset()
    assert fill(doubled, {"a": "b"}) == plain


@given(text(sampled_from("%aZ_9 -é"), max_size=12))
def test_every_text_is_read_to_its_end_or_refused(given_text: str) -> None:
    """A text is refused exactly where something is left of it that is neither a parameter nor a doubled sign."""
    rest = re.sub(r"%%|%[A-Za-z0-9_]{1,64}%", "", given_text)
    try:
        params_of(given_text)
        refused = False
    except BadTemplate:
        refused = True
    assert refused == ("%" in rest)


@pytest.mark.parametrize(
    ("bad", "place"), [("50% off", 3), ("%a b%", 1), ("%%%", 3), ("%é%", 1), ("ok %x% %", 8), (f"%{'n' * 65}%", 1)]
)
def test_a_lone_percent_sign_is_told_by_its_place(bad: str, place: int) -> None:
    """The caller learns at which character, and what to write there."""
    with pytest.raises(BadTemplate, match=rf"at character {place} .*%%"):
        params_of(bad)


def test_what_is_missing_stays_as_it_is_written() -> None:
    """A preview shows the holes."""
    assert fill("%a%, %b% and %token%", {"a": "1"}) == "1, %b% and %token%"


def test_the_code_has_two_names() -> None:
    """`CODE` and `token` are one parameter, whichever of them a text and a caller use."""
    for written_as in ("%CODE%", "%token%"):
        assert fill(written_as, {"token": "1234"}) == fill(written_as, {"CODE": "1234"}) == "1234"
    template = Template("t", 1, "%token%", variants=(Variant("fa", None, "%CODE%"),))
    assert param_names(template) == ["CODE"]
    assert missing_params(template, ["token"]) == unused_params(template, ["token"]) == []


WHOLE = Template(
    "t",
    1,
    "%b%",
    variants=(Variant("fa", Channel.EMAIL, "%a%", "%subject%", "%html%"),),
    provider_templates=(ProviderTemplate("k", "login", {"token": "token", "token2": "shop"}),),
)


def test_all_that_it_names_counts() -> None:
    """Texts, subjects, HTML and what providers' templates are given, in alphabetical order."""
    assert param_names(WHOLE) == ["CODE", "a", "b", "html", "shop", "subject"]
    assert missing_params(WHOLE, ["a", "CODE", "subject", "html"]) == ["b", "shop"]
    assert unused_params(WHOLE, ["z", "a", "c"]) == ["c", "z"]


@pytest.mark.parametrize(
    ("wanted", "default", "expected"),
    [
        ("fa-IR", "en-GB", ("fa-ir", "fa", "en-gb", "en", "")),
        ("fa-IR", "fa", ("fa-ir", "fa", "")),
        ("", "", ("",)),
        ("", "de", ("de", "")),
        ("zh-Hant-x-shop", "", ("zh-hant-x-shop", "zh-hant", "zh", "")),
    ],
)
def test_languages_are_looked_for_from_the_right(wanted: str, default: str, expected: tuple[str, ...]) -> None:
    """The person's tag, shortened from the right; the tenant's likewise; then none."""
    assert locales_of(wanted, default) == expected


VARIANTS = Template(
    "t",
    1,
    "plain",
    variants=(
        Variant("fa", None, "fa"),
        Variant("fa-IR", Channel.EMAIL, "fa-IR mail"),
        Variant("fa", Channel.SMS, "fa sms"),
        Variant("", Channel.VOICE, "voice"),
        Variant("en", Channel.EMAIL, "en mail"),
    ),
)


@pytest.mark.parametrize(
    ("locale", "default", "channel", "expected"),
    [
        ("fa-IR", "", Channel.SMS, "fa sms"),
        ("FA-ir", "", Channel.EMAIL, "fa-IR mail"),
        ("fa", "", Channel.EMAIL, "fa"),
        ("de", "fa", Channel.SMS, "fa sms"),
        ("de", "en-GB", Channel.EMAIL, "en mail"),
        ("de", "en-GB", Channel.SMS, "plain"),
        ("de", "en", Channel.VOICE, "voice"),
        ("fa", "", Channel.VOICE, "fa"),
        ("", "", Channel.PUSH, "plain"),
    ],
)
def test_the_language_decides_before_the_channel(locale: str, default: str, channel: Channel, expected: str) -> None:
    """For one language the channel's own text goes first; the plain text is the last of all."""
    found = variant_for(VARIANTS, channel, locales_of(locale, default))
    assert found is not None
    assert found.text == expected


def test_without_a_text_for_the_channel_there_is_none() -> None:
    """A template of variants alone says nothing on other channels."""
    template = replace(VARIANTS, text="", variants=VARIANTS.variants[1:2])
    assert variant_for(template, Channel.SMS, locales_of("fa-IR", "")) is None


def message(kind: MessageKind | None = None) -> Message:
    return Message(
        id="m",
        tenant_id="shop",
        client_id="c",
        intent="LOGIN",
        message_class=MessageClass.OTP,
        state=State.ACCEPTED,
        created_at=1,
        updated_at=1,
        expires_at=2,
        message_kind=kind,
    )


def said(
    template: Template | None,
    params: dict[str, str],
    *,
    kind: MessageKind | None = None,
    channel: Channel = Channel.SMS,
    account: str = "k",
    locale: str = "",
    plain: str = "",
) -> Wording | None:
    content = Content(replace(PHONE, locale=locale), plain, params=params)
    return worded(message(kind), content, template, channel, account, "")


BOUND = Template(
    "t",
    1,
    "Code %CODE% of %shop%",
    provider_templates=(
        ProviderTemplate("k", "login-fa", {"token": "CODE"}, "fa"),
        ProviderTemplate("k", "login", {"token": "CODE", "token2": "shop"}),
        ProviderTemplate("other", "x", {}),
    ),
)
PARAMS = {"token": "1234", "shop": "Mall"}


def test_a_text_of_its_own_is_said_as_it_stands() -> None:
    """No parameters are read in it, and no provider's own template can say it; a step's template goes before it."""
    plain = "100% %CODE% {{7*7}}"
    assert said(None, {}, plain=plain) == Wording(plain)
    assert said(None, {}, plain=plain, kind=TEMPLATED) is None
    assert said(BOUND, PARAMS, plain=plain) == said(BOUND, PARAMS)


def test_a_step_whose_template_is_gone_says_nothing() -> None:
    """Nor the message's own text: whoever named the template did not mean that."""
    content = Content(PHONE, "plain")
    for key, expected in (("", Wording("plain")), ("gone", None)):
        assert worded_by_step(message(None), content, {}, key, Channel.SMS, "k", "") == expected


def test_a_providers_own_template_goes_before_text() -> None:
    """Where one is bound, with the parameters in the provider's words; else text; as the message's kind has it."""
    bound = said(BOUND, PARAMS)
    assert bound == Wording("Code 1234 of Mall", template="login", params={"token": "1234", "token2": "Mall"})
    assert said(BOUND, PARAMS, account="nobody") == Wording("Code 1234 of Mall")
    assert said(BOUND, PARAMS, kind=TEXT) == Wording("Code 1234 of Mall")
    assert said(BOUND, PARAMS, kind=TEMPLATED) == bound
    assert said(BOUND, PARAMS, kind=TEMPLATED, account="nobody") is None


def test_a_providers_own_template_has_a_language_too() -> None:
    """It is chosen as texts are, and one in none of the languages is not bound."""
    found = said(BOUND, PARAMS, locale="fa-IR")
    assert found is not None
    assert (found.template, found.params) == ("login-fa", {"token": "1234"})
    only_fa = replace(BOUND, provider_templates=BOUND.provider_templates[:1])
    assert said(only_fa, PARAMS, locale="de") == Wording("Code 1234 of Mall")
    assert said(only_fa, PARAMS, locale="de", kind=TEMPLATED) is None


def test_a_template_that_only_a_provider_keeps() -> None:
    """There is no text, and none is needed where the provider has its own."""
    template = replace(BOUND, text="")
    assert said(template, PARAMS) == Wording("", template="login", params={"token": "1234", "token2": "Mall"})
    assert said(template, PARAMS, account="nobody") is None
    assert said(template, PARAMS, kind=TEXT) is None


@pytest.mark.parametrize("account", ["k", "nobody"])
def test_without_a_parameter_it_can_not_be_said(account: str) -> None:
    """A template that a step names may need more than the message has."""
    assert said(BOUND, {"token": "1234"}, account=account) is None


def test_nothing_to_read_is_nothing_said() -> None:
    """Neither is a message whose only parameter is blank, nor one without a template."""
    assert said(Template("t", 1, "%a%"), {"a": " \n"}) is None
    assert said(None, PARAMS) is None


def test_a_code_is_spoken_one_character_at_a_time() -> None:
    """Over the telephone "1234" would be a number; what a provider's own template is given stays as it is."""
    found = said(BOUND, PARAMS, channel=Channel.VOICE)
    assert found is not None
    assert (found.text, found.params["token"]) == ("Code 1, 2, 3, 4 of Mall", "1234")


def test_html_is_escaped_and_a_subject_stays_one_line() -> None:
    """No parameter brings markup into a mail, or a header of its own."""
    variant = Variant("", Channel.EMAIL, "%a%", "Of %a%", "<p>%a%</p>")
    wording = wording_of(variant, {"a": "<b>\"x\" & 'y'</b>\r\nBcc: z"}, Channel.EMAIL)
    assert wording.text == "<b>\"x\" & 'y'</b>\r\nBcc: z"
    assert wording.subject == "Of <b>\"x\" & 'y'</b> Bcc: z"
    assert wording.html == "<p>&lt;b&gt;&quot;x&quot; &amp; &#x27;y&#x27;&lt;/b&gt;\r\nBcc: z</p>"


def test_the_first_that_serves_the_intent_is_chosen() -> None:
    """By priority, then key; active ones of the message's class or of any."""
    templates = [
        Template("b", 1, "x", priority=1, intents=("PAID",)),
        Template("a", 1, "x", priority=1, intents=("PAID", "SENT")),
        Template("off", 1, "x", is_active=False, intents=("PAID",)),
        Template("bulk", 1, "x", intents=("PAID",), message_class=MessageClass.BULK),
        Template("any", 1, "x"),
    ]
    assert chosen(templates, "PAID", MessageClass.TRANSACTIONAL) == templates[1]
    assert chosen(templates, "PAID", MessageClass.BULK) == templates[3]
    assert chosen(templates, "OTHER", MessageClass.TRANSACTIONAL) is None


def test_a_code_is_said_by_a_template_for_codes() -> None:
    """One that names no intents serves every one; those of another class, or of any, serve none."""
    otp = MessageClass.OTP
    templates = [
        Template("login", 1, "x", priority=2, intents=("LOGIN",), message_class=otp),
        Template("any", 1, "x", priority=3, message_class=otp),
        Template("off", 1, "x", is_active=False, message_class=otp),
        Template("classless", 1, "x", intents=("LOGIN",)),
    ]
    assert chosen_for_code(templates, "LOGIN") == templates[0]
    assert chosen_for_code(templates, "OTP") == templates[1]
    assert chosen_for_code(templates[2:], "LOGIN") is None


@pytest.mark.parametrize(
    "template", [Template("t", 1, "x", is_active=False), Template("t", 1, "x", message_class=MessageClass.BULK)]
)
def test_what_is_switched_off_or_for_another_class_is_not_used(template: Template) -> None:
    """TEMPLATE_INACTIVE, with its key."""
    with pytest.raises(Precondition) as refused:
        require_usable(template, MessageClass.OTP)
    assert (refused.value.reason, refused.value.metadata) == (Reason.TEMPLATE_INACTIVE, {"template_key": "t"})
    require_usable(Template("t", 1, "x", message_class=MessageClass.OTP), MessageClass.OTP)
    require_usable(Template("t", 1, "x"), MessageClass.OTP)


def test_a_messages_own_template_stands_beside_the_tenants() -> None:
    """Under no name; the others by theirs, at their latest revision."""
    old, new = Template("t", 1, "old"), Template("t", 2, "new")
    found = beside({"t": new}, old)
    assert (found.get(""), found.get("t"), found.get("other")) == (old, new, None)
    assert beside({"t": new}, None).get("") is None


@given(text(max_size=200), text(max_size=20))
def test_parts_grow_with_what_is_filled_in(around: str, value: str) -> None:
    """The parts of what is said are counted after filling in; one character beyond GSM-7 makes all of it UCS-2."""
    filled = fill(around.replace("%", "%%") + "%a%", {"a": value})
    assert filled == around + value
    assert segments_of(filled) >= max(segments_of(value), segments_of(around))
    expected = "GSM-7" if encoding_of(around) == encoding_of(value) == "GSM-7" else "UCS-2"
    assert encoding_of(filled) == expected


@pytest.mark.parametrize(
    ("plain", "encoding"), [("", "GSM-7"), ("é€ΔÄ", "GSM-7"), ("`", "UCS-2"), ("ç", "UCS-2"), ("سلام", "UCS-2")]
)
def test_the_encoding_is_told_by_its_name(plain: str, encoding: str) -> None:
    """GSM-7 is not ASCII: it has letters that ASCII lacks, and lacks some that ASCII has."""
    assert encoding_of(plain) == encoding


def test_of_a_code_nothing_is_said_that_does_not_tell_it() -> None:
    """By a text, a variant or a provider's own template; a message of another class may say what it likes."""
    codes, dumb = Variant("fa", None, "کد %CODE%"), ProviderTemplate("k", "hello", {})
    silent = Template("t", 1, "Hello.", variants=(codes,), provider_templates=(dumb,))
    for message_class, says in ((MessageClass.OTP, False), (MessageClass.TRANSACTIONAL, True)):
        asked = replace(message(TEXT), message_class=message_class)
        content = Content(PHONE, params={"token": "1234"})
        assert (worded(asked, content, silent, Channel.SMS, "k", "") is not None) == says
        bound = replace(asked, message_kind=None)
        assert (worded(bound, content, silent, Channel.SMS, "k", "") is not None) == says
        assert worded(asked, content, silent, Channel.SMS, "k", "fa") is not None


def test_a_wording_knows_its_language() -> None:
    """That of the variant, whatever the person's; a text that nobody gave one has none."""
    spoken = Template("t", 1, "Code %CODE%", variants=(Variant("fa", Channel.VOICE, "کد %CODE%"),))
    for locale, language in (("fa-IR", "fa"), ("en", "")):
        told = said(spoken, PARAMS, channel=Channel.VOICE, locale=locale)
        assert told is not None
        assert told.locale == language
