"""SandboxService: what the messages of a sandbox said."""

from angarium.v1 import sandbox_service_pb2 as wire
from angarium.v1.sandbox_service_pb2_grpc import SandboxServiceServicer

from server.api.caller import current_call
from server.api.convert import sandbox as convert
from server.api.convert.checks import ID_CHARS_MAX, Checks
from server.api.convert.messages import email_of, phone_of
from server.api.pages import fitting, listing_of
from server.api.tokens import page_token, read_page_token
from server.model.enums import Mode
from server.store.store import Store


class Sandbox(SandboxServiceServicer):
    """A tenant that is not in the mode SANDBOX has nothing to show."""

    def __init__(self, store: Store) -> None:
        self._reading = store.reading

    async def PeekOutbox(self, request: wire.PeekOutboxRequest, context: object) -> wire.PeekOutboxResponse:
        call = current_call()
        checks = Checks()
        size = checks.page_size(request.page_size)
        checks.line("tracking_id", request.tracking_id, ID_CHARS_MAX)
        phone = phone_of(checks, "phone", request.phone, call.tenant.default_region, voice=True)
        email = email_of(checks, "email", request.email)
        checks.settle()
        listing = listing_of("PeekOutbox", request)
        after = read_page_token(call.vault, listing, request.page_token)
        if call.tenant.mode != Mode.SANDBOX:
            return wire.PeekOutboxResponse()
        records = await self._reading.outbox(
            call.tenant_id,
            tracking_id=request.tracking_id,
            phone=phone,
            email=email,
            before=after[0] if after else "",
            limit=size + 1,
        )
        shown = fitting([convert.sandbox_message(record) for record in records[:size]])
        more = len(records) > len(shown)
        token = page_token(call.vault, listing, [records[len(shown) - 1].place]) if more else ""
        return wire.PeekOutboxResponse(messages=shown, next_page_token=token)
