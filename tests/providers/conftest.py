"""A scripted upstream, a transport that may reach it, and an account that points there."""

from collections.abc import AsyncIterator, Callable

import pytest

from server.model.accounts import Account, HandOff
from server.model.clock import MINUTE
from server.model.enums import Channel, MessageClass
from server.providers.kavenegar import Kavenegar
from server.providers.transport import Transport
from tests.scripted_upstream import ScriptedUpstream

API_KEY = "canary/key 0123456789"
PHONE = "+989120000111"
TEXT = "canary text سلام"
KEY = 5_000_000_000_000_000_123

MakeHandOff = Callable[..., HandOff]


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


def hand_off(
    destination: str = PHONE,
    text: str = TEXT,
    *,
    key: int = KEY,
    channel: Channel = Channel.SMS,
    sender: str = "",
    timeout_seconds: float = 2.0,
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
        valid_micros=MINUTE,
        timeout_seconds=timeout_seconds,
    )
