"""Twilio's conformance suite: what its real adapter makes of every answer, over a real socket."""

import base64
import json
import logging

import pytest

from server.model.clock import HOUR, SECOND, Micros
from server.model.enums import Channel
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
)
from server.providers.transport import Transport
from server.providers.twilio import Twilio
from tests.providers.conftest import KEY, PHONE, TEXT, hand_off, kind, provider_code, sought
from tests.providers.twilio_upstream import (
    ACCOUNT_SID,
    CONTENT_SID,
    KEY_SID,
    NUMBER,
    SERVICE_SID,
    TOKEN,
    TwilioUpstream,
    created,
    refusal,
    sid,
    twilio_at,
)
from tests.scripted_upstream import Break, Raw, Reply, Say, Silence

REQUEST = (Rejected, Refusal.REQUEST)
CONTENT = (Rejected, Refusal.CONTENT)
RECIPIENT = (Rejected, Refusal.RECIPIENT)
CREDENTIALS = (Misconfigured, Fault.CREDENTIALS)
SENDER = (Misconfigured, Fault.SENDER)
LIMITED = (RateLimited, None)
DOUBT = (Ambiguous, None)


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


async def test_a_text_is_handed_over_as_documented(twilio_upstream: TwilioUpstream, twilio: Twilio) -> None:
    """To whom in E.164, from the account's number, the text in UTF-8, its life in seconds; nothing that nobody set."""
    assert await twilio.send(hand_off()) == Accepted(sid("SM", 1))
    [request] = twilio_upstream.requests
    assert (request.method, request.path) == ("POST", f"/2010-04-01/Accounts/{ACCOUNT_SID}/Messages.json")
    assert request.form == {"To": PHONE, "From": NUMBER, "Body": TEXT, "ValidityPeriod": "60"}
    assert request.headers["content-type"] == "application/x-www-form-urlencoded; charset=utf-8"
    assert request.headers["authorization"] == basic(ACCOUNT_SID, TOKEN)


async def test_an_api_key_calls_in_place_of_the_token(twilio_upstream: TwilioUpstream, transport: Transport) -> None:
    """With its secret; the account stays in the path. Without its secret the token is used."""
    for secrets, expected in (
        ({"api_key_secret": "canary-secret"}, basic(KEY_SID, "canary-secret")),
        ({}, basic(ACCOUNT_SID, TOKEN)),
    ):
        account = twilio_at(twilio_upstream.base_url, {"from": NUMBER, "api_key_sid": KEY_SID}, secrets)
        assert isinstance(await Twilio(account, transport).send(hand_off()), Accepted)
        assert twilio_upstream.requests[-1].headers["authorization"] == expected
        assert ACCOUNT_SID in twilio_upstream.requests[-1].path


@pytest.mark.parametrize(
    ("own", "settings", "sent"),
    [
        ("", {"from": NUMBER}, {"From": NUMBER}),
        ("", {"messaging_service_sid": SERVICE_SID}, {"MessagingServiceSid": SERVICE_SID}),
        ("", {"from": NUMBER, "messaging_service_sid": SERVICE_SID}, {"MessagingServiceSid": SERVICE_SID}),
        ("Angarium", {"from": NUMBER, "messaging_service_sid": SERVICE_SID}, {"From": "Angarium"}),
        (SERVICE_SID, {"from": NUMBER}, {"MessagingServiceSid": SERVICE_SID}),
    ],
)
async def test_the_sender(
    twilio_upstream: TwilioUpstream, transport: Transport, own: str, settings: dict[str, str], sent: dict[str, str]
) -> None:
    """The message's own goes before the account's service, and that before its number."""
    await Twilio(twilio_at(twilio_upstream.base_url, settings), transport).send(hand_off(sender=own))
    form = twilio_upstream.requests[0].form
    assert {name: form[name] for name in ("From", "MessagingServiceSid") if name in form} == sent


@pytest.mark.parametrize(
    ("left", "sent"),
    [(0, "1"), (SECOND // 2, "1"), (90 * SECOND + 1, "90"), (10 * HOUR, "36000"), (48 * HOUR, "36000")],
)
async def test_the_life_that_is_left(twilio_upstream: TwilioUpstream, twilio: Twilio, left: Micros, sent: str) -> None:
    """In whole seconds, within what Twilio takes."""
    await twilio.send(hand_off(valid_micros=left))
    assert twilio_upstream.requests[0].form["ValidityPeriod"] == sent


async def test_a_template_of_twilio(twilio_upstream: TwilioUpstream, twilio: Twilio) -> None:
    """Its SID and its variables as one JSON object go in place of a text, which may be empty then."""
    params = {"1": "123456", "name": "سلام"}
    assert isinstance(await twilio.send(hand_off(text="", template=CONTENT_SID, params=params)), Accepted)
    form = twilio_upstream.requests[0].form
    assert (form["ContentSid"], json.loads(form["ContentVariables"])) == (CONTENT_SID, params)
    assert "Body" not in form


async def test_a_template_that_is_none_of_twilios(twilio_upstream: TwilioUpstream, twilio: Twilio) -> None:
    """A name that is no content SID: the template is at fault, and no call is made."""
    outcome = await twilio.send(hand_off(template="otp-fa"))
    assert kind(outcome) == (Misconfigured, Fault.TEMPLATE)
    assert twilio_upstream.connections == 0


async def test_receipts_are_asked_for_where_there_is_a_place(twilio_upstream: TwilioUpstream, twilio: Twilio) -> None:
    """At the very URL of this hand-off; of a call, its end alone."""
    url = "https://gateway.example.com/hooks/twilio/abc?x=1"
    await twilio.send(hand_off(report_to=url))
    await twilio.send(hand_off(report_to=url, channel=Channel.VOICE))
    text, call = (request.form for request in twilio_upstream.requests)
    assert (text["StatusCallback"], call["StatusCallback"]) == (url, url)
    assert (text.get("StatusCallbackEvent"), call["StatusCallbackEvent"]) == (None, "completed")


async def test_a_call_says_it_twice(twilio_upstream: TwilioUpstream, twilio: Twilio) -> None:
    """In the language that was named, with what XML would read as its own escaped and what it can not hold left out."""
    outcome = await twilio.send(
        hand_off(text='Code <1, 2> & "3"\x00', channel=Channel.VOICE, locale="en-GB", sender="+15005550009")
    )
    assert outcome == Accepted(sid("CA", 1))
    [request] = twilio_upstream.requests
    said = '<Say language="en-GB">Code &lt;1, 2&gt; &amp; "3" </Say>'
    assert request.path == f"/2010-04-01/Accounts/{ACCOUNT_SID}/Calls.json"
    assert request.form == {
        "To": PHONE,
        "From": "+15005550009",
        "Twiml": f'<Response>{said}<Pause length="1"/>{said}</Response>',
    }
    await twilio.send(hand_off(text="1, 2", channel=Channel.VOICE, sender=SERVICE_SID))
    assert twilio_upstream.requests[1].form["From"] == NUMBER
    assert "<Say>1, 2</Say>" in twilio_upstream.requests[1].form["Twiml"]


async def test_a_call_that_cannot_be_made_is_not(twilio_upstream: TwilioUpstream, transport: Transport) -> None:
    """Without a number to call from, by a template, with nothing to say, or with more than 4,000 characters of it."""
    service_only = Twilio(twilio_at(twilio_upstream.base_url, {"messaging_service_sid": SERVICE_SID}), transport)
    assert kind(await service_only.send(hand_off(channel=Channel.VOICE))) == SENDER
    twilio = Twilio(twilio_at(twilio_upstream.base_url), transport)
    assert kind(await twilio.send(hand_off(channel=Channel.VOICE, template=CONTENT_SID))) == CONTENT
    assert kind(await twilio.send(hand_off(channel=Channel.VOICE, text=""))) == CONTENT
    assert kind(await twilio.send(hand_off(channel=Channel.VOICE, text="&" * 400))) == CONTENT
    assert twilio_upstream.connections == 0
    assert isinstance(await twilio.send(hand_off(channel=Channel.VOICE, text="&" * 390)), Accepted)


@pytest.mark.parametrize("text", ["", "x" * 1601])
async def test_a_text_that_cannot_go_is_not_sent(twilio_upstream: TwilioUpstream, twilio: Twilio, text: str) -> None:
    """Empty and over 1,600 characters: refused for its content, with no call made; 1,600 go."""
    assert kind(await twilio.send(hand_off(text=text))) == CONTENT
    assert twilio_upstream.connections == 0
    assert isinstance(await twilio.send(hand_off(text="x" * 1600)), Accepted)


@pytest.mark.parametrize(
    ("reply", "pause"),
    [
        (refusal(20429, 429, {"Retry-After": "7"}), 7 * SECOND),
        (refusal(20429, 429), 0),
        (refusal(99999, 429, {"Retry-After": "7"}), 7 * SECOND),
        (Say(429, b"<html>", {"Retry-After": "7"}), 7 * SECOND),
        (refusal(21611), 0),
    ],
)
async def test_a_pause_that_is_asked_for_is_told(
    twilio_upstream: TwilioUpstream, twilio: Twilio, reply: Say, pause: Micros
) -> None:
    """429 is certainly not processed, whatever its body says; Retry-After arrives in microseconds."""
    twilio_upstream.script(reply)
    outcome = await twilio.send(hand_off())
    assert isinstance(outcome, RateLimited)
    assert outcome.retry_after == pause


ID = sid("SM", 7)
HTML = b"<html><body>Bad Gateway</body></html>"
SUCCESS = created(ID, PHONE).body
ANSWERS: dict[str, tuple[Reply, tuple[type, Refusal | Fault | None]]] = {
    "mms": (created(sid("MM", 7), PHONE), (Accepted, None)),
    "another recipient": (created(ID, "+989120000999"), DOUBT),
    "no recipient": (created(ID, None), DOUBT),
    "no id": (created(None, PHONE), DOUBT),
    "id of a call": (created(sid("CA", 7), PHONE), DOUBT),
    "id too short": (created(ID[:-1], PHONE), DOUBT),
    "id is a number": (created(7, PHONE), DOUBT),
    "200 is no 201": (Say(200, SUCCESS), DOUBT),
    "202 is no 201": (Say(202, SUCCESS), DOUBT),
    "a code with 201": (Say(201, b'{"code":21211}'), DOUBT),
    "a code with 200": (Say(200, b'{"code":21211}'), DOUBT),
    "unknown code": (refusal(21999), DOUBT),
    "unknown code with 422": (refusal(21999, 422), DOUBT),
    "unknown code with 401": (refusal(29999, 401), CREDENTIALS),
    "code in words": (refusal("21211"), RECIPIENT),
    "code is true": (refusal(True), REQUEST),
    "newer error body": (
        Say(400, b'{"type":"x","title":"y","status":400,"code":21211,"errors":[{"detail":"z"}]}'),
        RECIPIENT,
    ),
    "unavailable with a pause": (refusal(20503, 503, {"Retry-After": "3"}), (Unavailable, None)),
    "html with 201": (Say(201, HTML), DOUBT),
    "empty with 201": (Say(201, b""), DOUBT),
    "a list": (Say(201, b"[1]"), DOUBT),
    "not utf-8": (Say(201, b"\xff\xfe\x00"), DOUBT),
    "truncated json": (Say(201, SUCCESS[:-15]), DOUBT),
    "deep json": (Say(201, b"[" * 60_000), DOUBT),
    "oversize that would be a success": (Say(201, SUCCESS + b" " * 70_000), DOUBT),
    "not http": (Raw(b"SSH-2.0-OpenSSH_9.2\r\n"), DOUBT),
    "shorter than promised": (Say(201, SUCCESS, length=len(SUCCESS) + 10), DOUBT),
    "redirect": (Say(302, b"", {"Location": "http://169.254.169.254/latest"}), DOUBT),
    "400 in html": (Say(400, HTML), REQUEST),
    "401 in html": (Say(401, HTML), CREDENTIALS),
    "402 in html": (Say(402, HTML), (Misconfigured, Fault.FUNDS)),
    "403 in html": (Say(403, HTML), CREDENTIALS),
    "404 in html": (Say(404, HTML), CREDENTIALS),
    "409 in html": (Say(409, HTML), DOUBT),
    "500": (Say(500, HTML), DOUBT),
    "502": (Say(502, HTML), DOUBT),
    "503": (Say(503, HTML), DOUBT),
    "503 with a pause": (Say(503, HTML, {"Retry-After": "3"}), (Unavailable, None)),
    "504": (Say(504, HTML), DOUBT),
    "disconnect before reading": (Break.BEFORE_READING, DOUBT),
    "disconnect after the whole request": (Break.AFTER_REQUEST, DOUBT),
    "disconnect in the headers": (Break.MID_HEADERS, DOUBT),
    "disconnect in the body": (Break.MID_BODY, DOUBT),
}


@pytest.mark.parametrize("name", ANSWERS)
async def test_answers(twilio_upstream: TwilioUpstream, twilio: Twilio, name: str) -> None:
    """Only a 201 with an id and our recipient is a success; what may have been taken is Ambiguous."""
    reply, expected = ANSWERS[name]
    twilio_upstream.script(reply)
    assert kind(await twilio.send(hand_off())) == expected


@pytest.mark.parametrize("name", ANSWERS)
async def test_answers_elsewhere(twilio_upstream: TwilioUpstream, twilio: Twilio, name: str) -> None:
    """The same answers to the other calls tell nothing, and raise nothing."""
    twilio_upstream.always(ANSWERS[name][0] if ANSWERS[name][0] is not Break.BEFORE_READING else Break.AFTER_REQUEST)
    assert await twilio.statuses([sid("SM", 9)]) == []
    assert await twilio.look_up(sought(KEY)) == [NoAnswer()]
    assert (await twilio.check()).balance == ""


async def test_no_answer_in_time_is_ambiguous(twilio_upstream: TwilioUpstream, twilio: Twilio) -> None:
    """The total timeout after the request was read: nobody knows, and nothing is sent again."""
    twilio_upstream.script(Silence())
    outcome = await twilio.send(hand_off(timeout_seconds=0.4))
    assert isinstance(outcome, Ambiguous)
    assert provider_code(outcome) == "NO_ANSWER_IN_TIME"
    assert len(twilio_upstream.requests) == 1


async def test_nobody_listens(twilio_upstream: TwilioUpstream, twilio: Twilio) -> None:
    """A refused connection is certainly not processed."""
    await twilio_upstream.close()
    outcome = await twilio.send(hand_off())
    assert isinstance(outcome, Unavailable)
    assert provider_code(outcome) == "NO_CONNECTION"


def test_the_preview_masks_what_is_secret(twilio: Twilio, twilio_upstream: TwilioUpstream) -> None:
    """All of the request but the credentials and the URL for receipts."""
    preview = twilio.preview(hand_off(report_to="https://gateway.example.com/canary"))
    assert preview.startswith(f"POST {twilio_upstream.base_url}/2010-04-01/Accounts/{ACCOUNT_SID}/Messages.json\n")
    assert "Authorization: Basic •••" in preview
    assert "StatusCallback=•••" in preview
    assert f"Body={TEXT}" in preview
    assert TOKEN not in preview
    assert "gateway.example.com" not in preview
    assert "/Calls.json\n" in twilio.preview(hand_off(channel=Channel.VOICE))


async def test_nothing_secret_is_logged(
    twilio_upstream: TwilioUpstream, twilio: Twilio, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """With every logger at DEBUG and every fault in turn: no token, no text, no number, no URL."""
    caplog.set_level(logging.DEBUG)
    for reply, _ in ANSWERS.values():
        twilio_upstream.script(reply)
        await twilio.send(hand_off())
    await twilio.statuses([ID])
    await twilio.look_up(sought(KEY))
    await twilio_upstream.close()
    await twilio.send(hand_off())
    out, err = capfd.readouterr()
    told = "\n".join([caplog.text, *(str(record.args) for record in caplog.records), out, err])
    assert "no answer" in told
    for secret in (TOKEN, "canary", "9120000111", "/2010-04-01/", basic(ACCOUNT_SID, TOKEN)[6:]):
        assert secret not in told
