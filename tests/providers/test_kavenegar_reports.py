"""What Kavenegar reports, and what is made of it: statuses, look-ups and the check of an account."""

import pytest

from server.model.enums import FailureReason, ReceiptKind
from server.model.failures import Failure
from server.model.outcomes import (
    Accepted,
    Ambiguous,
    Fault,
    Found,
    Misconfigured,
    NeverRegistered,
    NoAnswer,
    Receipt,
    Unavailable,
)
from server.providers.kavenegar import Kavenegar
from tests.providers.conftest import KEY, hand_off, sought
from tests.scripted_upstream import Break, Say, ScriptedUpstream, envelope

OTHER = Receipt(ReceiptKind.OTHER)
REASONS = {
    6: FailureReason.PROVIDER_UNAVAILABLE,
    11: FailureReason.RECIPIENT_UNREACHABLE,
    13: FailureReason.PROVIDER_UNAVAILABLE,
    14: FailureReason.RECIPIENT_BLOCKED,
}


@pytest.mark.parametrize("code", [1, 2, 4, 5, 6, 10, 11, 13, 14, 50, 100, 777])
async def test_documented_statuses(upstream: ScriptedUpstream, kavenegar: Kavenegar, code: int) -> None:
    """One is delivered, four are not for a reason, four are on their way; 100 and unknown ones tell nothing."""
    upstream.report("1", code)
    reports = await kavenegar.statuses(["1"])
    if code in REASONS:
        [(name, receipt)] = reports
        assert (name, receipt.kind) == ("1", ReceiptKind.UNDELIVERED)
        assert isinstance(receipt.failure, Failure)
        assert (receipt.failure.reason, receipt.failure.provider_code) == (REASONS[code], str(code))
    else:
        known = {1: OTHER, 2: OTHER, 4: OTHER, 5: OTHER, 10: Receipt(ReceiptKind.DELIVERED)}
        assert reports == ([("1", known[code])] if code in known else [])


async def test_several_reports_of_one_message_keep_their_order(
    upstream: ScriptedUpstream, kavenegar: Kavenegar
) -> None:
    """As told, also when an older report comes later."""
    upstream.report("1", 10, 4)
    assert [receipt.kind for _, receipt in await kavenegar.statuses(["1"])] == [
        ReceiptKind.DELIVERED,
        ReceiptKind.OTHER,
    ]


async def test_statuses_are_asked_for_500_at_a_time(upstream: ScriptedUpstream, kavenegar: Kavenegar) -> None:
    """1,201 ids make three calls; when one of them fails, the others are told all the same."""
    ids = [str(n) for n in range(1, 1202)]
    for name in ids:
        upstream.report(name, 10)
    upstream.script(upstream.honest, envelope(409))
    reports = await kavenegar.statuses(ids)
    assert [len(call.form["messageid"].split(",")) for call in upstream.calls("sms/status")] == [500, 500, 201]
    assert [name for name, _ in reports] == ids[:500] + ids[1000:]
    assert await kavenegar.statuses([]) == []


async def test_reports_of_messages_nobody_asked_about_are_dropped(
    upstream: ScriptedUpstream, kavenegar: Kavenegar
) -> None:
    """An answer may only speak of the ids in the question."""
    upstream.script(envelope(200, [{"messageid": 2, "status": 10}, {"messageid": 1, "status": "10"}]))
    assert await kavenegar.statuses(["1"]) == [("1", Receipt(ReceiptKind.DELIVERED))]


async def test_a_look_up_finds_what_was_taken(upstream: ScriptedUpstream, kavenegar: Kavenegar) -> None:
    """After a lost answer: found under its id; a key that never came: never registered."""
    upstream.script(lambda request: (upstream.honest(request), Break.AFTER_REQUEST)[1])
    assert isinstance(await kavenegar.send(hand_off()), Ambiguous)
    assert await kavenegar.look_up(sought(KEY, 77)) == [Found("8000000001"), NeverRegistered()]


async def test_look_ups_are_made_500_at_a_time(upstream: ScriptedUpstream, kavenegar: Kavenegar) -> None:
    """Every one has an answer: what the failed second call was to tell is NoAnswer."""
    keys = list(range(1, 1002))
    upstream.script(upstream.honest, Say(500, b"<html>"))
    results = await kavenegar.look_up(sought(*keys))
    assert [type(told) for told in results] == [NeverRegistered] * 500 + [NoAnswer] * 500 + [NeverRegistered]


async def test_two_attempts_of_one_message_are_asked_for_once(upstream: ScriptedUpstream, kavenegar: Kavenegar) -> None:
    """They bear one number of ours: each is told what is known of it."""
    assert isinstance(await kavenegar.send(hand_off()), Accepted)
    found = Found("8000000001")
    assert await kavenegar.look_up(sought(KEY, 77, KEY)) == [found, NeverRegistered(), found]
    assert upstream.requests[-1].form["localid"] == f"{KEY},77"


@pytest.mark.parametrize(
    "entry",
    [
        {},
        {"localid": str(KEY)},
        {"localid": str(KEY), "status": "?"},
        {"localid": str(KEY), "status": 10},
        {"localid": "x"},
        {"localid": "1", "status": 100},
    ],
)
async def test_a_look_up_that_says_nothing_clear_says_nothing(
    upstream: ScriptedUpstream, kavenegar: Kavenegar, entry: dict[str, object]
) -> None:
    """Only status 100 for this very key means that it was never registered."""
    upstream.script(envelope(200, [entry]))
    assert await kavenegar.look_up(sought(KEY)) == [NoAnswer()]


async def test_the_check_tells_the_credit(upstream: ScriptedUpstream, kavenegar: Kavenegar) -> None:
    """account/info, in rial; nothing is sent."""
    check = await kavenegar.check()
    assert (check.outcome, check.balance) == (Accepted(""), "123456 IRR")
    assert [request.call for request in upstream.requests] == ["account/info"]


async def test_the_check_tells_what_is_wrong(upstream: ScriptedUpstream, kavenegar: Kavenegar) -> None:
    """A wrong key is Misconfigured, an upstream that is down Unavailable."""
    upstream.script(envelope(403))
    outcome = (await kavenegar.check()).outcome
    assert isinstance(outcome, Misconfigured)
    assert outcome.fault == Fault.CREDENTIALS
    await upstream.close()
    assert isinstance((await kavenegar.check()).outcome, Unavailable)
