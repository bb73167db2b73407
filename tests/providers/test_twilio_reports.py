"""What Twilio posts to a URL of ours: who may have posted it, and what it reports."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from urllib.parse import parse_qs, urlencode

import pytest
from hypothesis import given, strategies as st

from server.model.enums import FailureReason, ReceiptKind
from server.model.outcomes import Receipt, Report
from server.providers.transport import Transport
from server.providers.twilio import Twilio
from server.providers.twilio_codes import CALL_STATUSES, FAILURES, MESSAGE_STATUSES
from server.providers.twilio_signature import is_signed, is_whole, signature
from tests.providers.twilio_upstream import TOKEN, sid, twilio_at

URL = "https://gateway.example.com/hooks/t/u-2/secret?attempt=1"
TEXT_ID, CALL_ID = sid("SM", 1), sid("CA", 1)
OTHER = Receipt(ReceiptKind.OTHER)
DELIVERED = Receipt(ReceiptKind.DELIVERED)

VECTOR_TOKEN = "12345"
VECTOR_URL = "https://mycompany.com/myapp.php?foo=1&bar=2"
VECTOR_FIELDS = {
    "CallSid": ["CA1234567890ABCDE"],
    "Digits": ["1234"],
    "From": ["+14158675309"],
    "To": ["+18005551212"],
    "Caller": ["+14158675309"],
}
VECTOR = "RSOYDt4T1cUTdK1PDd93/VVr8B8="
REPEATED_FIELDS = {"Sid": ["CA123"], "SidAccount": ["AC123"], "Digits": ["5678", "1234", "1234"]}
REPEATED_VECTOR = "IK+Dwps556ElfBT0I3Rgjkr1wJU="
JSON_BODY = b'{"property": "value", "boolean": true}'
JSON_DIGEST = "0a1ff7634d9ab3b95db5c9a2dfe9416e41502b283a80c7cf19632632f96e6620"

TWILIO = Twilio(twilio_at("https://api.twilio.com"), Transport())
Fields = Mapping[str, str | Sequence[str]]


def form(**fields: str) -> dict[str, str]:
    """The fields of a status callback; more may come without notice."""
    return {"MessageSid": TEXT_ID, "MessageStatus": "delivered", "To": "+989120000111", "From": "سلام", **fields}


def posted(fields: Fields, *, url: str = URL, signed_url: str = "", token: str = TOKEN) -> Sequence[Report] | None:
    """What is made of a form that was signed for `signed_url`."""
    values = {name: [value] if isinstance(value, str) else value for name, value in fields.items()}
    headers = {"x-twilio-signature": signature(token, signed_url or url, values)}
    return TWILIO.reports(url, headers, urlencode(fields, doseq=True).encode())


def test_the_vectors_of_the_signature() -> None:
    """Those of Twilio's own libraries: once with each field once, once with one that repeats, and a body's digest."""
    assert signature(VECTOR_TOKEN, VECTOR_URL, VECTOR_FIELDS) == VECTOR
    assert signature(VECTOR_TOKEN, VECTOR_URL, REPEATED_FIELDS) == REPEATED_VECTOR
    assert is_whole(f"{VECTOR_URL}&bodySHA256={JSON_DIGEST}", JSON_BODY)
    assert not is_whole(f"{VECTOR_URL}&bodySHA256={JSON_DIGEST}", JSON_BODY + b" ")
    assert hashlib.sha256(JSON_BODY).hexdigest() == JSON_DIGEST


@pytest.mark.parametrize(
    ("called", "signed"),
    [
        (VECTOR_URL, VECTOR_URL),
        (VECTOR_URL, VECTOR_URL.replace(".com", ".com:443")),
        (VECTOR_URL.replace(".com", ".com:443"), VECTOR_URL),
        (VECTOR_URL.replace(".com", ".com:8443"), VECTOR_URL),
        (VECTOR_URL.replace(".com", ".com:8443"), VECTOR_URL.replace(".com", ".com:8443")),
        ("http://mycompany.com", "http://mycompany.com:80"),
        ("http://mycompany.com:80?a=b:80", "http://mycompany.com?a=b:80"),
        ("https://[::1]/x", "https://[::1]:443/x"),
        (VECTOR_URL + "#rc=2&rp=all", VECTOR_URL),
    ],
)
def test_a_port_may_be_spelled_out_or_not(called: str, signed: str) -> None:
    """Twilio signs the one or the other; a fragment is never signed."""
    assert is_signed(VECTOR_TOKEN, called, VECTOR_FIELDS, signature(VECTOR_TOKEN, signed, VECTOR_FIELDS))


@pytest.mark.parametrize(
    ("called", "signed"),
    [
        (VECTOR_URL, VECTOR_URL.replace(".com", ".com:8443")),
        (VECTOR_URL, VECTOR_URL.replace("https", "http")),
        (VECTOR_URL, VECTOR_URL + "&x=1"),
        (VECTOR_URL, VECTOR_URL.replace("myapp", "other")),
    ],
)
def test_another_url_is_another_call(called: str, signed: str) -> None:
    """A port that nobody spelled, another scheme, query or path."""
    assert not is_signed(VECTOR_TOKEN, called, VECTOR_FIELDS, signature(VECTOR_TOKEN, signed, VECTOR_FIELDS))


def test_a_signed_receipt_is_taken() -> None:
    """Of this message; fields that nobody knows, blank ones and repeated ones take part in the signature alone."""
    report = [Report(TEXT_ID, DELIVERED)]
    assert posted(form()) == report
    assert posted({**form(), "Fresh": "", "Twice": ["b", "a", "a"]}) == report
    assert posted(form(), signed_url=URL.replace(".com", ".com:443")) == report
    assert posted({"SmsSid": TEXT_ID, "SmsStatus": "delivered"}) == report


@pytest.mark.parametrize("headers", [{}, {"x-twilio-signature": ""}, {"x-twilio-signature": "سلام"}])
def test_what_is_not_signed_is_refused(headers: dict[str, str]) -> None:
    """No signature, an empty one, junk; and one by another token."""
    assert TWILIO.reports(URL, headers, urlencode(form()).encode()) is None
    assert posted(form(), token="another-token") is None


@given(st.data())
def test_a_changed_byte_is_refused(data: st.DataObject) -> None:
    """Anywhere in the body, the URL or the signature, whatever it is changed to."""
    body, claimed = urlencode(form()).encode(), signature(TOKEN, URL, {k: [v] for k, v in form().items()})
    parts = {"body": body, "url": URL.encode(), "signature": claimed.encode()}
    name = data.draw(st.sampled_from(sorted(parts)))
    at = data.draw(st.integers(0, len(parts[name]) - 1))
    byte = data.draw(st.integers(33, 126).filter(lambda b: b != parts[name][at]))
    changed = parts[name][:at] + bytes([byte]) + parts[name][at + 1 :]
    headers = {"x-twilio-signature": (changed if name == "signature" else claimed.encode()).decode()}
    sent = changed if name == "body" else body
    told = TWILIO.reports(changed.decode() if name == "url" else URL, headers, sent)
    # Some characters are spelled in two ways, as %2B and %2b: what says the same is the same.
    assert told is None or (name == "body" and _read(sent) == _read(body))


def _read(body: bytes) -> object:
    return parse_qs(body.decode(), keep_blank_values=True)


@given(st.binary(max_size=300), st.booleans())
def test_garbage_raises_nothing(body: bytes, signed: bool) -> None:
    """Unsigned it is refused; well signed, it tells nothing."""
    fields = parse_qs(body.decode(errors="replace"), keep_blank_values=True, errors="replace")
    headers = {"x-twilio-signature": signature(TOKEN, URL, fields) if signed else "junk"}
    assert TWILIO.reports(URL, headers, body) == ([] if signed else None)


VALUES = st.one_of(st.text(max_size=50), st.sampled_from([TEXT_ID, CALL_ID, "delivered", "failed", "30003", "-1"]))
NAMES = ("MessageSid", "SmsSid", "CallSid", "MessageStatus", "SmsStatus", "CallStatus", "ErrorCode")


@given(st.dictionaries(st.sampled_from(NAMES), VALUES))
def test_signed_nonsense_is_left_out(fields: dict[str, str]) -> None:
    """Whatever stands in the fields, nothing is raised, and what is told is a status that is known of an id's kind."""
    for report in posted(fields) or []:
        assert report.provider_message_id in (TEXT_ID, CALL_ID)
        assert report.receipt.kind in (ReceiptKind.DELIVERED, ReceiptKind.UNDELIVERED)


def test_too_many_fields_are_refused() -> None:
    """More than two hundred are read by nobody."""
    assert posted({**form(), **{f"f{n}": "1" for n in range(190)}}) is not None
    assert posted({**form(), **{f"f{n}": "1" for n in range(200)}}) is None


def told(receipts: Sequence[Report] | None) -> tuple[ReceiptKind, FailureReason | None, str] | None:
    """What the one report says, its reason and its code; None for no report."""
    assert receipts is not None
    if not receipts:
        return None
    [report] = receipts
    failure = report.receipt.failure
    return report.receipt.kind, failure.reason if failure else None, failure.provider_code if failure else ""


WAYS = {"accepted", "scheduled", "queued", "sending", "sent"}
ARRIVED = {"delivered", "partially_delivered", "read"}


@pytest.mark.parametrize("status", sorted(MESSAGE_STATUSES))
def test_documented_statuses(status: str) -> None:
    """Five are on their way, three have arrived, three have not."""
    if status in WAYS:
        assert told(posted(form(MessageStatus=status))) == (ReceiptKind.OTHER, None, "")
    elif status in ARRIVED:
        assert told(posted(form(MessageStatus=status, ErrorCode="30003"))) == (ReceiptKind.DELIVERED, None, "")
    else:
        expected = (ReceiptKind.UNDELIVERED, FailureReason.PROVIDER_UNAVAILABLE, status.upper())
        assert status in ("undelivered", "failed", "canceled")
        assert told(posted(form(MessageStatus=status))) == expected


@pytest.mark.parametrize("status", ["receiving", "received", "", "Delivered", "completed", "new-word"])
def test_statuses_that_tell_nothing(status: str) -> None:
    """Inbound ones, those of calls and unknown ones are left out."""
    assert posted(form(MessageStatus=status)) == []


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("queued", (ReceiptKind.OTHER, None, "")),
        ("ringing", (ReceiptKind.OTHER, None, "")),
        ("in-progress", (ReceiptKind.OTHER, None, "")),
        ("completed", (ReceiptKind.DELIVERED, None, "")),
        ("busy", (ReceiptKind.UNDELIVERED, FailureReason.RECIPIENT_UNREACHABLE, "BUSY")),
        ("no-answer", (ReceiptKind.UNDELIVERED, FailureReason.RECIPIENT_UNREACHABLE, "NO-ANSWER")),
        ("failed", (ReceiptKind.UNDELIVERED, FailureReason.PROVIDER_UNAVAILABLE, "FAILED")),
        ("canceled", (ReceiptKind.UNDELIVERED, FailureReason.PROVIDER_UNAVAILABLE, "CANCELED")),
        ("delivered", None),
    ],
)
def test_statuses_of_calls(status: str, expected: tuple[ReceiptKind, FailureReason | None, str] | None) -> None:
    """By their own words, of an id of a call."""
    assert set(CALL_STATUSES) == {
        "queued",
        "ringing",
        "in-progress",
        "completed",
        "busy",
        "no-answer",
        "failed",
        "canceled",
    }
    assert told(posted({"CallSid": CALL_ID, "CallStatus": status, "SequenceNumber": "3"})) == expected


REASONS = {
    30001: FailureReason.PROVIDER_UNAVAILABLE,
    30002: FailureReason.PROVIDER_MISCONFIGURED,
    30003: FailureReason.RECIPIENT_UNREACHABLE,
    30004: FailureReason.RECIPIENT_BLOCKED,
    30005: FailureReason.RECIPIENT_INVALID,
    30006: FailureReason.RECIPIENT_INVALID,
    30007: FailureReason.CONTENT_REJECTED,
    30008: FailureReason.PROVIDER_UNAVAILABLE,
    30010: FailureReason.PROVIDER_UNAVAILABLE,
    30017: FailureReason.PROVIDER_UNAVAILABLE,
    30018: FailureReason.PROVIDER_MISCONFIGURED,
    30019: FailureReason.CONTENT_REJECTED,
    30022: FailureReason.RATE_LIMITED,
    30023: FailureReason.RATE_LIMITED,
    30024: FailureReason.PROVIDER_MISCONFIGURED,
    30032: FailureReason.PROVIDER_MISCONFIGURED,
    30034: FailureReason.PROVIDER_MISCONFIGURED,
    30410: FailureReason.PROVIDER_UNAVAILABLE,
    30450: FailureReason.RECIPIENT_BLOCKED,
    63038: FailureReason.RATE_LIMITED,
}
FURTHER = {21610: FailureReason.RECIPIENT_BLOCKED, 21614: FailureReason.RECIPIENT_INVALID}
UNKNOWN = {39999: FailureReason.PROVIDER_UNAVAILABLE}


def test_every_documented_error_code_is_tested() -> None:
    """The table of the adapter and the table of this suite name the same codes."""
    assert set(FAILURES) == set(REASONS)


@pytest.mark.parametrize("code", sorted(REASONS | FURTHER | UNKNOWN))
@pytest.mark.parametrize("status", ["undelivered", "failed"])
def test_error_codes_say_why(status: str, code: int) -> None:
    """Those of receipts, those that also refuse, and one that nobody knows: the code is kept, the sentence is ours."""
    expected = (ReceiptKind.UNDELIVERED, (REASONS | FURTHER | UNKNOWN)[code], str(code))
    receipts = posted(form(MessageStatus=status, ErrorCode=str(code), ErrorMessage="raw words"))
    assert told(receipts) == expected
    assert receipts
    failure = receipts[0].receipt.failure
    assert failure is not None
    assert failure.message
    assert "raw words" not in failure.message


def signed_json(body: bytes, digest: str | None = None) -> tuple[str, dict[str, str]]:
    """A URL that names the digest of a body, and the headers that sign it."""
    url = f"{URL}&bodySHA256={hashlib.sha256(body).hexdigest() if digest is None else digest}"
    return url, {"x-twilio-signature": signature(TOKEN, url, {})}


def test_a_body_in_json_is_proved_by_its_digest() -> None:
    """The URL alone is signed, and names the digest; a body with another digest is refused."""
    body = json.dumps({"MessageSid": TEXT_ID, "MessageStatus": "failed", "ErrorCode": 30003}).encode()
    url, headers = signed_json(body)
    assert told(TWILIO.reports(url, headers, body)) == (
        ReceiptKind.UNDELIVERED,
        FailureReason.RECIPIENT_UNREACHABLE,
        "30003",
    )
    assert TWILIO.reports(url, headers, body + b" ") is None
    assert TWILIO.reports(url, {}, body) is None
    assert TWILIO.reports(URL, headers, body) is None
    for digest in ("", "x", "سلام"):
        wrong_url, wrong_headers = signed_json(body, digest)
        assert TWILIO.reports(wrong_url, wrong_headers, body) is None


@given(st.one_of(st.binary(max_size=100), st.sampled_from([b"[" * 5000, b"{}", b"[]", b"null", b'{"MessageSid":1}'])))
def test_proved_json_that_says_nothing(body: bytes) -> None:
    """No object, no id, or junk: proved, and empty."""
    url, headers = signed_json(body)
    assert TWILIO.reports(url, headers, body) == []
