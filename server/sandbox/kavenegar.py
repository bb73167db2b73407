"""Kavenegar's methods: texts, templates and calls, what became of them, and the account."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

from aiohttp import web

from server.model.clock import Micros
from server.model.enums import Channel
from server.model.magic import Fate
from server.sandbox.faults import Vanish, code_to_answer, vanish
from server.sandbox.forms import BadForm, Form, first, form_of
from server.sandbox.kavenegar_records import KavenegarLedger, MessageIds, Status, Taken
from server.sandbox.kavenegar_wire import (
    CODES,
    OK,
    Refused,
    all_digits,
    e164,
    envelope,
    listed,
    numbers,
    report,
    required,
    sent,
    text_of,
    tokens_of,
)
from server.sandbox.ledger import Ledgers, now_micros

KEY_CHARS_MIN = 8
RECEPTORS_MAX = 200
IDS_MAX = 500
MISSING_TEMPLATE = "missing"
"""The one name that no template has."""

_REFUSALS = {Fate.REJECTED: 411, Fate.RATE_LIMITED: 451, Fate.UNAVAILABLE: 409}

Method = Callable[[KavenegarLedger, Form], Awaitable[web.StreamResponse]]


class Kavenegar:
    """Every account with Kavenegar."""

    codes = frozenset(CODES)

    def __init__(self, *, slow_seconds: float, settle: Micros) -> None:
        self._slow_seconds = slow_seconds
        self._settle = settle
        self._ids = MessageIds()
        self.ledgers = Ledgers(KavenegarLedger)
        self._methods: Mapping[str, Method] = {
            "sms/send": self._send,
            "sms/status": self._status,
            "sms/statuslocalmessageid": self._status_by_local_id,
            "verify/lookup": self._look_up,
            "call/maketts": self._make_tts,
            "account/info": self._info,
        }

    def routes(self) -> Iterable[web.RouteDef]:
        """Any method: `/v1/{key}/{scope}/{method}.json`."""
        return [web.route("*", "/v1/{api_key}/{scope}/{method}.json", self._call)]

    async def _call(self, request: web.Request) -> web.StreamResponse:
        try:
            return await self._called(request)
        except BadForm:
            return envelope(400)
        except Refused as refused:
            return envelope(refused.code)
        except Vanish:
            return vanish(request)

    async def _called(self, request: web.Request) -> web.StreamResponse:
        method = f"{request.match_info['scope']}/{request.match_info['method']}"
        form = await form_of(request)
        if method == "utils/getdate":
            return envelope(OK, {"datetime": time.strftime("%Y/%m/%d %H:%M:%S"), "unixtime": int(time.time())})
        api_key = request.match_info["api_key"]
        if len(api_key) < KEY_CHARS_MIN:
            raise Refused(403)
        ledger = self.ledgers.of(api_key)
        ledger.calls += 1
        told = code_to_answer(ledger.answer)
        if told is not None:
            raise Refused(told)
        if method not in self._methods:
            raise Refused(404)
        return await self._methods[method](ledger, form)

    async def _send(self, ledger: KavenegarLedger, form: Form) -> web.StreamResponse:
        return envelope(OK, await self._take_all(ledger, form, Channel.SMS))

    async def _make_tts(self, ledger: KavenegarLedger, form: Form) -> web.StreamResponse:
        """One call is told as an object, as the documentation shows it; several as a list."""
        entries = await self._take_all(ledger, form, Channel.VOICE)
        return envelope(OK, entries[0] if len(entries) == 1 else entries)

    async def _look_up(self, ledger: KavenegarLedger, form: Form) -> web.StreamResponse:
        """A template by text or by call. There is no number of the caller's: a repeat makes a second message."""
        receptor, template = required(form, "receptor"), required(form, "template")
        if template == MISSING_TEMPLATE:
            raise Refused(424)
        tokens = tokens_of(form)
        kind = first(form, "type") or "sms"
        if kind not in ("sms", "call"):
            raise Refused(400)
        if kind == "call" and not all_digits(tokens[0]):
            raise Refused(428)
        channel = Channel.VOICE if kind == "call" else Channel.SMS
        message = await self._take(ledger, self._new(channel, receptor, ""), None)
        if message.fate == Fate.ANSWER_LOST:
            raise Vanish
        return envelope(OK, sent(message, " ".join(tokens)))

    async def _take_all(self, ledger: KavenegarLedger, form: Form, channel: Channel) -> list[dict[str, object]]:
        """The same text to each receptor; what was taken under the same number before is told again."""
        receptors = listed(form, "receptor", RECEPTORS_MAX)
        text, sender = text_of(form), first(form, "sender")
        local_ids = numbers(form, "localid", RECEPTORS_MAX) if first(form, "localid") else [None] * len(receptors)
        if len(local_ids) != len(receptors):
            raise Refused(419)
        taken: list[Taken] = []
        lost = False
        for receptor, local_id in zip(receptors, local_ids, strict=True):
            known = ledger.repeat_of(local_id)
            ledger.repeated += known is not None
            message = known or await self._take(ledger, self._new(channel, receptor, sender), local_id)
            lost = lost or (known is None and message.fate == Fate.ANSWER_LOST)
            taken.append(message)
        if lost:
            raise Vanish
        return [sent(message, text) for message in taken]

    def _new(self, channel: Channel, receptor: str, sender: str) -> Taken:
        return self._ids.new(channel, e164(receptor), receptor, sender)

    async def _take(self, ledger: KavenegarLedger, message: Taken, local_id: int | None) -> Taken:
        if message.fate in _REFUSALS:
            raise Refused(_REFUSALS[message.fate])
        if message.fate == Fate.SLOW:
            await asyncio.sleep(self._slow_seconds)
        ledger.take(message, local_id)
        return message

    async def _status(self, ledger: KavenegarLedger, form: Form) -> web.StreamResponse:
        entries: list[dict[str, object]] = []
        for message_id in numbers(form, "messageid", IDS_MAX):
            message = ledger.taken.get(message_id)
            entries += [report(message_id, status) for status in self._reports(message)]
        return envelope(OK, entries)

    async def _status_by_local_id(self, ledger: KavenegarLedger, form: Form) -> web.StreamResponse:
        entries: list[dict[str, object]] = []
        for local_id in numbers(form, "localid", IDS_MAX):
            message = ledger.repeat_of(local_id)
            status = self._reports(message)[0]
            name = message.message_id if message else 0
            entries.append(report(name, status) | {"localid": str(local_id)})
        return envelope(OK, entries)

    async def _info(self, ledger: KavenegarLedger, form: Form) -> web.StreamResponse:  # noqa: ARG002 - as every method
        return envelope(OK, {"remaincredit": 1_000_000, "expiredate": 4_102_444_800, "type": "master"})

    def _reports(self, message: Taken | None) -> Sequence[Status]:
        return message.reports(now_micros(), self._settle) if message else (Status.NOT_KNOWN,)
