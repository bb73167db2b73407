"""A gateway behind a public URL, an account with Twilio, and what its servers post: signed here, by another hand."""

import asyncio
import base64
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlencode, urlsplit

import aiohttp
from angarium.v1.provider_service_pb2 import ConfigureProviderRequest
from yarl import URL

from server.settings import Settings
from tests.cluster import free_port
from tests.gateway import Gateway, eventually
from tests.providers.twilio_upstream import ACCOUNT_SID, NUMBER, TOKEN, TwilioUpstream
from tests.scripted_upstream import Recorded

PUBLIC_URL = "https://notify.example.test/gate"
"""What the provider is told: a proxy ends TLS there and takes `/gate` off."""
FORM = {"Content-Type": "application/x-www-form-urlencoded; charset=UTF-8"}


@dataclass(frozen=True)
class Reply:
    """What was answered."""

    status: int
    body: bytes
    headers: Mapping[str, str]


class HttpGateway(Gateway):
    """A gateway in this process with an HTTP edge on a free port."""

    def __init__(self, url: str, public_url: str = PUBLIC_URL, *, drain_seconds: float = 5.0) -> None:
        super().__init__(url, drain_seconds=drain_seconds)
        self.http = f"127.0.0.1:{free_port()}"
        edge = {"http_listen": self.http, "public_url": public_url.replace("HTTP", self.http)}
        self.settings = Settings(**{**self.settings.model_dump(), **edge})

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        # As sent, to the last byte: neither cookies nor a parser's second thoughts.
        self._session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._session.close()
        await super().__aexit__(*exception)

    async def configure_twilio(self, base_url: str, name: str = "twilio", token: str = TOKEN) -> None:
        """An account of this name whose upstream is there."""
        asked = ConfigureProviderRequest(
            name=name,
            type="twilio",
            settings={"account_sid": ACCOUNT_SID, "from": NUMBER},
            secrets={"auth_token": token},
            base_url=base_url,
        )
        await self.stubs.providers.ConfigureProvider(asked)

    async def call(self, target: str, method: str = "POST", **how: Any) -> Reply:
        """Call the edge by a path with its query, byte by byte as it is given."""
        url = URL(f"http://{self.http}{target}", encoded=True)
        async with self._session.request(method, url, allow_redirects=False, **how) as answer:
            return Reply(answer.status, await answer.read(), answer.headers)

    async def post(self, url: str, fields: Mapping[str, str], token: str = TOKEN, **headers: str) -> Reply:
        """Post a form as Twilio does to a URL that it was given: signed for it, and led here by the proxy."""
        signed = {**FORM, "X-Twilio-Signature": signature(url, fields, token), **headers}
        return await self.call(behind_the_proxy(url), data=urlencode(fields).encode(), headers=signed)


def behind_the_proxy(url: str) -> str:
    """The path and query that reach the gateway."""
    return url.removeprefix(PUBLIC_URL) if url.startswith(PUBLIC_URL) else url.partition(urlsplit(url).netloc)[2]


def signature(url: str, fields: Mapping[str, str], token: str) -> str:
    """As Twilio describes it: the URL and every field, names in byte order."""
    signed = url + "".join(name + fields[name] for name in sorted(fields))
    return base64.b64encode(hmac.new(token.encode(), signed.encode(), hashlib.sha1).digest()).decode()


def told(sid: str, status: str, **more: str) -> dict[str, str]:
    """The fields of a receipt."""
    ids = {"MessageSid": sid, "SmsSid": sid, "AccountSid": ACCOUNT_SID, "ApiVersion": "2010-04-01"}
    return {**ids, "MessageStatus": status, "SmsStatus": status, "To": "+989120000111", "From": NUMBER, **more}


async def sent(gateway: Gateway, upstream: TwilioUpstream, **fields: Any) -> tuple[str, str, str]:
    """A text that Twilio took: its tracking id, Twilio's id, and the URL for its receipts."""
    taken = len(posts(upstream))
    tracking_id = await gateway.send(**fields)
    await gateway.reach(tracking_id, "SENT")
    (request,) = posts(upstream)[taken:]
    return tracking_id, list(upstream.records)[-1], request.form["StatusCallback"]


def posts(upstream: TwilioUpstream) -> list[Recorded]:
    """The texts that were handed to it."""
    return [request for request in upstream.requests if request.method == "POST"]


async def stalled(gateway: HttpGateway, target: str, length: int = 100) -> tuple[Any, Any]:
    """A connection on which a post has begun whose body does not come; reader and writer."""
    host, _, port = gateway.http.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"POST {target} HTTP/1.1\r\nHost: {gateway.http}\r\nContent-Length: {length}\r\n\r\n".encode())
    await writer.drain()
    return reader, writer


async def under_way(gateway: HttpGateway, count: int) -> None:
    """Wait until so many posts have got as far as their body."""
    receipts = gateway.application.http._receipts
    assert receipts is not None
    await eventually(lambda: receipts._under_way == count)
