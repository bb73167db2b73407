"""What the gateway costs beside the bare thing, on this machine and now. Linux only.

    python -m bench                  every stage, about five minutes; Markdown on standard output
    python -m bench accept deliver   some of them
    python -m bench --profile        where the gateway's own Python spends its time

Stages: accept (Send until it is durable), deliver (Send until the provider's answer is kept, and until the message is
done), pace (from the call to the bytes at the provider), watch (500 streams), start (time and memory).

Every round has a gateway on a fresh database for each engine, a bare grpc.aio server that answers the same messages,
and a bare client loop that calls the same upstream and stores nothing. The order is turned round in every other round,
and the figures are medians of the rounds. Compare ratios: absolute figures drift with the machine. All processes listen
on loopback, every load has a fixed size and a limit of time, and all end with the run.

Each process but the run itself is a module of this folder: `gateway`, `callers`, `watchers`, `upstream`, `bare_server`,
`bare_client`. What they do is told them over pipes (`children`). `stages` says what is measured, `rounds` and `tables`
what is made of it. `echo.py` and `traps.py` are scripts of their own, about grpcio.
"""

import argparse
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from bench import machine, profiles, rounds, tables
from bench.children import child
from tests.cluster import Cluster

MINUTES_MAX = 5.0


def main() -> None:
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that all processes and folders go
    with _others_named(), ExitStack() as stack:
        cluster = None if options.sqlite_only or options.profile else stack.enter_context(Cluster())
        print(f"`{' '.join(['python -m bench', *sys.argv[1:]])}`, {machine.described(cluster)}", flush=True)
        upstream = stack.enter_context(child("upstream"))
        if options.profile:
            profiles.show(upstream)
            return
        deadline = time.monotonic() + options.minutes * 60
        stages = options.stages or rounds.STAGES
        played = rounds.play(upstream, cluster, frozenset(stages), options.rounds, deadline)
        print(f"\n{tables.all_of(played)}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stages", nargs="*", metavar="STAGE", help=", ".join(rounds.STAGES))
    parser.add_argument("--rounds", type=int, default=3, help="of each stage")
    parser.add_argument("--minutes", type=float, default=MINUTES_MAX, help="no round begins that would end later")
    parser.add_argument("--sqlite-only", action="store_true", help="no Postgres")
    parser.add_argument("--profile", action="store_true", help="profile accepting and delivering instead")
    options = parser.parse_args()
    if unknown := set(options.stages) - set(rounds.STAGES):
        parser.error(f"no such stage: {', '.join(sorted(unknown))}")
    if options.profile and sys.version_info >= (3, 12):
        parser.error("--profile needs Python 3.11: newer ones profile one thread at a time")
    return options


@contextmanager
def _others_named() -> Iterator[None]:
    """Say in the end, when all processes of the run have ended, how much of the machine was not theirs."""
    began, busy_before = time.monotonic(), machine.busy_seconds()
    yield
    seconds = time.monotonic() - began
    others = max(0.0, machine.busy_seconds() - busy_before - machine.own_seconds())
    print(f"\nIn {seconds:.0f} s other work took {others / seconds / machine.CORES:.0%} of the machine.")


if __name__ == "__main__":
    main()
