"""A gateway's start, its stop, and how replicas share one Postgres: real processes, ended by signals."""

import asyncio
import json
import signal
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import grpc
import pytest
from angarium.v1.access_service_pb2 import RevokeApiKeyRequest
from angarium.v1.message_pb2 import MESSAGE_CLASS_OTP, NotificationFilter
from angarium.v1.notification_service_pb2 import ListNotificationsRequest, WatchStatusRequest
from angarium.v1.notification_service_pb2_grpc import NotificationServiceStub

from server.dispatch.dispatcher import WIDTHS
from server.model.enums import MessageClass
from tests.api.edge import bearer, refusal_of, refused
from tests.gateway import GatewayProcess, eventually, run_server, state_of, surroundings
from tests.scripted_upstream import Recorded, Say, ScriptedUpstream

SEND = "sms/send"
ANSWER_SECONDS = 0.5
DRAIN_SECONDS = 10.0


@asynccontextmanager
async def replicas(folder: Path, url: str, count: int) -> AsyncIterator[list[GatewayProcess]]:
    """So many processes on one database, all serving."""
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(GatewayProcess(folder, url=url))
        others = [GatewayProcess(folder, url=url) for _ in range(count - 1)]
        yield [first, *[await stack.enter_async_context(other) for other in others]]


def slow(upstream: ScriptedUpstream, seconds: float) -> list[float]:
    """Texts are answered after so long, everything else at once; when each text was read."""
    reads: list[float] = []

    def reply(request: Recorded) -> Say:
        said = upstream.honest(request)
        if request.call != SEND:
            return said
        reads.append(time.monotonic())
        return Say(said.status, said.body, delay_seconds=seconds)

    upstream.always(reply)
    return reads


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_stop_tells_the_watchers_and_settles_what_is_in_flight(
    tmp_path: Path, upstream: ScriptedUpstream, number: signal.Signals
) -> None:
    """The stream ends UNAVAILABLE (DRAINING), the call to the provider is waited for and kept, the exit code is 0.

    The next start has nothing to repair.
    """
    slow(upstream, 1.5)
    async with GatewayProcess(tmp_path) as gateway:
        await gateway.configure_kavenegar(upstream.base_url, timeout_seconds=5)
        watched = NotificationServiceStub(gateway.channel).WatchStatus(
            WatchStatusRequest(filter=NotificationFilter()), metadata=gateway.operator, timeout=30
        )
        await anext(aiter(watched))
        tracking_id = await gateway.send(message_class=MESSAGE_CLASS_OTP)
        await upstream.wait_for(1)
        began = time.monotonic()
        gateway.signal(number)
        told = await refused(watched)
        assert await gateway.ended() == 0
        assert time.monotonic() - began < DRAIN_SECONDS
        assert '"level": "error"' not in gateway.stderr
    assert (told.code, told.reason) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
    async with GatewayProcess(tmp_path) as again:
        found = await again.status(tracking_id)
        assert state_of(found) in ("SENT", "DELIVERED")
        assert len(found.attempts) == 1
        await again.reach(tracking_id, "DELIVERED")
    assert len(upstream.calls(SEND)) == 1
    assert not upstream.calls("sms/statuslocalmessageid"), "it was known at the stop that the text was taken"


async def test_a_stop_does_not_wait_for_ever(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    """A provider that answers later than the drain allows is not waited for; after the next start its text is found."""
    slow(upstream, 8.0)
    async with GatewayProcess(tmp_path, environment={"ANGARIUM_DRAIN_SECONDS": "0.5"}) as gateway:
        await gateway.configure_kavenegar(upstream.base_url, timeout_seconds=20)
        tracking_id = await gateway.send()
        await upstream.wait_for(1)
        began = time.monotonic()
        gateway.signal(signal.SIGTERM)
        assert await gateway.ended() == 0
        assert time.monotonic() - began < 5
    async with GatewayProcess(tmp_path) as again:
        await again.reach(tracking_id, "DELIVERED")
    assert len(upstream.calls(SEND)) == 1


async def test_a_second_process_on_the_same_sqlite_is_refused(tmp_path: Path) -> None:
    """Exit code 2 and one sentence that names the file and Postgres; the first one serves on."""
    async with GatewayProcess(tmp_path) as gateway:
        environment = surroundings(tmp_path, "", "127.0.0.1:0")
        code, said = await started(tmp_path, environment)
        assert code == 2
        assert said.startswith("Another process uses ")
        assert str(tmp_path / "angarium.db") in said
        assert "Postgres" in said
        assert len(said.splitlines()) == 1
        await gateway.configure_sandbox()
        await gateway.reach(await gateway.send(), "SENT")


async def test_a_taken_port_is_refused(tmp_path: Path) -> None:
    """Exit code 2 and a sentence that names the address."""
    (tmp_path / "other").mkdir()
    async with GatewayProcess(tmp_path) as gateway:
        code, said = await started(tmp_path, surroundings(tmp_path / "other", "", gateway.address))
        assert code == 2
        assert f"Cannot serve on {gateway.address}" in said.splitlines()[-1]
        assert "Traceback" not in said


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"ANGARIUM_DATABASE_URL": "foo"}, "ANGARIUM_DATABASE_URL: "),
        ({"ANGARIUM_DATABASE_URL": "sqlite:///"}, "ANGARIUM_DATABASE_URL: "),
        ({"ANGARIUM_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"}, "ANGARIUM_MASTER_KEY must be set"),
        (
            {
                "ANGARIUM_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none",
                "ANGARIUM_MASTER_KEY": "k:" + "A" * 43 + "=",
            },
            "database",
        ),
        ({"ANGARIUM_MASTER_KEY": "nonsense"}, "master key"),
        ({"ANGARIUM_DRAIN_SECONDS": "soon"}, "ANGARIUM_DRAIN_SECONDS: "),
        ({"ANGARIUM_LISTEN": "nowhere"}, "nowhere"),
    ],
)
async def test_wrong_settings_are_refused(tmp_path: Path, settings: Mapping[str, str], sentence: str) -> None:
    """Exit code 2 and a sentence that says what to change; no traceback."""
    code, said = await started(tmp_path, {**surroundings(tmp_path, "", "127.0.0.1:0"), **settings})
    assert code == 2, said
    assert sentence.lower() in said.splitlines()[-1].lower()
    assert "Traceback" not in said


async def test_the_health_command_tells_whether_it_serves(tmp_path: Path) -> None:
    """Exit code 0 while it does, 1 when nobody is there."""
    gateway = GatewayProcess(tmp_path)
    assert (await health_of(gateway)) == 1
    async with gateway:
        assert (await health_of(gateway)) == 0


async def test_bootstrap_prints_the_first_key_once(tmp_path: Path, postgres_url: str) -> None:
    """On Postgres it prints a key that works; a second time it says that it will not, with exit code 1."""
    async with GatewayProcess(tmp_path, url=postgres_url) as gateway:
        again = await asyncio.to_thread(run_server, tmp_path, "bootstrap", environment=gateway.environment)
        assert again.returncode == 1
        assert again.stdout == b""
        await gateway.configure_sandbox()


async def test_replicas_share_the_work(tmp_path: Path, postgres_url: str, upstream: ScriptedUpstream) -> None:
    """What one replica accepts and cannot take up at once, the other sends; every text goes out once.

    The account is so new that the other has not heard of it yet.
    """
    reads = slow(upstream, ANSWER_SECONDS)
    async with replicas(tmp_path, postgres_url, 2) as (one, other):
        await one.configure_kavenegar(upstream.base_url, timeout_seconds=5)
        ids = await one.send_all({"text": f"text {n}"} for n in range(300))
        await asyncio.gather(*(sent(other, tracking_id) for tracking_id in ids))
    texts = [request.form["message"] for request in upstream.calls(SEND)]
    assert sorted(texts) == sorted(f"text {n}" for n in range(300))
    at_once = max(sum(at <= later < at + ANSWER_SECONDS for later in reads) for at in reads)
    assert at_once > WIDTHS[MessageClass.TRANSACTIONAL], "one replica did all the work"


async def test_a_dead_replicas_work_is_taken_over(
    tmp_path: Path, postgres_url: str, upstream: ScriptedUpstream
) -> None:
    """Killed with 60 texts in flight: within 10 s the other one knows what became of each; none is sent twice."""
    slow(upstream, 1.0)
    async with replicas(tmp_path, postgres_url, 2) as (victim, heir):
        await victim.configure_kavenegar(upstream.base_url, timeout_seconds=5)
        ids = await victim.send_all({"text": f"text {n}"} for n in range(60))
        await upstream.wait_for(20)
        victim.kill()
        killed = time.monotonic()
        assert await victim.ended() == -signal.SIGKILL
        upstream.always(None)
        await asyncio.gather(*(sent(heir, tracking_id) for tracking_id in ids))
        taken_over = time.monotonic() - killed
        print(f"taken over after {taken_over:.1f} s")  # noqa: T201 - for whoever runs it by hand
    assert taken_over < 10
    texts = [request.form["message"] for request in upstream.calls(SEND)]
    assert sorted(texts) == sorted(f"text {n}" for n in range(60))


async def test_a_revoked_key_is_refused_by_every_replica(tmp_path: Path, postgres_url: str) -> None:
    """Within 2 s of the answer to RevokeApiKey; by the one that was asked, at once."""
    async with replicas(tmp_path, postgres_url, 2) as (one, other):
        key_id, secret = await one.secret("read")
        assert not await refuses(one, secret)
        assert not await refuses(other, secret)
        await one.stubs.access.RevokeApiKey(RevokeApiKeyRequest(key_id=key_id))
        revoked = time.monotonic()
        assert await refuses(one, secret)
        await eventually(lambda: refuses(other, secret), 2)
        print(f"refused elsewhere after {time.monotonic() - revoked:.1f} s")  # noqa: T201 - for whoever runs it by hand


async def sent(gateway: GatewayProcess, tracking_id: str) -> None:
    await gateway.until(tracking_id, lambda found: state_of(found) in ("SENT", "DELIVERED"), 30, pause_seconds=0.5)


async def refuses(gateway: GatewayProcess, secret: str) -> bool:
    stub = NotificationServiceStub(gateway.channel)
    try:
        await stub.ListNotifications(ListNotificationsRequest(), metadata=bearer(secret), timeout=5)
    except grpc.aio.AioRpcError as error:
        return refusal_of(error).reason == "CREDENTIALS_INVALID"
    return False


async def started(folder: Path, environment: Mapping[str, str]) -> tuple[int, str]:
    """What a start that is refused ends with, and what it says beside its log."""
    finished = await asyncio.to_thread(run_server, folder, "serve", environment=environment)
    lines = [line for line in finished.stderr.decode().splitlines() if not is_log(line)]
    return finished.returncode, "\n".join(lines)


def is_log(line: str) -> bool:
    try:
        return "event" in json.loads(line)
    except ValueError:
        return False


async def health_of(gateway: GatewayProcess) -> int:
    return (await asyncio.to_thread(run_server, gateway.folder, "health", environment=gateway.environment)).returncode
