"""Libraries that are put into another process by LD_PRELOAD: compiled here, and laid where every user can read them."""

import hashlib
import os
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tests.cluster import reachable

COMPILE = ("cc", "-shared", "-fPIC", "-O2", "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-fvisibility=hidden")
COMPILE_SECONDS = 60
NOBODY = -1
"""No user's number: what it can reach, everybody can."""


def library(source: Path) -> Path:
    """The compiled library, made once for each version of its source; needs a C compiler named `cc`."""
    digest = hashlib.sha256(source.read_bytes()).hexdigest()[:16]
    folder = public_folder() / f"angarium-preload-{os.getuid()}"
    folder.mkdir(mode=0o755, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise RuntimeError(f"{folder} is somebody else's")
    folder.chmod(0o755)
    built = folder / f"{source.stem}-{digest}.so"
    if not built.exists():
        draft = folder / f"{digest}.{os.getpid()}"
        subprocess.run([*COMPILE, source, "-o", draft, "-ldl", "-lpthread"], check=True, timeout=COMPILE_SECONDS)
        draft.chmod(0o755)
        draft.rename(built)
    return built


def public_folder() -> Path:
    """The usual folder for temporary files, or one that everybody can reach."""
    usual = Path(tempfile.gettempdir()).resolve()
    return usual if reachable(usual, NOBODY) else Path("/tmp")  # noqa: S108 - as mktemp does, files of our own below


def environment(source: Path, **variables: str) -> Mapping[str, str]:
    """The variables of a process with the library before those that this one has."""
    return {"LD_PRELOAD": " ".join([str(library(source)), *os.environ.get("LD_PRELOAD", "").split()]), **variables}


def together(*environments: Mapping[str, str]) -> Mapping[str, str]:
    """One process's variables of several; each library is loaded once, in their order."""
    merged = {name: value for each in environments for name, value in each.items()}
    libraries = dict.fromkeys(path for each in environments for path in each.get("LD_PRELOAD", "").split())
    return {**merged, "LD_PRELOAD": " ".join(libraries)}
