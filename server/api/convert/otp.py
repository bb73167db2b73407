"""OtpSend and OtpVerify, checked and turned into a message about to be kept, and into a check."""

import hashlib
import json

from angarium.v1 import otp_service_pb2 as wire

from server.api.caller import Call
from server.api.convert.checks import ID_CHARS_MAX, Checks
from server.api.convert.messages import (
    REFERENCE_CHARS_MAX,
    REQUEST_ID_CHARS_MAX,
    TAG_CHARS_MAX,
    TAGS_MAX,
    check_fit,
    check_params,
    check_sender,
    email_of,
    phone_of,
)
from server.api.convert.times import timestamp
from server.api.convert.words import CHANNELS, STATES, Words
from server.model.clock import SECOND, Micros
from server.model.enums import Channel, DueKind, MessageClass, Mode, State
from server.model.limits import COOLDOWN, PREFIX_DIGITS_CUT
from server.model.magic import magic_fate
from server.model.messages import CODE, TOKEN, CodeSource, Content, Due, Message, NewMessage, Recipient
from server.model.otp import (
    CODE_CHARS_MAX,
    CODE_CHARS_MIN,
    CODE_LENGTH_DEFAULT,
    INTENT_DEFAULT,
    TYPED_CHARS_MAX,
    Check,
    Checked,
    CheckResult,
    CodeWanted,
    code_of,
    is_code,
)
from server.model.policy import LIVES
from server.model.recipients import hint_of_recipient
from server.model.templates import Template, param_names
from server.model.work import Acceptance

END_USER_IP_CHARS_MAX, END_USER_DEVICE_CHARS_MAX = 64, 255
RESULTS = Words(wire.OtpVerifyResponse.Result, CheckResult, "RESULT")
_FINGERPRINT_VERSION = b"\x01OtpSend"
_A_CODE = f"must be {CODE_CHARS_MIN}–{CODE_CHARS_MAX} of 0-9 A-Z a-z"


def new_code_message(
    checks: Checks, request: wire.OtpSendRequest, call: Call, message_id: str, now: Micros
) -> NewMessage:
    """The message as a request asks for it, without its fingerprint; of use once `checks` have settled.

    Its template is named as the request names it; which code it says is settled when it is accepted.
    """
    channel = checks.word("channel", CHANNELS, request.channel)
    checks.printable_ascii("request_id", request.request_id, REQUEST_ID_CHARS_MAX)
    checks.intent("intent", request.intent, required=False)
    recipient = _recipient(checks, request, call, channel)
    check_sender(checks, "sender", request.sender)
    checks.line("reference", request.reference, REFERENCE_CHARS_MAX)
    wanted = _code_wanted(checks, request, call, recipient)
    message = Message(
        id=message_id,
        tenant_id=call.tenant_id,
        client_id=call.caller.client_id,
        request_id=request.request_id,
        intent=request.intent or INTENT_DEFAULT,
        message_class=MessageClass.OTP,
        state=State.ACCEPTED,
        created_at=now,
        updated_at=now,
        expires_at=now + wanted.ttl,
        channel_wanted=channel,
        scenario=checks.intent("scenario", request.scenario, required=False),
        template_key=checks.intent("template_key", request.template_key, required=False),
        reference=request.reference,
        tags=tuple(dict.fromkeys(checks.lines("tags", request.tags, TAGS_MAX, TAG_CHARS_MAX))),
        recipient_hint=hint_of_recipient(recipient),
        due=Due(DueKind.SEND, now),
    )
    params = check_params(checks, request.params)
    # In place of the code that is derived later, so that it is known which accounts could say it.
    code = None if wanted.token else CodeSource("", "", 0, wanted.length)
    return NewMessage(message, Content(recipient, sender=request.sender, params=params, code=code), otp=wanted)


def check_code_words(checks: Checks, new: NewMessage, template: Template) -> None:
    """Whether the template says the code, and gets all else that it needs."""
    if CODE not in param_names(template):
        checks.fail("template_key", f"the template {template.key!r} does not say the code: it names no %{CODE}%")
    else:
        check_fit(checks, template, {CODE: "", **new.content.params} if new.content.code else new.content.params)


def digest_of_code(request: wire.OtpSendRequest, new: NewMessage) -> str:
    """The same for requests that ask for the same, whatever their key and when they come: SHA-256 of one spelling."""
    message, content, wanted = new.message, new.content, new.otp
    if wanted is None:
        raise AssertionError
    to = content.recipient
    spelled = {
        "phone": to.phone,
        "email": to.email,
        "user_id": to.user_id,
        "locale": to.locale,
        "template_key": request.template_key,
        "params": dict(content.params),
        "intent": message.intent,
        "channel": message.channel_wanted,
        "ttl": wanted.ttl,
        "length": wanted.length,
        "scenario": message.scenario,
        "sender": content.sender,
        "reference": message.reference,
        "tags": message.tags,
        "end_user": (wanted.end_user_ip, wanted.end_user_device),
    }
    canonical = json.dumps(spelled, sort_keys=True, separators=(",", ":")).encode()
    return hashlib.sha256(_FINGERPRINT_VERSION + canonical).hexdigest()


def sent(acceptance: Acceptance, cursor: str) -> wire.OtpSendResponse:
    """What an OtpSend is answered."""
    message = acceptance.message
    return wire.OtpSendResponse(
        tracking_id=message.id,
        verification_id=message.verification_id,
        state=STATES.number(message.state),
        replayed=acceptance.replayed,
        expire_time=timestamp(message.expires_at),
        resend_time=timestamp(message.created_at + COOLDOWN.span),
        cursor=cursor,
    )


def new_check(request: wire.OtpVerifyRequest, call: Call) -> Check:
    """The check that a request asks for, with its fingerprint. Raises Invalid with every bad field."""
    checks = Checks()
    named = {name: bool(getattr(request, name)) for name in ("verification_id", "phone", "email")}
    checks.exactly_one(named)
    checks.printable_ascii("request_id", request.request_id, REQUEST_ID_CHARS_MAX)
    checks.line("verification_id", request.verification_id, ID_CHARS_MAX)
    phone = phone_of(checks, "phone", request.phone, call.tenant.default_region, voice=True)
    email = email_of(checks, "email", request.email)
    checks.intent("intent", request.intent, required=False)
    if request.intent and request.verification_id:
        checks.fail("intent", "stands beside phone or email only")
    code = _typed(checks, request.code)
    checks.settle()
    intent = "" if request.verification_id else request.intent or INTENT_DEFAULT
    spelled = json.dumps([request.verification_id, phone, email, intent, code], separators=(",", ":"))
    return Check(
        tenant_id=call.tenant_id,
        client_id=call.caller.client_id,
        code=code,
        verification_id=request.verification_id,
        destination=phone or email,
        intent=intent,
        request_id=request.request_id,
        fingerprint=bytes.fromhex(call.vault.index(spelled)),
    )


def checked(answer: Checked) -> wire.OtpVerifyResponse:
    """What an OtpVerify is answered."""
    return wire.OtpVerifyResponse(
        verified=answer.result == CheckResult.VERIFIED,
        result=RESULTS.number(answer.result),
        attempts_left=answer.attempts_left,
        verification_id=answer.verification_id,
        verify_time=timestamp(answer.verified_at),
        replayed=answer.replayed,
    )


def _recipient(checks: Checks, request: wire.OtpSendRequest, call: Call, channel: Channel | None) -> Recipient:
    if not (request.phone or request.email):
        checks.fail("phone", "or an email is required")
    voice = channel == Channel.VOICE
    return Recipient(
        phone=phone_of(checks, "phone", request.phone, call.tenant.default_region, voice=voice),
        email=email_of(checks, "email", request.email),
        user_id=checks.line("user_id", request.user_id, ID_CHARS_MAX),
        locale=checks.locale("locale", request.locale),
    )


def _code_wanted(checks: Checks, request: wire.OtpSendRequest, call: Call, recipient: Recipient) -> CodeWanted:
    addresses = [(Channel.SMS, recipient.phone), (Channel.EMAIL, recipient.email)]
    are_magic = all(magic_fate(channel, address) is not None for channel, address in addresses if address)
    return CodeWanted(
        destination=recipient.phone or recipient.email,
        beside=recipient.email if recipient.phone else "",
        prefix=recipient.phone[:-PREFIX_DIGITS_CUT],
        ttl=_ttl(checks, request),
        length=_length(checks, request),
        token=_token(checks, request),
        end_user_ip=checks.line("end_user_ip", request.end_user_ip, END_USER_IP_CHARS_MAX),
        end_user_device=checks.line("end_user_device", request.end_user_device, END_USER_DEVICE_CHARS_MAX),
        cooldown_alone=call.tenant.mode == Mode.SANDBOX and are_magic,
    )


def _ttl(checks: Checks, request: wire.OtpSendRequest) -> Micros:
    life = LIVES[MessageClass.OTP]
    span = checks.span("ttl", request.ttl) if request.HasField("ttl") else life.default
    if span is not None and not life.least <= span <= life.most:
        checks.fail("ttl", f"must be {life.least // SECOND}–{life.most // SECOND} s")
    return span or life.default


def _length(checks: Checks, request: wire.OtpSendRequest) -> int:
    length = request.code_length
    if length and TOKEN in request.params:
        checks.fail("code_length", f"must not stand beside params.{TOKEN}, which is the code")
    elif length and not CODE_CHARS_MIN <= length <= CODE_CHARS_MAX:
        checks.fail("code_length", f"must be {CODE_CHARS_MIN}–{CODE_CHARS_MAX}")
    return length or CODE_LENGTH_DEFAULT


def _token(checks: Checks, request: wire.OtpSendRequest) -> str:
    if CODE in request.params:
        checks.fail(f"params.{CODE}", f"is the code itself; bring your own as params.{TOKEN}")
    if TOKEN not in request.params:
        return ""
    token = request.params[TOKEN]
    if not is_code(token):
        checks.fail(f"params.{TOKEN}", _A_CODE)
    return token


def _typed(checks: Checks, typed: str) -> str:
    code = code_of(typed) if len(typed) <= TYPED_CHARS_MAX else ""
    if not typed:
        checks.fail("code", "is required")
    elif not code:
        checks.fail("code", f"{_A_CODE}, with spaces or hyphens between or not")
    return code
