"""What a bare unary call costs the server under several releases of grpcio.

    python bench/echo.py [--rounds 7] [VERSION ...]

Each release gets a throw-away virtual environment. A round starts an echo server (grpc.aio on uvloop, raw bytes, no
interceptor) in a process of its own, warms it up, and lets 64 concurrent callers make a fixed number of calls. Server
CPU is what the operating system counted for that process, all its threads, over those calls. The rounds of the releases
alternate, so that a change of the machine's mood meets all of them. Compare ratios: absolute figures drift.
"""

import argparse
import asyncio
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

VERSIONS = ("1.76.0", "1.85.1")
UVLOOP = "uvloop==0.23.0"
CALLERS = 64
CALLS = 20_000
WARM_UP_CALLS = 3_000
ROUND_SECONDS_MAX = 120
INSTALL_SECONDS_MAX = 300
PAYLOAD = b"a small message, as an OtpSend is: +989120000111, login, fa"


@dataclass(frozen=True, slots=True)
class Figures:
    """One round: server CPU a call in µs, and calls per second of the clock."""

    cpu_micros: float
    calls_per_second: float


def cpu_seconds() -> float:
    """CPU time of this process so far, all threads."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


async def serve() -> None:
    """Echo until standard input closes; print the port."""
    import grpc  # noqa: PLC0415 - the comparing process has no grpcio

    async def echo(request: bytes, _context: object) -> bytes:
        return request

    async def usage(_request: bytes, _context: object) -> bytes:
        return str(cpu_seconds()).encode()

    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    handlers = {"Echo": grpc.unary_unary_rpc_method_handler(echo), "Usage": grpc.unary_unary_rpc_method_handler(usage)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench.Bench", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(None)


async def call(port: int) -> Figures:
    """Warm the server up, then measure."""
    import grpc  # noqa: PLC0415 - the comparing process has no grpcio

    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        echo = channel.unary_unary("/bench.Bench/Echo")
        usage = channel.unary_unary("/bench.Bench/Usage")

        async def caller(calls: int) -> None:
            for _ in range(calls):
                assert await echo(PAYLOAD) == PAYLOAD

        async def burst(calls: int) -> None:
            async with asyncio.TaskGroup() as group:
                for _ in range(CALLERS):
                    group.create_task(caller(calls // CALLERS))

        await burst(WARM_UP_CALLS)
        cpu_before, began = float(await usage(b"")), time.perf_counter()
        await burst(CALLS)
        seconds, cpu = time.perf_counter() - began, float(await usage(b"")) - cpu_before
    calls = CALLS // CALLERS * CALLERS
    return Figures(cpu_micros=cpu / calls * 1e6, calls_per_second=calls / seconds)


def play_round() -> None:
    """One round with the grpcio of this interpreter; the figures as JSON."""
    import uvloop  # noqa: PLC0415 - the comparing process has no uvloop

    with subprocess.Popen(
        [sys.executable, __file__, "--serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as server:
        assert server.stdout
        figures = uvloop.run(call(int(server.stdout.readline())))
        server.communicate(timeout=10)
    print(json.dumps(asdict(figures)))


def install(folder: Path, version: str) -> Path:
    """Make an environment with one release; returns its interpreter."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", f"grpcio=={version}", UVLOOP],
        check=True,
        timeout=INSTALL_SECONDS_MAX,
    )
    return python


def measure(python: Path) -> Figures:
    """Play one round in an environment."""
    done = subprocess.run(
        [python, __file__, "--round"], check=True, timeout=ROUND_SECONDS_MAX, capture_output=True, text=True
    )
    return Figures(**json.loads(done.stdout))


def compare(versions: Sequence[str], rounds: int) -> None:
    """Print a table: the median of the rounds, their range, and the ratio to the first release."""
    figures: dict[str, list[Figures]] = {version: [] for version in versions}
    with tempfile.TemporaryDirectory() as scratch:
        pythons = {version: install(Path(scratch) / version, version) for version in versions}
        for played in range(rounds):
            for version in versions if played % 2 == 0 else reversed(versions):
                figures[version].append(measure(pythons[version]))
    print(
        f"{rounds} rounds of {CALLS} calls, {CALLERS} callers; server CPU in µs a call (least–most), ratio to the first"
    )
    reference = statistics.median(one.cpu_micros for one in figures[versions[0]])
    for version, several in figures.items():
        cpu = sorted(one.cpu_micros for one in several)
        rate = statistics.median(one.calls_per_second for one in several)
        median = statistics.median(cpu)
        print(
            f"grpcio {version:8} {median:5.0f} µs ({cpu[0]:.0f}–{cpu[-1]:.0f})"
            f"  ×{median / reference:.2f}  {rate:6.0f} calls/s"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("versions", nargs="*", default=VERSIONS)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--round", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        import uvloop  # noqa: PLC0415 - the comparing process has no uvloop

        uvloop.run(serve())
    elif arguments.round:
        play_round()
    else:
        compare(arguments.versions, arguments.rounds)


if __name__ == "__main__":
    main()
