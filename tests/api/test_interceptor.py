"""What stands around every call: deadlines, faults of ours, limits on what is under way."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from typing import Any

import grpc
import pytest
from angarium.v1 import notification_service_pb2 as wire
from angarium.v1.notification_service_pb2_grpc import add_NotificationServiceServicer_to_server
from grpc import StatusCode
from structlog.testing import capture_logs

from server.api.admission import CALLS_MAX, STREAMS_PER_CLIENT_MAX, Admission
from server.api.caller import current_call
from server.api.interceptor import Interceptor
from server.api.notifications import Notifications
from server.model.errors import Exhausted, Reason, Unavailable
from tests.api.edge import Client, Edge, letter, refused

CANARY = "code 987654 of +989120000111"


class Odd(Notifications):
    """A service that does what ours should not: it takes its time, fails, and says too much."""

    async def GetStatus(self, request: wire.GetStatusRequest, context: Any) -> wire.GetStatusResponse:
        await asyncio.sleep(30)
        return wire.GetStatusResponse()

    async def Cancel(self, request: wire.CancelRequest, context: Any) -> wire.CancelResponse:
        raise RuntimeError(CANARY)

    async def WatchStatus(
        self, request: wire.WatchStatusRequest, context: Any
    ) -> AsyncIterator[wire.WatchStatusResponse]:
        yield wire.WatchStatusResponse(cursor="first")
        raise KeyError(CANARY)

    async def ListNotifications(
        self, request: wire.ListNotificationsRequest, context: Any
    ) -> wire.ListNotificationsResponse:
        return wire.ListNotificationsResponse(next_page_token="x" * 5_000_000)

    async def Send(self, request: wire.SendRequest, context: Any) -> wire.SendResponse:
        call = current_call()
        return wire.SendResponse(tracking_id=f"{call.tenant_id}/{call.caller.client_id}")


@asynccontextmanager
async def odd_server(edge: Edge, unary_seconds_max: float = 10.0) -> AsyncIterator[Client]:
    """A server of the odd service behind the real interceptor, over the edge's store."""
    interceptor = Interceptor(edge.store, Admission(), unary_seconds_max=unary_seconds_max)
    server = grpc.aio.server(interceptors=(interceptor,), options=(("grpc.so_reuseport", 0),))
    add_NotificationServiceServicer_to_server(Odd(edge.store), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    client = Client(f"127.0.0.1:{port}", edge.secret)
    try:
        yield client
    finally:
        await client.channel.close()
        await server.stop(0)


async def test_a_bug_tells_nothing(sqlite_edge: Edge) -> None:
    """Row 72: INTERNAL with a trace id; the exception's text reaches neither the caller nor the log, its place does."""
    with capture_logs() as logs:
        async with odd_server(sqlite_edge) as client:
            refusals = [
                await refused(client.notifications.Cancel(wire.CancelRequest(tracking_id="x"))),
                await refused(client.notifications.WatchStatus(wire.WatchStatusRequest(tracking_id="x"))),
            ]
    faults = [entry for entry in logs if entry["event"] == "fault"]
    for refusal, fault, kind in zip(refusals, faults, ("RuntimeError", "KeyError"), strict=True):
        assert (refusal.code, refusal.reason) == (StatusCode.INTERNAL, "INTERNAL")
        assert refusal.told == {"trace_id": fault["trace_id"]}
        assert CANARY not in refusal.message
        assert kind in str(fault["trail"])
        assert "test_interceptor.py" in str(fault["trail"])
    assert "987654" not in str(logs)


async def test_the_server_caps_every_unary_call(sqlite_edge: Edge) -> None:
    """Rows 47 and 48: a call ends at the server's cap, or just before its caller's deadline, with the reason."""
    async with odd_server(sqlite_edge, unary_seconds_max=0.3) as client:
        capped = await refused(client.notifications.GetStatus(wire.GetStatusRequest(), timeout=20))
    async with odd_server(sqlite_edge) as client:
        short = await refused(client.notifications.GetStatus(wire.GetStatusRequest(), timeout=0.5))
    assert (capped.code, capped.reason) == (StatusCode.DEADLINE_EXCEEDED, "DEADLINE_TOO_SHORT")
    assert short.code == StatusCode.DEADLINE_EXCEEDED


async def test_what_to_do_when_time_is_up(sqlite_edge: Edge) -> None:
    """A call with a request_id is to be repeated with it; one without is not told of what it does not have."""
    named, bare = wire.GetStatusRequest(request_id="key"), wire.GetStatusRequest(tracking_id="x")
    async with odd_server(sqlite_edge, unary_seconds_max=0.2) as client:
        refusals = [await refused(client.notifications.GetStatus(asked, timeout=20)) for asked in (named, bare)]
    assert ["request_id" in refusal.message for refusal in refusals] == [True, False]


async def test_an_answer_that_no_client_takes(sqlite_edge: Edge) -> None:
    """An answer beyond 4 MiB is refused by the server that made it, with the limit."""
    async with odd_server(sqlite_edge) as client:
        refusal = await refused(client.notifications.ListNotifications(wire.ListNotificationsRequest()))
    assert (refusal.code, refusal.reason) == (StatusCode.RESOURCE_EXHAUSTED, "MESSAGE_TOO_LARGE")
    assert refusal.told == {"limit_bytes": "4194304"}


async def test_calls_do_not_mix(sqlite_edge: Edge) -> None:
    """Of many calls at once each sees its own caller and tenant."""
    await sqlite_edge.tenant("mall")
    async with odd_server(sqlite_edge) as client:
        named = ["mall" if n % 2 else "" for n in range(50)]
        answers = await asyncio.gather(*[client.notifications.Send(letter(tenant_id=tenant)) for tenant in named])
    assert [answer.tracking_id for answer in answers] == [f"{tenant or 'default'}/operator" for tenant in named]


def test_calls_under_way_are_bounded() -> None:
    """One call too many is OVERLOADED with a pause; one that ends makes room."""
    admission = Admission()
    with ExitStack() as calls:
        for _ in range(CALLS_MAX - 1):
            calls.enter_context(admission.call())
        with admission.call(), pytest.raises(Exhausted) as refusal, admission.call():
            pass
        with admission.call():
            pass
    assert refusal.value.reason == Reason.OVERLOADED
    assert 0.5 <= refusal.value.retry_after_seconds <= 2.0


def test_streams_of_one_client_are_bounded() -> None:
    """The 501st stream of a client account is TOO_MANY_STREAMS, whatever its connection; another client has room."""
    admission = Admission()
    with ExitStack() as streams:
        for number in range(STREAMS_PER_CLIENT_MAX):
            streams.enter_context(admission.stream(("default", "shop"), f"connection {number // 50}"))
        with pytest.raises(Exhausted) as refusal, admission.stream(("default", "shop"), "another"):
            pass
        with admission.stream(("default", "mall"), "another"):
            pass
    assert (refusal.value.reason, refusal.value.metadata) == (Reason.TOO_MANY_STREAMS, {"limit": "500"})
    with admission.stream(("default", "shop"), "another"):
        pass


def test_a_server_that_drains_takes_no_streams() -> None:
    """After the drain a new stream is DRAINING; a unary call is taken still."""
    admission = Admission()
    admission.drain()
    with admission.call():
        pass
    with pytest.raises(Unavailable) as refusal, admission.stream(("default", "shop"), "c"):
        pass
    assert refusal.value.reason == Reason.DRAINING
