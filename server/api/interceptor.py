"""What happens around every call: who calls, how long it may take, what it may say, and what is told when it fails.

Health and reflection are answered without a key. Unknown methods stay UNIMPLEMENTED.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import grpc
import structlog
from google.protobuf.message import DecodeError, Message

from server.api.admission import Admission
from server.api.caller import Call, Caller, authenticate, bearer_of, begin_call, tenant_for
from server.api.errors import Answer, answer_of, internal
from server.api.scopes import MAKES_ITS_TENANT, SCOPES
from server.api.standing import Standings
from server.model.enums import Scope
from server.model.errors import AngariumError, DeadlineTooShort, Exhausted, Invalid, Reason
from server.model.faults import trail_of
from server.store.store import Store

UNARY_SECONDS_MAX = 10.0
MARGIN_SECONDS = 0.01
"""What is left of a caller's deadline for the answer to travel."""
REQUEST_BYTES_MAX = 1024 * 1024
RESPONSE_BYTES_MAX = 4 * 1024 * 1024
OPEN_PREFIXES = ("/grpc.health.v1.", "/grpc.reflection.")

Context = grpc.aio.ServicerContext[Any, Any]
if TYPE_CHECKING:  # generic to a type checker only
    Handler = grpc.RpcMethodHandler[Any, Any]
else:
    Handler = grpc.RpcMethodHandler
Continue = Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]]

_log = structlog.get_logger("api")


@dataclass(frozen=True, slots=True)
class _Rpc:
    """One method: what it needs, and how its messages are read and written."""

    method: str
    scope: Scope | None
    may_be_new_tenant: bool
    parse: Callable[[bytes], Message]
    write: Callable[[Message], bytes]
    answer: Callable[[Message, Context], Any]


class Interceptor(grpc.aio.ServerInterceptor):
    """The one interceptor. Wraps each method once, at its first call.

    `unary_seconds_max` caps every deadline; `on_refused` is told of every error that a caller gets, but faults of ours.
    """

    def __init__(
        self,
        store: Store,
        admission: Admission,
        *,
        unary_seconds_max: float = UNARY_SECONDS_MAX,
        on_refused: Callable[[AngariumError], None] = lambda _: None,
    ) -> None:
        self._unary_seconds_max = unary_seconds_max
        self._on_refused = on_refused
        self._store = store
        self._admission = admission
        self._standings = Standings(store.configuration)
        self._wrapped: dict[str, Handler] = {}

    async def intercept_service(
        self, continuation: Continue, handler_call_details: grpc.HandlerCallDetails
    ) -> "Handler | None":
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or method.startswith(OPEN_PREFIXES):
            return handler
        if method not in self._wrapped:
            self._wrapped[method] = self._wrap(method, handler)
        return self._wrapped[method]

    def _wrap(self, method: str, handler: Handler) -> Handler:
        rpc = _Rpc(
            method,
            SCOPES[method],
            method in MAKES_ITS_TENANT,
            cast("Callable[[bytes], Message]", handler.request_deserializer),
            cast("Callable[[Message], bytes]", handler.response_serializer),
            cast("Callable[[Message, Context], Any]", handler.unary_stream or handler.unary_unary),
        )
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(self._streaming(rpc))
        return grpc.unary_unary_rpc_method_handler(self._unary(rpc))

    def _unary(self, rpc: _Rpc) -> Callable[[bytes, Context], Awaitable[bytes]]:
        async def respond(raw: bytes, context: Context) -> bytes:
            started = time.monotonic()
            try:
                with self._admission.call():
                    response = await self._in_time(rpc, raw, context)
            except Exception as error:  # noqa: BLE001 - the outermost edge: whatever failed is logged and mapped here
                self._refuse(rpc, context, error, started)
                return b""
            _log.debug("answered", method=rpc.method, millis=_millis(started))
            return response

        return respond

    def _streaming(self, rpc: _Rpc) -> Callable[[bytes, Context], AsyncGenerator[bytes, None]]:
        async def respond(raw: bytes, context: Context) -> AsyncGenerator[bytes, None]:
            started = time.monotonic()
            try:
                caller = await self._caller(rpc, context)
                admitted = self._admission.stream((caller.tenant_id, caller.client_id), context.peer())
                with admitted, self._standings.of(caller) as standing:
                    request = await self._request(rpc, raw, caller)
                    async with aclosing(rpc.answer(request, context)) as responses:
                        while (response := await standing.next(responses)) is not None:
                            yield _written(rpc, response)
            except Exception as error:  # noqa: BLE001 - the outermost edge: whatever failed is logged and mapped here
                self._refuse(rpc, context, error, started)
                return
            _log.debug("answered", method=rpc.method, millis=_millis(started))

        return respond

    async def _in_time(self, rpc: _Rpc, raw: bytes, context: Context) -> bytes:
        """The answer, within the server's cap and what the caller's deadline leaves. Raises DeadlineTooShort."""
        remaining = cast("float | None", context.time_remaining())
        left = remaining - MARGIN_SECONDS if remaining is not None else self._unary_seconds_max
        seconds = min(self._unary_seconds_max, left)
        if seconds <= 0:
            raise _too_short(rpc, raw)
        limit = asyncio.timeout(seconds)
        try:
            async with limit:
                caller = await self._caller(rpc, context)
                request = await self._request(rpc, raw, caller)
                return _written(rpc, await rpc.answer(request, context))
        except TimeoutError:
            if limit.expired():
                raise _too_short(rpc, raw) from None
            raise

    async def _caller(self, rpc: _Rpc, context: Context) -> Caller:
        entries = context.invocation_metadata() or ()
        secret = bearer_of([value for key, value in entries if key == "authorization"])
        caller = await authenticate(self._store, secret)
        caller.require(rpc.scope)
        return caller

    async def _request(self, rpc: _Rpc, raw: bytes, caller: Caller) -> Message:
        request = _parsed(rpc, raw)
        named = _tenant_named(request)
        tenant = await tenant_for(self._store, caller, named, may_be_new=rpc.may_be_new_tenant)
        begin_call(Call(caller, tenant, await self._store.keys.ready(tenant.tenant_id)))
        return request

    def _refuse(self, rpc: _Rpc, context: Context, error: Exception, started: float) -> None:
        """Lets the call end with what the error means. Not by grpc's abort, whose error would hold on to the call."""
        if isinstance(error, AngariumError):
            answer = answer_of(error)
            self._on_refused(error)
            _log.info(
                "refused", method=rpc.method, reason=answer.reason, code=answer.code.name, millis=_millis(started)
            )
        else:
            answer = _fault(rpc, error)
        context.set_code(answer.code)
        context.set_details(answer.message)
        context.set_trailing_metadata(answer.trailers)
        _let_go(error)


def _let_go(error: BaseException) -> None:
    """Break the ring of an error, its frames and the call: garbage that is not found yet counts as an open stream."""
    following: BaseException | None = error
    while following is not None and following.__traceback__ is not None:
        following.__traceback__ = None
        following = following.__cause__ or following.__context__


def _parsed(rpc: _Rpc, raw: bytes) -> Message:
    if len(raw) > REQUEST_BYTES_MAX:
        raise _too_large("request", REQUEST_BYTES_MAX)
    try:
        request = rpc.parse(raw)
    except DecodeError:
        raise Invalid(Reason.MALFORMED_MESSAGE, "The bytes are no message of the request's type.") from None
    known = request.ByteSize()
    request.DiscardUnknownFields()
    if request.ByteSize() != known:
        raise Invalid(
            Reason.MALFORMED_MESSAGE,
            "The request has fields that this version does not know, or of another type than it knows.",
        )
    return request


def _written(rpc: _Rpc, response: Message) -> bytes:
    raw = rpc.write(response)
    if len(raw) > RESPONSE_BYTES_MAX:
        raise _too_large("answer", RESPONSE_BYTES_MAX)
    return raw


def _too_large(what: str, limit: int) -> Exhausted:
    return Exhausted(Reason.MESSAGE_TOO_LARGE, f"The {what} is larger than {limit} bytes.", {"limit_bytes": str(limit)})


def _too_short(rpc: _Rpc, raw: bytes) -> DeadlineTooShort:
    repeat = "Repeat the call with the same request_id to learn what became of it."
    advice = repeat if _bears_request_id(rpc, raw) else "What it changes may have been done or not."
    return DeadlineTooShort(Reason.DEADLINE_TOO_SHORT, f"The deadline left no time to finish. {advice}")


def _bears_request_id(rpc: _Rpc, raw: bytes) -> bool:
    try:
        return bool(getattr(_parsed(rpc, raw), "request_id", ""))
    except AngariumError:
        return False


def _tenant_named(request: Message) -> str:
    """The tenant that a request names itself, or in the Send that it holds."""
    named = getattr(request, "tenant_id", None)
    if named is None:
        named = getattr(getattr(request, "send", None), "tenant_id", "")
    return cast("str", named)


def _fault(rpc: _Rpc, error: Exception) -> Answer:
    trace_id = secrets.token_hex(16)
    _log.error("fault", method=rpc.method, trace_id=trace_id, trail=trail_of(error))
    return internal(trace_id)


def _millis(started: float) -> float:
    return round((time.monotonic() - started) * 1000, 1)
