"""Many streams on a gateway: arguments PORT and COUNT, the key on the environment.

The delay of an event is from the time that it bears, which its transaction took from the database's clock when it
began, to the moment at which its watcher has it: the commit is part of it.
"""

import asyncio
import os
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import grpc
from angarium.v1 import message_pb2, notification_service_pb2 as notifications
from angarium.v1.notification_service_pb2_grpc import NotificationServiceStub

from bench import sends
from bench.callers import OPTIONS
from bench.children import obey, run

STREAMS_PER_CHANNEL = 50
OPEN_SECONDS_MAX = 30.0
HEAR_SECONDS_MAX = 60.0
REFUSED_PAUSE_SECONDS = 0.05
RESTING_NUMBER = 1_000_000
"""Of the message that is watched by its id, beyond those that are sent meanwhile."""


class Watchers:
    """`count` streams. What they hear is kept from `watch` to `leave`."""

    def __init__(self, port: str, count: int) -> None:
        self._count = count
        self._who = sends.credentials(os.environ["BENCH_KEY"])
        channels = range(-(-count // STREAMS_PER_CHANNEL))
        self._channels = [grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=OPTIONS) for _ in channels]
        self._stubs = [NotificationServiceStub(channel) for channel in self._channels]
        self._tasks: list[asyncio.Task[None]] = []
        self._delays: defaultdict[tuple[str, int], list[int]] = defaultdict(list)
        self._opened = 0
        self._done = 0

    async def watch(self, kind: str) -> dict[str, Any]:
        """Open every stream, and wait until each has had its first answer.

        `message`: all watch one that does not move; `tag`: each the tenant for a tag of its own; `tenant`: all of it.
        """
        self._opened = self._done = 0
        resting = await self._resting() if kind == "message" else ""
        wanted = [_wanted(kind, number, resting) for number in range(self._count)]
        self._tasks = [asyncio.create_task(self._follow(number, one)) for number, one in enumerate(wanted)]
        await self._until(OPEN_SECONDS_MAX, lambda: self._opened == self._count)
        self._delays.clear()
        return {}

    async def heard(self, done: int) -> dict[str, Any]:
        """Wait until so many events have come that were the last of their message."""
        await self._until(HEAR_SECONDS_MAX, lambda: self._done >= done)
        return {}

    async def leave(self) -> dict[str, Any]:
        """Close every stream. In µs the delays of all events, and of each event that of the watcher who had it last."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        delays = self._delays.values()
        return {"delays": [delay for event in delays for delay in event], "last": [max(event) for event in delays]}

    async def close(self) -> None:
        """Close the connections."""
        for channel in self._channels:
            await channel.close()

    async def _until(self, seconds: float, condition: Callable[[], bool]) -> None:
        """Wait for something that the streams tell. Raises whatever ended one of them."""
        async with asyncio.timeout(seconds):
            while not condition():
                for task in self._tasks:
                    if task.done():
                        task.result()
                        raise RuntimeError("a stream ended by itself")
                await asyncio.sleep(0.01)

    async def _resting(self) -> str:
        """A message that does not move."""
        request = sends.request(RESTING_NUMBER, later=True)
        return (await self._stubs[0].Send(request, timeout=sends.CALL_SECONDS_MAX, metadata=self._who)).tracking_id

    async def _follow(self, number: int, wanted: notifications.WatchStatusRequest) -> None:
        while True:
            try:
                await self._listen(self._stubs[number % len(self._stubs)], wanted)
            except grpc.aio.AioRpcError as error:
                # The gateway may not have seen yet that the streams before these are closed: its limit is as many.
                if error.code() != grpc.StatusCode.RESOURCE_EXHAUSTED or self._opened == self._count:
                    raise
            else:
                return
            await asyncio.sleep(REFUSED_PAUSE_SECONDS)

    async def _listen(self, stub: Any, wanted: notifications.WatchStatusRequest) -> None:
        answers = aiter(stub.WatchStatus(wanted, metadata=self._who))
        await anext(answers)
        self._opened += 1
        async for answer in answers:
            now = time.time_ns() // 1000
            for event in answer.events:
                self._delays[event.tracking_id, event.sequence].append(now - event.event_time.ToMicroseconds())
                self._done += event.done


def _wanted(kind: str, number: int, resting: str) -> notifications.WatchStatusRequest:
    match kind:
        case "message":
            return notifications.WatchStatusRequest(tracking_id=resting)
        case "tag":
            wanted = message_pb2.NotificationFilter(tags=[sends.tag(number)])
        case _:
            wanted = message_pb2.NotificationFilter()
    return notifications.WatchStatusRequest(filter=wanted)


async def main(port: str, count: str) -> None:
    watchers = Watchers(port, int(count))
    await obey({"watch": watchers.watch, "heard": watchers.heard, "leave": watchers.leave})
    await watchers.close()


if __name__ == "__main__":
    run(main)
