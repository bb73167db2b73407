"""Twilio: texts and spoken messages, with signed receipts, status polls and look-ups by number and text.

Making a message is not idempotent, and Twilio knows no reference of ours: a look-up compares what went out, and tells
something only where a single entry can be it.
"""

import asyncio
import base64
import json
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus
from urllib.parse import quote
from xml.sax.saxutils import escape, quoteattr

import structlog

from server.model.accounts import Account, Check, HandOff, ProviderType, Setting, Sought
from server.model.clock import SECOND
from server.model.enums import Channel
from server.model.messages import Follow
from server.model.outcomes import (
    Accepted,
    Fault,
    LookUp,
    Outcome,
    Receipt,
    Refusal,
    Rejected,
    Report,
    ambiguous,
    misconfigured,
    rejected,
)
from server.providers.answers import as_int, json_object, outcome_of_silence, outcome_of_status
from server.providers.transport import Answer, Call, Transport, form_call
from server.providers.twilio_codes import CODES, receipt_of
from server.providers.twilio_resources import (
    Resource,
    entries_in,
    found_in,
    listings_for,
    resource_for,
    resource_of,
)
from server.providers.twilio_signature import form_fields, is_signed, is_whole, names_digest

TEXT_CHARS_MAX = 1600
TWIML_CHARS_MAX = 4000
VALID_SECONDS_MAX = 36_000
CALLS_AT_ONCE = 10
ASK_SECONDS = 1.5
"""For all the calls of one question. What is not told by then is not told: everything else would be lost with it."""

_SID = "[0-9a-fA-F]{32}"
_SENDER = r"\+[1-9][0-9]{6,14}|[0-9]{3,8}|(?=.*[A-Za-z])[A-Za-z0-9 &+_-]{2,11}"

TYPE = ProviderType(
    type="twilio",
    caption="Twilio",
    channels=(Channel.SMS, Channel.VOICE),
    settings=(
        Setting(
            "account_sid",
            "Account SID",
            "Names the account, from the front page of its console: AC and 32 more characters.",
            required=True,
            rules=(f"matches:AC{_SID}",),
        ),
        Setting(
            "auth_token",
            "Auth token",
            "The account's primary token: it proves receipts, and who calls where no API key is given.",
            required=True,
            secret=True,
            rules=("min:8", "max:200"),
        ),
        Setting(
            "from",
            "Sender phone number",
            "A number in the form +15005550006, a short code or an alphanumeric sender. Calls need a number.",
            required=True,
            unless="messaging_service_sid",
            rules=(f"matches:{_SENDER}",),
        ),
        Setting(
            "messaging_service_sid",
            "Messaging service SID",
            "The service that chooses the sender of texts; it goes before the sender's number.",
            rules=(f"matches:MG{_SID}",),
        ),
        Setting(
            "api_key_sid",
            "API key SID",
            "With its secret, it stands in for the auth token in calls to the provider.",
            rules=(f"matches:SK{_SID}",),
        ),
        Setting("api_key_secret", "API key secret", "Goes with the API key SID.", secret=True, rules=("max:200",)),
    ),
    follow=Follow(polls=True, looks_up=True, pushes=True),
    capabilities=("look_up", "status_polls", "receipts", "templates", "balance"),
    documentation_url="https://www.twilio.com/docs/messaging/api/message-resource",
    default_base_url="https://api.twilio.com",
)

_SERVICE = re.compile(f"MG{_SID}")
_TEMPLATE = re.compile(f"HX{_SID}")
_MASK = "•••"
_NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_REPORTED = (("MessageSid", "MessageStatus"), ("SmsSid", "SmsStatus"), ("CallSid", "CallStatus"))

_log = structlog.get_logger("providers")


class Twilio:
    """One account with Twilio."""

    type = TYPE

    def __init__(self, account: Account, transport: Transport) -> None:
        self._base_url = account.base_url or TYPE.default_base_url
        self._account_sid = account.settings["account_sid"]
        self._token = account.secrets["auth_token"]
        self._from = account.settings.get("from", "")
        self._service = account.settings.get("messaging_service_sid", "")
        self._authorization = {"authorization": _basic(account)}
        self._timeout_seconds = account.timeout_seconds
        self._transport = transport

    async def send(self, hand_off: HandOff) -> Outcome:
        """Makes one message or one call. Each time a new one: Twilio does not tell a repeat."""
        unfit = self._unfit(hand_off)
        if unfit is not None:
            return unfit
        path = self._path(f"{resource_for(hand_off.channel).name}.json")
        call = form_call(self._base_url, path, self._fields(hand_off), self._authorization)
        reply = await self._transport.exchange(call, hand_off.timeout_seconds, leave_by=hand_off.leave_by)
        return _taken(reply, hand_off) if isinstance(reply, Answer) else outcome_of_silence(reply)

    async def statuses(self, ids: Sequence[str]) -> Sequence[tuple[str, Receipt]]:
        """What became of these, each asked for by itself: of too many, a random part is told."""
        known = {name: resource for name in ids if (resource := resource_of(name)) is not None}
        asked = random.sample(list(known), len(known))
        answers = await self._ask([f"{known[name].name}/{name}.json" for name in asked])
        told = ((name, _status(name, known[name], answer)) for name, answer in zip(asked, answers, strict=True))
        return [(name, receipt) for name, receipt in told if receipt is not None]

    async def look_up(self, sought: Sequence[Sought]) -> Sequence[LookUp]:
        """Whether the lists hold these. What they do not hold may yet be there."""
        listings = list(dict.fromkeys(listing for one in sought for listing in listings_for(one)))
        answers = await self._ask([listing.path for listing in listings])
        lists = {
            listing: entries_in(listing, answer.body) if answer and answer.status == HTTPStatus.OK else None
            for listing, answer in zip(listings, answers, strict=True)
        }
        return found_in(lists, sought)

    def follow(self, channel: Channel, *, templated: bool) -> Follow:  # noqa: ARG002 - messages and calls alike
        """A look-up compares texts, and that of a template is not ours to compare."""
        return Follow(polls=True, looks_up=not templated, pushes=True)

    def reports(self, url: str, headers: Mapping[str, str], body: bytes) -> Sequence[Report] | None:
        """What a call that bears the account's signature reports."""
        fields = self._proved(url, headers.get("x-twilio-signature", ""), body)
        return None if fields is None else list(_reported(fields))

    async def check(self) -> Check:
        """Whether the credentials are good, with the balance."""
        reply = await self._transport.exchange(self._get("Balance.json"), self._timeout_seconds)
        if not isinstance(reply, Answer):
            return Check(outcome_of_silence(reply))
        told = json_object(reply.body) if reply.status == HTTPStatus.OK else None
        if told is None:
            return Check(_refusal(reply))
        balance, currency = told.get("balance"), told.get("currency")
        known = isinstance(balance, str) and isinstance(currency, str)
        return Check(Accepted(""), f"{balance} {currency}" if known else "")

    def preview(self, hand_off: HandOff) -> str:
        """The request with its secrets masked, one form field a line."""
        shown = self._fields(hand_off)
        shown |= {"StatusCallback": _MASK} if hand_off.report_to else {}
        fields = "\n".join(f"{name}={value}" for name, value in shown.items())
        path = self._path(f"{resource_for(hand_off.channel).name}.json")
        return f"POST {self._base_url.rstrip('/')}{path}\nAuthorization: Basic {_MASK}\n{fields}"

    async def aclose(self) -> None:
        """Nothing to let go of: connections belong to the transport."""

    def _unfit(self, hand_off: HandOff) -> Outcome | None:
        """Why it is not even tried."""
        if hand_off.channel == Channel.VOICE:
            return self._unfit_to_say(hand_off)
        if hand_off.template and not _TEMPLATE.fullmatch(hand_off.template):
            return misconfigured(Fault.TEMPLATE, "TEMPLATE", "The template is not named by a content SID.")
        fits = bool(hand_off.template) or 0 < len(hand_off.text) <= TEXT_CHARS_MAX
        return None if fits else CODES[21617]("TEXT", {})

    def _unfit_to_say(self, hand_off: HandOff) -> Outcome | None:
        if hand_off.template:
            return rejected(Refusal.CONTENT, "TEMPLATE", "The provider has no templates for what is said.")
        if not self._caller(hand_off):
            return misconfigured(Fault.SENDER, "NO_SENDER", "The account has no number to call from.")
        fits = hand_off.text and len(twiml(hand_off.text, hand_off.locale)) <= TWIML_CHARS_MAX
        return None if fits else CODES[21617]("TEXT", {})

    def _fields(self, hand_off: HandOff) -> dict[str, str]:
        fields = self._call_fields(hand_off) if hand_off.channel == Channel.VOICE else self._text_fields(hand_off)
        return {"To": hand_off.destination, **fields}

    def _text_fields(self, hand_off: HandOff) -> dict[str, str]:
        fields = self._sender(hand_off)
        if hand_off.template:
            variables = json.dumps(dict(hand_off.params), ensure_ascii=False)
            fields |= {"ContentSid": hand_off.template, "ContentVariables": variables}
        else:
            fields["Body"] = hand_off.text
        fields["ValidityPeriod"] = str(max(1, min(hand_off.valid_micros // SECOND, VALID_SECONDS_MAX)))
        return fields | ({"StatusCallback": hand_off.report_to} if hand_off.report_to else {})

    def _call_fields(self, hand_off: HandOff) -> dict[str, str]:
        fields = {"From": self._caller(hand_off), "Twiml": twiml(hand_off.text, hand_off.locale)}
        if hand_off.report_to:
            fields |= {"StatusCallback": hand_off.report_to, "StatusCallbackEvent": "completed"}
        return fields

    def _sender(self, hand_off: HandOff) -> dict[str, str]:
        sender = hand_off.sender or self._service or self._from
        return {"MessagingServiceSid" if _SERVICE.fullmatch(sender) else "From": sender}

    def _caller(self, hand_off: HandOff) -> str:
        return self._from if _SERVICE.fullmatch(hand_off.sender) else hand_off.sender or self._from

    def _proved(self, url: str, claimed: str, body: bytes) -> Mapping[str, object] | None:
        if names_digest(url):
            proved = is_whole(url, body) and is_signed(self._token, url, {}, claimed)
            return (json_object(body) or {}) if proved else None
        fields = form_fields(body)
        if fields is None or not is_signed(self._token, url, fields, claimed):
            return None
        return {name: values[-1] for name, values in fields.items()}

    async def _ask(self, paths: Sequence[str]) -> Sequence[Answer | None]:
        """What is answered to each within ASK_SECONDS in all, some of them side by side; None where nothing is.

        Once the account asks too much, nothing more is asked: sends share its limit.
        """
        loop, gate = asyncio.get_running_loop(), asyncio.Semaphore(CALLS_AT_ONCE)
        until = loop.time() + ASK_SECONDS

        async def ask(path: str) -> Answer | None:
            nonlocal until
            async with gate:
                left = until - loop.time()
                reply = await self._transport.exchange(self._get(path), left) if left > 0 else None
                if isinstance(reply, Answer) and reply.status == HTTPStatus.TOO_MANY_REQUESTS:
                    until = loop.time()
                return reply if isinstance(reply, Answer) else None

        return await asyncio.gather(*(ask(path) for path in paths))

    def _get(self, path: str) -> Call:
        return Call(self._base_url, self._path(path), headers=self._authorization, method="GET")

    def _path(self, rest: str) -> str:
        return f"/2010-04-01/Accounts/{quote(self._account_sid, safe='')}/{rest}"


def twiml(text: str, locale: str) -> str:
    """A document that has a text said twice, with a pause between."""
    language = f" language={quoteattr(locale)}" if locale else ""
    said = f"<Say{language}>{escape(_NOT_IN_XML.sub(' ', text))}</Say>"
    return f'<Response>{said}<Pause length="1"/>{said}</Response>'


def _basic(account: Account) -> str:
    user, password = account.settings["account_sid"], account.secrets["auth_token"]
    key, secret = account.settings.get("api_key_sid"), account.secrets.get("api_key_secret")
    if key and secret:
        user, password = key, secret
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def _taken(answer: Answer, hand_off: HandOff) -> Outcome:
    """What an answer means: taken, when it is of a new message to our recipient."""
    made = json_object(answer.body) if answer.status == HTTPStatus.CREATED else None
    if made is None:
        return _refusal(answer)
    sid = made.get("sid")
    if not isinstance(sid, str) or not resource_for(hand_off.channel).sid.fullmatch(sid):
        return ambiguous("NO_MESSAGE_ID", "The provider said yes and named no message.")
    if made.get("to") != hand_off.destination:
        return ambiguous("RECIPIENT", "The provider answered with a message to another recipient.")
    return Accepted(sid)


def _refusal(answer: Answer) -> Outcome:
    """What an answer means that is no success: by its code, by its HTTP status where it has none.

    With a code that nobody knows, a status may tell of the account; it does not tell that our request is at fault.
    """
    told = json_object(answer.body) if answer.status >= HTTPStatus.BAD_REQUEST else None
    code = as_int(told.get("code")) if told else None
    meaning = CODES.get(code) if code else None
    if meaning is not None:
        return meaning(str(code), answer.headers)
    plain = outcome_of_status(answer)
    if not code:
        return plain
    _log.warning("twilio gave a code that is not documented", code=code, status=answer.status)
    if isinstance(plain, Rejected):
        return ambiguous(str(code), "The provider gave an answer that is not documented.")
    return plain


def _status(name: str, resource: Resource, answer: Answer | None) -> Receipt | None:
    told = json_object(answer.body) if answer and answer.status == HTTPStatus.OK else None
    if told is None or told.get("sid") != name:
        return None
    return _receipt(resource, told.get("status"), told.get("error_code"))


def _reported(fields: Mapping[str, object]) -> Iterator[Report]:
    for name, status in _REPORTED:
        sid = fields.get(name)
        resource = resource_of(sid) if isinstance(sid, str) else None
        if isinstance(sid, str) and resource is not None and status in fields:
            receipt = _receipt(resource, fields[status], fields.get("ErrorCode"))
            if receipt is not None:
                yield Report(sid, receipt)
            return


def _receipt(resource: Resource, status: object, error_code: object) -> Receipt | None:
    word = status if isinstance(status, str) else ""
    receipt = receipt_of(resource.statuses, word, as_int(error_code))
    if receipt is None:
        _log.warning("twilio reported a status that is not documented", status=word[:40])
    return receipt
