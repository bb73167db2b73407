"""What every RPC that makes a message does alike."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from server.api.caller import Call
from server.api.tokens import message_cursor
from server.api.watches import behind, timeline_of
from server.model.errors import NotFound
from server.model.messages import Message
from server.model.watching import MessageCursor
from server.model.work import Acceptance
from server.store.store import Store

T = TypeVar("T")


async def to_its_end(work: Coroutine[Any, Any, T]) -> T:
    """Await work that goes on though the caller leaves; how it ends then is the store's to log."""
    task = asyncio.create_task(work)
    # Else asyncio would print the error of a task that nobody awaits any more, with all that its causes say.
    task.add_done_callback(lambda done: done.cancelled() or done.exception())
    return await asyncio.shield(task)


async def first_under(store: Store, call: Call, request_id: str) -> Message | None:
    """The message that the caller made under this key, if it made one."""
    if not request_id or not (request_id.isascii() and request_id.isprintable()):
        return None
    try:
        case = await store.reading.message(call.tenant_id, client_id=call.caller.client_id, request_id=request_id)
    except NotFound:
        return None
    return case.message


async def cursor_behind(store: Store, call: Call, acceptance: Acceptance) -> str:
    """The cursor behind what is told of a message: of one that is new, its first event."""
    message = acceptance.message
    if not acceptance.replayed:
        return message_cursor(call.vault, MessageCursor(message.id, 1, message.created_at))
    return message_cursor(call.vault, behind(await timeline_of(store, call, message.id)))
