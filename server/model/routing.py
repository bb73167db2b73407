"""Routing rules, and the route that a message takes by them: which steps, and which accounts in each."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import blake2b
from math import log

from server.model.accounts import Account
from server.model.clock import Micros
from server.model.enums import Channel, MessageClass, Mode, State, Strategy
from server.model.explanation import Candidate, RuleLook, Skip, Why, skipped
from server.model.messages import Content, Message, Recipient
from server.model.phones import operator_of


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a rule. No channel: the providers' own. No providers: all active ones of the channel by priority.

    `fallback` False: the step's first usable provider alone is tried, and the route ends with it. `sender` is for
    messages that name none.
    """

    channel: Channel | None = None
    providers: tuple[str, ...] = ()
    fallback: bool = True
    sender: str = ""
    strategy: Strategy = Strategy.ORDERED
    weights: Mapping[str, int] = field(default_factory=dict[str, int])
    wait_for: State = State.SENT
    timeout: Micros = 0
    application_key: str = ""
    template_key: str = ""


@dataclass(frozen=True, slots=True)
class Match:
    """What must hold of a message beside its intent; an empty field asks for nothing."""

    country_prefixes: tuple[str, ...] = ()
    operators: tuple[str, ...] = ()
    message_classes: tuple[MessageClass, ...] = ()
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Rule:
    """An ordered way to reach people for some intents; no intents: every one. The smaller priority goes first."""

    name: str
    intents: tuple[str, ...] = ()
    steps: tuple[Step, ...] = ()
    is_active: bool = True
    priority: int = 0
    match: Match = Match()


@dataclass(frozen=True, slots=True)
class Asked:
    """What a route is sought for: all that rules look at. `lot` orders weighted accounts, the same for one message."""

    intent: str
    recipient: Recipient
    message_class: MessageClass = MessageClass.TRANSACTIONAL
    channel: Channel | None = None
    tags: tuple[str, ...] = ()
    scenario: str = ""
    lot: str = ""


def asked_of(message: Message, content: Content) -> Asked:
    """What a message's route is sought for."""
    return Asked(
        intent=message.intent,
        recipient=content.recipient,
        message_class=message.message_class,
        channel=message.channel_wanted,
        tags=message.tags,
        scenario=message.scenario,
        lot=message.id,
    )


@dataclass(frozen=True, slots=True)
class Hop:
    """One account in one step, over one channel."""

    step: int
    channel: Channel
    account: Account
    sender: str = ""
    sole: bool = False
    """Its step has no fallback: one account of the step is tried, and no other."""
    template_key: str = ""
    application_key: str = ""
    wait_for: State = State.SENT
    timeout: Micros = 0


@dataclass(frozen=True, slots=True)
class Route:
    """The rule that is followed ("" for the implied one) and its hops in order. Steps count from 1."""

    rule: str
    hops: tuple[Hop, ...]
    looks: Callable[[], tuple[RuleLook, ...]] = field(default=tuple, compare=False, repr=False)
    """Tells of every rule in the order in which they are tried. Only who explains asks: 200 rules take 0.2 ms."""
    passed: Callable[[], tuple[Candidate, ...]] = field(default=tuple, compare=False, repr=False)
    """Tells of what gave no hop: names of no account, accounts and steps of other channels. Only who explains asks."""


_IMPLIED = (Channel.SMS, Channel.EMAIL, Channel.PUSH, Channel.CHAT)
"""The channels that the implied rule considers, in this order. A call is made only to who asked for one."""


def by_priority(accounts: Iterable[Account]) -> list[Account]:
    """The smaller priority first, then by name."""
    return sorted(accounts, key=lambda account: (account.priority, account.name))


def in_order(rules: Iterable[Rule]) -> list[Rule]:
    """As they are tried: the smaller priority first, then by name."""
    return sorted(rules, key=lambda rule: (rule.priority, rule.name))


def rule_for(rules: Sequence[Rule], asked: Asked) -> Rule | None:
    """The rule that is followed: the scenario where one is named, else the first active one that serves and matches.

    A scenario that there is not, or that is not active, is None, whatever other rules there are.
    """
    if asked.scenario:
        return next((rule for rule in rules if rule.name == asked.scenario and rule.is_active), None)
    serving = [rule for rule in rules if rule.is_active and (not rule.intents or asked.intent in rule.intents)]
    return next((rule for rule in in_order(serving) if _unmet(rule.match, asked) is None), None)


def route_for(rules: Sequence[Rule], accounts: Sequence[Account], asked: Asked) -> Route:
    """The route of a message, inactive and unconfigured accounts included: `plan` passes over them, and says so."""
    rule = rule_for(rules, asked)
    looks = partial(_looks, rules, rule, asked)
    if rule is None and asked.scenario:
        return Route("", (), looks)
    if rule is None:
        implied = _implied(accounts, asked.recipient, asked.channel)
        return Route("", implied, looks, partial(_passed_by_implied, implied, accounts, asked))
    hops: list[Hop] = []
    last = 0
    for last, step in enumerate(rule.steps, 1):
        own = _hops(last, step, accounts, asked)
        hops += own
        if own and not step.fallback:
            break
    return Route(rule.name, tuple(hops), looks, partial(_passed, rule.steps[:last], accounts, asked))


def barred(account: Account, mode: Mode) -> Skip | None:
    """Why an account takes no message of its tenant at all; None where it may."""
    if not account.is_active:
        return Skip.INACTIVE
    if not account.configured:
        return Skip.NOT_CONFIGURED
    return Skip.NOT_FOR_SANDBOX if mode == Mode.SANDBOX and not account.safe_for_sandbox else None


def _unmet(match: Match, asked: Asked) -> Why | None:
    """What of a match does not hold. The operator is looked up last: it costs as much as the rest of a route."""
    if match.message_classes and asked.message_class not in match.message_classes:
        return Why.MESSAGE_CLASS
    if match.tags and not set(match.tags) & set(asked.tags):
        return Why.TAGS
    if match.country_prefixes and not asked.recipient.phone[1:].startswith(match.country_prefixes):
        return Why.COUNTRY
    return Why.OPERATOR if match.operators and not _is_of(match.operators, asked.recipient.phone) else None


def _is_of(operators: Sequence[str], phone: str) -> bool:
    operator = operator_of(phone).casefold() if phone else ""
    return bool(operator) and operator in (name.casefold() for name in operators)


def _looks(rules: Sequence[Rule], followed: Rule | None, asked: Asked) -> tuple[RuleLook, ...]:
    looks = tuple(RuleLook(rule.name, rule is followed, _why(rule, followed, asked)) for rule in in_order(rules))
    return looks if followed or asked.scenario else (*looks, RuleLook("", matched=True, why=Why.IMPLIED))


def _why(rule: Rule, followed: Rule | None, asked: Asked) -> Why:
    if asked.scenario and rule.name != asked.scenario:
        return Why.SCENARIO
    if not rule.is_active:
        return Why.INACTIVE
    if asked.scenario:
        return Why.SCENARIO
    if rule is followed:
        return Why.FOLLOWED
    if rule.intents and asked.intent not in rule.intents:
        return Why.INTENT
    return _unmet(rule.match, asked) or Why.BEHIND


def _implied(accounts: Sequence[Account], recipient: Recipient, wanted: Channel | None) -> tuple[Hop, ...]:
    usable = [account for account in by_priority(accounts) if account.is_active and account.configured]
    for channel in (wanted,) if wanted else _IMPLIED:
        serving = [account for account in usable if channel in account.channels]
        if serving and recipient.addresses(channel):
            return tuple(Hop(1, channel, account) for account in serving)
    return ()


def _passed_by_implied(hops: Sequence[Hop], accounts: Sequence[Account], asked: Asked) -> tuple[Candidate, ...]:
    """The accounts that the implied rule passed over on its way to the channel that it took, or to none."""
    looked = (asked.channel,) if asked.channel else _IMPLIED
    looked = looked[: looked.index(hops[0].channel) + 1] if hops else looked
    taken = {hop.account.uid for hop in hops}
    found: list[Candidate] = []
    for account in by_priority(accounts):
        serving = [channel for channel in looked if channel in account.channels]
        if account.uid in taken or (hops and not serving):
            continue
        channel = next((channel for channel in serving if asked.recipient.addresses(channel)), None)
        skip = (barred(account, Mode.LIVE) or Skip.NO_ADDRESS) if serving else Skip.CHANNEL
        found.append(skipped(1, channel or (serving or [asked.channel])[0], account.name, skip))
    return tuple(found)


def _passed(steps: Sequence[Step], accounts: Sequence[Account], asked: Asked) -> tuple[Candidate, ...]:
    found: list[Candidate] = []
    for number, step in enumerate(steps, 1):
        if asked.channel and step.channel and step.channel != asked.channel:
            found += [skipped(number, step.channel, name, Skip.CHANNEL) for name in step.providers or ("",)]
        elif step.providers:
            found += _passed_by_name(number, step, accounts, asked)
        else:
            found += _passed_unnamed(number, step, accounts, asked)
    return tuple(found)


def _passed_by_name(number: int, step: Step, accounts: Sequence[Account], asked: Asked) -> Iterator[Candidate]:
    """The providers of a step that are no account, or that do not serve its channel."""
    named, channel = {account.name: account for account in accounts}, step.channel or asked.channel
    for name in step.providers:
        if name not in named:
            yield skipped(number, channel, name, Skip.UNKNOWN)
        elif _channel_of(named[name], channel, asked.recipient) is None:
            yield skipped(number, channel, name, Skip.CHANNEL)


def _passed_unnamed(number: int, step: Step, accounts: Sequence[Account], asked: Asked) -> Iterator[Candidate]:
    """Of a step that names no provider: the inactive accounts of its channel; one without a name where it has none."""
    wanted = step.channel or asked.channel
    pairs = [(account, _channel_of(account, wanted, asked.recipient)) for account in by_priority(accounts)]
    if not any(channel for _, channel in pairs):
        yield skipped(number, wanted, "", Skip.UNKNOWN)
    for account, channel in pairs:
        if channel and not account.is_active:
            yield skipped(number, channel, account.name, Skip.INACTIVE)


def _hops(number: int, step: Step, accounts: Sequence[Account], asked: Asked) -> list[Hop]:
    if asked.channel and step.channel and step.channel != asked.channel:
        return []
    channel = step.channel or asked.channel
    named = {account.name: account for account in accounts}
    chosen = [named[name] for name in step.providers if name in named] or _all_active(step, accounts)
    if step.strategy == Strategy.WEIGHTED:
        chosen.sort(key=lambda account: _drawn(asked.lot, account.name, step.weights.get(account.name, 1)))
    pairs = ((account, _channel_of(account, channel, asked.recipient)) for account in chosen)
    return [_hop(number, step, account, found) for account, found in pairs if found is not None]


def _hop(number: int, step: Step, account: Account, channel: Channel) -> Hop:
    return Hop(
        number,
        channel,
        account,
        step.sender,
        sole=not step.fallback,
        template_key=step.template_key,
        application_key=step.application_key,
        wait_for=step.wait_for,
        timeout=step.timeout,
    )


def _drawn(lot: str, name: str, weight: int) -> tuple[bool, float]:
    """An account's place by lot: the smaller goes first, and does so in proportion to its weight.

    Each draws a time, exponentially distributed with its weight as the rate, from a hash of lot and name: one message
    keeps its order, and where an account falls away the others keep theirs.
    """
    drawn = int.from_bytes(blake2b(f"{lot}\0{name}".encode(), digest_size=8).digest(), "big")
    return weight == 0, -log((drawn + 1) / 2**64) / (weight or 1)


def _all_active(step: Step, accounts: Sequence[Account]) -> list[Account]:
    return [] if step.providers else [account for account in by_priority(accounts) if account.is_active]


def _channel_of(account: Account, wanted: Channel | None, recipient: Recipient) -> Channel | None:
    """The channel over which the account would reach this person; its first one when none has an address."""
    if wanted is not None:
        return wanted if wanted in account.channels else None
    reachable = (channel for channel in account.channels if recipient.addresses(channel))
    return next(reachable, account.channels[0] if account.channels else None)
