"""A fact is written whole or not at all: nobody ever finds a state whose event is missing."""

import pytest
from sqlalchemy.exc import DBAPIError

from server.model.conclude import Decision
from server.model.enums import DueKind, MessageClass
from server.model.tables import METADATA
from server.store.store import Store
from tests.store.letters import change, everything, letter, started

SEND = frozenset({DueKind.SEND})


async def test_a_fact_whose_event_can_not_be_written_changes_nothing(store: Store) -> None:
    """Where the number of its event is taken, the fact fails and every row is as it was; freed, it is applied."""
    await store.accept(letter())
    (claim,) = await store.claim(MessageClass.TRANSACTIONAL, SEND, 1)
    names = ", ".join(c.name for c in METADATA.tables["event"].c if c.name not in ("id", "seq"))
    await change(store, f"INSERT INTO event ({names}, seq) SELECT {names}, 2 FROM event WHERE seq = 1")
    before = await everything(store)
    with pytest.raises(DBAPIError):
        await store.apply(claim.case.message.id, started(claim))
    assert await everything(store) == before
    await change(store, "DELETE FROM event WHERE seq = 2")
    assert isinstance(await store.apply(claim.case.message.id, started(claim)), Decision)
