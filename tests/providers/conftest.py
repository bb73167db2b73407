"""A scripted upstream, a transport that may reach it, and an account that points there."""

from collections.abc import AsyncIterator, Mapping

import pytest

from server.model.accounts import Account, HandOff, Sought
from server.model.clock import MINUTE, SECOND, Micros
from server.model.enums import Channel, MessageClass
from server.model.outcomes import Fault, Misconfigured, Outcome, Refusal, Rejected, failure_of
from server.providers.kavenegar import Kavenegar
from server.providers.transport import Transport
from server.providers.twilio import Twilio
from tests.providers.twilio_upstream import STARTED, TwilioUpstream, twilio_at
from tests.scripted_upstream import ScriptedUpstream

API_KEY = "canary/key 0123456789"
PHONE = "+989120000111"
TEXT = "canary text سلام"
KEY = 5_000_000_000_000_000_123


@pytest.fixture
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    running = await ScriptedUpstream().start()
    yield running
    await running.close()


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    opened = Transport(allow_private=True)
    yield opened
    await opened.aclose()


def account_at(base_url: str, timeout_seconds: float = 2.0, **more: str) -> Account:
    return Account(
        tenant_id="t",
        uid="u-1",
        name="kavenegar",
        type="kavenegar",
        channels=(Channel.SMS,),
        base_url=base_url,
        timeout_seconds=timeout_seconds,
        settings=more,
        secrets={"api_key": API_KEY},
    )


@pytest.fixture
def kavenegar(upstream: ScriptedUpstream, transport: Transport) -> Kavenegar:
    return Kavenegar(account_at(upstream.base_url), transport)


@pytest.fixture
async def twilio_upstream() -> AsyncIterator[TwilioUpstream]:
    running = await TwilioUpstream().start()
    yield running
    await running.close()


@pytest.fixture
def twilio(twilio_upstream: TwilioUpstream, transport: Transport) -> Twilio:
    return Twilio(twilio_at(twilio_upstream.base_url), transport)


def hand_off(
    destination: str = PHONE,
    text: str = TEXT,
    *,
    key: int = KEY,
    channel: Channel = Channel.SMS,
    sender: str = "",
    timeout_seconds: float = 2.0,
    valid_micros: Micros = MINUTE,
    locale: str = "",
    template: str = "",
    params: Mapping[str, str] | None = None,
    report_to: str = "",
) -> HandOff:
    return HandOff(
        tracking_id="m-1",
        attempt=1,
        channel=channel,
        message_class=MessageClass.TRANSACTIONAL,
        destination=destination,
        text=text,
        sender=sender,
        provider_key=key,
        valid_micros=valid_micros,
        timeout_seconds=timeout_seconds,
        locale=locale,
        template=template,
        params=params or {},
        report_to=report_to,
    )


def sought(
    *keys: int, destination: str = PHONE, text: str = TEXT, channel: Channel = Channel.SMS, started_at: Micros = STARTED
) -> list[Sought]:
    """Hand-offs whose answers were lost within eight seconds."""
    return [Sought(key, channel, destination, text, started_at, started_at + 8 * SECOND) for key in keys]


def kind(outcome: Outcome) -> tuple[type, Refusal | Fault | None]:
    """What an outcome is, and of a refusal or a fault which."""
    match outcome:
        case Rejected(refusal):
            return Rejected, refusal
        case Misconfigured(fault):
            return Misconfigured, fault
        case _:
            return type(outcome), None


def provider_code(outcome: Outcome) -> str:
    failure = failure_of(outcome)
    return failure.provider_code if failure else ""
