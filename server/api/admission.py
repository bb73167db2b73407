"""How much may be under way at once: calls in all, streams in all, of one client account and of one connection."""

import random
import time
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from typing import TypeVar

from server.model.errors import Exhausted, Reason, Unavailable

CALLS_MAX = 1_024
STREAMS_MAX = 5_000
STREAMS_PER_CLIENT_MAX = 500
STREAMS_PER_CONNECTION_MAX = 64
PAUSE_SECONDS = (0.5, 2.0)


class Admission:
    """Counts what is under way in this process, on its event loop, and turns away what is too much."""

    def __init__(self) -> None:
        self._calls = 0
        self._streams = 0
        self._by_client: Counter[tuple[str, str]] = Counter()
        self._by_connection: Counter[str] = Counter()
        self._draining = False
        self._last_came = 0.0

    @property
    def quiet_seconds(self) -> float:
        """How long no unary call has come."""
        return time.monotonic() - self._last_came

    def drain(self) -> None:
        """Turn away every new stream."""
        self._draining = True

    @contextmanager
    def call(self) -> Generator[None]:
        """One unary call. Raises Exhausted(OVERLOADED) with a pause that differs from caller to caller."""
        self._last_came = time.monotonic()
        if self._calls >= CALLS_MAX:
            pause = random.uniform(*PAUSE_SECONDS)  # noqa: S311 - spreads the callers, guards nothing
            raise Exhausted(Reason.OVERLOADED, "The server has more to do than it can.", retry_after_seconds=pause)
        self._calls += 1
        try:
            yield
        finally:
            self._calls -= 1

    @contextmanager
    def stream(self, client: tuple[str, str], connection: str) -> Generator[None]:
        """One stream of a client account (tenant, client) on a connection. Raises Exhausted(TOO_MANY_STREAMS)."""
        if self._draining:
            raise Unavailable(Reason.DRAINING, "The server is stopping.")
        self._require_room(self._streams, STREAMS_MAX, "this process")
        self._require_room(self._by_client[client], STREAMS_PER_CLIENT_MAX, "one client account")
        self._require_room(self._by_connection[connection], STREAMS_PER_CONNECTION_MAX, "one connection")
        self._streams += 1
        self._by_client[client] += 1
        self._by_connection[connection] += 1
        try:
            yield
        finally:
            self._streams -= 1
            _leave(self._by_client, client)
            _leave(self._by_connection, connection)

    @staticmethod
    def _require_room(taken: int, most: int, whose: str) -> None:
        if taken >= most:
            raise Exhausted(Reason.TOO_MANY_STREAMS, f"No more than {most} streams of {whose}.", {"limit": str(most)})


_Key = TypeVar("_Key")


def _leave(counter: Counter[_Key], key: _Key) -> None:
    """A count that has gone back to zero is forgotten, so that the counters stay as small as what is under way."""
    counter[key] -= 1
    if not counter[key]:
        del counter[key]
