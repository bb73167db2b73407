"""Whoever has lost a message can no longer move it, whatever it says and however late."""

from server.model.conclude import Decision
from server.model.decide import Refused
from server.model.enums import DueKind, MessageClass
from server.model.facts import Settled, WorkerLost
from server.model.messages import Hold
from server.model.outcomes import Accepted
from server.store.store import Store
from tests.store.letters import everything, letter, started

SEND = frozenset({DueKind.SEND})


async def begun_anew(store: Store) -> tuple[str, Hold]:
    """A message in flight, and the hold of the claim that had it before."""
    await store.accept(letter())
    (old,) = await store.claim(MessageClass.TRANSACTIONAL, SEND, 1)
    await store.apply(old.case.message.id, WorkerLost(old.hold))
    (new,) = await store.claim(MessageClass.TRANSACTIONAL, SEND, 1)
    assert isinstance(await store.apply(old.case.message.id, started(new)), Decision)
    return old.case.message.id, old.hold


async def test_a_rescue_that_comes_too_late_changes_nothing(store: Store) -> None:
    """A sweep that read the dead worker's holds before another one freed them takes nothing from the next holder."""
    id_, lost = await begun_anew(store)
    before = await everything(store)
    assert await store.apply(id_, WorkerLost(lost)) == Refused("STALE")
    assert await everything(store) == before


async def test_an_outcome_of_another_claim_changes_nothing(store: Store) -> None:
    """What the former holder of a message says of its attempt is not taken: it was not that one's call."""
    id_, lost = await begun_anew(store)
    before = await everything(store)
    assert await store.apply(id_, Settled(lost, 1, Accepted("p-1"))) == Refused("STALE")
    assert await everything(store) == before
