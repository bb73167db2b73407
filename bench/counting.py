"""What a gateway does for its messages: transactions by room of the store, and facts. Counted in its own process."""

import dataclasses
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from server.model.conclude import Decision
from server.model.decide import Refused
from server.model.facts import Fact
from server.model.work import SandboxCopy
from server.store.database import Database
from server.store.store import Store

READ = "read"


@dataclass(slots=True)
class Spent:
    """Transactions, the wall-clock time of their statements and of begin and commit, and CPU time of their thread."""

    count: int = 0
    statement_seconds: float = 0.0
    commit_seconds: float = 0.0
    cpu_seconds: float = 0.0

    def add(self, whole: float, statements: float, cpu: float) -> None:
        """One more transaction."""
        self.count += 1
        self.statement_seconds += statements
        self.commit_seconds += whole - statements
        self.cpu_seconds += cpu


@dataclass(slots=True)
class Kept:
    """The messages of which a fact of one type is durable, and when the last one's was (CLOCK_MONOTONIC, ns)."""

    messages: set[str] = field(default_factory=set[str])
    last: int = 0

    def add(self, message_id: str) -> None:
        """A fact is durable; only a message's first one counts."""
        if message_id not in self.messages:
            self.messages.add(message_id)
            self.last = time.monotonic_ns()


@dataclass(frozen=True, slots=True)
class Tally:
    """Transactions by the class that asked for them (`Flush`, `Apply`, `Claims`, …), all that read as `read`; facts."""

    rooms: defaultdict[str, Spent] = field(default_factory=lambda: defaultdict(Spent))
    facts: defaultdict[str, Kept] = field(default_factory=lambda: defaultdict(Kept))

    async def clear(self) -> dict[str, Any]:
        """Forget everything."""
        self.rooms.clear()
        self.facts.clear()
        return {}

    async def counts(self) -> dict[str, Any]:
        """Everything since it was last cleared."""
        return {
            "rooms": {room: dataclasses.asdict(spent) for room, spent in self.rooms.copy().items()},
            "facts": {fact: {"count": len(kept.messages), "last": kept.last} for fact, kept in self.facts.items()},
        }


def count(tally: Tally) -> None:
    """From now on, every transaction of this process is counted, and every fact that is applied."""
    # One is private, and alone sees the commit; what it is called changes with the store.
    Database._transact = _counted(tally, Database._transact, _room)  # noqa: SLF001
    Database.read_here = _counted(tally, Database.read_here, lambda _: READ)
    Store.apply = _noted(tally, Store.apply)


def _counted(tally: Tally, original: Callable[..., Any], room: Callable[[Any], str]) -> Callable[..., Any]:
    def transact(database: Database, job: Callable[..., Any]) -> object:
        began, cpu_began, statements = time.perf_counter(), time.thread_time(), 0.0

        def timed(connection: object) -> object:
            nonlocal statements
            first = time.perf_counter()
            try:
                return job(connection)
            finally:
                statements += time.perf_counter() - first

        try:
            return original(database, timed)
        finally:
            cpu = time.thread_time() - cpu_began
            tally.rooms[room(job)].add(time.perf_counter() - began, statements, cpu)

    return transact


def _noted(tally: Tally, original: Callable[..., Any]) -> Callable[..., Any]:
    async def apply(store: Store, message_id: str, fact: Fact, copy: SandboxCopy | None = None) -> Decision | Refused:
        ruling = await original(store, message_id, fact, copy)
        tally.facts[type(fact).__name__].add(message_id)
        return ruling

    return apply


def _room(job: Callable[..., Any]) -> str:
    return getattr(job, "__qualname__", type(job).__name__).partition(".")[0]
