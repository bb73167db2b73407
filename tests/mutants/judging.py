"""Whether checks kill mutants: first they must pass on an unchanged copy, then one must fail on the mutant's."""

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.mutants.checks import Finding, Run, run_checks
from tests.mutants.copies import copied, source_files, twin
from tests.mutants.mutant import Mutant, Unfit

TEXT_CHARS_MAX = 160


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a mutant: the finding that killed it, or why it lives."""

    mutant: Mutant
    killer: Finding | None = None
    lives: str = ""
    seconds: float = 0.0

    @property
    def told(self) -> str:
        """One line for people, in Markdown."""
        if self.killer is None:
            return f"**nobody**: {_cut(self.lives)}"
        return f"`{self.killer.check}`, {self.killer.line}: `{_cut(self.killer.statement or self.killer.text)}`"


class Judge:
    """Works in a folder, on copies of the tree as it is now: whoever changes that meanwhile changes no verdict."""

    def __init__(self, tree: Path, folder: Path, jobs: int) -> None:
        self._folder = folder
        self._jobs = jobs
        self.plain = copied(tree, source_files(tree), folder / "unchanged")

    def verdicts(self, mutants: Sequence[Mutant], tell: Callable[[Verdict], None] = lambda _: None) -> list[Verdict]:
        """The verdicts, in the order of the mutants; `tell` hears each as it comes."""
        passing = self.passing(dict.fromkeys(check for mutant in mutants for check in mutant.checks))
        with ThreadPoolExecutor(self._jobs) as workers:
            coming = [workers.submit(self._told, mutant, passing, tell) for mutant in mutants]
            return [verdict.result() for verdict in coming]

    def passing(self, checks: Iterable[str]) -> Mapping[str, str]:
        """For each check why it proves nothing on the unchanged copy, "" where it passes there."""
        shares = [share for share in _shares(list(checks), self._jobs) if share]
        with ThreadPoolExecutor(self._jobs) as workers:
            runs = list(workers.map(lambda share: run_checks(self.plain, share), shares))
        return {check: _fault(run, check) for share, run in zip(shares, runs, strict=True) for check in share}

    def _told(self, mutant: Mutant, passing: Mapping[str, str], tell: Callable[[Verdict], None]) -> Verdict:
        verdict = self._verdict(mutant, passing)
        tell(verdict)
        return verdict

    def _verdict(self, mutant: Mutant, passing: Mapping[str, str]) -> Verdict:
        faults = [f"{check} does not pass without it: {passing[check]}" for check in mutant.checks if passing[check]]
        if faults:
            return Verdict(mutant, lives=faults[0])
        copy = twin(self.plain, self._folder / mutant.name)
        try:
            mutant.put_into(copy)
            return _judged(mutant, run_checks(copy, mutant.checks, first=True))
        except Unfit as unfit:
            return Verdict(mutant, lives=f"it no longer fits: {unfit}")
        finally:
            shutil.rmtree(copy)


def table(verdicts: Iterable[Verdict]) -> Iterator[str]:
    """In Markdown, a line a mutant."""
    yield "| mutant | what it breaks | file | killed by | s |"
    yield "|---|---|---|---|---|"
    for verdict in verdicts:
        mutant = verdict.mutant
        files = ", ".join(f"`{file}`" for file in mutant.files)
        told = verdict.told.replace("|", "\\|")
        yield f"| {mutant.name} | {mutant.breaks} | {files} | {told} | {verdict.seconds:.0f} |"


def _judged(mutant: Mutant, run: Run) -> Verdict:
    """A check that breaks in another way than by its own claim has shown nothing."""
    killer = next((found for found in run.findings if found.kills), None)
    if killer is not None and not run.trouble:
        return Verdict(mutant, killer, seconds=run.seconds)
    first = next(iter(run.failures), None)
    broke = f"{first.check} broke in {first.when}: {first.text}" if first else "every check passed"
    return Verdict(mutant, lives=run.trouble or broke, seconds=run.seconds)


def _shares(checks: Sequence[str], jobs: int) -> list[list[str]]:
    return [list(checks[start::jobs]) for start in range(jobs)]


def _fault(run: Run, check: str) -> str:
    if run.passed(check):
        return ""
    own = [found for found in run.failures if found.check.startswith(check)]
    return run.trouble or (f"{own[0].outcome} in {own[0].when}: {own[0].text}" if own else "it did not run")


def _cut(text: str) -> str:
    return text if len(text) <= TEXT_CHARS_MAX else text[: TEXT_CHARS_MAX - 1] + "…"
