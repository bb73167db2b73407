"""What a Send costs when nothing is done: grpc.aio on uvloop, the contract's stubs, an answer of the same size."""

import time

import grpc
from angarium.v1 import message_pb2, notification_service_pb2 as notifications
from google.protobuf.timestamp_pb2 import Timestamp

from bench.children import obey, run

SERVICE = notifications.DESCRIPTOR.services_by_name["NotificationService"].full_name
TRACKING_ID = "019a9f2e-7c1b-7d53-9a44-5f0e6d2c8b17"
CURSOR = "bQGan04-fBt9U5pEXw5tLIsXAAAAAQAGRAmHyZ1AMDEyMzQ1Njc4OWFiY2RlZg"


async def send(_request: notifications.SendRequest, _context: object) -> notifications.SendResponse:
    """Keeps nothing and hands nothing over."""
    now = time.time_ns() // 1000
    return notifications.SendResponse(
        tracking_id=TRACKING_ID,
        state=message_pb2.Notification.STATE_ACCEPTED,
        create_time=Timestamp(seconds=now // 1_000_000, nanos=now % 1_000_000 * 1000),
        expire_time=Timestamp(seconds=now // 1_000_000 + 3600, nanos=now % 1_000_000 * 1000),
        cursor=CURSOR,
    )


async def main() -> None:
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    method = grpc.unary_unary_rpc_method_handler(
        send,
        request_deserializer=notifications.SendRequest.FromString,
        response_serializer=notifications.SendResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"Send": method}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    await obey({}, port=port, key="")
    await server.stop(None)


if __name__ == "__main__":
    run(main)
