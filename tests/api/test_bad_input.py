"""What a caller gets for a Send that is bad in itself: INVALID_ARGUMENT, and every bad field."""

from collections.abc import Callable

import pytest
from angarium.v1 import (
    notification_service_pb2 as notifications,
    provider_service_pb2 as providers,
    routing_service_pb2 as routing,
)
from angarium.v1.message_pb2 import CHANNEL_VOICE, Recipient
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from grpc import StatusCode

from tests.api.edge import UNKNOWN, Edge, letter, refused, soon, to

NOW = 1_790_000_000
DAY = 86_400


async def test_an_empty_request_is_told_everything(sqlite_edge: Edge) -> None:
    """Row 18: every field that is required is named at once, with a sentence, and counted."""
    refusal = await refused(sqlite_edge.operator.notifications.Send(notifications.SendRequest()))
    assert (refusal.code, refusal.reason) == (StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    assert set(refusal.fields) == {"intent", "recipient", "text"}
    assert refusal.told == {"violation_count": "3"}
    assert all(refusal.descriptions)


FIELDS: dict[str, tuple[Callable[[], notifications.SendRequest], str]] = {
    "20 unknown class": (lambda: letter(message_class=99), "message_class"),
    "20 unknown channel": (lambda: letter(channel=99), "channel"),
    "20 unknown platform": (lambda: to(device_tokens=["t"], platform=99), "recipient.platform"),
    "20 unknown policy": (lambda: letter(on_unconfirmed=9), "on_unconfirmed"),
    "25 letters": (lambda: to(phone="0912CALLME"), "recipient.phone"),
    "25 a plus": (lambda: to(phone="+"), "recipient.phone"),
    "25 three digits": (lambda: to(phone="091"), "recipient.phone"),
    "25 sixteen digits": (lambda: to(phone="+989120000111222"), "recipient.phone"),
    "25 NUL": (lambda: to(phone="0912\x00000111"), "recipient.phone"),
    "25 too long": (lambda: to(phone="0" * 33), "recipient.phone"),
    "26 landline": (lambda: to(phone="+982188776655"), "recipient.phone"),
    "26 short code": (lambda: to(phone="110"), "recipient.phone"),
    "26 unallocated country": (lambda: to(phone="+9990000000000"), "recipient.phone"),
    "29 no at": (lambda: to(email="example.com"), "recipient.email"),
    "29 two ats": (lambda: to(email="a@b@example.com"), "recipient.email"),
    "29 too long": (lambda: to(email="a" * 64 + "@" + "b" * 60 + "." + "c" * 126 + ".com"), "recipient.email"),
    "29 CRLF": (lambda: to(email="a@example.com\r\nBcc: b@example.com"), "recipient.email"),
    "29 homograph": (lambda: to(email="a@ex\u0430mple.com"), "recipient.email"),
    "29 quoted": (lambda: to(email='"a b"@example.com'), "recipient.email"),
    "30 empty token": (lambda: to(device_tokens=[""]), "recipient.device_tokens[0]"),
    "30 5 KB token": (lambda: to(device_tokens=["t" * 5_000]), "recipient.device_tokens[0]"),
    "30 too many tokens": (lambda: to(device_tokens=[str(n) for n in range(101)]), "recipient.device_tokens"),
    "31 empty": (lambda: letter(text=""), "text"),
    "31 blank": (lambda: letter(text=" \n"), "text"),
    "31 too long": (lambda: letter(text="x" * 1_601), "text"),
    "31 too many parts": (lambda: letter(text="س" * 671), "text"),
    "31 NUL": (lambda: letter(text="a\x00b"), "text"),
    "31 control characters": (lambda: letter(text="a\x1b[31mb"), "text"),
    "32 CRLF": (lambda: letter(sender="SHOP\r\n"), "sender"),
    "32 a long name": (lambda: letter(sender="ANGARIUMSHOP"), "sender"),
    "32 too long": (lambda: letter(sender="1" * 33), "sender"),
    "40 too long": (lambda: letter(request_id="k" * 256), "request_id"),
    "40 not printable": (lambda: letter(request_id="a\nb"), "request_id"),
    "40 emoji": (lambda: letter(request_id="🔑"), "request_id"),
    "43 past": (lambda: letter(schedule_time=soon(-120)), "schedule_time"),
    "43 too far": (lambda: letter(schedule_time=soon(91 * DAY)), "schedule_time"),
    "43 nanos": (lambda: letter(schedule_time=Timestamp(seconds=NOW, nanos=-1)), "schedule_time"),
    "43 year 0": (lambda: letter(schedule_time=Timestamp(seconds=-62_135_596_801)), "schedule_time"),
    "43 year 10000": (lambda: letter(schedule_time=Timestamp(seconds=253_402_300_800)), "schedule_time"),
    "44 zero": (lambda: letter(ttl=Duration()), "ttl"),
    "44 negative": (lambda: letter(ttl=Duration(seconds=-5)), "ttl"),
    "44 beyond the class": (lambda: letter(message_class=1, ttl=Duration(seconds=601)), "ttl"),
    "44 overflow": (lambda: letter(ttl=Duration(seconds=2**62)), "ttl"),
    "44 mixed signs": (lambda: letter(ttl=Duration(seconds=60, nanos=-1)), "ttl"),
    "intent": (lambda: letter(intent="ORDER PAID"), "intent"),
    "intent too long": (lambda: letter(intent="I" * 121), "intent"),
    "reference": (lambda: letter(reference="r" * 256), "reference"),
    "eleven tags": (lambda: letter(tags=[str(n) for n in range(11)]), "tags"),
    "long tag": (lambda: letter(tags=["t" * 61]), "tags[0]"),
    "empty tag": (lambda: letter(tags=[""]), "tags[0]"),
    "locale": (lambda: to(phone="09120000111", locale="fa__IR"), "recipient.locale"),
    "user id": (lambda: to(user_id="u\x00"), "recipient.user_id"),
}


@pytest.mark.parametrize("row", FIELDS)
async def test_fields_of_a_send(sqlite_edge: Edge, row: str) -> None:
    """Rows 20, 25, 26, 29–32, 40, 43 and 44: INVALID_ARGUMENT, and the field by its path."""
    made, field = FIELDS[row]
    refusal = await refused(sqlite_edge.operator.notifications.Send(made()))
    assert (refusal.code, refusal.reason, refusal.fields) == (StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", (field,))
    assert not refusal.pushback


FINE: dict[str, Callable[[], notifications.SendRequest]] = {
    "25 Persian digits": lambda: to(phone="۰۹۱۲۰۰۰۰۱۱۱"),
    "25 Arabic digits": lambda: to(phone="٠٩١٢٠٠٠٠١١١"),
    "25 0098": lambda: to(phone="00989120000111"),
    "25 spaces": lambda: to(phone="+98 912 000 0111"),
    "25 the zero too many": lambda: to(phone="+98 0912 000 0111"),
    "25 marks": lambda: to(phone="\u200e0912\u00a00000111\u202c".replace("\u00a0", " ")),
    "29 punycode": lambda: to(email="a@xn--mgba3gch31f060k.example"),
    "31 ten parts": lambda: letter(text="س" * 670),
    "31 line breaks": lambda: letter(text="a\r\n\tb\u200c"),
    "37 braces": lambda: letter(text="{{7*7}} {x.__class__} %s ${}"),
    "38 SQL": lambda: letter(text="'; DROP TABLE message; --", reference="'; DROP TABLE message; --"),
    "39 no key": letter,
    "43 a minute past": lambda: letter(schedule_time=soon(-55)),
    "44 the longest": lambda: letter(ttl=Duration(seconds=72 * 3600)),
    "45 voice to a landline": lambda: letter(recipient=Recipient(phone="+982188776655"), channel=CHANNEL_VOICE),
    "tags twice": lambda: letter(tags=["a", "a"]),
}


@pytest.mark.parametrize("row", FINE)
async def test_what_looks_odd_and_is_fine(sqlite_edge: Edge, row: str) -> None:
    """Rows 25, 37–39 and the edges of the others: accepted."""
    assert (await sqlite_edge.operator.notifications.Send(FINE[row]())).tracking_id


async def test_a_thousand_bad_fields(sqlite_edge: Edge) -> None:
    """Twenty violations go out and all are counted, in less than 6 KB."""
    rules = [routing.RoutingRule(name=" " * n, steps=[routing.RouteStep(channel=UNKNOWN)]) for n in range(1, 120)]
    refusal = await refused(sqlite_edge.operator.routing.SetRoutingRules(routing.SetRoutingRulesRequest(rules=rules)))
    assert (refusal.code, len(refusal.fields)) == (StatusCode.INVALID_ARGUMENT, 20)
    assert int(refusal.told["violation_count"]) >= 238
    assert refusal.details_bytes < 6 * 1024


BASE_URLS = [
    "http://api.example.com",
    "ftp://api.example.com",
    "file:///etc/passwd",
    "https://user:password@api.example.com",
    "https://api.example.com?x=1",
    "https://api.example.com:22",
    "https://localhost",
    "https://127.0.0.1",
    "https://2130706433",
    "https://0x7f000001",
    "https://0177.0.0.1",
    "https://127.1",
    "https://10.0.0.1",
    "https://169.254.169.254",
    "https://[::1]",
    "https://[::ffff:127.0.0.1]",
    "https://[fd00::1]",
    "https://127.0.0.1.nip.io",
    "https://metadata.internal",
    "https://api.example.com/../x",
    "api.example.com",
]


@pytest.mark.parametrize("url", BASE_URLS)
async def test_base_urls(sqlite_edge: Edge, url: str) -> None:
    """Row 65: an address that is not everybody's, however it is spelled, is INVALID_ARGUMENT."""
    asked = providers.ConfigureProviderRequest(type="kavenegar", secrets={"api_key": "0123456789"}, base_url=url)
    refusal = await refused(sqlite_edge.operator.providers.ConfigureProvider(asked))
    assert (refusal.code, refusal.reason, refusal.fields) == (
        StatusCode.INVALID_ARGUMENT,
        "INVALID_FIELD",
        ("base_url",),
    )
