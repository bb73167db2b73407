"""One database: one thread that writes, a few that read, and what becomes of its errors."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import structlog
from sqlalchemy import Connection, Engine, make_url
from sqlalchemy.exc import DBAPIError

from server.model.clock import Micros
from server.model.errors import Reason, Unavailable
from server.store.dialect import Dialect, Trouble
from server.store.epoch import open_log
from server.store.postgres import Postgres
from server.store.sqlite import Sqlite

T = TypeVar("T")
Job = Callable[[Connection], T]

REPEATS_MAX = 3
RETRY_AFTER_SECONDS = 1.0
REFUSE_SECONDS_MAX = 1.0
"""After a connect that failed, nobody waits for another one for as long as it took, at most so long."""

_UNUSABLE = "The database can not be used now."

_log = structlog.get_logger("store")


class Database:
    """Transactions run in threads; what awaits them runs on the event loop.

    A job may be run more than once (after a deadlock, or on a new connection), so it must change nothing but the
    database. Errors of the database reach the caller as `Unavailable` where waiting helps, else as they are.
    """

    def __init__(self, dialect: Dialect, readers: int) -> None:
        self.dialect = dialect
        self.on_commit: list[Callable[[], None]] = []
        """Called on the writer thread, after every commit that appended events."""
        self.log_epoch = 0
        """The epoch that events are written under; known once `log_is_open`."""
        self._log_open = False
        self._refusing_until = 0.0
        self._events_appended = False
        self._writer_connection: Connection | None = None
        self._writer_engine = dialect.open_writer()
        self._reader_engine = dialect.open_readers(readers)
        self._writer = ThreadPoolExecutor(1, "store-writer")
        self._readers = ThreadPoolExecutor(readers, "store-reader")

    @classmethod
    def open(cls, url: str, *, readers: int = 3) -> "Database":
        """Prepare for `sqlite:///PATH` or `postgresql://…`; connects at the first job.

        Raises DatabaseInUse where another process holds the SQLite file, UnsafeDatabase where it is none.
        """
        dialect = _dialect(url)
        dialect.hold()
        return cls(dialect, readers)

    @property
    def postgres(self) -> bool:
        """Whether several processes may be at it."""
        return self.dialect.postgres

    async def write(self, job: Job[T]) -> T:
        """Run a job in one transaction of the writer thread; jobs are run in the order in which they came."""
        return await self._submit(self._writer, self._write, job)

    async def read(self, job: Job[T]) -> T:
        """Run a job in one read-only transaction, which sees one state of the database."""
        return await self._submit(self._readers, self.read_here, job)

    def read_here(self, job: Job[T]) -> T:
        """As `read`, in the caller's thread, which it blocks: never on the event loop."""
        for left in reversed(range(REPEATS_MAX)):
            try:
                return _once(self._reader_engine, job)
            except DBAPIError as error:
                if not left or self.dialect.trouble(error) not in (Trouble.LOST, Trouble.REPEAT):
                    self._raise(error)
        raise AssertionError

    def now(self, connection: Connection) -> Micros:
        """The database's clock. Read it once in a transaction."""
        return self.dialect.now(connection)

    def events_appended(self) -> None:
        """Say, in a job, that this transaction appends events: `on_commit` is called after it."""
        self._events_appended = True

    def blames_one(self, error: Exception) -> bool:
        """Whether an error may be due to one row alone, so that its neighbours can be written without it."""
        if not isinstance(error, Unavailable):
            return True
        cause = error.__cause__
        return isinstance(cause, DBAPIError) and self.dialect.trouble(cause) == Trouble.LOCKED

    async def open_log(self) -> None:
        """Find the epoch of the event log, and raise it where the history may be another. Needs the schema."""
        self._log_open = True
        await self.write(self._find_epoch)

    async def close(self) -> None:
        """Finish the jobs that were submitted, then close everything. Later jobs get Unavailable."""
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._writer.shutdown()
        self._readers.shutdown()
        self._drop_connection()
        self._reader_engine.dispose()
        self._writer_engine.dispose()
        self.dialect.let_go()

    async def _submit(self, threads: ThreadPoolExecutor, run: Callable[[Job[T]], T], job: Job[T]) -> T:
        try:
            future = asyncio.get_running_loop().run_in_executor(threads, run, job)
        except RuntimeError as closed:
            raise Unavailable(Reason.STORE_UNAVAILABLE, "The store is closed.") from closed
        return await future

    def _write(self, job: Job[T]) -> T:
        for left in reversed(range(REPEATS_MAX + 1)):
            try:
                return self._transact(job)
            except _CommitFailedError as failed:
                self._judge(failed.error, left, in_commit=True)
            except DBAPIError as error:
                self._judge(error, left, in_commit=False)
        raise AssertionError

    def _judge(self, error: DBAPIError, left: int, *, in_commit: bool) -> None:
        """Return when the job is to be repeated, else raise."""
        trouble = self.dialect.trouble(error)
        if trouble == Trouble.LOST:
            self._drop_connection()
        # What was lost in COMMIT may have been committed: only the caller's own key can tell.
        again = trouble == Trouble.REPEAT or (trouble == Trouble.LOST and not in_commit)
        if not (again and left):
            self._raise(error)
        _log.info("transaction repeated", trouble=trouble, state=getattr(error.orig, "sqlstate", None))

    def _transact(self, job: Job[T]) -> T:
        connection = self._connected()
        self._events_appended = False
        transaction = connection.begin()
        try:
            result = job(connection)
        except BaseException:
            transaction.rollback()
            raise
        try:
            transaction.commit()
        except BaseException as error:
            # Whatever state it is in, nobody shall find it so.
            self._drop_connection()
            if isinstance(error, DBAPIError):
                raise _CommitFailedError(error) from error
            raise
        if self._events_appended:
            for call in self.on_commit:
                call()
        return result

    def _connected(self) -> Connection:
        if self._writer_connection is None:
            began = time.monotonic()
            if began < self._refusing_until:
                raise Unavailable(Reason.STORE_UNAVAILABLE, _UNUSABLE, retry_after_seconds=RETRY_AFTER_SECONDS)
            try:
                self._writer_connection = self._connect()
            except DBAPIError as error:
                # Where a connect is never answered, each job in the queue would wait as long as the first one.
                now = time.monotonic()
                self._refusing_until = now + min(now - began, REFUSE_SECONDS_MAX)
                self._raise(error)
                raise
        return self._writer_connection

    def _connect(self) -> Connection:
        connection = self._writer_engine.connect()
        if not self._log_open:
            return connection
        # Behind a new connection there may be another server, with another history.
        try:
            with connection.begin():
                self._find_epoch(connection)
        except BaseException:
            connection.invalidate()
            connection.close()
            raise
        return connection

    def _find_epoch(self, connection: Connection) -> None:
        self.log_epoch = open_log(connection, self.dialect, self.log_epoch)

    def _drop_connection(self) -> None:
        connection, self._writer_connection = self._writer_connection, None
        if connection is None:
            return
        try:
            connection.invalidate()
            connection.close()
        except DBAPIError:
            _log.debug("the lost connection could not be closed")

    def _raise(self, error: DBAPIError) -> None:
        match self.dialect.trouble(error):
            case Trouble.FULL:
                reason, message = Reason.STORAGE_FULL, "The database's disk is full."
            case Trouble.FAULT:
                raise error
            case _:
                reason, message = Reason.STORE_UNAVAILABLE, _UNUSABLE
        _log.warning("store unavailable", reason=reason, state=getattr(error.orig, "sqlstate", None))
        raise Unavailable(reason, message, retry_after_seconds=RETRY_AFTER_SECONDS) from error


class _CommitFailedError(Exception):
    """COMMIT itself failed."""

    def __init__(self, error: DBAPIError) -> None:
        super().__init__(error)
        self.error = error


def _dialect(url: str) -> Dialect:
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        return Sqlite(parsed.set(drivername="sqlite"))
    return Postgres(parsed.set(drivername="postgresql+psycopg"))


def _once(engine: Engine, job: Job[T]) -> T:
    with engine.connect() as connection, connection.begin():
        return job(connection)
