"""Twilio's resources: Messages, Calls and Balance of an account, API 2010-04-01.

Every AccountSid with a password of at least eight characters is an account of its own. What an account takes it posts
receipts of, signed with the password that the call came with.
"""

import asyncio
import base64
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from aiohttp import web

from server.model.clock import micros
from server.model.enums import Channel
from server.model.magic import Fate, fate_of
from server.sandbox.faults import Vanish, code_to_answer, vanish
from server.sandbox.forms import BadForm, Form, form_of
from server.sandbox.ledger import Ledgers, Recent, now_micros
from server.sandbox.receipts import Callback, Receipts
from server.sandbox.twilio_pages import Filters, page
from server.sandbox.twilio_records import Call, Message, Record, TwilioLedger, new_sid
from server.sandbox.twilio_wire import (
    ACCOUNT_SID,
    BAD_PARAMETER,
    CODES,
    KEY_SID,
    VERSION,
    Refused,
    calling,
    number_of,
    refusal,
    texting,
)

PASSWORD_CHARS_MIN = 8
CREATED = 201

_REFUSALS = {Fate.RATE_LIMITED: 20429, Fate.UNAVAILABLE: 20503}
_BAD_TO = {Channel.SMS: 21211, Channel.VOICE: 21217}


@dataclass(frozen=True, slots=True)
class Visit:
    """One call of an account that proved to be one."""

    account_sid: str
    password: str = field(repr=False)
    ledger: TwilioLedger
    form: Form = field(repr=False)
    sid: str
    """Of the one resource that is asked for, where it is one."""


Method = Callable[[Visit], Awaitable[web.StreamResponse]]
Kept = TypeVar("Kept", bound=Record)


class Twilio:
    """Every account with Twilio."""

    codes = frozenset(CODES)

    def __init__(self, receipts: Receipts, *, slow_seconds: float, settle_seconds: float) -> None:
        self._receipts = receipts
        self._slow_seconds = slow_seconds
        self._settle_seconds = settle_seconds
        self.ledgers = Ledgers(TwilioLedger)

    def routes(self) -> Iterable[web.RouteDef]:
        """All below `/2010-04-01`; what is not known there is answered with 20404."""
        account = f"/{VERSION}/Accounts/{{account_sid}}"
        return [
            web.post(f"{account}/Messages.json", self._answering(self._text)),
            web.get(f"{account}/Messages.json", self._answering(self._list_messages)),
            web.get(f"{account}/Messages/{{sid}}.json", self._answering(self._fetch_message)),
            web.post(f"{account}/Calls.json", self._answering(self._call)),
            web.get(f"{account}/Calls.json", self._answering(self._list_calls)),
            web.get(f"{account}/Calls/{{sid}}.json", self._answering(self._fetch_call)),
            web.get(f"{account}/Balance.json", self._answering(self._balance)),
            web.route("*", f"{account}/{{rest:.*}}", self._answering(self._nothing)),
        ]

    def _answering(self, method: Method) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def answer(request: web.Request) -> web.StreamResponse:
            try:
                return await method(await self._visit(request))
            except BadForm:
                return refusal(BAD_PARAMETER)
            except Refused as refused:
                return refusal(refused.code)
            except Vanish:
                return vanish(request)

        return answer

    async def _visit(self, request: web.Request) -> Visit:
        account_sid = request.match_info["account_sid"]
        password = _password(request, account_sid)
        form = await form_of(request)
        ledger = self.ledgers.of(account_sid)
        ledger.calls += 1
        told = code_to_answer(ledger.answer)
        if told is not None:
            raise Refused(told)
        return Visit(account_sid, password, ledger, form, request.match_info.get("sid", ""))

    async def _text(self, visit: Visit) -> web.StreamResponse:
        asked = texting(visit.form)
        fate = await self._play(Channel.SMS, number_of(asked.to))
        message = Message(new_sid("SM"), visit.account_sid, asked, fate, now_micros())
        return self._taken(visit, visit.ledger.messages, message, asked.callback)

    async def _call(self, visit: Visit) -> web.StreamResponse:
        asked = calling(visit.form)
        fate = await self._play(Channel.VOICE, asked.to)
        call = Call(new_sid("CA"), visit.account_sid, asked, fate, now_micros())
        return self._taken(visit, visit.ledger.voice, call, asked.callback)

    async def _play(self, channel: Channel, phone: str) -> Fate:
        """The fate of a message to this number; what is not taken raises, what is slow takes its time."""
        fate = fate_of(channel, phone)
        if fate == Fate.REJECTED:
            raise Refused(_BAD_TO[channel])
        if fate in _REFUSALS:
            raise Refused(_REFUSALS[fate])
        if fate == Fate.SLOW:
            await asyncio.sleep(self._slow_seconds)
        return fate

    def _taken(self, visit: Visit, kept: Recent[str, Kept], record: Kept, url: str) -> web.StreamResponse:
        kept.keep(record.sid, record)
        if url:
            receipts = record.receipts(self._settle_seconds)
            self._receipts.post(Callback(url, visit.password), receipts, visit.ledger.tally)
        if record.fate == Fate.ANSWER_LOST:
            raise Vanish
        return web.json_response(record.shown(record.first_status), status=CREATED)

    async def _fetch_message(self, visit: Visit) -> web.StreamResponse:
        return self._fetch(visit.ledger.messages, visit.sid)

    async def _fetch_call(self, visit: Visit) -> web.StreamResponse:
        return self._fetch(visit.ledger.voice, visit.sid)

    def _fetch(self, kept: Recent[str, Kept], sid: str) -> web.StreamResponse:
        record = kept.get(sid)
        if record is None:
            raise Refused(20404)
        return web.json_response(self._shown(record))

    async def _list_messages(self, visit: Visit) -> web.StreamResponse:
        return self._list(visit, "Messages", visit.ledger.messages, "DateSent")

    async def _list_calls(self, visit: Visit) -> web.StreamResponse:
        return self._list(visit, "Calls", visit.ledger.voice, "StartTime")

    def _list(self, visit: Visit, name: str, kept: Recent[str, Kept], date: str) -> web.StreamResponse:
        """What the filters let through, newest first; `date` is the name that the resource gives to its time."""
        filters = Filters.of(visit.form, date)
        shown = (self._shown(record) for record in kept.newest_first() if filters.let_through(record))
        return web.json_response(page(f"/{VERSION}/Accounts/{visit.account_sid}/{name}.json", name, visit.form, shown))

    async def _balance(self, visit: Visit) -> web.StreamResponse:
        return web.json_response({"account_sid": visit.account_sid, "balance": "1000.00", "currency": "USD"})

    async def _nothing(self, visit: Visit) -> web.StreamResponse:  # noqa: ARG002 - as every method
        raise Refused(20404)

    def _shown(self, record: Record) -> Mapping[str, object]:
        return record.shown(record.status(now_micros(), micros(self._settle_seconds)))


def _password(request: web.Request, account_sid: str) -> str:
    """The password of the Basic auth: of the account itself, or of one of its keys."""
    scheme, _, encoded = request.headers.get("Authorization", "").partition(" ")
    try:
        user, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
    except ValueError:
        raise Refused(20003) from None
    known = user == account_sid or KEY_SID.fullmatch(user)
    if not (scheme.lower() == "basic" and ACCOUNT_SID.fullmatch(account_sid) and known):
        raise Refused(20003)
    if len(password) < PASSWORD_CHARS_MIN:
        raise Refused(20003)
    return password
