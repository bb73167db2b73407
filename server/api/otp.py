"""OtpService: one-time codes, sent and checked."""

import time
from dataclasses import replace

from angarium.v1 import otp_service_pb2 as wire
from angarium.v1.otp_service_pb2_grpc import OtpServiceServicer

from server.api.acceptance import cursor_behind, first_under, to_its_end
from server.api.caller import Call, current_call
from server.api.convert import otp as convert
from server.api.convert.checks import Checks
from server.model.clock import Micros
from server.model.errors import Invalid, NotFound, Precondition, Reason, not_found
from server.model.messages import Message, NewMessage
from server.model.reach import require_reach
from server.model.templates import NO_TEMPLATES, Template, beside, chosen_for_code, require_usable
from server.model.work import Acceptance
from server.store.store import Store
from server.vault.identity import new_id


class Otp(OtpServiceServicer):
    """A code leaves this process in a message alone: no answer, log or event tells one."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def OtpSend(self, request: wire.OtpSendRequest, context: object) -> wire.OtpSendResponse:
        call = current_call()
        acceptance = await self._accept(request, call)
        return convert.sent(acceptance, await cursor_behind(self._store, call, acceptance))

    async def OtpVerify(self, request: wire.OtpVerifyRequest, context: object) -> wire.OtpVerifyResponse:
        check = convert.new_check(request, current_call())
        return convert.checked(await to_its_end(self._store.verify(check)))

    async def _accept(self, request: wire.OtpSendRequest, call: Call) -> Acceptance:
        """Keeps the message. A repeat is answered as the first call was, whatever became of routes and templates."""
        try:
            new = self._judged(request, call)
        except (Invalid, NotFound, Precondition):
            first = await first_under(self._store, call, request.request_id)
            if first is None:
                raise
            checks = Checks()
            new = _asked(checks, request, call, first.created_at)
            checks.settle()
        return await to_its_end(self._store.accept(new))

    def _judged(self, request: wire.OtpSendRequest, call: Call) -> NewMessage:
        """The message with its fingerprint, its template pinned, and with a way to its recipient."""
        snapshot, checks = self._store.configuration.snapshot, Checks()
        new = _asked(checks, request, call, time.time_ns() // 1000)
        templates = snapshot.templates.get(call.tenant_id, NO_TEMPLATES)
        key, intent = new.message.template_key, new.message.intent
        template = templates.get(key) if key else chosen_for_code(templates.values(), intent)
        if template is not None:
            convert.check_code_words(checks, new, template)
        checks.settle()
        if template is None:
            raise not_found("template", key) if key else _no_template(intent)
        require_usable(template, new.message.message_class)
        new = replace(new, message=_pinned(new, template))
        rules, accounts = snapshot.rules.get(call.tenant_id, ()), snapshot.accounts.get(call.tenant_id, ())
        return require_reach(new, call.tenant, rules, accounts, beside(templates, template))


def _asked(checks: Checks, request: wire.OtpSendRequest, call: Call, now: Micros) -> NewMessage:
    """The message as the request asks for it, with its fingerprint: keyed, for a bare hash would give away codes."""
    new = convert.new_code_message(checks, request, call, new_id(), now)
    return replace(new, fingerprint=bytes.fromhex(call.vault.index(convert.digest_of_code(request, new))))


def _pinned(new: NewMessage, template: Template) -> Message:
    return replace(new.message, template_key=template.key, template_revision=template.revision)


def _no_template(intent: str) -> NotFound:
    message = f"There is no active template of the class OTP that serves the intent {intent!r}."
    return NotFound(Reason.RESOURCE_NOT_FOUND, message, {"resource": "template"})
