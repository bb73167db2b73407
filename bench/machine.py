"""The machine of a run, and how busy it was with anything else."""

import os
import platform
import resource
import sqlite3  # noqa: TID251 - for its version alone
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

from tests.cluster import Cluster

CORES = os.cpu_count() or 1
PACKAGES = ("grpcio", "uvloop", "sqlalchemy", "psycopg", "httpx", "aiohttp")


def described(cluster: Cluster | None) -> str:
    """Date, machine, versions and the load before the run, as one sentence."""
    versions = {
        "Linux": platform.release(),
        "Python": platform.python_version(),
        "SQLite": sqlite3.sqlite_version,
        **({"Postgres": _postgres_version(cluster)} if cluster else {}),
        **{name: version(name) for name in PACKAGES},
    }
    return (
        f"{time.strftime('%Y-%m-%d')}: {_chip()}, {CORES} cores, databases on {_file_system()}, "
        f"{', '.join(f'{name} {what}' for name, what in versions.items())}; load before {os.getloadavg()[0]:.1f}."
    )


def busy_seconds() -> float:
    """CPU time that anybody had on this machine so far: all but idle and waiting for disks."""
    ticks = [int(tick) for tick in Path("/proc/stat").read_text().split(maxsplit=9)[1:9]]
    return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")


def own_seconds() -> float:
    """CPU time so far of this process and of its children that have ended."""
    whose = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(usage.ru_utime + usage.ru_stime for usage in map(resource.getrusage, whose))


def _chip() -> str:
    named = Path("/proc/cpuinfo").read_text().partition("model name")[2]
    return named.partition("\n")[0].lstrip("\t: ") or platform.machine()


def _postgres_version(cluster: Cluster) -> str:
    with cluster.connect() as connection:
        return connection.info.parameter_status("server_version") or "?"


def _file_system() -> str:
    """The type of the file system where temporary folders are."""
    folder = Path(tempfile.gettempdir()).resolve()
    mounts = (line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines())
    holding = [(where, kind) for where, kind in mounts if folder.is_relative_to(where)]
    return max(holding, key=lambda found: len(found[0]))[1]
