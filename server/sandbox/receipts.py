"""Receipts as Twilio posts them: signed, one after the other, to a callback on loopback and nowhere else."""

import asyncio
import base64
import hmac
import ipaddress
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlencode

import aiohttp
from yarl import URL

ANSWER_SECONDS = 15.0
CONNECT_SECONDS = 5.0
CONNECTIONS_MAX = 64
WAITING_MAX = 10_000
"""Messages whose receipts are still to be posted; those of any more are given up, and counted."""
POSTS_EACH = 2
"""How often a receipt is posted that nobody takes with a 2xx."""

_TAKEN = range(200, 300)
_PRINTABLE = re.compile(r"[!-~]+")


class BadCallback(ValueError):
    """No URL that receipts could be posted to."""


@dataclass(frozen=True, slots=True)
class Callback:
    """Where the receipts of one message go, and the secret that signs them."""

    url: str = field(repr=False)
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Receipt:
    """One post, so many seconds after the one before it."""

    after_seconds: float
    fields: Mapping[str, str] = field(repr=False)


@dataclass(slots=True)
class Tally:
    """How many receipts of an account were taken with a 2xx, and how many were given up."""

    taken: int = 0
    given_up: int = 0


class Receipts:
    """Posts the receipts of many messages at a time; those of one message in their order. Made within an event loop."""

    def __init__(self, repeat_seconds: float, waiting_max: int = WAITING_MAX) -> None:
        self._repeat_seconds = repeat_seconds
        self._waiting_max = waiting_max
        self._posting: set[asyncio.Task[None]] = set()
        self._client = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=CONNECTIONS_MAX),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=ANSWER_SECONDS, sock_connect=CONNECT_SECONDS),
        )

    def post(self, callback: Callback, receipts: Sequence[Receipt], tally: Tally) -> None:
        """Begins to post; the first one may arrive before the answer to the call that made the message."""
        if len(self._posting) >= self._waiting_max:
            tally.given_up += len(receipts)
            return
        task = asyncio.create_task(self._post_all(callback, receipts, tally))
        self._posting.add(task)
        task.add_done_callback(self._posting.discard)

    async def close(self) -> None:
        """Gives up what is not posted yet, and closes the connections."""
        posting = list(self._posting)
        for task in posting:
            task.cancel()
        await asyncio.gather(*posting, return_exceptions=True)
        await self._client.close()

    async def _post_all(self, callback: Callback, receipts: Sequence[Receipt], tally: Tally) -> None:
        for receipt in receipts:
            await asyncio.sleep(receipt.after_seconds)
            if await self._posted(callback, receipt.fields):
                tally.taken += 1
            else:
                tally.given_up += 1

    async def _posted(self, callback: Callback, fields: Mapping[str, str]) -> bool:
        """Whether the callback took it. A repeat has the idempotency token of the first post, and no other has it."""
        url = callback.url.partition("#")[0]
        headers = {
            "Content-Type": "application/x-www-form-urlencoded; charset=UTF-8",
            "X-Twilio-Signature": signature(url, fields.items(), callback.token),
            "I-Twilio-Idempotency-Token": secrets.token_hex(16),
        }
        body = urlencode(fields).encode()
        for post in range(POSTS_EACH):
            if post:
                await asyncio.sleep(self._repeat_seconds)
            if await self._answered(url, body, headers):
                return True
        return False

    async def _answered(self, url: str, body: bytes, headers: Mapping[str, str]) -> bool:
        target = URL(url, encoded=True)
        try:
            async with self._client.post(target, data=body, headers=headers, allow_redirects=False) as answer:
                return answer.status in _TAKEN
        except (aiohttp.ClientError, OSError):
            return False


def signature(url: str, fields: Iterable[tuple[str, str]], token: str) -> str:
    """X-Twilio-Signature of a form: the URL without fragment, then each distinct value of each name in byte order."""
    signed = url + "".join(name + value for name, value in sorted(set(fields)))
    return base64.b64encode(hmac.digest(token.encode(), signed.encode(), "sha1")).decode()


def check_callback(url: str) -> None:
    """Raises BadCallback unless this is an absolute http(s) URL on loopback, with nothing in it that needs quoting."""
    if not _PRINTABLE.fullmatch(url):
        raise BadCallback("holds characters that no URL has")
    try:
        parsed = URL(url, encoded=True)
        scheme, user, host = parsed.scheme, parsed.user, parsed.host
    except ValueError:
        raise BadCallback("is no URL") from None
    if scheme not in ("http", "https") or user is not None or not _on_loopback(host or ""):
        raise BadCallback("is no http(s) URL on loopback")


def _on_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
