"""Plays the rounds of a run, everybody in each of them."""

import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Set as AbstractSet

from bench import stages
from bench.children import Child, child
from bench.stages import Figures
from tests.cluster import Cluster

STAGES = ("accept", "deliver", "pace", "watch", "start")
LOADED = frozenset(STAGES[:3])
SQLITE, POSTGRES, BARE = "SQLite", "Postgres", "bare"

Found = dict[tuple[str, str], Figures]
"""By stage, and by who played it: an engine or the bare thing; of `watch`, by what was watched."""
Played = Mapping[tuple[str, str], list[Figures]]
"""The same of every round."""


def play(upstream: Child, cluster: Cluster | None, chosen: AbstractSet[str], count: int, deadline: float) -> Played:
    """So many rounds of the stages that are chosen; after the first, none begins that would not end in time.

    The deadline is of CLOCK_MONOTONIC; a round is thought to last as long as the one before it.
    """
    played: defaultdict[tuple[str, str], list[Figures]] = defaultdict(list)
    with child("bare_server") as server, child("bare_client", upstream.ready["port"]) as client:
        acts = _acts(upstream, cluster, chosen, (server, client))
        for number in range(count):
            began = time.monotonic()
            for act in acts if number % 2 == 0 else reversed(acts):
                for key, figures in act().items():
                    played[key].append(figures)
            print(f"round {number + 1} of {count} played", file=sys.stderr)
            if (now := time.monotonic()) + (now - began) > deadline:
                break
    return played


def _acts(
    upstream: Child, cluster: Cluster | None, chosen: AbstractSet[str], bare: tuple[Child, Child]
) -> list[Callable[[], Found]]:
    """What is played in a round. The bare thing stands beside the gateways that it is compared with."""
    engines: dict[str, Cluster | None] = {SQLITE: None} | ({POSTGRES: cluster} if cluster else {})
    acts: list[Callable[[], Found]] = []
    if LOADED & chosen:
        acts.append(lambda: _play_bare(chosen, *bare, upstream))
        acts += [lambda e=e, c=c: _play_gateway(chosen, upstream, e, c) for e, c in engines.items()]
    if "watch" in chosen:
        acts.append(lambda: _play_watchers(upstream))
    if "start" in chosen:
        acts += [lambda e=e, c=c: {("start", e): stages.start(c)} for e, c in engines.items()]
    return acts


def _play_bare(chosen: AbstractSet[str], server: Child, client: Child, upstream: Child) -> Found:
    found: Found = {}
    if "accept" in chosen:
        found["accept", BARE] = stages.bare_sends(server)
    if "deliver" in chosen:
        found["deliver", BARE] = stages.bare_calls(client)
    if "pace" in chosen:
        found["pace", BARE] = stages.pace(client, upstream)
    return found


def _play_gateway(chosen: AbstractSet[str], upstream: Child, engine: str, cluster: Cluster | None) -> Found:
    found: Found = {}
    with stages.rig(upstream, cluster) as rig:
        if "accept" in chosen:
            found["accept", engine] = stages.accept(rig)
        if "deliver" in chosen:
            found["deliver", engine] = stages.deliver(rig)
        if "pace" in chosen:
            found["pace", engine] = stages.pace(rig.callers, upstream)
    return found


def _play_watchers(upstream: Child) -> Found:
    with stages.rig(upstream, None) as rig:
        return {("watch", kind): figures for kind, figures in stages.fan_out(rig).items()}
