"""The HTTP server: its routes, its limits, how it starts and stops."""

import logging
import time
from http import HTTPStatus

import structlog
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.typedefs import Handler

from server.hooks.receipts import REQUEST_SECONDS, Receipts
from server.model.configuration import Snapshot
from server.model.faults import trail_of
from server.model.reporting import RECEIPTS_PATH
from server.providers.roster import Roster
from server.store.store import Store

BODY_BYTES_MAX = 64 * 1024
IDLE_SECONDS = 15.0
"""After so long a connection on which no whole request has begun is closed."""
LINGER_SECONDS = 1.0
"""For so long what still comes of a request that has been answered is read, so that its sender reads the answer."""
BEAT_SECONDS = 5.0
"""A store that has committed nothing for so long cannot keep a receipt."""

# aiohttp's own would log what strangers send.
_SILENT = logging.getLogger("server.hooks.silent")
_SILENT.disabled = True

_log = structlog.get_logger("hooks")


class HttpServer:
    """Takes receipts where there is a `public_url`, and tells of health."""

    def __init__(self, store: Store, roster: Roster, public_url: str, *, drain_seconds: float) -> None:
        self.port = 0
        """Where it listens; 0: nowhere."""
        self._store = store
        self._receipts = Receipts(store, roster, public_url) if public_url else None
        self._drain_seconds = min(drain_seconds, REQUEST_SECONDS)
        self._draining = False
        self._runner: web.AppRunner | None = None

    def follow(self, snapshot: Snapshot) -> None:
        """Take receipts of this configuration's accounts."""
        if self._receipts is not None:
            self._receipts.follow(snapshot)

    async def start(self, listen: str) -> int:
        """Serve on HOST:PORT; the port. Does nothing where `listen` is empty. Raises OSError where it is taken."""
        if not listen:
            return 0
        self._runner = web.AppRunner(
            self._application(),
            access_log=None,
            logger=_SILENT,
            keepalive_timeout=IDLE_SECONDS,
            lingering_time=LINGER_SECONDS,
            auto_decompress=False,
            shutdown_timeout=LINGER_SECONDS,
        )
        await self._runner.setup()
        host, _, port = listen.rpartition(":")
        await web.TCPSite(self._runner, host.strip("[]"), int(port)).start()
        self.port = int(self._runner.addresses[0][1])
        return self.port

    def drain(self) -> None:
        """Not healthy any more; all else goes on."""
        self._draining = True

    async def stop(self) -> None:
        """Take no new calls, and give those under way so long to finish as a drain may take."""
        self._draining = True
        if self._runner is None:
            return
        for site in self._runner.sites:
            await site.stop()
        if self._receipts is not None:
            # aiohttp's own way to stop reads no further: what is half here would be lost.
            await self._receipts.finish(self._drain_seconds)
        await self._runner.cleanup()

    def _application(self) -> web.Application:
        application = web.Application(client_max_size=BODY_BYTES_MAX, middlewares=[self._bid_farewell, _answered])
        application.router.add_get("/healthz", self._tell_health)
        if self._receipts is not None:
            application.router.add_post(RECEIPTS_PATH, self._receipts.take)
        return application

    async def _tell_health(self, _: web.Request) -> web.StreamResponse:
        well = not self._draining and time.monotonic() - self._store.beating < BEAT_SECONDS
        return web.Response(status=HTTPStatus.OK if well else HTTPStatus.SERVICE_UNAVAILABLE)

    @web.middleware
    async def _bid_farewell(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """While draining each connection ends with its answer."""
        answer = await handler(request)
        if self._draining:
            answer.force_close()
        return answer


@web.middleware
async def _answered(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answers what goes wrong with a status alone: whoever calls learns nothing else."""
    try:
        return await handler(request)
    except web.HTTPException as refused:
        return web.Response(status=refused.status)
    except HttpProcessingError:
        return web.Response(status=HTTPStatus.BAD_REQUEST)
    except ConnectionError:
        raise  # whoever called is gone
    except Exception as error:  # noqa: BLE001 - the outermost frame of a call: what it does not know is no answer
        _log.error("a call by HTTP failed", trail=trail_of(error))
        return web.Response(status=HTTPStatus.INTERNAL_SERVER_ERROR)
