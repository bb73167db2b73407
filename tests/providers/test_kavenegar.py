"""Kavenegar's conformance suite: what its real adapter makes of every answer, over a real socket."""

import logging

import pytest

from server.model.outcomes import (
    Accepted,
    Ambiguous,
    Fault,
    Misconfigured,
    NoAnswer,
    RateLimited,
    Refusal,
    Rejected,
    Unavailable,
    failure_of,
)
from server.providers.kavenegar import CODES, Kavenegar, international, national
from server.providers.transport import Transport
from tests.providers.conftest import API_KEY, KEY, PHONE, TEXT, account_at, hand_off, kind, provider_code, sought
from tests.scripted_upstream import Break, Raw, Reply, Say, ScriptedUpstream, Silence, envelope

REJECTED_REQUEST = (Rejected, Refusal.REQUEST)
REJECTED_CONTENT = (Rejected, Refusal.CONTENT)
CREDENTIALS = (Misconfigured, Fault.CREDENTIALS)
TEMPLATE = (Misconfigured, Fault.TEMPLATE)
SENDER = (Misconfigured, Fault.SENDER)

DOCUMENTED = {
    400: REJECTED_REQUEST,
    401: CREDENTIALS,
    402: (Unavailable, None),
    403: CREDENTIALS,
    404: CREDENTIALS,
    405: REJECTED_REQUEST,
    406: REJECTED_REQUEST,
    407: CREDENTIALS,
    409: (Unavailable, None),
    411: (Rejected, Refusal.RECIPIENT),
    412: SENDER,
    413: REJECTED_CONTENT,
    414: REJECTED_REQUEST,
    415: REJECTED_REQUEST,
    416: CREDENTIALS,
    417: REJECTED_REQUEST,
    418: (Misconfigured, Fault.FUNDS),
    419: REJECTED_REQUEST,
    420: REJECTED_CONTENT,
    422: REJECTED_CONTENT,
    424: TEMPLATE,
    426: TEMPLATE,
    427: SENDER,
    428: REJECTED_CONTENT,
    429: (RateLimited, None),
    431: REJECTED_CONTENT,
    432: TEMPLATE,
    451: (RateLimited, None),
    501: CREDENTIALS,
    604: REJECTED_REQUEST,
    607: TEMPLATE,
}


async def test_a_text_is_handed_over_as_documented(upstream: ScriptedUpstream, kavenegar: Kavenegar) -> None:
    """The number as Iran writes it, the text in UTF-8, our number as localid, the key escaped, no line named."""
    outcome = await kavenegar.send(hand_off())
    assert outcome == Accepted("8000000001")
    [request] = upstream.requests
    assert request.method == "POST"
    assert request.path == "/v1/canary%2Fkey%200123456789/sms/send.json"
    assert request.form == {"receptor": "09120000111", "message": TEXT, "localid": str(KEY)}
    assert request.headers["content-type"] == "application/x-www-form-urlencoded; charset=utf-8"
    assert "cookie" not in request.headers


@pytest.mark.parametrize(("own", "configured", "sent"), [("", "2000", "2000"), ("3000", "2000", "3000")])
async def test_the_line(upstream: ScriptedUpstream, transport: Transport, own: str, configured: str, sent: str) -> None:
    """The message's own line goes before the account's."""
    provider = Kavenegar(account_at(upstream.base_url, sender=configured), transport)
    await provider.send(hand_off(sender=own))
    assert upstream.requests[0].form["sender"] == sent


@pytest.mark.parametrize(
    ("phone", "written"),
    [("+989120000111", "09120000111"), ("+982188888888", "02188888888"), ("+447700900123", "00447700900123")],
)
def test_numbers_are_written_as_kavenegar_wants_them(phone: str, written: str) -> None:
    """Iran's with a leading zero, others with 00 and the country; both are read back as E.164."""
    assert national(phone) == written
    assert international(written) == phone


@pytest.mark.parametrize(
    "spelling", ["09120000111", "9120000111", "00989120000111", "+98 912 000 0111", "989120000111"]
)
async def test_our_recipient_in_any_spelling(upstream: ScriptedUpstream, kavenegar: Kavenegar, spelling: str) -> None:
    """The answer's recipient is compared as a number, not as text."""
    upstream.script(envelope(200, [{"messageid": 7, "receptor": spelling, "status": 1}]))
    assert await kavenegar.send(hand_off()) == Accepted("7")


async def test_the_record_of_another_recipient_is_no_success(upstream: ScriptedUpstream, kavenegar: Kavenegar) -> None:
    """A number of ours that was used before is answered with the message of then: refused, and our bug."""
    upstream.script(envelope(200, [{"messageid": 7, "receptor": "09120000999", "status": 10}]))
    outcome = await kavenegar.send(hand_off())
    assert kind(outcome) == REJECTED_REQUEST
    assert provider_code(outcome) == "RECEPTOR"


async def test_the_same_key_is_taken_once(upstream: ScriptedUpstream, kavenegar: Kavenegar) -> None:
    """A repeat with the same key is answered with the first record: one message, accepted twice under one id."""
    first, second = await kavenegar.send(hand_off()), await kavenegar.send(hand_off())
    assert first == second == Accepted("8000000001")
    assert len(upstream.records) == 1


async def test_an_entry_may_stand_alone(upstream: ScriptedUpstream, kavenegar: Kavenegar) -> None:
    """`entries` as an object instead of a list, and the id as text."""
    upstream.script(envelope(200, {"messageid": "9007199254740993", "receptor": "09120000111"}))
    assert await kavenegar.send(hand_off()) == Accepted("9007199254740993")


def test_every_documented_code_is_tested() -> None:
    """The table of the adapter and the table of this suite name the same codes."""
    assert set(CODES) == set(DOCUMENTED)


@pytest.mark.parametrize("code", sorted(DOCUMENTED))
@pytest.mark.parametrize("http_status", [None, 200], ids=["same-status", "http-200"])
async def test_documented_codes(
    upstream: ScriptedUpstream, kavenegar: Kavenegar, code: int, http_status: int | None
) -> None:
    """Each code of the body decides, whatever the HTTP status; the sentence is ours and the code is kept."""
    upstream.script(envelope(code, None, http_status, message="raw words of the provider"))
    outcome = await kavenegar.send(hand_off())
    assert kind(outcome) == DOCUMENTED[code]
    failure = failure_of(outcome)
    assert failure is not None
    assert failure.provider_code == str(code)
    assert failure.message
    assert "raw words" not in failure.message


HTML = b"<html><body>Bad Gateway</body></html>"
SUCCESS = envelope(200, [{"messageid": 1, "receptor": "09120000111", "status": 1}]).body
BAD_ANSWERS: dict[str, tuple[Reply, tuple[type, Refusal | Fault | None]]] = {
    "undocumented code": (envelope(599, None, 200), (Ambiguous, None)),
    "success without entries": (envelope(200, None), (Ambiguous, None)),
    "success with empty entries": (envelope(200, []), (Ambiguous, None)),
    "success without an id": (envelope(200, [{"receptor": "09120000111"}]), (Ambiguous, None)),
    "success with id 0": (envelope(200, [{"messageid": 0, "receptor": "09120000111"}]), (Ambiguous, None)),
    "success without a recipient": (envelope(200, [{"messageid": 5}]), (Ambiguous, None)),
    "success with junk entries": (envelope(200, [1, "x", None, [[]]]), (Ambiguous, None)),
    "html with 200": (Say(200, HTML), (Ambiguous, None)),
    "empty with 200": (Say(200, b""), (Ambiguous, None)),
    "a list": (Say(200, b"[1]"), (Ambiguous, None)),
    "no return": (Say(200, b'{"entries":[]}'), (Ambiguous, None)),
    "return is text": (Say(200, b'{"return":"200"}'), (Ambiguous, None)),
    "status is true": (Say(200, b'{"return":{"status":true}}'), (Ambiguous, None)),
    "status is NaN": (Say(200, b'{"return":{"status":NaN}}'), (Ambiguous, None)),
    "not utf-8": (Say(200, b"\xff\xfe\x00"), (Ambiguous, None)),
    "truncated json": (Say(200, SUCCESS[:-15]), (Ambiguous, None)),
    "deep json": (Say(200, b"[" * 60_000), (Ambiguous, None)),
    "oversize": (Say(200, b" " * 70_000), (Ambiguous, None)),
    "oversize that would be a success": (Say(200, SUCCESS + b" " * 70_000), (Ambiguous, None)),
    "gzip": (Say(200, b"\x1f\x8b\x08" + b"\x00" * 50, {"Content-Encoding": "gzip"}), (Ambiguous, None)),
    "not http": (Raw(b"SSH-2.0-OpenSSH_9.2\r\n"), (Ambiguous, None)),
    "headers without an end": (Raw(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20_000), (Ambiguous, None)),
    "shorter than promised": (Say(200, SUCCESS, length=len(SUCCESS) + 10), (Ambiguous, None)),
    "broken chunks": (Raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"), (Ambiguous, None)),
    "redirect": (Say(302, b"", {"Location": "http://169.254.169.254/latest"}), (Ambiguous, None)),
    "500": (Say(500, HTML), (Ambiguous, None)),
    "502": (Say(502, HTML), (Ambiguous, None)),
    "503": (Say(503, HTML), (Ambiguous, None)),
    "503 with a pause": (Say(503, HTML, {"Retry-After": "3"}), (Unavailable, None)),
    "504": (Say(504, HTML), (Ambiguous, None)),
    "400 in html": (Say(400, HTML), REJECTED_REQUEST),
    "401 in html": (Say(401, HTML), CREDENTIALS),
    "402 in html": (Say(402, HTML), (Misconfigured, Fault.FUNDS)),
    "404 in html": (Say(404, HTML), CREDENTIALS),
    "408 in html": (Say(408, HTML), (Ambiguous, None)),
    "409 in html": (Say(409, HTML), (Ambiguous, None)),
    "413 in html": (Say(413, HTML), REJECTED_CONTENT),
    "425 in html": (Say(425, HTML), (Unavailable, None)),
    "429 in html": (Say(429, HTML), (RateLimited, None)),
    "disconnect before reading": (Break.BEFORE_READING, (Ambiguous, None)),
    "disconnect after the whole request": (Break.AFTER_REQUEST, (Ambiguous, None)),
    "disconnect in the status line": (Break.MID_STATUS_LINE, (Ambiguous, None)),
    "disconnect in the headers": (Break.MID_HEADERS, (Ambiguous, None)),
    "disconnect in the body": (Break.MID_BODY, (Ambiguous, None)),
}


@pytest.mark.parametrize("name", BAD_ANSWERS)
async def test_bad_answers(upstream: ScriptedUpstream, kavenegar: Kavenegar, name: str) -> None:
    """Whatever an upstream does, there is an outcome and never an exception; what may have been taken is Ambiguous."""
    reply, expected = BAD_ANSWERS[name]
    upstream.script(reply)
    assert kind(await kavenegar.send(hand_off())) == expected


@pytest.mark.parametrize("name", BAD_ANSWERS)
async def test_bad_answers_elsewhere(upstream: ScriptedUpstream, kavenegar: Kavenegar, name: str) -> None:
    """The same answers to the other calls tell nothing, and raise nothing."""
    upstream.always(BAD_ANSWERS[name][0] if BAD_ANSWERS[name][0] is not Break.BEFORE_READING else Break.AFTER_REQUEST)
    assert await kavenegar.statuses(["1"]) == []
    assert await kavenegar.look_up(sought(KEY)) == [NoAnswer()]
    check = await kavenegar.check()
    assert check.balance == ""


async def test_a_pause_that_is_asked_for_is_told(upstream: ScriptedUpstream, kavenegar: Kavenegar) -> None:
    """Retry-After of a plain 429 arrives in microseconds."""
    upstream.script(Say(429, HTML, {"Retry-After": "7"}))
    outcome = await kavenegar.send(hand_off())
    assert isinstance(outcome, RateLimited)
    assert outcome.retry_after == 7_000_000


@pytest.mark.parametrize("text", ["", "x" * 901])
async def test_a_text_that_cannot_go_is_not_sent(upstream: ScriptedUpstream, kavenegar: Kavenegar, text: str) -> None:
    """Empty and over 900 characters: refused for its content, with no call made; 900 go."""
    assert kind(await kavenegar.send(hand_off(text=text))) == REJECTED_CONTENT
    assert upstream.connections == 0
    assert isinstance(await kavenegar.send(hand_off(text="x" * 900)), Accepted)


@pytest.mark.parametrize(
    "slow",
    [Silence(), Say(200, SUCCESS, delay_seconds=5), Say(200, SUCCESS, by_byte_seconds=0.2)],
    ids=["no answer", "late answer", "slow body"],
)
async def test_no_answer_in_time_is_ambiguous(upstream: ScriptedUpstream, kavenegar: Kavenegar, slow: Reply) -> None:
    """The total timeout after the request was read: nobody knows."""
    upstream.script(slow)
    outcome = await kavenegar.send(hand_off(timeout_seconds=0.4))
    assert isinstance(outcome, Ambiguous)
    assert outcome.failure.provider_code == "NO_ANSWER_IN_TIME"
    assert len(upstream.requests) == 1


async def test_after_the_whole_request_was_read_a_disconnect_is_ambiguous(
    upstream: ScriptedUpstream, kavenegar: Kavenegar
) -> None:
    """On a fresh connection and on a kept one."""
    for count, warm in enumerate((False, True), 1):
        if warm:
            assert isinstance(await kavenegar.send(hand_off(key=1)), Accepted)
        upstream.script(Break.AFTER_REQUEST)
        assert isinstance(await kavenegar.send(hand_off(key=2)), Ambiguous)
        assert len(upstream.calls("sms/send")) == (1 if count == 1 else 3)


async def test_a_kept_connection_that_the_peer_closed(upstream: ScriptedUpstream, kavenegar: Kavenegar) -> None:
    """Either the close was seen and a new connection carries the text, or nobody knows: never a second hand-off."""
    assert isinstance(await kavenegar.send(hand_off(key=1)), Accepted)
    upstream.drop_connections()
    outcome = await kavenegar.send(hand_off(key=2))
    assert isinstance(outcome, Accepted | Ambiguous)
    assert len([request for request in upstream.requests if request.form["localid"] == "2"]) <= 1


async def test_nobody_listens(upstream: ScriptedUpstream, kavenegar: Kavenegar) -> None:
    """A refused connection is certainly not processed, and a look-up over it tells nothing."""
    await upstream.close()
    outcome = await kavenegar.send(hand_off())
    assert isinstance(outcome, Unavailable)
    assert outcome.failure.provider_code == "NO_CONNECTION"
    assert await kavenegar.look_up(sought(KEY)) == [NoAnswer()]


def test_the_preview_masks_the_key(kavenegar: Kavenegar, upstream: ScriptedUpstream) -> None:
    """All of the request but the key."""
    preview = kavenegar.preview(hand_off(sender="3000"))
    assert preview.startswith(f"POST {upstream.base_url}/v1/•••/sms/send.json\n")
    assert "receptor=09120000111" in preview
    assert f"message={TEXT}" in preview
    assert "canary/key" not in preview
    assert "canary%2Fkey" not in preview


async def test_nothing_secret_is_logged(
    upstream: ScriptedUpstream,
    kavenegar: Kavenegar,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """With every logger at DEBUG and every fault in turn: no key, no text, no number, no URL."""
    caplog.set_level(logging.DEBUG)
    for reply, _ in BAD_ANSWERS.values():
        upstream.script(reply)
        await kavenegar.send(hand_off())
    await kavenegar.send(hand_off())
    await kavenegar.statuses(["1"])
    await kavenegar.look_up(sought(KEY))
    await upstream.close()
    await kavenegar.send(hand_off())
    out, err = capfd.readouterr()
    told = "\n".join([caplog.text, *(str(record.args) for record in caplog.records), out, err])
    assert "no answer" in told
    assert "127.0.0.1" in told
    for secret in (API_KEY, "canary", "0123456789", "9120000111", "/v1/", PHONE):
        assert secret not in told
