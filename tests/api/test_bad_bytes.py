"""What a caller gets for what is no call: bytes, sizes, methods, deadlines."""

from collections.abc import AsyncIterator

import grpc
import pytest
from angarium.v1 import notification_service_pb2 as notifications
from grpc import StatusCode

from tests.api.edge import SECONDS, SEND, Edge, bearer, letter, raw_call, refused


def nested(depth: int) -> bytes:
    """A message within a message, as the wire has it, in a group of a number that nobody uses."""
    return b"\xa3\x06" * depth + b"\xa4\x06" * depth


BYTES: dict[str, bytes] = {
    "9 garbage": b"\xff\xfe\xfd\x00hello",
    "10 truncated varint": b"\x48\x80",
    "10 truncated length": b"\x1a\x7fabc",
    "11 not UTF-8": b"\x1a\x02\xff\xfe",
    "12 nested too deep": nested(150),
    "19 another wire type": b"\x18\x05",
    "21 unknown field": letter().SerializeToString() + b"\xa2\x06\x01a",
    "21 unknown field inside": b"\x22\x04\xa2\x06\x01a",
}


@pytest.mark.parametrize("row", BYTES)
async def test_bytes_that_are_no_message(sqlite_edge: Edge, row: str) -> None:
    """Rows 9–12, 19 and 21: INVALID_ARGUMENT, and nothing of what the parser said."""
    refusal = await raw_call(sqlite_edge, SEND, BYTES[row], bearer(sqlite_edge.secret))
    assert (refusal.code, refusal.reason) == (StatusCode.INVALID_ARGUMENT, "MALFORMED_MESSAGE")
    assert "Error" not in refusal.message


async def test_a_stream_is_told_as_well(sqlite_edge: Edge) -> None:
    """Garbage to a streaming method is answered as to a unary one."""
    async with grpc.aio.insecure_channel(sqlite_edge.address) as channel:
        watch = channel.unary_stream("/angarium.v1.NotificationService/WatchStatus")
        refusal = await refused(watch(b"\xff\xfe", timeout=SECONDS, metadata=bearer(sqlite_edge.secret)))
    assert (refusal.code, refusal.reason) == (StatusCode.INVALID_ARGUMENT, "MALFORMED_MESSAGE")


@pytest.mark.parametrize(("size", "told"), [(1_100_000, True), (3_000_000, False)])
async def test_a_message_that_is_too_large(sqlite_edge: Edge, size: int, told: bool) -> None:
    """Row 13: beyond 1 MiB RESOURCE_EXHAUSTED; with a reason as long as the transport takes it at all."""
    body = letter(text="x" * size).SerializeToString()
    refusal = await raw_call(sqlite_edge, SEND, body, bearer(sqlite_edge.secret))
    assert refusal.code == StatusCode.RESOURCE_EXHAUSTED
    assert (refusal.reason, refusal.told) == (("MESSAGE_TOO_LARGE", {"limit_bytes": "1048576"}) if told else ("", {}))


async def test_a_bomb_does_not_go_off(sqlite_edge: Edge) -> None:
    """Row 14: what is small only while it is compressed is RESOURCE_EXHAUSTED."""
    async with grpc.aio.insecure_channel(sqlite_edge.address, compression=grpc.Compression.Gzip) as channel:
        call = channel.unary_unary(SEND)(bytes(32 * 1024 * 1024), timeout=SECONDS, metadata=bearer(sqlite_edge.secret))
        assert (await refused(call)).code == StatusCode.RESOURCE_EXHAUSTED


async def test_metadata_that_is_too_large(sqlite_edge: Edge) -> None:
    """Row 15: beyond 16 KiB RESOURCE_EXHAUSTED."""
    metadata = (*bearer(sqlite_edge.secret), ("x-note", "n" * 20_000))
    refusal = await raw_call(sqlite_edge, SEND, letter().SerializeToString(), metadata)
    assert refusal.code == StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize(
    "method", ["/angarium.v1.NotificationService/Sned", "/angarium.v2.NotificationService/Send", "/x/y"]
)
async def test_methods_that_there_are_not(sqlite_edge: Edge, method: str) -> None:
    """Row 16: UNIMPLEMENTED, with a key and without."""
    for metadata in ((), bearer(sqlite_edge.secret)):
        assert (await raw_call(sqlite_edge, method, b"", metadata)).code == StatusCode.UNIMPLEMENTED


async def test_deadlines(sqlite_edge: Edge) -> None:
    """Rows 46 and 47: one that has passed is DEADLINE_EXCEEDED; without one a call is answered."""
    passed = sqlite_edge.operator.notifications.Send(letter(), timeout=-1)
    assert (await refused(passed)).code == StatusCode.DEADLINE_EXCEEDED
    async with grpc.aio.insecure_channel(sqlite_edge.address) as channel:
        send = channel.unary_unary(SEND)
        assert await send(letter().SerializeToString(), metadata=bearer(sqlite_edge.secret))


async def test_unary_calls_with_none_or_two_messages(sqlite_edge: Edge) -> None:
    """Rows 63 and 64: without a message a call waits for its deadline; of two the first is answered."""

    async def sending(count: int) -> bytes:
        async def messages() -> AsyncIterator[bytes]:
            for _ in range(count):
                yield letter().SerializeToString()

        async with grpc.aio.insecure_channel(sqlite_edge.address) as channel:
            call = channel.stream_unary(SEND)(messages(), timeout=1.0, metadata=bearer(sqlite_edge.secret))
            return await call

    assert (await refused(sending(0))).code == StatusCode.DEADLINE_EXCEEDED
    assert notifications.SendResponse.FromString(await sending(2)).tracking_id


async def test_a_compression_that_is_not_taken(sqlite_edge: Edge) -> None:
    """Row 17: gzip is taken, deflate is UNIMPLEMENTED."""
    for compression, told in (
        (grpc.Compression.Gzip, StatusCode.OK),
        (grpc.Compression.Deflate, StatusCode.UNIMPLEMENTED),
    ):
        async with grpc.aio.insecure_channel(sqlite_edge.address, compression=compression) as channel:
            body = letter(text="x" * 1_000).SerializeToString()
            call = channel.unary_unary(SEND)(body, timeout=SECONDS, metadata=bearer(sqlite_edge.secret))
            assert await call.code() == told
