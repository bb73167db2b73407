"""A Send, checked and turned into a message about to be kept."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

from angarium.v1.message_pb2 import Recipient as WireRecipient
from angarium.v1.notification_service_pb2 import SendRequest

from server.api.caller import Call
from server.api.convert.checks import ID_CHARS_MAX, Checks
from server.api.convert.words import CHANNELS, CLASSES, MESSAGE_KINDS, ON_UNCONFIRMED, PLATFORMS
from server.model.clock import SECOND, Micros
from server.model.emails import BadEmail, to_email
from server.model.enums import Channel, DueKind, MessageClass, MessageKind, OnUnconfirmed, State
from server.model.messages import CODE, TOKEN, Content, Due, Message, NewMessage, Recipient
from server.model.phones import BadPhone, to_e164
from server.model.policy import LIVES, SCHEDULE_AHEAD_MAX, SCHEDULE_PAST_MAX
from server.model.recipients import hint_of_recipient
from server.model.templates import NAME, Template, chosen, missing_params, unused_params

TEXT_CHARS_MAX = 1_600
REQUEST_ID_CHARS_MAX = 255
REFERENCE_CHARS_MAX = 255
SENDER_CHARS_MAX = 32
SENDER_LETTERS_MAX = 11
TAGS_MAX, TAG_CHARS_MAX = 10, 60
DEVICE_TOKENS_MAX, DEVICE_TOKEN_CHARS_MAX = 100, 4_096
PARAMS_MAX, PARAM_BYTES_MAX, PARAMS_BYTES_MAX = 64, 4_096, 16_384
_FINGERPRINT_VERSION = b"\x01"


class _Times(NamedTuple):
    """When a message goes out (0: at once), and how long it lives from then."""

    schedule_at: Micros
    life: Micros


def template_for(request: SendRequest, templates: Mapping[str, Template]) -> Template | None:
    """The template that a request names, as it is now, or the one that serves its intent; None where there is none."""
    if request.template_key:
        return templates.get(request.template_key)
    if request.text:
        return None
    return chosen(templates.values(), request.intent, CLASSES.word(request.message_class))


def new_message(
    checks: Checks, request: SendRequest, call: Call, message_id: str, now: Micros, of_template: MessageClass | None
) -> NewMessage:
    """The message that a request asks for, without its fingerprint; of use once `checks` have settled.

    `of_template`: its template's class, which it has where the request names none. Its template is named as the request
    names it; `check_words` judges whether that can say it.
    """
    asked = checks.word("message_class", CLASSES, request.message_class)
    message_class = asked or of_template or MessageClass.TRANSACTIONAL
    channel = checks.word("channel", CHANNELS, request.channel)
    checks.printable_ascii("request_id", request.request_id, REQUEST_ID_CHARS_MAX)
    checks.intent("intent", request.intent)
    recipient = _recipient(checks, request, call, channel)
    kind = checks.word("message_kind", MESSAGE_KINDS, request.message_kind)
    if request.text:
        _check_text(checks, request)
    _check_revision(checks, request)
    check_sender(checks, "sender", request.sender)
    checks.line("reference", request.reference, REFERENCE_CHARS_MAX)
    tags = tuple(dict.fromkeys(checks.lines("tags", request.tags, TAGS_MAX, TAG_CHARS_MAX)))
    again = checks.word("on_unconfirmed", ON_UNCONFIRMED, request.on_unconfirmed) or OnUnconfirmed.STAY
    times = _times(checks, request, message_class, now)
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
        scenario=checks.intent("scenario", request.scenario, required=False),
        template_key=checks.intent("template_key", request.template_key, required=False),
        template_revision=request.template_revision,
        message_kind=kind,
        reference=request.reference,
        tags=tags,
        on_unconfirmed=again,
        recipient_hint=hint_of_recipient(recipient),
        schedule_at=times.schedule_at,
        due=Due(DueKind.SEND, times.schedule_at if later else now),
    )
    application_key = checks.line("application_key", request.application_key, ID_CHARS_MAX)
    params = check_params(checks, request.params)
    return NewMessage(
        message, Content(recipient, request.text, request.sender, params, application_key=application_key)
    )


def check_words(checks: Checks, request: SendRequest, template: Template | None) -> None:
    """Whether there is something to say, and whether its template gets all that it needs.

    `template`: the one that the request names or that serves its intent; None where there is none.
    """
    if request.text:
        return
    if template is not None:
        check_fit(checks, template, request.params)
    elif not request.template_key:
        asked = CLASSES.word(request.message_class)
        serving = f"no template for the class {asked}" if asked else "no template"
        checks.fail("text", f"is required, or a template_key: {serving} serves the intent {request.intent[:60]!r}")


def _check_text(checks: Checks, request: SendRequest) -> None:
    if request.template_key:
        checks.fail("text", "must not stand beside template_key")
    elif not request.text.strip():
        checks.fail("text", "is required, and is blank")
    else:
        checks.text("text", request.text, TEXT_CHARS_MAX)
    if request.params and not request.template_key:
        checks.fail("params", "are what a template needs; text is sent as it is")
    if MESSAGE_KINDS.word(request.message_kind) == MessageKind.PROVIDER_TEMPLATED:
        checks.fail("message_kind", "must not be PROVIDER_TEMPLATED beside text: it needs a template")


def _check_revision(checks: Checks, request: SendRequest) -> None:
    if request.template_revision < 0:
        checks.fail("template_revision", "is negative")
    elif request.template_revision and not request.template_key:
        checks.fail("template_revision", "needs the template_key beside it")


def check_params(checks: Checks, params: Mapping[str, str]) -> dict[str, str]:
    """What a template shall be filled in with: names, values and their size."""
    if not checks.count("params", params, PARAMS_MAX):
        return {}
    for name, value in params.items():
        if not NAME.fullmatch(name):
            checks.fail("params", f"holds the name {name[:20]!r}; names are 1–64 of A-Z a-z 0-9 _")
        elif len(value.encode()) > PARAM_BYTES_MAX:
            checks.fail(f"params.{name}", f"has more than {PARAM_BYTES_MAX} bytes")
        elif value:
            checks.text(f"params.{name}", value, PARAM_BYTES_MAX)
    if sum(len(name.encode()) + len(value.encode()) for name, value in params.items()) > PARAMS_BYTES_MAX:
        checks.fail("params", f"have more than {PARAMS_BYTES_MAX} bytes in all")
    if CODE in params and TOKEN in params:
        checks.fail(f"params.{TOKEN}", f"is the same parameter as {CODE}")
    return dict(params)


def check_fit(checks: Checks, template: Template, params: Mapping[str, str]) -> None:
    """Whether a template gets all that it needs, and nothing that it does not name."""
    for name in missing_params(template, params):
        checks.fail(f"params.{name}", f"is required by the template {template.key}")
    for name in unused_params(template, params):
        if NAME.fullmatch(name):
            checks.fail(f"params.{name}", f"is named by nothing in the template {template.key}")


def as_asked(request: SendRequest, new: NewMessage) -> NewMessage:
    """The message without what its template gave it, which may be another the next time: a class, and so a life."""
    message, asked = new.message, CLASSES.word(request.message_class) or MessageClass.TRANSACTIONAL
    life = LIVES[asked].default
    expires_at = message.expires_at if request.HasField("ttl") else (message.schedule_at or message.created_at) + life
    return replace(new, message=replace(message, message_class=asked, expires_at=expires_at))


def digest_of(new: NewMessage) -> str:
    """The same for requests that ask for the same, whatever their key and when they come: SHA-256 of one spelling.

    `new` is as `as_asked` gives it, and bears its template as the request named it.
    """
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
        **_if_set(
            scenario=message.scenario,
            template_key=message.template_key,
            template_revision=message.template_revision,
            message_kind=message.message_kind,
            application_key=content.application_key,
            params=dict(content.params),
        ),
    }
    canonical = json.dumps(spelled, sort_keys=True, separators=(",", ":")).encode()
    return hashlib.sha256(_FINGERPRINT_VERSION + canonical).hexdigest()


def _if_set(**fields: object) -> dict[str, object]:
    """What came later to the contract is spelled only where it is asked for: older requests keep their digest."""
    return {name: value for name, value in fields.items() if value}


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
