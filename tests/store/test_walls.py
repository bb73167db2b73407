"""Between tenants nothing is told and nothing is mixed up, whatever they know of each other."""

import asyncio
from contextlib import aclosing

import pytest

from server.model.errors import NotFound
from server.store.store import Store
from tests.store.letters import TENANTS
from tests.store.watchers import send

NORTH, SOUTH, _ = TENANTS
SOON_SECONDS = 10.0


async def test_a_watch_of_anothers_message_is_refused_and_not_begun(store: Store) -> None:
    """NotFound at once: nobody waits for what another tenant's message will come to."""
    theirs = await send(store, SOUTH)
    async with aclosing(store.watching.watch_message(NORTH, theirs, None)) as events:
        first = asyncio.ensure_future(anext(events))
        ended, _ = await asyncio.wait({first}, timeout=SOON_SECONDS)
        assert ended, "the watch has begun"
        with pytest.raises(NotFound):
            await first


async def test_two_tenants_that_use_one_key_find_their_own_message(store: Store) -> None:
    """The same client_id and request_id name another message for each tenant."""
    sent = [await send(store, tenant, request_id="order-1") for tenant in (NORTH, SOUTH)]
    finding = [store.reading.message(t, client_id="shop", request_id="order-1") for t in (NORTH, SOUTH)]
    found = await asyncio.gather(*finding, return_exceptions=True)
    assert [case if isinstance(case, BaseException) else case.message.id for case in found] == sent
