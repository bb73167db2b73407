"""Whether those whose streams are open may still call: asked of every new snapshot, and when their key expires."""

import asyncio
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import contextmanager
from typing import TypeVar

from server.api.caller import Caller, key_invalid, require_standing
from server.model.clock import SECOND
from server.model.configuration import Snapshot
from server.model.errors import AngariumError
from server.store.configuration import Configuration

_Answer = TypeVar("_Answer")


class Standing:
    """One caller with a stream open."""

    def __init__(self, configuration: Configuration, caller: Caller) -> None:
        self._configuration = configuration
        self._caller = caller
        self._asked: Snapshot | None = None
        self._waiting: asyncio.Timeout | None = None
        self._refusal: AngariumError | None = None

    async def next(self, answers: AsyncGenerator[_Answer, None]) -> _Answer | None:
        """The stream's next answer, None behind the last; waits no longer than the caller may call.

        Raises Unauthenticated (CREDENTIALS_INVALID), Forbidden (TENANT_DISABLED); the stream is over then.
        """
        self._require()
        limit = self._waiting = asyncio.timeout(self._seconds_left())
        try:
            async with limit:
                answer = await anext(answers, None)
        except TimeoutError:
            if limit.expired():
                raise self._refusal or key_invalid() from None
            raise
        finally:
            self._waiting = None
        self._require()
        return answer

    def ask(self) -> None:
        """There is a new snapshot: where the caller is out of favour, wait no longer for an answer to give it."""
        try:
            self._require()
        except AngariumError as refusal:
            if self._waiting is not None and not self._waiting.expired():
                self._refusal = refusal
                self._waiting.reschedule(asyncio.get_running_loop().time())

    def _require(self) -> None:
        now, snapshot = time.time_ns() // 1000, self._configuration.snapshot
        if snapshot is self._asked and not (self._caller.expires_at and now >= self._caller.expires_at):
            return
        require_standing(self._caller, snapshot, now)
        self._asked = snapshot

    def _seconds_left(self) -> float | None:
        expires_at = self._caller.expires_at
        return max(0.0, expires_at / SECOND - time.time()) if expires_at else None


class Standings:
    """The callers of all open streams."""

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration
        self._open: set[Standing] = set()
        configuration.on_snapshot.append(self._ask_all)

    @contextmanager
    def of(self, caller: Caller) -> Generator[Standing]:
        """The standing of a caller while a stream of its is open."""
        standing = Standing(self._configuration, caller)
        self._open.add(standing)
        try:
            yield standing
        finally:
            self._open.discard(standing)

    def _ask_all(self, _: Snapshot) -> None:
        for standing in self._open:
            standing.ask()
