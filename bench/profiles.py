"""`python -m bench --profile`: what costs most while messages are accepted, and while they are delivered."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bench import stages
from bench.children import Child
from bench.tables import table

ROWS = 10
PACKAGES = 8
SHAPES = (stages.CALLERS, 1)

Lines = Sequence[Mapping[str, Any]]


def show(upstream: Child) -> None:
    """Profile one gateway on SQLite: messages for tomorrow are accepted, then messages go out until they are done.

    Each for many callers and for one: what many make dearer is waited for, the interpreter's lock above all; what they
    make cheaper they share.
    """
    with stages.rig(upstream, None) as rig:
        _show("Accept", stages.ACCEPTS, rig, stages.accept)
        _show("Deliver", stages.DELIVERIES, rig, stages.deliver)


def _show(title: str, messages: int, rig: stages.Rig, act: Callable[[stages.Rig, int], object]) -> None:
    profiled: list[dict[str, Lines]] = []
    for callers in SHAPES:
        rig.gateway.ask("profile")
        act(rig, callers)
        profiled.append(rig.gateway.ask("profiled"))
    for thread in profiled[0]:
        many, one = (threads[thread] for threads in profiled)
        total = sum(line["own"] for line in many)
        print(f"\n### {title}, {thread}: {total / messages * 1e6:,.0f} µs a message under the profiler\n")
        print(f"By package: {_packages(many, total)}.\n")
        print(_table("own time, with the built-in functions that it calls", "own", many, one, messages))
        ours = sorted((line for line in many if line["package"].startswith("server")), key=lambda line: -line["whole"])
        print(f"\n{_table('of ours, with all that it calls', 'whole', ours, one, messages)}", flush=True)


def _packages(lines: Lines, total: float) -> str:
    spent: Counter[str] = Counter()
    for line in lines:
        spent[line["package"]] += line["own"]
    return ", ".join(f"{package} {seconds / total:.0%}" for package, seconds in spent.most_common(PACKAGES))


def _table(title: str, figure: str, many: Lines, one: Lines, messages: int) -> str:
    alone = {line["where"]: line[figure] for line in one}
    rows = [
        (
            f"`{line['where']}`",
            f"{line['calls'] / messages:.2f}",
            f"{line[figure] / messages * 1e6:.1f}",
            f"{alone.get(line['where'], 0.0) / messages * 1e6:.1f}",
        )
        for line in many[:ROWS]
    ]
    return table((title, "calls a message", *(f"µs a message, callers: {callers}" for callers in SHAPES)), rows)
