"""A stand-in for Kavenegar and Twilio on loopback: their wire formats, the magic recipients, and faults on command.

`PUT /sandbox/accounts/{key}` with `{"answer": "409"}` makes every call of that account answer so: one of its provider's
codes, `http_503`, `disconnect`, or `ok` again. The key is the `api_key` with Kavenegar and the AccountSid with Twilio.
`GET` tells what the account did, without texts and numbers.
"""

import argparse
import asyncio
import contextlib
import json
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from aiohttp import web

from server.model.clock import micros
from server.model.magic import SLOW_SECONDS
from server.sandbox.faults import WORDS
from server.sandbox.kavenegar import Kavenegar
from server.sandbox.ledger import Ledger
from server.sandbox.receipts import Receipts
from server.sandbox.twilio import Twilio
from server.sandbox.twilio_wire import ACCOUNT_SID

BODY_BYTES_MAX = 256 * 1024
SETTLE_SECONDS = 1.0
"""How long after its acceptance a message is reported as handed to the operator before its end is."""


@dataclass(frozen=True, slots=True)
class Running:
    """A running upstream."""

    port: int
    runner: web.AppRunner

    async def close(self) -> None:
        """Stops listening, drops every connection, and posts no more receipts."""
        await self.runner.cleanup()


class Accounts:
    """The accounts of both providers, as whoever tries them out commands and watches them."""

    def __init__(self, kavenegar: Kavenegar, twilio: Twilio) -> None:
        self._kavenegar = kavenegar
        self._twilio = twilio

    async def set_answer(self, request: web.Request) -> web.StreamResponse:
        """Tells an account what to answer from now on."""
        key = request.match_info["key"]
        try:
            wanted: object = json.loads(await request.text())
        except (ValueError, LookupError, RecursionError):
            raise web.HTTPBadRequest(text='{"answer": …} is expected') from None
        answer = str(cast(Mapping[str, object], wanted).get("answer", "")) if isinstance(wanted, dict) else ""
        codes = self._twilio.codes if ACCOUNT_SID.fullmatch(key) else self._kavenegar.codes
        if answer not in (*WORDS, *map(str, codes)):
            raise web.HTTPBadRequest(text=f"answer must be {', '.join(WORDS)} or one of {sorted(codes)}")
        self._ledger(key).answer = answer
        return await self.tell(request)

    async def tell(self, request: web.Request) -> web.StreamResponse:
        """What an account is told to answer, and how much it did."""
        ledger = self._ledger(request.match_info["key"])
        return web.json_response({"answer": ledger.answer, "calls": ledger.calls, **ledger.counts()})

    def _ledger(self, key: str) -> Ledger:
        """The shape of the key decides whose account it is."""
        return self._twilio.ledgers.of(key) if ACCOUNT_SID.fullmatch(key) else self._kavenegar.ledgers.of(key)


async def serve(
    host: str, port: int, *, slow_seconds: float = SLOW_SECONDS, settle_seconds: float = SETTLE_SECONDS
) -> Running:
    """Starts the upstream; port 0 lets the system choose one. The caller closes it."""
    receipts = Receipts(repeat_seconds=settle_seconds)
    kavenegar = Kavenegar(slow_seconds=slow_seconds, settle=micros(settle_seconds))
    twilio = Twilio(receipts, slow_seconds=slow_seconds, settle_seconds=settle_seconds)
    # A key may be part of the path, so there is no access log.
    runner = web.AppRunner(_application(kavenegar, twilio, receipts), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
    except BaseException:
        await runner.cleanup()
        raise
    return Running(int(runner.addresses[0][1]), runner)


def _application(kavenegar: Kavenegar, twilio: Twilio, receipts: Receipts) -> web.Application:
    async def close_receipts(_: web.Application) -> None:
        await receipts.close()

    accounts = Accounts(kavenegar, twilio)
    app = web.Application(client_max_size=BODY_BYTES_MAX)
    app.add_routes([*kavenegar.routes(), *twilio.routes()])
    app.router.add_put("/sandbox/accounts/{key}", accounts.set_answer)
    app.router.add_get("/sandbox/accounts/{key}", accounts.tell)
    app.on_cleanup.append(close_receipts)
    return app


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
