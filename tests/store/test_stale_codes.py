"""A code that verifies no more is sent no more: its messages end in the transaction that ended it."""

import asyncio

import pytest

from server.model.enums import DueKind, FailureReason, MessageClass, State, Stop
from server.model.facts import Settled
from server.model.failures import Failure
from server.model.otp import CheckResult
from server.model.outcomes import Accepted, Unavailable
from server.model.work import Acceptance
from server.store.store import Store
from tests.store.codes import (
    WAITING,
    check,
    checked,
    claimed,
    code_in,
    code_letter,
    held_before,
    pass_time,
    resent,
    sent,
    wrong,
)
from tests.store.conftest import OpenAt
from tests.store.letters import accept_all, change, rows, started, until

OWN = "s3cret99"
DEADLOCKS = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
AWAY = Unavailable(Failure(FailureReason.PROVIDER_UNAVAILABLE, "away"))
TOLD = (
    "SELECT m.state, m.done, m.stop, e.state, e.done FROM message AS m "
    "JOIN event AS e ON e.message_id = m.id AND e.seq = m.last_seq ORDER BY m.id"
)
ENDED = (State.CANCELED.value, True, Stop.CANCELED.value, State.CANCELED.value, True)
WAITS = (State.ACCEPTED.value, False, None, State.ACCEPTED.value, False)


async def told(store: Store) -> list[tuple[object, ...]]:
    """The messages in the order in which they came, each with its latest event."""
    return [(state, bool(done), stop, said, bool(over)) for state, done, stop, said, over in await rows(store, TOLD)]


async def test_a_replaced_code_is_not_sent(store: Store) -> None:
    """What waited with it ends; what says the new one waits, and so do another intent's and another address's."""
    await sent(store, token=OWN)
    await sent(store, phone="+989120000556", token=OWN)
    await resent(store, intent="PAY", token=OWN)
    newest = await resent(store, token="other777")
    assert await told(store) == [ENDED, WAITS, WAITS, WAITS]
    assert await code_in(store, newest) == "other777"


@pytest.mark.parametrize("token", ["", OWN])
async def test_the_same_code_again_ends_nothing(store: Store, token: str) -> None:
    """The first message goes its way beside the second."""
    await sent(store, token=token)
    await resent(store)
    await resent(store, token=token)
    assert await told(store) == [WAITS] * 3


async def test_a_code_whose_verification_was_followed_by_another_is_not_sent(store: Store) -> None:
    """A short code would be born without an attempt, so it has a verification of its own: the old one's texts end."""
    first = await sent(store)
    code, id_ = await code_in(store, first), first.message.verification_id
    for _ in range(3):
        await store.verify(check(wrong(code), id_))
    assert (await resent(store, token="1234")).message.verification_id != id_
    assert await told(store) == [ENDED, WAITS]


async def test_a_code_without_an_attempt_left_is_not_sent(store: Store) -> None:
    """With the last wrong check, not before; nothing is left to claim."""
    first = await sent(store)
    await resent(store)
    code, id_ = await code_in(store, first), first.message.verification_id
    for _ in range(4):
        await store.verify(check(wrong(code), id_))
    assert await told(store) == [WAITS, WAITS]
    answer = await store.verify(check(wrong(code), id_))
    assert (answer.result, answer.attempts_left) == (CheckResult.WRONG_CODE, 0)
    assert await told(store) == [ENDED, ENDED]
    assert await store.claim(MessageClass.OTP, frozenset(DueKind), 10) == []


async def test_what_an_expired_verification_left_ends_by_its_own_time(store: Store) -> None:
    """EXPIRED is the truth about it; the next code leaves that to the timer."""
    await sent(store)
    await pass_time(store, 301)
    await sent(store)
    assert await told(store) == [WAITS, WAITS]


@pytest.mark.parametrize("replaced", [True, False])
async def test_a_hand_off_at_work_is_awaited_and_no_other_follows(store: Store, *, replaced: bool) -> None:
    """What was taken is told as sent, never as canceled; behind a provider that did not take it comes no second one."""
    first = await sent(store, token="1234")
    claim = await claimed(store, first)
    await store.apply(first.message.id, started(claim))
    if replaced:
        await resent(store, token="other777")
    else:
        for _ in range(3):
            await store.verify(check("4321", first.message.verification_id))
    await store.apply(first.message.id, Settled(claim.hold, 1, Accepted("p-1") if replaced else AWAY))
    this = f"id = '{first.message.id}'"
    state = State.SENT if replaced else State.CANCELED
    assert await rows(store, f"SELECT stop, state FROM message WHERE {this}") == [(Stop.CANCELED.value, state.value)]
    assert await rows(store, f"SELECT kind FROM due WHERE message_{this} AND kind = 'SEND'") == []


async def test_a_send_that_can_not_end_them_changes_nothing(store: Store) -> None:
    """Both or neither: the old code still verifies, no limit has counted the call, and its key is free."""
    first = await sent(store, token=OWN)
    await pass_time(store, 31)
    await change(store, f"UPDATE event SET seq = 2 WHERE message_id = '{first.message.id}'")
    with pytest.raises(Exception, match=r"(?i)unique"):
        await sent(store, token="other777", request_id="r")
    assert await rows(store, "SELECT request_id FROM idempotency") == []
    await change(store, f"UPDATE event SET seq = 1 WHERE message_id = '{first.message.id}'")
    assert (await store.verify(check(OWN, first.message.verification_id))).result == CheckResult.VERIFIED


async def test_the_last_check_and_a_further_send_at_once(
    on_postgres: Store, postgres_url: str, open_at: OpenAt
) -> None:
    """Another process is writing one more message of the verification: the last check waits for it, and ends both."""
    second = await open_at(postgres_url)
    first = await sent(on_postgres, token="1234")
    id_ = first.message.verification_id
    for _ in range(2):
        await on_postgres.verify(check("4321", id_))
    await pass_time(on_postgres, 31)
    async with held_before(second, "INSERT INTO message ") as reached:
        sending = asyncio.create_task(sent(second))
        await until(reached.is_set)
        checking = asyncio.create_task(on_postgres.verify(check("4321", id_)))

        async def checked_or_waiting() -> bool:
            return checking.done() or bool(await rows(second, WAITING))

        await until(checked_or_waiting)
    assert (await checking).attempts_left == 0
    assert (await sending).message.verification_id == id_
    assert await told(on_postgres) == [ENDED, ENDED]


async def test_codes_that_replace_each_other_never_deadlock(
    on_postgres: Store, postgres_url: str, open_at: OpenAt
) -> None:
    """Two processes at twenty addresses, in opposite orders: codes are replaced, used up and handed off at once."""
    second = await open_at(postgres_url)
    phones = [f"+989120{number}0000" for number in range(100, 120)]
    accepted = await accept_all(on_postgres, [code_letter(phone, token="first11") for phone in phones])
    for turn in ("second2", "third33"):
        await pass_time(on_postgres, 31)
        claims = await on_postgres.claim(MessageClass.OTP, frozenset({DueKind.SEND}), 50)
        checks = [check("wrong99", one.message.verification_id) for one in accepted]
        *sends, _, _, applied = await asyncio.gather(
            accept_all(on_postgres, [code_letter(phone, token=turn) for phone in phones]),
            accept_all(second, [code_letter(phone, token=turn) for phone in reversed(phones)]),
            checked([on_postgres], checks),
            checked([second], checks[::-1]),
            asyncio.gather(*(on_postgres.apply(claim.case.message.id, started(claim)) for claim in claims[::-1])),
        )
        assert sum(isinstance(one, Acceptance) for some in sends for one in some) == len(phones)
        assert len(applied) == len(claims) > 0
    assert await rows(on_postgres, DEADLOCKS) == [(0,)]
    live = "SELECT m.id FROM message AS m JOIN verification AS v ON v.id = m.verification_id WHERE m.stop IS NULL"
    assert len(await rows(on_postgres, live)) == len(phones)
