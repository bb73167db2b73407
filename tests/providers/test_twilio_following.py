"""What Twilio tells when it is asked: statuses, look-ups of lost answers, and the check of an account."""

import json
import time
from collections.abc import Mapping
from dataclasses import replace

import pytest

from server.model.accounts import Sought
from server.model.clock import DAY, SECOND, Micros
from server.model.enums import Channel, FailureReason, ReceiptKind
from server.model.messages import Follow
from server.model.outcomes import (
    Accepted,
    Ambiguous,
    Fault,
    Found,
    Misconfigured,
    NoAnswer,
    Receipt,
    Unavailable,
)
from server.providers.twilio import CALLS_AT_ONCE, Twilio
from server.providers.twilio_codes import CALL_STATUSES, MESSAGE_STATUSES
from tests.providers.conftest import KEY, PHONE, TEXT, hand_off, sought
from tests.providers.twilio_upstream import ACCOUNT_SID, STARTED, TwilioUpstream, refusal, sid
from tests.scripted_upstream import Break, Recorded, Say, Silence

FIRST = sid("SM", 1)
MIDNIGHT: Micros = STARTED // DAY * DAY + DAY


@pytest.mark.parametrize("status", sorted(MESSAGE_STATUSES))
async def test_statuses_of_texts(twilio_upstream: TwilioUpstream, twilio: Twilio, status: str) -> None:
    """Each word as in a receipt; texts of both kinds of ids are fetched as messages."""
    for name in (FIRST, sid("MM", 2)):
        twilio_upstream.tell(name, status)
        assert await twilio.statuses([name]) == [(name, MESSAGE_STATUSES[status])]
        assert twilio_upstream.requests[-1].path == f"/2010-04-01/Accounts/{ACCOUNT_SID}/Messages/{name}.json"
        assert twilio_upstream.requests[-1].method == "GET"


@pytest.mark.parametrize("status", sorted(CALL_STATUSES))
async def test_statuses_of_calls(twilio_upstream: TwilioUpstream, twilio: Twilio, status: str) -> None:
    """Calls are fetched as calls."""
    name = sid("CA", 1)
    twilio_upstream.tell(name, status)
    assert await twilio.statuses([name]) == [(name, CALL_STATUSES[status])]
    assert twilio_upstream.requests[-1].path == f"/2010-04-01/Accounts/{ACCOUNT_SID}/Calls/{name}.json"


async def test_an_error_code_says_why(twilio_upstream: TwilioUpstream, twilio: Twilio) -> None:
    """That of the message that was fetched."""
    twilio_upstream.tell(FIRST, "undelivered", 30005)
    [(_, receipt)] = await twilio.statuses([FIRST])
    assert receipt.kind == ReceiptKind.UNDELIVERED
    assert receipt.failure is not None
    assert (receipt.failure.reason, receipt.failure.provider_code) == (FailureReason.RECIPIENT_INVALID, "30005")


async def test_what_is_no_id_is_not_asked_for(twilio_upstream: TwilioUpstream, twilio: Twilio) -> None:
    """Ids of another provider, paths, and ids of other things."""
    assert await twilio.statuses(["8000000001", "../Balance", FIRST + "/x", sid("AC", 1), ""]) == []
    assert await twilio.statuses([]) == []
    assert twilio_upstream.connections == 0


async def test_an_answer_of_another_message_tells_nothing(twilio_upstream: TwilioUpstream, twilio: Twilio) -> None:
    """Only the id in the question counts; an unknown status and an unknown message tell nothing either."""
    twilio_upstream.script(Say(200, json.dumps({"sid": sid("SM", 2), "status": "delivered"}).encode()))
    assert await twilio.statuses([FIRST]) == []
    twilio_upstream.tell(FIRST, "new-word")
    assert await twilio.statuses([FIRST, sid("SM", 3)]) == []
    assert len(twilio_upstream.requests) == 3


async def test_many_are_asked_for_side_by_side(twilio_upstream: TwilioUpstream, twilio: Twilio) -> None:
    """A few at a time; one that fails costs no other its answer."""
    names = [sid("SM", n) for n in range(30)]
    for name in names:
        twilio_upstream.tell(name, "delivered")

    def slowly(request: Recorded) -> Say:
        lame = request.path.endswith(f"{names[7]}.json")
        return refusal(20500, 500) if lame else replace(twilio_upstream.honest(request), delay_seconds=0.02)

    twilio_upstream.always(slowly)
    told = dict(await twilio.statuses(names))
    assert set(told) == set(names) - {names[7]}
    assert len(twilio_upstream.requests) == 30
    assert 1 < twilio_upstream.connections <= CALLS_AT_ONCE


async def test_too_many_requests_end_the_question(twilio_upstream: TwilioUpstream, twilio: Twilio) -> None:
    """What is asked already is answered; nothing more is asked, for sends share the account's limit."""
    names = [sid("SM", n) for n in range(100)]
    for name in names:
        twilio_upstream.tell(name, "delivered")
    twilio_upstream.script(refusal(20429, 429))
    told = await twilio.statuses(names)
    assert len(told) == len(twilio_upstream.requests) - 1 < 2 * CALLS_AT_ONCE
    assert len(await twilio.statuses(names)) == 100


async def test_what_is_told_in_time_is_kept(twilio_upstream: TwilioUpstream, twilio: Twilio) -> None:
    """Half of the messages never get an answer: the others' are told all the same, within two seconds."""
    names = [sid("SM", n) for n in range(8)]
    for name in names:
        twilio_upstream.tell(name, "delivered")
    mute = {f"{name}.json" for name in names[::2]}
    twilio_upstream.always(
        lambda request: Silence() if request.path.split("/")[-1] in mute else twilio_upstream.honest(request)
    )
    started = time.monotonic()
    told = dict(await twilio.statuses(names))
    assert set(told) == set(names[1::2])
    assert time.monotonic() - started < 2


@pytest.mark.parametrize("channel", [Channel.SMS, Channel.VOICE])
async def test_a_lost_answer_is_found(twilio_upstream: TwilioUpstream, twilio: Twilio, channel: Channel) -> None:
    """By number and day, then by its text and the time it was made at; of a call the text is not asked."""
    twilio_upstream.script(lambda request: (twilio_upstream.honest(request), Break.AFTER_REQUEST)[1])
    assert isinstance(await twilio.send(hand_off(channel=channel)), Ambiguous)
    name, day = (sid("CA", 1), "StartTime") if channel == Channel.VOICE else (FIRST, "DateSent")
    assert await twilio.look_up(sought(KEY, channel=channel)) == [Found(name)]
    form = twilio_upstream.requests[-1].form
    assert form == {"To": PHONE, day: "2023-11-14", "PageSize": "32"}


async def test_what_was_not_taken_is_not_known(twilio_upstream: TwilioUpstream, twilio: Twilio) -> None:
    """An empty list is no proof: the message may be listed in a moment."""
    assert await twilio.look_up(sought(KEY)) == [NoAnswer()]
    assert await twilio.look_up([]) == []
    assert len(twilio_upstream.requests) == 1


OTHERS: dict[str, dict[str, object]] = {
    "another text": {"body": TEXT + " "},
    "another direction": {"direction": "inbound"},
    "an answer to a text": {"direction": "outbound-reply"},
    "another number": {"to": "+989120000999"},
    "no time": {"date_created": None},
    "junk for a time": {"date_created": "yesterday"},
    "a number for a time": {"date_created": 1_700_000_000},
    "before it": {"date_created": "Tue, 14 Nov 2023 22:13:17 +0000"},
    "after it": {"date_created": "Tue, 14 Nov 2023 22:13:31 +0000"},
    "junk for an id": {"sid": "../SM1"},
    "an id of a call": {"sid": sid("CA", 1)},
    "no id": {"sid": None},
}


def listed(*entries: Mapping[str, object], **more: object) -> Say:
    return Say(200, json.dumps({"messages": entries, "next_page_uri": None, **more}).encode())


@pytest.mark.parametrize("name", OTHERS)
async def test_what_is_listed_beside_it_is_not_it(twilio_upstream: TwilioUpstream, twilio: Twilio, name: str) -> None:
    """An entry that differs in one thing is passed over; beside it the right one is found."""
    right = twilio_upstream.entry(FIRST, PHONE, STARTED + SECOND, body=TEXT)
    other = twilio_upstream.entry(sid("SM", 2), PHONE, STARTED + SECOND, body=TEXT) | OTHERS[name]
    twilio_upstream.script(listed(other), listed(other, right))
    assert await twilio.look_up(sought(KEY)) == [NoAnswer()]
    assert await twilio.look_up(sought(KEY)) == [Found(FIRST)]


@pytest.mark.parametrize("date", ["Tue, 14 Nov 2023 22:13:18 +0000", "Tue, 14 Nov 2023 23:13:30 +0100"])
async def test_clocks_may_differ_by_two_seconds(twilio_upstream: TwilioUpstream, twilio: Twilio, date: str) -> None:
    """Before it was handed off, and after its deadline; in any time zone."""
    twilio_upstream.script(listed(twilio_upstream.entry(FIRST, PHONE, STARTED, body=TEXT, date_created=date)))
    assert await twilio.look_up(sought(KEY)) == [Found(FIRST)]


async def test_what_could_be_two_is_neither(twilio_upstream: TwilioUpstream, twilio: Twilio) -> None:
    """Two entries for one that is sought, or one entry for two: nobody knows which.

    Two attempts of one message are two, though they bear one key.
    """
    one, two = (twilio_upstream.entry(sid("SM", n), PHONE, STARTED + SECOND, body=TEXT) for n in (1, 2))
    twilio_upstream.script(listed(one, two), listed(one), listed(one), listed(one))
    assert await twilio.look_up(sought(KEY)) == [NoAnswer()]
    assert await twilio.look_up(sought(KEY, 77)) == [NoAnswer(), NoAnswer()]
    assert await twilio.look_up(sought(KEY, KEY)) == [NoAnswer(), NoAnswer()]
    assert await twilio.look_up(sought(KEY) + sought(77, text="another")) == [Found(FIRST), NoAnswer()]


async def test_two_attempts_of_one_message_are_told_apart_by_their_times(
    twilio_upstream: TwilioUpstream, twilio: Twilio
) -> None:
    """They bear one key: each is told of its own entry, in the order in which they were asked for."""
    first, second = STARTED + SECOND, STARTED + 30 * SECOND
    entries = [twilio_upstream.entry(sid("SM", n), PHONE, at, body=TEXT) for n, at in enumerate((first, second), 1)]
    wanted = [*sought(KEY, started_at=second), *sought(KEY, started_at=STARTED)]
    twilio_upstream.script(listed(*entries), listed(entries[0]))
    assert await twilio.look_up(wanted) == [Found(sid("SM", 2)), Found(FIRST)]
    assert await twilio.look_up(wanted) == [NoAnswer(), Found(FIRST)]


async def test_what_could_be_one_that_is_in_doubt_is_not_found_for_another(
    twilio_upstream: TwilioUpstream, twilio: Twilio
) -> None:
    """Of two entries the early one fits both attempts, the late one the second alone: neither attempt is told."""
    both, late = STARTED + 9 * SECOND, STARTED + 14 * SECOND
    entries = [twilio_upstream.entry(sid("SM", n), PHONE, at, body=TEXT) for n, at in enumerate((both, late), 1)]
    twilio_upstream.script(listed(*entries), listed(*entries))
    attempts = [*sought(KEY, started_at=STARTED), *sought(KEY, started_at=STARTED + 8 * SECOND)]
    assert await twilio.look_up(attempts[:1]) == [Found(FIRST)]
    assert await twilio.look_up(attempts) == [NoAnswer(), NoAnswer()]


async def test_a_list_that_goes_on_tells_nothing(twilio_upstream: TwilioUpstream, twilio: Twilio) -> None:
    """What stands on the next page could be it as well."""
    right = twilio_upstream.entry(FIRST, PHONE, STARTED + SECOND, body=TEXT)
    twilio_upstream.script(listed(right, next_page_uri="/2010-04-01/next"))
    assert await twilio.look_up(sought(KEY)) == [NoAnswer()]


async def test_around_midnight_two_days_are_asked_for(twilio_upstream: TwilioUpstream, twilio: Twilio) -> None:
    """Both must answer; what stands in both lists is one."""
    late = sought(KEY, started_at=MIDNIGHT - SECOND)
    right = twilio_upstream.entry(FIRST, PHONE, MIDNIGHT, body=TEXT)
    twilio_upstream.script(listed(right), listed(right))
    assert await twilio.look_up(late) == [Found(FIRST)]
    assert {request.form["DateSent"] for request in twilio_upstream.requests} == {"2023-11-14", "2023-11-15"}
    twilio_upstream.script(listed(right), refusal(20500, 500))
    assert await twilio.look_up(late) == [NoAnswer()]


async def test_one_number_is_asked_for_once(twilio_upstream: TwilioUpstream, twilio: Twilio) -> None:
    """Several that are sought at one number share its list."""
    for n, text in enumerate(("a", "b"), 1):
        twilio_upstream.records[sid("SM", n)] = twilio_upstream.entry(sid("SM", n), PHONE, STARTED, body=text)
    wanted: list[Sought] = [*sought(1, text="a"), *sought(2, text="b"), *sought(3, text="c")]
    found = await twilio.look_up(wanted)
    assert found == [Found(sid("SM", 1)), Found(sid("SM", 2)), NoAnswer()]
    assert len(twilio_upstream.requests) == 1


async def test_nobody_listens(twilio_upstream: TwilioUpstream, twilio: Twilio) -> None:
    """No call tells anything, and none raises."""
    await twilio_upstream.close()
    assert await twilio.statuses([FIRST]) == []
    assert await twilio.look_up(sought(KEY)) == [NoAnswer()]
    assert isinstance((await twilio.check()).outcome, Unavailable)


async def test_the_check(twilio_upstream: TwilioUpstream, twilio: Twilio) -> None:
    """The balance with its currency; wrong credentials are the account's fault."""
    check = await twilio.check()
    assert (check.outcome, check.balance) == (Accepted(""), "12.34 USD")
    assert [(r.method, r.path.split("/")[-1]) for r in twilio_upstream.requests] == [("GET", "Balance.json")]
    twilio_upstream.script(refusal(20003, 401))
    outcome = (await twilio.check()).outcome
    assert isinstance(outcome, Misconfigured)
    assert outcome.fault == Fault.CREDENTIALS


def test_what_can_be_learned(twilio: Twilio) -> None:
    """Everything but a look-up of a template's text; for as long as one asks."""
    told = {(c, t): twilio.follow(c, templated=t) for c in (Channel.SMS, Channel.VOICE) for t in (False, True)}
    for (_, templated), follow in told.items():
        assert follow == Follow(polls=True, looks_up=not templated, pushes=True)


def test_a_receipt_on_its_way_has_no_reason() -> None:
    """Only what was not delivered has one, and always."""
    for receipt in (*MESSAGE_STATUSES.values(), *CALL_STATUSES.values()):
        assert (receipt.failure is not None) == (receipt.kind == ReceiptKind.UNDELIVERED)
    assert MESSAGE_STATUSES["queued"] == Receipt(ReceiptKind.OTHER)
