"""NotificationService: accept, look up, follow, list, cancel."""

import asyncio
import time
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from dataclasses import replace
from typing import Any, TypeVar

from angarium.v1 import notification_service_pb2 as wire
from angarium.v1.message_pb2 import NotificationFilter
from angarium.v1.notification_service_pb2_grpc import NotificationServiceServicer

from server.api.caller import Call, current_call
from server.api.convert import notifications as convert
from server.api.convert.checks import ID_CHARS_MAX, Checks
from server.api.convert.messages import REQUEST_ID_CHARS_MAX, digest_of, new_message
from server.api.convert.times import timestamp
from server.api.convert.words import STATES
from server.api.pages import fitting, listing_of
from server.api.tokens import (
    log_cursor,
    message_cursor,
    page_token,
    read_log_cursor,
    read_message_cursor,
    read_page_token,
)
from server.api.watches import Batch, behind, follow_message, follow_tenant, timeline_of
from server.model.decide import Refused
from server.model.enums import Stop
from server.model.errors import Invalid, NotFound, Precondition, Reason
from server.model.facts import Stopped
from server.model.messages import Case, Event, Message, NewMessage
from server.model.reach import require_reach
from server.model.watching import Filter, MessageCursor
from server.model.work import Acceptance
from server.store.store import Store
from server.vault.identity import new_id

T = TypeVar("T")


class Notifications(NotificationServiceServicer):
    """Never calls a provider: what is accepted is for the dispatcher."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def Send(self, request: wire.SendRequest, context: object) -> wire.SendResponse:
        call = current_call()
        acceptance = await self._accept(request, call)
        message = acceptance.message
        return wire.SendResponse(
            tracking_id=message.id,
            state=STATES.number(message.state),
            replayed=acceptance.replayed,
            create_time=timestamp(message.created_at),
            expire_time=timestamp(message.expires_at),
            cursor=await self._cursor(acceptance, call),
        )

    async def SendAndWatch(
        self, request: wire.SendAndWatchRequest, context: object
    ) -> AsyncGenerator[wire.SendAndWatchResponse, None]:
        call = current_call()
        acceptance = await self._accept(request.send, call)
        async with aclosing(follow_message(self._store, call, acceptance.message, None)) as batches:
            async for batch in batches:
                yield wire.SendAndWatchResponse(
                    events=map(convert.status_event, batch.events),
                    cursor=batch.cursor,
                    notification=convert.notification(batch.message) if batch.message else None,
                    replayed=acceptance.replayed and batch.message is not None,
                )

    async def GetStatus(self, request: wire.GetStatusRequest, context: object) -> wire.GetStatusResponse:
        call = current_call()
        case, timeline = await self._found(call, request)
        return wire.GetStatusResponse(
            notification=convert.notification(case.message),
            channel_results=convert.channel_results(case.attempts),
            attempts=map(convert.attempt, case.attempts),
            timeline=map(convert.status_event, timeline),
            cursor=message_cursor(call.vault, behind(timeline)),
        )

    async def WatchStatus(
        self, request: wire.WatchStatusRequest, context: object
    ) -> AsyncGenerator[wire.WatchStatusResponse, None]:
        async with aclosing(await self._watch(request, current_call())) as batches:
            async for batch in batches:
                yield wire.WatchStatusResponse(
                    events=map(convert.status_event, batch.events),
                    cursor=batch.cursor,
                    notification=convert.notification(batch.message) if batch.message else None,
                )

    async def ListNotifications(
        self, request: wire.ListNotificationsRequest, context: object
    ) -> wire.ListNotificationsResponse:
        call = current_call()
        checks = Checks()
        size = checks.page_size(request.page_size)
        checks.settle()
        wanted = _filter(request.filter, call)
        listing = listing_of("ListNotifications", request)
        after = read_page_token(call.vault, listing, request.page_token)
        place = None if after else await self._store.watching.cursor_now()
        found = await self._store.reading.messages(
            call.tenant_id, wanted, before=after[0] if after else "", limit=size + 1
        )
        shown = fitting([convert.notification(message) for message in found[:size]])
        return wire.ListNotificationsResponse(
            notifications=shown,
            next_page_token=page_token(call.vault, listing, [shown[-1].tracking_id]) if len(found) > len(shown) else "",
            cursor=log_cursor(call.vault, place, wanted) if place else "",
        )

    async def Cancel(self, request: wire.CancelRequest, context: object) -> wire.CancelResponse:
        call = current_call()
        case = await self._named(call, request.tracking_id)
        if case.message.stop != Stop.CANCELED:
            refused = await _to_its_end(self._store.apply(case.message.id, Stopped(Stop.CANCELED)))
            case = await self._named(call, request.tracking_id)
            if isinstance(refused, Refused) and case.message.stop != Stop.CANCELED:
                told = {"state": case.message.state}
                raise Precondition(Reason.NOTHING_TO_CANCEL, "Nothing is left of the message to stop.", told)
        handed_off = any(attempt.may_arrive for attempt in case.attempts)
        return wire.CancelResponse(notification=convert.notification(case.message), handed_off=handed_off)

    async def _accept(self, request: wire.SendRequest, call: Call) -> Acceptance:
        """Keeps the message. The commit goes on though the caller leaves: a half-answered Send is kept or it is not."""
        try:
            new = self._judged(request, call)
        except (Invalid, Precondition):
            # A repeat is answered as the first call was, whatever became of routes since; its times are as of then.
            first = await self._first(call, request.request_id)
            if first is None:
                raise
            new = new_message(request, call, new_id(), first.created_at)
        return await _to_its_end(self._store.accept(replace(new, fingerprint=_fingerprint(new, call))))

    def _judged(self, request: wire.SendRequest, call: Call) -> NewMessage:
        snapshot = self._store.configuration.snapshot
        rules, accounts = snapshot.rules.get(call.tenant_id, ()), snapshot.accounts.get(call.tenant_id, ())
        return require_reach(new_message(request, call, new_id(), time.time_ns() // 1000), call.tenant, rules, accounts)

    async def _first(self, call: Call, request_id: str) -> Message | None:
        """The message that the caller made under this key, if it made one."""
        if not request_id or not (request_id.isascii() and request_id.isprintable()):
            return None
        try:
            case = await self._store.reading.message(
                call.tenant_id, client_id=call.caller.client_id, request_id=request_id
            )
        except NotFound:
            return None
        return case.message

    async def _cursor(self, acceptance: Acceptance, call: Call) -> str:
        """The cursor behind what is told of a message: of one that is new, its first event."""
        message = acceptance.message
        if not acceptance.replayed:
            return message_cursor(call.vault, MessageCursor(message.id, 1, message.created_at))
        return message_cursor(call.vault, behind(await timeline_of(self._store, call, message.id)))

    async def _named(self, call: Call, tracking_id: str) -> Case:
        checks = Checks()
        checks.line("tracking_id", tracking_id, ID_CHARS_MAX, required=True)
        checks.settle()
        return await self._store.reading.message(call.tenant_id, tracking_id=tracking_id)

    async def _found(self, call: Call, request: wire.GetStatusRequest) -> tuple[Case, list[Event]]:
        checks = Checks()
        checks.exactly_one({"tracking_id": bool(request.tracking_id), "request_id": bool(request.request_id)})
        checks.line("tracking_id", request.tracking_id, ID_CHARS_MAX)
        checks.printable_ascii("request_id", request.request_id, REQUEST_ID_CHARS_MAX)
        checks.settle()
        return await self._store.reading.status(
            call.tenant_id,
            tracking_id=request.tracking_id,
            client_id=call.caller.client_id,
            request_id=request.request_id,
        )

    async def _watch(self, request: wire.WatchStatusRequest, call: Call) -> AsyncGenerator[Batch, None]:
        checks = Checks()
        checks.exactly_one({"tracking_id": bool(request.tracking_id), "filter": request.HasField("filter")})
        checks.settle()
        if not request.tracking_id:
            wanted = _filter(request.filter, call)
            after = read_log_cursor(call.vault, request.cursor, wanted) if request.cursor else None
            return follow_tenant(self._store, call, wanted, after, states_only=request.states_only)
        message = (await self._named(call, request.tracking_id)).message
        place = read_message_cursor(call.vault, request.cursor, message.id) if request.cursor else None
        return follow_message(self._store, call, message, place, states_only=request.states_only)


async def _to_its_end(work: Coroutine[Any, Any, T]) -> T:
    """Await work that goes on though the caller leaves; how it ends then is the store's to log."""
    task = asyncio.create_task(work)
    # Else asyncio would print the error of a task that nobody awaits any more, with all that its causes say.
    task.add_done_callback(lambda done: done.cancelled() or done.exception())
    return await asyncio.shield(task)


def _filter(given: NotificationFilter, call: Call) -> Filter:
    return convert.wanted(given, call.tenant.default_region, call.vault.index)


def _fingerprint(new: NewMessage, call: Call) -> bytes:
    """What a repeated request is recognised by. Keyed: a bare hash would give away short codes to whoever reads it."""
    return bytes.fromhex(call.vault.index(digest_of(new)))
