"""What grpc.health.v1 tells: of the empty name that the process serves, of a service that its calls can succeed."""

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, cast

import grpc
import structlog
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from server.model.errors import AngariumError, Reason
from server.model.faults import trail_of
from server.store.store import Store

LOOK_EVERY_SECONDS = 1.0
READ_SECONDS = 3.0
BEAT_SECONDS = 5.0
"""A store that has committed nothing for so long, its own beat included, cannot keep a message."""
FULL_SECONDS = 5.0
WATCHERS_MAX = 1_000
WRITES = frozenset({"angarium.v1.NotificationService"})
"""Services that are of no use while nothing can be written."""

Context = Any
_log = structlog.get_logger("api")


class HealthService(health_pb2_grpc.HealthServicer):
    """Answers with what it was last told. grpcio's own forgets watchers when one leaves, and delays a stop."""

    def __init__(self) -> None:
        self._serving: Mapping[str, bool] = {}
        self._changed = asyncio.Event()
        self._closed = False
        self._watchers = 0

    def tell(self, serving: Mapping[str, bool]) -> None:
        """Which names serve; names that are not among them are unknown."""
        self._serving = serving
        self._wake()

    def close(self) -> None:
        """End every watch."""
        self._closed = True
        self._wake()

    async def Check(self, request: HealthCheckRequest, context: Context) -> HealthCheckResponse:
        if request.service not in self._serving:
            await context.abort(grpc.StatusCode.NOT_FOUND, "There is no such service.")
        return HealthCheckResponse(status=self._status(request.service))

    async def Watch(self, request: HealthCheckRequest, context: Context) -> AsyncGenerator[HealthCheckResponse, None]:
        if self._watchers >= WATCHERS_MAX:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "Too many watch.")
        self._watchers += 1
        told = None
        try:
            while not self._closed:
                changed, status = self._changed, self._status(request.service)
                if status != told:
                    told = status
                    yield HealthCheckResponse(status=status)
                await changed.wait()
        finally:
            self._watchers -= 1
        await context.abort(grpc.StatusCode.UNAVAILABLE, "The server is stopping.")

    def _status(self, service: str) -> Any:  # noqa: ANN401 - the health messages come without types
        match self._serving.get(service):
            case None:
                return HealthCheckResponse.SERVICE_UNKNOWN
            case True:
                return HealthCheckResponse.SERVING
            case False:
                return HealthCheckResponse.NOT_SERVING

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


class Health:
    """NOT_SERVING until it follows the store; again from the drain on."""

    def __init__(self, store: Store, services: Sequence[str]) -> None:
        self._store = store
        self._services = services
        self._service = HealthService()
        self._told: dict[str, bool] = dict.fromkeys(("", *services), False)
        self._following: asyncio.Task[None] | None = None
        self._full_until = 0.0

    def add_to(self, server: grpc.aio.Server) -> None:
        """Answer on this server, NOT_SERVING for a start."""
        self._service.tell(self._told)
        cast("Any", health_pb2_grpc).add_HealthServicer_to_server(self._service, server)

    async def follow(self) -> None:
        """Tell what the store can do, now and every second from now on."""
        await self._look()
        self._following = asyncio.create_task(self._run(), name="health")

    async def drain(self) -> None:
        """NOT_SERVING for good."""
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)
        self._tell(dict.fromkeys(self._told, False))

    def note(self, error: AngariumError) -> None:
        """A call failed so: where the disk is full, nothing is kept for some time. Then callers may try again."""
        if error.reason == Reason.STORAGE_FULL:
            self._full_until = time.monotonic() + FULL_SECONDS
            self._tell(self._told | dict.fromkeys(WRITES & self._told.keys(), False))

    def close(self) -> None:
        """End every watch of it, so that the server can stop."""
        self._service.close()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_SECONDS)
            try:
                await self._look()
            except Exception as error:  # noqa: BLE001 - the outermost loop of this task: it must go on telling
                _log.error("health_not_told", trail=trail_of(error))

    async def _look(self) -> None:
        reads = await self._reads()
        now = time.monotonic()
        writes = reads and now - self._store.beating < BEAT_SECONDS and now >= self._full_until
        self._tell({"": True} | {name: writes if name in WRITES else reads for name in self._services})

    async def _reads(self) -> bool:
        try:
            async with asyncio.timeout(READ_SECONDS):
                await self._store.watching.cursor_now()
        except (AngariumError, TimeoutError):
            return False
        return True

    def _tell(self, serving: dict[str, bool]) -> None:
        if serving == self._told:
            return
        _log.info("health", not_serving=[name for name, well in serving.items() if not well])
        self._told = serving
        self._service.tell(serving)
