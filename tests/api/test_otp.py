"""OtpService: one code, checked once, and what a caller is told that goes too far."""

from typing import Any

import pytest
from angarium.v1 import (
    access_service_pb2 as access,
    notification_service_pb2 as notifications,
    otp_service_pb2 as wire,
    provider_service_pb2 as providers,
    sandbox_service_pb2 as sandbox,
    template_service_pb2 as kept,
)
from angarium.v1.message_pb2 import CHANNEL_SMS, CHANNEL_VOICE, MESSAGE_CLASS_BULK, Notification
from google.protobuf.duration_pb2 import Duration
from grpc import StatusCode
from structlog.testing import capture_logs

from tests.api.codes import SOMEBODY, Result, asking, code_of, make_template, send, verify
from tests.api.edge import UNKNOWN, Edge, letter, refused
from tests.gateway import Gateway
from tests.store.codes import pass_time, wrong
from tests.store.letters import rows

MAGIC = "09120000111"
PERSIAN = str.maketrans("0123456789", "۰۱۲۳۴۵۶۷۸۹")


@pytest.fixture
async def edge(edge: Edge) -> Edge:
    """With a template that says a code."""
    await make_template(edge.operator)
    return edge


@pytest.fixture
async def sqlite_edge(sqlite_edge: Edge) -> Edge:
    """With a template that says a code."""
    await make_template(sqlite_edge.operator)
    return sqlite_edge


async def test_a_code_goes_out_and_verifies_once(edge: Edge) -> None:
    """Rows 49 and 51: wrong, then right, then used; each answer says what is left."""
    sent = await send(edge.operator)
    code = await code_of(edge, sent)
    assert sent.state == Notification.STATE_ACCEPTED
    assert sent.expire_time.ToSeconds() - sent.resend_time.ToSeconds() == 270
    typed = [wrong(code), code, code]
    answers = [await verify(edge.operator, one, verification_id=sent.verification_id) for one in typed]
    assert [(a.verified, a.result, a.attempts_left, a.HasField("verify_time")) for a in answers] == [
        (False, Result.RESULT_WRONG_CODE, 4, False),
        (True, Result.RESULT_VERIFIED, 0, True),
        (False, Result.RESULT_USED, 0, False),
    ]
    assert {a.verification_id for a in answers} == {sent.verification_id}
    found = await edge.operator.notifications.GetStatus(notifications.GetStatusRequest(tracking_id=sent.tracking_id))
    shown = found.notification
    assert (shown.done, shown.verification_id, shown.template_key) == (True, sent.verification_id, "otp_login")


async def test_what_cannot_be_a_code_costs_no_attempt(edge: Edge) -> None:
    """Row 50: too short, too long or of other characters is INVALID_ARGUMENT and is not counted; nor is it told."""
    sent = await send(edge.operator)
    for bad in ("", "123", "12345678901", "12 3", "abcd!", "1" * 65):
        asked = wire.OtpVerifyRequest(verification_id=sent.verification_id, code=bad)
        refusal = await refused(edge.operator.otp.OtpVerify(asked))
        assert (refusal.code, refusal.fields) == (StatusCode.INVALID_ARGUMENT, ("code",))
        assert not bad or bad not in refusal.message + "".join(refusal.descriptions)
    assert await rows(edge.store, "SELECT attempts FROM verification") == [(0,)]


async def test_a_code_is_read_as_people_type_it(edge: Edge) -> None:
    """Row 50: with spaces, hyphens and Persian digits, named by the address as it was written, or otherwise."""
    code = await code_of(edge, await send(edge.operator, intent="LOGIN"))
    typed = f" {code[:3]} - {code[3:]} ".translate(PERSIAN)
    unnamed = await verify(edge.operator, typed, phone="+98 912 123 4567")
    assert unnamed.result == Result.RESULT_UNKNOWN
    named = await verify(edge.operator, typed, phone="+98 912 123 4567", intent="LOGIN")
    assert named.result == Result.RESULT_VERIFIED
    await edge.operator.otp.OtpSend(asking(phone=None, email="a@Example.com", params={"token": "aB3dE6"}))
    assert (await verify(edge.operator, "ab3de6", email="a@example.com")).result == Result.RESULT_WRONG_CODE
    assert (await verify(edge.operator, "aB3-dE6", email="a@example.com")).verified


async def test_expired_exhausted_and_unknown(edge: Edge) -> None:
    """Row 51: an answer, never an error, and one that says which."""
    first = await send(edge.operator, params={"token": "4711"})
    asked = {"verification_id": first.verification_id}
    left = [(await verify(edge.operator, "0815", **asked)).attempts_left for _ in range(3)]
    assert left == [2, 1, 0]
    assert (await verify(edge.operator, "4711", **asked)).result == Result.RESULT_EXHAUSTED
    await pass_time(edge.store, 61)
    second = await send(edge.operator, params={"token": "4712"})
    assert second.verification_id != first.verification_id
    await pass_time(edge.store, 300)
    assert (await verify(edge.operator, "4712", phone=SOMEBODY)).result == Result.RESULT_EXPIRED
    unknown = await verify(edge.operator, "4712", verification_id="no-such-thing")
    assert (unknown.result, unknown.verification_id) == (Result.RESULT_UNKNOWN, "")


async def test_the_cooldown(edge: Edge) -> None:
    """Row 52: RESOURCE_EXHAUSTED with OTP_COOLDOWN, and for how long; at `resend_time` it is over."""
    first = await send(edge.operator)
    refusal = await refused(edge.operator.otp.OtpSend(asking()))
    assert (refusal.code, refusal.reason) == (StatusCode.RESOURCE_EXHAUSTED, "OTP_COOLDOWN")
    assert 25 < refusal.retry_seconds <= 30
    assert int(refusal.pushback) == pytest.approx(refusal.retry_seconds * 1000, abs=2)
    await pass_time(edge.store, 31)
    second = await send(edge.operator)
    assert second.tracking_id != first.tracking_id
    assert second.verification_id == first.verification_id
    assert second.resend_time.ToNanoseconds() > first.resend_time.ToNanoseconds()


async def test_more_than_three_in_ten_minutes(edge: Edge) -> None:
    """Row 52: QUOTA_EXHAUSTED names the limit; also another intent, and also the repeated checks of an address."""
    for _ in range(3):
        await send(edge.operator)
        await pass_time(edge.store, 31)
    refusal = await refused(edge.operator.otp.OtpSend(asking(intent="PAY")))
    assert (refusal.code, refusal.reason) == (StatusCode.RESOURCE_EXHAUSTED, "QUOTA_EXHAUSTED")
    assert refusal.told == {"limit": "destination"}
    assert 400 < refusal.retry_seconds < 600
    for _ in range(10):
        await verify(edge.operator, "000000", phone=SOMEBODY)
    asked = wire.OtpVerifyRequest(phone=SOMEBODY, code="000000")
    checks = await refused(edge.operator.otp.OtpVerify(asked))
    assert (checks.reason, checks.told) == ("QUOTA_EXHAUSTED", {"limit": "checks"})
    assert 0 < checks.retry_seconds <= 60


async def test_a_prefix_that_is_pumped(edge: Edge) -> None:
    """Row 53: an hour, and no more is told than that the limit is the prefix's."""
    for number in range(10, 30):
        await send(edge.operator, phone=f"0912123{number}00")
    await pass_time(edge.store, 601)
    refusal = await refused(edge.operator.otp.OtpSend(asking(phone="09121239999")))
    assert (refusal.code, refusal.told) == (StatusCode.RESOURCE_EXHAUSTED, {"limit": "prefix"})
    assert 3500 < refusal.retry_seconds <= 3600
    await send(edge.operator, phone="09131239999")


async def test_a_magic_recipient_has_no_limit_but_the_cooldown(edge: Edge) -> None:
    """In a SANDBOX tenant; in a LIVE one it is a number like any other."""
    for _ in range(6):
        await send(edge.operator, phone=MAGIC, ttl=Duration(seconds=600))
        await pass_time(edge.store, 31)
    await edge.tenant("live", mode=access.Tenant.MODE_LIVE)
    await make_template(edge.operator, tenant_id="live")
    for _ in range(3):
        await send(edge.operator, phone=MAGIC, tenant_id="live")
        await pass_time(edge.store, 31)
    refusal = await refused(edge.operator.otp.OtpSend(asking(phone=MAGIC, tenant_id="live")))
    assert refusal.told == {"limit": "destination"}


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "nobody": ({"phone": None}, "phone"),
    "phone": ({"phone": "12"}, "phone"),
    "landline": ({"phone": "02112345678"}, "phone"),
    "email": ({"phone": None, "email": "a@b"}, "email"),
    "request_id": ({"request_id": "é"}, "request_id"),
    "intent": ({"intent": "a b"}, "intent"),
    "channel": ({"channel": UNKNOWN}, "channel"),
    "locale": ({"locale": "!"}, "locale"),
    "ttl too short": ({"ttl": Duration(seconds=29)}, "ttl"),
    "ttl too long": ({"ttl": Duration(seconds=601)}, "ttl"),
    "ttl of nothing": ({"ttl": Duration()}, "ttl"),
    "length 3": ({"code_length": 3}, "code_length"),
    "length 11": ({"code_length": 11}, "code_length"),
    "length -1": ({"code_length": -1}, "code_length"),
    "length beside a code": ({"code_length": 6, "params": {"token": "123456"}}, "code_length"),
    "a code of 3": ({"params": {"token": "123"}}, "params.token"),
    "a code of 11": ({"params": {"token": "12345678901"}}, "params.token"),
    "a code with a sign": ({"params": {"token": "1234!"}}, "params.token"),
    "an empty code": ({"params": {"token": ""}}, "params.token"),
    "the code itself": ({"params": {"CODE": "123456"}}, "params.CODE"),
    "a param that nothing names": ({"params": {"shop": "Mall"}}, "params.shop"),
    "a template without a code": ({"template_key": "plain"}, "template_key"),
    "a template that lacks something": ({"template_key": "named"}, "params.name"),
    "end user": ({"end_user_ip": "x" * 65}, "end_user_ip"),
    "device": ({"end_user_device": "x" * 256}, "end_user_device"),
    "tags": ({"tags": [""]}, "tags[0]"),
    "user": ({"user_id": "x" * 121}, "user_id"),
    "sender": ({"sender": "x" * 33}, "sender"),
    "reference": ({"reference": "x" * 256}, "reference"),
    "scenario": ({"scenario": "a b"}, "scenario"),
    "template_key": ({"template_key": "a b"}, "template_key"),
}


async def test_what_is_never_valid(sqlite_edge: Edge) -> None:
    """Row 54 and every other field: INVALID_ARGUMENT that names it; nothing is kept and nothing is counted."""
    await make_template(sqlite_edge.operator, "plain", text="Hello.")
    await make_template(sqlite_edge.operator, "named", text="%name%: %CODE%")
    named: dict[str, tuple[StatusCode, tuple[str, ...]]] = {}
    for name, (fields, _) in BAD.items():
        refusal = await refused(sqlite_edge.operator.otp.OtpSend(asking(**fields)))
        named[name] = (refusal.code, refusal.fields)
    assert named == {name: (StatusCode.INVALID_ARGUMENT, (field,)) for name, (_, field) in BAD.items()}
    assert await rows(sqlite_edge.store, "SELECT id FROM message") == []
    assert await rows(sqlite_edge.store, "SELECT kind FROM limit_bucket") == []


@pytest.mark.parametrize(
    ("fields", "bad"),
    [
        ({}, {"verification_id", "phone", "email"}),
        ({"verification_id": "v", "phone": SOMEBODY}, {"verification_id", "phone", "email"}),
        ({"phone": SOMEBODY, "email": "a@example.com"}, {"verification_id", "phone", "email"}),
        ({"phone": "12"}, {"phone"}),
        ({"email": "a@b"}, {"email"}),
        ({"verification_id": "v", "intent": "OTP"}, {"intent"}),
        ({"phone": SOMEBODY, "intent": "a b"}, {"intent"}),
        ({"verification_id": "v" * 121}, {"verification_id"}),
        ({"verification_id": "v", "request_id": "é"}, {"request_id"}),
    ],
)
async def test_a_check_that_is_never_valid(sqlite_edge: Edge, fields: dict[str, str], bad: set[str]) -> None:
    """One way to name the verification, and every field in its form."""
    asked = wire.OtpVerifyRequest(code="123456", **fields)
    refusal = await refused(sqlite_edge.operator.otp.OtpVerify(asked))
    assert (refusal.code, set(refusal.fields)) == (StatusCode.INVALID_ARGUMENT, bad)


async def test_what_must_change_first(sqlite_edge: Edge) -> None:
    """The errors that the contract lists, of templates, routes, recipients and senders."""
    edge = sqlite_edge
    await make_template(edge.operator, "bulk", message_class=MESSAGE_CLASS_BULK)
    await make_template(edge.operator, "off", is_active=False)
    lost = {
        "unknown template": ({"template_key": "none"}, "NOT_FOUND", "RESOURCE_NOT_FOUND"),
        "unknown scenario": ({"scenario": "none"}, "NOT_FOUND", "RESOURCE_NOT_FOUND"),
        "switched off": ({"template_key": "off"}, "FAILED_PRECONDITION", "TEMPLATE_INACTIVE"),
        "of another class": ({"template_key": "bulk"}, "FAILED_PRECONDITION", "TEMPLATE_INACTIVE"),
        "no address": (
            {"phone": None, "email": "a@example.com", "channel": CHANNEL_SMS},
            "FAILED_PRECONDITION",
            "RECIPIENT_UNRESOLVED",
        ),
    }
    told: dict[str, tuple[str, str]] = {}
    for name, (fields, _, _) in lost.items():
        refusal = await refused(edge.operator.otp.OtpSend(asking(**fields)))
        told[name] = (refusal.code.name, refusal.reason)
    assert told == {name: (code, reason) for name, (_, code, reason) in lost.items()}
    await edge.operator.providers.ConfigureProvider(providers.ConfigureProviderRequest(name="sandbox", is_active=False))
    refusal = await refused(edge.operator.otp.OtpSend(asking()))
    assert (refusal.code, refusal.reason) == (StatusCode.FAILED_PRECONDITION, "NO_ROUTE")


async def test_the_template_that_is_taken_where_none_is_named(sqlite_edge: Edge) -> None:
    """Of the active ones of the class OTP that serve the intent, or name none, the first by priority, then by key."""
    edge = sqlite_edge
    await make_template(edge.operator, "aa_off", is_active=False, priority=-2)
    await make_template(edge.operator, "ab_pay", intents=["PAY"], priority=-1)
    await make_template(edge.operator, "zz_any", priority=-1)
    await make_template(edge.operator, "aa_bulk", message_class=MESSAGE_CLASS_BULK, priority=-9)
    taken: list[str] = []
    for intent in ("PAY", "OTHER"):
        sent = await send(edge.operator, template_key=None, intent=intent, phone=MAGIC)
        asked = notifications.GetStatusRequest(tracking_id=sent.tracking_id)
        taken.append((await edge.operator.notifications.GetStatus(asked)).notification.template_key)
        await pass_time(edge.store, 31)
    assert taken == ["ab_pay", "zz_any"]
    await edge.tenant("bare")
    refusal = await refused(edge.operator.otp.OtpSend(asking(tenant_id="bare", template_key=None)))
    assert (refusal.code, refusal.told) == (StatusCode.NOT_FOUND, {"resource": "template"})


async def test_a_repeat_is_answered_as_the_first_call_was(edge: Edge) -> None:
    """Also when template and provider are switched off since, and GetStatus finds its message by the key."""
    first = await send(edge.operator, request_id="r-1", params={"token": "4711"})
    again = await send(edge.operator, request_id="r-1", params={"token": "4711"})
    await edge.operator.templates.UpdateTemplate(kept.UpdateTemplateRequest(key="otp_login", is_active=False))
    await edge.operator.providers.ConfigureProvider(providers.ConfigureProviderRequest(name="sandbox", is_active=False))
    late = await send(edge.operator, request_id="r-1", params={"token": "4711"})
    for one in (again, late):
        assert one.replayed
        one.replayed = False
        assert one == first
    found = await edge.operator.notifications.GetStatus(notifications.GetStatusRequest(request_id="r-1"))
    assert found.notification.tracking_id == first.tracking_id
    assert await rows(edge.store, "SELECT sends FROM verification") == [(1,)]


async def test_a_key_for_another_request(edge: Edge) -> None:
    """Another content under the key, or a Send under it: ALREADY_EXISTS with the first message's id."""
    first = await send(edge.operator, request_id="r-1")
    other = await refused(edge.operator.otp.OtpSend(asking(request_id="r-1", locale="fa")))
    plain = await refused(edge.operator.notifications.Send(letter(request_id="r-1")))
    for refusal in (other, plain):
        assert (refusal.code, refusal.reason) == (StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")
        assert refusal.told == {"tracking_id": first.tracking_id}


async def test_a_check_is_repeated_without_a_cost(edge: Edge) -> None:
    """The same key, verification and code: the same answer. Another code under the key is refused."""
    sent = await send(edge.operator, params={"token": "4711x"})
    named = {"verification_id": sent.verification_id, "request_id": "c-1"}
    answers = [await verify(edge.operator, "4711x", **named) for _ in range(2)]
    assert [(a.result, a.replayed) for a in answers] == [
        (Result.RESULT_VERIFIED, False),
        (Result.RESULT_VERIFIED, True),
    ]
    assert answers[0].verify_time == answers[1].verify_time
    other = await refused(edge.operator.otp.OtpVerify(wire.OtpVerifyRequest(code="4711y", **named)))
    assert (other.code, other.reason) == (StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")
    # Checks and messages have keys of their own.
    assert not (await edge.operator.notifications.Send(letter(request_id="c-1"))).replayed


async def test_of_another_tenant_nothing_is_there(edge: Edge) -> None:
    """Its verification is UNKNOWN by id and by address, its limits are its own, and the scope is `otp`."""
    await edge.tenant("mall")
    await make_template(edge.operator, tenant_id="mall")
    theirs = await send(edge.operator, tenant_id="mall", params={"token": "4711x"})
    ours = await edge.key("otp")
    for named in ({"verification_id": theirs.verification_id}, {"phone": SOMEBODY}):
        assert (await verify(ours, "4711x", **named)).result == Result.RESULT_UNKNOWN
    assert (await send(ours, params={"token": "9999x"})).verification_id != theirs.verification_id
    inside = await edge.key("otp", tenant_id="mall")
    assert (await verify(inside, "4711x", verification_id=theirs.verification_id)).verified
    sender = await edge.key("send", "read", client_id="letters")
    for call in (sender.otp.OtpSend(asking()), sender.otp.OtpVerify(wire.OtpVerifyRequest(code="1234"))):
        refusal = await refused(call)
        assert (refusal.reason, refusal.told) == ("SCOPE_MISSING", {"scope": "otp"})


async def test_call_me_instead(edge: Edge) -> None:
    """By voice the same code goes out again, and a landline may be called."""
    first = await send(edge.operator)
    code = await code_of(edge, first)
    await pass_time(edge.store, 31)
    called = await send(edge.operator, channel=CHANNEL_VOICE)
    assert called.verification_id == first.verification_id
    assert await code_of(edge, called) == code
    await send(edge.operator, phone="02122334455", channel=CHANNEL_VOICE)


async def test_nothing_of_a_code_is_told_elsewhere(edge: Edge) -> None:
    """Neither code nor number nor parameter in a log, an error, a status or an event."""
    secrets = ("s3cr3t99", "9121234567", "Canary", "192.0.2.77", "device-77")
    await make_template(edge.operator, "named", text="%name%: %CODE%")
    asked = asking(
        template_key="named",
        params={"token": "s3cr3t99", "name": "Canary"},
        end_user_ip="192.0.2.77",
        end_user_device="device-77",
    )
    with capture_logs() as logs:
        sent = await edge.operator.otp.OtpSend(asked)
        answers: list[Any] = [sent, await refused(edge.operator.otp.OtpSend(asked))]
        answers.append(await verify(edge.operator, "s3cr3t98", verification_id=sent.verification_id))
        answers.append(await verify(edge.operator, "s3cr3t99", verification_id=sent.verification_id))
        status = notifications.GetStatusRequest(tracking_id=sent.tracking_id)
        answers.append(await edge.operator.notifications.GetStatus(status))
    told = repr([logs, [str(answer) for answer in answers]])
    assert "OtpSend" in told
    assert [secret for secret in secrets if secret in told] == []


async def test_a_code_from_one_end_to_the_other(gateway: Gateway) -> None:
    """Sent, handed off, read in the sandbox's outbox, and verified: then its message is delivered and done."""
    await gateway.configure_sandbox()
    await make_template(gateway.stubs, text="Code: %token%")
    sent = await send(gateway.stubs, phone="09120000114")
    await gateway.reach(sent.tracking_id, "SENT")
    peek = sandbox.PeekOutboxRequest(tracking_id=sent.tracking_id)
    (shown,) = (await gateway.stubs.sandbox.PeekOutbox(peek)).messages
    code = shown.text.removeprefix("Code: ")
    assert (await verify(gateway.stubs, code, verification_id=sent.verification_id)).verified
    found = await gateway.status(sent.tracking_id)
    assert (found.notification.state, found.notification.done) == (Notification.STATE_DELIVERED, True)
