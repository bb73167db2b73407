"""A connection bears as many calls as it may have streams, whatever the calls before came to."""

import asyncio
from collections import Counter
from pathlib import Path

import grpc
from angarium.v1.notification_service_pb2 import GetStatusRequest, WatchStatusRequest
from angarium.v1.notification_service_pb2_grpc import NotificationServiceStub

from server.vault.identity import new_id
from tests.gateway import GatewayProcess

CALLS_AT_ONCE = 100
BURSTS = 12


async def test_refused_calls_give_their_streams_back(tmp_path: Path) -> None:
    """Bursts of calls and watches that are refused, close upon each other: each gets its own error, none is cut off.

    A server that keeps what was refused until it collects garbage runs out of streams, and resets what comes next.
    """
    async with GatewayProcess(tmp_path) as gateway:
        stub = NotificationServiceStub(gateway.channel)

        async def refused(number: int) -> str:
            try:
                if number % 2:
                    await stub.GetStatus(GetStatusRequest(tracking_id=new_id()), metadata=gateway.operator, timeout=10)
                else:
                    call = stub.WatchStatus(WatchStatusRequest(tracking_id=new_id()), metadata=gateway.operator)
                    await call.read()
            except grpc.aio.AioRpcError as error:
                return error.code().name
            return "OK"

        codes: Counter[str] = Counter()
        for _ in range(BURSTS):
            codes.update(await asyncio.gather(*map(refused, range(CALLS_AT_ONCE))))
    assert codes == {"NOT_FOUND": CALLS_AT_ONCE * BURSTS}
