"""Whether a message can reach anybody at all, judged when it is accepted: by the rules and accounts of that moment."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from server.model.accounts import Account
from server.model.configuration import TenantSettings
from server.model.enums import Channel
from server.model.errors import Precondition, Reason, invalid_field, not_found
from server.model.explanation import DETAILS, Skip
from server.model.messages import CODE, Content, NewMessage, Recipient
from server.model.phones import country_of
from server.model.routing import Hop, Route, Rule, asked_of, barred, route_for, rule_for
from server.model.segments import SEGMENTS_MAX, segments_of
from server.model.senders import may_use
from server.model.templates import Template, Wording, worded_by_step

REASONS_MAX = 5
"""How many accounts an error tells of."""

SENTENCE_CHARS_MAX = 300
"""As much of an error's sentence goes out to the caller."""

REASONS_CHARS_MAX = 240
"""What the metadata tells of them; under 1 KB in UTF-8."""

NAMES_CHARS_MAX = 90
"""How long a list of accounts with one reason may be in the sentence."""

_MORE = "ExplainRoute tells more."
_BY_PHONE = (Channel.SMS, Channel.VOICE, None)


def require_reach(
    new: NewMessage,
    tenant: TenantSettings,
    rules: Sequence[Rule],
    accounts: Sequence[Account],
    templates: Mapping[str, Template],
) -> NewMessage:
    """The message with its rule and segments filled in.

    `templates`: the tenant's by key, and under "" the message's own at its revision; see `templates.beside`.
    Raises NotFound for a scenario that there is not, Precondition (COUNTRY_NOT_ALLOWED, NO_ROUTE,
    RECIPIENT_UNRESOLVED, SENDER_NOT_ALLOWED) where it could not go out as things are, and Invalid where it would take
    too many SMS parts.
    """
    message, content = new.message, new.content
    _require_country(content.recipient, message.channel_wanted, tenant)
    _require_scenario(rules, message.scenario)
    route = route_for(rules, accounts, asked_of(message, content))
    hops = [hop for hop in route.hops if barred(hop.account, tenant.mode) is None]
    if not hops and (route.hops or not _serves_others(new, tenant, rules, accounts)):
        raise _no_route("No active provider account can take the message.", new, tenant, route)
    reaching = [hop for hop in hops if content.recipient.addresses(hop.channel)]
    if not reaching:
        told = {"intent": message.intent}
        sentence = "The recipient has no address that a channel of the route can use."
        raise Precondition(Reason.RECIPIENT_UNRESOLVED, sentence, told)
    sayable = _sayable(new, tenant, reaching, templates)
    if not sayable:
        raise _no_route("No provider account of the route can say the message.", new, tenant, route)
    _require_sender([hop for hop, _ in sayable], content.sender)
    return replace(new, message=replace(message, rule=route.rule, segments=_segments(sayable, content)))


def _no_route(sentence: str, new: NewMessage, tenant: TenantSettings, route: Route) -> Precondition:
    """The error, with why the first few accounts of a route do not go; no account of it can go."""
    reasons = _reasons(new, tenant, route)[:REASONS_MAX]
    by_reason: dict[str, list[str]] = {}
    for name, reason in reasons:
        by_reason.setdefault(reason, []).append(name)
    because = [f"{_fitting(names, ', ', NAMES_CHARS_MAX)}: {DETAILS[reason]}" for reason, names in by_reason.items()]
    why = _fitting(because or ["The route has none."], " ", SENTENCE_CHARS_MAX - len(sentence) - len(_MORE) - 2)
    told = {"intent": new.message.intent}
    if reasons:
        told["reasons"] = _fitting([f"{name}:{reason}" for name, reason in reasons], ",", REASONS_CHARS_MAX)
    return Precondition(Reason.NO_ROUTE, f"{sentence} {why} {_MORE}", told)


def _reasons(new: NewMessage, tenant: TenantSettings, route: Route) -> list[tuple[str, str]]:
    """Why each account of a route cannot take the message, in the order of the steps, once each."""
    found = [(hop.step, hop.account.name, str(_hindrance(hop, new, tenant))) for hop in route.hops]
    found += [(c.step, c.provider or f"step {c.step}", c.reason) for c in route.passed()]
    return list(dict.fromkeys((name, reason) for _, name, reason in sorted(found, key=lambda each: each[0])))


def _hindrance(hop: Hop, new: NewMessage, tenant: TenantSettings) -> Skip:
    skip = barred(hop.account, tenant.mode)
    return skip or (Skip.TEMPLATE if new.content.recipient.addresses(hop.channel) else Skip.NO_ADDRESS)


def _fitting(parts: Iterable[str], separator: str, chars_max: int) -> str:
    """The first parts, as many as fit."""
    text = ""
    for part in parts:
        longer = f"{text}{separator}{part}" if text else part
        if len(longer) > chars_max:
            break
        text = longer
    return text


def _require_scenario(rules: Sequence[Rule], scenario: str) -> None:
    if not scenario:
        return
    rule = next((rule for rule in rules if rule.name == scenario), None)
    if rule is None:
        raise not_found("routing_rule", scenario)
    if not rule.is_active:
        told = {"scenario": scenario}
        raise Precondition(Reason.NO_ROUTE, f"The routing rule {scenario!r} is switched off.", told)


def _sayable(
    new: NewMessage, tenant: TenantSettings, hops: Sequence[Hop], templates: Mapping[str, Template]
) -> list[tuple[Hop, Wording]]:
    """The hops whose account can say the message, and what it would say; in place of a derived code stand zeros."""
    message, content = new.message, new.content
    if content.code is not None:
        content = replace(content, params={**content.params, CODE: "0" * content.code.length})
    found: list[tuple[Hop, Wording]] = []
    for hop in hops:
        wording = worded_by_step(
            message, content, templates, hop.template_key, hop.channel, hop.account.name, tenant.default_locale
        )
        if wording is not None:
            found.append((hop, wording))
    return found


def _serves_others(new: NewMessage, tenant: TenantSettings, rules: Sequence[Rule], accounts: Sequence[Account]) -> bool:
    """Whether no rule matches, and accounts could take the message if only its recipient had an address for them."""
    if rule_for(rules, asked_of(new.message, new.content)) is not None:
        return False
    wanted = new.message.channel_wanted
    channels = {channel for account in accounts if barred(account, tenant.mode) is None for channel in account.channels}
    return wanted in channels if wanted else bool(channels - {Channel.VOICE})


def _require_country(recipient: Recipient, wanted: Channel | None, tenant: TenantSettings) -> None:
    if not (recipient.phone and tenant.allowed_countries and wanted in _BY_PHONE):
        return
    country = country_of(recipient.phone)
    if country not in tenant.allowed_countries:
        message = "The tenant's messages may not go to the country of this phone number."
        raise Precondition(Reason.COUNTRY_NOT_ALLOWED, message, {"country": country})


def _require_sender(hops: Sequence[Hop], sender: str) -> None:
    if not any(may_use(hop.account, sender or hop.sender) for hop in hops):
        message = "No provider account of the route may use this sender."
        raise Precondition(Reason.SENDER_NOT_ALLOWED, message, {"sender": sender or hops[0].sender})


def _segments(sayable: Sequence[tuple[Hop, Wording]], content: Content) -> int:
    """The parts of the first SMS, 0 where none goes out. What a provider's own template makes of it is not limited."""
    by_sms = [wording for hop, wording in sayable if hop.channel == Channel.SMS]
    longest = max((segments_of(text) for text in {said.text for said in by_sms if not said.template}), default=0)
    if longest > SEGMENTS_MAX:
        field = "text" if content.text else "params"
        raise invalid_field(field, f"It takes {longest} SMS parts; {SEGMENTS_MAX} are allowed.")
    return segments_of(by_sms[0].text) if by_sms else 0
