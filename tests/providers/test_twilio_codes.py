"""What Twilio's documented error codes come to."""

import pytest

from server.model.enums import Channel, FailureReason
from server.model.outcomes import (
    Ambiguous,
    Fault,
    Misconfigured,
    RateLimited,
    Refusal,
    Rejected,
    Unavailable,
    failure_of,
)
from server.providers.twilio import Twilio
from server.providers.twilio_codes import CODES
from tests.providers.conftest import hand_off, kind
from tests.providers.twilio_upstream import TwilioUpstream, refusal

REQUEST = (Rejected, Refusal.REQUEST)
CONTENT = (Rejected, Refusal.CONTENT)
RECIPIENT = (Rejected, Refusal.RECIPIENT)
CREDENTIALS = (Misconfigured, Fault.CREDENTIALS)
SENDER = (Misconfigured, Fault.SENDER)
LIMITED = (RateLimited, None)
DOUBT = (Ambiguous, None)

DOCUMENTED = {
    20003: CREDENTIALS,
    20005: CREDENTIALS,
    10001: CREDENTIALS,
    20403: CREDENTIALS,
    20404: CREDENTIALS,
    20409: (Unavailable, None),
    20422: REQUEST,
    20001: REQUEST,
    20429: LIMITED,
    14107: LIMITED,
    20500: DOUBT,
    20503: DOUBT,
    21211: RECIPIENT,
    21217: RECIPIENT,
    21212: SENDER,
    21214: CONTENT,
    21408: CONTENT,
    21601: SENDER,
    21606: SENDER,
    21659: SENDER,
    21660: SENDER,
    21661: SENDER,
    21602: REQUEST,
    21603: REQUEST,
    21604: REQUEST,
    21608: CONTENT,
    21609: CREDENTIALS,
    21610: RECIPIENT,
    21611: LIMITED,
    21612: CONTENT,
    21614: RECIPIENT,
    21617: CONTENT,
    21635: RECIPIENT,
    21703: SENDER,
    21704: SENDER,
    21705: SENDER,
    35111: REQUEST,
    35114: REQUEST,
    35115: REQUEST,
    35117: REQUEST,
    35118: REQUEST,
    35125: LIMITED,
    21210: SENDER,
    21213: SENDER,
    21215: CONTENT,
    21216: RECIPIENT,
    21205: CREDENTIALS,
    13223: RECIPIENT,
    13224: CONTENT,
    13225: CONTENT,
    13226: CONTENT,
    13227: CONTENT,
}


def test_every_documented_code_is_tested() -> None:
    """The table of the adapter and the table of this suite name the same codes."""
    assert set(CODES) == set(DOCUMENTED)


@pytest.mark.parametrize("code", sorted(DOCUMENTED))
@pytest.mark.parametrize("channel", [Channel.SMS, Channel.VOICE])
async def test_documented_codes(twilio_upstream: TwilioUpstream, twilio: Twilio, code: int, channel: Channel) -> None:
    """Each code decides; the sentence is ours and the code is kept."""
    twilio_upstream.script(refusal(code))
    outcome = await twilio.send(hand_off(channel=channel))
    assert kind(outcome) == DOCUMENTED[code]
    failure = failure_of(outcome)
    assert failure is not None
    assert failure.provider_code == str(code)
    assert failure.message
    assert "raw words" not in failure.message


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (21610, FailureReason.RECIPIENT_BLOCKED),
        (21216, FailureReason.RECIPIENT_BLOCKED),
        (21211, FailureReason.RECIPIENT_INVALID),
        (21214, FailureReason.RECIPIENT_UNREACHABLE),
        (21612, FailureReason.RECIPIENT_UNREACHABLE),
        (21408, FailureReason.PROVIDER_MISCONFIGURED),
        (21215, FailureReason.PROVIDER_MISCONFIGURED),
        (21608, FailureReason.PROVIDER_MISCONFIGURED),
    ],
)
async def test_why_a_recipient_is_not_reached(
    twilio_upstream: TwilioUpstream, twilio: Twilio, code: int, reason: FailureReason
) -> None:
    """Who opted out is no bad number, and who can not be reached from here may be from elsewhere."""
    twilio_upstream.script(refusal(code))
    failure = failure_of(await twilio.send(hand_off()))
    assert failure is not None
    assert failure.reason == reason


@pytest.mark.parametrize("code", [21205, 21609])
async def test_a_url_that_is_refused_is_told_by_its_setting(
    twilio_upstream: TwilioUpstream, twilio: Twilio, code: int
) -> None:
    """It is ours, not the message's: whoever runs the gateway reads which setting to look at."""
    twilio_upstream.script(refusal(code))
    failure = failure_of(await twilio.send(hand_off(report_to="https://example.test/receipts/u/t")))
    assert failure is not None
    assert "ANGARIUM_PUBLIC_URL" in failure.message
