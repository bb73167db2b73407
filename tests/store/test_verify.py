"""Checking codes: each verifies once, in so many attempts, until the database's clock says no more."""

import asyncio

import pytest

from server.model.clock import SECOND
from server.model.enums import DueKind, MessageClass, State, Stop
from server.model.errors import AlreadyExists, Exhausted, Reason
from server.model.facts import Settled
from server.model.otp import Checked, CheckResult
from server.model.outcomes import Accepted
from server.store.store import Store
from tests.store.codes import (
    PHONE,
    WAITING,
    check,
    checked,
    claimed,
    code_in,
    held_before,
    pass_time,
    resent,
    sent,
    tally,
    the_row,
    wrong,
)
from tests.store.conftest import OpenAt, OpenStore
from tests.store.letters import TENANTS, change, rows, started, until


async def test_a_short_code_of_the_callers_has_three_attempts(store: Store) -> None:
    """The third wrong one is the last, and then the right one comes too late."""
    id_ = (await sent(store, token="1234")).message.verification_id
    answers = [await store.verify(check(code, id_)) for code in ("4321", "4321", "4321", "1234")]
    assert [(one.result, one.attempts_left) for one in answers] == [
        (CheckResult.WRONG_CODE, 2),
        (CheckResult.WRONG_CODE, 1),
        (CheckResult.WRONG_CODE, 0),
        (CheckResult.EXHAUSTED, 0),
    ]


async def test_of_200_checks_at_once_one_verifies(store: Store, another: OpenStore) -> None:
    """Right and wrong ones mixed, over two stores on Postgres: one success, and never an attempt too many."""
    second = await another() if store.engine_name == "postgres" else store
    for turn, pattern in enumerate(("WR", "R", "WWR", "WWWWR")):
        accepted = await sent(store, phone=f"+98912000{turn}000")
        code, id_ = await code_in(store, accepted), accepted.message.verification_id
        typed = [code if pattern[number // 2 % len(pattern)] == "R" else wrong(code) for number in range(200)]
        answers = await checked([store, second], [check(one, id_) for one in typed])
        came = tally(answers)
        assert came["VERIFIED"] + came["WRONG_CODE"] + came["USED"] + came["EXHAUSTED"] == 10
        assert came["checks"] == 190
        spent = await rows(store, f"SELECT attempts, verified_at > 0 FROM verification WHERE id = '{id_}'")
        assert spent == [(came["VERIFIED"] + came["WRONG_CODE"], came["VERIFIED"] == 1)]
        assert came["VERIFIED"] <= 1
        assert came["VERIFIED"] + came["WRONG_CODE"] <= 5
        if pattern != "WWWWR":
            assert came["VERIFIED"] == 1


async def test_of_many_wrong_checks_five_are_judged(store: Store, another: OpenStore) -> None:
    """However many come at once, and from wherever; then not even the right one passes."""
    second = await another() if store.engine_name == "postgres" else store
    accepted = await sent(store)
    code, id_ = await code_in(store, accepted), accepted.message.verification_id
    answers = await checked([store, second], [check(wrong(code, 1 + n % 9), id_) for n in range(10)])
    assert tally(answers) == {"WRONG_CODE": 5, "EXHAUSTED": 5}
    assert sorted(one.attempts_left for one in answers if one.result == CheckResult.WRONG_CODE) == [0, 1, 2, 3, 4]
    await pass_time(store, 61)
    assert (await store.verify(check(code, id_))).result == CheckResult.EXHAUSTED


async def test_a_lost_answer_is_given_again_and_costs_nothing(store: Store, another: OpenStore) -> None:
    """The same key, verification and code, at once or later, wherever: the first answer. Of a wrong code too."""
    second = await another() if store.engine_name == "postgres" else store
    accepted = await sent(store)
    code, id_ = await code_in(store, accepted), accepted.message.verification_id
    miss = check(wrong(code), id_, request_id="miss")
    answers = await checked([store, second], [miss] * 6)
    assert {(one.result, one.attempts_left) for one in answers} == {(CheckResult.WRONG_CODE, 4)}
    assert sorted(one.replayed for one in answers) == [False] + [True] * 5
    hit = await store.verify(check(code, id_, request_id="hit"))
    again = await second.verify(check(code, id_, request_id="hit"))
    assert (again.result, again.verified_at, again.replayed) == (CheckResult.VERIFIED, hit.verified_at, True)
    late = await store.verify(miss)
    assert (late.result, late.attempts_left, late.replayed) == (CheckResult.WRONG_CODE, 4, True)
    assert await the_row(store, "attempts") == (2,)


@pytest.mark.parametrize("together", [True, False])
async def test_another_check_under_the_same_key_is_refused(store: Store, *, together: bool) -> None:
    """A key is one check's; it is told so, and no attempt is spent."""
    accepted = await sent(store)
    code, id_ = await code_in(store, accepted), accepted.message.verification_id
    pair = [check(wrong(code), id_, request_id="r"), check(code, id_, request_id="r")]
    turns = [pair] if together else [pair[:1], pair[1:]]
    first, second = [answer for turn in turns for answer in await checked([store], turn)]
    assert first.result == CheckResult.WRONG_CODE
    assert isinstance(second, AlreadyExists)
    assert second.reason == Reason.REQUEST_ID_REUSED
    assert await the_row(store, "attempts, verified_at") == (1, 0)


async def test_the_key_of_a_refused_check_is_free(store: Store) -> None:
    """Ten checks of an address in a minute, of whatever intent; who was told to wait and comes again is judged then."""
    accepted = await sent(store)
    code, id_ = await code_in(store, accepted), accepted.message.verification_id
    for _ in range(10):
        assert (await store.verify(check("000000", destination=PHONE, intent="ELSE"))).result == CheckResult.UNKNOWN
    with pytest.raises(Exhausted) as refused:
        await store.verify(check(code, id_, request_id="r"))
    assert 0 < refused.value.retry_after_seconds <= 60
    assert await rows(store, "SELECT request_id FROM idempotency") == []
    await pass_time(store, 61)
    answer = await store.verify(check(code, id_, request_id="r"))
    assert (answer.result, answer.replayed) == (CheckResult.VERIFIED, False)


async def test_what_is_unknown_and_what_is_anothers_is_the_same(store: Store) -> None:
    """An id that nobody has, another tenant's id, an address that nothing went to; and the other one is untouched."""
    accepted = await sent(store, tenant=TENANTS[1])
    code = await code_in(store, accepted)
    asked = [
        check(code, "0190a0a0-0000-7000-8000-000000000000"),
        check(code, accepted.message.verification_id),
        check(code, destination=PHONE, intent="OTP"),
        check(code, "' OR 1 = 1 --"),
    ]
    assert await checked([store], asked) == [Checked(CheckResult.UNKNOWN)] * 4
    assert await the_row(store, "attempts, verified_at") == (0, 0)


async def test_the_time_is_the_databases(store: Store) -> None:
    """A moment before its end the code verifies, at its end no more, whatever this process thinks of the time."""
    for left, result in ((5 * SECOND, CheckResult.VERIFIED), (0, CheckResult.EXPIRED)):
        await change(store, "DELETE FROM limit_bucket")
        accepted = await sent(store)
        code, id_ = await code_in(store, accepted), accepted.message.verification_id
        now = await store._database.read(store._database.now)
        await change(store, f"UPDATE verification SET expires_at = {now + left} WHERE id = '{id_}'")
        assert (await store.verify(check(code, id_))).result == result


async def test_a_verified_code_ends_its_messages_in_the_same_transaction(store: Store) -> None:
    """One was taken by a provider, one waits: both are done, state and events together, before the answer comes."""
    first = await sent(store)
    claim = await claimed(store, first)
    await store.apply(first.message.id, started(claim))
    await store.apply(first.message.id, Settled(claim.hold, 1, Accepted("p-1")))
    second = await resent(store)
    code = await code_in(store, second)
    answer = await store.verify(check(code, first.message.verification_id))
    assert answer.result == CheckResult.VERIFIED
    told = await rows(
        store,
        "SELECT m.id, m.state, m.done, m.stop, e.state, e.done FROM message AS m "
        "JOIN event AS e ON e.message_id = m.id AND e.seq = m.last_seq ORDER BY m.id",
    )
    ended = (True, Stop.VERIFIED.value)
    assert told == sorted(
        [
            (first.message.id, State.DELIVERED, *ended, State.DELIVERED, True),
            (second.message.id, State.CANCELED, *ended, State.CANCELED, True),
        ]
    )
    assert await store.claim(MessageClass.OTP, frozenset(DueKind), 10) == []


async def test_a_code_that_goes_out_again_while_it_is_verified_is_ended_too(
    on_postgres: Store, postgres_url: str, open_at: OpenAt
) -> None:
    """Another process is writing one more message of the verification: the check waits for it, and ends both."""
    second = await open_at(postgres_url)
    first = await sent(on_postgres)
    code, id_ = await code_in(on_postgres, first), first.message.verification_id
    await pass_time(on_postgres, 31)
    async with held_before(second, "INSERT INTO message ") as reached:
        sending = asyncio.create_task(sent(second))
        await until(reached.is_set)
        checking = asyncio.create_task(on_postgres.verify(check(code, id_)))

        async def checked_or_waiting() -> bool:
            return checking.done() or bool(await rows(second, WAITING))

        await until(checked_or_waiting)
    assert (await checking).result == CheckResult.VERIFIED
    assert (await sending).message.verification_id == id_
    assert await rows(second, "SELECT done, stop FROM message") == [(True, Stop.VERIFIED.value)] * 2


async def test_where_its_messages_can_not_be_ended_a_code_does_not_verify(store: Store) -> None:
    """Both or neither: a fault in writing the events takes the success back, and the code is good for the next try."""
    accepted = await sent(store)
    code, id_ = await code_in(store, accepted), accepted.message.verification_id
    await change(store, f"UPDATE event SET seq = 2 WHERE message_id = '{accepted.message.id}'")
    with pytest.raises(Exception, match=r"(?i)unique"):
        await store.verify(check(code, id_, request_id="r"))
    assert await the_row(store, "attempts, verified_at, is_live") == (0, 0, True)
    assert await rows(store, "SELECT request_id FROM idempotency") == []
    await change(store, f"UPDATE event SET seq = 1 WHERE message_id = '{accepted.message.id}'")
    assert (await store.verify(check(code, id_, request_id="r"))).result == CheckResult.VERIFIED
