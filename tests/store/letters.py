"""Messages, tenants and looks into the database, for the claims about the store."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

from server.model.enums import Channel, MessageClass, State
from server.model.facts import Opening, Started
from server.model.messages import Behind, Content, Follow, Message, NewMessage, Recipient
from server.model.work import Claim
from server.store.store import Store
from server.vault.identity import new_id

TENANTS = ("north", "south", "west")
WAIT_SECONDS = 20.0


def letter(tenant: str = TENANTS[0], request_id: str = "", fingerprint: bytes = b"same", **changes: Any) -> NewMessage:
    """A message about to be accepted."""
    now = time.time_ns() // 1000
    message = Message(
        id=new_id(),
        tenant_id=tenant,
        client_id="shop",
        intent="order",
        message_class=MessageClass.TRANSACTIONAL,
        state=State.ACCEPTED,
        created_at=now,
        updated_at=now,
        expires_at=now + 3_600_000_000,
        request_id=request_id,
    )
    content = Content(Recipient(phone="+989120000111", locale="fa"), "Your order is on its way.", "Shop")
    return NewMessage(replace(message, **changes), content, fingerprint)


def started(claim: Claim, deadline: int = 0) -> Started:
    """The intent of one hand-off by SMS, with a second account behind it."""
    opening = Opening(
        step=1,
        channel=Channel.SMS,
        account="first",
        account_uid="uid-first",
        destination=0,
        provider_key=2**62,
        deadline=deadline or claim.now + 8_000_000,
        follow=Follow(polls=True),
        behind=Behind(candidates=1),
    )
    return Started(claim.hold, (opening,))


async def add_tenants(store: Store, *tenants: str) -> None:
    """Give these tenants a key of their own, so that their messages can be sealed."""
    for tenant in tenants:
        await store._database.write(lambda connection, name=tenant: store.keys.create(connection, name, 1))


async def rows(store: Store, sql: str) -> list[tuple[Any, ...]]:
    """What a SELECT finds."""
    return await store._database.read(lambda connection: [tuple(r) for r in connection.exec_driver_sql(sql).all()])


async def change(store: Store, sql: str) -> None:
    """Change rows behind the store's back."""
    await store._database.write(lambda connection: connection.exec_driver_sql(sql).close())


async def everything(store: Store) -> dict[str, list[tuple[Any, ...]]]:
    """All rows of the message path."""
    tables = ("message", "message_tag", "due", "attempt", "event", "idempotency", "sandbox_message")
    return {table: sorted(await rows(store, f"SELECT * FROM {table}"), key=repr) for table in tables}


async def accept_all(store: Store, letters: Sequence[NewMessage]) -> list[Any]:
    """Accept them at once; answers and errors in their order."""
    return await asyncio.gather(*(store.accept(new) for new in letters), return_exceptions=True)


async def until(holds: Callable[[], Awaitable[bool]] | Callable[[], bool], seconds: float = WAIT_SECONDS) -> None:
    """Wait until a condition holds; fails when it does not in time."""
    deadline = time.monotonic() + seconds
    while True:
        found = holds()
        if found if isinstance(found, bool) else await found:
            return
        assert time.monotonic() < deadline, "what was waited for did not happen"
        await asyncio.sleep(0.02)
