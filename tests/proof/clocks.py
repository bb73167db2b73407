"""The database's clock jumps an hour under load, ahead or back, and is set right again."""

import asyncio
import time

from tests.cluster import Cluster
from tests.gateway import eventually
from tests.ledger import SEND
from tests.proof.clock import Clock
from tests.proof.ground import Ground, Layout
from tests.proof.scenario import Scenario
from tests.proof.trial import Trial, Verdict
from tests.proof.violations import Violation

JUMP_SECONDS = 3600.0
WRONG_SECONDS = 4.0
MESSAGES = 60
RESUMED_SECONDS_MAX = 10.0


async def jump_clock(ground: Ground, seed: int, rounds: int) -> Verdict:
    """So many jumps. On SQLite the clock is the process's own; one process on Postgres shares the database's clock.

    Of two replicas neither does: they go on by the machine's clock while the database's is wrong.
    """
    with Clock() as clock:
        if ground.layout == Layout.SQLITE:
            return await _jump(ground, clock, seed, rounds)
        with Cluster(environment=clock.environment) as cluster:
            own = Ground(ground.layout, ground.folder, cluster, cluster.create())
            return await _jump(own, clock, seed, rounds)


async def _jump(ground: Ground, clock: Clock, seed: int, rounds: int) -> Verdict:
    environment = {} if ground.layout == Layout.REPLICAS else clock.environment
    async with Trial(ground, seed, environment=environment, slack_seconds=2.5, now=clock.now_micros) as trial:
        trial.load.start()
        for _ in range(rounds):
            await trial.load.reach(MESSAGES)
            _move(trial, clock, trial.dice.choice((JUMP_SECONDS, -JUMP_SECONDS)))
            await trial.load.reach(MESSAGES)
            await asyncio.sleep(trial.dice.random() * WRONG_SECONDS)
            _move(trial, clock, 0.0)
            trial.seconds["from the right clock to the next text"].append(await _resumed(trial))
            trial.counts["jumps"] += 1
        verdict = await trial.judged()
    return Verdict([*verdict.violations, *_taken_for_dead(trial)], verdict.counts, verdict.seconds)


def _move(trial: Trial, clock: Clock, seconds: float) -> None:
    clock.set(seconds)
    trial.jumps.append(clock.now_micros())


async def _resumed(trial: Trial) -> float:
    """How long until a text that was accepted after now is at the upstream."""
    began, known = time.monotonic(), {op.text for op in trial.load.sends}
    await eventually(lambda: any(r.form["message"] not in known for r in trial.upstream.calls(SEND)), 60.0)
    return time.monotonic() - began


def _taken_for_dead(trial: Trial) -> list[Violation]:
    logs = {gateway.address: gateway.stderr for gateway in trial.gateways}
    return [
        Violation("CLOCK", address, "took a worker for dead") for address, log in logs.items() if "worker dead" in log
    ]


SCENARIOS = (Scenario("the clock jumps an hour", tuple(Layout), "jumps", 4, jump_clock),)
