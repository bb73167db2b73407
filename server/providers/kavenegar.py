"""Kavenegar (Iran): texts and spoken messages with de-duplication by our own number, templates, polls and look-ups.

The account's key is a segment of the path, so no URL of it is ever logged. Whatever the HTTP status, the body is read
and its `return.status` counts; the HTTP status speaks only where there is no such body.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from urllib.parse import quote

import structlog

from server.model.accounts import Account, Check, HandOff, ProviderType, Setting, Sought
from server.model.enums import Channel, FailureReason, ReceiptKind
from server.model.failures import Failure
from server.model.messages import Follow
from server.model.outcomes import (
    Accepted,
    Fault,
    Found,
    LookUp,
    NeverRegistered,
    NoAnswer,
    Outcome,
    Receipt,
    Refusal,
    Report,
    ambiguous,
    misconfigured,
    rate_limited,
    rejected,
    unavailable,
)
from server.providers.answers import (
    as_int,
    as_object,
    json_object,
    objects_in,
    outcome_of_silence,
    outcome_of_status,
)
from server.providers.transport import Answer, Call, Transport, form_call

TEXT_CHARS_MAX = 900
IDS_PER_CALL_MAX = 500
STATUSES_KEPT_SECONDS = 48 * 3600
LOOK_UP_KEPT_SECONDS = 12 * 3600
"""Later than this, Kavenegar answers a look-up of any number as if it had never been registered."""

TYPE = ProviderType(
    type="kavenegar",
    caption="Kavenegar",
    channels=(Channel.SMS, Channel.VOICE),
    settings=(
        Setting("api_key", "API key", "The key of the account, from its panel.", True, True, ("min:8", "max:200")),
        Setting("sender", "Line", "The line to send from; the account's default line when empty.", rules=("max:20",)),
    ),
    follow=Follow(
        polls=True, looks_up=True, keeps_seconds=STATUSES_KEPT_SECONDS, looks_up_seconds=LOOK_UP_KEPT_SECONDS
    ),
    capabilities=("deduplication", "look_up", "status_polls", "templates", "balance"),
    documentation_url="https://kavenegar.com/rest.html",
    default_base_url="https://api.kavenegar.com",
)

OK = 200
CODES: Mapping[int, Callable[[str], Outcome]] = {
    400: lambda code: rejected(Refusal.REQUEST, code, "Parameters of our request are incomplete."),
    401: lambda code: misconfigured(Fault.CREDENTIALS, code, "The account is disabled."),
    402: lambda code: unavailable(code, "The operation failed at the provider."),
    403: lambda code: misconfigured(Fault.CREDENTIALS, code, "The API key is not valid."),
    404: lambda code: misconfigured(Fault.CREDENTIALS, code, "The provider knows no such method; check base_url."),
    405: lambda code: rejected(Refusal.REQUEST, code, "The method was called with the wrong verb."),
    406: lambda code: rejected(Refusal.REQUEST, code, "A mandatory parameter of our request is empty."),
    407: lambda code: misconfigured(Fault.CREDENTIALS, code, "The account needs its IP addresses set."),
    409: lambda code: unavailable(code, "The provider cannot answer now."),
    411: lambda code: rejected(Refusal.RECIPIENT, code, "The recipient is invalid."),
    412: lambda code: misconfigured(Fault.SENDER, code, "The line is invalid or belongs to somebody else."),
    413: lambda code: rejected(Refusal.CONTENT, code, "The text is empty or too long."),
    414: lambda code: rejected(Refusal.REQUEST, code, "Our request holds too many rows."),
    415: lambda code: rejected(Refusal.REQUEST, code, "Our request starts beyond the last row."),
    416: lambda code: misconfigured(Fault.CREDENTIALS, code, "Our IP address is not among the account's."),
    417: lambda code: rejected(Refusal.REQUEST, code, "The date in our request is wrong or past."),
    418: lambda code: misconfigured(Fault.FUNDS, code, "The account's credit is too low."),
    419: lambda code: rejected(Refusal.REQUEST, code, "Lists in our request differ in length."),
    420: lambda code: rejected(Refusal.CONTENT, code, "The account may not send links."),
    422: lambda code: rejected(Refusal.CONTENT, code, "The text holds an unsuitable character."),
    424: lambda code: misconfigured(Fault.TEMPLATE, code, "The template is missing or not approved yet."),
    426: lambda code: misconfigured(Fault.TEMPLATE, code, "The account lacks the advanced service."),
    427: lambda code: misconfigured(Fault.SENDER, code, "The line needs an access level."),
    428: lambda code: rejected(Refusal.CONTENT, code, "Only digits can be read out."),
    429: lambda code: rate_limited(code, "Our IP address is restricted for now."),
    431: lambda code: rejected(Refusal.CONTENT, code, "A parameter does not suit the template."),
    432: lambda code: misconfigured(Fault.TEMPLATE, code, "The template has no place for the code."),
    451: lambda code: rate_limited(code, "Too many calls in a period."),
    501: lambda code: misconfigured(Fault.CREDENTIALS, code, "The account may only send tests to its owner."),
    604: lambda code: rejected(Refusal.REQUEST, code, "Our request holds too many numbers."),
    607: lambda code: misconfigured(Fault.TEMPLATE, code, "The tag is not known to the account."),
}

_OTHER = Receipt(ReceiptKind.OTHER)
STATUSES: Mapping[int, Receipt] = {
    1: _OTHER,
    2: _OTHER,
    4: _OTHER,
    5: _OTHER,
    6: Receipt(
        ReceiptKind.UNDELIVERED,
        Failure(FailureReason.PROVIDER_UNAVAILABLE, "The operator failed to carry the message.", "6"),
    ),
    10: Receipt(ReceiptKind.DELIVERED),
    11: Receipt(
        ReceiptKind.UNDELIVERED,
        Failure(FailureReason.RECIPIENT_UNREACHABLE, "The handset is off or out of reach.", "11"),
    ),
    13: Receipt(
        ReceiptKind.UNDELIVERED,
        Failure(FailureReason.PROVIDER_UNAVAILABLE, "The message was canceled at the provider, and refunded.", "13"),
    ),
    14: Receipt(
        ReceiptKind.UNDELIVERED,
        Failure(FailureReason.RECIPIENT_BLOCKED, "The recipient takes no messages from this kind of line.", "14"),
    ),
}
NOT_KNOWN = 100

TOKEN_CHARS_MAX = 100
TOKENS: Mapping[str, int] = {"token": 0, "token2": 0, "token3": 0, "token10": 5, "token20": 8}
"""The parameters of a template, and how many spaces each may hold."""
_APART = frozenset("_\u200b\u200c\u200d\u2060")
"""Neither may these stand in `token`: the underscore, and what keeps letters apart or together unseen."""

_MASK = "•••"
_IRAN = "98"
_MOBILE_DIGITS = 10

_log = structlog.get_logger("providers")


class Kavenegar:
    """One account with Kavenegar."""

    type = TYPE

    def __init__(self, account: Account, transport: Transport) -> None:
        self._base_url = account.base_url or TYPE.default_base_url
        self._key = account.secrets["api_key"]
        self._sender = account.settings.get("sender", "")
        self._timeout_seconds = account.timeout_seconds
        self._transport = transport

    async def send(self, hand_off: HandOff) -> Outcome:
        """Hands one message over; the same provider key never makes a second one, but where it is by a template."""
        unfit = _unfit(hand_off)
        if unfit is not None:
            return unfit
        call = self._call(_method(hand_off), self._fields(hand_off))
        reply = await self._transport.exchange(call, hand_off.timeout_seconds, leave_by=hand_off.leave_by)
        if not isinstance(reply, Answer):
            return outcome_of_silence(reply)
        entries = _entries(reply)
        return _taken(entries, hand_off.destination) if isinstance(entries, list) else entries

    async def statuses(self, ids: Sequence[str]) -> Sequence[tuple[str, Receipt]]:
        """What became of messages of the last 48 h, asked for 500 at a time."""
        known = frozenset(ids)
        reports: list[tuple[str, Receipt]] = []
        for batch in _batches(ids):
            for entry in await self._ask("sms/status", {"messageid": ",".join(batch)}):
                name, receipt = _text(entry.get("messageid")), _receipt(entry)
                if receipt is not None and name in known:
                    reports.append((name, receipt))
        return reports

    async def look_up(self, sought: Sequence[Sought]) -> Sequence[LookUp]:
        """Whether messages of the last 12 h were taken. An older one looks as if it never was: do not ask for it.

        That a call is not known proves nothing: nobody says that calls are among the messages it looks through.
        """
        told: dict[int | None, LookUp] = {}
        for batch in _batches(list(dict.fromkeys(str(one.provider_key) for one in sought))):
            for entry in await self._ask("sms/statuslocalmessageid", {"localid": ",".join(batch)}):
                told[as_int(entry.get("localid"))] = _looked_up(entry)
        return [_proved(told.get(one.provider_key, NoAnswer()), one.channel) for one in sought]

    def follow(self, channel: Channel, *, templated: bool) -> Follow:  # noqa: ARG002 - texts and calls alike
        """A message by a template bears no number of ours to look it up by."""
        return replace(TYPE.follow, looks_up=not templated)

    def reports(self, url: str, headers: Mapping[str, str], body: bytes) -> Sequence[Report] | None:  # noqa: ARG002 - the same whatever comes
        """Nothing that it posts is signed: what comes may be from anybody."""
        return None

    async def check(self) -> Check:
        """Whether the key is valid, with the credit that is left."""
        reply = await self._transport.exchange(self._call("account/info", {}), self._timeout_seconds)
        if not isinstance(reply, Answer):
            return Check(outcome_of_silence(reply))
        entries = _entries(reply)
        if not isinstance(entries, list):
            return Check(entries)
        credit = as_int(entries[0].get("remaincredit")) if entries else None
        return Check(Accepted(""), "" if credit is None else f"{credit} IRR")

    def preview(self, hand_off: HandOff) -> str:
        """The request with the key masked, one form field a line."""
        fields = "\n".join(f"{name}={value}" for name, value in self._fields(hand_off).items())
        return f"POST {self._base_url.rstrip('/')}/v1/{_MASK}/{_method(hand_off)}.json\n{fields}"

    async def aclose(self) -> None:
        """Nothing to let go of: connections belong to the transport."""

    async def _ask(self, method: str, fields: Mapping[str, str]) -> list[Mapping[str, object]]:
        """The entries of an answer; none when the call failed."""
        reply = await self._transport.exchange(self._call(method, fields), self._timeout_seconds)
        entries = _entries(reply) if isinstance(reply, Answer) else outcome_of_silence(reply)
        if isinstance(entries, list):
            return entries
        _log.info("kavenegar gave no entries", method=method, outcome=type(entries).__name__)
        return []

    def _fields(self, hand_off: HandOff) -> dict[str, str]:
        """A line is named for texts alone: for templates and calls Kavenegar chooses it."""
        fields = {"receptor": national(hand_off.destination)}
        if hand_off.template:
            by_voice = {"type": "call"} if hand_off.channel == Channel.VOICE else {}
            return {**fields, "template": hand_off.template, **hand_off.params, **by_voice}
        fields["message"] = hand_off.text
        sender = hand_off.sender or self._sender
        if sender and hand_off.channel == Channel.SMS:
            fields["sender"] = sender
        return fields | {"localid": str(hand_off.provider_key)}

    def _call(self, method: str, fields: Mapping[str, str]) -> Call:
        return form_call(self._base_url, f"/v1/{quote(self._key, safe='')}/{method}.json", fields)


def national(phone: str) -> str:
    """An E.164 number as Kavenegar wants it: `0912…` for Iran, `00` and the country code for others."""
    digits = phone.removeprefix("+")
    return "0" + digits[len(_IRAN) :] if digits.startswith(_IRAN) else "00" + digits


def international(receptor: str) -> str:
    """Any spelling of a number that Kavenegar uses, as E.164."""
    digits = "".join(char for char in receptor if char.isascii() and char.isdigit())
    if receptor.strip().startswith("+"):
        return "+" + digits
    if digits.startswith("00"):
        return "+" + digits[2:]
    if digits.startswith("0"):
        return f"+{_IRAN}{digits[1:]}"
    return f"+{_IRAN}{digits}" if len(digits) == _MOBILE_DIGITS and digits.startswith("9") else "+" + digits


def _method(hand_off: HandOff) -> str:
    if hand_off.template:
        return "verify/lookup"
    return "call/maketts" if hand_off.channel == Channel.VOICE else "sms/send"


def _unfit(hand_off: HandOff) -> Outcome | None:
    """Why it is not even tried: Kavenegar would refuse it for its content."""
    if not hand_off.template:
        return None if 0 < len(hand_off.text) <= TEXT_CHARS_MAX else CODES[413]("TEXT")
    token = hand_off.params.get("token", "")
    bad = next((name for name, value in hand_off.params.items() if not _suits(name, value)), "" if token else "token")
    if bad:
        return CODES[431](bad.upper() if bad in TOKENS else "PARAMS")
    spoken = hand_off.channel == Channel.VOICE
    return CODES[428]("TOKEN") if spoken and not (token.isascii() and token.isdigit()) else None


def _suits(name: str, value: str) -> bool:
    """Whether a template has such a parameter, and it may have this value."""
    if name not in TOKENS or not 0 < len(value) <= TOKEN_CHARS_MAX:
        return False
    apart = name == "token" and not _APART.isdisjoint(value)
    return not apart and sum(char.isspace() for char in value) <= TOKENS[name]


def _entries(answer: Answer) -> list[Mapping[str, object]] | Outcome:
    """The entries of an answer that says 200 in its body, or what any other answer means."""
    envelope = json_object(answer.body)
    returned = as_object(envelope.get("return")) if envelope else None
    code = as_int(returned.get("status")) if returned else None
    if envelope is None or code is None:
        return outcome_of_status(answer)
    if code == OK:
        return objects_in(envelope.get("entries"))
    listed = CODES.get(code)
    return listed(str(code)) if listed else ambiguous(str(code), "The provider gave an answer that is not documented.")


def _taken(entries: list[Mapping[str, object]], destination: str) -> Outcome:
    """What a success means: taken, when the record is of a message to our recipient."""
    for entry in entries:
        name, receptor = _text(entry.get("messageid")), _text(entry.get("receptor"))
        if not name or not receptor:
            continue
        if international(receptor) == destination:
            return Accepted(name)
        # Kavenegar answers a number of ours that it has seen with the message of then.
        return rejected(Refusal.REQUEST, "RECEPTOR", "The provider answered with a message to another recipient.")
    return ambiguous("NO_MESSAGE_ID", "The provider said yes and named no message.")


def _receipt(entry: Mapping[str, object]) -> Receipt | None:
    status = as_int(entry.get("status"))
    if status is None or status == NOT_KNOWN:
        return None
    receipt = STATUSES.get(status)
    if receipt is None:
        _log.warning("kavenegar reported a status that is not documented", status=status)
    return receipt


def _looked_up(entry: Mapping[str, object]) -> LookUp:
    status, name = as_int(entry.get("status")), _text(entry.get("messageid"))
    if status == NOT_KNOWN:
        return NeverRegistered()
    return Found(name) if status is not None and name else NoAnswer()


def _proved(told: LookUp, channel: Channel) -> LookUp:
    return NoAnswer() if isinstance(told, NeverRegistered) and channel != Channel.SMS else told


def _text(value: object) -> str:
    number = as_int(value)
    return str(number) if number else (value.strip() if isinstance(value, str) else "")


def _batches(values: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(values), IDS_PER_CALL_MAX):
        yield values[start : start + IDS_PER_CALL_MAX]
