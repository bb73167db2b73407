"""What a provider says of an account, its template or a message: how far it reaches, and whom it leaves alone."""

from typing import Any

from angarium.v1.message_pb2 import CHANNEL_SMS, MESSAGE_CLASS_OTP, Notification
from angarium.v1.notification_service_pb2 import GetStatusResponse
from angarium.v1.routing_service_pb2 import RouteStep, RoutingRule, SetRoutingRulesRequest
from angarium.v1.template_service_pb2 import CreateTemplateRequest, ProviderTemplate, Template
from google.protobuf.duration_pb2 import Duration

from tests.gateway import Gateway, outcomes, state_of
from tests.scripted_upstream import Recorded, Say, ScriptedUpstream, envelope

BY_TEMPLATE = "verify/lookup"
ON_ITS_WAY, DELIVERED = 5, 10
FIRST = "8000000001"


async def _template(gateway: Gateway, key: str) -> None:
    """A template that the account `first` says by one of its own of the same name, and others as a text."""
    bound = ProviderTemplate(provider="first", template_name=key, params={"token": "code"})
    made = Template(key=key, text="%code%", provider_templates=[bound])
    await gateway.stubs.templates.CreateTemplate(CreateTemplateRequest(template=made))


async def _said(gateway: Gateway, key: str = "") -> list[tuple[str, str]]:
    """What a message said by a template comes to; without a key, one that brings its text."""
    by: dict[str, Any] = {"text": None, "template_key": key, "params": {"code": "1234"}} if key else {}
    return outcomes(await gateway.reach(await gateway.send(**by), "SENT"))


async def test_a_template_that_is_refused_is_left_alone_and_nothing_else_is(
    gateway: Gateway, upstream: ScriptedUpstream
) -> None:
    """The next account says it; the next message goes there at once. Texts and other templates stay where they were."""
    for name in ("first", "second"):
        await gateway.configure_kavenegar(upstream.base_url, name)
    await gateway.route("first", "second")
    for key in ("gone", "there"):
        await _template(gateway, key)

    def answer(request: Recorded) -> Say:
        if request.call != BY_TEMPLATE:
            return upstream.honest(request)
        taken = [{"messageid": 77, "receptor": request.form["receptor"], "status": ON_ITS_WAY}]
        return envelope(424) if request.form["template"] == "gone" else envelope(200, taken)

    upstream.always(answer)
    assert await _said(gateway, "gone") == [("first", "MISCONFIGURED"), ("second", "ACCEPTED")]
    assert await _said(gateway, "gone") == [("second", "ACCEPTED")]
    assert await _said(gateway, "there") == await _said(gateway) == [("first", "ACCEPTED")]
    assert [call.form["template"] for call in upstream.calls(BY_TEMPLATE)] == ["gone", "there"]


def _went(found: GetStatusResponse) -> list[tuple[str, int]]:
    return [(attempt.provider_message_id, attempt.state) for attempt in found.attempts]


async def test_two_attempts_that_the_provider_knows_as_one_are_told_alike(
    gateway: Gateway, upstream: ScriptedUpstream
) -> None:
    """An OTP goes out in two steps by one account, which answers the repeat with the first's id: both are DELIVERED."""
    await gateway.configure_kavenegar(upstream.base_url)
    upstream.report(FIRST, ON_ITS_WAY)
    wait_for: Any = Notification.STATE_DELIVERED
    step = RouteStep(channel=CHANNEL_SMS, wait_for=wait_for, timeout=Duration(seconds=1))
    rule = RoutingRule(name="twice", steps=[step, step])
    await gateway.stubs.routing.SetRoutingRules(SetRoutingRulesRequest(rules=[rule]))
    tracking_id = await gateway.send(message_class=MESSAGE_CLASS_OTP, text="1234")
    both = await gateway.until(tracking_id, lambda found: len(found.attempts) == 2 and state_of(found) == "SENT")
    assert _went(both) == [(FIRST, Notification.STATE_SENT)] * 2
    upstream.report(FIRST, DELIVERED)
    delivered = [(FIRST, Notification.STATE_DELIVERED)] * 2
    await gateway.until(tracking_id, lambda found: _went(found) == delivered)
