"""Copies of the source tree, and the environment in which a process imports a copy and nothing else."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

WITNESS = Path(__file__).parent / "witness"
LIST = ("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")


def source_files(tree: Path) -> Sequence[str]:
    """Every file of a working tree that git tracks or would, without what it ignores (caches, environments)."""
    listed = subprocess.run(LIST, cwd=tree, check=True, capture_output=True, text=True).stdout
    return [name for name in dict.fromkeys(listed.split("\0")) if name and (tree / name).is_file()]


def copied(tree: Path, names: Iterable[str], target: Path) -> Path:
    """A new folder with these files of a tree."""
    target.mkdir(parents=True)
    for name in names:
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(tree / name, path)
    return target


def twin(copy: Path, target: Path) -> Path:
    """A copy of a copy with its compiled files, which are good for it: the times of the sources are the same."""
    return Path(shutil.copytree(copy, target, ignore=shutil.ignore_patterns(".hypothesis")))


def environment(copy: Path, seen: Path) -> Mapping[str, str]:
    """The variables of a process whose children, too, import this copy; each notes in `seen` what it has imported.

    Whoever would import another tree's source gets an ImportError: see `witness/sitecustomize.py`.
    """
    kept = {name: value for name, value in os.environ.items() if name != "CI" and not name.startswith("PYTEST_")}
    path = os.pathsep.join(map(str, (WITNESS, copy, copy / "gen" / "python")))
    tools = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    return {**kept, "PYTHONPATH": path, "PATH": tools, "MUTANT_COPY": str(copy), "MUTANT_SEEN": str(seen)}
