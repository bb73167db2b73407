"""NotificationService: accept, look up, follow, list, cancel."""

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

from angarium.v1 import notification_service_pb2 as wire
from angarium.v1.message_pb2 import NotificationFilter
from angarium.v1.notification_service_pb2_grpc import NotificationServiceServicer

from server.api.acceptance import cursor_behind, first_under, to_its_end
from server.api.caller import Call, current_call
from server.api.convert import notifications as convert
from server.api.convert.checks import ID_CHARS_MAX, Checks
from server.api.convert.explanation import route_explanation
from server.api.convert.messages import (
    REQUEST_ID_CHARS_MAX,
    as_asked,
    check_words,
    digest_of,
    new_message,
    template_for,
)
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
from server.api.watches import Batch, behind, follow_message, follow_tenant
from server.model.decide import Refused
from server.model.enums import Stop
from server.model.errors import Invalid, NotFound, Precondition, Reason, not_found
from server.model.explanation import Explanation
from server.model.facts import Stopped
from server.model.messages import Case, Event, Message, NewMessage
from server.model.reach import require_reach
from server.model.templates import NO_TEMPLATES, Template, beside, require_usable
from server.model.watching import Filter
from server.model.work import Acceptance
from server.store.store import Store
from server.vault.identity import new_id


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
            cursor=await cursor_behind(self._store, call, acceptance),
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
        case, timeline, explanation = await self._found(call, request)
        return wire.GetStatusResponse(
            notification=convert.notification(case.message),
            channel_results=convert.channel_results(case.attempts),
            attempts=map(convert.attempt, case.attempts),
            timeline=map(convert.status_event, timeline),
            explanation=route_explanation(explanation) if explanation else None,
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
            refused = await to_its_end(self._store.apply(case.message.id, Stopped(Stop.CANCELED)))
            case = await self._named(call, request.tracking_id)
            if isinstance(refused, Refused) and case.message.stop != Stop.CANCELED:
                told = {"state": case.message.state}
                raise Precondition(Reason.NOTHING_TO_CANCEL, "Nothing is left of the message to stop.", told)
        handed_off = any(attempt.may_arrive for attempt in case.attempts)
        return wire.CancelResponse(notification=convert.notification(case.message), handed_off=handed_off)

    async def _accept(self, request: wire.SendRequest, call: Call) -> Acceptance:
        """Keeps the message. The commit goes on though the caller leaves: a half-answered Send is kept or it is not."""
        try:
            new = await self._judged(request, call)
        except (Invalid, NotFound, Precondition):
            # A repeat is answered as the first call was, whatever became of routes and templates since.
            first = await first_under(self._store, call, request.request_id)
            if first is None:
                raise
            new = _repeated(request, call, first)
        return await to_its_end(self._store.accept(new))

    async def _judged(self, request: wire.SendRequest, call: Call) -> NewMessage:
        """The message with its fingerprint, its template pinned, and with a way to its recipient."""
        checks, template = Checks(), await self._template(call, request)
        of_template = template.message_class if template else None
        new = new_message(checks, request, call, new_id(), time.time_ns() // 1000, of_template)
        check_words(checks, request, template)
        checks.settle()
        new = replace(new, fingerprint=_fingerprint(request, new, call))
        snapshot, message = self._store.configuration.snapshot, new.message
        templates = snapshot.templates.get(call.tenant_id, NO_TEMPLATES)
        if message.template_key and template is None:
            raise not_found("template", message.template_key)
        if template is not None:
            is_active = template.key in templates and templates[template.key].is_active
            require_usable(replace(template, is_active=is_active), message.message_class)
            message = replace(message, template_key=template.key, template_revision=template.revision)
        rules, accounts = snapshot.rules.get(call.tenant_id, ()), snapshot.accounts.get(call.tenant_id, ())
        return require_reach(replace(new, message=message), call.tenant, rules, accounts, beside(templates, template))

    async def _template(self, call: Call, request: wire.SendRequest) -> Template | None:
        """The template that a request names, at the revision that it names, or the one that serves its intent."""
        configuration, revision = self._store.configuration, request.template_revision
        latest = template_for(request, configuration.snapshot.templates.get(call.tenant_id, NO_TEMPLATES))
        if latest is None or not request.template_key or revision <= 0:
            return latest
        return await configuration.pinned(call.tenant_id, latest.key, revision) if revision <= latest.revision else None

    async def _named(self, call: Call, tracking_id: str) -> Case:
        checks = Checks()
        checks.line("tracking_id", tracking_id, ID_CHARS_MAX, required=True)
        checks.settle()
        return await self._store.reading.message(call.tenant_id, tracking_id=tracking_id)

    async def _found(self, call: Call, request: wire.GetStatusRequest) -> tuple[Case, list[Event], Explanation | None]:
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


def _filter(given: NotificationFilter, call: Call) -> Filter:
    return convert.wanted(given, call.tenant.default_region, call.vault.index)


def _repeated(request: wire.SendRequest, call: Call, first: Message) -> NewMessage:
    """The message of a request, with its fingerprint, by the time and class of the first under its key. Raises Invalid.

    It is never kept: it tells whether the request is the first one again.
    """
    checks = Checks()
    new = new_message(checks, request, call, new_id(), first.created_at, first.message_class)
    checks.settle()
    return replace(new, fingerprint=_fingerprint(request, new, call))


def _fingerprint(request: wire.SendRequest, new: NewMessage, call: Call) -> bytes:
    """What a repeated request is recognised by. Keyed: a bare hash would give away short codes to whoever reads it."""
    return bytes.fromhex(call.vault.index(digest_of(as_asked(request, new))))
