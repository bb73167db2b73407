"""Puts faults into copies of the source, one at a time, and shows that a check kills each.

    python -m tests.mutants
    python -m tests.mutants M1 M12 --jobs 1

`M12` stands for M12a, M12b and so on. A mutant is killed when a check that passes on an unchanged copy fails by an
assertion on the mutant's; a check that cannot be collected, breaks in another way or runs out of time kills nothing.
The exit code is the number of survivors, 125 at most.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

from tests.mutants.catalogue import MUTANTS
from tests.mutants.judging import Judge, Verdict, table
from tests.mutants.mutant import Mutant, chosen

ROOT = Path(__file__).parent.parent.parent
EXIT_MAX = 125


def main() -> int:
    """Judge the mutants that are named; the exit code."""
    options = _options()
    try:
        mutants = chosen(MUTANTS, options.names)
    except KeyError as unknown:
        sys.exit(f"there is no mutant {unknown}; see --list")
    if options.list:
        print("\n".join(f"{mutant.name}\t{mutant.breaks}" for mutant in mutants))
        return 0
    return _judge(mutants, options.jobs)


def _judge(mutants: list[Mutant], jobs: int) -> int:
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="angarium-mutants-", ignore_cleanup_errors=True) as folder:
        verdicts = Judge(ROOT, Path(folder), jobs).verdicts(mutants, _tell)
    survivors = [verdict.mutant.name for verdict in verdicts if verdict.killer is None]
    print("\n".join(table(verdicts)))
    print(f"\n{len(mutants)} mutants, {len(survivors)} survivors, {time.monotonic() - began:.0f} s")
    return min(len(survivors), EXIT_MAX)


def _tell(verdict: Verdict) -> None:
    print(f"{verdict.mutant.name}: {verdict.told} ({verdict.seconds:.1f} s)", file=sys.stderr, flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.mutants", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="these mutants alone")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="so many at once")
    parser.add_argument("--list", action="store_true", help="say what mutants there are, and end")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
