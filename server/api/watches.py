"""Streams of events: first what has happened, then what happens, with a cursor in every answer."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

from server.api.caller import Call
from server.api.tokens import log_cursor, message_cursor
from server.model.errors import Exhausted, Reason, not_found
from server.model.messages import Event, Message
from server.model.watching import Filter, Heartbeat, LogCursor, MessageCursor
from server.store.store import Store


@dataclass(frozen=True, slots=True)
class Batch:
    """What one answer of a stream tells: events, none in a heartbeat; the cursor behind them; at first the message."""

    events: Sequence[Event]
    cursor: str
    message: Message | None = None


async def follow_message(
    store: Store, call: Call, message: Message, after: MessageCursor | None, *, states_only: bool = False
) -> AsyncGenerator[Batch, None]:
    """A message's events behind `after`, None for all of them. Ends behind the event that makes it done."""
    told = await timeline_of(store, call, message.id) if after is None else []
    place = after or behind(told)
    cursor = message_cursor(call.vault, place)
    yield Batch([event for event in told if event.moved or not states_only], cursor, message)
    if any(event.done for event in told):
        return
    try:
        news = store.watching.watch_message(call.tenant_id, message.id, place, states_only=states_only)
        async with aclosing(news) as events:
            async for event in events:
                if isinstance(event, Heartbeat):
                    yield Batch((), cursor)
                    continue
                cursor = message_cursor(call.vault, behind([event]))
                yield Batch((event,), cursor)
    except Exhausted as lagged:
        raise _resumable(lagged, cursor) from None


async def follow_tenant(
    store: Store, call: Call, wanted: Filter, after: LogCursor | None, *, states_only: bool = False
) -> AsyncGenerator[Batch, None]:
    """The events of every message that passes, behind `after`, None for those from now on. Does not end by itself."""
    place = after or await store.watching.cursor_now()
    cursor = log_cursor(call.vault, place, wanted)
    yield Batch((), cursor)
    try:
        news = store.watching.watch_tenant(call.tenant_id, wanted, place, states_only=states_only)
        async with aclosing(news) as batches:
            async for reached, events in batches:
                cursor = log_cursor(call.vault, reached, wanted)
                yield Batch(events, cursor)
    except Exhausted as lagged:
        raise _resumable(lagged, cursor) from None


async def timeline_of(store: Store, call: Call, message_id: str) -> list[Event]:
    """All events of a message, from the first. Raises NotFound where it has just been forgotten."""
    told = await store.reading.timeline(call.tenant_id, message_id)
    if not told:
        raise not_found("message", message_id)
    return told


def behind(told: Sequence[Event]) -> MessageCursor:
    """The place behind the last of some events of one message."""
    last = told[-1]
    return MessageCursor(last.message_id, last.seq, last.at)


def _resumable(error: Exhausted, cursor: str) -> Exhausted:
    """A watcher that lags is told where it stands."""
    if error.reason != Reason.WATCH_LAGGED:
        return error
    return replace(error, metadata={**error.metadata, "cursor": cursor})
