"""A scripted upstream that answers as Twilio does, and an account that points there."""

import asyncio
import json
from collections.abc import Mapping
from email.utils import format_datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

from server.model.accounts import Account
from server.model.clock import SECOND, Micros, moment
from server.model.enums import Channel
from tests.scripted_upstream import READ_SECONDS, Recorded, Say, ScriptedUpstream

ACCOUNT_SID = "AC0123456789abcdef0123456789abcdef"
SERVICE_SID = "MG0123456789abcdef0123456789abcdef"
KEY_SID = "SK0123456789abcdef0123456789abcdef"
CONTENT_SID = "HX0123456789abcdef0123456789abcdef"
TOKEN = "canary-token-12345"
NUMBER = "+15005550006"
STARTED: Micros = 1_700_000_000 * SECOND
"""14 November 2023, 22:13:20 UTC."""


def twilio_at(
    base_url: str, settings: Mapping[str, str] | None = None, secrets: Mapping[str, str] | None = None
) -> Account:
    """An account with a number of its own, unless its settings say otherwise."""
    return Account(
        tenant_id="t",
        uid="u-2",
        name="twilio",
        type="twilio",
        channels=(Channel.SMS, Channel.VOICE),
        base_url=base_url,
        timeout_seconds=2.0,
        settings={"account_sid": ACCOUNT_SID, **(settings or {"from": NUMBER})},
        secrets={"auth_token": TOKEN, **(secrets or {})},
    )


def sid(prefix: str, number: int) -> str:
    return f"{prefix}{number:032x}"


def refusal(code: object, status: int = 400, headers: Mapping[str, str] | None = None) -> Say:
    """Twilio's error body."""
    told = {"code": code, "message": "raw words of the provider", "more_info": "https://example.com", "status": status}
    return Say(status, json.dumps(told).encode(), headers or {})


def created(sid_: object, to: object, **more: object) -> Say:
    return Say(201, json.dumps({"sid": sid_, "to": to, "status": "queued", **more}).encode())


class TwilioUpstream(ScriptedUpstream):
    """Takes each message under an increasing id, `at` the time of STARTED plus a second, and delivers it."""

    def __init__(self) -> None:
        super().__init__()
        self.at: Micros = STARTED + SECOND

    async def _read(self, reader: asyncio.StreamReader, connection: int) -> Recorded:
        """The arguments of a URL stand in the form."""
        async with asyncio.timeout(READ_SECONDS):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            first, *lines = head.strip().split("\r\n")
            method, target, _ = first.split(" ")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            body = await reader.readexactly(int(headers.get("content-length", "0")))
        url = urlsplit(target)
        form = {name: values[-1] for name, values in parse_qs(url.query or body.decode()).items()}
        return Recorded(len(self.requests) + 1, connection, method, url.path, form, headers)

    def tell(self, sid_: str, status: str, error_code: int | None = None) -> None:
        """What is told of a message from now on."""
        self.records[sid_] = {"sid": sid_, "status": status, "error_code": error_code}

    def honest(self, request: Recorded) -> Say:
        """What Twilio would answer; it may be named in a script too."""
        rest = request.path.removeprefix(f"/2010-04-01/Accounts/{ACCOUNT_SID}/").removesuffix(".json")
        match request.method, rest.split("/"):
            case "POST", ["Messages"]:
                return self._make("SM", request.form, body=request.form.get("Body", ""))
            case "POST", ["Calls"]:
                return self._make("CA", request.form)
            case "GET", ["Messages" | "Calls" as name]:
                return self._list(name.lower(), request.form)
            case "GET", ["Messages" | "Calls", name] if name in self.records:
                return Say(200, json.dumps(self.records[name]).encode())
            case "GET", ["Balance"]:
                return Say(200, json.dumps({"balance": "12.34", "currency": "USD"}).encode())
            case _:
                return refusal(20404, 404)

    def _make(self, prefix: str, form: Mapping[str, str], **more: object) -> Say:
        name = sid(prefix, len(self.records) + 1)
        self.records[name] = self.entry(name, form["To"], self.at, **more)
        return Say(201, json.dumps(self.records[name]).encode())

    def entry(self, name: str, to: str, at: Micros, **more: object) -> dict[str, Any]:
        """A message as it is fetched and listed."""
        date = format_datetime(moment(at))
        entry = {"sid": name, "to": to, "status": "queued", "direction": "outbound-api", "error_code": None}
        return {**entry, "date_created": date, "price": None, **more}

    def _list(self, kind: str, asked: Mapping[str, str]) -> Say:
        ours = ("CA",) if kind == "calls" else ("SM", "MM")
        entries = [r for name, r in self.records.items() if name.startswith(ours) and r.get("to") == asked["To"]]
        return Say(200, json.dumps({kind: entries, "next_page_uri": None, "page_size": 32}).encode())
