"""What a provider refuses about its recipients says nothing of the line to it."""

from server.model.breaker import CALLS_MIN
from tests.gateway import Gateway, outcomes
from tests.scripted_upstream import Recorded, Say, ScriptedUpstream, envelope

REFUSED = envelope(411)
"""The recipient is invalid."""


async def test_any_number_of_bad_recipients_leaves_an_account_in_use(
    gateway: Gateway, upstream: ScriptedUpstream
) -> None:
    """After more refusals than calls that could open a breaker, the next message goes by the same account first."""
    for name in ("first", "second"):
        await gateway.configure_kavenegar(upstream.base_url, name)
    await gateway.route("first", "second")

    def reply(request: Recorded) -> Say:
        said = REFUSED if request.form.get("message") == "bad" else upstream.honest(request)
        assert isinstance(said, Say)
        return said

    upstream.always(reply)
    for tracking_id in await gateway.send_all({"text": "bad"} for _ in range(CALLS_MIN + 5)):
        assert outcomes(await gateway.reach(tracking_id, "FAILED")) == [("first", "REJECTED")]
    good = await gateway.reach(await gateway.send(text="good"), "SENT")
    assert outcomes(good) == [("first", "ACCEPTED")]
