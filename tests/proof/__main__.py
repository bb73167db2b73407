"""Puts every fault to the gateway, over and over, until its time is up.

    python -m tests.proof --minutes 60
    python -m tests.proof --minutes 10 --only kill --layout replicas

Scenarios and layouts take turns, each trial with a seed of its own. One line a trial; at the end a table in Markdown
with N, what was violated, and the times that were measured. The exit code is 1 where anything was violated, or a trial
could not be held. What a trial that failed has left (ledger, logs, SQLite database) stays in the folder that is named.
"""

import argparse
import asyncio
import itertools
import shutil
import sys
import tempfile
import time
import traceback
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from random import SystemRandom
from statistics import median

from tests.cluster import Cluster
from tests.proof import clocks, codes, freezes, kills, power, stops, storms
from tests.proof.ground import Layout, fresh_ground
from tests.proof.scenario import Scenario
from tests.proof.trial import Verdict
from tests.proof.violations import Violation

SCENARIOS: Sequence[Scenario] = (
    *kills.SCENARIOS,
    *codes.SCENARIOS,
    *power.SCENARIOS,
    *storms.SCENARIOS,
    *freezes.SCENARIOS,
    *clocks.SCENARIOS,
    *stops.SCENARIOS,
)
Play = tuple[Scenario, Layout]


@dataclass
class Record:
    """All trials of one scenario on one layout."""

    trials: int = 0
    struck: int = 0
    accepted: int = 0
    failed: list[int] = field(default_factory=list[int])
    seconds: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def add(self, scenario: Scenario, seed: int, verdict: Verdict) -> None:
        """One more trial that came to its judgement."""
        self.trials += 1
        self.struck += verdict.counts.get(scenario.counted, 0)
        self.accepted += verdict.counts.get("accepted", 0)
        if verdict.violations:
            self.failed.append(seed)
        for name, values in verdict.seconds.items():
            self.seconds[name] += values


def main() -> int:
    """Prove until the time is up; the exit code."""
    options = _options()
    records: dict[Play, Record] = defaultdict(Record)
    until = time.monotonic() + options.minutes * 60
    print(f"{time.strftime('%Y-%m-%d')}, first seed {options.seed}", flush=True)
    with ExitStack() as stack:
        cluster = stack.enter_context(Cluster())
        folder = Path(tempfile.mkdtemp(prefix="angarium-proof-"))
        plays = _plays(options.only, options.layout)
        for seed, play in zip(itertools.count(options.seed), itertools.cycle(plays), strict=False):
            if time.monotonic() > until:
                break
            _prove(play, seed, folder, cluster, records[play])
    print("\n".join(_table(records)))
    failed = any(record.failed for record in records.values())
    if failed:
        print(f"\nWhat the failed trials left is in {folder}")
    else:
        shutil.rmtree(folder)
    return int(failed)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.proof", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="after so long no further trial begins")
    parser.add_argument("--seed", type=int, default=SystemRandom().randrange(10**6), help="of the first trial")
    parser.add_argument("--only", default="", metavar="WORD", help="scenarios whose name holds this word")
    parser.add_argument("--layout", type=Layout, choices=list(Layout), help="this layout alone")
    return parser.parse_args()


def _plays(word: str, layout: Layout | None) -> Sequence[Play]:
    chosen = [(s, one) for s in SCENARIOS for one in s.layouts if word in s.name and layout in (None, one)]
    if not chosen:
        sys.exit(f"no scenario is called {word!r} there; there are:\n" + "\n".join(s.name for s in SCENARIOS))
    return chosen


def _prove(play: Play, seed: int, folder: Path, cluster: Cluster, record: Record) -> None:
    scenario, layout = play
    began = time.monotonic()
    verdict = _held(scenario, layout, seed, folder, cluster)
    record.add(scenario, seed, verdict)
    counts = ", ".join(f"{count} {name}" for name, count in verdict.counts.items())
    took = time.monotonic() - began
    print(f"{scenario.name}, {layout}, seed {seed}, {took:.0f} s: {counts}", flush=True)
    for violation in sorted(verdict.violations):
        print(f"  {violation}", flush=True)


def _held(scenario: Scenario, layout: Layout, seed: int, folder: Path, cluster: Cluster) -> Verdict:
    """The verdict; a trial that breaks off is a violation too."""
    try:
        with fresh_ground(layout, folder, cluster) as ground:
            verdict = asyncio.run(scenario.hold(ground, seed, scenario.rounds))
        if not verdict.violations:
            shutil.rmtree(ground.folder)
        return verdict
    except Exception:  # noqa: BLE001 - the next trial is held all the same
        return Verdict([Violation("HELD", scenario.name, traceback.format_exc())], {})


def _table(records: dict[Play, Record]) -> Iterator[str]:
    yield "\n| scenario | layout | N | messages | violated | seconds: median, largest |\n|---|---|---|---|---|---|"
    for (scenario, layout), record in records.items():
        violated = f"in {len(record.failed)} of {record.trials} trials" if record.failed else f"0 (≤ 3/{record.struck})"
        violated = violated if record.struck else "nothing struck"
        times = "; ".join(f"{name} {median(v):.2f}, {max(v):.2f}" for name, v in record.seconds.items())
        n = f"{record.struck} {scenario.counted}"
        yield f"| {scenario.name} | {layout} | {n} | {record.accepted} | {violated} | {times} |"


if __name__ == "__main__":
    sys.exit(main())
