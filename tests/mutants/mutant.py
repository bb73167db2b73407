"""A mutant: a fault put into the source by a small exact change, and the checks that must notice it."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path


class Unfit(Exception):
    """The source has changed: the mutant does not fit it any more."""


@dataclass(frozen=True, slots=True)
class Change:
    """In this file, `new` instead of `old`, which must stand there exactly once."""

    file: str
    old: str
    new: str

    def applied(self, source: str) -> str:
        """The source with the change. Raises Unfit."""
        found = source.count(self.old)
        if found != 1:
            raise Unfit(f"{self.file} holds the old text {found} times, not once")
        if self.new == self.old:
            raise Unfit(f"{self.file} is not changed at all")
        return source.replace(self.old, self.new)


@dataclass(frozen=True, slots=True)
class Mutant:
    """`breaks` says which promise it breaks. It is killed when one of its checks fails by an assertion.

    `checks` are pytest's node ids; in their order, the first that fails ends the run.
    """

    name: str
    breaks: str
    changes: tuple[Change, ...]
    checks: tuple[str, ...]

    @property
    def files(self) -> Sequence[str]:
        """The files that it changes, each once."""
        return list(dict.fromkeys(change.file for change in self.changes))

    def put_into(self, tree: Path) -> None:
        """Change the tree's files. Raises Unfit, and then no file has been changed."""
        changed: dict[Path, str] = {}
        for change in self.changes:
            path = tree / change.file
            changed[path] = change.applied(changed.get(path) or path.read_text())
        for path, text in changed.items():
            path.write_text(text)
            for compiled in path.parent.glob(f"__pycache__/{path.stem}.*"):
                compiled.unlink()


def chosen(mutants: Iterable[Mutant], names: Sequence[str]) -> list[Mutant]:
    """Those of these names, all where none is named; `M12` stands for M12a, M12b and so on. Raises KeyError."""
    everyone = list(mutants)
    for name in names:
        if not any(_is_called(mutant, name) for mutant in everyone):
            raise KeyError(name)
    return [mutant for mutant in everyone if not names or any(_is_called(mutant, name) for name in names)]


def _is_called(mutant: Mutant, name: str) -> bool:
    return name in (mutant.name, re.sub(r"[a-z]+$", "", mutant.name))
