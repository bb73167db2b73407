"""Whether a message can reach anybody at all, judged when it is accepted: by the rules and accounts of that moment."""

from collections.abc import Sequence
from dataclasses import replace

from server.model.accounts import Account
from server.model.configuration import TenantSettings
from server.model.enums import Channel, Mode
from server.model.errors import Precondition, Reason, invalid_field
from server.model.messages import NewMessage, Recipient
from server.model.phones import country_of
from server.model.routing import Hop, Rule, route_for, rule_for
from server.model.segments import SEGMENTS_MAX, segments_of
from server.model.senders import may_use

_BY_PHONE = (Channel.SMS, Channel.VOICE, None)


def require_reach(
    new: NewMessage, tenant: TenantSettings, rules: Sequence[Rule], accounts: Sequence[Account]
) -> NewMessage:
    """The message with its rule and segments filled in.

    Raises Precondition (COUNTRY_NOT_ALLOWED, NO_ROUTE, RECIPIENT_UNRESOLVED, SENDER_NOT_ALLOWED) where it could not go
    out as things are, and Invalid where it would take too many SMS parts.
    """
    message, content = new.message, new.content
    _require_country(content.recipient, message.channel_wanted, tenant)
    route = route_for(rules, accounts, message.intent, content.recipient, message.channel_wanted)
    hops = [hop for hop in route.hops if _may_send(hop.account, tenant.mode)]
    if not hops and (route.hops or not _serves_others(new, tenant, rules, accounts)):
        told = {"intent": message.intent}
        raise Precondition(Reason.NO_ROUTE, "No active provider account can take the message.", told)
    reaching = [hop for hop in hops if content.recipient.addresses(hop.channel)]
    if not reaching:
        told = {"intent": message.intent}
        sentence = "The recipient has no address that a channel of the route can use."
        raise Precondition(Reason.RECIPIENT_UNRESOLVED, sentence, told)
    _require_sender(reaching, content.sender)
    return replace(new, message=replace(message, rule=route.rule, segments=_segments(reaching, content.text)))


def _may_send(account: Account, mode: Mode) -> bool:
    return account.is_active and account.configured and (mode != Mode.SANDBOX or account.safe_for_sandbox)


def _serves_others(new: NewMessage, tenant: TenantSettings, rules: Sequence[Rule], accounts: Sequence[Account]) -> bool:
    """Whether no rule matches, and accounts could take the message if only its recipient had an address for them."""
    if rule_for(rules, new.message.intent) is not None:
        return False
    wanted = new.message.channel_wanted
    channels = {channel for account in accounts if _may_send(account, tenant.mode) for channel in account.channels}
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


def _segments(hops: Sequence[Hop], text: str) -> int:
    if not any(hop.channel == Channel.SMS for hop in hops):
        return 0
    segments = segments_of(text)
    if segments > SEGMENTS_MAX:
        raise invalid_field("text", f"It takes {segments} SMS parts; {SEGMENTS_MAX} are allowed.")
    return segments
