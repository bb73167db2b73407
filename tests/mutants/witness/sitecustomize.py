"""Runs first in every process of a check: it imports the copy's source or none at all, and notes where from.

The project is installed editable, so without this an import that misses the copy would find the original.
"""

import json
import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

OURS = frozenset({"server", "tests", "bench", "angarium"})


class CopyAlone:
    """Finds our packages in the copy."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: object = None) -> ModuleSpec | None:
        """The package of the copy; ImportError where that is not the one that would be imported."""
        if name not in OURS:
            return None
        spec = PathFinder.find_spec(name, path)
        places = [spec.origin or "", *(spec.submodule_search_locations or ())] if spec is not None else []
        place = next(filter(None, places), "")
        _note(name, place)
        if not Path(place).is_relative_to(os.environ["MUTANT_COPY"]):
            raise ImportError(f"{name} would be imported from {place or 'nowhere'}, not from the copy")
        return spec


def _note(name: str, place: str) -> None:
    line = json.dumps({"name": name, "place": place, "pid": os.getpid(), "argv": sys.argv[:3]})
    with Path(os.environ["MUTANT_SEEN"]).open("a") as file:
        file.write(f"{line}\n")


if "MUTANT_COPY" in os.environ:
    sys.meta_path.insert(0, CopyAlone)
