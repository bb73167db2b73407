"""When the next step goes although the first was taken, what cannot be said, and how a plan is explained."""

from collections.abc import Mapping
from dataclasses import replace
from itertools import chain
from typing import Any

import pytest

from server.model.clock import SECOND
from server.model.enums import (
    Channel,
    DueKind,
    FailureReason,
    MessageClass,
    MessageKind,
    Mode,
    OnUnconfirmed,
    OutcomeKind,
    ReceiptKind,
    State,
    Stop,
)
from server.model.explanation import DETAILS, RuleLook, Skip, Verdict, skipped
from server.model.health import Cause, Closed, Health
from server.model.messages import Attempt, Case, Content, Due, Message, Recipient
from server.model.outcomes import Fault, Refusal
from server.model.plan import Go, Nothing, Plan, Survey, survey
from server.model.policy import POLLS, next_poll
from server.model.routing import Route
from server.model.templates import NO_TEMPLATES, ProviderTemplate, Template, Variant
from tests.model.history import message_of, owed
from tests.model.test_plan import BREAKER, NOW, PAUSE, PERSON, accounts, chosen, hop, tried

TAKEN = OutcomeKind.ACCEPTED
UNKNOWN = OutcomeKind.AMBIGUOUS
SPAN = 50 * SECOND
ONE_DEVICE = replace(PERSON, device_tokens=("t0",))
STAY, AGAIN = OnUnconfirmed.STAY, OnUnconfirmed.SEND_AGAIN
SMS, EMAIL, PUSH, VOICE = Channel.SMS, Channel.EMAIL, Channel.PUSH, Channel.VOICE
OTP, TRANSACTIONAL, BULK = MessageClass.OTP, MessageClass.TRANSACTIONAL, MessageClass.BULK


def waiting(*channels: Channel) -> Route:
    """One step a channel, accounts a, b, c …, each of which waits 50 s for its receipt."""
    hops = (hop(name, step, channel) for step, (name, channel) in enumerate(zip("abcd", channels, strict=False), 1))
    return Route("r", tuple(replace(each, wait_for=State.DELIVERED, timeout=SPAN) for each in hops))


def planned(route: Route, *attempts: Attempt, message: Message | None = None, **given: Any) -> Plan:
    numbered = tuple(replace(attempt, number=number) for number, attempt in enumerate(attempts, 1))
    content = given.pop("content", Content(PERSON, "text"))
    case = owed(Case(message or message_of(), numbered), NOW)
    return survey(case, content, route, Mode.LIVE, Health(), NOW, **given).plan


def surveyed(route: Route, *attempts: Attempt, message: Message | None = None, **given: Any) -> Survey:
    numbered = tuple(replace(attempt, number=number) for number, attempt in enumerate(attempts, 1))
    health, mode = given.pop("health", Health()), given.pop("mode", Mode.LIVE)
    content = given.pop("content", Content(PERSON, "text"))
    return survey(Case(message or message_of(), numbered), content, route, mode, health, NOW, **given)


def told(found: Survey) -> list[str]:
    """Each candidate as `account VERDICT REASON`."""
    for candidate in found.explanation.candidates:
        assert bool(candidate.detail) == bool(candidate.reason)
    return [f"{c.provider} {c.verdict} {c.reason}".strip() for c in found.explanation.candidates]


@pytest.mark.parametrize(
    ("channels", "message_class", "again", "waits"),
    [
        ((PUSH, SMS), TRANSACTIONAL, STAY, True),
        ((PUSH, SMS), BULK, STAY, True),
        ((SMS, VOICE), BULK, STAY, True),
        ((SMS, SMS), OTP, STAY, True),
        ((SMS, SMS), TRANSACTIONAL, AGAIN, True),
        ((SMS, SMS), TRANSACTIONAL, STAY, False),
        ((SMS, SMS), BULK, AGAIN, False),
        ((SMS, SMS, EMAIL), BULK, STAY, True),
        ((SMS,), OTP, STAY, False),
    ],
)
def test_a_receipt_is_waited_for_where_a_step_may_follow(
    channels: tuple[Channel, ...], message_class: MessageClass, again: OnUnconfirmed, waits: bool
) -> None:
    """By another channel always; by the same where the class allows a second text; without a step there is no wait."""
    found = planned(waiting(*channels), message=message_of(message_class, again))
    assert isinstance(found, Go)
    assert found.patience == (SPAN if waits else 0)


@pytest.mark.parametrize(
    ("channels", "message_class", "again", "goes"),
    [
        ((PUSH, SMS), BULK, STAY, ("b", 2)),
        ((SMS, SMS), OTP, STAY, ("b", 2)),
        ((SMS, SMS), TRANSACTIONAL, AGAIN, ("b", 2)),
        ((SMS, SMS), TRANSACTIONAL, STAY, None),
        ((SMS, SMS), BULK, AGAIN, None),
        ((SMS, SMS, EMAIL), BULK, STAY, ("c", 3)),
    ],
)
def test_what_is_overdue_is_followed_as_the_class_allows(
    channels: tuple[Channel, ...], message_class: MessageClass, again: OnUnconfirmed, goes: tuple[str, int] | None
) -> None:
    """Another channel goes for every class; over the same one a second text only where the class allows it."""
    given = {"message": message_of(message_class, again), "content": Content(ONE_DEVICE, "text")}
    taken = tried("a", TAKEN, channel=channels[0], overdue=True)
    found = planned(waiting(*channels), taken, **given)
    assert (chosen(found) if isinstance(found, Go) else None) == goes
    for awaited in (replace(taken, overdue=False), replace(taken, receipt=ReceiptKind.DELIVERED)):
        assert planned(waiting(*channels), awaited, **given) == Nothing(FailureReason.NO_ROUTE)


def test_a_code_goes_out_twice_over_one_channel_at_most() -> None:
    """Two texts of an OTP are overdue or unknown: a third step of the same channel does not go."""
    first, otp = tried("a", TAKEN, overdue=True), message_of(OTP)
    for second in (tried("b", TAKEN, step=2, overdue=True), tried("b", UNKNOWN, step=2, given_up=True)):
        found = surveyed(waiting(SMS, SMS, SMS), first, second, message=otp)
        assert isinstance(found.plan, Nothing)
        assert told(found)[2] in ("c SKIPPED SENDS_SPENT", "c SKIPPED IN_DOUBT")


def test_no_timeout_lifts_a_doubt() -> None:
    """While a hand-off is in doubt and the class forbids another, an overdue one beside it changes nothing."""
    route = Route("r", (hop("a", 1, PUSH), hop("b", 2)))
    overdue, doubt = tried("a", TAKEN, channel=PUSH, overdue=True), tried("a", UNKNOWN, channel=PUSH, destination=1)
    for each in (doubt, replace(doubt, given_up=True)):
        found = surveyed(route, overdue, each)
        assert "b SKIPPED AWAITED" in told(found) if not each.given_up else "b SKIPPED IN_DOUBT" in told(found)


def late(*steps: str, timeout: int = 5 * SECOND) -> Route:
    """Steps of SMS accounts, of which the first may take so long to be SENT; attempts of `tried` began 10 s ago."""
    hops = (hop(name, number) for number, names in enumerate(steps, 1) for name in names)
    return Route("r", tuple(replace(each, timeout=timeout) if each.step == 1 else each for each in hops))


def test_a_step_whose_time_is_over_is_passed_over() -> None:
    """Its untried accounts too, while a later step can go; before that, and where nothing can, it goes on."""
    assert chosen(planned(late("ab", "c"), tried("a"))) == ("c", 2)
    assert told(surveyed(late("ab", "c"), tried("a"))) == ["a SKIPPED TOO_LATE", "b SKIPPED TOO_LATE", "c CHOSEN"]
    assert chosen(planned(late("ab", "c", timeout=11 * SECOND), tried("a"))) == ("b", 1)
    assert chosen(planned(late("ab", "c", timeout=0), tried("a"))) == ("b", 1)
    assert chosen(planned(late("ab", "c"))) == ("a", 1)
    assert chosen(planned(late("ab"), tried("a"))) == ("b", 1)
    off = replace(hop("c", 2), account=replace(hop("c").account, is_active=False))
    assert chosen(planned(Route("r", (*late("ab").hops, off)), tried("a"))) == ("b", 1)
    assert told(surveyed(late("ab", "c"), tried("a"), health=accounts({"c": PAUSE})))[1] == "b CHOSEN"


TEMPLATE = Template(
    "paid",
    1,
    "Paid %sum%.",
    variants=(Variant("", EMAIL, "Dear %name%."),),
    provider_templates=(ProviderTemplate("b", "theirs", {"x": "sum"}),),
)
OTHER = Template("short", 1, "Paid.")
BY_TEMPLATE = replace(message_of(), template_key="paid", template_revision=1)


def said(params: Mapping[str, str], kind: MessageKind | None = None, **own: str) -> list[str]:
    """What a message by TEMPLATE comes to with accounts a and b by SMS and m by e-mail."""
    route = Route("r", (replace(hop("a"), **own), hop("b"), hop("m", 2, EMAIL)))
    templates = {"": TEMPLATE, "short": OTHER}
    content, message = Content(PERSON, params=params), replace(BY_TEMPLATE, message_kind=kind)
    return told(surveyed(route, message=message, content=content, templates=templates))


def test_who_cannot_say_it_is_passed_over() -> None:
    """For want of a parameter, of a provider's own template, or of the template that the step names."""
    assert said({"sum": "1", "name": "A"}) == ["a CHOSEN", "b FALLBACK", "m FALLBACK"]
    assert said({"sum": "1"}) == ["a CHOSEN", "b FALLBACK", "m SKIPPED TEMPLATE"]
    assert said({"name": "A"}) == ["a SKIPPED TEMPLATE", "b SKIPPED TEMPLATE", "m CHOSEN"]
    templated = MessageKind.PROVIDER_TEMPLATED
    assert said({"sum": "1"}, templated) == ["a SKIPPED TEMPLATE", "b CHOSEN", "m SKIPPED TEMPLATE"]
    assert said({}, template_key="short") == ["a CHOSEN", "b SKIPPED TEMPLATE", "m SKIPPED TEMPLATE"]
    assert said({"sum": "1"}, template_key="gone") == ["a SKIPPED TEMPLATE", "b CHOSEN", "m SKIPPED TEMPLATE"]


def test_a_plan_has_the_words_that_go_out() -> None:
    """What the hand-off says is what the plan was made with."""
    route, content = Route("r", (hop("b"),)), Content(PERSON, params={"sum": "5"})
    found = planned(route, message=BY_TEMPLATE, content=content, templates={"": TEMPLATE})
    assert isinstance(found, Go)
    assert (found.wording.text, found.wording.template, found.wording.params) == ("Paid 5.", "theirs", {"x": "5"})


def test_a_closed_template_closes_no_other() -> None:
    """The account says other templates, and texts; the one that is closed is tried where nothing else is left."""
    health = Health(templates={("uid-b", "theirs"): Closed(NOW + SECOND, Cause.TEMPLATE)})
    route, content = Route("r", (hop("b"), hop("a"))), Content(PERSON, params={"sum": "5"})
    for template, expected in (
        (TEMPLATE, ["b FALLBACK TEMPLATE", "a CHOSEN"]),
        (replace(TEMPLATE, provider_templates=(ProviderTemplate("b", "other", {}),)), ["b CHOSEN", "a FALLBACK"]),
        (replace(TEMPLATE, provider_templates=()), ["b CHOSEN", "a FALLBACK"]),
    ):
        given = {"message": BY_TEMPLATE, "content": content, "templates": {"": template}, "health": health}
        assert told(surveyed(route, **given)) == expected
        assert told(surveyed(Route("r", (hop("b"),)), **given))[0].startswith("b CHOSEN")


def test_without_fallback_the_one_that_can_say_it_is_all() -> None:
    """The first account that may be used, and is able to say it; once tried, it stays the one."""
    route = Route("r", (replace(hop("a"), sole=True), replace(hop("b"), sole=True), replace(hop("c"), sole=True)))
    message = replace(BY_TEMPLATE, message_kind=MessageKind.PROVIDER_TEMPLATED)
    content = Content(PERSON, params={"sum": "5"})
    given = {"message": message, "content": content, "templates": {"": TEMPLATE}}
    assert told(surveyed(route, **given)) == ["a SKIPPED NO_FALLBACK", "b CHOSEN", "c SKIPPED NO_FALLBACK"]
    off = Route("r", tuple(replace(h, account=replace(h.account, is_active=h.account.name != "b")) for h in route.hops))
    assert told(surveyed(off, tried("b"), **given))[1] == "b SKIPPED INACTIVE"
    assert isinstance(surveyed(off, tried("b"), **given).plan, Nothing)


def test_what_is_not_said_is_not_asked_for() -> None:
    """Without templates nobody asks whether accounts can say the message; with none it must have a text."""
    route, empty = Route("r", (hop("a"),)), Content(PERSON)
    assert told(surveyed(route, content=empty, templates=None)) == ["a CHOSEN"]
    assert told(surveyed(route, content=empty, templates=NO_TEMPLATES)) == ["a SKIPPED TEMPLATE"]


REFUSED = OutcomeKind.REJECTED


@pytest.mark.parametrize(
    ("attempts", "given", "expected"),
    [
        ((), {}, ["a CHOSEN", "b FALLBACK", "c FALLBACK"]),
        ((), {"health": accounts({"a": BREAKER})}, ["a FALLBACK BREAKER_OPEN", "b CHOSEN", "c FALLBACK"]),
        (
            (),
            {"health": accounts(dict.fromkeys("abc", BREAKER))},
            ["a CHOSEN BREAKER_OPEN", "b FALLBACK BREAKER_OPEN", "c FALLBACK BREAKER_OPEN"],
        ),
        (
            (),
            {"health": accounts(dict.fromkeys("abc", PAUSE))},
            ["a FALLBACK RATE_LIMITED", "b FALLBACK RATE_LIMITED", "c FALLBACK RATE_LIMITED"],
        ),
        ((tried("a"),), {}, ["a FALLBACK TRIED", "b CHOSEN", "c FALLBACK"]),
        (
            (tried("a", REFUSED, refusal=Refusal.CONTENT), tried("b", fault=Fault.FUNDS)),
            {},
            ["a SKIPPED ACCOUNT_REFUSED", "b SKIPPED ACCOUNT_REFUSED", "c CHOSEN"],
        ),
        (
            (tried("a", REFUSED, refusal=Refusal.RECIPIENT),),
            {},
            ["a SKIPPED CHANNEL_REFUSED", "b SKIPPED CHANNEL_REFUSED", "c CHOSEN"],
        ),
        ((tried("a", REFUSED, refusal=Refusal.REQUEST),), {}, [f"{name} SKIPPED REQUEST_REFUSED" for name in "abc"]),
        ((tried("a", TAKEN),), {}, [f"{name} SKIPPED AWAITED" for name in "abc"]),
        (
            (tried("a", TAKEN, receipt=ReceiptKind.UNDELIVERED),),
            {},
            ["a SKIPPED STEP_OVER", "b SKIPPED STEP_OVER", "c CHOSEN"],
        ),
        (
            (tried("a", UNKNOWN, given_up=True),),
            {"message": replace(message_of(), due=Due(DueKind.TIMER, NOW))},
            [f"{name} SKIPPED IN_DOUBT" for name in "abc"],
        ),
        (
            (tried("a", REFUSED, refusal=Refusal.CONTENT),),
            {"message": replace(message_of(), due=None)},
            ["a SKIPPED ACCOUNT_REFUSED", "b SKIPPED AWAITED", "c SKIPPED AWAITED"],
        ),
        ((), {"mode": Mode.SANDBOX}, [f"{name} SKIPPED NOT_FOR_SANDBOX" for name in "abc"]),
        (
            (),
            {"content": Content(Recipient(email="a@example.test"), "text")},
            ["a SKIPPED NO_ADDRESS", "b SKIPPED NO_ADDRESS", "c CHOSEN"],
        ),
        ((), {"message": replace(message_of(), done=True)}, [f"{name} SKIPPED OVER" for name in "abc"]),
        (
            (tried("a", TAKEN, receipt=ReceiptKind.DELIVERED),),
            {"message": replace(message_of(), done=True)},
            [f"{name} SKIPPED OVER" for name in "abc"],
        ),
        ((), {"message": replace(message_of(), stop=Stop.CANCELED)}, [f"{name} SKIPPED STOPPED" for name in "abc"]),
    ],
)
def test_every_candidate_has_its_reason(
    attempts: tuple[Attempt, ...], given: dict[str, Any], expected: list[str]
) -> None:
    """Two accounts by SMS, one by e-mail behind them: one at most is chosen, one exactly where the plan goes."""
    found = surveyed(Route("r", (hop("a"), hop("b"), hop("c", 2, EMAIL))), *attempts, **given)
    assert told(found) == expected
    chosen_ones = [c for c in found.explanation.candidates if c.verdict == Verdict.CHOSEN]
    assert len(chosen_ones) == isinstance(found.plan, Go)


@pytest.mark.parametrize(
    ("account", "reason"),
    [
        ({"is_active": False}, "INACTIVE"),
        ({"configured": False}, "NOT_CONFIGURED"),
        ({"settings": {"sender": "2000"}}, "SENDER"),
    ],
)
def test_an_account_that_may_not_be_used_says_why(account: dict[str, Any], reason: str) -> None:
    """Switched off, unconfigured, or bound to another sender."""
    content = Content(PERSON, "text", "1000")
    assert told(surveyed(Route("r", (hop("a", **account),)), content=content)) == [f"a SKIPPED {reason}"]


def test_what_gave_no_hop_stands_behind_its_step() -> None:
    """The chosen account is the same; what is over tells still who was never asked."""
    gone = (
        skipped(1, SMS, "gone", Skip.UNKNOWN),
        skipped(3, None, "", Skip.UNKNOWN),
        skipped(2, PUSH, "p", Skip.CHANNEL),
    )
    route = Route("r", (hop("a"), hop("b", 2)), passed=lambda: gone)
    expected = ["gone SKIPPED UNKNOWN", "b FALLBACK", "p SKIPPED CHANNEL", "SKIPPED UNKNOWN"]
    assert [line.strip() for line in told(surveyed(route))] == ["a CHOSEN", *expected]
    over = told(surveyed(route, message=replace(message_of(), done=True)))
    assert over[:4] == ["a SKIPPED OVER", "gone SKIPPED UNKNOWN", "b SKIPPED OVER", "p SKIPPED CHANNEL"]


def test_what_is_awaited_is_said_of_the_hand_off_before() -> None:
    """An account that was never tried does not read as if it had taken the message."""
    found = surveyed(waiting(PUSH, SMS), tried("a", TAKEN, channel=PUSH), content=Content(ONE_DEVICE, "text"))
    untried = found.explanation.candidates[1]
    assert (untried.provider, untried.reason) == ("b", "AWAITED")
    assert (
        untried.detail == "What was handed off before is waited for: this one may go when that fails or takes too long."
    )


def test_every_word_has_its_sentence() -> None:
    """Whatever reason a candidate may have is told in a sentence too, and no sentence is left over."""
    assert DETAILS.keys() == {str(word) for word in chain(Skip, Cause)}
    assert all(sentence.endswith(".") for sentence in DETAILS.values())


LONG = "x" * 161
PERSIAN = "سلام " * 20


@pytest.mark.parametrize(
    ("text", "segments", "encoding"), [("Hi", 1, "GSM-7"), (LONG, 2, "GSM-7"), (PERSIAN, 2, "UCS-2"), ("", 0, "")]
)
def test_an_explanation_tells_what_the_message_is(text: str, segments: int, encoding: str) -> None:
    """Country and operator of the number, parts and encoding of the text, and by which rules it was decided."""
    looks = (RuleLook("r", matched=True, why="FOLLOWED"),)
    route = Route("r", (hop("a"),), lambda: looks)
    found = surveyed(route, content=Content(PERSON, text), templates=None, revision="7").explanation
    assert (found.country, found.operator, found.revision, found.rules) == ("IR", "MCI", "7", looks)
    assert (found.segments, found.encoding) == (segments, encoding)


def test_parts_are_those_of_what_is_said_by_sms() -> None:
    """Not of the e-mail that goes first, nor of anything where no step is by SMS."""
    templates, content = {"": TEMPLATE}, Content(PERSON, params={"sum": "1" * 170, "name": "A"})
    given = {"message": BY_TEMPLATE, "content": content, "templates": templates}
    email_first = surveyed(Route("r", (hop("m", 1, EMAIL), hop("a", 2))), **given).explanation
    assert (email_first.segments, email_first.encoding) == (2, "GSM-7")
    by_email = surveyed(Route("r", (hop("m", 1, EMAIL),)), **given).explanation
    assert (by_email.segments, by_email.encoding) == (0, "GSM-7")


def test_an_address_without_a_country_is_told_as_such() -> None:
    """Whoever has no phone number has neither country nor operator."""
    found = surveyed(Route("", ()), content=Content(Recipient(email="a@example.test"), "x")).explanation
    assert (found.country, found.operator, found.candidates) == ("", "", ())


def test_pushed_statuses_are_asked_for_after_a_minute() -> None:
    """Between any two moments: where receipts are pushed no poll comes before 60 s, and then as ever."""
    for elapsed in (0, 1, *POLLS, 16 * 60 * SECOND):
        plain, pushed = next_poll(NOW, NOW + elapsed), next_poll(NOW, NOW + elapsed, pushed=True)
        assert pushed == (plain if plain - NOW >= 60 * SECOND else NOW + 60 * SECOND)
