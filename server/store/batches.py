"""Callers that come at about the same time share one piece of work."""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import structlog

from server.model.errors import Reason, Unavailable

Item = TypeVar("Item")
Result = TypeVar("Result")
Answers = Sequence[Result | Exception]

LINGER_SECONDS = 0.008
LINGER_FROM = 24
"""So many must have come together in the last batch for the next one to wait for as many again."""
STILL_BUSY_SECONDS = 0.05
"""After a longer silence nobody is expected."""
UNAVAILABLE_MAX = 2
"""After so many items alone that could not be worked on, the rest of their batch is not tried."""

_log = structlog.get_logger("store")


@dataclass(frozen=True, slots=True)
class _Caller(Generic[Item, Result]):
    item: Item
    answer: asyncio.Future[Result]


class Batches(Generic[Item, Result]):
    """Gathers items while a batch is at work, then hands over the next; one batch at a time, in order.

    `work` takes at most `size_max` items and answers each, by a result or an error; when it raises, nothing was done,
    and if the error is `separable` each item is tried again alone, so that only the guilty one fails. All callers of a
    batch are answered in one go. `first` tells which items overtake others. With `linger`, a batch that follows a big
    one waits up to 8 ms for as many callers: fewer, bigger batches cost everyone less. A lone caller never waits.
    """

    def __init__(
        self,
        work: Callable[[list[Item]], Awaitable[Answers[Result]]],
        separable: Callable[[Exception], bool],
        *,
        size_max: int,
        linger: bool = False,
        first: Callable[[Item], bool] = lambda _: False,
    ) -> None:
        self._work = work
        self._separable = separable
        self._size_max = size_max
        self._linger = linger
        self._first = first
        self._ahead: deque[_Caller[Item, Result]] = deque()
        self._waiting: deque[_Caller[Item, Result]] = deque()
        self._enough = asyncio.Event()
        self._wanted = 1
        self._last_size = 0
        self._last_end = 0.0
        self._runner: asyncio.Task[None] | None = None
        self._closed = False

    async def submit(self, item: Item) -> Result:
        """The answer to this item. A caller that is cancelled while its batch is at work is in it all the same."""
        if self._closed:
            raise Unavailable(Reason.STORE_UNAVAILABLE, "The store is closed.")
        answer: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        (self._ahead if self._first(item) else self._waiting).append(_Caller(item, answer))
        if self._runner is None:
            self._runner = asyncio.create_task(self._run(), name="batches")
        if self._count() >= self._wanted:
            self._enough.set()
        return await answer

    async def close(self) -> None:
        """Answer those who wait, and take nobody more."""
        self._closed = True
        self._enough.set()
        if self._runner is not None:
            await self._runner

    async def _run(self) -> None:
        while await self._gather():
            callers = self._take()
            if callers:
                answers = await self._answers([caller.item for caller in callers])
                self._last_size, self._last_end = len(callers), time.monotonic()
                _answer(callers, answers)

    async def _gather(self) -> bool:
        """Wait until there is a batch; False when there will be none."""
        while not self._count():
            if self._closed:
                return False
            await self._wait_for(1, None)
        expected = min(self._last_size, self._size_max)
        if self._linger and expected >= LINGER_FROM and time.monotonic() - self._last_end < STILL_BUSY_SECONDS:
            await self._wait_for(expected, LINGER_SECONDS)
        else:
            await asyncio.sleep(0)  # one turn of the loop: whoever is ready already comes along
        return True

    async def _wait_for(self, wanted: int, seconds: float | None) -> None:
        if self._count() >= wanted or self._closed:
            return
        self._wanted = wanted
        self._enough.clear()
        try:
            await asyncio.wait_for(self._enough.wait(), seconds)
        except TimeoutError:
            return
        finally:
            self._wanted = 1

    def _count(self) -> int:
        return len(self._ahead) + len(self._waiting)

    def _take(self) -> list[_Caller[Item, Result]]:
        """The next batch, without those whose callers left before their turn came."""
        taken: list[_Caller[Item, Result]] = []
        for queue in (self._ahead, self._waiting):
            while queue and len(taken) < self._size_max:
                caller = queue.popleft()
                if not caller.answer.cancelled():
                    taken.append(caller)
        return taken

    async def _answers(self, items: list[Item]) -> Answers[Result]:
        try:
            return await self._work(items)
        except Exception as error:  # noqa: BLE001 - the outermost loop of this task: later callers must be served
            if len(items) == 1 or not self._separable(error):
                _log.warning("a batch failed", size=len(items), error=type(error).__name__)
                return [error] * len(items)
        return await self._one_by_one(items)

    async def _one_by_one(self, items: list[Item]) -> list[Result | Exception]:
        answers: list[Result | Exception] = []
        unavailable: list[Unavailable] = []
        for item in items:
            answer = unavailable[-1] if len(unavailable) >= UNAVAILABLE_MAX else (await self._answers([item]))[0]
            if isinstance(answer, Unavailable):
                unavailable.append(answer)
            answers.append(answer)
        return answers


def _answer(callers: Sequence[_Caller[Item, Result]], answers: Answers[Result]) -> None:
    for caller, answer in zip(callers, answers, strict=True):
        if caller.answer.done():
            continue
        if isinstance(answer, Exception):
            caller.answer.set_exception(answer)
        else:
            caller.answer.set_result(answer)
