"""Runs checks in a copy of the tree, in a process group of their own, and reads how each of them ended."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.mutants.copies import environment

SECONDS_MAX = 180.0
"""For all checks of one run together."""
PYTEST = (sys.executable, "-m", "pytest", "-n0", "-q", "-p", "mutant_findings", "-p", "no:cacheprovider")
CODES = (0, 1)
"""Of pytest: all passed, some failed. Every other one means that not all checks were run."""


@dataclass(frozen=True, slots=True)
class Finding:
    """How one phase of a check ended. `asserted`: by a claim that did not hold."""

    check: str
    when: str
    outcome: str
    asserted: bool = False
    text: str = ""
    statement: str = ""
    line: str = ""

    @property
    def kills(self) -> bool:
        """Whether the check itself failed, by its own claim."""
        return self.when == "call" and self.outcome == "failed" and self.asserted


@dataclass(frozen=True, slots=True)
class Run:
    """What came of some checks in one copy. `trouble`: why the run tells nothing, "" where it does."""

    seconds: float
    findings: Sequence[Finding] = ()
    trouble: str = ""

    def passed(self, check: str) -> bool:
        """Whether a check, or all of a parametrized one, ran and no phase of it did anything but pass."""
        own = [found for found in self.findings if found.check.partition("[")[0] == check or found.check == check]
        called = any(found.when == "call" for found in own)
        return called and all(found.outcome == "passed" for found in own) and not self.trouble

    @property
    def failures(self) -> Sequence[Finding]:
        """Everything that did not pass."""
        return [found for found in self.findings if found.outcome != "passed"]


def run_checks(copy: Path, checks: Sequence[str], *, first: bool = False, seconds: float = SECONDS_MAX) -> Run:
    """Run these checks in a copy; with `first` no further than the first that fails."""
    with tempfile.TemporaryDirectory(dir=copy.parent, ignore_cleanup_errors=True) as folder:
        notes = Path(folder)
        findings, seen, output = notes / "findings", notes / "seen", notes / "output"
        variables = {**environment(copy, seen), "MUTANT_FINDINGS": str(findings)}
        command = [*PYTEST, f"--rootdir={copy}", f"--basetemp={notes / 'tmp'}", *(["-x"] if first else []), *checks]
        began = time.monotonic()
        code = _ended(command, copy, variables, output, seconds)
        took = time.monotonic() - began
        found = [Finding(**line) for line in _lines(findings)]
        return Run(took, found, _foreign(copy, _lines(seen)) or _unfinished(code, found, output))


def _ended(
    command: Sequence[str], copy: Path, variables: Mapping[str, str], output: Path, seconds: float
) -> int | None:
    """The exit code; None where its time was over. Nothing that it started is left."""
    with output.open("wb") as file:
        process = subprocess.Popen(
            command, cwd=copy, env=variables, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True
        )
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _foreign(copy: Path, imports: Sequence[dict[str, Any]]) -> str:
    foreign = [seen for seen in imports if not Path(seen["place"]).is_relative_to(copy)]
    if foreign:
        return f"{foreign[0]['name']} was imported from {foreign[0]['place'] or 'nowhere'}, not from the copy"
    return "" if any(seen["name"] == "server" for seen in imports) else "no process has imported the server"


def _unfinished(code: int | None, found: Sequence[Finding], output: Path) -> str:
    if code is None:
        return "its time was over"
    uncollected = [finding.text for finding in found if finding.when == "collect"]
    return "" if code in CODES else f"pytest ended with {code}: {(uncollected or [_last_line(output)])[0]}"


def _last_line(output: Path) -> str:
    return next(filter(str.strip, reversed(output.read_text(errors="replace").splitlines())), "nothing")


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
