"""Postgres is restarted over and over, or its sessions are ended, under a gateway at work."""

import asyncio
import signal
import time

from tests.cluster import Cluster
from tests.proof.callers import now_micros
from tests.proof.ground import Ground, Layout
from tests.proof.scenario import Scenario
from tests.proof.trial import Trial, Verdict

MESSAGES_MAX = 60
FOLLOWED = 4
RECOVERY_SECONDS = 10.0
WAYS_DOWN = (signal.SIGQUIT, signal.SIGINT)
"""As a crash; after ending every session."""
DOWN_SECONDS_MAX = 2.0
STORM_SECONDS = 4.0
GUST_SECONDS = (0.05, 0.3)
"""The pause between two terminations, at least and at most."""
UNAVAILABLE = ("UNAVAILABLE", "STORE_UNAVAILABLE")
TOO_LATE = ("DEADLINE_EXCEEDED", "DEADLINE_TOO_SHORT")
NEVER_ANSWERED = ("DEADLINE_EXCEEDED", "")
UNEXPECTED = ("Traceback", '"level": "critical"')


async def restart_postgres(ground: Ground, seed: int, rounds: int) -> Verdict:
    """So many restarts, by a crash and properly in turn, down for up to two seconds."""
    async with Trial(ground, seed) as trial:
        trial.forbidden = UNEXPECTED
        trial.load.start()
        for number in range(rounds):
            await _let_work(trial)
            await _restart(_cluster_of(ground), WAYS_DOWN[number % 2], trial.dice.random() * DOWN_SECONDS_MAX)
            trial.counts["restarts"] += 1
            await _recovered(trial)
        return await _judged(trial)


async def terminate_backends(ground: Ground, seed: int, rounds: int) -> Verdict:
    """So many storms of some seconds: several times a second one session of the gateway's is ended, or each."""
    async with Trial(ground, seed) as trial:
        trial.forbidden = UNEXPECTED
        trial.load.start()
        for _ in range(rounds):
            await _let_work(trial)
            await _storm(trial)
            trial.counts["storms"] += 1
            await _recovered(trial)
        return await _judged(trial)


def _cluster_of(ground: Ground) -> Cluster:
    assert ground.cluster is not None, "there is no Postgres here"
    return ground.cluster


async def _let_work(trial: Trial) -> None:
    await trial.load.reach(trial.dice.randint(1, MESSAGES_MAX))
    await trial.follow(FOLLOWED)


async def _restart(cluster: Cluster, how: signal.Signals, down_seconds: float) -> None:
    await asyncio.to_thread(cluster.stop, how)
    await asyncio.sleep(down_seconds)
    # It would end with a thread of the loop's.
    cluster.launch()
    await asyncio.to_thread(cluster.wait_for_answer)


async def _storm(trial: Trial) -> None:
    until = time.monotonic() + STORM_SECONDS
    while time.monotonic() < until:
        limit = 1 if trial.dice.random() < 0.7 else None
        trial.counts["terminated backends"] += await asyncio.to_thread(_terminate, trial.ground, limit)
        await asyncio.sleep(trial.dice.uniform(*GUST_SECONDS))


def _terminate(ground: Ground, limit: int | None) -> int:
    """End so many of the gateway's sessions, or all of them; how many there were."""
    with _cluster_of(ground).connect() as connection:
        ended = connection.execute(_TERMINATE, {"database": ground.database, "limit": limit}).fetchall()
    return sum(row[0] for row in ended)


_TERMINATE = (
    "SELECT pg_terminate_backend(pid) FROM (SELECT pid FROM pg_stat_activity "
    "WHERE datname = %(database)s AND application_name LIKE 'angarium%%' ORDER BY random() LIMIT %(limit)s) AS chosen"
)


async def _recovered(trial: Trial) -> None:
    """Measure until a caller is told of a new message, and until a text of such a message is at the upstream."""
    ended, since = now_micros(), time.monotonic()

    def accepted() -> bool:
        return any(op.ok and not op.replayed and op.invoked_at >= ended for op in trial.load.sends)

    await trial.within(RECOVERY_SECONDS, "from the storm's end to a new message", accepted, since)
    await trial.within(
        RECOVERY_SECONDS,
        "from the storm's end to the text of a new message",
        lambda: trial.has_sent_since(ended),
        since,
    )


async def _judged(trial: Trial) -> Verdict:
    await trial.load.stop()
    trial.require_answers(UNAVAILABLE, TOO_LATE, NEVER_ANSWERED)
    return await trial.judged()


ON_POSTGRES = (Layout.POSTGRES, Layout.REPLICAS)
SCENARIOS = (
    Scenario("Postgres restarts", ON_POSTGRES, "restarts", 10, restart_postgres),
    Scenario("sessions on Postgres are ended", ON_POSTGRES, "terminated backends", 5, terminate_backends),
)
