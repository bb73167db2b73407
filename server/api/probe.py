"""Asks a running server over gRPC whether it serves."""

from typing import Any, cast

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

SECONDS = 3.0


async def probe(address: str, service: str = "") -> bool:
    """Whether the server at HOST:PORT says SERVING within 3 s."""
    async with grpc.aio.insecure_channel(address) as channel:
        try:
            answer: HealthCheckResponse = await cast("Any", HealthStub(channel)).Check(
                HealthCheckRequest(service=service), timeout=SECONDS
            )
        except grpc.aio.AioRpcError:
            return False
    return answer.status == HealthCheckResponse.SERVING
