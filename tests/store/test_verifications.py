"""Sending codes: limits are exact, one code is live, and it goes out as often as it may."""

import asyncio
import re
from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy import Connection, event

from server.model.clock import DAY, HOUR, SECOND
from server.model.enums import Channel, MessageClass
from server.model.errors import Exhausted, Reason
from server.model.facts import Settled
from server.model.otp import Checked, CheckResult
from server.model.outcomes import Accepted
from server.model.work import Acceptance, Beside, SandboxCopy
from server.store.store import Store
from tests.store.codes import (
    PHONE,
    WAITING,
    check,
    checked,
    claimed,
    code_in,
    code_letter,
    held_before,
    pass_time,
    refusal,
    resent,
    sent,
    tally,
    tally_of_sends,
    the_row,
    wrong,
)
from tests.store.conftest import OpenAt, OpenStore
from tests.store.letters import TENANTS, accept_all, change, letter, rows, started, until

DEADLOCKS = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
LIMITED = "SELECT kind FROM limit_bucket WHERE hits <> '[]' ORDER BY kind"


async def test_a_code_goes_out_and_is_stored_nowhere(store: Store) -> None:
    """The message expires with its verification; its code is in no column of any table, sealed or not."""
    accepted = await sent(store)
    message = accepted.message
    code = await code_in(store, accepted)
    assert len(code) == 6
    assert code.isdecimal()
    assert await the_row(store, "id, expires_at, generation, length, sends, attempts, attempts_max") == (
        message.verification_id,
        message.expires_at,
        1,
        6,
        1,
        0,
        5,
    )
    assert message.expires_at - message.created_at == 300 * SECOND
    kept = [await rows(store, f"SELECT * FROM {table}") for table in ("message", "verification", "limit_bucket")]
    assert code not in repr(kept)
    assert PHONE not in repr(kept)
    assert (await store.verify(check(code, message.verification_id))).result == CheckResult.VERIFIED


async def test_a_further_send_says_the_same_code_and_keeps_its_time(store: Store) -> None:
    """Another message, the same verification, code and end; whatever the second call asks for."""
    first = await sent(store)
    code = await code_in(store, first)
    second = await resent(store, ttl=600 * SECOND, length=9)
    assert second.message.id != first.message.id
    assert second.message.verification_id == first.message.verification_id
    assert await code_in(store, second) == code
    (expires_at, sends) = await the_row(store, "expires_at, sends")
    assert (second.message.expires_at, sends) == (expires_at, 2)


async def test_another_code_of_the_callers_replaces_it_and_gives_no_attempt_back(store: Store) -> None:
    """The old code is wrong from then on, the new one right; what was spent stays spent, and so does the time."""
    first = await sent(store, token="a1b2c3")
    id_ = first.message.verification_id
    assert (await store.verify(check("zzzzzz", id_))).attempts_left == 4
    second = await resent(store, token="d4e5f6")
    assert second.message.verification_id == id_
    assert (await store.verify(check("a1b2c3", id_))) == Checked(CheckResult.WRONG_CODE, 3, id_)
    third = await resent(store, token="d4e5f6")
    assert await the_row(store, "generation, length, sends, attempts") == (2, 0, 3, 2)
    assert await code_in(store, third) == "d4e5f6"
    assert (await store.verify(check("d4e5f6", id_))).result == CheckResult.VERIFIED


@pytest.mark.parametrize("ended", ["verified", "exhausted", "expired"])
async def test_after_a_verification_that_is_over_comes_a_new_one(store: Store, ended: str) -> None:
    """With a code of its own; the old one's code is no more."""
    first = await sent(store)
    code, id_ = await code_in(store, first), first.message.verification_id
    if ended == "verified":
        await store.verify(check(code, id_))
    elif ended == "exhausted":
        for _ in range(5):
            await store.verify(check(wrong(code), id_))
    else:
        await pass_time(store, 301)
    second = await resent(store)
    assert second.message.verification_id != id_
    assert await rows(store, "SELECT COUNT(*) FROM verification WHERE is_live") == [(1,)]
    result = {"verified": CheckResult.USED, "exhausted": CheckResult.EXHAUSTED, "expired": CheckResult.EXPIRED}[ended]
    assert (await store.verify(check(code, id_))).result == result
    by_address = check(await code_in(store, second), destination=PHONE, intent="OTP")
    assert (await store.verify(by_address)).verification_id == second.message.verification_id


async def test_intents_and_tenants_have_verifications_of_their_own(store: Store) -> None:
    """The same number: another intent's code is another, another tenant's limits are its own."""
    first = await sent(store)
    assert (await refusal(store, code_letter(intent="PAY"))).reason == Reason.OTP_COOLDOWN
    other = await resent(store, intent="PAY")
    foreign = await sent(store, tenant=TENANTS[1])
    ids = {one.message.verification_id for one in (first, other, foreign)}
    assert len(ids) == 3
    code = await code_in(store, other)
    assert (await store.verify(check(code, destination=PHONE, intent="PAY"))).verified_at
    assert (await store.verify(check(code, destination=PHONE, intent="OTP"))).result == CheckResult.WRONG_CODE


async def test_a_refused_call_leaves_its_key_free_and_its_neighbours_alone(store: Store) -> None:
    """In one flush the first send passes, the second is refused, and others are accepted; its key may come again."""
    await change(store, "DELETE FROM idempotency")
    news = [letter(), code_letter(request_id="a"), code_letter(request_id="b"), letter(request_id="c")]
    first, second, third, fourth = await accept_all(store, news)
    assert isinstance(third, Exhausted)
    assert third.reason == Reason.OTP_COOLDOWN
    assert 29 < third.retry_after_seconds <= 30
    assert [one.replayed for one in (first, second, fourth)] == [False] * 3
    assert sorted(await rows(store, "SELECT request_id FROM idempotency")) == [("a",), ("c",)]
    assert await rows(store, f"SELECT COUNT(*) FROM message WHERE id = '{news[2].message.id}'") == [(0,)]
    assert not (await resent(store, request_id="b")).replayed


async def test_a_repeat_is_answered_again_and_counts_once(store: Store) -> None:
    """The same key within the cooldown: the first message, its verification and times; no limit is asked."""
    first = await sent(store, request_id="r")
    answers = await accept_all(store, [code_letter(request_id="r") for _ in range(20)])
    assert {(one.message.id, one.message.verification_id, one.replayed) for one in answers} == {
        (first.message.id, first.message.verification_id, True)
    }
    assert {(one.message.created_at, one.message.expires_at) for one in answers} == {
        (first.message.created_at, first.message.expires_at)
    }
    assert await the_row(store, "sends") == (1,)


async def test_repeats_that_come_with_a_refused_call_are_refused_with_it(store: Store) -> None:
    """The same call twice in one flush is one call, also when it is refused."""
    await sent(store)
    answers = await accept_all(store, [code_letter(request_id="r"), code_letter(request_id="r")])
    assert [answer.reason for answer in answers] == [Reason.OTP_COOLDOWN] * 2


async def test_each_limit_is_kept(store: Store) -> None:
    """3 in 10 minutes, 10 a day, of an end user 10 an hour, of a prefix 20 in 10 minutes: with their names."""
    for number in range(10):
        await pass_time(store, 601 if number and number % 3 == 0 else 31)
        await sent(store, ttl=30 * SECOND)
        if number == 2:
            await pass_time(store, 31)
            assert (await refusal(store, code_letter())).metadata == {"limit": "destination"}
    await pass_time(store, 700)
    day = await refusal(store, code_letter())
    assert day.metadata == {"limit": "destination"}
    assert day.retry_after_seconds > HOUR / SECOND
    await change(store, "DELETE FROM limit_bucket")
    for kind in ("end_user_ip", "end_user_device"):
        numbers = [f"+98913{kind == 'end_user_ip':d}{number}00000" for number in range(10, 20)]
        answers = await accept_all(store, [code_letter(number, **{kind: "x"}) for number in numbers])
        assert all(isinstance(answer, Acceptance) for answer in answers)
        assert (await refusal(store, code_letter("+989121111111", **{kind: "x"}))).metadata == {"limit": "end_user"}
    answers = await accept_all(store, [code_letter(f"+9891444400{number}") for number in range(10, 40)])
    assert tally_of_sends(answers) == {"sent": 20, "prefix": 10}


async def test_a_verification_has_five_sends(store: Store) -> None:
    """The sixth is refused until the verification is over, though the windows have room."""
    await sent(store, ttl=600 * SECOND)
    for _ in range(4):
        await resent(store)
        await change(store, "UPDATE limit_bucket SET hits = '[]'")
    refused = await refusal(store, code_letter())
    assert refused.metadata == {"limit": "verification"}
    assert 400 < refused.retry_after_seconds < 600 - 4 * 31


async def test_a_prefix_that_nobody_verifies_is_blocked_and_doubly_the_second_time(store: Store) -> None:
    """20 sends without a verified code: an hour, and after 20 more two. One verified in ten keeps it open."""
    block: list[int] = []
    for turn in range(2):
        numbers = [f"+98912555{turn}{number}0" for number in range(10, 30)]
        assert tally_of_sends(await accept_all(store, [code_letter(n) for n in numbers])) == {"sent": 20}
        await pass_time(store, 601)
        refused = await refusal(store, code_letter("+989125559999"))
        assert refused.metadata == {"limit": "prefix"}
        block.append(round(refused.retry_after_seconds))
        await pass_time(store, block[-1])
    assert block == [3600, 7200]
    numbers = [f"+98912777{number}00" for number in range(10, 30)]
    sends = await accept_all(store, [code_letter(number) for number in numbers])
    for one in sends[:2]:
        await change(store, f"UPDATE verification SET verified_at = 1 WHERE id = '{one.message.verification_id}'")
    await pass_time(store, 601)
    assert isinstance(await store.accept(code_letter("+989127779999")), Acceptance)


async def test_of_a_magic_recipient_only_the_cooldown_is_counted(store: Store) -> None:
    """Twelve sends, each 30 s after the last; nothing is counted of its prefix or its end user."""
    for _ in range(12):
        await resent(store, cooldown_alone=True, end_user_ip="192.0.2.7", ttl=600 * SECOND)
    assert (await refusal(store, code_letter(cooldown_alone=True))).reason == Reason.OTP_COOLDOWN
    assert await rows(store, LIMITED) == [("DESTINATION",)]


async def test_sends_of_one_address_over_two_stores_are_counted_exactly(store: Store, another: OpenStore) -> None:
    """Whoever comes first: one code, one live verification, and of all windows not one send too many."""
    second = await another() if store.engine_name == "postgres" else store
    for turn in range(3):
        news = [code_letter(request_id=f"{turn}-{number}") for number in range(40)]
        halves = await asyncio.gather(accept_all(store, news[::2]), accept_all(second, news[1::2]))
        # With the third one the window of 10 minutes is full, too, and lasts longer than the cooldown.
        refused = "OTP_COOLDOWN" if turn < 2 else "destination"
        assert tally_of_sends([*halves[0], *halves[1]]) == {"sent": 1, refused: 39}
        await pass_time(store, 31)
    halves = await asyncio.gather(accept_all(store, [code_letter()]), accept_all(second, [code_letter()]))
    assert tally_of_sends([*halves[0], *halves[1]]) == {"destination": 2}
    assert await the_row(store, "is_live, sends") == (True, 3)


async def test_sends_of_a_prefix_over_two_stores_are_counted_exactly(store: Store, another: OpenStore) -> None:
    """Other numbers, one prefix, in opposite orders: 20 of 60 pass, and nobody deadlocks."""
    second = await another() if store.engine_name == "postgres" else store
    numbers = [f"+98912888{number}00" for number in range(10, 70)]
    news = [code_letter(number, end_user_ip=f"192.0.2.{n % 7}") for n, number in enumerate(numbers)]
    halves = await asyncio.gather(accept_all(store, news[::2]), accept_all(second, news[:0:-2]))
    assert tally_of_sends([*halves[0], *halves[1]])["sent"] == 20


async def test_a_send_waits_for_one_that_is_being_judged_elsewhere(
    on_postgres: Store, postgres_url: str, open_at: OpenAt
) -> None:
    """The twentieth of a prefix has been judged and not yet counted: another process waits before it judges its own."""
    second = await open_at(postgres_url)
    numbers = [f"+98912999{number}00" for number in range(10, 31)]
    await accept_all(on_postgres, [code_letter(number) for number in numbers[:19]])
    async with held_before(on_postgres, "UPDATE limit_bucket") as reached:
        twentieth = asyncio.create_task(on_postgres.accept(code_letter(numbers[19])))
        await until(reached.is_set)
        late = asyncio.create_task(second.accept(code_letter(numbers[20])))

        async def judged() -> bool:
            return late.done() or bool(await rows(second, WAITING))

        await until(judged)
    answers = await asyncio.gather(twentieth, late, return_exceptions=True)
    assert tally_of_sends(answers) == {"sent": 1, "prefix": 1}


async def test_sends_and_checks_beside_each_other_never_deadlock(
    on_postgres: Store, postgres_url: str, open_at: OpenAt
) -> None:
    """Two processes at the same thirty addresses, in opposite orders, with checks between: each code verifies once."""
    second = await open_at(postgres_url)
    phones = [f"+989120{number}0000" for number in range(100, 130)]
    accepted = await accept_all(on_postgres, [code_letter(phone, token="right1") for phone in phones])
    ids = [one.message.verification_id for one in accepted]
    came: list[Checked] = []
    for typed in ("wrong1", "wrong2", "right1"):
        await pass_time(on_postgres, 31)
        checks = [check(typed, id_) for id_ in ids]
        *sends, ours, theirs = await asyncio.gather(
            accept_all(on_postgres, [code_letter(phone, token="right1") for phone in phones]),
            accept_all(second, [code_letter(phone, token="right1") for phone in reversed(phones)]),
            checked([on_postgres], checks),
            checked([second], checks[::-1]),
        )
        assert all(isinstance(one, Acceptance | Exhausted) for some in sends for one in some)
        came += [*ours, *theirs]
    assert tally(came) == {"WRONG_CODE": 120, "VERIFIED": 30, "USED": 30}
    assert {one.verification_id for one in came if one.result == CheckResult.VERIFIED} == set(ids)
    assert await rows(on_postgres, DEADLOCKS) == [(0,)]


async def test_a_code_is_erased_as_soon_as_its_message_is_done(store: Store) -> None:
    """Body and address of a code that verified go with the next sweep; one that still waits keeps them."""
    accepted = await sent(store, token="s3cret99")
    waiting = await store.accept(letter(message_class=MessageClass.OTP))
    await store.verify(check("s3cret99", accepted.message.verification_id))
    await prune(store)
    assert await kept(store) == {(accepted.message.id, True, 0), (waiting.message.id, False, 1)}


async def test_what_a_sandbox_shows_of_a_code_stays_for_a_day(store: Store) -> None:
    """The outbox is how its codes are read, also after they were verified; the body goes together with it."""
    accepted = await sent(store, token="s3cret99")
    claim = await claimed(store, accepted)
    copy = SandboxCopy(1, Channel.SMS, "first", PHONE, "Shop", "Your code is s3cret99.")
    await store.apply(accepted.message.id, started(claim))
    await store.apply(accepted.message.id, Settled(claim.hold, 1, Accepted("p-1")), Beside(copy))
    answer = await store.verify(check("s3cret99", accepted.message.verification_id))
    await prune(store)
    copies = "SELECT COUNT(*) FROM sandbox_message"
    assert await kept(store) == {(accepted.message.id, False, 1)}
    assert await rows(store, copies) == [(1,)]
    await prune(store, answer.verified_at + DAY + HOUR)
    assert await kept(store) == {(accepted.message.id, True, 0)}
    assert await rows(store, copies) == [(0,)]


async def prune(store: Store, now: int | None = None) -> None:
    while await store.prune(now):
        pass


async def kept(store: Store) -> set[tuple[str, bool, int]]:
    """The messages, whether they are erased, and whether they have a body."""
    found = await rows(store, "SELECT id, erased, LENGTH(body) FROM message")
    return {(id_, bool(erased), min(length, 1)) for id_, erased, length in found}


async def test_what_is_old_is_forgotten(store: Store) -> None:
    """A verification a day after its end, a bucket after two days, the key of a check after seven."""
    accepted = await sent(store)
    code, id_ = await code_in(store, accepted), accepted.message.verification_id
    await store.verify(check(code, id_, request_id="r"))
    end = accepted.message.expires_at
    counts = (
        "SELECT COUNT(*) FROM verification",
        "SELECT COUNT(*) FROM limit_bucket",
        "SELECT COUNT(*) FROM idempotency",
    )
    seen: list[tuple[int, ...]] = []
    for now in (end + DAY, end + DAY + 1, end + 2 * DAY - HOUR, end + 2 * DAY, end + 7 * DAY - HOUR, end + 7 * DAY):
        await store.prune(now)
        seen.append(tuple([(await rows(store, count))[0][0] for count in counts]))
    assert seen == [(1, 4, 1), (0, 4, 1), (0, 4, 1), (0, 0, 1), (0, 0, 1), (0, 0, 0)]


async def test_nothing_is_looked_for_in_a_whole_table(on_sqlite: Store) -> None:
    """Whatever a flush of codes and a batch of checks read or change, they find it by an index."""
    run: list[tuple[str, Any]] = []

    def note(_c: object, _cursor: object, statement: str, parameters: Any, _context: object, many: Any) -> None:
        if statement.startswith(("SELECT", "UPDATE", "DELETE", "WITH")):
            run.append((statement, parameters[0] if many else parameters))

    numbers = [f"+98912333{number}00" for number in range(10, 30)]
    for turn in ("a", "b", "b"):
        await pass_time(on_sqlite, 601)
        event.listen(on_sqlite._database._writer_engine, "before_cursor_execute", note)
        letters = [code_letter(n, request_id=turn + n, token=f"code{turn}") for n in (*numbers, numbers[0])]
        answers = await accept_all(on_sqlite, letters)
        ids = [one.message.verification_id for one in answers if isinstance(one, Acceptance)]
        checks = [check("codea", id_, request_id=turn + id_) for id_ in ids]
        checks += [check("codea", request_id=turn + n, destination=n, intent="OTP") for n in numbers[:3]]
        await checked([on_sqlite], checks)
        event.remove(on_sqlite._database._writer_engine, "before_cursor_execute", note)
    plans = await on_sqlite._database.read(lambda connection: plans_of(connection, run))
    tables = {table for statement, _ in run for table in re.findall(r"(?:FROM|UPDATE|JOIN) (\w+)", statement)}
    assert {"verification", "limit_bucket", "idempotency", "message"} <= tables
    assert [plan for plan in plans if re.match(r"SCAN (verification|limit_|idempotency|message|v\b)", plan)] == []


def plans_of(connection: Connection, run: Sequence[tuple[str, Any]]) -> list[str]:
    """How SQLite goes about these statements."""
    return [
        row[3]
        for statement, parameters in run
        for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
    ]
