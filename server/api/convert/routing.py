"""Routing rules: checked, turned into rows, and shown again."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TypedDict

from angarium.v1 import routing_service_pb2 as wire

from server.api.convert.checks import CAPTION_CHARS_MAX, ID_CHARS_MAX, Checks
from server.api.convert.messages import check_sender
from server.api.convert.times import timestamp
from server.api.convert.words import CHANNELS
from server.model.accounts import Account
from server.model.enums import Channel
from server.model.tables import RoutingRule

RULES_MAX = 200
INTENTS_MAX = 100
STEPS_MAX = 10
PROVIDERS_MAX = 20
PROVIDER_CHARS_MAX = 63
WARNINGS_MAX = 100


class StepText(TypedDict):
    """A step as a row's JSON holds it."""

    channel: str
    providers: list[str]
    fallback: bool
    sender: str


def rule_rows(request: wire.SetRoutingRulesRequest, tenant_id: str) -> list[RoutingRule]:
    """The rows of a request's rules. Raises Invalid with every bad field."""
    checks = Checks()
    if not request.rules and not request.replace_all:
        checks.fail("rules", "is required")
    checks.line("revision", request.revision, ID_CHARS_MAX)
    rows: list[RoutingRule] = []
    if checks.count("rules", request.rules, RULES_MAX):
        rows = [_row(checks, f"rules[{n}]", rule, tenant_id) for n, rule in enumerate(request.rules)]
    names = [rule.name for rule in request.rules]
    for name in {name for name in names if names.count(name) > 1}:
        checks.fail("rules", f"name {name[:PROVIDER_CHARS_MAX]!r} more than once")
    checks.settle()
    return rows


def rule_names(names: Sequence[str], *, required: bool) -> list[str]:
    """The rules that a request names. Raises Invalid."""
    checks = Checks()
    if required and not names:
        checks.fail("names", "is required")
    checks.lines("names", names, RULES_MAX, ID_CHARS_MAX)
    checks.settle()
    return list(dict.fromkeys(names))


def rule(row: RoutingRule) -> wire.RoutingRule:
    """A rule as its tenant sees it."""
    return wire.RoutingRule(
        name=row.name,
        caption=row.caption,
        intents=json.loads(row.intents),
        steps=[_step(step) for step in json.loads(row.steps)],
        is_active=row.is_active,
        priority=row.priority,
        create_time=timestamp(row.created_at),
        update_time=timestamp(row.updated_at),
    )


def in_order(rows: Iterable[RoutingRule]) -> list[RoutingRule]:
    """The rows as they are tried."""
    return sorted(rows, key=lambda row: (row.priority, row.name))


def warnings(rows: Iterable[RoutingRule], accounts: Sequence[Account]) -> list[str]:
    """What is allowed and yet looks wrong, a sentence each."""
    named = {account.name: account for account in accounts}
    found: list[str] = []
    covering = ""
    for row in in_order(rows):
        if not row.is_active:
            continue
        if covering:
            found.append(f"Rule {row.name} is never reached: rule {covering} before it serves every intent.")
        steps: list[StepText] = json.loads(row.steps)
        for number, step in enumerate(steps, 1):
            doubts = (_doubt(name, named, step["channel"]) for name in step["providers"])
            found += [f"Rule {row.name}, step {number}: {doubt}." for doubt in doubts if doubt]
        covering = covering or ("" if json.loads(row.intents) else row.name)
    return found[:WARNINGS_MAX]


def _doubt(name: str, named: Mapping[str, Account], channel: str) -> str:
    account = named.get(name)
    if account is None:
        return f"there is no provider {name}"
    if not account.is_active:
        return f"the provider {name} is not active"
    if channel and Channel(channel) not in account.channels:
        return f"the provider {name} does not serve {channel}"
    return ""


def _row(checks: Checks, field: str, given: wire.RoutingRule, tenant_id: str) -> RoutingRule:
    checks.intent(f"{field}.name", given.name)
    checks.line(f"{field}.caption", given.caption, CAPTION_CHARS_MAX)
    if checks.count(f"{field}.intents", given.intents, INTENTS_MAX):
        for intent in given.intents:
            checks.intent(f"{field}.intents", intent)
    if not given.steps:
        checks.fail(f"{field}.steps", "is required")
    steps: list[StepText] = []
    if checks.count(f"{field}.steps", given.steps, STEPS_MAX):
        steps = [_step_text(checks, f"{field}.steps[{n}]", step) for n, step in enumerate(given.steps)]
    return RoutingRule(
        tenant_id=tenant_id,
        name=given.name,
        caption=given.caption,
        intents=json.dumps(list(dict.fromkeys(given.intents))),
        steps=json.dumps(steps),
        is_active=given.is_active if given.HasField("is_active") else True,
        priority=given.priority,
    )


def _step_text(checks: Checks, field: str, given: wire.RouteStep) -> StepText:
    channel = checks.word(f"{field}.channel", CHANNELS, given.channel)
    checks.lines(f"{field}.providers", given.providers, PROVIDERS_MAX, PROVIDER_CHARS_MAX)
    check_sender(checks, f"{field}.sender", given.sender)
    return {
        "channel": channel or "",
        "providers": list(dict.fromkeys(given.providers)),
        "fallback": given.fallback if given.HasField("fallback") else True,
        "sender": given.sender,
    }


def _step(step: StepText) -> wire.RouteStep:
    return wire.RouteStep(
        channel=CHANNELS.number(Channel(step["channel"]) if step["channel"] else None),
        providers=step["providers"],
        fallback=step["fallback"],
        sender=step["sender"],
    )
