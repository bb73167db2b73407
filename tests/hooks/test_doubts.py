"""What Twilio refuses or loses, from the call to the end of the message."""

import time

from tests.gateway import eventually, outcomes, state_of
from tests.hooks.edge import HttpGateway, posts, sent, told
from tests.providers.twilio_upstream import TwilioUpstream, refusal
from tests.scripted_upstream import Break, Recorded, Say

LOOK_UPS = 3


async def test_a_look_up_finds_no_other_messages_id(edge: HttpGateway, twilio: TwilioUpstream) -> None:
    """One text is lost on its way, the same to the same number is taken a moment later: the first stays in doubt."""
    mute = True

    def answer(request: Recorded) -> Say:
        return refusal(20500, 500) if mute and request.method == "GET" else twilio.honest(request)

    twilio.always(answer)
    twilio.script(Break.AFTER_REQUEST)
    twilio.at = time.time_ns() // 1000
    lost = await edge.send()
    await edge.reach(lost, "UNCONFIRMED")
    taken, name, url = await sent(edge, twilio)
    mute, asked = False, len(twilio.requests)
    await eventually(lambda: len(twilio.requests) >= asked + LOOK_UPS)
    assert state_of(await edge.status(lost)) == "UNCONFIRMED"
    assert (await edge.post(url, told(name, "delivered"))).status == 204
    assert state_of(await edge.status(taken)) == "DELIVERED"
    found = await edge.status(lost)
    assert (state_of(found), outcomes(found)) == ("UNCONFIRMED", [("twilio", "AMBIGUOUS")])
    assert len(posts(twilio)) == 2


async def test_a_url_that_is_refused_leaves_the_message_to_the_next_account(
    edge: HttpGateway, twilio: TwilioUpstream
) -> None:
    """It is no fault of the message's; the account is closed for a while, and says which setting to look at."""
    await edge.configure_twilio(twilio.base_url, "other")
    await edge.route("twilio", "other")
    twilio.script(refusal(21609))
    first = await edge.reach(await edge.send(), "SENT")
    assert outcomes(first) == [("twilio", "MISCONFIGURED"), ("other", "ACCEPTED")]
    assert "ANGARIUM_PUBLIC_URL" in first.attempts[0].failure.message
    assert outcomes(await edge.reach(await edge.send(), "SENT")) == [("other", "ACCEPTED")]


async def test_a_number_that_a_trial_account_may_not_reach_closes_nothing(
    edge: HttpGateway, twilio: TwilioUpstream
) -> None:
    """Another account reaches it; the next message goes by the account on trial again."""
    await edge.configure_twilio(twilio.base_url, "other")
    await edge.route("twilio", "other")
    twilio.script(refusal(21608))
    first = await edge.reach(await edge.send(), "SENT")
    assert outcomes(first) == [("twilio", "REJECTED"), ("other", "ACCEPTED")]
    assert outcomes(await edge.reach(await edge.send(), "SENT")) == [("twilio", "ACCEPTED")]
