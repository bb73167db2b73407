"""kill -9 under load: at each step of a message's way, inside a commit, at a start, in a rescue, and at any time."""

import asyncio
import json
import math
import signal
import sys
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Container, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum, auto
from random import Random

from server.model.enums import State
from tests.crashing import ARMED, POINTS, RESCUE_POINTS, WRITER_POINTS
from tests.gateway import EAGER, eventually, key_of
from tests.ledger import SEND, Entry, account_of
from tests.proof.dump import read_dump
from tests.proof.ground import Ground, Layout
from tests.proof.history import Dump
from tests.proof.load import Mood
from tests.proof.scenario import Scenario
from tests.proof.trial import ACCOUNTS, TENANTS, ChannelOptions, Trial, Verdict
from tests.proof.violations import Violation
from tests.scripted_upstream import Break, Recorded, Say, Silence

HONEST_TENANT = TENANTS[0]
HONEST_ACCOUNTS = frozenset(key_of(f"{HONEST_TENANT}-{account}") for account in ACCOUNTS)
AWAY = ("UNAVAILABLE", "")
CAREFUL: ChannelOptions = (
    *EAGER,
    (
        "grpc.service_config",
        json.dumps({"loadBalancingConfig": [{"round_robin": {}}], "healthCheckConfig": {"serviceName": ""}}),
    ),
)
"""Of callers who leave a process that says that it stops: gRPC cancels what comes to it later."""

DEATH_SECONDS = 30.0
"""A process that has not come to its crash point by then never will."""
LIVING_SECONDS = 30.0
RESCUE_SECONDS = 10.0
COUNT_MAX = 20
COUNTS_MAX = {"claim": 4, "look_up": 2, "found": 3, "receipt": 10, "statement": 80, "bury": 1, "rescue": 1}
"""At which time of a step at most. What is done for many messages at once is done seldom."""
START_COUNTS_MAX = {"statement": 60, "commit": 8}
"""A start makes about so many."""
RESCUED_EVERY = 3
"""After so many returns on Postgres it is awaited that the dead are forgotten; the other kills come before that."""
ACCEPTED_MIN, ACCEPTED_MAX = 10, 150
MOMENT_SECONDS = 0.3
START_SECONDS = 2.0
STOP_SECONDS = 0.2
FOLLOWED = 4

PLAIN_START = "from a plain start to serving"
START = "from the start after a kill to serving"
RECOVERY = "from the start after a kill to nothing held by the dead"
SUCCESSION = "from the kill to nothing held by the dead, by a successor"
RESCUE = "from the kill to nothing held by the dead, by the other"


class When(StrEnum):
    """What a process is doing when it is to die."""

    LOAD = auto()
    START = auto()
    RESCUE = auto()


Point = tuple[When, str]


@dataclass(frozen=True)
class Aim:
    """A point of `tests.crashing`, and at which time of it a process is to die."""

    when: When
    point: str
    count: int

    @property
    def name(self) -> str:
        """What such kills are counted as."""
        return f"kills at {self.point}{' of a start' if self.when == When.START else ''}"

    @property
    def command(self) -> Sequence[str]:
        """What starts such a process."""
        armed = [ARMED] if self.when == When.START else []
        return [sys.executable, "-m", "tests.crashing", self.point, str(self.count), *armed]


def aim_at(point: Point, dice: Random) -> Aim:
    """At any time of it."""
    when, name = point
    step = name.partition(":")[0]
    most = START_COUNTS_MAX[step] if when == When.START else COUNTS_MAX.get(step, COUNT_MAX)
    return Aim(when, name, dice.randint(1, most))


def points_of(layout: Layout) -> Sequence[Point]:
    """The whole matrix. On SQLite nobody rescues but a start."""
    return (
        *((When.LOAD, point) for point in POINTS),
        *((When.START, point) for point in WRITER_POINTS),
        *((When.RESCUE, point) for point in (() if layout == Layout.SQLITE else RESCUE_POINTS)),
    )


def order_of(points: Sequence[Point], rounds: int, dice: Random) -> Iterator[Point]:
    """So many points, all of them before any comes again; those that follow a death come after the first ones."""
    left: list[Point] = []
    for number in range(rounds):
        left = left or dice.sample(points, len(points))
        chosen = next(point for point in left if number > 1 or point[0] == When.LOAD)
        left.remove(chosen)
        yield chosen


class Kills:
    """Kills the processes of a trial and brings them back."""

    def __init__(self, trial: Trial) -> None:
        self._trial = trial
        self._dice = trial.dice
        self._places = range(trial.ground.layout.processes)
        self._next: deque[Aim] = deque()
        self._aims: dict[int, Aim] = {}
        """Of each process, where it is to die."""
        self._died: dict[int, float] = {}
        """Who is dead, and since when."""
        self._measurable = True
        """Not what follows a second death, or a stop."""
        self._returns = 0

    async def at_points(self, points: Sequence[Point], rounds: int) -> None:
        """One process after the other dies at its point; who is brought back is given the next one."""
        self._next.extend(aim_at(point, self._dice) for point in order_of(points, rounds, self._dice))
        await self._begin()
        while self._aims:
            for place in [place for place in self._places if place in self._aims]:
                await self._let_pass(1, ACCEPTED_MIN)
                await self._strike(place, self._aims[place])
        await self._end()

    async def at_any_time(self, rounds: int) -> None:
        """One process, now and then each, dies whatever it does; now and then again while it starts."""
        await self._begin()
        for _ in range(rounds):
            await self._let_pass(ACCEPTED_MIN, ACCEPTED_MAX)
            await asyncio.sleep(self._dice.random() * MOMENT_SECONDS)
            victims = self._places if self._dice.random() < 0.2 else [self._dice.choice(self._places)]
            if self._dice.random() < 0.15:
                await self._kill_stopping(victims)
            else:
                await self._kill(victims, "kills at any time")
            if self._dice.random() < 0.3:
                await self._kill_starting(self._dice.choice(victims))
            await self._bring_back()
        await self._end()

    async def _begin(self) -> None:
        """Start each process once more without a fault, for comparison; then the load."""
        for place in self._places:
            self._trial.gateways[place].signal(signal.SIGTERM)
            assert await self._trial.gateways[place].ended() == 0
            await self._aim(place)
            self._trial.seconds[PLAIN_START].append(await self._start(place))
        self._trial.load.start()

    async def _end(self) -> None:
        """Nobody but the living is known, or holds anything."""
        living = set(self._trial.boots.values())
        dead: set[str] = set()

        async def alone() -> bool:
            nonlocal dead
            dead = await asyncio.to_thread(self._trial.peek.holders) - living
            return not dead

        try:
            await eventually(alone, LIVING_SECONDS)
        except TimeoutError:
            self._trial.violations += [Violation("END", boot, "dead, and known still") for boot in dead]

    async def _let_pass(self, least: int, most: int) -> None:
        await self._trial.load.reach(self._dice.randint(least, most))
        await self._trial.follow(FOLLOWED)

    async def _strike(self, place: int, aim: Aim) -> None:
        if aim.when == When.RESCUE:
            await self._leave_something_to(place)
        self._trial.gateways[place].signal(signal.SIGUSR1)
        await self._dead(place, aim.name)
        del self._aims[place]
        await self._bring_back()

    async def _leave_something_to(self, heir: int) -> None:
        """Kill the other process, or where there is none the heir's predecessor, while it holds something."""
        dying = self._places[heir - 1]
        await self._kill([dying], "kills of one to be rescued")
        while self._trial.boots[dying] not in await asyncio.to_thread(self._trial.peek.holding):
            await self._bring_back()
            await self._let_pass(1, ACCEPTED_MIN)
            await self._kill([dying], "kills of one to be rescued")
        if dying == heir:
            await self._start(heir)

    async def _kill(self, places: Sequence[int], name: str) -> None:
        for place in places:
            self._trial.gateways[place].kill()
        for place in places:
            await self._dead(place, name)

    async def _kill_stopping(self, places: Sequence[int]) -> None:
        """Kill whom a stop has not ended by then."""
        for place in places:
            self._trial.gateways[place].signal(signal.SIGTERM)
        await asyncio.sleep(self._dice.random() * STOP_SECONDS)
        for place in places:
            self._trial.gateways[place].kill()
        for place in places:
            await self._dead(place, "kills at a stop", may_have_stopped=True)
        self._measurable = False

    async def _kill_starting(self, place: int) -> None:
        self._trial.gateways[place].start()
        await asyncio.sleep(self._dice.random() * START_SECONDS)
        await self._kill([place], "kills at a start")
        self._measurable = False

    async def _dead(self, place: int, name: str, *, may_have_stopped: bool = False) -> None:
        """Wait for the end of a process, and count it."""
        gateway = self._trial.gateways[place]
        try:
            code = await gateway.ended(DEATH_SECONDS)
        except TimeoutError:
            raise AssertionError(f"{name}: the point was never reached") from None
        self._died[place] = time.monotonic()
        if may_have_stopped and code == 0:
            return
        assert code == -signal.SIGKILL, f"{name}: it ended with {code}:\n{gateway.stderr[-2000:]}"
        self._trial.counts["kills"] += 1
        self._trial.counts[name] += 1

    async def _bring_back(self) -> None:
        """Start whoever is dead; how long that takes, and how long nobody else has what they held."""
        boots, died = {self._trial.boots[place] for place in self._died}, [*self._died]
        for place in died:
            await self._aim(place)
        self._returns += 1
        measured = self._measurable and (self._on_sqlite or self._returns % RESCUED_EVERY == 0)
        since = time.monotonic() if self._on_sqlite else max(self._died.values())
        async with asyncio.TaskGroup() as tasks:
            if measured:
                tasks.create_task(self._forgotten(boots, since, self._name_of_rescue(died)))
            for place in died:
                self._trial.seconds[START].append(await self._start(place))
                if self._on_sqlite:
                    await self._require_freed(boots)
        self._measurable = True

    async def _require_freed(self, boots: set[str]) -> None:
        """Nobody but a start frees what the dead held on SQLite, and it does so before it serves."""
        kept = boots & await asyncio.to_thread(self._trial.peek.holders)
        self._trial.violations += [
            Violation("FREED", boot, "dead, and known when the next one served") for boot in kept
        ]

    @property
    def _on_sqlite(self) -> bool:
        return self._trial.ground.layout == Layout.SQLITE

    def _name_of_rescue(self, died: Sequence[int]) -> str:
        if self._on_sqlite:
            return RECOVERY
        return SUCCESSION if len(died) == len(self._places) else RESCUE

    async def _forgotten(self, boots: set[str], since: float, name: str) -> None:
        async def gone() -> bool:
            return boots.isdisjoint(await asyncio.to_thread(self._trial.peek.holders))

        try:
            await self._trial.within(RESCUE_SECONDS if name == RESCUE else math.inf, name, gone, since)
        except TimeoutError:
            raise AssertionError(f"dead, and known still: {sorted(boots)}") from None

    async def _aim(self, place: int) -> None:
        """Give a dead process its next point unless it has one. What is to die at a start does so on the way."""
        while place not in self._aims and self._next:
            aim = self._next.popleft()
            if aim.when != When.START:
                self._aims[place] = aim
                return
            self._trial.gateways[place].start(aim.command)
            await self._dead(place, aim.name)
            self._measurable = False

    async def _start(self, place: int) -> float:
        aim = self._aims.get(place)
        took = await self._trial.revive(place, aim.command if aim else None)
        self._died.pop(place, None)
        return took


async def kill_at_points(ground: Ground, seed: int, rounds: int, *, points: Sequence[Point] | None = None) -> Verdict:
    """So many kills at these points, or those of the whole matrix, in an order of the seed's."""
    wanted = points_of(ground.layout) if points is None else points
    return await _hold(ground, seed, lambda kills: kills.at_points(wanted, rounds))


async def kill_at_any_time(ground: Ground, seed: int, rounds: int) -> Verdict:
    """So many kills at random moments, and those that follow them."""
    return await _hold(ground, seed, lambda kills: kills.at_any_time(rounds))


async def _hold(ground: Ground, seed: int, strike: Callable[[Kills], Awaitable[None]]) -> Verdict:
    """A trial whose upstream is honest to one tenant: there nothing but the kills stands in the way of a text."""
    async with Trial(ground, seed, over_all=CAREFUL) as trial:
        trial.upstream.always(_honest_to_one(trial))
        await strike(Kills(trial))
        await trial.load.stop()
        trial.require_answers(AWAY)
        verdict = await trial.judged()
        dump = await asyncio.to_thread(read_dump, ground.url)
        found = not_once(dump, trial.ledger.entries(), HONEST_TENANT, HONEST_ACCOUNTS)
        return replace(verdict, violations=[*verdict.violations, *found])


def _honest_to_one(trial: Trial) -> Callable[[Recorded], Say | Break | Silence]:
    mood = Mood(trial.upstream, trial.dice)

    def reply(request: Recorded) -> Say | Break | Silence:
        honest = account_of(request.path) in HONEST_ACCOUNTS
        return trial.upstream.honest(request) if honest else mood(request)

    return reply


def not_once(dump: Dump, entries: Sequence[Entry], tenant_id: str, accounts: Container[str]) -> Iterator[Violation]:
    """What a tenant's accounts read more than once, and what was not delivered, although nobody canceled it."""
    read = Counter(entry.text for entry in entries if entry.call == SEND and entry.account in accounts)
    yield from (Violation("ONCE", text, f"read {times} times") for text, times in read.items() if times > 1)
    for message in dump.messages.values():
        if message.tenant_id == tenant_id and message.state not in (State.DELIVERED, State.CANCELED):
            yield Violation("ONCE", message.id, f"ended {message.state}")


SCENARIOS = (
    Scenario("kill -9 at a crash point", tuple(Layout), "kills", len(points_of(Layout.REPLICAS)), kill_at_points),
    Scenario("kill -9 at any time", tuple(Layout), "kills", 20, kill_at_any_time),
)
