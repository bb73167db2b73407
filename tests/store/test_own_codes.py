"""A code that its caller brought: said again as it is, sealed while it may verify, and gone after that."""

from typing import Any

import pytest

from server.model.clock import SECOND
from server.model.otp import CheckResult
from server.store.store import Store
from tests.store.codes import check, code_in, pass_time, resent, sent, the_row, wrong
from tests.store.letters import TENANTS, rows

OWN = "s3cret99"
TABLES = ("message", "verification", "limit_bucket", "idempotency", "event", "due")


async def sealed(store: Store) -> list[bytes]:
    """What each verification holds of a code, the oldest first."""
    return [bytes(code) for (code,) in await rows(store, "SELECT code FROM verification ORDER BY id")]


async def test_a_further_send_without_it_says_it_again(store: Store) -> None:
    """Call me instead: the same code, in the same verification, with its attempts and its time; no length is heard."""
    first = await sent(store, token="a1b2")
    id_ = first.message.verification_id
    assert (await store.verify(check("zzzz", id_))).attempts_left == 2
    again = await resent(store, ttl=600 * SECOND, length=9)
    assert again.message.verification_id == id_
    assert await code_in(store, again) == "a1b2"
    assert await the_row(store, "generation, length, sends, attempts, attempts_max, expires_at") == (
        1,
        0,
        2,
        1,
        3,
        again.message.expires_at,
    )
    assert (await store.verify(check("a1b2", id_))).result == CheckResult.VERIFIED


async def test_it_replaces_ours_and_stays(store: Store) -> None:
    """Ours is wrong from then on; a send that brings none says the caller's."""
    ours = await sent(store)
    first, id_ = await code_in(store, ours), ours.message.verification_id
    assert await sealed(store) == [b""]
    await resent(store, token="12345678")
    again = await resent(store, length=7)
    assert await the_row(store, "generation, length, sends, attempts_max") == (2, 0, 3, 5)
    assert (again.message.verification_id, await code_in(store, again)) == (id_, "12345678")
    assert (await store.verify(check(first, id_))).result == CheckResult.WRONG_CODE
    assert (await store.verify(check("12345678", id_))).result == CheckResult.VERIFIED


async def test_another_one_replaces_it_for_further_sends_too(store: Store) -> None:
    """What is said again is the latest."""
    await sent(store, token=OWN)
    await resent(store, token="other777")
    assert await code_in(store, await resent(store)) == "other777"


async def test_it_is_sealed_for_its_verification(store: Store) -> None:
    """In no column as it is, and what one row holds does not open as another's."""
    id_ = (await sent(store, token=OWN)).message.verification_id
    assert OWN not in repr([await rows(store, f"SELECT * FROM {table}") for table in TABLES])
    (code,) = await sealed(store)
    assert store.keys.get(TENANTS[0]).open(code, f"code:{id_}") == OWN.encode()


ENDS = ("verified", "exhausted", "expired", "superseded")


@pytest.mark.parametrize("ended", ENDS)
async def test_it_is_erased_with_the_end_of_its_verification(store: Store, ended: str) -> None:
    """However it ends; until then it is there."""
    first = await sent(store, token=OWN)
    id_ = first.message.verification_id
    typed: list[str] = {"verified": [OWN], "exhausted": [wrong(OWN)] * 5, "superseded": [wrong(OWN)] * 3}.get(ended, [])
    for number, one in enumerate(typed):
        assert all(await sealed(store)), number
        await store.verify(check(one, id_))
    if ended == "expired":
        await pass_time(store, 300)
        await store.prune()
    if ended == "superseded":
        await resent(store, token="1234")
    kept: list[Any] = await rows(store, f"SELECT is_live, code FROM verification WHERE id = '{id_}'")
    assert [(bool(is_live), bytes(code)) for is_live, code in kept] == [(False, b"")]


async def test_the_one_that_lives_keeps_it_when_others_are_forgotten(store: Store) -> None:
    """Retention takes what is over, and only what is over; ours that expired is left as it was."""
    await sent(store, phone="+989120000556", ttl=30 * SECOND)
    await sent(store, token=OWN, ttl=30 * SECOND)
    await pass_time(store, 29)
    await store.prune()
    assert [bool(code) for code in await sealed(store)] == [False, True]
    await pass_time(store, 1)
    await store.prune()
    kept = await rows(store, "SELECT is_live, length, code FROM verification ORDER BY length")
    assert [(bool(is_live), length, bytes(code)) for is_live, length, code in kept] == [(False, 0, b""), (True, 6, b"")]
