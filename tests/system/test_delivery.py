"""What becomes of an accepted message: fallback, repeats, time, doubt, fairness; by real sockets, on both engines."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence

import pytest
from angarium.v1.message_pb2 import (
    MESSAGE_CLASS_BULK,
    MESSAGE_CLASS_OTP,
    MESSAGE_CLASS_TRANSACTIONAL,
    Attempt,
    MessageClass,
    Recipient,
)
from angarium.v1.notification_service_pb2 import CancelRequest
from angarium.v1.sandbox_service_pb2 import PeekOutboxRequest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from server.dispatch.dispatcher import WIDTHS
from server.model.enums import MessageClass as Lane
from tests.api.edge import refused
from tests.cluster import free_port
from tests.gateway import Gateway, eventually, names_of, outcomes, reason_of, state_of
from tests.scripted_upstream import Break, Recorded, Reply, Say, ScriptedUpstream, Silence, envelope

SEND, LOOK_UP = "sms/send", "sms/statuslocalmessageid"
PHONE = Recipient(phone="09120000111")
AWAY = envelope(409)
"""The provider cannot answer now: certainly not processed."""


def account(request: Recorded) -> str:
    """The name of the account that a request was made by: its key is in the path."""
    return request.path.split("/")[2].removeprefix("key-of-")


class ByAccount:
    """Answers each account's calls in its own way, the others' as Kavenegar would; notes when each text was read."""

    def __init__(self, upstream: ScriptedUpstream, **replies: Reply) -> None:
        self._upstream = upstream
        self.replies = replies
        self.reads: list[tuple[float, str, str]] = []
        upstream.always(self._reply)

    def _reply(self, request: Recorded) -> "Say | Break | Silence":
        if request.call == SEND:
            self.reads.append((time.time(), account(request), request.form["message"]))
        reply = self.replies.get(account(request), self._upstream.honest)
        answer = reply(request) if callable(reply) else reply
        assert isinstance(answer, Say | Break | Silence)
        return answer

    def texts(self, name: str) -> list[str]:
        """What an account was handed."""
        return [text for _, read_by, text in self.reads if read_by == name]


def on_send(upstream: ScriptedUpstream, answer: Callable[[Recorded], "Say | Break | Silence"]) -> Reply:
    """Answers a text so, and everything else as Kavenegar would."""
    return lambda request: answer(request) if request.call == SEND else upstream.honest(request)


async def two_accounts(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    """`first`, then `second`, both at this upstream."""
    for name in ("first", "second"):
        await gateway.configure_kavenegar(upstream.base_url, name)
    await gateway.route("first", "second")


async def test_the_next_account_takes_over_from_one_that_cannot(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    """An error of the first account hands the same text to the second, once each, and PeekOutbox shows both."""
    await two_accounts(gateway, upstream)
    script = ByAccount(upstream, first=AWAY)
    tracking_id = await gateway.send(text="Take over.")
    found = await gateway.reach(tracking_id, "SENT")
    assert outcomes(found) == [("first", "UNAVAILABLE"), ("second", "ACCEPTED")]
    assert found.notification.provider == "second"
    assert script.texts("first") == script.texts("second") == ["Take over."]
    shown = (await gateway.stubs.sandbox.PeekOutbox(PeekOutboxRequest(tracking_id=tracking_id))).messages
    assert {(m.attempt, m.provider, m.recipient, m.text) for m in shown} == {
        (1, "first", "+989120000111", "Take over."),
        (2, "second", "+989120000111", "Take over."),
    }


@pytest.mark.parametrize(
    ("reply", "outcome", "reason"),
    [
        (envelope(411), "REJECTED", "RECIPIENT_INVALID"),
        (envelope(400), "REJECTED", "REQUEST_REFUSED"),
        (envelope(403), "MISCONFIGURED", "PROVIDER_MISCONFIGURED"),
        (envelope(418), "MISCONFIGURED", "PROVIDER_FUNDS"),
    ],
)
async def test_what_a_repeat_cannot_mend_is_not_repeated(
    gateway: Gateway, upstream: ScriptedUpstream, reply: Say, outcome: str, reason: str
) -> None:
    """One account that refuses for good is asked once, and the message ends FAILED with its reason."""
    await gateway.configure_kavenegar(upstream.base_url)
    upstream.always(reply)
    found = await gateway.reach(await gateway.send(), "FAILED")
    assert outcomes(found) == [("kavenegar", outcome)]
    assert reason_of(found) == reason
    assert found.notification.done


async def test_repeats_end_with_the_last_failure(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    """An OTP whose only account cannot answer is repeated four times under one number of ours, then FAILED."""
    await gateway.configure_kavenegar(upstream.base_url)
    script = ByAccount(upstream, kavenegar=AWAY)
    found = await gateway.reach(await gateway.send(message_class=MESSAGE_CLASS_OTP, text="1234"), "FAILED")
    assert outcomes(found) == [("kavenegar", "UNAVAILABLE")] * 5
    assert reason_of(found) == "PROVIDER_UNAVAILABLE"
    assert found.notification.failure.provider_code == "409"
    assert len({request.form["localid"] for request in upstream.calls(SEND)}) == 1
    times = [at for at, _, _ in script.reads]
    # Full jitter under 0.2, 0.4, 0.8 and 1.6 s; what the repeats cost by themselves comes on top.
    assert times[-1] - times[0] < 3.0 + 5.0
    await asyncio.sleep(0.3)
    assert len(upstream.calls(SEND)) == 5


async def test_repeats_keep_within_the_budget_of_their_account(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    """Of sixteen OTPs that fail at once no more than ten a second are repeated, however well the others go."""
    await gateway.configure_kavenegar(upstream.base_url)
    script = ByAccount(upstream, kavenegar=lambda r: AWAY if r.form.get("message") == "bad" else upstream.honest(r))
    for tracking_id in await gateway.send_all({"text": "good"} for _ in range(60)):
        await gateway.reach(tracking_id, "SENT")
    await gateway.send_all({"text": "bad", "message_class": MESSAGE_CLASS_OTP} for _ in range(16))
    await eventually(lambda: len(script.texts("kavenegar")) >= 60 + 16 + 25)
    times = [at for at, _, text in script.reads if text == "bad"]
    repeats = Counter(int(at) for at in times[16:])
    # A repeat that was begun at the end of a second may be read in the next one.
    assert max(repeats.values()) <= 12


async def test_an_open_breaker_sends_messages_by_the_other_account(
    gateway: Gateway, upstream: ScriptedUpstream
) -> None:
    """Once twenty calls of an account have failed, messages go by the other one at their first attempt."""
    await two_accounts(gateway, upstream)
    script = ByAccount(upstream, first=AWAY)
    for tracking_id in await gateway.send_all({"text": f"early {n}"} for n in range(20)):
        await gateway.reach(tracking_id, "SENT")
    assert len(script.texts("first")) == 20
    late = await gateway.reach(await gateway.send(text="late"), "SENT")
    assert outcomes(late) == [("second", "ACCEPTED")]
    assert "late" not in script.texts("first")


async def test_a_scheduled_message_waits_for_its_time(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    """It is SCHEDULED and handed to nobody before its time, and soon after it is SENT."""
    await gateway.configure_kavenegar(upstream.base_url)
    script = ByAccount(upstream)
    due = time.time() + 2.0
    tracking_id = await gateway.send(schedule_time=moment(due))
    assert state_of(await gateway.status(tracking_id)) == "SCHEDULED"
    await gateway.reach(tracking_id, "SENT")
    (read,) = [at for at, _, _ in script.reads]
    assert due <= read < due + 3.0


@pytest.mark.parametrize("down", ["refusing", "unreachable"])
async def test_nothing_is_handed_off_after_its_time(gateway: Gateway, upstream: ScriptedUpstream, down: str) -> None:
    """A message whose provider stays away ends EXPIRED, and no call is made for it from then on."""
    away = down == "unreachable"
    await gateway.configure_kavenegar(f"http://127.0.0.1:{free_port()}" if away else upstream.base_url)
    script = ByAccount(upstream, kavenegar=AWAY)
    tracking_id = await gateway.send(ttl=Duration(seconds=2))
    found = await gateway.reach(tracking_id, "EXPIRED")
    assert reason_of(found) == "EXPIRED"
    assert found.notification.done
    assert {outcome for _, outcome in outcomes(found)} == {"UNAVAILABLE"}
    expired_at = found.notification.expire_time.ToMicroseconds() / 1e6
    script.replies.clear()
    await asyncio.sleep(max(0.0, expired_at + 1.5 - time.time()))
    assert len(await attempts_of(gateway, tracking_id)) == len(found.attempts)
    assert all(at <= expired_at for at, _, _ in script.reads)
    assert len(script.reads) == (0 if away else len(found.attempts))


async def test_a_scheduled_message_can_be_canceled(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    """Nothing of it was handed off, nothing will be, and canceling again says the same."""
    await gateway.configure_kavenegar(upstream.base_url)
    tracking_id = await gateway.send(schedule_time=moment(time.time() + 1.5))
    for _ in range(2):
        answer = await gateway.stubs.notifications.Cancel(CancelRequest(tracking_id=tracking_id))
        assert not answer.handed_off
        assert state_of(await gateway.status(tracking_id)) == "CANCELED"
        assert answer.notification.done
    await asyncio.sleep(2.0)
    assert not upstream.calls(SEND)


async def test_what_is_in_flight_is_canceled_and_settled(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    """A Cancel during the call says `handed_off`; the call's answer decides, and what follows it is stopped."""
    await two_accounts(gateway, upstream)
    ByAccount(upstream, first=on_send(upstream, lambda _: Say(409, AWAY.body, delay_seconds=1.0)))
    lost = await gateway.send(text="lost")
    await upstream.wait_for(1)
    for _ in range(2):
        assert (await gateway.stubs.notifications.Cancel(CancelRequest(tracking_id=lost))).handed_off
    found = await gateway.reach(lost, "CANCELED")
    assert outcomes(found) == [("first", "UNAVAILABLE")]
    ByAccount(upstream, first=on_send(upstream, slowly(upstream, 1.0)))
    taken = await gateway.send(text="taken")
    await upstream.wait_for(2)
    assert (await gateway.stubs.notifications.Cancel(CancelRequest(tracking_id=taken))).handed_off
    found = await gateway.reach(taken, "SENT")
    assert outcomes(found) == [("first", "ACCEPTED")]
    assert [account(request) for request in upstream.calls(SEND)] == ["first", "first"]


async def test_nothing_is_left_to_cancel_of_a_delivered_message(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    """FAILED_PRECONDITION, NOTHING_TO_CANCEL."""
    await gateway.configure_kavenegar(upstream.base_url)
    tracking_id = await gateway.send()
    await gateway.reach(tracking_id, "DELIVERED")
    told = await refused(gateway.stubs.notifications.Cancel(CancelRequest(tracking_id=tracking_id)))
    assert told.reason == "NOTHING_TO_CANCEL"


@pytest.mark.parametrize("message_class", [MESSAGE_CLASS_OTP, MESSAGE_CLASS_TRANSACTIONAL, MESSAGE_CLASS_BULK])
async def test_a_lost_answer_is_looked_up_not_sent_again(
    gateway: Gateway, upstream: ScriptedUpstream, message_class: MessageClass
) -> None:
    """The connection breaks after the whole text was read: UNCONFIRMED, found by our number, DELIVERED; one text."""
    await two_accounts(gateway, upstream)
    upstream.script(taken_unanswered(upstream))
    tracking_id = await gateway.send(message_class=message_class)
    found = await gateway.reach(tracking_id, "DELIVERED")
    assert outcomes(found) == [("first", "ACCEPTED")]
    states = [event.state for event in found.timeline]
    assert states == sorted(states, key=states.index), "no state comes twice"
    assert "UNCONFIRMED" in names_of(found)
    assert len(upstream.calls(SEND)) == len(upstream.records) == 1


async def test_what_was_never_registered_is_sent_again(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    """The connection breaks and the look-up does not know the number: the text goes out again, and arrives once."""
    await gateway.configure_kavenegar(upstream.base_url)
    upstream.script(Break.AFTER_REQUEST)
    found = await gateway.reach(await gateway.send(), "DELIVERED")
    assert outcomes(found) == [("kavenegar", "UNAVAILABLE"), ("kavenegar", "ACCEPTED")]
    assert len(upstream.calls(SEND)) == 2
    assert len(upstream.records) == 1


async def test_without_an_answer_to_the_look_up_the_class_decides(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    """After its window of 3 s an OTP goes to the next account with the same text.

    A transactional message, and one in bulk, stay UNCONFIRMED.
    """
    await two_accounts(gateway, upstream)
    script = ByAccount(upstream, first=on_look_up_nothing(upstream))
    ids = {
        name: await gateway.send(text=name, message_class=message_class)
        for name, message_class in (("otp", MESSAGE_CLASS_OTP), ("text", MESSAGE_CLASS_TRANSACTIONAL))
    }
    ids["bulk"] = await gateway.send(text="bulk", message_class=MESSAGE_CLASS_BULK)
    otp = await gateway.until(ids["otp"], lambda found: len(found.attempts) == 2 and state_of(found) == "SENT")
    assert outcomes(otp) == [("first", "AMBIGUOUS"), ("second", "ACCEPTED")]
    assert script.texts("second") == ["otp"]
    times = {(name, text): at for at, name, text in script.reads}
    assert times["second", "otp"] - times["first", "otp"] >= 3.0
    for name in ("text", "bulk"):
        found = await gateway.status(ids[name])
        assert state_of(found) == "UNCONFIRMED"
        assert reason_of(found) == "AMBIGUOUS"
        assert outcomes(found) == [("first", "AMBIGUOUS")]
    assert sorted(script.texts("first")) == ["bulk", "otp", "text"]


async def test_an_otp_overtakes_bulk(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    """With two hundred texts in bulk queued at a slow provider, an OTP is handed off as soon as it is accepted."""
    await gateway.configure_kavenegar(upstream.base_url, timeout_seconds=8)
    script = ByAccount(upstream, kavenegar=on_send(upstream, slowly(upstream, 1.5)))
    await gateway.send_all({"text": f"bulk {n}", "message_class": MESSAGE_CLASS_BULK} for n in range(200))
    tracking_id = await gateway.send(text="otp", message_class=MESSAGE_CLASS_OTP)
    accepted = len(script.reads)
    assert accepted < 150, "nothing is queued"
    await gateway.reach(tracking_id, "SENT")
    assert script.texts("kavenegar").index("otp") < accepted + WIDTHS[Lane.BULK] // 2


async def test_a_flood_of_one_tenant_costs_the_others_one_turn(gateway: Gateway, upstream: ScriptedUpstream) -> None:
    """While one tenant has three hundred messages waiting, another's single one does not wait for them."""
    await gateway.tenant("quiet")
    await gateway.configure_kavenegar(upstream.base_url, "loud", timeout_seconds=8)
    await gateway.configure_kavenegar(upstream.base_url, "quiet", tenant_id="quiet")
    script = ByAccount(upstream, loud=on_send(upstream, slowly(upstream, 1.5)))
    await gateway.send_all({"text": f"loud {n}"} for n in range(300))
    tracking_id = await gateway.send(tenant_id="quiet", text="quiet")
    accepted = len(script.reads)
    assert accepted < 200, "nothing is queued"
    await gateway.until(tracking_id, lambda found: state_of(found) == "SENT", tenant_id="quiet")
    place = [text for _, _, text in script.reads].index("quiet")
    assert place < accepted + WIDTHS[Lane.TRANSACTIONAL], "it waited longer than for one turn of the lane"


def moment(at: float) -> Timestamp:
    made = Timestamp()
    made.FromMicroseconds(int(at * 1e6))
    return made


def slowly(upstream: ScriptedUpstream, seconds: float) -> Callable[[Recorded], Say]:
    """As Kavenegar would, after so long."""

    def answer(request: Recorded) -> Say:
        said = upstream.honest(request)
        return Say(said.status, said.body, delay_seconds=seconds)

    return answer


def taken_unanswered(upstream: ScriptedUpstream) -> Callable[[Recorded], Break]:
    """The text is taken, and the connection cut before any answer."""

    def answer(request: Recorded) -> Break:
        upstream.honest(request)
        return Break.AFTER_REQUEST

    return answer


def on_look_up_nothing(upstream: ScriptedUpstream) -> Reply:
    """Every text's connection is cut; nothing is told of it later."""
    return lambda request: Break.AFTER_REQUEST if request.call == SEND else envelope(409)


async def attempts_of(gateway: Gateway, tracking_id: str) -> Sequence[Attempt]:
    return (await gateway.status(tracking_id)).attempts
