"""Routing rules, and the route that a message takes by them: which steps, and which accounts in each."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from server.model.accounts import Account
from server.model.enums import Channel
from server.model.messages import Recipient


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


@dataclass(frozen=True, slots=True)
class Rule:
    """An ordered way to reach people for some intents; no intents: every one. The smaller priority goes first."""

    name: str
    intents: tuple[str, ...] = ()
    steps: tuple[Step, ...] = ()
    is_active: bool = True
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Hop:
    """One account in one step, over one channel."""

    step: int
    channel: Channel
    account: Account
    sender: str = ""
    sole: bool = False
    """Its step has no fallback: one account of the step is tried, and no other."""


@dataclass(frozen=True, slots=True)
class Route:
    """The rule that matched ("" for the implied one) and its hops in order. Steps count from 1."""

    rule: str
    hops: tuple[Hop, ...]


_IMPLIED = (Channel.SMS, Channel.EMAIL, Channel.PUSH, Channel.CHAT)
"""The channels that the implied rule considers, in this order. A call is made only to who asked for one."""


def by_priority(accounts: Iterable[Account]) -> list[Account]:
    """The smaller priority first, then by name."""
    return sorted(accounts, key=lambda account: (account.priority, account.name))


def rule_for(rules: Sequence[Rule], intent: str) -> Rule | None:
    """The first active rule by priority, then name, that serves the intent."""
    serving = [rule for rule in rules if rule.is_active and (not rule.intents or intent in rule.intents)]
    return min(serving, key=lambda rule: (rule.priority, rule.name), default=None)


def route_for(
    rules: Sequence[Rule], accounts: Sequence[Account], intent: str, recipient: Recipient, wanted: Channel | None
) -> Route:
    """The route of a message, inactive and unconfigured accounts included: `plan` passes over them, and says so."""
    rule = rule_for(rules, intent)
    if rule is None:
        return Route("", _implied(accounts, recipient, wanted))
    hops: list[Hop] = []
    for number, step in enumerate(rule.steps, 1):
        hops += _hops(number, step, accounts, recipient, wanted)
        if hops and not step.fallback:
            break
    return Route(rule.name, tuple(hops))


def _implied(accounts: Sequence[Account], recipient: Recipient, wanted: Channel | None) -> tuple[Hop, ...]:
    usable = [account for account in by_priority(accounts) if account.is_active and account.configured]
    for channel in (wanted,) if wanted else _IMPLIED:
        serving = [account for account in usable if channel in account.channels]
        if serving and recipient.addresses(channel):
            return tuple(Hop(1, channel, account) for account in serving)
    return ()


def _hops(
    number: int, step: Step, accounts: Sequence[Account], recipient: Recipient, wanted: Channel | None
) -> list[Hop]:
    if wanted and step.channel and step.channel != wanted:
        return []
    channel = step.channel or wanted
    named = {account.name: account for account in accounts}
    chosen = [named[name] for name in step.providers if name in named] or _all_active(step, accounts)
    pairs = [(account, _channel_of(account, channel, recipient)) for account in chosen]
    sole = not step.fallback
    return [Hop(number, found, account, step.sender, sole) for account, found in pairs if found is not None]


def _all_active(step: Step, accounts: Sequence[Account]) -> list[Account]:
    return [] if step.providers else [account for account in by_priority(accounts) if account.is_active]


def _channel_of(account: Account, wanted: Channel | None, recipient: Recipient) -> Channel | None:
    """The channel over which the account would reach this person; its first one when none has an address."""
    if wanted is not None:
        return wanted if wanted in account.channels else None
    reachable = (channel for channel in account.channels if recipient.addresses(channel))
    return next(reachable, account.channels[0] if account.channels else None)
