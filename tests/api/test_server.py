"""The server as a whole: health, reflection, start and stop."""

import asyncio
import time
from typing import Any

import grpc
import pytest
from angarium.v1 import access_service_pb2 as access, notification_service_pb2 as notifications
from angarium.v1.message_pb2 import NotificationFilter
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc import StatusCode
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse

from server.api.probe import probe
from server.api.server import SERVICES, GrpcServer
from server.providers.roster import Roster
from server.providers.transport import Transport
from tests.api.edge import SECONDS, Edge, letter, refused, running
from tests.cluster import Cluster

NAMES = [service.full_name for service in SERVICES]
SEND_SERVICE = "angarium.v1.NotificationService"
READ_SERVICE = "angarium.v1.AccessService"
SERVING, NOT_SERVING = HealthCheckResponse.SERVING, HealthCheckResponse.NOT_SERVING


async def until_health(edge: Edge, service: str, serving: bool) -> None:
    """Wait until the server says so of a service."""
    deadline = time.monotonic() + 20
    while await probe(edge.address, service) != serving:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.1)


async def test_health_needs_no_key(sqlite_edge: Edge) -> None:
    """The server as a whole and each service are SERVING; a name that nobody has is NOT_FOUND."""
    async with grpc.aio.insecure_channel(sqlite_edge.address) as channel:
        stub: Any = HealthStub(channel)
        for name in ("", *NAMES):
            assert (await stub.Check(HealthCheckRequest(service=name), timeout=SECONDS)).status == SERVING
        unknown = await refused(stub.Check(HealthCheckRequest(service="x"), timeout=SECONDS))
        assert unknown.code == StatusCode.NOT_FOUND
        watch = stub.Watch(HealthCheckRequest(service="x"))
        assert (await watch.read()).status == HealthCheckResponse.SERVICE_UNKNOWN
        watch.cancel()
    assert not await probe("127.0.0.1:1")


async def test_a_drain_tells_everybody(edge: Edge) -> None:
    """Streams end with DRAINING and a pause, health says NOT_SERVING, calls go on, and the stop waits for nobody."""
    sent = await edge.operator.notifications.Send(letter())
    by_id = notifications.WatchStatusRequest(tracking_id=sent.tracking_id)
    by_filter = notifications.WatchStatusRequest(filter=NotificationFilter())
    streams = [edge.operator.notifications.WatchStatus(asked) for asked in (by_id, by_filter)]
    streams.append(edge.operator.notifications.SendAndWatch(notifications.SendAndWatchRequest(send=letter())))
    for stream in streams:
        await asyncio.wait_for(stream.read(), SECONDS)
    async with grpc.aio.insecure_channel(edge.address) as channel:
        stub: Any = HealthStub(channel)
        health = stub.Watch(HealthCheckRequest(service=SEND_SERVICE))
        assert (await health.read()).status == SERVING
        await edge.server.drain()
        for stream in streams:
            refusal = await asyncio.wait_for(refused(stream), SECONDS)
            assert (refusal.code, refusal.reason) == (StatusCode.UNAVAILABLE, "DRAINING")
            assert refusal.pushback
        assert (await health.read()).status == NOT_SERVING
        assert (await edge.operator.notifications.Send(letter())).tracking_id
        late = await refused(edge.operator.notifications.WatchStatus(by_filter))
        assert (late.code, late.reason) == (StatusCode.UNAVAILABLE, "DRAINING")
        started = time.monotonic()
        await edge.server.stop(SECONDS)
        assert time.monotonic() - started < SECONDS / 2


async def test_a_taken_port_is_refused(sqlite_edge: Edge) -> None:
    """A second server on the same port does not start, rather than share it silently; it can still be stopped."""
    roster = Roster(Transport())
    second = GrpcServer(sqlite_edge.store, roster)
    with pytest.raises(RuntimeError):
        await second.start(sqlite_edge.address)
    await second.stop(1)
    await roster.aclose()


async def test_a_full_disk_stops_sends_alone(sqlite_edge: Edge) -> None:
    """Row 71: a Send is STORAGE_FULL with a pause and its service NOT_SERVING, while reads go on; room heals it."""
    database = sqlite_edge.store._database
    pages = await database.write(lambda c: c.exec_driver_sql("PRAGMA page_count").scalar_one())
    await database.write(lambda c: c.exec_driver_sql(f"PRAGMA max_page_count = {pages}"))
    refusal = None
    for _ in range(200):
        refusal = await outcome_of(sqlite_edge.operator.notifications.Send(letter(text="x" * 1_000)))
        if refusal is not None:
            break
    assert refusal is not None
    assert (refusal.code, refusal.reason, refusal.pushback) == (StatusCode.UNAVAILABLE, "STORAGE_FULL", "1000")
    assert not await probe(sqlite_edge.address, SEND_SERVICE)
    assert await probe(sqlite_edge.address, READ_SERVICE)
    assert (await sqlite_edge.operator.access.WhoAmI(access.WhoAmIRequest())).tenant.tenant_id == "default"
    listed = await sqlite_edge.operator.notifications.ListNotifications(notifications.ListNotificationsRequest())
    assert listed.notifications
    await database.write(lambda c: c.exec_driver_sql("PRAGMA max_page_count = 1000000"))
    assert (await sqlite_edge.operator.notifications.Send(letter())).tracking_id
    await until_health(sqlite_edge, SEND_SERVICE, True)


async def outcome_of(call: Any) -> Any:
    """The refusal of a call; None where it was answered."""
    try:
        return await refused(call)
    except AssertionError:
        return None


async def test_a_database_that_is_away(cluster: Cluster, postgres_url: str) -> None:
    """Row 70: every call is STORE_UNAVAILABLE with a pause and the services NOT_SERVING, until it is back."""
    async with running(postgres_url) as edge:
        await edge.configure_sandbox()
        cluster.stop()
        try:
            calls = (
                edge.operator.notifications.Send(letter(request_id="k")),
                edge.operator.notifications.ListNotifications(notifications.ListNotificationsRequest()),
            )
            for call in calls:
                refusal = await refused(call)
                assert (refusal.code, refusal.reason) == (StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE")
                assert refusal.pushback == "1000"
            await until_health(edge, SEND_SERVICE, False)
            await until_health(edge, READ_SERVICE, False)
            assert await probe(edge.address)
        finally:
            cluster.start()
        await until_health(edge, SEND_SERVICE, True)
        assert (await edge.operator.notifications.Send(letter(request_id="k"))).tracking_id


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_reflection_needs_no_key(sqlite_edge: Edge, version: str) -> None:
    """Both versions list every service, and describe each of them and themselves."""
    method = f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo"
    everything = [*NAMES, "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection"]
    everything.append("grpc.reflection.v1alpha.ServerReflection")
    asked = [ServerReflectionRequest(list_services="*")]
    asked += [ServerReflectionRequest(file_containing_symbol=name) for name in everything]
    asked.append(ServerReflectionRequest(file_containing_symbol="no.such.Thing"))
    async with grpc.aio.insecure_channel(sqlite_edge.address) as channel:
        call = channel.stream_stream(
            method,
            request_serializer=ServerReflectionRequest.SerializeToString,
            response_deserializer=ServerReflectionResponse.FromString,
        )
        answers = [answer async for answer in call(iter(asked), timeout=SECONDS)]
    assert {service.name for service in answers[0].list_services_response.service} == set(everything)
    for name, answer in zip(everything, answers[1:-1], strict=True):
        files = map(FileDescriptorProto.FromString, answer.file_descriptor_response.file_descriptor_proto)
        assert name in {f"{file.package}.{service.name}" for file in files for service in file.service}
    assert answers[-1].error_response.error_code == StatusCode.NOT_FOUND.value[0]
