"""A plugin of pytest: one line of JSON for the outcome of each phase of each check, with the assertion that failed."""

import json
import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

TIMEOUT = "Timeout (>"
"""So the text of a failure begins that pytest-timeout has raised."""


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note how it ended."""
    report = yield
    raised = _raised(call.excinfo, item.config.rootpath.parent) if call.excinfo is not None else {}
    _write({"check": item.nodeid, "when": report.when, "outcome": report.outcome, **raised})
    return report


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """Note what could not be collected."""
    if report.failed:
        last = str(report.longrepr).strip().rpartition("\n")[2]
        _write({"check": report.nodeid, "when": "collect", "outcome": "failed", "text": last})


def _raised(excinfo: "pytest.ExceptionInfo[BaseException]", trees: Path) -> dict[str, Any]:
    """What was raised, and the innermost statement of the tree's own. Only a test makes claims, the server does not."""
    text = f"{type(excinfo.value).__name__}: {excinfo.value}".splitlines()[0]
    own = [entry for entry in excinfo.traceback if Path(str(entry.path)).is_relative_to(trees)]
    if not own:
        return {"text": text}
    path = Path(str(own[-1].path)).relative_to(trees)
    return {
        "asserted": _is_assertion(excinfo.value) and "tests" in path.parts,
        "text": text,
        "statement": " ".join(str(own[-1].statement).split()),
        "line": f"{path.name}:{own[-1].lineno + 1}",
    }


def _is_assertion(error: BaseException) -> bool:
    """Whether it is what a failed claim raises, and neither an accident nor the end of the test's time."""
    if isinstance(error, BaseExceptionGroup):
        return all(map(_is_assertion, error.exceptions))
    if isinstance(error, pytest.fail.Exception):
        return not str(error).startswith(TIMEOUT)
    return isinstance(error, AssertionError)


def _write(finding: dict[str, Any]) -> None:
    with Path(os.environ["MUTANT_FINDINGS"]).open("a") as file:
        file.write(f"{json.dumps(finding)}\n")
