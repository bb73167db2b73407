"""What is measured. Each function plays one round of its stage and gives plain figures; nothing is printed here."""

import base64
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from bench import sends
from bench.children import Child, child, tree_cpu_seconds
from tests.cluster import Cluster

CALLERS = 64
CHANNELS = 4
WARM_UP_CALLS = 1_000
ACCEPTS = 5_000
DELIVERIES = 1_000
BARE_CALLS = 6_000
PACE = 100.0
PACE_SECONDS = 5.0
WATCHERS = 500
WATCHED_SECONDS = 3.0
TENANT_PACE = 2.0
"""Messages a second where every watcher is told of every event."""
SETTLE_SECONDS_MAX = 60.0
LOOK_SECONDS = 0.02
IDLE_SECONDS = 2.0
WRITING_ROOMS = ("Flush", "Apply", "Claims")
MASTER_KEY = "bench:" + base64.b64encode(bytes(range(32))).decode()

Figures = dict[str, float]


@dataclass(frozen=True, slots=True)
class Rig:
    """A gateway that runs, with what loads it and what it hands messages to."""

    gateway: Child
    callers: Child
    upstream: Child
    cluster: Cluster | None

    def cpu_seconds(self) -> tuple[float, float]:
        """CPU time so far of the gateway, and of Postgres."""
        return self.gateway.cpu_seconds(), _cluster_cpu_seconds(self.cluster)


@contextmanager
def database(cluster: Cluster | None) -> Iterator[str]:
    """The address of a fresh database, removed in the end. Without a cluster it is SQLite, in a folder of its own."""
    if cluster is not None:
        name = cluster.create()
        try:
            yield cluster.url(name)
        finally:
            cluster.drop(name)
    else:
        with tempfile.TemporaryDirectory(prefix="angarium-bench-") as folder:
            yield f"sqlite:///{folder}/angarium.db"


@contextmanager
def gateway(url: str) -> Iterator[Child]:
    """A gateway on a database."""
    with child(
        "gateway",
        ANGARIUM_DATABASE_URL=url,
        ANGARIUM_LISTEN="127.0.0.1:0",
        ANGARIUM_MASTER_KEY=MASTER_KEY,
        ANGARIUM_ALLOW_PRIVATE_UPSTREAMS="true",
        ANGARIUM_LOG_LEVEL="WARNING",
    ) as started:
        yield started


@contextmanager
def rig(upstream: Child, cluster: Cluster | None) -> Iterator[Rig]:
    """A gateway on a fresh database with callers, warmed up."""
    with database(cluster) as url, gateway(url) as serving:
        sends.configure(serving.ready["port"], serving.ready["key"], upstream.ready["port"])
        with callers(serving) as calling:
            yield Rig(serving, calling, upstream, cluster)


@contextmanager
def callers(server: Child) -> Iterator[Child]:
    """The load's process: 64 callers over four connections, which have made their first calls."""
    with child("callers", server.ready["port"], CHANNELS, BENCH_KEY=server.ready["key"]) as calling:
        calling.ask("burst", count=WARM_UP_CALLS, callers=CALLERS, later=True)
        yield calling


def bare_sends(server: Child) -> Figures:
    """Send to the bare server: calls a second, its CPU a call, what a caller waited."""
    with callers(server) as calling:
        return _accepted(calling, lambda: (server.cpu_seconds(), 0.0))


def bare_calls(client: Child) -> Figures:
    """The bare client against the upstream: calls a second, its CPU a call."""
    cpu_before = client.cpu_seconds()
    told = client.ask("burst", count=BARE_CALLS, callers=CALLERS)
    cpu = client.cpu_seconds() - cpu_before
    return {"rate": BARE_CALLS / ((told["ended"] - told["began"]) / 1e9), "cpu_micros": cpu / BARE_CALLS * 1e6}


def accept(rig: Rig, callers: int = CALLERS) -> Figures:
    """Send to the gateway, durable: as `bare_sends`; and what the database had to do for one message."""
    rig.gateway.ask("clear")
    figures = _accepted(rig.callers, rig.cpu_seconds, callers)
    return figures | _database(rig.gateway.ask("counts")["rooms"], ACCEPTS)


def deliver(rig: Rig, callers: int = CALLERS) -> Figures:
    """Send until the provider's answer to the last message is kept: messages a second, CPU a message.

    And CPU a message until all are done: the upstream was asked what became of each, said delivered, and that is kept.
    The database's figures are those of this whole life. Memory is what is resident at its end.
    """
    rig.gateway.ask("clear")
    cpu_before = rig.cpu_seconds()
    sent = rig.callers.ask("burst", count=DELIVERIES, callers=callers)
    settled = _kept(rig.gateway, "Settled", DELIVERIES)
    cpu_settled = rig.cpu_seconds()
    _kept(rig.gateway, "Receipted", DELIVERIES)
    cpu, postgres_cpu = _since(cpu_before, rig.cpu_seconds())
    figures = {
        "rate": DELIVERIES / ((settled["last"] - sent["began"]) / 1e9),
        "cpu_micros": (cpu_settled[0] - cpu_before[0]) / DELIVERIES * 1e6,
        "whole_cpu_micros": cpu / DELIVERIES * 1e6,
        "postgres_cpu_micros": postgres_cpu / DELIVERIES * 1e6,
        "rss": rig.gateway.rss_mib(),
    }
    return figures | _database(rig.gateway.ask("counts")["rooms"], DELIVERIES)


def pace(sender: Child, upstream: Child) -> Figures:
    """At 100 a second: ms from a call to the moment at which the upstream had read the message."""
    upstream.ask("clear")
    called_at = sender.ask("pace", rate=PACE, seconds=PACE_SECONDS)["called_at"]
    _until(lambda: upstream.ask("taken")["count"] >= len(called_at), f"{len(called_at)} sends at the upstream")
    read_at = upstream.ask("stamps")["read_at"]
    millis = [(read_at[number] - at) / 1e6 for number, at in called_at.items()]
    return {"p50": quantile(millis, 50), "p99": quantile(millis, 99), "count": len(millis)}


def fan_out(rig: Rig) -> dict[str, Figures]:
    """What streams cost while messages flow until all are done: by what it is that they watch."""
    watched = (("nothing", PACE), ("message", PACE), ("tag", PACE), ("tenant", TENANT_PACE))
    with child("watchers", rig.gateway.ready["port"], WATCHERS, BENCH_KEY=rig.gateway.ready["key"]) as watching:
        return {kind: _watched(rig, watching, kind, rate) for kind, rate in watched}


def start(cluster: Cluster | None) -> Figures:
    """Seconds from a process's start to SERVING, on an empty database and again; memory and CPU of doing nothing."""
    with database(cluster) as url:
        with gateway(url) as first:
            sends.require_serving(first.ready["port"])
            figures = {"first": first.start_seconds, "idle": _idle(first), "rss": first.rss_mib()}
        with gateway(url) as again:
            return figures | {"again": again.start_seconds}


def _accepted(calling: Child, cpu_seconds: Callable[[], tuple[float, float]], callers: int = CALLERS) -> Figures:
    cpu_before = cpu_seconds()
    told = calling.ask("burst", count=ACCEPTS, callers=callers, later=True)
    cpu, postgres_cpu = _since(cpu_before, cpu_seconds())
    return {
        "rate": ACCEPTS / ((told["ended"] - told["began"]) / 1e9),
        "cpu_micros": cpu / ACCEPTS * 1e6,
        "postgres_cpu_micros": postgres_cpu / ACCEPTS * 1e6,
        "p50": quantile(told["took"], 50) / 1e6,
        "p99": quantile(told["took"], 99) / 1e6,
    }


def _database(rooms: Mapping[str, Mapping[str, float]], messages: int) -> Figures:
    """What the database did for one message: transactions by room, and of all that wrote the µs by what they were."""
    figures = {room: rooms[room]["count"] / messages if room in rooms else 0.0 for room in (*WRITING_ROOMS, "read")}
    writes = [spent for room, spent in rooms.items() if room != "read"]
    for name in ("statement", "commit", "cpu"):
        figures[f"database_{name}_micros"] = sum(spent[f"{name}_seconds"] for spent in writes) / messages * 1e6
    return figures


def _idle(serving: Child) -> float:
    """CPU of a gateway with nothing to do, in hundredths of a core."""
    cpu_before = serving.cpu_seconds()
    time.sleep(IDLE_SECONDS)
    return (serving.cpu_seconds() - cpu_before) / IDLE_SECONDS * 100


def _watched(rig: Rig, watching: Child, kind: str, rate: float) -> Figures:
    """CPU in hundredths of a core, and the delays of events in ms, where any come."""
    if kind != "nothing":
        watching.ask("watch", kind=kind)
    rig.gateway.ask("clear")
    began, cpu_before = time.perf_counter(), rig.gateway.cpu_seconds()
    tags = WATCHERS if kind == "tag" else 0
    sent = len(rig.callers.ask("pace", rate=rate, seconds=WATCHED_SECONDS, tags=tags)["called_at"])
    _kept(rig.gateway, "Receipted", sent)
    watching.ask("heard", done={"tag": sent, "tenant": sent * WATCHERS}.get(kind, 0))
    cpu, seconds = rig.gateway.cpu_seconds() - cpu_before, time.perf_counter() - began
    heard = watching.ask("leave")
    figures = {"cpu_percent": cpu / seconds * 100, "rate": len(heard["delays"]) / seconds}
    if delays := heard["delays"]:
        figures |= {"event_p50": quantile(delays, 50) / 1000, "event_p99": quantile(delays, 99) / 1000}
    if len(last := heard["last"]) < len(delays):
        figures |= {"last_p50": quantile(last, 50) / 1000, "last_most": max(last) / 1000}
    return figures


def _since(before: Sequence[float], now: Sequence[float]) -> list[float]:
    return [late - early for early, late in zip(before, now, strict=True)]


def _kept(serving: Child, fact: str, count: int) -> dict[str, Any]:
    """Wait until the gateway has kept a fact of a type for so many messages; for how many, and when the last one."""
    kept: dict[str, Any] = {"count": 0}

    def enough() -> bool:
        kept.update(serving.ask("counts")["facts"].get(fact, {}))
        return kept["count"] >= count

    _until(enough, f"{count} messages with a fact of type {fact}")
    return kept


def _until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + SETTLE_SECONDS_MAX
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"There were no {what} within {SETTLE_SECONDS_MAX:.0f} s.")
        time.sleep(LOOK_SECONDS)


def _cluster_cpu_seconds(cluster: Cluster | None) -> float:
    if cluster is None:
        return 0.0
    return tree_cpu_seconds(int((cluster.folder / "data" / "postmaster.pid").read_text().split()[0]))


def quantile(values: Sequence[float], percent: int) -> float:
    """The value below which so many per cent of them lie."""
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]
