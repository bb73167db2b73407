"""Two ways to load: so many callers at once, or so many calls a second whatever the answers do."""

import asyncio
import random
import time
from collections.abc import Callable, Coroutine
from typing import Any

Act = Callable[..., Coroutine[Any, Any, None]]
"""Takes a number, and by name whatever a burst or a pace was given beside its own arguments."""


class Load:
    """Does one act again and again, each with the next number."""

    def __init__(self, act: Act) -> None:
        self._act = act
        self._next = 0

    async def burst(self, count: int, callers: int, **how: Any) -> dict[str, Any]:
        """`count` acts by so many callers, each of which waits for its answer. Times of CLOCK_MONOTONIC in ns."""
        began = time.monotonic_ns()
        last = self._next + count
        took: list[int] = []

        async def caller() -> None:
            while self._next < last:
                at = time.monotonic_ns()
                await self._act(self._number(), **how)
                took.append(time.monotonic_ns() - at)

        async with asyncio.TaskGroup() as group:
            for _ in range(callers):
                group.create_task(caller())
        return {"began": began, "ended": time.monotonic_ns(), "took": took}

    async def pace(self, rate: float, seconds: float, **how: Any) -> dict[str, Any]:
        """So many acts a second for so long, at random moments, the same in every round. When each began, as above."""
        moments = random.Random(2026)  # noqa: S311 - arrivals, no secret
        called_at: dict[int, int] = {}
        due = time.monotonic()
        until = due + seconds
        async with asyncio.TaskGroup() as group:
            while due < until:
                await asyncio.sleep(due - time.monotonic())
                number = self._number()
                called_at[number] = time.monotonic_ns()
                group.create_task(self._act(number, **how))
                due += moments.expovariate(rate)
        return {"called_at": called_at}

    def _number(self) -> int:
        self._next += 1
        return self._next
