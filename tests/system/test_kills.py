"""kill -9 between any two steps of accept → claim → intent → send → settle loses nothing and sends nothing twice."""

import asyncio
import signal
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import grpc
import pytest
from angarium.v1 import message_pb2, notification_service_pb2, notification_service_pb2_grpc

from tests.crashing import POINTS
from tests.gateway import GatewayProcess
from tests.scripted_upstream import ScriptedUpstream

MESSAGES = 12
CRASH_AT = {"accept": 5, "claim": 2, "intent": 5, "send": 5, "settle": 5}
"""At which time of the step. One claim takes up many messages, so that there are few of them."""
CLASSES = ("OTP", "TRANSACTIONAL")
"""Of every message that was in flight a repeat may be due; bulk would wait up to 5 s for its."""
END_SECONDS = 30.0


def request_of(number: int) -> notification_service_pb2.SendRequest:
    message_class = message_pb2.MessageClass.Value(f"MESSAGE_CLASS_{CLASSES[number % 2]}")
    return notification_service_pb2.SendRequest(
        request_id=f"kill-{number}",
        intent="KILL",
        recipient=message_pb2.Recipient(phone=f"0912000{1000 + number}"),
        text=f"text {number}",
        message_class=message_class,
    )


async def send_all(gateway: GatewayProcess, numbers: Sequence[int]) -> dict[int, str]:
    """The tracking ids of those that were answered OK; a call that the crash cut off has none."""
    stub = notification_service_pb2_grpc.NotificationServiceStub(gateway.channel)
    calls = [stub.Send(request_of(n), timeout=5, metadata=gateway.operator) for n in numbers]
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert not [a for a in answers if isinstance(a, BaseException) and not isinstance(a, grpc.RpcError)]
    return {n: a.tracking_id for n, a in zip(numbers, answers, strict=True) if not isinstance(a, BaseException)}


async def end_of(gateway: GatewayProcess, tracking_id: str) -> message_pb2.Notification:
    stub = notification_service_pb2_grpc.NotificationServiceStub(gateway.channel)
    async with asyncio.timeout(END_SECONDS):
        while True:
            request = notification_service_pb2.GetStatusRequest(tracking_id=tracking_id)
            found = (await stub.GetStatus(request, timeout=5, metadata=gateway.operator)).notification
            if found.done:
                return found
            await asyncio.sleep(0.1)


@pytest.mark.parametrize("point", POINTS)
async def test_a_kill_at_any_step_loses_nothing_and_sends_nothing_twice(
    point: str, tmp_path: Path, upstream: ScriptedUpstream
) -> None:
    """Every message that was accepted ends DELIVERED after the restart, and the provider read each text once.

    The provider can be asked by our own reference, so what was in flight is looked up instead of sent again.
    """
    crashing = [sys.executable, "-m", "tests.crashing", point, str(CRASH_AT[point.partition(":")[0]])]
    async with GatewayProcess(tmp_path, command=crashing) as gateway:
        await gateway.configure_kavenegar(upstream.base_url)
        gateway.signal(signal.SIGUSR1)
        accepted = await send_all(gateway, range(MESSAGES))
        assert await gateway.ended() == -9, "the crash point was never reached"
    async with GatewayProcess(tmp_path) as gateway:
        again = await send_all(gateway, range(MESSAGES))
        assert len(again) == MESSAGES
        assert accepted.items() <= again.items(), "an accepted message was lost"
        ends = await asyncio.gather(*(end_of(gateway, tracking_id) for tracking_id in again.values()))
    assert {message_pb2.Notification.State.Name(end.state) for end in ends} == {"STATE_DELIVERED"}
    sent = Counter(request.form["message"] for request in upstream.calls("sms/send"))
    assert sent == {f"text {n}": 1 for n in range(MESSAGES)}
