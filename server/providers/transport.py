"""The one way out: HTTP calls to upstreams. Their failures are judged by the phase, never by an exception's class.

While the headers of a request have not been handed to the socket, nothing was sent. From then on, whatever keeps us
from a whole readable answer leaves it unknown what the upstream did.
"""

import asyncio
import logging
import math
import time
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from urllib.parse import urlencode, urlsplit

import aiohttp
import httpx
import structlog
from aiohttp.abc import AbstractResolver
from httpx_aiohttp import AiohttpTransport

from server.providers.guard import AddressRefused, GuardedResolver, check_base_url, guarded_socket

ANSWER_BYTES_MAX = 64 * 1024
CONNECT_SECONDS = 3.0
"""For one address: TCP and TLS together."""
KEEPALIVE_SECONDS = 4.0
CONNECTIONS_MAX = 256
CONNECTIONS_PER_HOST_MAX = 128
NAMES_KEPT_SECONDS = 10

NO_CONNECTION = "NO_CONNECTION"
NO_CONNECTION_IN_TIME = "NO_CONNECTION_IN_TIME"
ADDRESS_REFUSED = "ADDRESS_REFUSED"
NOT_SENT = frozenset({NO_CONNECTION, NO_CONNECTION_IN_TIME, ADDRESS_REFUSED})
TOO_LATE = "TOO_LATE"
"""Not sent either, and no fault of the upstream's: this process did not come to it in time."""

NO_ANSWER = "NO_ANSWER"
NO_ANSWER_IN_TIME = "NO_ANSWER_IN_TIME"
OVERSIZE = "OVERSIZE"
ENCODED = "ENCODED"

_LOUD_LOGGERS = ("httpx", "httpcore", "aiohttp.client", "aiohttp.internal")

_log = structlog.get_logger("providers")


@dataclass(frozen=True, slots=True)
class Call:
    """One request. The path and all that follows may hold secrets and personal data: it is never logged."""

    base_url: str
    path: str = field(repr=False)
    body: bytes = field(default=b"", repr=False)
    headers: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    method: str = "POST"


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer of at most 64 KiB; names of headers in lower case."""

    status: int
    body: bytes = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class NotSent:
    """Certainly nothing reached the upstream. `code` is one of NOT_SENT, or TOO_LATE."""

    code: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """The upstream may have read the request. `code` says what was seen instead of an answer."""

    code: str


Reply = Answer | NotSent | Unknown


class _TooLateError(Exception):
    """The first byte was to leave before now."""


@dataclass(slots=True)
class _Phase:
    leave_by: float
    sent: bool = False
    begun: bool = False
    late: bool = False

    def write_head(self) -> None:
        """The headers are written, to wait for the body. Raises where it is too late."""
        self._look()
        self.sent = True

    def write_body(self) -> None:
        """A piece of the body is written; the first one takes the headers along. Raises where it is too late for that.

        Another task writes it, some time after the headers.
        """
        if not self.begun:
            self._look()
            self.begun = True

    def _look(self) -> None:
        if time.monotonic() > self.leave_by:
            self.late = True
            raise _TooLateError


_phase: ContextVar[_Phase] = ContextVar("phase")


def form_call(base_url: str, path: str, fields: Mapping[str, str], headers: Mapping[str, str] | None = None) -> Call:
    """A POST of form fields in UTF-8."""
    content = {"content-type": "application/x-www-form-urlencoded; charset=utf-8"}
    return Call(base_url, path, urlencode(fields).encode(), {**content, **(headers or {})})


class Transport:
    """Connections to all upstreams, over httpx on aiohttp's sockets. One per process; used by one event loop.

    `resolver` replaces the system's name service; its answers are guarded all the same.
    """

    def __init__(self, *, allow_private: bool = False, resolver: AbstractResolver | None = None) -> None:
        self.allow_private = allow_private
        self._resolver = resolver
        self._tls = httpx.create_ssl_context(trust_env=False)
        self._http = AiohttpTransport(verify=self._tls, trust_env=False, client=self._open)
        self._closed = False
        for name in _LOUD_LOGGERS:
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)

    async def exchange(self, call: Call, timeout_seconds: float, *, leave_by: float = math.inf) -> Reply:
        """Makes one call, within `timeout_seconds` in all. Never follows a redirect, never repeats, never raises.

        Its first byte leaves by `leave_by` (time.monotonic()) or never: a process may stand still anywhere.
        """
        if self._closed or check_base_url(call.base_url, self.allow_private) is not None:
            return NotSent(NO_CONNECTION if self._closed else ADDRESS_REFUSED)
        phase = _Phase(leave_by)
        token = _phase.set(phase)
        try:
            async with asyncio.timeout(timeout_seconds):
                return await self._exchange(call)
        except Exception as error:  # noqa: BLE001 - the libraries raise dozens of kinds, and the phase alone decides what it means
            reply = _judge(phase, error)
            host = urlsplit(call.base_url).hostname
            _log.info("no answer", host=host, code=reply.code, error=type(error).__name__)
            return reply
        finally:
            _phase.reset(token)

    async def aclose(self) -> None:
        """Closes every connection; later calls are NotSent."""
        self._closed = True
        await self._http.aclose()

    async def _exchange(self, call: Call) -> Reply:
        # The transport is called without httpx's client: that logs URLs, keeps cookies and follows redirects.
        response = await self._http.handle_async_request(_request(call))
        try:
            return await _read(response)
        finally:
            await response.aclose()

    def _open(self) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            ssl=self._tls,
            resolver=GuardedResolver(self._resolver or aiohttp.ThreadedResolver(), allow_private=self.allow_private),
            socket_factory=partial(guarded_socket, allow_private=self.allow_private),
            keepalive_timeout=KEEPALIVE_SECONDS,
            limit=CONNECTIONS_MAX,
            limit_per_host=CONNECTIONS_PER_HOST_MAX,
            ttl_dns_cache=NAMES_KEPT_SECONDS,
        )
        trace = aiohttp.TraceConfig()
        trace.on_request_headers_sent.append(_mark_sent)
        trace.on_request_chunk_sent.append(_let_leave)
        return aiohttp.ClientSession(
            connector=connector, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False, trace_configs=[trace]
        )


async def _mark_sent(
    _session: aiohttp.ClientSession, _context: SimpleNamespace, _sent: aiohttp.TraceRequestHeadersSentParams
) -> None:
    _phase.get().write_head()


async def _let_leave(
    _session: aiohttp.ClientSession, _context: SimpleNamespace, _sent: aiohttp.TraceRequestChunkSentParams
) -> None:
    _phase.get().write_body()


def _request(call: Call) -> httpx.Request:
    return httpx.Request(
        call.method,
        call.base_url.rstrip("/") + call.path,
        content=call.body,
        headers={"user-agent": "angarium", "accept": "application/json", **call.headers, "accept-encoding": "identity"},
        extensions={"timeout": {"connect": CONNECT_SECONDS}},
    )


async def _read(response: httpx.Response) -> Reply:
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        return Unknown(ENCODED)
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > ANSWER_BYTES_MAX:
            return Unknown(OVERSIZE)
    return Answer(response.status_code, bytes(body), {name.lower(): value for name, value in response.headers.items()})


def _judge(phase: _Phase, error: Exception) -> NotSent | Unknown:
    if phase.late:
        return NotSent(TOO_LATE)
    causes = _causes(error)
    timed_out = any(isinstance(cause, TimeoutError) for cause in causes)
    if phase.sent:
        return Unknown(NO_ANSWER_IN_TIME if timed_out else NO_ANSWER)
    if any(isinstance(cause, AddressRefused) for cause in causes):
        return NotSent(ADDRESS_REFUSED)
    return NotSent(NO_CONNECTION_IN_TIME if timed_out else NO_CONNECTION)


def _causes(error: BaseException) -> list[BaseException]:
    """The exception, what it was raised from, and so on."""
    causes: list[BaseException] = []
    following: BaseException | None = error
    while following is not None and following not in causes:
        causes.append(following)
        following = following.__cause__ or following.__context__
    return causes
