"""Processes are asked to stop under load, and started again: alone in place, or one replica after the other."""

import asyncio
import json
import signal
import time
from collections.abc import Iterator

from tests.gateway import eventually
from tests.proof.callers import Watcher
from tests.proof.ground import Ground, Layout
from tests.proof.scenario import Scenario
from tests.proof.trial import ChannelOptions, Trial, Verdict
from tests.proof.violations import Violation

DRAIN_SECONDS = 10.0
"""As the gateway has it where nothing is set."""
EXIT_SECONDS = DRAIN_SECONDS + 2.0
MESSAGES_MAX = 100
FOLLOWED = 4
SECOND_SIGNAL_SECONDS = 0.1
READY_SECONDS = 1.5
"""So long a rolling restart rests where a process serves again: callers need up to a second to connect to it."""
LISTENING_SECONDS = 15.0
_RETRY = {
    "maxAttempts": 4,
    "initialBackoff": "0.2s",
    "maxBackoff": "3s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE"],
}
_CONFIG = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "healthCheckConfig": {"serviceName": ""},
    "methodConfig": [{"name": [{}], "retryPolicy": _RETRY}],
}
RETRYING: ChannelOptions = (
    ("grpc.service_config", json.dumps(_CONFIG)),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.use_local_subchannel_pool", 1),
)
"""As callers are advised: gRPC's own retries over all replicas in turn, without those that say that they drain."""
NOT_THERE = ("UNAVAILABLE", "")
UNEXPECTED = ("worker dead", "the drain timed out", '"level": "error"', '"level": "critical"', "Traceback")
"""Nothing is left to others, nothing is cut off, and nothing fails, where processes are only stopped."""


async def stop_in_place(ground: Ground, seed: int, rounds: int) -> Verdict:
    """So many stops of the one process, each followed by its start; callers repeat what was not answered."""
    async with Trial(ground, seed, over_all=RETRYING) as trial:
        trial.forbidden = UNEXPECTED
        trial.load.start()
        for _ in range(rounds):
            await _stop_and_start(trial, 0)
        await trial.load.stop()
        trial.require_answers(NOT_THERE)
        return await trial.judged()


async def roll(ground: Ground, seed: int, rounds: int) -> Verdict:
    """So many stops, of one process after the other; gRPC's own retries leave callers no error to see."""
    async with Trial(ground, seed, over_all=RETRYING) as trial:
        trial.forbidden = UNEXPECTED
        trial.load.start()
        for number in range(rounds):
            await _stop_and_start(trial, number % len(trial.gateways))
            await asyncio.sleep(READY_SECONDS)
        await trial.load.stop()
        trial.require_answers()
        return await trial.judged()


async def _stop_and_start(trial: Trial, place: int) -> None:
    await _all_listen(trial.watchers[place])
    await trial.load.reach(trial.dice.randint(1, MESSAGES_MAX))
    await trial.follow(FOLLOWED)
    await _stop(trial, place)
    trial.seconds["from the start to serving"].append(await trial.revive(place))


async def _all_listen(watchers: list[Watcher]) -> None:
    """Until each has been told of something more: its stream is there."""
    await asyncio.gather(*(watcher.saw(len(watcher.seen) + 1, LISTENING_SECONDS) for watcher in watchers))


async def _stop(trial: Trial, place: int) -> None:
    gateway, boot, watchers = trial.gateways[place], trial.boots[place], trial.watchers[place]
    told = [len(watcher.errors) for watcher in watchers]
    trial.counts["attempts in flight"] += len(await asyncio.to_thread(trial.peek.in_flight, boot))
    began = time.monotonic()
    gateway.signal(signal.SIGTERM)
    if trial.counts["stops"] % 2:
        await asyncio.sleep(trial.dice.random() * SECOND_SIGNAL_SECONDS)
        gateway.signal(signal.SIGTERM)
        trial.counts["second signals"] += 1
    code = await gateway.ended(2 * EXIT_SECONDS)
    took = time.monotonic() - began
    left = boot in await asyncio.to_thread(trial.peek.holders)
    trial.counts["stops"] += 1
    trial.seconds["from the signal to the end"].append(took)
    ends = list(zip(watchers, told, strict=True))
    # A stream's end is read by its watcher in a moment of its own.
    await eventually(lambda: all(len(watcher.errors) > before for watcher, before in ends), LISTENING_SECONDS)
    missed = sum("DRAINING" not in "".join(watcher.errors[before:]) for watcher, before in ends)
    trial.violations += [Violation("STOP", boot, why) for why in _faults(code, took, left=left, missed=missed)]


def _faults(code: int, took: float, *, left: bool, missed: int) -> Iterator[str]:
    if code != 0:
        yield f"it ended with {code}"
    if took > EXIT_SECONDS:
        yield f"it took {took:.1f} s"
    if left:
        yield "its work was not finished: it is known still, or holds something"
    if missed:
        yield f"{missed} watchers of a tenant were not told that it drains"


SCENARIOS = (
    Scenario("the process is stopped and started", (Layout.SQLITE, Layout.POSTGRES), "stops", 10, stop_in_place),
    Scenario("replicas are restarted in turn", (Layout.REPLICAS,), "stops", 10, roll),
)
