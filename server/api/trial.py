"""Trying a provider account: the check of the account itself, or one message straight to the provider."""

import asyncio
import secrets
import time
from dataclasses import dataclass, replace

from angarium.v1 import provider_service_pb2 as wire

from server.api.caller import Call
from server.api.convert.checks import Checks
from server.api.convert.messages import email_of, phone_of
from server.api.convert.notifications import failure
from server.api.convert.providers import provider_name
from server.api.convert.times import duration
from server.api.convert.words import OUTCOMES
from server.model.accounts import Account, HandOff
from server.model.clock import MINUTE, micros
from server.model.configuration import TenantSettings
from server.model.emails import hint_of_email
from server.model.enums import Channel, MessageClass, Mode
from server.model.errors import Precondition, Reason, Unavailable, invalid_field
from server.model.outcomes import Fault, Outcome, failure_of, kind_of, misconfigured
from server.model.phones import country_of, hint_of
from server.providers.answers import outcome_of_silence
from server.providers.provider import Provider
from server.providers.roster import Roster
from server.providers.transport import NO_ANSWER_IN_TIME, Unknown
from server.store.store import Store
from server.vault.identity import new_id

TEXT = "A test message from Angarium."
SECONDS_MAX = 8.0
"""Less than what a unary call is given, so that the outcome comes back."""
PROVIDER_KEY_BITS = 63
_MASK = "•••"


@dataclass(frozen=True, slots=True)
class _Told:
    outcome: Outcome
    preview: str = ""
    balance: str = ""


class Trial:
    """Calls providers by the roster; keeps nothing."""

    def __init__(self, store: Store, roster: Roster) -> None:
        self._configuration = store.configuration
        self._roster = roster

    async def run(self, request: wire.TestProviderRequest, call: Call) -> wire.TestProviderResponse:
        """Make the trial that a request asks for. Raises Invalid, NotFound, Precondition."""
        checks = Checks()
        name = provider_name(checks, request.name)
        channel, destination = _destination(checks, request, call)
        checks.settle()
        row = await self._configuration.provider(call.tenant_id, name)
        account = next(
            (a for a in self._configuration.snapshot.accounts.get(call.tenant_id, ()) if a.uid == row.uid), None
        )
        if account is None:
            raise Unavailable(Reason.STORE_UNAVAILABLE, "The account is being configured.", retry_after_seconds=1.0)
        started = time.monotonic()
        told = await self._tell(account, call.tenant, channel, destination)
        return wire.TestProviderResponse(
            outcome=OUTCOMES.number(kind_of(told.outcome)),
            failure=failure(failure_of(told.outcome)),
            latency=duration(micros(time.monotonic() - started)),
            request_preview=told.preview,
            balance=told.balance,
        )

    async def _tell(self, account: Account, tenant: TenantSettings, channel: Channel | None, destination: str) -> _Told:
        provider = self._roster.provider(account.uid)
        if provider is None:
            return _Told(
                misconfigured(Fault.CREDENTIALS, "NOT_CONFIGURED", "The account lacks settings that it needs.")
            )
        # Its check alone would bring the real provider a request with real credentials.
        if tenant.mode == Mode.SANDBOX and not account.safe_for_sandbox:
            sentence = "The tenant is in the mode SANDBOX, in which this account may not call its provider."
            raise Precondition(Reason.NO_ROUTE, sentence, {"provider": account.name})
        if channel is None:
            return await _check(provider)
        _require_country(tenant, channel, destination)
        return await _send(provider, _hand_off(account, _serving(account, channel), destination))


async def _check(provider: Provider) -> _Told:
    try:
        async with asyncio.timeout(SECONDS_MAX):
            check = await provider.check()
    except TimeoutError:
        return _Told(outcome_of_silence(Unknown(NO_ANSWER_IN_TIME)))
    return _Told(check.outcome, balance=check.balance)


def _require_country(tenant: TenantSettings, channel: Channel, destination: str) -> None:
    if channel == Channel.EMAIL or not tenant.allowed_countries:
        return
    country = country_of(destination)
    if country not in tenant.allowed_countries:
        sentence = "The tenant's messages may not go to the country of this phone number."
        raise Precondition(Reason.COUNTRY_NOT_ALLOWED, sentence, {"country": country})


async def _send(provider: Provider, hand_off: HandOff) -> _Told:
    hint = hint_of_email if hand_off.channel == Channel.EMAIL else hint_of
    shown = replace(hand_off, destination=hint(hand_off.destination), text=_MASK)
    return _Told(await provider.send(hand_off), provider.preview(shown))


def _hand_off(account: Account, channel: Channel, destination: str) -> HandOff:
    return HandOff(
        tracking_id=new_id(),
        attempt=1,
        channel=channel,
        message_class=MessageClass.TRANSACTIONAL,
        destination=destination,
        text=TEXT,
        sender="",
        provider_key=secrets.randbits(PROVIDER_KEY_BITS),
        valid_micros=MINUTE,
        timeout_seconds=min(account.timeout_seconds, SECONDS_MAX),
    )


def _serving(account: Account, channel: Channel) -> Channel:
    """The channel of the account that serves the address: a number may be texted or called."""
    if channel in account.channels:
        return channel
    if channel == Channel.SMS and Channel.VOICE in account.channels:
        return Channel.VOICE
    raise invalid_field("email" if channel == Channel.EMAIL else "phone", "The account serves no channel to it.")


def _destination(checks: Checks, request: wire.TestProviderRequest, call: Call) -> tuple[Channel | None, str]:
    """Where the test message goes; None where none is to be sent."""
    phone = phone_of(checks, "phone", request.phone, call.tenant.default_region, voice=True)
    email = email_of(checks, "email", request.email)
    if not request.send:
        return None, ""
    checks.exactly_one({"phone": bool(request.phone), "email": bool(request.email)})
    return (Channel.SMS, phone) if phone else (Channel.EMAIL, email)
