"""Callers and watchers that remember what they were told."""

import asyncio
import contextlib
import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Self

import grpc
import grpc.aio
from angarium.v1 import message_pb2 as messages, notification_service_pb2 as notifications
from angarium.v1.notification_service_pb2_grpc import NotificationServiceStub
from google.protobuf.message import Message as Proto
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc.error_details_pb2 import ErrorInfo
from grpc_status import rpc_status

from server.model.clock import SECOND, Micros
from server.model.enums import EventKind, MessageClass, State
from tests.proof.history import Op, Result, Seen, Watch

NO_EFFECT = frozenset(
    {
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.ALREADY_EXISTS,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.UNIMPLEMENTED,
    }
)
CALL_SECONDS = 10.0
RECONNECT_SECONDS = 0.05

Metadata = Sequence[tuple[str, str]]
Connect = Callable[[], grpc.aio.Channel]


class Caller:
    """One client account of one tenant. `connect` gives the channel to use now: after a restart it is another."""

    def __init__(self, connect: Connect, metadata: Metadata, tenant_id: str, client_id: str) -> None:
        self.connect = connect
        self.metadata = tuple(metadata)
        self.tenant_id = tenant_id
        self.client_id = client_id
        self.ops: list[Op] = []

    @property
    def stub(self) -> Any:
        return NotificationServiceStub(self.connect())

    async def send(self, request: notifications.SendRequest, *, timeout_seconds: float = CALL_SECONDS) -> Op:
        """Send once and note how it ended, whatever that was."""
        asked = Op(
            Result.INFO,
            self.tenant_id,
            self.client_id,
            key=request.request_id,
            fingerprint=fingerprint(request),
            message_class=_class_of(request),
            phone=request.recipient.phone,
            text=request.text,
        )
        return await self._call(asked, request, timeout_seconds)

    async def status(self, tracking_id: str) -> Op:
        """Ask for a message's status and note whether it was told."""
        request = notifications.GetStatusRequest(tracking_id=tracking_id)
        return await self._call(self._about(tracking_id, "GetStatus"), request, CALL_SECONDS)

    async def cancel(self, tracking_id: str) -> Op:
        """Cancel a message and note how that ended."""
        request = notifications.CancelRequest(tracking_id=tracking_id)
        return await self._call(self._about(tracking_id, "Cancel"), request, CALL_SECONDS)

    def _about(self, tracking_id: str, method: str) -> Op:
        return Op(Result.INFO, self.tenant_id, self.client_id, method=method, made=False, tracking_id=tracking_id)

    async def _call(self, asked: Op, request: Proto, timeout_seconds: float) -> Op:
        """A call that is cut off, by its own task's end too, was made all the same: nobody knows how it ended."""
        done = asked = replace(asked, invoked_at=now_micros())
        try:
            answer = await getattr(self.stub, asked.method)(request, timeout=timeout_seconds, metadata=self.metadata)
        except grpc.aio.AioRpcError as error:
            done = failed(asked, error)
        else:
            done = replace(asked, result=Result.OK)
            if isinstance(answer, notifications.SendResponse):
                expires_at = micros_of(answer.expire_time)
                done = replace(done, tracking_id=answer.tracking_id, replayed=answer.replayed, expires_at=expires_at)
        finally:
            done = replace(done, ended_at=now_micros())
            self.ops.append(done)
        return done


class Watcher:
    """Follows one message, or a whole tenant, and resumes from its last cursor whenever its stream breaks.

    Use as an asynchronous context manager. A tenant's watcher misses nothing that was accepted after `ready`.
    """

    def __init__(self, caller: Caller, name: str, tracking_id: str = "") -> None:
        self.name = name
        self.seen: list[Seen] = []
        self.ready = asyncio.Event()
        self.ended = asyncio.Event()
        self.connections = 0
        self.errors: list[str] = []
        self._told = asyncio.Event()
        self._caller = caller
        self._tracking_id = tracking_id
        self._cursor = ""
        self._task: asyncio.Task[None] | None = None
        self._call: Any = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name=f"watch {self.name}")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    @property
    def follows_one(self) -> bool:
        """Whether it follows one message, and ends with it."""
        return bool(self._tracking_id)

    @property
    def tenant_id(self) -> str:
        return self._caller.tenant_id

    def cut(self) -> None:
        """Break the stream as a caller that loses its connection does; it is resumed."""
        if self._call is not None:
            self._call.cancel()

    async def saw(self, count: int, timeout_seconds: float) -> None:
        """Until it has seen so many events."""
        async with asyncio.timeout(timeout_seconds):
            while len(self.seen) < count:
                self._told.clear()
                await self._told.wait()

    def watch(self, *, complete: bool) -> Watch:
        """What it saw. `complete`: it was given the time to see everything."""
        return Watch(
            self.name, self._caller.tenant_id, tuple(self.seen), message_id=self._tracking_id, complete=complete
        )

    async def _run(self) -> None:
        while not self.ended.is_set():
            try:
                await self._follow()
            except grpc.aio.AioRpcError as error:
                self.errors.append(error_text(error))
            except asyncio.CancelledError:
                # `cut` cancels the call alone; to cancel the task is to end.
                if self._task is not None and self._task.cancelling():
                    raise
            await asyncio.sleep(0 if self.ended.is_set() else RECONNECT_SECONDS)

    async def _follow(self) -> None:
        self.connections += 1
        request = notifications.WatchStatusRequest(tracking_id=self._tracking_id, cursor=self._cursor)
        if not self._tracking_id:
            request.filter.SetInParent()
        self._call = self._caller.stub.WatchStatus(request, metadata=self._caller.metadata)
        async for answer in self._call:
            self.seen.extend(seen_of(event, answer.cursor) for event in answer.events)
            self._cursor = answer.cursor or self._cursor
            self._told.set()
            self.ready.set()
        self.ended.set()


def seen_of(event: messages.StatusEvent, cursor: str) -> Seen:
    """An event of a stream as the history keeps it."""
    return Seen(
        message_id=event.tracking_id,
        seq=event.sequence,
        kind=EventKind(messages.StatusEvent.Kind.Name(event.kind).removeprefix("KIND_")),
        state=State(messages.Notification.State.Name(event.state).removeprefix("STATE_")),
        done=event.done,
        tenant_id=event.tenant_id,
        cursor=cursor,
        whole=str(event),
    )


def failed(asked: Op, error: grpc.aio.AioRpcError) -> Op:
    """How a call ended that raised: certainly without effect, or nobody knows how."""
    return replace(
        asked,
        result=Result.FAIL if error.code() in NO_EFFECT else Result.INFO,
        code=error.code().name,
        reason=reason_of(error),
        error=error_text(error),
    )


def reason_of(error: grpc.aio.AioRpcError) -> str:
    """The reason in an error's ErrorInfo; "" where it bears none."""
    status = rpc_status.from_call(error)  # pyright: ignore[reportArgumentType] - it asks for the same three methods
    for detail in status.details if status else ():
        info = ErrorInfo()
        if detail.Unpack(info):
            return info.reason
    return ""


def error_text(error: grpc.aio.AioRpcError) -> str:
    """Everything that an error tells its caller."""
    trailers = [f"{name}: {value!r}" for name, value in error.trailing_metadata() or ()]
    return "\n".join([error.code().name, error.details() or "", *trailers])


def fingerprint(request: Proto) -> str:
    """What a request asks for, without the key that it bears."""
    bare = type(request)()
    bare.CopyFrom(request)
    bare.ClearField("request_id")
    return hashlib.sha256(bare.SerializeToString(deterministic=True)).hexdigest()


def micros_of(stamp: Timestamp) -> Micros:
    return stamp.seconds * SECOND + stamp.nanos // 1000


def now_micros() -> Micros:
    return time.time_ns() // 1000


def _class_of(request: notifications.SendRequest) -> MessageClass:
    name = messages.MessageClass.Name(request.message_class).removeprefix("MESSAGE_CLASS_")
    return MessageClass.TRANSACTIONAL if name == "UNSPECIFIED" else MessageClass(name)
