"""Which route a message takes by the rules and accounts of its tenant."""

from typing import Any

import pytest

from server.model.accounts import Account
from server.model.enums import Channel
from server.model.messages import Recipient
from server.model.routing import Route, Rule, Step, by_priority, route_for, rule_for

PERSON = Recipient(phone="+989120000111", email="a@example.test", device_tokens=("t0",), username="a")
SMS, EMAIL, PUSH, VOICE = (Channel.SMS,), (Channel.EMAIL,), (Channel.PUSH,), (Channel.VOICE,)


def account(name: str, channels: tuple[Channel, ...] = SMS, **changes: Any) -> Account:
    return Account("t1", f"uid-{name}", name, "x", channels, **changes)


def routed(
    *accounts: Account,
    rules: tuple[Rule, ...] = (),
    intent: str = "otp",
    recipient: Recipient = PERSON,
    wanted: Channel | None = None,
) -> Route:
    return route_for(rules, accounts, intent, recipient, wanted)


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
    assert rule_for(rules, "otp") == every
    assert rule_for([codes, Rule("another", ("otp",), priority=7)], "otp") == Rule("another", ("otp",), priority=7)
    assert rule_for([codes], "receipt") is None


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
