"""A gateway that kills itself with SIGKILL before or after the nth time of a named step, counted from SIGUSR1 on.

`python -m tests.crashing intent:after 3`, configured by the same variables as the real one. Its store and its roster
wrap the real ones: nothing in `server/` knows of this.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, cast

import uvloop

from server import app
from server.model.accounts import HandOff
from server.model.facts import Fact, Settled, Started
from server.model.outcomes import Outcome
from server.providers.provider import Provider
from server.providers.roster import Roster
from server.providers.transport import Transport
from server.settings import Settings
from server.store.store import Store

STEPS = ("accept", "claim", "intent", "send", "settle")
POINTS = tuple(f"{step}:{side}" for step in STEPS for side in ("before", "after"))
FACTS: dict[type, str] = {Started: "intent", Settled: "settle"}

T = TypeVar("T")


class Crash:
    """Counts the steps and kills the process at the one that was chosen."""

    def __init__(self, point: str, count: int) -> None:
        self.step, self.side = point.split(":")
        self._left = count
        self._armed = False

    def arm(self) -> None:
        self._armed = True

    async def around(self, step: str, act: Callable[[], Awaitable[T]]) -> T:
        chosen = step == self.step
        if chosen and self.side == "before":
            self._count()
        result = await act()
        if chosen and self.side == "after" and not (step == "claim" and not result):
            self._count()
        return result

    def _count(self) -> None:
        self._left -= self._armed
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


class CrashingStore:
    """The real store but for the steps. With a claim to die at, nothing is offered: every message is claimed."""

    def __init__(self, store: Store, crash: Crash) -> None:
        vars(self).update(_store=store, _crash=crash)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(self._store, name, value)

    async def accept(self, new: Any) -> Any:
        return await self._crash.around("accept", lambda: self._store.accept(new))

    def offer(self, message_class: Any, free: int) -> None:
        self._store.offer(message_class, 0 if self._crash.step == "claim" else free)

    async def claim(self, *args: Any, **options: Any) -> Any:
        return await self._crash.around("claim", lambda: self._store.claim(*args, **options))

    async def apply(self, message_id: str, fact: Fact, *rest: Any) -> Any:
        step = FACTS.get(type(fact), "")
        return await self._crash.around(step, lambda: self._store.apply(message_id, fact, *rest))


class CrashingProvider:
    def __init__(self, provider: Provider, crash: Crash) -> None:
        self._provider, self._crash = provider, crash

    def __getattr__(self, name: str) -> Any:
        return getattr(self._provider, name)

    async def send(self, hand_off: HandOff) -> Outcome:
        return await self._crash.around("send", lambda: self._provider.send(hand_off))


class CrashingRoster(Roster):
    def __init__(self, transport: Transport, crash: Crash) -> None:
        super().__init__(transport)
        self._crash = crash

    def provider(self, uid: str) -> Provider | None:
        provider = super().provider(uid)
        return None if provider is None else cast("Provider", CrashingProvider(provider, self._crash))


async def serve(point: str, count: int) -> None:
    settings = Settings()
    crash = Crash(point, count)
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, crash.arm)
    store = CrashingStore(await app.opened_store(settings), crash)
    roster = CrashingRoster(Transport(allow_private=settings.allow_private_upstreams), crash)
    application = await app.build(settings, store=cast("Store", store), roster=roster)
    await application.start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    app.configure_logging("WARNING")
    uvloop.run(serve(sys.argv[1], int(sys.argv[2])))
