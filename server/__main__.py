"""`python -m server [serve | bootstrap | health | rewrap | sandbox-upstream]`."""

import argparse
import sys
from collections.abc import Sequence

import uvloop
from pydantic import ValidationError

from server import app
from server.api.probe import probe
from server.sandbox import upstream
from server.settings import Settings

REFUSED = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m server", description="Angarium, a gRPC notification gateway.")
    commands = parser.add_subparsers(dest="command")
    commands.add_parser("serve", help="serve until SIGTERM (the default)")
    commands.add_parser("bootstrap", help="make the first operator key on an empty database and print it once")
    commands.add_parser("health", help="exit 0 when the server of these settings is SERVING")
    commands.add_parser("rewrap", help="wrap all tenants' keys by the first master key, so that the others may go")
    sandbox = commands.add_parser(
        "sandbox-upstream", help="an upstream on loopback that speaks real providers' formats"
    )
    sandbox.add_argument("--listen", default="127.0.0.1:8089", help="HOST:PORT on loopback")
    chosen = parser.parse_args(arguments)
    app.configure_logging("INFO")
    try:
        return _run(chosen)
    except ValidationError as error:
        problems = (f"ANGARIUM_{'_'.join(map(str, e['loc'])).upper()}: {e['msg']}" for e in error.errors())
        sys.stderr.write("\n".join(problems) + "\n")
    except app.StartRefused as refused:
        sys.stderr.write(f"{refused}\n")
    return REFUSED


def _run(chosen: argparse.Namespace) -> int:
    match chosen.command:
        case "sandbox-upstream":
            return upstream.main(["--listen", chosen.listen])
        case "bootstrap":
            return uvloop.run(_bootstrap(Settings()))
        case "rewrap":
            print(f"{uvloop.run(app.rewrap(Settings()))} keys wrapped anew")
            return 0
        case "health":
            return 0 if uvloop.run(probe(Settings().listen)) else 1
        case _:
            return _serve(Settings())


def _serve(settings: Settings) -> int:
    app.configure_logging(settings.log_level)
    uvloop.run(app.serve(settings))
    return 0


async def _bootstrap(settings: Settings) -> int:
    if await app.bootstrap(settings, lambda secret: print(secret, flush=True)):
        return 0
    sys.stderr.write("This database has been set up already; its first key is not shown again.\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
