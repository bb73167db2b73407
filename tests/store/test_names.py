"""An id that a look-up found belongs to one attempt: what another one has is no answer."""

import asyncio
from dataclasses import replace

import pytest

from server.model.conclude import Decision
from server.model.decide import Refused
from server.model.enums import OutcomeKind, State
from server.model.facts import LookedUp, Settled, Started
from server.model.outcomes import Accepted, Found, ambiguous
from server.model.work import Claim
from server.store.apply import Ruling
from server.store.store import Store
from tests.store.conftest import OpenAt
from tests.store.letters import everything, rows
from tests.store.posts import (
    DELIVERED,
    OTHER_UID,
    UID,
    add_accounts,
    attempt_of,
    begun,
    case_of,
    claimed,
    post,
    start_of,
)

PAIRS = 20


@pytest.fixture
async def store(store: Store) -> Store:
    """A store with two accounts."""
    await add_accounts(store, UID, OTHER_UID)
    return store


async def in_doubt(store: Store, uid: str = UID) -> Claim:
    """A message of which nobody knows whether it was taken."""
    claim = await begun(store, uid=uid)
    await store.apply(claim.case.message.id, Settled(claim.hold, 1, ambiguous()))
    return claim


async def found(store: Store, claim: Claim, id_: str = "p-1", number: int = 1) -> Ruling:
    return await store.apply(claim.case.message.id, LookedUp(claim.hold, number, Found(id_)))


async def test_an_id_of_another_message_is_not_found_again(store: Store) -> None:
    """Nothing is written of it: the attempt stays in doubt, and what waits for the id stays with its own."""
    taken = await begun(store)
    await store.apply(taken.case.message.id, Settled(taken.hold, 1, Accepted("p-1")))
    claim = await in_doubt(store)
    before = await everything(store)
    assert await found(store, claim) == Refused("SAME")
    assert await everything(store) == before
    assert (await attempt_of(store, claim)).ambiguous
    await post(store, "p-1", DELIVERED)
    assert (await case_of(store, taken)).message.state == State.DELIVERED
    assert (await case_of(store, claim)).message.state == State.UNCONFIRMED
    assert isinstance(await found(store, claim, "p-2"), Decision)
    assert (await attempt_of(store, claim)).provider_message_id == "p-2"


async def test_an_id_of_another_account_is_another_id(store: Store) -> None:
    """Each provider numbers its own messages."""
    assert isinstance(await found(store, await in_doubt(store)), Decision)
    claim = await in_doubt(store, OTHER_UID)
    assert isinstance(await found(store, claim), Decision)
    assert (await attempt_of(store, claim)).outcome == OutcomeKind.ACCEPTED


async def test_an_id_that_a_receipt_brought_is_not_found_again(store: Store) -> None:
    """It came by the URL of an attempt that is in flight still."""
    taken = await begun(store)
    await post(store, "p-1", DELIVERED, taken)
    assert await found(store, await in_doubt(store)) == Refused("SAME")


async def test_an_id_of_the_messages_other_attempt_is_not_found_again(store: Store) -> None:
    """Of two that bear one key the first is in doubt, the second was taken: what is found may be the second alone."""
    (claim,) = await claimed(store)
    message_id, (opening,) = claim.case.message.id, start_of(claim).openings
    await store.apply(message_id, Started(claim.hold, (opening, replace(opening, destination=1))))
    await store.apply(message_id, Settled(claim.hold, 2, Accepted("p-1")))
    await store.apply(message_id, Settled(claim.hold, 1, ambiguous()))
    assert await found(store, claim) == Refused("SAME")
    assert [attempt.provider_message_id for attempt in (await case_of(store, claim)).attempts] == ["", "p-1"]


async def test_of_two_that_are_told_at_once_one_has_the_id(store: Store) -> None:
    """Two look-ups, or the answer to a send beside a look-up, in one transaction: the first has it."""
    doubts = [await in_doubt(store) for _ in range(3)]
    rulings = await asyncio.gather(*(found(store, claim) for claim in doubts))
    assert [isinstance(ruling, Decision) for ruling in rulings] == [True, False, False]
    taken = await begun(store)
    answered = store.apply(taken.case.message.id, Settled(taken.hold, 1, Accepted("p-2")))
    rulings = await asyncio.gather(answered, found(store, doubts[1], "p-2"))
    assert [isinstance(ruling, Decision) for ruling in rulings] == [True, False]


async def test_two_replicas_do_not_give_one_id_to_two_messages(
    on_postgres: Store, postgres_url: str, open_at: OpenAt
) -> None:
    """Both find it at the same moment for messages of theirs: one of the two stays in doubt."""
    stores = on_postgres, await open_at(postgres_url)
    await add_accounts(on_postgres, UID)
    claims = [[await in_doubt(on_postgres), await in_doubt(on_postgres)] for _ in range(PAIRS)]
    for number, pair in enumerate(claims):
        finding = (found(each, claim, f"p-{number}") for each, claim in zip(stores, pair, strict=True))
        assert sorted(isinstance(ruling, Decision) for ruling in await asyncio.gather(*finding)) == [False, True]
    ids = await rows(on_postgres, "SELECT provider_message_id FROM attempt WHERE provider_message_id <> ''")
    assert sorted(ids) == sorted((f"p-{number}",) for number in range(PAIRS))
