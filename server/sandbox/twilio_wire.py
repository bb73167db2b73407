"""Twilio's wire format: its codes, its errors, its dates, and how its parameters are read."""

import datetime
import json
import re
from dataclasses import dataclass, field
from email.utils import format_datetime

from aiohttp import web

from server.model.clock import DAY, SECOND, Micros, moment
from server.sandbox.forms import Form, first
from server.sandbox.receipts import BadCallback, check_callback

VERSION = "2010-04-01"
BODY_CHARS_MAX = 1600
TWIML_CHARS_MAX = 4000
VALIDITY_SECONDS_MAX = 36_000
TIMEOUT_SECONDS_MAX = 600
RETRY_AFTER_SECONDS = 1
BAD_PARAMETER = 20001
EVENTS = ("initiated", "ringing", "answered", "completed")
"""What a call can post, in the order that it happens in."""

CODES = {
    10001: "Account is not active",
    14107: "SMS send rate limit exceeded",
    20001: "Invalid parameter",
    20003: "Authenticate",
    20005: "Account not active",
    20403: "Forbidden",
    20404: "The requested resource was not found",
    20409: "Conflict",
    20422: "Invalid parameter",
    20429: "Too many requests",
    20500: "Internal server error",
    20503: "Service unavailable",
    21201: "No 'To' number is specified",
    21205: "Url is not a valid URL",
    21210: "'From' is not a verified caller ID",
    21211: "Invalid 'To' phone number",
    21212: "Invalid 'From' phone number",
    21213: "'From' phone number is required",
    21214: "'To' phone number cannot be reached",
    21215: "Account not authorized to call this region",
    21216: "Account not allowed to call this number",
    21217: "Phone number does not appear to be valid",
    21408: "Permission to send an SMS has not been enabled for the region",
    21601: "'From' phone number cannot send SMS",
    21602: "Message body is required",
    21603: "A 'From' phone number is required",
    21604: "A 'To' phone number is required",
    21606: "The 'From' phone number is not a valid sender for this destination",
    21608: "The number is unverified",
    21609: "Invalid 'StatusCallback' URL",
    21610: "Attempt to send to unsubscribed recipient",
    21611: "This 'From' number has exceeded the maximum number of queued messages",
    21612: "The 'To' phone number is not reachable with this 'From'",
    21614: "'To' number is not a valid mobile number",
    21617: "The concatenated message body exceeds the 1600 character limit",
    21635: "'To' number cannot be a landline",
    21659: "'From' is not a phone number of this account",
    21660: "Mismatch between the 'From' number and the account",
    21661: "'From' number is not SMS capable",
    21703: "The messaging service contains no usable phone number",
    21704: "The messaging service contains no phone numbers",
    21705: "The messaging service is invalid",
    13223: "Invalid phone number format",
    13224: "Invalid phone number",
    13225: "Calls to this phone number are blocked",
    13226: "Invalid country code",
    13227: "Calls to this country are not allowed",
    35111: "SendAt missing",
    35114: "SendAt not supported",
    35115: "SendAt too near",
    35117: "SendAt too far",
    35118: "Scheduling needs a messaging service",
    35125: "Too many scheduled messages",
}
_HTTP_STATUSES = {20003: 401, 20403: 403, 20404: 404, 20409: 409, 20422: 422, 20429: 429, 20500: 500, 20503: 503}
"""All others come with 400."""

_HEX = "[0-9a-fA-F]{32}"
ACCOUNT_SID = re.compile(f"AC{_HEX}")
KEY_SID = re.compile(f"SK{_HEX}")
_SERVICE_SID = re.compile(f"MG{_HEX}")
_CONTENT_SID = re.compile(f"HX{_HEX}")
_NUMBER = re.compile(r"\+[1-9][0-9]{6,14}")
_SENDER = re.compile(r"\+[1-9][0-9]{6,14}|[0-9]{3,8}|(?=.*[A-Za-z])[A-Za-z0-9 +&_-]{1,11}")
_WHATSAPP = "whatsapp:"
_DATE_CHARS = len("2026-01-31")
_DIGITS_MAX = 9


class Refused(Exception):
    """The call is answered with this code."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


@dataclass(frozen=True, slots=True)
class Texting:
    """A message as it is asked for, and found good."""

    to: str = field(repr=False)
    sender: str
    service_sid: str
    body: str = field(repr=False)
    """Empty where a template of Twilio's says it: the upstream knows none."""
    callback: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Calling:
    """A call as it is asked for, and found good."""

    to: str = field(repr=False)
    sender: str
    callback: str = field(repr=False)
    events: frozenset[str]


def refusal(code: int) -> web.StreamResponse:
    """An error in the classic shape."""
    status = _HTTP_STATUSES.get(code, 400)
    headers = {
        401: {"WWW-Authenticate": 'Basic realm="Twilio API"'},
        503: {"Retry-After": str(RETRY_AFTER_SECONDS)},
    }.get(status)
    more_info = f"https://www.twilio.com/docs/errors/{code}"
    body = {"code": code, "message": CODES[code], "more_info": more_info, "status": status}
    return web.json_response(body, status=status, headers=headers)


def texting(form: Form) -> Texting:
    """Reads what `Messages.json` was posted."""
    to, sender, service_sid = first(form, "To"), first(form, "From"), first(form, "MessagingServiceSid")
    body, content_sid = first(form, "Body"), first(form, "ContentSid")
    _want(to, 21604)
    _want(sender or service_sid, 21603)
    _want(body or content_sid, 21602)
    _want(len(body) <= BODY_CHARS_MAX, 21617)
    _want(_NUMBER.fullmatch(number_of(to)), 21211)
    _want(not sender or _SENDER.fullmatch(number_of(sender)), 21212)
    _want(not service_sid or _SERVICE_SID.fullmatch(service_sid), 21705)
    _want(not content_sid or _CONTENT_SID.fullmatch(content_sid), BAD_PARAMETER)
    _want(_is_json_object(first(form, "ContentVariables") or "{}"), BAD_PARAMETER)
    _check_seconds(form, "ValidityPeriod", VALIDITY_SECONDS_MAX)
    return Texting(to, sender, service_sid, "" if content_sid else body, _callback(form))


def calling(form: Form) -> Calling:
    """Reads what `Calls.json` was posted; without events to post, a call posts its end alone."""
    to, sender, twiml = first(form, "To"), first(form, "From"), first(form, "Twiml")
    _want(to, 21201)
    _want(sender, 21213)
    _want(twiml, 21205)
    _want(_NUMBER.fullmatch(to), 21217)
    _want(_NUMBER.fullmatch(sender), 21212)
    _want(len(twiml) <= TWIML_CHARS_MAX, BAD_PARAMETER)
    _check_seconds(form, "Timeout", TIMEOUT_SECONDS_MAX)
    events = frozenset(form.get("StatusCallbackEvent", ("completed",)))
    _want(events <= set(EVENTS), BAD_PARAMETER)
    return Calling(to, sender, _callback(form), events)


def number_of(address: str) -> str:
    """The number of a channel's address: `whatsapp:+98…` and `+98…` are the same one."""
    return address.removeprefix(_WHATSAPP)


def rfc2822(at: Micros) -> str:
    """`Sat, 31 Jan 2026 12:00:00 +0000`."""
    return format_datetime(moment(at))


def span_of(written: str) -> range:
    """The µs of a day (`2026-01-31`) or of a second (`2026-01-31T12:00:00Z`), as filters name them in UTC."""
    try:
        read = datetime.datetime.fromisoformat(written)
    except ValueError:
        raise Refused(BAD_PARAMETER) from None
    utc = read if read.tzinfo else read.replace(tzinfo=datetime.UTC)
    start = int(utc.timestamp()) * SECOND
    return range(start, start + (DAY if len(written) <= _DATE_CHARS else SECOND))


def number_in(form: Form, name: str, default: int, allowed: range) -> int:
    """An integer parameter within its bounds."""
    written = first(form, name)
    if not written:
        return default
    _want(written.isascii() and written.isdigit() and len(written) <= _DIGITS_MAX, BAD_PARAMETER)
    _want(int(written) in allowed, BAD_PARAMETER)
    return int(written)


def _check_seconds(form: Form, name: str, most: int) -> None:
    number_in(form, name, most, range(1, most + 1))


def _callback(form: Form) -> str:
    url = first(form, "StatusCallback")
    _want(first(form, "StatusCallbackMethod") in ("", "POST"), BAD_PARAMETER)
    if url:
        try:
            check_callback(url)
        except BadCallback:
            raise Refused(21609) from None
    return url


def _is_json_object(text: str) -> bool:
    try:
        read: object = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(read, dict)


def _want(holds: object, code: int) -> None:
    if not holds:
        raise Refused(code)
