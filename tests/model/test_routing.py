"""Which route a message takes by the rules and accounts of its tenant."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from math import sqrt
from typing import Any

import pytest

from server.model.accounts import Account
from server.model.enums import Channel, MessageClass, Mode, State, Strategy
from server.model.explanation import DETAILS, Skip, Verdict
from server.model.messages import Recipient
from server.model.routing import Asked, Match, Route, Rule, Step, barred, by_priority, route_for, rule_for

PERSON = Recipient(phone="+989120000111", email="a@example.test", device_tokens=("t0",), username="a")
SMS, EMAIL, PUSH, VOICE = (Channel.SMS,), (Channel.EMAIL,), (Channel.PUSH,), (Channel.VOICE,)


def account(name: str, channels: tuple[Channel, ...] = SMS, **changes: Any) -> Account:
    return Account("t1", f"uid-{name}", name, "x", channels, **changes)


def routed(
    *accounts: Account,
    rules: tuple[Rule, ...] = (),
    recipient: Recipient = PERSON,
    wanted: Channel | None = None,
    **asked: Any,
) -> Route:
    return route_for(rules, accounts, Asked("otp", recipient, channel=wanted, **asked))


def followed(rules: Sequence[Rule], intent: str = "otp", **asked: Any) -> str | None:
    """The name of the rule that a message follows; None where it follows none."""
    rule = rule_for(rules, Asked(intent, **{"recipient": PERSON, **asked}))
    return rule.name if rule else None


def told(route: Route) -> list[str]:
    """Each hop as `step channel account`."""
    return [f"{hop.step} {hop.channel} {hop.account.name}" for hop in route.hops]


def test_the_smaller_priority_goes_first_then_the_name() -> None:
    """Accounts are ordered by priority, then by name."""
    found = by_priority([account("c"), account("b", priority=1), account("a", priority=1), account("d", priority=-1)])
    assert [one.name for one in found] == ["d", "c", "a", "b"]


def test_a_rule_is_found_by_intent_and_priority() -> None:
    """The first active rule by priority, then name, that serves the intent; a rule without intents serves every one."""
    every = Rule("every", priority=5)
    codes = Rule("codes", ("otp", "login"), priority=7)
    rules = [every, codes, Rule("off", ("otp",), is_active=False, priority=-1)]
    assert followed(rules) == "every"
    assert followed([codes, Rule("another", ("otp",), priority=7)]) == "another"
    assert followed([codes], "receipt") is None


OTP, BULK = MessageClass.OTP, MessageClass.BULK


@pytest.mark.parametrize(
    ("match", "asked", "holds"),
    [
        (Match(), {}, True),
        (Match(country_prefixes=("44", "98912")), {}, True),
        (Match(country_prefixes=("44", "98935")), {}, False),
        (Match(country_prefixes=("98",)), {"recipient": Recipient(email="a@example.test")}, False),
        (Match(operators=("x", "mci")), {}, True),
        (Match(operators=("Irancell",)), {}, False),
        (Match(operators=("IRANCELL",)), {"recipient": Recipient(phone="+989351112222")}, True),
        (Match(operators=("MCI",)), {"recipient": Recipient(email="a@example.test")}, False),
        (Match(message_classes=(OTP, BULK)), {"message_class": BULK}, True),
        (Match(message_classes=(OTP, BULK)), {}, False),
        (Match(tags=("a", "b")), {"tags": ("z", "b")}, True),
        (Match(tags=("a", "b")), {"tags": ("z",)}, False),
        (Match(tags=("a",), message_classes=(OTP,)), {"tags": ("a",)}, False),
        (Match(("98",), ("MCI",), (OTP,), ("a",)), {"tags": ("a",), "message_class": OTP}, True),
    ],
)
def test_every_field_of_a_match_must_hold_and_of_a_list_one_value(
    match: Match, asked: dict[str, Any], holds: bool
) -> None:
    """Prefix, operator whatever its case, class and tags: a rule of which one does not hold is passed over."""
    rules = [Rule("matching", match=match), Rule("other", priority=1)]
    assert followed(rules, **asked) == ("matching" if holds else "other")


def test_a_scenario_is_followed_whatever_it_serves() -> None:
    """By its name, past other rules, intents and matches; one that is switched off or not there leads nowhere."""
    rules = [Rule("first", priority=-1), Rule("named", ("else",), match=Match(tags=("x",)), steps=(Step(Channel.SMS),))]
    assert followed(rules, scenario="named") == "named"
    assert followed(rules, scenario="gone") is None
    assert followed([replace(rule, is_active=False) for rule in rules], scenario="named") is None
    assert told(routed(account("a"), rules=tuple(rules), scenario="named")) == ["1 SMS a"]
    assert told(routed(account("a"), rules=tuple(rules), scenario="gone")) == []


def looks(rules: Sequence[Rule], **asked: Any) -> list[str]:
    found = routed(rules=tuple(rules), **asked).looks()
    assert sum(look.matched for look in found) <= 1
    return [f"{look.name} {look.why}" + ("!" if look.matched else "") for look in found]


def test_every_rule_is_looked_at() -> None:
    """In the order in which they are tried, each with the word for why it is followed or passed over."""
    rules = [
        Rule("off", is_active=False, priority=1),
        Rule("intent", ("receipt",), priority=2),
        Rule("country", match=Match(country_prefixes=("44",)), priority=3),
        Rule("operator", match=Match(operators=("Irancell",)), priority=4),
        Rule("class", match=Match(message_classes=(OTP,)), priority=5),
        Rule("tags", match=Match(tags=("x",)), priority=6),
        Rule("this", match=Match(operators=("MCI",)), priority=7),
        Rule("later", priority=8),
        Rule("late", match=Match(tags=("x",)), priority=9),
    ]
    passed = [
        "off INACTIVE",
        "intent INTENT",
        "country COUNTRY",
        "operator OPERATOR",
        "class MESSAGE_CLASS",
        "tags TAGS",
    ]
    assert looks(rules[::-1]) == [*passed, "this FOLLOWED!", "later BEHIND", "late TAGS"]
    assert looks(rules[:6]) == [*passed, " IMPLIED!"]
    by_name = [f"{rule.name} SCENARIO" for rule in rules]
    assert looks(rules, scenario="late") == [*by_name[:8], "late SCENARIO!"]
    assert looks(rules, scenario="off") == ["off INACTIVE", *by_name[1:]]
    assert looks(rules, scenario="gone") == by_name


def test_a_hop_has_what_its_step_says() -> None:
    """Template, application, sender, and how long to wait for what."""
    step = Step(
        Channel.SMS, sender="s", wait_for=State.DELIVERED, timeout=50, application_key="app", template_key="tpl"
    )
    (hop,) = routed(account("a"), rules=(Rule("r", steps=(step,)),)).hops
    assert (hop.sender, hop.wait_for, hop.timeout, hop.application_key, hop.template_key) == (
        "s",
        State.DELIVERED,
        50,
        "app",
        "tpl",
    )


def drawn(lot: str, weights: dict[str, int], names: str = "abc") -> str:
    """The order of a weighted step's accounts for one message, a letter each."""
    step = Step(Channel.SMS, strategy=Strategy.WEIGHTED, weights=weights)
    route = routed(*map(account, names), rules=(Rule("r", steps=(step,)),), lot=lot)
    return "".join(hop.account.name for hop in route.hops)


LOTS = [f"m{n}" for n in range(6_000)]


@pytest.mark.parametrize("weights", [{}, {"a": 2}, {"a": 7, "b": 2}, {"a": 1000, "b": 10, "c": 1}])
def test_weighted_accounts_share_the_messages(weights: dict[str, int]) -> None:
    """Of 6,000 messages each account is the first for its share, within four standard deviations; none by default 1."""
    shares = Counter(drawn(lot, weights)[0] for lot in LOTS)
    total = sum(weights.get(name, 1) for name in "abc")
    for name in "abc":
        share = weights.get(name, 1) / total
        assert abs(shares[name] - len(LOTS) * share) <= 4 * sqrt(len(LOTS) * share * (1 - share))


def test_the_accounts_behind_the_first_share_likewise() -> None:
    """Where `a` is first, `b` with weight 3 comes before `c` three times as often as behind it."""
    behind = Counter(order[1] for lot in LOTS if (order := drawn(lot, {"b": 3}))[0] == "a")
    assert abs(behind["b"] / behind.total() - 3 / 4) <= 4 * sqrt(3 / 16 / behind.total())


def test_a_message_keeps_its_order() -> None:
    """The same lot draws the same order, and an account that falls away changes that of no others."""
    for lot in LOTS[:300]:
        order = drawn(lot, {"a": 3})
        assert order == drawn(lot, {"a": 3}, "cba")
        assert order.replace("b", "") == drawn(lot, {"a": 3}, "ac")


def test_an_account_without_weight_comes_last() -> None:
    """0 is for when all others failed."""
    assert {drawn(lot, {"b": 0})[2] for lot in LOTS[:500]} == {"b"}
    assert {drawn(lot, {"b": 0, "a": 0})[0] for lot in LOTS[:500]} == {"c"}


def test_steps_are_taken_in_order_each_with_its_providers() -> None:
    """A rule's hops are its steps in order, the providers of a step in the order in which it names them."""
    rule = Rule("r", steps=(Step(Channel.SMS, ("b", "a")), Step(Channel.EMAIL, ("m",))))
    route = routed(account("a"), account("b"), account("m", EMAIL), rules=(rule,))
    assert (route.rule, told(route)) == ("r", ["1 SMS b", "1 SMS a", "2 EMAIL m"])


def test_a_step_without_providers_means_all_active_ones_of_its_channel() -> None:
    """All active accounts of the step's channel, by priority."""
    accounts = account("a", priority=2), account("b", priority=1), account("m", EMAIL), account("c", is_active=False)
    assert told(routed(*accounts, rules=(Rule("r", steps=(Step(Channel.SMS),)),))) == ["1 SMS b", "1 SMS a"]


def test_a_step_without_a_channel_takes_the_one_that_reaches_the_person() -> None:
    """Where a step names no channel, each account uses its first channel for which there is an address."""
    rule = Rule("r", steps=(Step(None, ("a",)),))
    both = account("a", (Channel.SMS, Channel.EMAIL))
    found = [told(routed(both, rules=(rule,), recipient=one)) for one in (PERSON, Recipient(email="a@example.test"))]
    assert found == [["1 SMS a"], ["1 EMAIL a"]]


def test_a_step_without_fallback_is_the_last() -> None:
    """Without fallback no later step is taken, and the plan is told that one account of the step is all."""
    rule = Rule("r", steps=(Step(Channel.SMS, ("a", "b", "c"), fallback=False), Step(Channel.EMAIL, ("m",))))
    route = routed(account("a", is_active=False), account("b"), account("c"), account("m", EMAIL), rules=(rule,))
    assert told(route) == ["1 SMS a", "1 SMS b", "1 SMS c"]
    assert all(hop.sole for hop in route.hops)


def test_a_step_that_nobody_serves_is_passed_over() -> None:
    """A step that names accounts that do not exist gives no hop; the steps after it are taken."""
    rule = Rule("r", steps=(Step(Channel.SMS, ("gone",), fallback=False), Step(Channel.EMAIL, ("m",))))
    assert told(routed(account("m", EMAIL), rules=(rule,))) == ["2 EMAIL m"]
    steps = (Step(Channel.SMS, ("a",)), Step(Channel.SMS, ("gone",), fallback=False), Step(Channel.EMAIL))
    rule = Rule("r", steps=steps)
    assert told(routed(account("a"), account("m", EMAIL), rules=(rule,)))[-1] == "3 EMAIL m"


def test_only_the_wanted_channel_is_used() -> None:
    """A caller that asks for a channel gets the steps of that channel, and those that name none by it."""
    rule = Rule("r", steps=(Step(Channel.SMS, ("a",)), Step(Channel.EMAIL, ("m",)), Step(None, ("z",))))
    accounts = account("a"), account("m", EMAIL), account("z", (Channel.SMS, Channel.EMAIL))
    assert told(routed(*accounts, rules=(rule,), wanted=Channel.EMAIL)) == ["2 EMAIL m", "3 EMAIL z"]


def test_a_rule_that_matches_rules_alone() -> None:
    """When a rule matches, accounts that it does not name are not used, whatever comes of it."""
    rule = Rule("r", steps=(Step(Channel.EMAIL),))
    assert told(routed(account("a"), rules=(rule,))) == []


@pytest.mark.parametrize(
    ("recipient", "hops"),
    [
        (PERSON, ["1 SMS a", "1 SMS b"]),
        (Recipient(email="a@example.test", device_tokens=("t0",)), ["1 EMAIL m"]),
        (Recipient(device_tokens=("t0",)), ["1 PUSH p"]),
        (Recipient(username="a"), []),
    ],
)
def test_without_a_rule_the_first_channel_that_reaches_the_person_is_used(
    recipient: Recipient, hops: list[str]
) -> None:
    """Without a rule: all usable accounts of the first of SMS, e-mail, push and chat that has address and account."""
    accounts = (
        account("b", priority=2),
        account("a", priority=1),
        account("m", EMAIL),
        account("p", PUSH),
        account("off", is_active=False),
        account("unset", configured=False),
        account("v", VOICE),
    )
    route = routed(*accounts, recipient=recipient)
    assert (route.rule, told(route)) == ("", hops)


def test_nobody_is_called_who_did_not_ask_for_a_call() -> None:
    """Without a rule a call is made only to who wanted one."""
    caller = account("v", VOICE)
    assert told(routed(caller)) == []
    assert told(routed(caller, wanted=Channel.VOICE)) == ["1 VOICE v"]


def passed(route: Route) -> list[str]:
    """Each candidate that gave no hop as `step channel account REASON`."""
    for candidate in route.passed():
        assert (candidate.verdict, candidate.detail) == (Verdict.SKIPPED, DETAILS[candidate.reason])
    return [f"{c.step} {c.channel} {c.provider} {c.reason}" for c in route.passed()]


def test_what_a_rule_names_in_vain_is_told() -> None:
    """Names of no account, accounts that do not serve the channel, and steps of another than the caller's."""
    rule = Rule(
        "r", steps=(Step(Channel.SMS, ("gone", "a", "m")), Step(Channel.EMAIL, ("m", "lost")), Step(None, ("n",)))
    )
    accounts = account("a"), account("m", EMAIL)
    route = routed(*accounts, rules=(rule,))
    assert told(route) == ["1 SMS a", "2 EMAIL m"]
    assert passed(route) == ["1 SMS gone UNKNOWN", "1 SMS m CHANNEL", "2 EMAIL lost UNKNOWN", "3 None n UNKNOWN"]
    by_email = routed(*accounts, rules=(rule,), wanted=Channel.EMAIL)
    assert told(by_email) == ["2 EMAIL m"]
    assert passed(by_email) == [
        "1 SMS gone CHANNEL",
        "1 SMS a CHANNEL",
        "1 SMS m CHANNEL",
        "2 EMAIL lost UNKNOWN",
        "3 EMAIL n UNKNOWN",
    ]


def test_a_step_that_names_nobody_tells_of_all() -> None:
    """Its inactive accounts; where no account serves its channel, or the caller wants another, the step as a whole."""
    rule = Rule("r", steps=(Step(Channel.SMS), Step(Channel.PUSH)))
    accounts = account("a"), account("off", is_active=False), account("m", EMAIL, is_active=False)
    assert passed(routed(*accounts, rules=(rule,))) == ["1 SMS off INACTIVE", "2 PUSH  UNKNOWN"]
    assert passed(routed(*accounts, rules=(rule,), wanted=Channel.SMS)) == ["1 SMS off INACTIVE", "2 PUSH  CHANNEL"]
    assert passed(routed(rules=(Rule("r", steps=(Step(),)),))) == ["1 None  UNKNOWN"]


def test_nothing_is_told_of_steps_behind_the_last() -> None:
    """A step without fallback ends the route: whom later steps name does not matter."""
    rule = Rule("r", steps=(Step(Channel.SMS, ("a", "gone"), fallback=False), Step(Channel.EMAIL, ("lost",))))
    assert passed(routed(account("a"), rules=(rule,))) == ["1 SMS gone UNKNOWN"]
    assert passed(routed(rules=(rule,), wanted=None)) == [
        "1 SMS a UNKNOWN",
        "1 SMS gone UNKNOWN",
        "2 EMAIL lost UNKNOWN",
    ]


@pytest.mark.parametrize(
    ("recipient", "wanted", "expected"),
    [
        (PERSON, None, ["1 SMS off INACTIVE"]),
        (
            Recipient(email="a@example.test"),
            None,
            ["1 SMS a NO_ADDRESS", "1 SMS off INACTIVE", "1 EMAIL unset NOT_CONFIGURED"],
        ),
        (PERSON, Channel.EMAIL, ["1 EMAIL unset NOT_CONFIGURED"]),
        (PERSON, Channel.VOICE, []),
        (
            PERSON,
            Channel.PUSH,
            [f"1 PUSH {name} CHANNEL" for name in ("a", "m", "off", "unset", "v")],
        ),
        (
            Recipient(username="a"),
            None,
            [
                "1 SMS a NO_ADDRESS",
                "1 EMAIL m NO_ADDRESS",
                "1 SMS off INACTIVE",
                "1 EMAIL unset NOT_CONFIGURED",
                "1 None v CHANNEL",
            ],
        ),
    ],
)
def test_without_a_rule_too_it_is_told_who_was_passed_over(
    recipient: Recipient, wanted: Channel | None, expected: list[str]
) -> None:
    """On the way to the channel that is taken; every account where none is. Nobody is looked at for another call."""
    accounts = (
        account("a"),
        account("off", is_active=False),
        account("m", EMAIL),
        account("unset", EMAIL, configured=False),
        account("v", VOICE),
    )
    assert passed(routed(*accounts, recipient=recipient, wanted=wanted)) == expected
    assert passed(routed(*accounts, recipient=recipient, wanted=wanted, scenario="gone")) == []


def test_who_may_take_nothing() -> None:
    """Switched off before unset before a sandbox's ban: the first that holds is told."""
    usable = account("a")
    assert barred(usable, Mode.LIVE) is None
    assert barred(usable, Mode.SANDBOX) == Skip.NOT_FOR_SANDBOX
    assert barred(replace(usable, base_url="http://127.0.0.1:1"), Mode.SANDBOX) is None
    unset = replace(usable, configured=False)
    assert barred(unset, Mode.SANDBOX) == Skip.NOT_CONFIGURED
    assert barred(replace(unset, is_active=False), Mode.SANDBOX) == Skip.INACTIVE
