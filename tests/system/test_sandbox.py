"""The in-process sandbox: every magic recipient, every channel it spells, and several devices of one person."""

from collections import Counter
from collections.abc import Callable

import pytest
from angarium.v1.message_pb2 import CHANNEL_PUSH, Recipient
from angarium.v1.notification_service_pb2 import GetStatusResponse
from angarium.v1.sandbox_service_pb2 import PeekOutboxRequest

from server.model.enums import Channel
from server.model.magic import Fate, magic_destination
from tests.gateway import Gateway, names_of, outcomes, reason_of, state_of
from tests.scripted_upstream import ScriptedUpstream


async def test_a_push_to_five_devices_is_five_attempts(gateway: Gateway) -> None:
    """Each device has its own; those that are reached and those that are not are told apart."""
    await gateway.configure_sandbox()
    tokens = ["sandbox-delivered", "sandbox-rejected", "a", "b", "c"]
    tracking_id = await gateway.send(recipient=Recipient(device_tokens=tokens), channel=CHANNEL_PUSH)
    found = await gateway.reach(tracking_id, "DELIVERED")
    assert sorted(attempt.number for attempt in found.attempts) == [1, 2, 3, 4, 5]
    assert Counter(outcome for _, outcome in outcomes(found)) == {"ACCEPTED": 4, "REJECTED": 1}
    shown = (await gateway.stubs.sandbox.PeekOutbox(PeekOutboxRequest(tracking_id=tracking_id))).messages
    assert sorted(message.recipient for message in shown) == sorted(tokens)


# What each magic recipient's message comes to by the sandbox type alone, as the README's table says: the state in which
# it stays, or through which it goes, and what its first attempt came to.
ENDS = {
    Fate.DELIVERED: ("DELIVERED", "ACCEPTED"),
    Fate.UNDELIVERED: ("UNDELIVERED", "ACCEPTED"),
    Fate.REJECTED: ("FAILED", "REJECTED"),
    Fate.NO_RECEIPT: ("SENT", "ACCEPTED"),
    Fate.OUT_OF_ORDER: ("DELIVERED", "ACCEPTED"),
    Fate.ANSWER_LOST: ("DELIVERED", "ACCEPTED"),
    Fate.RATE_LIMITED: ("SENDING", "RATE_LIMITED"),
    Fate.SLOW: ("DELIVERED", "ACCEPTED"),
    Fate.UNAVAILABLE: ("SENDING", "UNAVAILABLE"),
}


@pytest.mark.parametrize("channel", [Channel.SMS, Channel.EMAIL, Channel.PUSH, Channel.CHAT])
async def test_every_magic_recipient_does_what_the_readme_says(gateway: Gateway, channel: Channel) -> None:
    """By the sandbox type, on every channel that the table spells."""
    await gateway.configure_sandbox()
    ids = {fate: await gateway.send(recipient=magic(fate, channel)) for fate in Fate}
    for fate, tracking_id in ids.items():
        state, outcome = ENDS[fate]
        found = await gateway.until(tracking_id, ended_as(state, outcome))
        if fate == Fate.ANSWER_LOST:
            assert "UNCONFIRMED" in names_of(found)
        if fate == Fate.UNDELIVERED:
            assert reason_of(found) == "RECIPIENT_UNREACHABLE"
        if fate == Fate.REJECTED:
            assert reason_of(found) == "RECIPIENT_INVALID"
    quiet = await gateway.status(ids[Fate.NO_RECEIPT])
    assert state_of(quiet) == "SENT"
    assert not quiet.notification.done


async def test_the_next_provider_is_tried_for_whom_the_sandbox_cannot_serve(
    gateway: Gateway, upstream: ScriptedUpstream
) -> None:
    """`unavailable` and `rate-limited` go on to the next account, `rejected` does not."""
    await gateway.configure_sandbox()
    await gateway.configure_kavenegar(upstream.base_url, "second", priority=1)
    found = await gateway.reach(await gateway.send(recipient=magic(Fate.REJECTED, Channel.SMS)), "FAILED")
    assert outcomes(found) == [("sandbox", "REJECTED")]
    for fate in (Fate.UNAVAILABLE, Fate.RATE_LIMITED):
        found = await gateway.reach(await gateway.send(recipient=magic(fate, Channel.SMS)), "SENT")
        assert outcomes(found) == [("sandbox", fate), ("second", "ACCEPTED")]


def ended_as(state: str, outcome: str) -> Callable[[GetStatusResponse], bool]:
    def holds(found: GetStatusResponse) -> bool:
        return state_of(found) == state and outcomes(found)[:1] == [("sandbox", outcome)]

    return holds


def magic(fate: Fate, channel: Channel) -> Recipient:
    address = magic_destination(fate, channel)
    match channel:
        case Channel.SMS | Channel.VOICE:
            return Recipient(phone=address)
        case Channel.EMAIL:
            return Recipient(email=address)
        case Channel.PUSH:
            return Recipient(device_tokens=[address])
        case Channel.CHAT:
            return Recipient(username=address)
