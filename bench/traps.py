"""Does grpc.aio still behave as `server/api` expects? To be run before the grpcio line is changed.

    python bench/traps.py

Each trap is tried over a real connection and one line is printed: what was seen, and whether it is what decision record
0001 says. The exit code is the number of traps that behave differently: then the code that works round them may go, or
has a hole.
"""

import asyncio
import logging
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import uvloop
from google.protobuf import timestamp_pb2
from google.rpc import status_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from grpc_status import rpc_status

CHUNK = b"x" * 60_000
GRACE_SECONDS = 1.0
CALL_SECONDS_MAX = 3.0

Context = grpc.aio.ServicerContext
Trap = Callable[[], Awaitable[tuple[object, object]]]


@dataclass(slots=True)
class Bench:
    """A service of bad manners, and what it noticed."""

    raised: list[str] = field(default_factory=list)
    noticed: asyncio.Event = field(default_factory=asyncio.Event)

    async def echo(self, request: Any, _context: Context) -> Any:
        return request

    async def slow(self, request: bytes, _context: Context) -> bytes:
        await asyncio.sleep(0.5)
        return request

    async def boom(self, _request: bytes, _context: Context) -> bytes:
        message = "secret"
        raise RuntimeError(message)

    async def abort(self, _request: bytes, context: Context) -> bytes:
        try:
            await context.abort(grpc.StatusCode.NOT_FOUND, "gone")
        except Exception as error:
            self._note(error)
            raise

    async def remaining(self, _request: bytes, context: Context) -> bytes:
        return str(context.time_remaining()).encode()

    async def detail(self, request: bytes, context: Context) -> bytes:
        status = status_pb2.Status(code=grpc.StatusCode.INVALID_ARGUMENT.value[0])
        status.details.add(type_url="type.googleapis.com/bench.Detail", value=b"x" * int(request))
        await context.abort_with_status(rpc_status.to_status(status))

    async def flood(self, _request: bytes, _context: Context) -> AsyncIterator[bytes]:
        try:
            while True:
                yield CHUNK
        except BaseException as error:
            self._note(error)
            raise

    async def wait(self, request: bytes, _context: Context) -> AsyncIterator[bytes]:
        yield request
        await asyncio.sleep(60)

    def _note(self, error: BaseException) -> None:
        self.raised.append(type(error).__name__)
        self.noticed.set()


def serve(bench: Bench, **options: Any) -> tuple[grpc.aio.Server, int]:
    """A server with the bad service, health and v1alpha reflection on a free port, not yet started."""
    server = grpc.aio.server(**options)
    unary = {
        name: grpc.unary_unary_rpc_method_handler(getattr(bench, name))
        for name in ("echo", "slow", "boom", "abort", "remaining", "detail")
    }
    streams = {name: grpc.unary_stream_rpc_method_handler(getattr(bench, name)) for name in ("flood", "wait")}
    parsed = grpc.unary_unary_rpc_method_handler(
        bench.echo,
        request_deserializer=timestamp_pb2.Timestamp.FromString,
        response_serializer=timestamp_pb2.Timestamp.SerializeToString,
    )
    handlers = {**unary, **streams, "parsed": parsed}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench.Bench", handlers),))
    servicer = health.aio.HealthServicer()  # pyright: ignore[reportAttributeAccessIssue] - types-grpcio lacks it
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    reflection.enable_server_reflection([reflection.SERVICE_NAME], server)
    return server, server.add_insecure_port("127.0.0.1:0")


@asynccontextmanager
async def running(**options: Any) -> AsyncIterator[tuple[Bench, grpc.aio.Server, grpc.aio.Channel]]:
    """The service, its started server, and a channel to it."""
    bench = Bench()
    server, port = serve(bench, **options)
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield bench, server, channel
    await server.stop(None)


async def answer(call: Any) -> object:
    """What a call ends with: the answer, or the code and its text."""
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        return f"{error.code().name} {error.details()}"


def unary(channel: grpc.aio.Channel, method: str, request: bytes = b"") -> Any:
    return channel.unary_unary(f"/bench.Bench/{method}")(request, timeout=CALL_SECONDS_MAX)


def check_health(channel: grpc.aio.Channel) -> Any:
    return channel.unary_unary("/grpc.health.v1.Health/Check", None, health_pb2.HealthCheckResponse.FromString)(
        b"", timeout=CALL_SECONDS_MAX
    )


async def exception_text_reaches_the_caller() -> tuple[object, object]:
    async with running() as (_, _, channel):
        return await answer(unary(channel, "boom")), "UNKNOWN Unexpected <class 'RuntimeError'>: secret"


async def garbage_is_unknown_and_names_the_parser() -> tuple[object, object]:
    async with running() as (_, _, channel):
        seen = await answer(unary(channel, "parsed", b"\xff\xff\xff"))
        return str(seen).partition(": ")[0], "UNKNOWN Unexpected <class 'google.protobuf.message.DecodeError'>"


async def abort_is_caught_by_except_exception() -> tuple[object, object]:
    async with running() as (bench, _, channel):
        await answer(unary(channel, "abort"))
        await asyncio.wait_for(bench.noticed.wait(), CALL_SECONDS_MAX)
        return bench.raised, ["AbortError"]


async def no_deadline_is_none() -> tuple[object, object]:
    async with running() as (_, _, channel):
        return await channel.unary_unary("/bench.Bench/remaining")(b""), b"None"


async def of_two_messages_on_a_unary_the_first_is_taken() -> tuple[object, object]:
    async with running() as (_, _, channel):
        return await _answer_to(channel, b"first", b"second"), b"first"


async def no_message_on_a_unary_waits_for_the_deadline() -> tuple[object, object]:
    async with running() as (_, _, channel):
        return await _answer_to(channel), "DEADLINE_EXCEEDED Deadline Exceeded"


async def _answer_to(channel: grpc.aio.Channel, *requests: bytes) -> object:
    async def send() -> AsyncIterator[bytes]:
        for request in requests:
            yield request

    return await answer(channel.stream_unary("/bench.Bench/echo")(send(), timeout=CALL_SECONDS_MAX))


async def a_second_server_takes_the_same_port() -> tuple[object, object]:
    _, port = serve(Bench())
    return grpc.aio.server().add_insecure_port(f"127.0.0.1:{port}") == port, True


async def so_reuseport_0_refuses_the_second_server() -> tuple[object, object]:
    alone = [("grpc.so_reuseport", 0)]
    _, port = serve(Bench(), options=alone)
    try:
        grpc.aio.server(options=alone).add_insecure_port(f"127.0.0.1:{port}")
    except RuntimeError:
        return "refused", "refused"
    return "bound", "refused"


async def maximum_concurrent_rpcs_rejects_health() -> tuple[object, object]:
    async with running(maximum_concurrent_rpcs=1) as (_, _, channel):
        busy = unary(channel, "slow")
        await asyncio.sleep(0.2)
        seen = await answer(check_health(channel))
        await answer(busy)
        return seen, "RESOURCE_EXHAUSTED Concurrent RPC limit exceeded!"


async def health_serves_from_construction() -> tuple[object, object]:
    async with running() as (_, _, channel):
        return (await check_health(channel)).status, health_pb2.HealthCheckResponse.SERVING


async def an_open_stream_holds_stop_for_the_whole_grace() -> tuple[object, object]:
    async with running() as (_, server, channel):
        stream = channel.unary_stream("/bench.Bench/wait")(b"open")
        await stream.read()
        began = time.monotonic()
        await server.stop(GRACE_SECONDS)
        held = time.monotonic() - began >= GRACE_SECONDS * 0.9
        return (held, await answer(stream.read())), (True, "UNAVAILABLE Cancelling all calls")


async def a_generator_parked_at_yield_gets_generator_exit() -> tuple[object, object]:
    async with running() as (bench, _, channel):
        stream = channel.unary_stream("/bench.Bench/flood")(b"")
        await stream.read()
        await asyncio.sleep(0.3)
        stream.cancel()
        await asyncio.wait_for(bench.noticed.wait(), CALL_SECONDS_MAX)
        return bench.raised, ["GeneratorExit"]


async def reflection_is_v1alpha_alone() -> tuple[object, object]:
    async def list_services() -> AsyncIterator[bytes]:
        yield b"\x3a\x00"

    async with running() as (_, _, channel):
        seen: list[str] = []
        for version in ("v1", "v1alpha"):
            method = f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo"
            call = channel.stream_stream(method)(list_services(), timeout=CALL_SECONDS_MAX)
            answered = await answer(call.read())
            seen.append("OK" if isinstance(answered, bytes) else str(answered).split()[0])
        return seen, ["UNIMPLEMENTED", "OK"]


async def details_over_8_kib_are_lost_at_random() -> tuple[object, object]:
    async with running() as (_, _, channel):
        lost = {6_000: 0, 15_000: 0}
        for size in lost:
            for _ in range(20):
                seen = await answer(unary(channel, "detail", str(size).encode()))
                lost[size] += not str(seen).startswith("INVALID_ARGUMENT")
        return (lost[6_000], lost[15_000] > 0), (0, True)


TRAPS: tuple[Trap, ...] = (
    exception_text_reaches_the_caller,
    garbage_is_unknown_and_names_the_parser,
    abort_is_caught_by_except_exception,
    no_deadline_is_none,
    of_two_messages_on_a_unary_the_first_is_taken,
    no_message_on_a_unary_waits_for_the_deadline,
    a_second_server_takes_the_same_port,
    so_reuseport_0_refuses_the_second_server,
    maximum_concurrent_rpcs_rejects_health,
    health_serves_from_construction,
    an_open_stream_holds_stop_for_the_whole_grace,
    a_generator_parked_at_yield_gets_generator_exit,
    reflection_is_v1alpha_alone,
    details_over_8_kib_are_lost_at_random,
)


async def main() -> int:
    """Try every trap; returns how many behave differently."""
    print(f"grpcio {grpc.__version__}")
    changed = 0
    for trap in TRAPS:
        seen, expected = await asyncio.wait_for(trap(), 30)
        changed += seen != expected
        print(f"{'holds' if seen == expected else 'CHANGED'}: {trap.__name__.replace('_', ' ')}: {seen}")
    return changed


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)  # the traps make grpc.aio log their tracebacks
    sys.exit(uvloop.run(main()))
