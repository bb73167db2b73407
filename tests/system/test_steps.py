"""A step that waits for its receipt: what goes next when none comes in time, from the call to the receipt."""

import asyncio
from typing import Any

import pytest
from angarium.v1.message_pb2 import (
    CHANNEL_PUSH,
    CHANNEL_SMS,
    MESSAGE_CLASS_BULK,
    MESSAGE_CLASS_OTP,
    MESSAGE_CLASS_TRANSACTIONAL,
    Notification,
    Recipient,
    RouteExplanation,
)
from angarium.v1.notification_service_pb2 import CancelRequest, GetStatusResponse
from angarium.v1.routing_service_pb2 import ExplainRouteRequest, RouteStep, RoutingRule, SetRoutingRulesRequest
from google.protobuf.duration_pb2 import Duration

from server.model.enums import Channel
from server.model.magic import Fate, magic_destination
from tests.gateway import Gateway, state_of

UNREPORTED = magic_destination(Fate.NO_RECEIPT, Channel.SMS)
SILENT_DEVICE = magic_destination(Fate.NO_RECEIPT, Channel.PUSH)
SKIPPED, CHOSEN = RouteExplanation.Candidate.VERDICT_SKIPPED, RouteExplanation.Candidate.VERDICT_CHOSEN


def waiting(channel: int, seconds: int = 1) -> RouteStep:
    """A step that waits so long for its receipt."""
    wait_for: Any = Notification.STATE_DELIVERED
    return RouteStep(channel=channel, wait_for=wait_for, timeout=Duration(seconds=seconds))  # type: ignore[arg-type]


async def route(gateway: Gateway, *steps: RouteStep) -> None:
    await gateway.configure_sandbox()
    rule = RoutingRule(name="steps", steps=steps)
    await gateway.stubs.routing.SetRoutingRules(SetRoutingRulesRequest(rules=[rule]))


def went(found: GetStatusResponse) -> list[tuple[int, int, int]]:
    """Each attempt's step, channel and state."""
    return [(attempt.step, attempt.channel, attempt.state) for attempt in found.attempts]


def reasons(explanation: RouteExplanation) -> list[tuple[int, int, str]]:
    return [(candidate.step, candidate.verdict, candidate.reason) for candidate in explanation.candidates]


async def explained(gateway: Gateway, tracking_id: str) -> RouteExplanation:
    asked = ExplainRouteRequest(tracking_id=tracking_id)
    return (await gateway.stubs.routing.ExplainRoute(asked)).explanation


async def test_a_text_follows_a_push_that_nobody_reports(gateway: Gateway) -> None:
    """After the step's time; the text arrives, the push stays SENT, and status tells why the text went."""
    await route(gateway, waiting(CHANNEL_PUSH, 2), RouteStep(channel=CHANNEL_SMS))
    person = Recipient(phone="09120000111", device_tokens=[SILENT_DEVICE])
    tracking_id = await gateway.send(recipient=person, message_class=MESSAGE_CLASS_BULK)
    await gateway.reach(tracking_id, "SENT")
    assert reasons(await explained(gateway, tracking_id)) == [(1, SKIPPED, "AWAITED"), (2, SKIPPED, "AWAITED")]
    found = await gateway.reach(tracking_id, "DELIVERED")
    assert went(found) == [
        (1, CHANNEL_PUSH, Notification.STATE_SENT),
        (2, CHANNEL_SMS, Notification.STATE_DELIVERED),
    ]
    first, second = found.attempts
    assert 2.0 <= (second.start_time.ToMicroseconds() - first.end_time.ToMicroseconds()) / 1e6 < 8.0
    assert reasons(found.explanation) == [(1, SKIPPED, "STEP_OVER"), (2, CHOSEN, "")]


@pytest.mark.parametrize(
    ("message_class", "texts"), [(MESSAGE_CLASS_OTP, 2), (MESSAGE_CLASS_TRANSACTIONAL, 1), (MESSAGE_CLASS_BULK, 1)]
)
async def test_a_second_text_is_the_classs_to_allow(gateway: Gateway, message_class: int, texts: int) -> None:
    """Of three steps by SMS an OTP takes two, the other classes one; the message then waits for its receipt, SENT."""
    await route(gateway, waiting(CHANNEL_SMS), waiting(CHANNEL_SMS), waiting(CHANNEL_SMS))
    tracking_id = await gateway.send(recipient=Recipient(phone=UNREPORTED), message_class=message_class)
    await gateway.until(tracking_id, lambda found: len(found.attempts) == texts and state_of(found) == "SENT")
    await asyncio.sleep(3)  # of a third text there would be an attempt by now
    found = await gateway.status(tracking_id)
    assert went(found) == [(n, CHANNEL_SMS, Notification.STATE_SENT) for n in range(1, texts + 1)]
    assert (state_of(found), found.notification.done) == ("SENT", False)


async def test_a_canceled_step_does_not_go(gateway: Gateway) -> None:
    """While a step is left a Cancel is OK, says that something was handed off, and nothing follows."""
    await route(gateway, waiting(CHANNEL_PUSH, 2), RouteStep(channel=CHANNEL_SMS))
    person = Recipient(phone="09120000111", device_tokens=[SILENT_DEVICE])
    tracking_id = await gateway.send(recipient=person)
    await gateway.reach(tracking_id, "SENT")
    answer = await gateway.stubs.notifications.Cancel(CancelRequest(tracking_id=tracking_id))
    assert answer.handed_off
    await asyncio.sleep(4)  # the text would have gone by now
    assert went(await gateway.status(tracking_id)) == [(1, CHANNEL_PUSH, Notification.STATE_SENT)]
