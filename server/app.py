"""Puts the rooms together, starts them in order, stops them in the reverse one: the only file that knows them all."""

import asyncio
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from structlog.tracebacks import ExceptionDictTransformer

from server.api.server import GrpcServer
from server.dispatch.dispatcher import Dispatcher
from server.hooks.server import HttpServer
from server.model.accounts import Account
from server.model.errors import Unavailable
from server.model.reporting import Reference, ReportTo, nowhere, report_url
from server.providers.roster import Roster
from server.providers.transport import Transport
from server.settings import Settings
from server.store.dialect import DatabaseInUse, UnsafeDatabase
from server.store.store import Store, open_store
from server.vault import keyfile
from server.vault.identity import new_id
from server.vault.ring import MasterKeyError, MasterKeys
from server.vault.vault import Vault

OPERATOR_KEY_FILE = "operator.key"
MASTER_KEY_FILE = "master.key"
DATABASE_WAIT_SECONDS = 15.0
"""How long a start waits for a Postgres that is coming up itself."""

_log = structlog.get_logger("app")


class StartRefused(Exception):
    """The process must not start as it is set up. Its message says what to change."""


@dataclass(frozen=True, slots=True)
class Application:
    """A gateway, put together."""

    settings: Settings
    store: Store
    roster: Roster
    dispatcher: Dispatcher
    server: GrpcServer
    http: HttpServer

    async def start(self) -> int:
        """Begin to serve and to dispatch; the port of gRPC. Raises StartRefused where an address is taken."""
        listen = self.settings.http_listen
        try:
            # First of all: a receipt may come as soon as something is sent.
            await self.http.start(listen)
            await self.dispatcher.start()
            listen = self.settings.listen
            return await self.server.start(listen)
        except (OSError, RuntimeError, Unavailable) as error:
            await self.stop()
            raise StartRefused(f"Cannot serve on {listen}: {error}") from error

    async def stop(self) -> None:
        """NOT_SERVING, streams told, calls and hand-offs finished within `drain_seconds`, then the store closes."""
        self.http.drain()
        await self.server.drain()
        seconds = self.settings.drain_seconds
        await asyncio.gather(self.server.stop(seconds), self.http.stop(), self.dispatcher.drain(seconds))
        await self.roster.aclose()
        await self.store.close()


async def build(settings: Settings, *, store: Store | None = None, roster: Roster | None = None) -> Application:
    """Put a gateway together, ready to start. `store` and `roster` may be brought along; it closes them too."""
    roster = roster or Roster(Transport(allow_private=settings.allow_private_upstreams))
    store = store or await opened_store(settings)
    try:
        await hand_out_operator_key(settings, store)
    except (OSError, Unavailable) as error:
        await store.close()
        raise StartRefused(f"The operator's key could not be written: {error}") from error
    http = HttpServer(store, roster, settings.public_url, drain_seconds=settings.drain_seconds)
    for follow in (roster.follow, http.follow):
        follow(store.configuration.snapshot)
        store.configuration.on_snapshot.append(follow)
    server = GrpcServer(store, roster, allow_private_upstreams=settings.allow_private_upstreams)
    dispatcher = Dispatcher(store, roster, report_to(settings.public_url, store))
    return Application(settings, store, roster, dispatcher, server, http)


def report_to(public_url: str, store: Store) -> ReportTo:
    """Where providers are told to post their receipts; nowhere without a public URL."""
    if not public_url:
        return nowhere

    def url_for(account: Account, message_id: str, number: int) -> str:
        token = store.keys.known(account.tenant_id).receipt_token(account.uid)
        return report_url(public_url, account.uid, token, Reference(message_id, number))

    return url_for


async def opened_store(settings: Settings) -> Store:
    """The store of these settings, migrated and with its keys at hand."""
    if settings.data_folder is not None:
        settings.data_folder.mkdir(parents=True, exist_ok=True)
    try:
        vault = Vault(_master_keys(settings))
        return await open_store(
            settings.database_url,
            boot_id=new_id(),
            vault=vault,
            provider_types=Roster.types(),
            wait_seconds=0.0 if settings.data_folder else DATABASE_WAIT_SECONDS,
        )
    except (DatabaseInUse, UnsafeDatabase, MasterKeyError, Unavailable) as error:
        raise StartRefused(str(error)) from error


def _master_keys(settings: Settings) -> MasterKeys:
    given = settings.master_key.get_secret_value()
    if given:
        return MasterKeys.parse(given)
    if settings.data_folder is None:
        raise StartRefused(
            "ANGARIUM_MASTER_KEY must be set on Postgres: every replica needs the same ring of master keys."
        )
    return MasterKeys.load_or_create(settings.data_folder / MASTER_KEY_FILE)


async def hand_out_operator_key(settings: Settings, store: Store) -> None:
    """On SQLite the first start makes the operator's key and leaves it in the data folder, for its owner alone."""
    if settings.data_folder is None:
        return
    path = settings.data_folder / OPERATOR_KEY_FILE
    await store.bootstrap(lambda secret: keyfile.replace(path, f"{secret}\n"))


async def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    application = await build(settings)
    port = await application.start()
    database, http_port = application.store.engine_name, application.http.port
    _log.info("serving", listen=settings.listen, port=port, http_port=http_port, database=database)
    await stopping.wait()
    _log.info("stopping", drain_seconds=settings.drain_seconds)
    await application.stop()


async def bootstrap(settings: Settings, show: Callable[[str], None]) -> bool:
    """Make the first tenant, client and operator key on an empty database; False where there is a tenant already."""
    store = await opened_store(settings)
    try:
        return await store.bootstrap(show)
    finally:
        await store.close()


async def rewrap(settings: Settings) -> int:
    """Wrap every tenant's key by the first master key of the ring; how many were wrapped by another."""
    store = await opened_store(settings)
    try:
        return await store.keys.rewrap_all()
    finally:
        await store.close()


def configure_logging(level: str) -> None:
    """JSON lines on stderr, without whatever libraries would say of URLs or queries."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False)),
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
