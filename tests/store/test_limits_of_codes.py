"""Limits that hold beside a verification's own: both addresses of a send, wrong checks, and what was never sent."""

import asyncio
from collections import Counter

import pytest

from server.model.clock import HOUR, MINUTE, SECOND
from server.model.errors import Exhausted, Reason, Unavailable
from server.model.otp import Checked, CheckResult
from server.store.store import Store
from server.store.verify import VERIFY_MAX
from tests.store.codes import (
    PHONE,
    check,
    checked,
    code_in,
    code_letter,
    held_before,
    pass_time,
    refusal,
    resent,
    sent,
    tally,
    tally_of_sends,
)
from tests.store.conftest import OpenStore
from tests.store.letters import TENANTS, accept_all, rows, until

EMAIL = "a@example.com"
OWN = "right1"


async def wrong_ones(store: Store, count: int, phone: str = PHONE) -> None:
    """So many wrong checks of an address, each a minute after the last, of verifications of intents of their own."""
    for number in range(count):
        if number % 5 == 0:
            intent = f"I{number}"
            await pass_time(store, 601)
            id_ = (await sent(store, phone=phone, intent=intent, token=OWN, ttl=600 * SECOND)).message.verification_id
        await pass_time(store, 7)
        assert (await store.verify(check("wrong1", id_))).result == CheckResult.WRONG_CODE


async def test_the_second_address_of_a_code_is_counted(store: Store) -> None:
    """Forty numbers and one e-mail address: one code in 30 s goes there, three in ten minutes, and its own count."""
    letters = [code_letter(f"+9891{number}000000", beside=EMAIL) for number in range(10, 50)]
    for turn in range(3):
        answers = await accept_all(store, letters[turn * 10 : turn * 10 + 10])
        assert tally_of_sends(answers)["sent"] == 1
        await pass_time(store, 31)
    assert (await refusal(store, letters[-1])).metadata == {"limit": "destination"}
    alone = code_letter(EMAIL, prefix="")
    assert (await refusal(store, alone)).metadata == {"limit": "destination"}
    counted = await rows(store, "SELECT hits FROM limit_bucket WHERE kind = 'DESTINATION' AND hits <> '[]'")
    assert sorted(hits.count(",") + 1 for (hits,) in counted) == [1, 1, 1, 3]


async def test_the_verification_is_the_first_addresss(store: Store) -> None:
    """The other one is counted and no more: nothing is found by it."""
    await sent(store, beside=EMAIL, token=OWN)
    assert (await store.verify(check(OWN, destination=EMAIL, intent="OTP"))).result == CheckResult.UNKNOWN
    assert (await store.verify(check(OWN, destination=PHONE, intent="OTP"))).result == CheckResult.VERIFIED


async def test_of_a_magic_recipient_both_addresses_have_their_cooldown(store: Store) -> None:
    """And nothing else is counted."""
    await sent(store, beside=EMAIL, cooldown_alone=True)
    other = code_letter("+989120000556", beside=EMAIL, cooldown_alone=True)
    assert (await refusal(store, other)).reason == Reason.OTP_COOLDOWN
    assert Counter(kind for (kind,) in await rows(store, "SELECT kind FROM limit_bucket")) == {"DESTINATION": 3}


async def test_checks_of_what_was_never_sent_have_one_limit(store: Store) -> None:
    """However many ids are made up, of one client account ten a minute are answered, and no more is kept of them."""
    accepted = await sent(store, token=OWN)
    buckets = "SELECT kind FROM limit_bucket WHERE kind IN ('CHECKS', 'WRONG') ORDER BY kind"
    answers = await checked([store], [check("000000", f"made-up-{number}") for number in range(60)])
    assert tally(answers) == {"UNKNOWN": 10, "checks": 50}
    assert {one for one in answers if isinstance(one, Checked)} == {Checked(CheckResult.UNKNOWN)}
    assert all(50 < one.retry_after_seconds <= 60 for one in answers if isinstance(one, Exhausted))
    assert await rows(store, buckets) == [("CHECKS",), ("WRONG",)]
    others = [check("000000", "made-up", client_id="mall"), check("000000", "made-up", tenant=TENANTS[1])]
    assert tally(await checked([store], others)) == {"UNKNOWN": 2}
    assert (await store.verify(check(OWN, accepted.message.verification_id))).result == CheckResult.VERIFIED
    await pass_time(store, 61)
    assert (await store.verify(check("000000", "made-up-61"))).result == CheckResult.UNKNOWN


async def test_ten_wrong_checks_an_hour_of_an_address(store: Store) -> None:
    """Over all its verifications; then not even the right one is judged, and none of its attempts is spent."""
    await wrong_ones(store, 10)
    await pass_time(store, 601)
    last = await sent(store, token=OWN, ttl=600 * SECOND)
    this = check(OWN, last.message.verification_id, request_id="r")
    with pytest.raises(Exhausted) as refused:
        await store.verify(this)
    assert refused.value.metadata == {"limit": "checks"}
    assert MINUTE < refused.value.retry_after_seconds * SECOND < HOUR
    spent = f"SELECT attempts FROM verification WHERE id = '{last.message.verification_id}'"
    assert await rows(store, spent) == [(0,)]
    assert await rows(store, "SELECT request_id FROM idempotency") == []
    other = await sent(store, phone="+989120000556", token=OWN)
    assert (await store.verify(check(OWN, other.message.verification_id))).result == CheckResult.VERIFIED
    await pass_time(store, round(refused.value.retry_after_seconds) + 1)
    again = await resent(store, token=OWN)
    assert (await store.verify(check(OWN, again.message.verification_id))).result == CheckResult.VERIFIED


async def test_of_checks_at_once_none_is_judged_after_the_tenth_wrong_one(store: Store, another: OpenStore) -> None:
    """Eight were wrong; of the next, of two verifications and over two stores, two are judged and wrong."""
    second = await another() if store.engine_name == "postgres" else store
    await wrong_ones(store, 8)
    ids: list[str] = []
    for intent in ("A", "B"):
        await pass_time(store, 601)
        ids.append((await sent(store, intent=intent, token=OWN, ttl=900 * SECOND)).message.verification_id)
    answers = await checked([store, second], [check("wrong1", id_) for id_ in ids * 4])
    assert tally(answers) == {"WRONG_CODE": 2, "checks": 6}
    spent = await rows(store, f"SELECT SUM(attempts) FROM verification WHERE id IN ('{ids[0]}', '{ids[1]}')")
    assert spent == [(2,)]


async def test_right_and_late_checks_are_not_wrong_ones(store: Store) -> None:
    """Only WRONG_CODE is counted so, and a repeated one once."""
    accepted = await sent(store)
    code, id_ = await code_in(store, accepted), accepted.message.verification_id
    miss = check("000000" if code != "000000" else "000001", id_, request_id="r")
    for one in (miss, miss, check(code, id_), check(code, id_), check(code, destination=PHONE, intent="ELSE")):
        await store.verify(one)
    hits = "SELECT kind, hits FROM limit_bucket WHERE kind IN ('CHECKS', 'WRONG') ORDER BY kind"
    assert [(kind, counted.count(",") + 1) for kind, counted in await rows(store, hits)] == [
        ("CHECKS", 4),
        ("WRONG", 1),
    ]


async def test_a_store_that_closes_answers_its_checks(store: Store, another: OpenStore) -> None:
    """The one at work is judged, and all that wait, in however many batches; who comes later is told so."""
    ids = [(await sent(store, phone=f"+98912000{n}000", token=OWN)).message.verification_id for n in (1, 2)]
    async with held_before(store, "UPDATE verification") as reached:
        first = asyncio.create_task(store.verify(check(OWN, ids[0])))
        await until(reached.is_set)
        waiting = [check("000000", f"made-up-{number}") for number in range(VERIFY_MAX)]
        others = [asyncio.create_task(store.verify(one)) for one in (*waiting, check(OWN, ids[1]))]
        closing = asyncio.create_task(store.close())
    *middle, last = await asyncio.gather(*others, return_exceptions=True)
    assert tally(middle) == {"UNKNOWN": 10, "checks": VERIFY_MAX - 10}
    assert isinstance(last, Checked)
    assert [last.result, (await first).result] == [CheckResult.VERIFIED] * 2
    await closing
    with pytest.raises(Unavailable, match="store is closed"):
        await store.verify(check(OWN, ids[0]))
    kept = await rows(await another(), "SELECT verified_at > 0 FROM verification")
    assert [bool(verified) for (verified,) in kept] == [True, True]
