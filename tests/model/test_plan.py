"""Whom a message is handed to next."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from server.model.accounts import Account
from server.model.clock import SECOND, Micros
from server.model.enums import (
    Channel,
    DueKind,
    FailureReason,
    MessageClass,
    Mode,
    OnUnconfirmed,
    OutcomeKind,
    ReceiptKind,
    State,
)
from server.model.explanation import Skip
from server.model.facts import Settled, Started
from server.model.health import Cause, Closed, Health
from server.model.messages import Attempt, Case, Content, Recipient
from server.model.outcomes import Fault, Refusal, misconfigured, unavailable
from server.model.plan import BUDGET_PAUSE, Go, Nothing, Plan, Wait, survey
from server.model.routing import Hop, Route
from tests.model.history import START, History, message_of, opening_of

NOW: Micros = START + 10 * SECOND
PERSON = Recipient(phone="+989120000111", email="a@example.test", device_tokens=tuple(f"t{n}" for n in range(5)))
ALL = tuple(Channel)
BREAKER = Closed(NOW + SECOND, Cause.BREAKER_OPEN)
FUNDS = Closed(NOW + SECOND, Cause.FUNDS)
PAUSE = Closed(NOW + 5 * SECOND, Cause.RATE_LIMITED)


def route_of(*steps: str, channel: Channel = Channel.SMS, **account: Any) -> Route:
    """Each step's accounts, one letter each, all of one channel: `route_of("ab", "c")`."""
    return Route("r", tuple(hop(letter, n, channel, **account) for n, step in enumerate(steps, 1) for letter in step))


def hop(name: str, step: int = 1, channel: Channel = Channel.SMS, **account: Any) -> Hop:
    return Hop(step, channel, Account("t1", f"uid-{name}", name, "x", ALL, **account))


def tried(account: str, outcome: OutcomeKind = OutcomeKind.UNAVAILABLE, **changes: Any) -> Attempt:
    """One attempt on an account by SMS in step 1; its number does not matter here."""
    attempt = Attempt(
        number=1,
        step=1,
        channel=Channel.SMS,
        account=account,
        account_uid=f"uid-{account}",
        destination=0,
        epoch=1,
        provider_key=1,
        started_at=START,
        deadline=START + 8 * SECOND,
        outcome=outcome,
        ended_at=START + SECOND,
    )
    return replace(attempt, **changes)


def planned(
    route: Route,
    *attempts: Attempt,
    health: Health | None = None,
    mode: Mode = Mode.LIVE,
    message_class: MessageClass = MessageClass.TRANSACTIONAL,
    again: OnUnconfirmed = OnUnconfirmed.STAY,
    content: Content | None = None,
) -> Plan:
    numbered = [replace(attempt, number=number) for number, attempt in enumerate(attempts, 1)]
    case = Case(message_of(message_class, again), numbered)
    return survey(case, content or Content(PERSON, "text"), route, mode, health or Health(), NOW).plan


def chosen(found: Plan) -> tuple[str, int]:
    """The account and the step of a plan that goes."""
    assert isinstance(found, Go), found
    return found.hop.account.name, found.hop.step


def accounts(closed: Mapping[str, Closed]) -> Health:
    return Health(accounts={f"uid-{name}": how for name, how in closed.items()})


FAILED = OutcomeKind.UNAVAILABLE
LIMITED = OutcomeKind.RATE_LIMITED


@pytest.mark.parametrize(
    ("attempts", "account"),
    [
        ("", "a"),
        ("a", "b"),
        ("ab", "c"),
        ("abc", "a"),
        ("abca", "b"),
        ("abcab", "c"),
        ("aab", "c"),
        ("aabc", "b"),
    ],
)
@pytest.mark.parametrize("outcome", [FAILED, LIMITED])
def test_untried_accounts_come_first_then_those_that_failed_least(
    attempts: str, account: str, outcome: OutcomeKind
) -> None:
    """After an error the next untried account goes; then repeats, least failed first, in the route's order."""
    assert chosen(planned(route_of("abc"), *(tried(name, outcome) for name in attempts))) == (account, 1)


@pytest.mark.parametrize(
    ("message_class", "repeats"), [(MessageClass.OTP, 4), (MessageClass.TRANSACTIONAL, 6), (MessageClass.BULK, 8)]
)
def test_repeats_come_to_an_end(message_class: MessageClass, repeats: int) -> None:
    """An account is repeated as often as the class allows; then nothing is left, because providers were unavailable."""
    attempts = [tried("a")] * repeats
    assert chosen(planned(route_of("a"), *attempts, message_class=message_class)) == ("a", 1)
    over = planned(route_of("a"), *attempts, tried("a"), message_class=message_class)
    assert over == Nothing(FailureReason.PROVIDER_UNAVAILABLE)


def test_a_refused_recipient_ends_the_channel() -> None:
    """Who is refused by one provider of a channel is not tried by its others; another channel is tried."""
    refused = tried("a", OutcomeKind.REJECTED, refusal=Refusal.RECIPIENT)
    assert planned(route_of("ab"), refused) == Nothing(FailureReason.NO_ROUTE)
    mixed = Route("r", (hop("a"), hop("b"), hop("c", 1, Channel.EMAIL)))
    assert chosen(planned(mixed, refused)) == ("c", 1)


def test_refused_content_is_tried_elsewhere() -> None:
    """Content that one provider refuses goes to the others, and never to the same again."""
    refused = tried("a", OutcomeKind.REJECTED, refusal=Refusal.CONTENT)
    assert chosen(planned(route_of("ab"), refused)) == ("b", 1)
    assert planned(route_of("a"), refused) == Nothing(FailureReason.NO_ROUTE)


def test_a_wrong_request_ends_everything() -> None:
    """A request that one provider finds malformed is sent to nobody else."""
    refused = tried("a", OutcomeKind.REJECTED, refusal=Refusal.REQUEST)
    assert planned(route_of("ab", "c"), refused) == Nothing(FailureReason.REQUEST_REFUSED)


@pytest.mark.parametrize("fault", Fault)
def test_a_misconfigured_account_is_passed_over(fault: Fault) -> None:
    """An account that said that it cannot send is not asked again for this message."""
    misconfigured = tried("a", OutcomeKind.MISCONFIGURED, fault=fault)
    assert chosen(planned(route_of("ab"), misconfigured)) == ("b", 1)
    assert planned(route_of("a"), misconfigured) == Nothing(FailureReason.NO_ROUTE)


@pytest.mark.parametrize("how", [BREAKER, FUNDS, PAUSE])
def test_what_is_closed_is_passed_over_while_another_is_open(how: Closed) -> None:
    """A closed account does not hold a message up while another is open, untried or not."""
    assert chosen(planned(route_of("ab"), health=accounts({"a": how}))) == ("b", 1)
    assert chosen(planned(route_of("ab"), tried("b"), health=accounts({"a": how}))) == ("b", 1)


@pytest.mark.parametrize("how", [BREAKER, FUNDS])
def test_a_breaker_never_closes_the_last_way(how: Closed) -> None:
    """When all that is left is closed by breakers or faults, the first goes all the same."""
    assert chosen(planned(route_of("ab"), health=accounts({"a": how, "b": how}))) == ("a", 1)
    assert chosen(planned(route_of("a"), health=accounts({"a": how}))) == ("a", 1)


def test_what_is_open_again_is_used() -> None:
    """A pause is over at its end, to the microsecond."""
    assert chosen(planned(route_of("ab"), health=accounts({"a": Closed(NOW, Cause.RATE_LIMITED)}))) == ("a", 1)


def test_a_pause_that_was_asked_for_is_waited_out() -> None:
    """When every account asked for a pause, the message waits for the one that ends first."""
    later = Closed(NOW + 60 * SECOND, Cause.RATE_LIMITED)
    assert planned(route_of("ab"), health=accounts({"a": later, "b": PAUSE})) == Wait(PAUSE.until, PAUSE.cause)


def test_a_spent_budget_holds_up_repeats_alone() -> None:
    """An account without budget for repeats takes first attempts; its repeats wait, unless another account is left."""
    spent = Health(spent=frozenset({"uid-a"}))
    assert chosen(planned(route_of("a"), health=spent)) == ("a", 1)
    assert planned(route_of("a"), tried("a"), health=spent) == Wait(NOW + BUDGET_PAUSE, Skip.BUDGET_SPENT)
    assert chosen(planned(route_of("ab"), tried("a"), health=spent)) == ("b", 1)


def test_an_open_breaker_does_not_hide_a_spent_budget() -> None:
    """The last way goes although its breaker is open, but its repeats wait for the budget all the same."""
    until = NOW + 5 * SECOND
    health = Health(accounts={"uid-a": Closed(until, Cause.BREAKER_OPEN)}, spent=frozenset({"uid-a"}))
    assert chosen(planned(route_of("a"), health=health)) == ("a", 1)
    assert planned(route_of("a"), tried("a"), health=health) == Wait(NOW + BUDGET_PAUSE, Skip.BUDGET_SPENT)


def test_a_closed_sender_closes_no_other() -> None:
    """A sender that is closed on an account leaves the account to messages of another sender."""
    health = Health(senders={("uid-a", "1000"): Closed(NOW + SECOND, Cause.SENDER)})
    used = [planned(route_of("ab"), health=health, content=Content(PERSON, "x", sender)) for sender in ("1000", "2000")]
    assert [chosen(found)[0] for found in used] == ["b", "a"]


def test_a_line_is_closed_for_its_country() -> None:
    """A breaker watches an account, a channel and a country: other countries go on."""
    health = Health(lines={("uid-a", Channel.SMS, "IR"): BREAKER})
    people = [Content(Recipient(phone=phone), "x") for phone in ("+989120000111", "+447400123456")]
    assert [chosen(planned(route_of("ab"), health=health, content=person))[0] for person in people] == ["b", "a"]


@pytest.mark.parametrize(
    ("account", "safe"), [({}, False), ({"in_process": True}, True), ({"base_url": "http://127.0.0.1:1"}, True)]
)
def test_a_sandbox_reaches_no_real_provider(account: dict[str, Any], safe: bool) -> None:
    """A SANDBOX tenant uses accounts that stay in the process or have an address of their own; others never."""
    found = planned(route_of("a", **account), mode=Mode.SANDBOX)
    assert isinstance(found, Go) == safe
    assert isinstance(planned(route_of("a", **account)), Go)


@pytest.mark.parametrize("account", [{"is_active": False}, {"configured": False}])
def test_what_is_switched_off_is_passed_over(account: dict[str, Any]) -> None:
    """Inactive accounts and those that lack a setting are passed over."""
    mixed = Route("r", (hop("a", **account), hop("b")))
    assert chosen(planned(mixed)) == ("b", 1)
    assert planned(route_of("a", **account)) == Nothing(FailureReason.NO_ROUTE)


def test_who_has_no_address_is_not_reached() -> None:
    """A channel for which the recipient has no address is passed over."""
    mixed = Route("r", (hop("a", 1, Channel.EMAIL), hop("b", 1, Channel.SMS)))
    assert chosen(planned(mixed, content=Content(Recipient(phone="+989120000111"), "x"))) == ("b", 1)


UNKNOWN = OutcomeKind.AMBIGUOUS


def test_an_unknown_otp_goes_to_the_next_provider() -> None:
    """When nobody knows about an OTP, the next provider sends it, the same again where there is no other; twice."""
    otp = MessageClass.OTP
    given_up = tried("a", UNKNOWN, given_up=True)
    assert chosen(planned(route_of("ab"), given_up, message_class=otp)) == ("b", 1)
    assert chosen(planned(route_of("a"), given_up, message_class=otp)) == ("a", 1)
    assert isinstance(
        planned(route_of("abc"), given_up, tried("b", UNKNOWN, given_up=True), message_class=otp), Nothing
    )


def test_what_is_unknown_is_awaited_first() -> None:
    """Before its window is over nobody else is tried, not even for an OTP."""
    assert isinstance(planned(route_of("ab", "c"), tried("a", UNKNOWN), message_class=MessageClass.OTP), Nothing)


@pytest.mark.parametrize(
    ("message_class", "again", "sends_again"),
    [
        (MessageClass.TRANSACTIONAL, OnUnconfirmed.STAY, False),
        (MessageClass.TRANSACTIONAL, OnUnconfirmed.SEND_AGAIN, True),
        (MessageClass.BULK, OnUnconfirmed.SEND_AGAIN, False),
    ],
)
def test_what_is_unknown_is_sent_again_only_where_the_class_allows(
    message_class: MessageClass, again: OnUnconfirmed, sends_again: bool
) -> None:
    """TRANSACTIONAL stays unless its caller chose SEND_AGAIN, BULK always stays; no later step changes that."""
    for route in (route_of("ab"), route_of("a", "b")):
        found = planned(route, tried("a", UNKNOWN, given_up=True), message_class=message_class, again=again)
        assert isinstance(found, Go) == sends_again


@pytest.mark.parametrize("route", [route_of("a", "b"), route_of("a", "b", "c"), route_of("ab", "ab")])
def test_steps_do_not_multiply_what_is_sent(route: Route) -> None:
    """Two hand-offs of an OTP that may both arrive are the most, however many steps its rule has."""
    both = tried("a", UNKNOWN, given_up=True), tried("b", UNKNOWN, given_up=True, step=2)
    assert isinstance(planned(route, *both, message_class=MessageClass.OTP), Nothing)


def pushed(account: str, outcomes: Sequence[OutcomeKind]) -> list[Attempt]:
    return [tried(account, outcome, destination=n, channel=Channel.PUSH) for n, outcome in enumerate(outcomes)]


def test_a_push_goes_to_every_token_and_again_to_those_that_failed() -> None:
    """Five tokens are five destinations; what was taken is not sent again, what failed is, and a dead token never."""
    push = route_of("ab", channel=Channel.PUSH)
    first = planned(push)
    taken = OutcomeKind.ACCEPTED
    attempts = pushed("a", [taken, FAILED, taken, OutcomeKind.REJECTED, LIMITED])
    attempts[3] = replace(attempts[3], refusal=Refusal.RECIPIENT)
    again = planned(push, *attempts)
    assert isinstance(first, Go)
    assert isinstance(again, Go)
    assert (first.destinations, again.destinations, chosen(again)) == ((0, 1, 2, 3, 4), (1, 4), ("b", 1))


def test_an_unknown_token_holds_up_no_other() -> None:
    """A token whose sends are used up does not keep another that failed from its repeat."""
    push = route_of("a", channel=Channel.PUSH)
    unknown = [tried("a", UNKNOWN, given_up=True, channel=Channel.PUSH) for _ in range(3)]
    found = planned(push, *unknown, tried("a", FAILED, destination=1, channel=Channel.PUSH))
    assert isinstance(found, Go)
    assert 1 in found.destinations
    assert 0 not in found.destinations


def test_a_step_that_reached_somebody_is_the_last() -> None:
    """While step 1 may have arrived no later step is taken; when it was reported undelivered the next one is."""
    taken = tried("a", OutcomeKind.ACCEPTED)
    assert isinstance(planned(route_of("ab", "c"), taken), Nothing)
    assert isinstance(planned(route_of("ab", "c"), replace(taken, receipt=ReceiptKind.DELIVERED)), Nothing)
    undelivered = replace(taken, receipt=ReceiptKind.UNDELIVERED)
    assert chosen(planned(route_of("ab", "c"), undelivered)) == ("c", 2)
    assert isinstance(planned(route_of("ab"), undelivered), Nothing)


def test_no_step_is_taken_twice() -> None:
    """Once a later step was tried, an earlier one is over."""
    attempts = tried("a", OutcomeKind.ACCEPTED, receipt=ReceiptKind.UNDELIVERED), tried("b", FAILED, step=2)
    assert chosen(planned(route_of("ac", "b"), *attempts)) == ("b", 2)


def test_a_failing_step_goes_on_to_the_next() -> None:
    """When nobody of a step could take the message, the next step's accounts come before repeats."""
    assert chosen(planned(route_of("ab", "c"), tried("a"), tried("b"))) == ("c", 2)


def test_what_is_left_is_told() -> None:
    """A plan counts what is left behind it: accounts in all, of later steps, of other channels."""
    mixed = Route("r", (hop("a"), hop("b"), hop("c", 1, Channel.EMAIL), hop("d", 2, Channel.EMAIL)))
    found = planned(mixed)
    assert isinstance(found, Go)
    assert (found.behind.candidates, found.behind.steps, found.behind.channels) == (3, 1, 2)


@pytest.mark.parametrize("closed", [{"a": PAUSE}, {"a": BREAKER}, {}])
def test_a_message_does_not_fail_while_an_account_is_left(closed: Mapping[str, Closed]) -> None:
    """What one account cannot take waits for another that is closed for a while, or has failed before."""
    life = History(message_of())
    turns = (Health(), unavailable()), (accounts(closed), misconfigured(Fault.FUNDS))
    for number, (health, outcome) in enumerate(turns, 1):
        hold = life.claim()
        found = survey(life.case, Content(PERSON, "x"), route_of("ab"), Mode.LIVE, health, life.now).plan
        assert isinstance(found, Go)
        life.tell(Started(hold, (opening_of(found.hop.account.name, behind=found.behind),)))
        life.tell(Settled(hold, number, outcome))
    assert [attempt.account for attempt in life.attempts] == ["a", "b"]
    assert (life.message.state, life.kind) == (State.SENDING, DueKind.SEND)


def test_a_message_does_not_fail_while_an_untried_account_is_closed() -> None:
    """An account that was closed at the first hand-off is tried after it."""
    life = History(message_of())
    hold = life.claim()
    closed = accounts({"a": PAUSE})
    found = survey(life.case, Content(PERSON, "x"), route_of("ab"), Mode.LIVE, closed, life.now).plan
    assert isinstance(found, Go)
    life.tell(Started(hold, (opening_of(found.hop.account.name, behind=found.behind),)))
    life.tell(Settled(hold, 1, misconfigured(Fault.FUNDS)))
    assert (life.message.provider, life.message.state, life.kind) == ("b", State.SENDING, DueKind.SEND)


def test_without_fallback_one_account_is_all() -> None:
    """Of a step without fallback the first account that may be used is tried, with repeats, and no other ever."""
    hops = [replace(each, sole=True) for each in route_of("abc").hops]
    off = replace(hops[0], account=replace(hops[0].account, is_active=False))
    route = Route("r", (off, *hops[1:]))
    first = planned(route)
    assert isinstance(first, Go)
    assert (first.hop.account.name, first.behind.candidates) == ("b", 0)
    assert chosen(planned(route, tried("b"))) == ("b", 1)
    refused = replace(tried("b", OutcomeKind.REJECTED), refusal=Refusal.CONTENT)
    assert isinstance(planned(route, refused), Nothing)
