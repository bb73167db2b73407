"""A Send, checked and turned into a message about to be kept."""

import hashlib
import json
from typing import NamedTuple

from angarium.v1.message_pb2 import Recipient as WireRecipient
from angarium.v1.notification_service_pb2 import SendRequest

from server.api.caller import Call
from server.api.convert.checks import ID_CHARS_MAX, Checks
from server.api.convert.words import CHANNELS, CLASSES, ON_UNCONFIRMED, PLATFORMS
from server.model.clock import SECOND, Micros
from server.model.emails import BadEmail, to_email
from server.model.enums import Channel, DueKind, MessageClass, OnUnconfirmed, State
from server.model.messages import Content, Due, Message, NewMessage, Recipient
from server.model.phones import BadPhone, to_e164
from server.model.policy import LIVES, SCHEDULE_AHEAD_MAX, SCHEDULE_PAST_MAX
from server.model.recipients import hint_of_recipient

TEXT_CHARS_MAX = 1_600
REQUEST_ID_CHARS_MAX = 255
REFERENCE_CHARS_MAX = 255
SENDER_CHARS_MAX = 32
SENDER_LETTERS_MAX = 11
TAGS_MAX, TAG_CHARS_MAX = 10, 60
DEVICE_TOKENS_MAX, DEVICE_TOKEN_CHARS_MAX = 100, 4_096
_FINGERPRINT_VERSION = b"\x01"


class _Times(NamedTuple):
    """When a message goes out (0: at once), and how long it lives from then."""

    schedule_at: Micros
    life: Micros


def new_message(request: SendRequest, call: Call, message_id: str, now: Micros) -> NewMessage:
    """The message that a request asks for, without its fingerprint. Raises Invalid with every bad field."""
    checks = Checks()
    message_class = checks.word("message_class", CLASSES, request.message_class) or MessageClass.TRANSACTIONAL
    channel = checks.word("channel", CHANNELS, request.channel)
    checks.printable_ascii("request_id", request.request_id, REQUEST_ID_CHARS_MAX)
    checks.intent("intent", request.intent)
    recipient = _recipient(checks, request, call, channel)
    if request.text.strip():
        checks.text("text", request.text, TEXT_CHARS_MAX)
    else:
        checks.fail("text", "is required")
    check_sender(checks, "sender", request.sender)
    checks.line("reference", request.reference, REFERENCE_CHARS_MAX)
    tags = tuple(dict.fromkeys(checks.lines("tags", request.tags, TAGS_MAX, TAG_CHARS_MAX)))
    again = checks.word("on_unconfirmed", ON_UNCONFIRMED, request.on_unconfirmed) or OnUnconfirmed.STAY
    times = _times(checks, request, message_class, now)
    checks.settle()
    later = times.schedule_at > now
    message = Message(
        id=message_id,
        tenant_id=call.tenant.tenant_id,
        client_id=call.caller.client_id,
        request_id=request.request_id,
        intent=request.intent,
        message_class=message_class,
        state=State.SCHEDULED if later else State.ACCEPTED,
        created_at=now,
        updated_at=now,
        expires_at=(times.schedule_at or now) + times.life,
        channel_wanted=channel,
        reference=request.reference,
        tags=tags,
        on_unconfirmed=again,
        recipient_hint=hint_of_recipient(recipient),
        schedule_at=times.schedule_at,
        due=Due(DueKind.SEND, times.schedule_at if later else now),
    )
    return NewMessage(message, Content(recipient, request.text, request.sender))


def digest_of(new: NewMessage) -> str:
    """The same for requests that ask for the same, whatever their key and when they come: SHA-256 of one spelling."""
    message, content = new.message, new.content
    to = content.recipient
    spelled = {
        "intent": message.intent,
        "message_class": message.message_class,
        "channel": message.channel_wanted,
        "text": content.text,
        "sender": content.sender,
        "recipient": (to.phone, to.email, to.device_tokens, to.user_id, to.username, to.platform, to.locale),
        "schedule_at": message.schedule_at,
        "life": message.expires_at - (message.schedule_at or message.created_at),
        "on_unconfirmed": message.on_unconfirmed,
        "reference": message.reference,
        "tags": message.tags,
    }
    canonical = json.dumps(spelled, sort_keys=True, separators=(",", ":")).encode()
    return hashlib.sha256(_FINGERPRINT_VERSION + canonical).hexdigest()


def phone_of(checks: Checks, field: str, typed: str, region: str, *, voice: bool = False) -> str:
    """The E.164 form of a number that was given; empty where none was, or where it is bad."""
    if not typed:
        return ""
    try:
        return to_e164(typed, region, voice=voice)
    except BadPhone as bad:
        checks.fail(field, str(bad))
        return ""


def email_of(checks: Checks, field: str, typed: str) -> str:
    """The address that was given; empty where none was, or where it is bad."""
    if not typed:
        return ""
    try:
        return to_email(typed)
    except BadEmail as bad:
        checks.fail(field, str(bad))
        return ""


def check_sender(checks: Checks, field: str, sender: str) -> None:
    """Whom a message shall seem to come from: a number, or a name that a telephone can show."""
    if len(sender) > SENDER_CHARS_MAX:
        checks.fail(field, f"has more than {SENDER_CHARS_MAX} characters")
    elif not sender.isprintable():
        checks.fail(field, "holds characters that cannot be printed")
    elif len(sender) > SENDER_LETTERS_MAX and any(c.isalpha() for c in sender):
        checks.fail(field, f"is a name with letters and has more than {SENDER_LETTERS_MAX} characters")


def _recipient(checks: Checks, request: SendRequest, call: Call, channel: Channel | None) -> Recipient:
    given = request.recipient
    if not (given.phone or given.email or given.device_tokens or given.user_id or given.username):
        checks.fail("recipient", "needs a phone, an email, device_tokens, a user_id or a username")
    voice = channel == Channel.VOICE
    return Recipient(
        phone=phone_of(checks, "recipient.phone", given.phone, call.tenant.default_region, voice=voice),
        email=email_of(checks, "recipient.email", given.email),
        device_tokens=_device_tokens(checks, given),
        user_id=checks.line("recipient.user_id", given.user_id, ID_CHARS_MAX),
        username=checks.line("recipient.username", given.username, ID_CHARS_MAX),
        platform=checks.word("recipient.platform", PLATFORMS, given.platform),
        locale=checks.locale("recipient.locale", given.locale),
    )


def _device_tokens(checks: Checks, given: WireRecipient) -> tuple[str, ...]:
    """Each device once, so that none of them rings twice."""
    field = "recipient.device_tokens"
    return tuple(dict.fromkeys(checks.lines(field, given.device_tokens, DEVICE_TOKENS_MAX, DEVICE_TOKEN_CHARS_MAX)))


def _times(checks: Checks, request: SendRequest, message_class: MessageClass, now: Micros) -> _Times:
    schedule_at = checks.time("schedule_time", request.schedule_time) if request.HasField("schedule_time") else None
    if schedule_at is not None and schedule_at < now - SCHEDULE_PAST_MAX:
        checks.fail("schedule_time", "is more than 1 minute past")
    elif schedule_at is not None and schedule_at > now + SCHEDULE_AHEAD_MAX:
        checks.fail("schedule_time", "is more than 90 days ahead")
    life = LIVES[message_class]
    span = checks.span("ttl", request.ttl) if request.HasField("ttl") else life.default
    if span is not None and not life.least <= span <= life.most:
        seconds = f"{life.least // SECOND}–{life.most // SECOND} s"
        checks.fail("ttl", f"must be {seconds} for the class {message_class}")
    return _Times(schedule_at or 0, span or life.default)
