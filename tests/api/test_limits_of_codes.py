"""What a caller of OtpService is told whose codes go to two addresses, or whose checks are wrong or of nothing."""

import pytest
from angarium.v1 import notification_service_pb2 as notifications, otp_service_pb2 as wire
from angarium.v1.message_pb2 import CHANNEL_EMAIL, CHANNEL_VOICE, Notification
from google.protobuf.duration_pb2 import Duration
from grpc import StatusCode

from server.model.enums import DueKind, MessageClass
from tests.api.codes import SOMEBODY, Result, asking, make_template, send, verify
from tests.api.edge import Edge, refused
from tests.store.codes import pass_time
from tests.store.letters import rows

EMAIL = "somebody@company.com"
MAGIC = "09120000111"
OWN = "a1B2c3"


@pytest.fixture
async def edge(edge: Edge) -> Edge:
    """With a template that says a code."""
    await make_template(edge.operator)
    return edge


def beside(number: int, email: str = EMAIL) -> wire.OtpSendRequest:
    """A code by e-mail alone, of a verification of one of many numbers."""
    return asking(phone=f"0912{number}00000", email=email, channel=CHANNEL_EMAIL)


async def state_of(edge: Edge, sent: wire.OtpSendResponse) -> tuple[Notification.State, bool]:
    asked = notifications.GetStatusRequest(tracking_id=sent.tracking_id)
    shown = (await edge.operator.notifications.GetStatus(asked)).notification
    return shown.state, shown.done


async def test_one_email_address_beside_forty_numbers(edge: Edge) -> None:
    """By e-mail alone, each of another number's verification: three codes go there, and 37 calls are refused."""
    for number in (10, 11, 12):
        await edge.operator.otp.OtpSend(beside(number))
        assert (await refused(edge.operator.otp.OtpSend(beside(49)))).code == StatusCode.RESOURCE_EXHAUSTED
        await pass_time(edge.store, 31)
    refusals = [await refused(edge.operator.otp.OtpSend(beside(number))) for number in range(13, 50)]
    assert {(one.reason, one.told["limit"]) for one in refusals} == {("QUOTA_EXHAUSTED", "destination")}
    assert await rows(edge.store, "SELECT COUNT(*) FROM message") == [(3,)]
    await edge.operator.otp.OtpSend(beside(13, "another@company.com"))


async def test_a_number_that_is_magic_beside_an_address_that_is_not(edge: Edge) -> None:
    """The limits hold: only where every address is magic are there none."""
    for _ in range(3):
        await send(edge.operator, phone=MAGIC, email=EMAIL, ttl=Duration(seconds=600))
        await pass_time(edge.store, 31)
    refusal = await refused(edge.operator.otp.OtpSend(asking(phone=MAGIC, email=EMAIL)))
    assert refusal.told == {"limit": "destination"}
    await send(edge.operator, phone=MAGIC, email="delivered@example.com")


async def test_call_me_instead_says_the_callers_own_code(edge: Edge) -> None:
    """It was brought once; the call says it too, and the text that waits goes out as well."""
    first = await send(edge.operator, params={"token": OWN})
    await pass_time(edge.store, 31)
    called = await send(edge.operator, channel=CHANNEL_VOICE, code_length=8)
    assert called.verification_id == first.verification_id
    claims = await edge.store.claim(MessageClass.OTP, frozenset({DueKind.SEND}), 50)
    said = {claim.case.message.id: claim.content.params["token"] for claim in claims if claim.content}
    assert said == {first.tracking_id: OWN, called.tracking_id: OWN}
    assert (await verify(edge.operator, OWN, verification_id=first.verification_id)).verified


async def test_another_code_ends_the_messages_of_the_first(edge: Edge) -> None:
    """GetStatus tells it as canceled; after the last attempt the second one is, too."""
    first = await send(edge.operator, params={"token": OWN})
    await pass_time(edge.store, 31)
    second = await send(edge.operator, params={"token": "1234"})
    canceled = (Notification.STATE_CANCELED, True)
    assert await state_of(edge, first) == canceled
    assert await state_of(edge, second) == (Notification.STATE_ACCEPTED, False)
    left = [(await verify(edge.operator, "4321", verification_id=second.verification_id)).attempts_left for _ in "123"]
    assert left == [2, 1, 0]
    assert await state_of(edge, second) == canceled


async def test_ids_that_are_made_up(edge: Edge) -> None:
    """Ten a minute are answered, whatever they are; a real one is checked beside them."""
    sent = await send(edge.operator, params={"token": OWN})
    answers = [await verify(edge.operator, "000000", verification_id=f"made-up-{number}") for number in range(10)]
    assert {(one.result, one.verification_id) for one in answers} == {(Result.RESULT_UNKNOWN, "")}
    refusal = await refused(
        edge.operator.otp.OtpVerify(wire.OtpVerifyRequest(verification_id="made-up-10", code="000000"))
    )
    assert (refusal.reason, refusal.told) == ("QUOTA_EXHAUSTED", {"limit": "checks"})
    assert 0 < refusal.retry_seconds <= 60
    assert (await verify(edge.operator, OWN, verification_id=sent.verification_id)).verified


async def test_ten_wrong_checks_in_an_hour(edge: Edge) -> None:
    """The right code of a third verification is refused with how long to wait, and has all its attempts left."""
    for turn in ("A", "B"):
        sent = await send(edge.operator, intent=turn, params={"token": OWN})
        for _ in range(5):
            assert not (await verify(edge.operator, "000000", verification_id=sent.verification_id)).verified
        await pass_time(edge.store, 61)
    third = await send(edge.operator, intent="C", params={"token": OWN}, ttl=Duration(seconds=600))
    asked = wire.OtpVerifyRequest(verification_id=third.verification_id, code=OWN)
    refusal = await refused(edge.operator.otp.OtpVerify(asked))
    assert (refusal.code, refusal.reason) == (StatusCode.RESOURCE_EXHAUSTED, "QUOTA_EXHAUSTED")
    assert refusal.told == {"limit": "checks"}
    assert 3400 < refusal.retry_seconds <= 3600 - 122
    assert await rows(edge.store, "SELECT attempts FROM verification WHERE intent = 'C'") == [(0,)]
    elsewhere = await send(edge.operator, phone="09129999999", params={"token": OWN})
    assert (await verify(edge.operator, OWN, phone="09129999999")).verification_id == elsewhere.verification_id
    assert SOMEBODY not in refusal.message
