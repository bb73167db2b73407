"""Kavenegar's wire format: its codes, its envelope, its entries, and how its parameters are read."""

from aiohttp import web

from server.model.clock import SECOND
from server.sandbox.forms import Form, first
from server.sandbox.kavenegar_records import Status, Taken

OK = 200
TEXT_CHARS_MAX = 900
TOKEN_CHARS_MAX = 100
E164_DIGITS_MIN = 8
E164_DIGITS_MAX = 15
COST_RIALS = 120

CODES = {
    400: "incomplete parameters",
    401: "account disabled",
    402: "operation failed",
    403: "invalid api key",
    404: "unknown method",
    405: "wrong verb",
    406: "empty mandatory parameter",
    407: "access denied",
    409: "cannot answer now",
    411: "invalid receptor",
    412: "invalid sender",
    413: "empty or too long message",
    414: "too many rows",
    415: "start beyond the last row",
    416: "ip address does not match",
    417: "wrong date",
    418: "not enough credit",
    419: "lists differ in length",
    420: "links not allowed",
    422: "unsuitable character",
    424: "template not found",
    426: "advanced service needed",
    427: "line needs access level",
    428: "only digits can be read out",
    429: "ip restricted",
    431: "wrong structure of a token",
    432: "template without a token",
    451: "too many calls",
    501: "tests to the owner only",
    604: "too many numbers",
    607: "unknown tag",
}
_STATUS_TEXTS = {
    Status.QUEUED: "in queue",
    Status.SENT: "sent to the operator",
    Status.DELIVERED: "delivered",
    Status.UNDELIVERED: "not delivered",
    Status.NOT_KNOWN: "unknown id",
}
_SPACES_MAX = {"token": 0, "token2": 0, "token3": 0, "token10": 5, "token20": 8}
"""How many spaces, and breaks of lines, each parameter of a template may hold."""
_HTTP_STATUS_MAX = 599


class Refused(Exception):
    """The call is answered with this code."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def envelope(code: int, entries: object = None) -> web.StreamResponse:
    """Kavenegar's envelope; the code is also the HTTP status, as far as it is one."""
    message = "ok" if code == OK else CODES.get(code, "refused")
    body = {"return": {"status": code, "message": message}, "entries": entries}
    return web.json_response(body, status=code if code <= _HTTP_STATUS_MAX else 400)


def sent(message: Taken, text: str) -> dict[str, object]:
    """The entry of a message that was just taken."""
    return {
        "messageid": message.message_id,
        "message": text,
        "status": Status.QUEUED.code,
        "statustext": _STATUS_TEXTS[Status.QUEUED],
        "sender": message.sender,
        "receptor": message.receptor,
        "date": message.at // SECOND,
        "cost": COST_RIALS,
    }


def report(message_id: int, status: Status) -> dict[str, object]:
    """The entry of a status call."""
    return {"messageid": message_id, "status": status.code, "statustext": _STATUS_TEXTS[status]}


def required(form: Form, name: str) -> str:
    """A parameter that no call may leave out."""
    value = first(form, name).strip()
    if not value:
        raise Refused(406)
    return value


def listed(form: Form, name: str, most: int) -> list[str]:
    """The values of a parameter that holds them with commas between."""
    values = [value.strip() for value in required(form, name).split(",") if value.strip()]
    if not values:
        raise Refused(406)
    if len(values) > most:
        raise Refused(414)
    return values


def numbers(form: Form, name: str, most: int) -> list[int]:
    """As `listed`, where each value is an integer."""
    values = listed(form, name, most)
    if not all(value.isascii() and value.isdigit() for value in values):
        raise Refused(400)
    return [int(value) for value in values]


def text_of(form: Form) -> str:
    """What a message says: 1 to 900 characters."""
    text = first(form, "message")
    if not text or len(text) > TEXT_CHARS_MAX:
        raise Refused(413)
    return text


def tokens_of(form: Form) -> list[str]:
    """The parameters of a template, of at most 100 characters each; the first one may hold no underscore."""
    required(form, "token")
    tokens = {name: first(form, name) for name in _SPACES_MAX if first(form, name)}
    if not all(_suits(name, token) for name, token in tokens.items()):
        raise Refused(431)
    return list(tokens.values())


def e164(receptor: str) -> str:
    """A number as Kavenegar takes it, as E.164; refused when it is none."""
    if receptor.startswith("+"):
        digits = receptor[1:]
    elif receptor.startswith("00"):
        digits = receptor[2:]
    else:
        digits = "98" + receptor.removeprefix("0")
    if not (all_digits(digits) and E164_DIGITS_MIN <= len(digits) <= E164_DIGITS_MAX):
        raise Refused(411)
    return "+" + digits


def all_digits(text: str) -> bool:
    """Whether there is nothing but 0 to 9 in it."""
    return text.isascii() and text.isdigit()


def _suits(name: str, token: str) -> bool:
    if len(token) > TOKEN_CHARS_MAX or (name == "token" and "_" in token):
        return False
    return sum(char.isspace() for char in token) <= _SPACES_MAX[name]
