"""The in-process sandbox: what becomes of a message is told by whom it goes to, on every channel."""

import time

import pytest

from server.model.accounts import Account
from server.model.enums import Channel, FailureReason, ReceiptKind
from server.model.magic import MAGIC, Fate, fate_of, magic_destination
from server.model.outcomes import (
    Accepted,
    Ambiguous,
    Found,
    NoAnswer,
    RateLimited,
    Refusal,
    Rejected,
    Unavailable,
)
from server.providers.sandbox import LOST_MAX, Sandbox
from server.providers.transport import Transport
from tests.providers.conftest import KEY, TEXT, hand_off, sought

EVERYBODY_ELSE = {
    Channel.SMS: "+447700900123",
    Channel.VOICE: "+989120000110",
    Channel.PUSH: "device-token",
    Channel.EMAIL: "undelivered@company.com",
    Channel.CHAT: "undelivered",
}


@pytest.fixture
def sandbox(transport: Transport) -> Sandbox:
    return _sandbox(transport)


def _sandbox(transport: Transport) -> Sandbox:
    return Sandbox(Account("t", "u", "sandbox", "sandbox", tuple(Channel), in_process=True), transport)


@pytest.mark.parametrize("channel", Channel)
@pytest.mark.parametrize("fate", Fate)
def test_every_fate_has_a_recipient_on_every_channel(channel: Channel, fate: Fate) -> None:
    """The table spells each fate once per channel, and reads what it spells."""
    assert fate_of(channel, magic_destination(fate, channel)) == fate
    assert len([magic for magic in MAGIC if magic.fate == fate]) == 1


@pytest.mark.parametrize("channel", Channel)
async def test_everybody_else_is_delivered_to(sandbox: Sandbox, channel: Channel) -> None:
    """Numbers outside the block, real domains and ordinary tokens are accepted and delivered."""
    outcome = await sandbox.send(hand_off(EVERYBODY_ELSE[channel], channel=channel))
    assert isinstance(outcome, Accepted)
    assert await reports(sandbox, outcome) == [ReceiptKind.DELIVERED]


async def reports(sandbox: Sandbox, outcome: Accepted) -> list[ReceiptKind]:
    told = await sandbox.statuses([outcome.provider_message_id])
    assert {name for name, _ in told} <= {outcome.provider_message_id}
    return [receipt.kind for _, receipt in told]


@pytest.mark.parametrize("channel", Channel)
@pytest.mark.parametrize(
    ("fate", "told"),
    [
        (Fate.DELIVERED, [ReceiptKind.DELIVERED]),
        (Fate.UNDELIVERED, [ReceiptKind.UNDELIVERED]),
        (Fate.NO_RECEIPT, []),
        (Fate.OUT_OF_ORDER, [ReceiptKind.DELIVERED, ReceiptKind.OTHER]),
    ],
)
async def test_what_is_accepted_is_reported_also_after_a_restart(
    transport: Transport, channel: Channel, fate: Fate, told: list[ReceiptKind]
) -> None:
    """The id alone says what to report: another instance tells the same."""
    outcome = await _sandbox(transport).send(hand_off(magic_destination(fate, channel), channel=channel))
    assert isinstance(outcome, Accepted)
    assert await reports(_sandbox(transport), outcome) == told


@pytest.mark.parametrize("channel", Channel)
async def test_refusals(sandbox: Sandbox, channel: Channel) -> None:
    """Rejected for good, rate-limited for a second, unavailable: the same each time."""
    for _ in range(2):
        rejected = await sandbox.send(hand_off(magic_destination(Fate.REJECTED, channel), channel=channel))
        assert isinstance(rejected, Rejected)
        assert rejected.refusal == Refusal.RECIPIENT
        limited = await sandbox.send(hand_off(magic_destination(Fate.RATE_LIMITED, channel), channel=channel))
        assert isinstance(limited, RateLimited)
        assert limited.retry_after == 1_000_000
        unavailable = await sandbox.send(hand_off(magic_destination(Fate.UNAVAILABLE, channel), channel=channel))
        assert isinstance(unavailable, Unavailable)


async def test_a_lost_answer_is_found(transport: Transport, sandbox: Sandbox) -> None:
    """Ambiguous, then found by its key under an id that is delivered; another process does not know and says so."""
    lost = await sandbox.send(hand_off(magic_destination(Fate.ANSWER_LOST, Channel.SMS)))
    assert isinstance(lost, Ambiguous)
    name, other, again = await sandbox.look_up(sought(KEY, 7, KEY))
    assert (other, again) == (NoAnswer(), name)
    assert isinstance(name, Found)
    assert await reports(sandbox, Accepted(name.provider_message_id)) == [ReceiptKind.DELIVERED]
    assert await _sandbox(transport).look_up(sought(KEY)) == [NoAnswer()]


async def test_its_memory_is_bounded(sandbox: Sandbox) -> None:
    """The oldest of more than ten thousand lost answers is forgotten."""
    lost = magic_destination(Fate.ANSWER_LOST, Channel.PUSH)
    for key in range(LOST_MAX + 1):
        await sandbox.send(hand_off(lost, channel=Channel.PUSH, key=key))
    results = await sandbox.look_up(sought(0, 1, LOST_MAX))
    assert [type(result) for result in results] == [NoAnswer, Found, Found]


async def test_slow_is_accepted_after_three_seconds(sandbox: Sandbox) -> None:
    """Within its timeout; with less time than that, nobody knows."""
    slow = magic_destination(Fate.SLOW, Channel.SMS)
    started = time.monotonic()
    assert isinstance(await sandbox.send(hand_off(slow, timeout_seconds=0.1)), Ambiguous)
    assert time.monotonic() - started < 1
    outcome = await sandbox.send(hand_off(slow, timeout_seconds=8.0))
    assert time.monotonic() - started > 3
    assert isinstance(outcome, Accepted)
    assert await reports(sandbox, outcome) == [ReceiptKind.DELIVERED]


async def test_undelivered_has_a_reason(sandbox: Sandbox) -> None:
    """A report of failure always says why."""
    outcome = await sandbox.send(hand_off(magic_destination(Fate.UNDELIVERED, Channel.SMS)))
    assert isinstance(outcome, Accepted)
    [(_, receipt)] = await sandbox.statuses([outcome.provider_message_id])
    assert receipt.failure is not None
    assert receipt.failure.reason == FailureReason.RECIPIENT_UNREACHABLE


@pytest.mark.parametrize("name", ["", "x", "delivered", ".", "rejected.1", "🙂.1", "8000000001"])
async def test_ids_it_never_gave_tell_nothing_wrong(sandbox: Sandbox, name: str) -> None:
    """Junk ids raise nothing, and nothing is reported of what is none of its words."""
    told = await sandbox.statuses([name])
    assert [receipt.kind for _, receipt in told] == ([ReceiptKind.DELIVERED] if name == "delivered" else [])


async def test_check_and_preview(sandbox: Sandbox) -> None:
    """The account is always well; the preview shows what would go."""
    assert (await sandbox.check()).outcome == Accepted("")
    preview = sandbox.preview(hand_off())
    assert f"text={TEXT}" in preview
    assert "to=+989120000111" in preview
    templated = sandbox.preview(hand_off(text="", template="otp-fa", params={"token": "123456"}))
    assert "template=otp-fa\nparams.token=123456" in templated
    assert "text=" not in templated


@pytest.mark.parametrize("channel", Channel)
def test_it_is_asked_and_posts_nothing(sandbox: Sandbox, channel: Channel) -> None:
    """Whatever was sent can be polled and looked up; nothing that is posted comes from it."""
    for templated in (False, True):
        follow = sandbox.follow(channel, templated=templated)
        assert (follow.polls, follow.looks_up, follow.pushes) == (True, True, False)
    assert sandbox.reports("https://gateway.example.com/hooks/x", {"x-twilio-signature": "x"}, b"id=1") is None
