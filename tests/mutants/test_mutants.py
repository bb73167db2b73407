"""Every mutant fits the source and names checks that there are; and what judges them can tell the dead from the living.

Whether the checks kill them is shown by `python -m tests.mutants`, which takes minutes.
"""

import ast
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from tests.mutants.catalogue import MUTANTS
from tests.mutants.checks import run_checks
from tests.mutants.copies import copied, source_files, twin
from tests.mutants.judging import Judge, table
from tests.mutants.mutant import Change, Mutant, Unfit, chosen

ROOT = Path(__file__).parent.parent.parent
CHECKS = sorted({check for mutant in MUTANTS for check in mutant.checks})

TOY = {
    "server/__init__.py": "",
    "server/adding.py": "def add(one, other):\n    return one + other\n",
    "server/__main__.py": "from server.adding import add\nprint(add(1, 2))\n",
    "pytest.ini": "[pytest]\naddopts = --import-mode=importlib --disable-plugin-autoload -p xdist -p pytest_timeout\n",
    ".gitignore": "ignored\n",
    "ignored": "",
    "tests/test_adding.py": """\
import subprocess, sys, time
import pytest
from server.adding import add

def test_by_assertion():
    assert add(1, 2) == 3

def test_by_raises():
    with pytest.raises(ZeroDivisionError):
        1 / (add(1, 2) - 3)

def test_in_a_child(tmp_path):
    told = subprocess.run([sys.executable, "-m", "server"], cwd=tmp_path, check=True, capture_output=True).stdout
    assert int(told) == 3

def test_of_nothing():
    add(1, 2)

def test_by_accident():
    {3: "three"}[add(1, 2)]

@pytest.mark.timeout(0.3)
def test_by_timeout():
    while add(1, 2) != 3:
        time.sleep(0.01)

@pytest.fixture
def three():
    assert add(1, 2) == 3

def test_in_setup(three):
    pass

def test_that_always_fails():
    assert add(1, 2) == 4
""",
}
SWAPPED = Change("server/adding.py", "one + other", "one - other")
BROKEN = Change("server/adding.py", "def add(one, other):", "raise RuntimeError\ndef add(one, other):")
TESTS = "tests/test_adding.py"


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """A tiny tree with a server that adds."""
    tree = tmp_path / "toy"
    for name, text in TOY.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(text)
    subprocess.run(["git", "init", "--quiet"], cwd=tree, check=True)
    return tree


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_every_mutant_fits(mutant: Mutant) -> None:
    """Its old texts stand in their files exactly once, and what comes of it is Python still."""
    changed: dict[str, str] = {}
    for change in mutant.changes:
        changed[change.file] = change.applied(changed.get(change.file) or (ROOT / change.file).read_text())
    for file, text in changed.items():
        compile(text, file, "exec")
    assert mutant.checks


def test_no_two_mutants_have_one_name() -> None:
    """Each is called by its own."""
    assert [name for name, count in Counter(mutant.name for mutant in MUTANTS).items() if count > 1] == []


@pytest.mark.parametrize("check", CHECKS)
def test_every_check_is_there(check: str) -> None:
    """A test of this name stands in this file."""
    file, _, name = check.partition("::")
    tree = ast.parse((ROOT / file).read_text())
    tests = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    assert name.partition("[")[0] in tests


def test_names_choose() -> None:
    """One, all of a number, or everyone."""
    some = [Mutant(name, "", (), ()) for name in ("M1", "M12a", "M12b")]
    assert [mutant.name for mutant in chosen(some, ["M12"])] == ["M12a", "M12b"]
    assert [mutant.name for mutant in chosen(some, ["M12b", "M1"])] == ["M1", "M12b"]
    assert chosen(some, []) == some
    with pytest.raises(KeyError):
        chosen(some, ["M2"])


@pytest.mark.parametrize("old", ["one", "two"], ids=["twice", "never"])
def test_a_text_that_does_not_stand_there_once_is_not_replaced(toy: Path, old: str) -> None:
    """Two places, or none: Unfit, and the tree is as it was, the changes that fit included."""
    misfit = Mutant("T", "", (SWAPPED, Change("server/adding.py", old, "1")), ())
    with pytest.raises(Unfit):
        misfit.put_into(toy)
    assert (toy / "server/adding.py").read_text() == TOY["server/adding.py"]


def test_only_claims_kill(toy: Path, tmp_path: Path) -> None:
    """A failed assertion does, in this process or about a child; accidents, timeouts and broken fixtures do not."""
    copy = copied(toy, source_files(toy), tmp_path / "copy")
    assert not (copy / "ignored").exists()
    Mutant("T", "", (SWAPPED,), ()).put_into(copy)
    run = run_checks(copy, [TESTS])
    assert run.trouble == ""
    ends = {found.check.rpartition("::")[2]: found for found in run.failures}
    assert {name for name, found in ends.items() if found.kills} == {
        *("test_by_assertion", "test_by_raises", "test_in_a_child", "test_that_always_fails")
    }
    assert ends.keys() - {name for name, found in ends.items() if found.kills} == {
        *("test_by_accident", "test_by_timeout", "test_in_setup")
    }
    assert ends["test_by_assertion"].statement == "assert add(1, 2) == 3"
    assert ends["test_by_raises"].statement == "with pytest.raises(ZeroDivisionError):"


def test_the_judge_tells_a_killed_mutant_from_a_survivor(toy: Path, tmp_path: Path) -> None:
    """The dead have a killer; who lives, does not fit, breaks the collection or was never tested says why."""

    def mutant(name: str, change: Change, *checks: str) -> Mutant:
        return Mutant(name, f"It is {name}.", (change,), tuple(f"{TESTS}::{check}" for check in checks))

    dead, *living = Judge(toy, tmp_path / "judge", 2).verdicts(
        [
            mutant("dead", SWAPPED, "test_of_nothing", "test_in_a_child"),
            mutant("alive", SWAPPED, "test_of_nothing"),
            mutant("broken", BROKEN, "test_by_assertion"),
            mutant("unfit", Change("server/adding.py", "two", "one"), "test_by_assertion"),
            mutant("untested", SWAPPED, "test_that_always_fails"),
        ]
    )
    assert dead.killer is not None
    assert dead.killer.check == f"{TESTS}::test_in_a_child"
    assert dead.killer.statement == "assert int(told) == 3"
    assert [verdict.killer for verdict in living] == [None] * 4
    alive, broken, unfit, untested = (verdict.lives for verdict in living)
    assert alive == "every check passed"
    assert "RuntimeError" in broken
    assert "0 times" in unfit
    assert "does not pass without it" in untested
    assert "`assert int(told) == 3`" in list(table([dead]))[-1]
    assert (toy / "server/adding.py").read_text() == TOY["server/adding.py"]


def test_what_the_copy_lacks_is_not_taken_from_elsewhere(toy: Path, tmp_path: Path) -> None:
    """Though the project is installed, a copy without the package imports none, and the run shows nothing."""
    names = [name for name in source_files(toy) if not name.startswith("server/")]
    copy = twin(copied(toy, names, tmp_path / "copy"), tmp_path / "twin")
    run = run_checks(copy, [f"{TESTS}::test_by_assertion"])
    assert run.trouble == "server was imported from nowhere, not from the copy"
