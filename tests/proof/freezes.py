"""A process is stopped as a paused machine is, wakes up later, and finds that the world went on without it."""

import asyncio
import itertools
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.gateway import eventually
from tests.ledger import SEND
from tests.proof.ground import Ground, Layout
from tests.proof.load import letter
from tests.proof.scenario import Scenario
from tests.proof.trial import Trial, Verdict

FREEZE_SECONDS = 20.0
RESCUE_SECONDS = 10.0
WAKING_SECONDS = 10.0
CALL_SECONDS = 2.0
"""Callers leave a process that does not answer after so long, and go to the other."""
MESSAGES_MAX = 60
MOMENT_SECONDS = 0.3
FOLLOWED = 4
FIRST_PROBE = 1_000_000
"""Numbers of letters that the load does not come to."""
GIVEN_UP = ("DEADLINE_EXCEEDED", "")
TOO_LATE = ("DEADLINE_EXCEEDED", "DEADLINE_TOO_SHORT")
UNAVAILABLE = ("UNAVAILABLE", "STORE_UNAVAILABLE")
UNEXPECTED = ("Traceback", '"level": "critical"')


async def freeze(ground: Ground, seed: int, rounds: int, *, freeze_seconds: float = FREEZE_SECONDS) -> Verdict:
    """So many freezes of a process, each longer than it takes to be given up."""
    async with Trial(ground, seed, call_seconds=CALL_SECONDS) as trial:
        trial.forbidden = UNEXPECTED
        probes = itertools.count(FIRST_PROBE)
        trial.load.start()
        for _ in range(rounds):
            await trial.load.reach(trial.dice.randint(1, MESSAGES_MAX))
            await trial.follow(FOLLOWED)
            place = trial.dice.randrange(len(trial.gateways))
            await _nasty_moment(trial)
            async with _frozen(trial, place, freeze_seconds):
                if ground.layout == Layout.REPLICAS:
                    await _rescued(trial, trial.boots[place])
            await _works(trial, place, next(probes))
        await trial.load.stop()
        trial.require_answers(GIVEN_UP, TOO_LATE, UNAVAILABLE)
        return await trial.judged()


async def _nasty_moment(trial: Trial) -> None:
    """Any moment, or the one in which a text has come to the upstream and is not answered yet."""
    await asyncio.sleep(trial.dice.random() * MOMENT_SECONDS)
    if trial.dice.random() < 0.5:
        count = len(trial.upstream.calls(SEND))
        await eventually(lambda: len(trial.upstream.calls(SEND)) > count)


@asynccontextmanager
async def _frozen(trial: Trial, place: int, seconds: float) -> AsyncIterator[None]:
    gateway = trial.gateways[place]
    until = time.monotonic() + seconds
    gateway.signal(signal.SIGSTOP)
    try:
        yield
        await asyncio.sleep(until - time.monotonic())
    finally:
        gateway.signal(signal.SIGCONT)
    trial.counts["freezes"] += 1


async def _rescued(trial: Trial, boot: str) -> None:
    held = boot in await asyncio.to_thread(trial.peek.holding)
    trial.counts["freezes of one that held messages"] += held

    async def free() -> bool:
        return boot not in await asyncio.to_thread(trial.peek.holding)

    await trial.within(RESCUE_SECONDS, "from the freeze to nothing held by the frozen", free)


async def _works(trial: Trial, place: int, number: int) -> None:
    """Measure until it takes a message, until the text is at an upstream, and until it holds something again."""
    caller, since = trial.caller_at(place), time.monotonic()
    request = letter(number, trial.dice)

    async def accepts() -> bool:
        return (await caller.send(request, timeout_seconds=CALL_SECONDS)).ok

    def handed_off() -> bool:
        return any(call.form["message"] == request.text for call in trial.upstream.calls(SEND))

    async def holds() -> bool:
        return trial.boots[place] in await asyncio.to_thread(trial.peek.holding)

    await trial.within(WAKING_SECONDS, "from the thaw to a message that it takes", accepts, since)
    await trial.within(WAKING_SECONDS, "from the thaw to the text of that message", handed_off, since)
    if trial.ground.layout == Layout.REPLICAS:
        await trial.within(WAKING_SECONDS, "from the thaw to a message that it holds", holds, since)


SCENARIOS = (Scenario("a process is frozen", (Layout.SQLITE, Layout.REPLICAS), "freezes", 5, freeze),)
