"""A gateway that kills itself with SIGKILL around the nth time of a named step, counted from SIGUSR1 on.

`python -m tests.crashing intent:after 3`, configured by the same variables as the real one; a third argument `armed`
counts from its start on. Its store and its roster wrap the real ones, and what the writer thread does is heard from
SQLAlchemy: nothing in `server/` knows of this.
"""

import asyncio
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar, cast

import uvloop
from sqlalchemy import Engine, event

from server import app
from server.model.accounts import HandOff, Sought
from server.model.enums import Channel
from server.model.facts import Fact, LookedUp, Receipted, Settled, Started
from server.model.messages import Follow
from server.model.outcomes import LookUp, Outcome, Report
from server.providers.provider import Provider
from server.providers.roster import Roster
from server.providers.transport import Transport
from server.settings import Settings
from server.store.store import Store

STEPS = ("accept", "claim", "intent", "send", "settle")
"""Of every message's way."""
DOUBT_STEPS = ("look_up", "found", "receipt")
"""What follows where it is not known how a hand-off ended: the question, and its answers as facts."""
CODE_STEPS = ("verify", "receive")
"""Of a code that is checked, and of a receipt that is posted."""
RESCUE_STEPS = ("bury", "rescue")
"""What a process does with a dead one, and with each message that this one held."""


def _around(*steps: str) -> tuple[str, ...]:
    return tuple(f"{step}:{side}" for step in steps for side in ("before", "after"))


WRITER_POINTS = ("statement:before", "commit:before", "commit:during")
"""Anywhere in a transaction of the writer thread."""
POINTS = (*_around(*STEPS, *DOUBT_STEPS), *WRITER_POINTS, "commit:after")
RESCUE_POINTS = _around(*RESCUE_STEPS)
CODE_POINTS = (*_around(*CODE_STEPS, "accept", "settle"), "commit:during", "commit:after")

FACTS: Mapping[type, str] = {Started: "intent", Settled: "settle", LookedUp: "found", Receipted: "receipt"}
COMMIT_SECONDS = 0.003
"""About as long as a commit takes."""
ARMED = "armed"

T = TypeVar("T")


class Crash:
    """Counts the steps and kills the process at the one that was chosen."""

    def __init__(self, point: str, count: int, *, armed: bool = False) -> None:
        self.step, self.side = point.split(":")
        self._left = count
        self._armed = armed

    def arm(self) -> None:
        self._armed = True

    async def around(self, step: str, act: Callable[[], Awaitable[T]]) -> T:
        self.at(step, "before")
        result = await act()
        if not (step == "claim" and not result):
            self.at(step, "after")
        return result

    def at(self, step: str, side: str) -> None:
        if (step, side) == (self.step, self.side) and self._is_last():
            _die()

    def soon(self, step: str) -> None:
        """Die while the step goes on, at any moment of it."""
        if (step, "during") == (self.step, self.side) and self._is_last():
            threading.Timer(random.random() * COMMIT_SECONDS, _die).start()

    def _is_last(self) -> bool:
        self._left -= self._armed
        return self._left == 0


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)  # nothing of the next step happens before the signal has come


def watch_writer(crash: Crash) -> None:
    """Count the statements and the commits of the thread that writes, from the first one of the process."""

    @event.listens_for(Engine, "before_cursor_execute")
    def _(*_: object) -> None:
        if _is_writer():
            crash.at("statement", "before")

    @event.listens_for(Engine, "commit")
    def _(_: object) -> None:
        if _is_writer():
            crash.at("commit", "before")
            crash.soon("commit")


def _is_writer() -> bool:
    return threading.current_thread().name.startswith("store-writer")


class CrashingStore:
    """The real store but for the steps. With a claim to die at, nothing is offered: every message is claimed."""

    def __init__(self, store: Store, crash: Crash) -> None:
        vars(self).update(_store=store, _crash=crash)
        # Before anybody else learns of the commit.
        store._database.on_commit.insert(0, lambda: crash.at("commit", "after"))
        liveness = store._liveness
        bury, rescue = liveness._bury, liveness._apply
        vars(liveness).update(
            _bury=lambda worker: crash.around("bury", lambda: bury(worker)),
            _apply=lambda message_id, lost: crash.around("rescue", lambda: rescue(message_id, lost)),
        )

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

    async def verify(self, *args: Any, **options: Any) -> Any:
        return await self._crash.around("verify", lambda: self._store.verify(*args, **options))

    async def receive(self, *args: Any, **options: Any) -> Any:
        return await self._crash.around("receive", lambda: self._store.receive(*args, **options))

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

    async def look_up(self, sought: Sequence[Sought]) -> Sequence[LookUp]:
        return await self._crash.around("look_up", lambda: self._provider.look_up(sought))

    def follow(self, channel: Channel, *, templated: bool) -> Follow:
        return self._provider.follow(channel, templated=templated)

    def reports(self, url: str, headers: Mapping[str, str], body: bytes) -> Sequence[Report] | None:
        return self._provider.reports(url, headers, body)


class CrashingRoster(Roster):
    def __init__(self, transport: Transport, crash: Crash) -> None:
        super().__init__(transport)
        self._crash = crash

    def provider(self, uid: str) -> Provider | None:
        provider = super().provider(uid)
        return None if provider is None else cast("Provider", CrashingProvider(provider, self._crash))


async def serve(settings: Settings, crash: Crash) -> None:
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, crash.arm)
    watch_writer(crash)
    store = CrashingStore(await app.opened_store(settings), crash)
    roster = CrashingRoster(Transport(allow_private=settings.allow_private_upstreams), crash)
    application = await app.build(settings, store=cast("Store", store), roster=roster)
    await application.start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    chosen = Settings()
    app.configure_logging(chosen.log_level)
    uvloop.run(serve(chosen, Crash(sys.argv[1], int(sys.argv[2]), armed=ARMED in sys.argv[3:])))
