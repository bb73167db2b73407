"""The callers of a gateway, or of the bare server: arguments PORT and CHANNELS, the key on the environment."""

import os

import grpc
from angarium.v1.notification_service_pb2_grpc import NotificationServiceStub

from bench import sends
from bench.children import obey, run
from bench.pacing import Load

OPTIONS = (("grpc.use_local_subchannel_pool", 1),)
"""Without it all channels of a process share one connection."""


async def main(port: str, channels: str) -> None:
    open_channels = [grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=OPTIONS) for _ in range(int(channels))]
    stubs = [NotificationServiceStub(channel) for channel in open_channels]
    who = sends.credentials(os.environ["BENCH_KEY"])

    async def send(number: int, *, later: bool = False, tags: int = 0) -> None:
        request = sends.request(number, later=later, tag=sends.tag(number % tags) if tags else "")
        await stubs[number % len(stubs)].Send(request, timeout=sends.CALL_SECONDS_MAX, metadata=who)

    load = Load(send)
    await obey({"burst": load.burst, "pace": load.pace})
    for channel in open_channels:
        await channel.close()


if __name__ == "__main__":
    run(main)
