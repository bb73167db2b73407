"""A stand-in for Kavenegar on loopback: its wire format, the magic recipients, and faults on command.

`PUT /sandbox/accounts/{api_key}` with `{"answer": "409"}` makes every call of that account answer so: one of the
provider's codes, `http_503`, `disconnect`, or `ok` again. `GET` tells what the account did, without texts and numbers.
"""

import argparse
import asyncio
import contextlib
import json
import signal
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from aiohttp import web

from server.model.clock import Micros, micros
from server.model.magic import SLOW_SECONDS, Fate
from server.sandbox.ledger import Ledger, Ledgers, Status, Taken, now_micros

OK = 200
KEY_CHARS_MIN = 8
TEXT_CHARS_MAX = 900
RECEPTORS_MAX = 200
IDS_MAX = 500
E164_DIGITS_MIN = 8
E164_DIGITS_MAX = 15
BODY_BYTES_MAX = 256 * 1024
SETTLE_SECONDS = 1.0
"""How long after its acceptance a message is reported as handed to the operator before its end is."""

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
    416: "ip address does not match",
    417: "wrong date",
    418: "not enough credit",
    419: "lists differ in length",
    420: "links not allowed",
    422: "unsuitable character",
    427: "line needs access level",
    429: "ip restricted",
    451: "too many calls",
    501: "tests to the owner only",
}
_REFUSALS = {Fate.REJECTED: 411, Fate.RATE_LIMITED: 451, Fate.UNAVAILABLE: 409}
_STATUS_TEXTS = {
    Status.QUEUED: "in queue",
    Status.SENT: "sent to the operator",
    Status.DELIVERED: "delivered",
    Status.UNDELIVERED: "not delivered",
    Status.NOT_KNOWN: "unknown id",
}

Form = Mapping[str, str]
Method = Callable[[Ledger, Form], Awaitable[web.StreamResponse]]


class _Refused(Exception):
    """The call is answered with this code."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class _Vanish(Exception):
    """The connection is closed without an answer."""


@dataclass(frozen=True, slots=True)
class Running:
    """A running upstream."""

    port: int
    runner: web.AppRunner

    async def close(self) -> None:
        """Stops listening and drops every connection."""
        await self.runner.cleanup()


class Upstream:
    """The calls that the stand-in answers."""

    def __init__(self, *, slow_seconds: float, settle: Micros) -> None:
        self._slow_seconds = slow_seconds
        self._settle = settle
        self._ledgers = Ledgers()
        self._methods: Mapping[str, Method] = {
            "sms/send": self._send,
            "sms/status": self._status,
            "sms/statuslocalmessageid": self._status_by_local_id,
            "account/info": self._info,
        }

    async def call(self, request: web.Request) -> web.StreamResponse:
        """Any method: `/v1/{key}/{scope}/{method}.json`."""
        try:
            return await self._called(request)
        except _Refused as refused:
            return _answer(refused.code)
        except _Vanish:
            if request.transport is not None:
                request.transport.abort()
            return web.Response()

    async def set_answer(self, request: web.Request) -> web.StreamResponse:
        """Tells an account what to answer from now on."""
        try:
            wanted: object = json.loads(await request.text())
        except ValueError:
            raise web.HTTPBadRequest(text='{"answer": …} is expected') from None
        answer = str(cast(Mapping[str, object], wanted).get("answer", "")) if isinstance(wanted, dict) else ""
        if answer not in ("ok", "http_503", "disconnect") and not (answer.isdecimal() and int(answer) in CODES):
            raise web.HTTPBadRequest(text=f"answer must be ok, http_503, disconnect or one of {sorted(CODES)}")
        self._ledgers.of(request.match_info["api_key"]).answer = answer
        return await self.tell(request)

    async def tell(self, request: web.Request) -> web.StreamResponse:
        """What an account is told to answer, and how much it did."""
        ledger = self._ledgers.of(request.match_info["api_key"])
        return web.json_response(
            {
                "answer": ledger.answer,
                "calls": ledger.calls,
                "taken": len(ledger.taken),
                "repeated": ledger.repeated,
            }
        )

    async def _called(self, request: web.Request) -> web.StreamResponse:
        method = f"{request.match_info['scope']}/{request.match_info['method']}"
        form = {**request.query, **_texts(await request.post())}
        if method == "utils/getdate":
            return _answer(OK, {"datetime": time.strftime("%Y/%m/%d %H:%M:%S"), "unixtime": int(time.time())})
        api_key = request.match_info["api_key"]
        if len(api_key) < KEY_CHARS_MIN:
            raise _Refused(403)
        ledger = self._ledgers.of(api_key)
        ledger.calls += 1
        _obey(ledger.answer)
        if method not in self._methods:
            raise _Refused(404)
        return await self._methods[method](ledger, form)

    async def _send(self, ledger: Ledger, form: Form) -> web.StreamResponse:
        receptors = _listed(form, "receptor", RECEPTORS_MAX)
        text = form.get("message", "")
        if not text or len(text) > TEXT_CHARS_MAX:
            raise _Refused(413)
        local_ids = _numbers(form, "localid", RECEPTORS_MAX) if form.get("localid") else [None] * len(receptors)
        if len(local_ids) != len(receptors):
            raise _Refused(419)
        repeated = ledger.repeated
        pairs = zip(receptors, local_ids, strict=True)
        taken = [await self._take(ledger, receptor, form.get("sender", ""), number) for receptor, number in pairs]
        if ledger.repeated == repeated and any(message.fate == Fate.ANSWER_LOST for message in taken):
            raise _Vanish
        return _answer(OK, [_sent(message, text) for message in taken])

    async def _take(self, ledger: Ledger, receptor: str, sender: str, local_id: int | None) -> Taken:
        known = ledger.repeat_of(local_id)
        if known is not None:
            ledger.repeated += 1
            return known
        phone = _e164(receptor)
        message = self._ledgers.new(phone, receptor, sender or "10004346")
        if message.fate in _REFUSALS:
            raise _Refused(_REFUSALS[message.fate])
        if message.fate == Fate.SLOW:
            await asyncio.sleep(self._slow_seconds)
        ledger.take(message, local_id)
        return message

    async def _status(self, ledger: Ledger, form: Form) -> web.StreamResponse:
        entries: list[dict[str, object]] = []
        for message_id in _numbers(form, "messageid", IDS_MAX):
            message = ledger.taken.get(message_id)
            entries += [_report(message_id, status) for status in self._reports(message)]
        return _answer(OK, entries)

    async def _status_by_local_id(self, ledger: Ledger, form: Form) -> web.StreamResponse:
        entries: list[dict[str, object]] = []
        for local_id in _numbers(form, "localid", IDS_MAX):
            message = ledger.repeat_of(local_id)
            status = self._reports(message)[0]
            name = message.message_id if message else 0
            entries.append(_report(name, status) | {"localid": str(local_id)})
        return _answer(OK, entries)

    async def _info(self, ledger: Ledger, form: Form) -> web.StreamResponse:  # noqa: ARG002 - as every method
        return _answer(OK, {"remaincredit": 1_000_000, "expiredate": 4_102_444_800, "type": "master"})

    def _reports(self, message: Taken | None) -> Sequence[Status]:
        return message.reports(now_micros(), self._settle) if message else (Status.NOT_KNOWN,)


async def serve(
    host: str, port: int, *, slow_seconds: float = SLOW_SECONDS, settle_seconds: float = SETTLE_SECONDS
) -> Running:
    """Starts the upstream; port 0 lets the system choose one. The caller closes it."""
    upstream = Upstream(slow_seconds=slow_seconds, settle=micros(settle_seconds))
    app = web.Application(client_max_size=BODY_BYTES_MAX)
    app.router.add_route("*", "/v1/{api_key}/{scope}/{method}.json", upstream.call)
    app.router.add_put("/sandbox/accounts/{api_key}", upstream.set_answer)
    app.router.add_get("/sandbox/accounts/{api_key}", upstream.tell)
    # The key is part of the path, so there is no access log.
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    await web.TCPSite(runner, host, port).start()
    return Running(int(runner.addresses[0][1]), runner)


def main(argv: Sequence[str]) -> int:
    """Serves until SIGINT or SIGTERM: `--listen 127.0.0.1:8089`."""
    parser = argparse.ArgumentParser(prog="python -m server sandbox-upstream", description=__doc__)
    parser.add_argument("--listen", default="127.0.0.1:8089", help="HOST:PORT; port 0: any free one")
    host, _, port = str(parser.parse_args(argv).listen).rpartition(":")
    if not host or not port.isdecimal():
        parser.error("--listen wants HOST:PORT")
    asyncio.run(_run(host.strip("[]"), int(port)))
    return 0


async def _run(host: str, port: int) -> None:
    running = await serve(host, port)
    print(f"sandbox upstream listens on http://{host}:{running.port}", flush=True)  # noqa: T201 - a command speaks to its terminal
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        await stop.wait()
    finally:
        await running.close()


def _obey(answer: str) -> None:
    match answer:
        case "ok":
            return
        case "http_503":
            raise web.HTTPServiceUnavailable(text="<html>unavailable</html>")
        case "disconnect":
            raise _Vanish
        case code:
            raise _Refused(int(code))


def _answer(code: int, entries: object = None) -> web.StreamResponse:
    """Kavenegar's envelope; the code is also the HTTP status, as far as it is one."""
    message = "ok" if code == OK else CODES.get(code, "refused")
    body = {"return": {"status": code, "message": message}, "entries": entries}
    return web.json_response(body, status=code)


def _sent(message: Taken, text: str) -> dict[str, object]:
    return {
        "messageid": message.message_id,
        "message": text,
        "status": Status.QUEUED.code,
        "statustext": _STATUS_TEXTS[Status.QUEUED],
        "sender": message.sender,
        "receptor": message.receptor,
        "date": message.at // 1_000_000,
        "cost": 120,
    }


def _report(message_id: int, status: Status) -> dict[str, object]:
    return {"messageid": message_id, "status": status.code, "statustext": _STATUS_TEXTS[status]}


def _listed(form: Form, name: str, most: int) -> list[str]:
    values = [value.strip() for value in form.get(name, "").split(",") if value.strip()]
    if not values:
        raise _Refused(406)
    if len(values) > most:
        raise _Refused(414)
    return values


def _numbers(form: Form, name: str, most: int) -> list[int]:
    values = _listed(form, name, most)
    if not all(value.isascii() and value.isdigit() for value in values):
        raise _Refused(400)
    return [int(value) for value in values]


def _e164(receptor: str) -> str:
    """A number as Kavenegar takes it, as E.164; refused when it is none."""
    if receptor.startswith("+"):
        digits = receptor[1:]
    elif receptor.startswith("00"):
        digits = receptor[2:]
    else:
        digits = "98" + receptor.removeprefix("0")
    if not (digits.isascii() and digits.isdigit() and E164_DIGITS_MIN <= len(digits) <= E164_DIGITS_MAX):
        raise _Refused(411)
    return "+" + digits


def _texts(form: Mapping[str, object]) -> dict[str, str]:
    return {name: value for name, value in form.items() if isinstance(value, str)}
