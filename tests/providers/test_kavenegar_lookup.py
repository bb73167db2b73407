"""Kavenegar's templates and calls: what is asked for, and what is refused before anything is asked."""

import json
from collections.abc import Mapping

import pytest

from server.model.accounts import HandOff
from server.model.enums import Channel
from server.model.outcomes import (
    Accepted,
    Ambiguous,
    Fault,
    Found,
    Misconfigured,
    NeverRegistered,
    NoAnswer,
    Outcome,
    Refusal,
    Rejected,
    Unavailable,
)
from server.providers.kavenegar import Kavenegar
from server.providers.transport import Transport
from tests.providers.conftest import KEY, TEXT, account_at, hand_off, kind, provider_code, sought
from tests.scripted_upstream import Break, Say, ScriptedUpstream, Silence, envelope

LOOKUP = "/v1/canary%2Fkey%200123456789/verify/lookup.json"
MAKETTS = "/v1/canary%2Fkey%200123456789/call/maketts.json"
CONTENT = (Rejected, Refusal.CONTENT)
TAKEN = envelope(200, [{"messageid": 7, "receptor": "09120000111", "status": 5}])


def by_template(params: Mapping[str, str], channel: Channel = Channel.SMS) -> HandOff:
    return hand_off(text="", template="otp-fa", params=params, channel=channel, sender="3000")


async def test_a_template_is_handed_over_as_documented(upstream: ScriptedUpstream, kavenegar: Kavenegar) -> None:
    """The template's name and its parameters in Kavenegar's words: no text, no line and no number of ours."""
    upstream.script(TAKEN)
    params = {"token": "123456", "token2": "a_b", "token3": "c", "token10": "علی رضا", "token20": "a b c d e f g h i"}
    assert await kavenegar.send(by_template(params)) == Accepted("7")
    [request] = upstream.requests
    assert (request.method, request.path) == ("POST", LOOKUP)
    assert request.form == {"receptor": "09120000111", "template": "otp-fa", **params}


async def test_a_template_may_be_spoken(upstream: ScriptedUpstream, kavenegar: Kavenegar) -> None:
    """As a call, digits only; anything else can not be read out, and is not sent."""
    upstream.script(TAKEN)
    assert await kavenegar.send(by_template({"token": "123456"}, Channel.VOICE)) == Accepted("7")
    assert upstream.requests[0].form["type"] == "call"
    for token in ("12a4", "۱۲۳۴", "1-2"):
        outcome = await kavenegar.send(by_template({"token": token}, Channel.VOICE))
        assert (kind(outcome), provider_code(outcome)) == (CONTENT, "TOKEN")
    assert len(upstream.requests) == 1


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({}, "TOKEN"),
        ({"token2": "1"}, "TOKEN"),
        ({"token": ""}, "TOKEN"),
        ({"token": "1 2"}, "TOKEN"),
        ({"token": "1\n2"}, "TOKEN"),
        ({"token": "1_2"}, "TOKEN"),
        ({"token": "1\u200c2"}, "TOKEN"),
        ({"token": "1\u00a02"}, "TOKEN"),
        ({"token": "1\u20282"}, "TOKEN"),
        ({"token": "x" * 101}, "TOKEN"),
        ({"token": "1", "token2": "a b"}, "TOKEN2"),
        ({"token": "1", "token3": "a\tb"}, "TOKEN3"),
        ({"token": "1", "token3": ""}, "TOKEN3"),
        ({"token": "1", "token10": "a b c d e f g"}, "TOKEN10"),
        ({"token": "1", "token20": "a b c d e f g h i j"}, "TOKEN20"),
        ({"token": "1", "token20": "x" * 101}, "TOKEN20"),
        ({"token": "1", "token4": "x"}, "PARAMS"),
        ({"token": "1", "code": "x"}, "PARAMS"),
        ({"token": "1", "receptor": "09120000999"}, "PARAMS"),
    ],
)
async def test_parameters_that_would_be_refused_are_not_sent(
    upstream: ScriptedUpstream, kavenegar: Kavenegar, params: dict[str, str], code: str
) -> None:
    """Kavenegar's own rules, and names that it does not know: refused for the content, with no call made."""
    outcome = await kavenegar.send(by_template(params))
    assert (kind(outcome), provider_code(outcome)) == (CONTENT, code)
    assert upstream.connections == 0


@pytest.mark.parametrize(
    "params",
    [
        {"token": "x" * 100},
        {"token": "abc-12.3"},
        {"token": "1", "token10": "a b c d e f"},
        {"token": "1", "token20": "a b c d e f g h i"},
    ],
)
async def test_parameters_at_their_limits_go(
    upstream: ScriptedUpstream, kavenegar: Kavenegar, params: dict[str, str]
) -> None:
    """A hundred characters, five spaces, eight spaces."""
    upstream.script(TAKEN)
    assert await kavenegar.send(by_template(params)) == Accepted("7")


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (envelope(200, {"messageid": 7, "receptor": "09120000111"}), (Accepted, None)),
        (envelope(200, [{"messageid": 7, "receptor": "09120000999"}]), (Rejected, Refusal.REQUEST)),
        (envelope(200, []), (Ambiguous, None)),
        (envelope(409), (Unavailable, None)),
        (envelope(424), (Misconfigured, Fault.TEMPLATE)),
        (envelope(426), (Misconfigured, Fault.TEMPLATE)),
        (envelope(428), CONTENT),
        (envelope(431), CONTENT),
        (envelope(432), (Misconfigured, Fault.TEMPLATE)),
        (Say(500, b"<html>"), (Ambiguous, None)),
        (Break.AFTER_REQUEST, (Ambiguous, None)),
        (Silence(), (Ambiguous, None)),
    ],
)
@pytest.mark.parametrize("channel", [Channel.SMS, Channel.VOICE])
async def test_answers(
    upstream: ScriptedUpstream, kavenegar: Kavenegar, reply: Say, expected: tuple[type, object], channel: Channel
) -> None:
    """As those to a text, whether it is by a template, spoken, or both."""
    upstream.script(reply, reply)
    by_name = hand_off(template="otp", params={"token": "12"}, channel=channel, timeout_seconds=0.4)
    spoken = hand_off(text="1, 2", channel=Channel.VOICE, timeout_seconds=0.4)
    for one in (by_name, spoken):
        outcome: Outcome = await kavenegar.send(one)
        assert kind(outcome) == expected


async def test_a_call_is_handed_over_as_documented(upstream: ScriptedUpstream, transport: Transport) -> None:
    """What is to be said, with our number; never a line."""
    upstream.script(TAKEN)
    kavenegar = Kavenegar(account_at(upstream.base_url, sender="2000"), transport)
    assert await kavenegar.send(hand_off(text="1, 2, 3", channel=Channel.VOICE, sender="3000")) == Accepted("7")
    [request] = upstream.requests
    assert (request.method, request.path) == ("POST", MAKETTS)
    assert request.form == {"receptor": "09120000111", "message": "1, 2, 3", "localid": str(KEY)}
    for text in ("", "x" * 901):
        assert kind(await kavenegar.send(hand_off(text=text, channel=Channel.VOICE))) == CONTENT
    assert len(upstream.requests) == 1


async def test_that_a_call_is_not_known_proves_nothing(upstream: ScriptedUpstream, kavenegar: Kavenegar) -> None:
    """Found is found; of a call "never registered" is no answer, beside a text of which it is one."""
    both = [*sought(1, channel=Channel.VOICE), *sought(2)]
    assert await kavenegar.look_up(both) == [NoAnswer(), NeverRegistered()]
    upstream.script(envelope(200, [{"localid": "1", "messageid": 9, "status": 10}]))
    assert await kavenegar.look_up(both) == [Found("9"), NoAnswer()]


@pytest.mark.parametrize("channel", [Channel.SMS, Channel.VOICE])
def test_what_can_be_learned(kavenegar: Kavenegar, channel: Channel) -> None:
    """Statuses for 48 h; by our number, for 12 h, but not where a template leaves no place for it."""
    plain, templated = (kavenegar.follow(channel, templated=by_name) for by_name in (False, True))
    assert (plain.polls, plain.looks_up, plain.pushes) == (True, True, False)
    assert (templated.polls, templated.looks_up, templated.pushes) == (True, False, False)
    assert (plain.keeps_seconds, plain.looks_up_seconds) == (48 * 3600, 12 * 3600)


def test_nothing_that_is_posted_is_believed(kavenegar: Kavenegar) -> None:
    """No push of Kavenegar's proves where it comes from."""
    body = json.dumps({"messageid": 7, "status": 10}).encode()
    assert kavenegar.reports("https://gateway.example.com/hooks/x", {}, body) is None
    assert kavenegar.reports("https://gateway.example.com/hooks/x?messageid=7&status=10", {}, b"") is None


def test_the_preview_names_the_method(kavenegar: Kavenegar, upstream: ScriptedUpstream) -> None:
    """The key is masked whatever is called."""
    shown = kavenegar.preview(by_template({"token": "123456"}))
    assert shown.startswith(f"POST {upstream.base_url}/v1/•••/verify/lookup.json\n")
    assert "token=123456" in shown
    spoken = kavenegar.preview(hand_off(channel=Channel.VOICE))
    assert spoken.startswith(f"POST {upstream.base_url}/v1/•••/call/maketts.json\n")
    assert f"message={TEXT}" in spoken
