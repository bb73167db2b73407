"""Routing rules: checked, turned into rows, and shown again."""

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import NotRequired, TypedDict, cast

from angarium.v1 import routing_service_pb2 as wire

from server.api.convert.checks import CAPTION_CHARS_MAX, ID_CHARS_MAX, Checks
from server.api.convert.messages import TAG_CHARS_MAX, check_sender
from server.api.convert.times import duration, timestamp
from server.api.convert.words import CHANNELS, CLASSES, STATES, STRATEGIES
from server.model.accounts import Account
from server.model.clock import HOUR, SECOND, Micros
from server.model.configuration_tables import RoutingRule
from server.model.enums import Channel, MessageClass, Mode, State, Strategy
from server.model.explanation import Skip
from server.model.routing import barred

RULES_MAX = 200
INTENTS_MAX = 100
STEPS_MAX = 10
PROVIDERS_MAX = 20
PROVIDER_CHARS_MAX = 63
MATCHES_MAX = 100
WEIGHTS_MAX = 100
WEIGHT_MAX = 1_000
TIMEOUT_MIN: Micros = SECOND
TIMEOUT_MAX: Micros = 24 * HOUR
WARNINGS_MAX = 100
HIDING_MAX = 5

_BARS: Mapping[Skip, str] = {
    Skip.INACTIVE: "is not active",
    Skip.NOT_CONFIGURED: "lacks a setting that it needs",
    Skip.NOT_FOR_SANDBOX: "is not for a sandbox without a base_url of its own",
}
_EVERY = ""
"""Stands for every intent where a rule names none."""

_PREFIX = re.compile(r"[1-9][0-9]{0,14}")


class StepText(TypedDict):
    """A step as a row's JSON holds it. What later releases added is there only where it is set; `timeout` in µs."""

    channel: str
    providers: list[str]
    fallback: bool
    sender: str
    strategy: NotRequired[str]
    weights: NotRequired[dict[str, int]]
    wait_for: NotRequired[str]
    timeout: NotRequired[Micros]
    application_key: NotRequired[str]
    template_key: NotRequired[str]


class MatchText(TypedDict, total=False):
    """A match as a row's JSON holds it: what is set."""

    country_prefixes: list[str]
    operators: list[str]
    message_classes: list[str]
    tags: list[str]


def rule_rows(request: wire.SetRoutingRulesRequest, tenant_id: str) -> list[RoutingRule]:
    """The rows of a request's rules. Raises Invalid with every bad field."""
    checks = Checks()
    if not request.rules and not request.replace_all:
        checks.fail("rules", "is required")
    checks.line("revision", request.revision, ID_CHARS_MAX)
    rows = _rows(checks, "rules", request.rules, tenant_id)
    checks.settle()
    return rows


def draft_rows(checks: Checks, request: wire.ExplainRouteRequest, tenant_id: str) -> list[RoutingRule]:
    """The rows of the rules that a route shall be explained by, of use once `checks` have settled."""
    return _rows(checks, "draft_rules", request.draft_rules, tenant_id)


def _rows(checks: Checks, field: str, rules: Sequence[wire.RoutingRule], tenant_id: str) -> list[RoutingRule]:
    if not checks.count(field, rules, RULES_MAX):
        return []
    names = [rule.name for rule in rules]
    for name in {name for name in names if names.count(name) > 1}:
        checks.fail(field, f"name {name[:PROVIDER_CHARS_MAX]!r} more than once")
    return [_row(checks, f"{field}[{n}]", rule, tenant_id) for n, rule in enumerate(rules)]


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
        match=_match(json.loads(row.match)) if row.match != "{}" else None,
        steps=[_step(step) for step in json.loads(row.steps)],
        is_active=row.is_active,
        priority=row.priority,
        create_time=timestamp(row.created_at),
        update_time=timestamp(row.updated_at),
    )


def in_order(rows: Iterable[RoutingRule]) -> list[RoutingRule]:
    """The rows as they are tried."""
    return sorted(rows, key=lambda row: (row.priority, row.name))


def warnings(
    rows: Iterable[RoutingRule], accounts: Sequence[Account], mode: Mode, templates: Collection[str]
) -> list[str]:
    """What is allowed and yet looks wrong, a sentence each. `templates` are the keys that there are."""
    found: list[str] = []
    covering: dict[str, str] = {}
    for row in in_order(rows):
        if not row.is_active:
            continue
        intents: list[str] = json.loads(row.intents)
        if hidden := _hidden(row.name, intents, covering):
            found.append(hidden)
        steps: list[StepText] = json.loads(row.steps)
        for number, step in enumerate(steps, 1):
            found += [f"Rule {row.name}, step {number}: {doubt}." for doubt in _doubts(step, accounts, mode, templates)]
        if row.match == "{}":
            covering = dict.fromkeys(intents or [_EVERY], row.name) | covering
    return found[:WARNINGS_MAX]


def _hidden(name: str, intents: Sequence[str], covering: Mapping[str, str]) -> str:
    """That no message comes to a rule, for earlier ones take them all: `covering` has the first of each intent."""
    told = f"Rule {name} is never reached but as a scenario:"
    if _EVERY in covering:
        return f"{told} rule {covering[_EVERY]} serves every message."
    if not intents or any(intent not in covering for intent in intents):
        return ""
    names = list(dict.fromkeys(covering[intent] for intent in intents))
    if len(names) == 1:
        return f"{told} rule {names[0]} serves all of its intents."
    more = ", …" if len(names) > HIDING_MAX else ""
    return f"{told} rules {', '.join(names[:HIDING_MAX])}{more} serve all of its intents."


def _doubts(step: StepText, accounts: Sequence[Account], mode: Mode, templates: Collection[str]) -> Iterator[str]:
    named = {account.name: account for account in accounts}
    providers = step["providers"] or [account.name for account in accounts if _serves(account, step["channel"])]
    if step["providers"]:
        yield from filter(None, (_doubt(name, named.get(name), step["channel"], mode) for name in step["providers"]))
    elif all(barred(named[name], mode) for name in providers):
        yield "there is no provider that may be used" + (f" for {step['channel']}" if step["channel"] else "")
    for name in step.get("weights", {}):
        if name not in providers:
            yield f"the weight of {name} is that of no provider of the step"
    if step.get("weights") and step.get("strategy") != Strategy.WEIGHTED:
        yield "the weights count with STRATEGY_WEIGHTED alone"
    if (key := step.get("template_key", "")) and key not in templates:
        yield f"there is no template {key}"
    if step.get("wait_for") == State.DELIVERED:
        yield from (f"the provider {name} tells no receipts" for name in step["providers"] if _is_mute(named.get(name)))
        if not step["fallback"]:
            yield "without fallback no step follows when its timeout is over"


def _serves(account: Account, channel: str) -> bool:
    return not channel or Channel(channel) in account.channels


def _is_mute(account: Account | None) -> bool:
    return account is not None and not account.follow.reports


def _doubt(name: str, account: Account | None, channel: str, mode: Mode) -> str:
    if account is None:
        return f"there is no provider {name}"
    if bar := barred(account, mode):
        return f"the provider {name} {_BARS[bar]}"
    return "" if _serves(account, channel) else f"the provider {name} does not serve {channel}"


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
        match=json.dumps(_match_text(checks, f"{field}.match", given.match)),
    )


def _match_text(checks: Checks, field: str, given: wire.RouteMatch) -> MatchText:
    """What a message must have. An unset match is an empty one."""
    prefixes = checks.lines(f"{field}.country_prefixes", given.country_prefixes, MATCHES_MAX, ID_CHARS_MAX)
    for number, prefix in enumerate(prefixes):
        if prefix and not _PREFIX.fullmatch(prefix):
            checks.fail(f"{field}.country_prefixes[{number}]", "is no beginning of an E.164 number such as 98 or 98912")
    checks.lines(f"{field}.operators", given.operators, MATCHES_MAX, ID_CHARS_MAX)
    checks.lines(f"{field}.tags", given.tags, MATCHES_MAX, TAG_CHARS_MAX)
    match: MatchText = {
        "country_prefixes": _once(prefixes),
        "operators": _once(given.operators),
        "message_classes": _classes(checks, f"{field}.message_classes", given.message_classes),
        "tags": _once(given.tags),
    }
    return cast("MatchText", {name: values for name, values in match.items() if values})


def _once(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))


def _classes(checks: Checks, field: str, numbers: Sequence[int]) -> list[str]:
    if not checks.count(field, numbers, MATCHES_MAX):
        return []
    if 0 in numbers:
        checks.fail(field, "holds MESSAGE_CLASS_UNSPECIFIED")
    words = (checks.word(field, CLASSES, number) for number in dict.fromkeys(numbers))
    return [word.value for word in words if word is not None]


def _step_text(checks: Checks, field: str, given: wire.RouteStep) -> StepText:
    channel = checks.word(f"{field}.channel", CHANNELS, given.channel)
    checks.lines(f"{field}.providers", given.providers, PROVIDERS_MAX, PROVIDER_CHARS_MAX)
    check_sender(checks, f"{field}.sender", given.sender)
    step: StepText = {
        "channel": channel or "",
        "providers": list(dict.fromkeys(given.providers)),
        "fallback": given.fallback if given.HasField("fallback") else True,
        "sender": given.sender,
    }
    strategy = checks.word(f"{field}.strategy", STRATEGIES, given.strategy)
    wait_for = _wait_for(checks, f"{field}.wait_for", given.wait_for)
    added = {
        "strategy": "" if strategy in (None, Strategy.ORDERED) else strategy.value,
        "weights": _weights(checks, f"{field}.weights", given.weights),
        "wait_for": "" if wait_for == State.SENT else wait_for.value,
        "timeout": _timeout(checks, f"{field}.timeout", given, wait_for),
        "application_key": checks.line(f"{field}.application_key", given.application_key, ID_CHARS_MAX),
        "template_key": checks.line(f"{field}.template_key", given.template_key, ID_CHARS_MAX),
    }
    # What is not set is left out: a rule that is set again as an older release kept it has not changed.
    return cast("StepText", step | {name: value for name, value in added.items() if value})


def _weights(checks: Checks, field: str, given: Mapping[str, int]) -> dict[str, int]:
    if not checks.count(field, given, WEIGHTS_MAX):
        return {}
    for name, weight in given.items():
        checks.identity(field, name)
        if not 0 <= weight <= WEIGHT_MAX:
            checks.fail(f"{field}.{name[:PROVIDER_CHARS_MAX]}", f"must be 0–{WEIGHT_MAX:,}")
    return dict(sorted(given.items()))


def _wait_for(checks: Checks, field: str, number: int) -> State:
    wanted = checks.word(field, STATES, number) or State.SENT
    if wanted not in (State.SENT, State.DELIVERED):
        checks.fail(field, "must be STATE_SENT or STATE_DELIVERED")
        return State.SENT
    return wanted


def _timeout(checks: Checks, field: str, given: wire.RouteStep, wait_for: State) -> Micros:
    if not given.HasField("timeout"):
        if wait_for == State.DELIVERED:
            checks.fail(field, "is required beside wait_for STATE_DELIVERED")
        return 0
    span = checks.span(field, given.timeout)
    if span is not None and not TIMEOUT_MIN <= span <= TIMEOUT_MAX:
        checks.fail(field, "must be 1 s–24 h")
    return span or 0


def _match(match: MatchText) -> wire.RouteMatch:
    return wire.RouteMatch(
        country_prefixes=match.get("country_prefixes", ()),
        operators=match.get("operators", ()),
        message_classes=[CLASSES.number(MessageClass(name)) for name in match.get("message_classes", ())],
        tags=match.get("tags", ()),
    )


def _step(step: StepText) -> wire.RouteStep:
    timeout = step.get("timeout", 0)
    return wire.RouteStep(
        channel=CHANNELS.number(Channel(step["channel"]) if step["channel"] else None),
        providers=step["providers"],
        strategy=STRATEGIES.number(Strategy(step.get("strategy", Strategy.ORDERED))),
        weights=step.get("weights", {}),
        fallback=step["fallback"],
        wait_for=STATES.number(State(step.get("wait_for", State.SENT))),
        timeout=duration(timeout) if timeout else None,
        sender=step["sender"],
        application_key=step.get("application_key", ""),
        template_key=step.get("template_key", ""),
    )
