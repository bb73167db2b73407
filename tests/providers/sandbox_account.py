"""An account with Twilio at the sandbox upstream: how it calls, what it sends, and where its receipts go."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self

import httpx
from aiohttp import web

from server.model.enums import Channel
from server.model.magic import Fate, magic_destination
from server.sandbox.upstream import Running

SID = "AC" + "0a" * 16
OTHER_SID = "AC" + "0b" * 16
TOKEN = "token-of-the-account"
KEY_SID = "SK" + "0c" * 16
SERVICE = "MG" + "0d" * 16
FROM = "+15005550006"
BOUND_SECONDS = 5.0


@dataclass
class Post:
    """One receipt as it came."""

    url: str
    fields: list[tuple[str, str]]
    headers: dict[str, str]
    at: float = field(default_factory=time.monotonic)

    def get(self, name: str) -> str:
        return dict(self.fields).get(name, "")

    @property
    def status(self) -> str:
        return self.get("MessageStatus") or self.get("CallStatus")

    @property
    def sid(self) -> str:
        return self.get("MessageSid") or self.get("CallSid")


class Receiver:
    """Where the receipts go: it answers with `statuses` one after the other, then with 204."""

    def __init__(self) -> None:
        self.posts: list[Post] = []
        self.statuses: list[int] = []
        self.port = 0
        self._came = asyncio.Event()
        self._runner: web.AppRunner | None = None

    async def start(self) -> Self:
        app = web.Application()
        app.router.add_route("*", "/{any:.*}", self._take)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.port = int(self._runner.addresses[0][1])
        return self

    async def close(self) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def _take(self, request: web.Request) -> web.Response:
        form = await request.post()
        fields = [(name, str(value)) for name, value in form.items()]
        url = f"http://127.0.0.1:{self.port}{request.raw_path}"
        self.posts.append(Post(url, fields, {name.lower(): value for name, value in request.headers.items()}))
        self._came.set()
        return web.Response(status=self.statuses.pop(0) if self.statuses else 204, headers={"Location": "/elsewhere"})

    def url(self, path: str = "/hooks/t?attempt=1") -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def of(self, sid: str) -> list[Post]:
        return [post for post in self.posts if post.sid == sid]

    async def until(self, holds: Callable[[], bool]) -> None:
        """Waits for receipts until this holds, at most five seconds."""
        async with asyncio.timeout(BOUND_SECONDS):
            while not holds():
                self._came.clear()
                await self._came.wait()


def client_of(running: Running, user: str = SID, password: str = TOKEN) -> httpx.AsyncClient:
    base_url = f"http://127.0.0.1:{running.port}"
    return httpx.AsyncClient(base_url=base_url, auth=(user, password), trust_env=False)


def path(resource: str, account_sid: str = SID) -> str:
    return f"/2010-04-01/Accounts/{account_sid}/{resource}.json"


def text_to(fate: Fate = Fate.DELIVERED, **more: Any) -> dict[str, Any]:
    return {"To": magic_destination(fate, Channel.SMS), "From": FROM, "Body": "canary سلام", **more}


def call_to(fate: Fate = Fate.DELIVERED, **more: Any) -> dict[str, Any]:
    twiml = "<Response><Say>1, 2, 3</Say></Response>"
    return {"To": magic_destination(fate, Channel.VOICE), "From": FROM, "Twiml": twiml, **more}


FORMS = {"Messages": text_to, "Calls": call_to}
