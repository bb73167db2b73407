"""The database's clock jumps an hour under load, ahead or back, and is set right again."""

import asyncio

from tests.cluster import Cluster
from tests.proof.callers import now_micros
from tests.proof.clock import Clock
from tests.proof.ground import Ground, Layout
from tests.proof.scenario import Scenario
from tests.proof.trial import Trial, Verdict
from tests.proof.violations import Violation

JUMP_SECONDS = 3600.0
WRONG_SECONDS = 4.0
MESSAGES = 60
RESUMED_SECONDS_MAX = 10.0
RESUMED = "from the right clock to the text of a new message"
NOTICED = "the database's clock was set back"
UNEXPECTED = ("worker dead", '"level": "critical"', "Traceback")


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
        trial.forbidden = UNEXPECTED
        trial.load.start()
        for _ in range(rounds):
            await trial.load.reach(MESSAGES)
            _move(trial, clock, trial.dice.choice((JUMP_SECONDS, -JUMP_SECONDS)))
            await trial.load.reach(MESSAGES)
            await asyncio.sleep(trial.dice.random() * WRONG_SECONDS)
            _move(trial, clock, 0.0)
            righted = now_micros()
            await trial.within(RESUMED_SECONDS_MAX, RESUMED, lambda at=righted: trial.has_sent_since(at))
            trial.counts["jumps"] += 1
        await trial.load.stop()
        trial.require_answers()
        trial.violations += _unnoticed(trial)
        return await trial.judged()


def _move(trial: Trial, clock: Clock, seconds: float) -> None:
    clock.set(seconds)
    trial.jumps.append(clock.now_micros())


def _unnoticed(trial: Trial) -> list[Violation]:
    """Every jump has one way back: a process that did not notice it had a clock that nobody moved."""
    logs = {gateway.address: gateway.stderr for gateway in trial.gateways}
    return [Violation("CLOCK", address, "noticed no jump") for address, log in logs.items() if NOTICED not in log]


SCENARIOS = (Scenario("the clock jumps an hour", tuple(Layout), "jumps", 4, jump_clock),)
