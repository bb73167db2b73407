"""The rules of the house that no linter knows, held over the source itself."""

import ast
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SERVER = sorted((ROOT / "server").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
SCRIPTS = sorted(chain(*((ROOT / folder).rglob("*.py") for folder in ("bench", "clients"))))
OURS = [*SERVER, *TESTS, *SCRIPTS]

FUNCTION_LINES_MAX = 60
FILE_LINES_MAX = 400
SETTINGS_MAX = 18
FORBIDDEN = {"manager", "handler", "helper", "helpers", "util", "utils", "processor", "impl", "dto", "v2"}
# Words that say something inside a function's name (`base_url`, `base62`), and nothing as a class or a module.
EMPTY = {"common", "base", "core", "data", "info"}
# Where everything is caught: the outermost frame of a thread or task, the interceptor, and the call of a provider,
# where the phase alone decides what an error means.
BROAD = {
    ("server/api/health.py", "_run"),
    ("server/api/interceptor.py", "*"),
    ("server/dispatch/dispatcher.py", "_deliver_suspect"),
    ("server/dispatch/dispatcher.py", "_every"),
    ("server/dispatch/follow.py", "_hear"),
    ("server/dispatch/follow.py", "run"),
    ("server/dispatch/lane.py", "_carry"),
    ("server/dispatch/lane.py", "_give_back"),
    ("server/dispatch/lane.py", "run"),
    ("server/hooks/server.py", "_answered"),
    ("server/providers/transport.py", "exchange"),
    ("server/store/batches.py", "_answers"),
    ("server/store/configuration.py", "_tell"),
    ("server/store/tail.py", "run"),
}

GIVEN = {"add_signal_handler", "set_exception_handler"}
"""Names that others gave."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def functions(path: Path) -> Iterator[Function]:
    return (node for node in ast.walk(parsed(path)) if isinstance(node, Function))


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), named(path))


def words(name: str) -> set[str]:
    """`TenantDataHandler` and `tenant_data_handler` are the same three words."""
    return {word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|v\d+", name)}


@pytest.mark.parametrize("path", OURS, ids=named)
def test_functions_are_short(path: Path) -> None:
    """No function has more than sixty lines."""
    lengths = {f"{f.name}:{f.lineno}": (f.end_lineno or f.lineno) - f.lineno + 1 for f in functions(path)}
    assert {name: length for name, length in lengths.items() if length > FUNCTION_LINES_MAX} == {}


@pytest.mark.parametrize("path", OURS, ids=named)
def test_files_are_short(path: Path) -> None:
    """No file has more than four hundred lines."""
    assert len(path.read_text().splitlines()) <= FILE_LINES_MAX


@pytest.mark.parametrize("path", OURS, ids=named)
def test_names_say_what_a_thing_is(path: Path) -> None:
    """No module, class or function has a name with a word that could stand for anything."""
    tree = list(ast.walk(parsed(path)))
    classes = {node.name for node in tree if isinstance(node, ast.ClassDef)}
    modules = {part.removesuffix(".py") for part in path.relative_to(ROOT).parts}
    assert {name for name in classes | modules if words(name) & (FORBIDDEN | EMPTY)} == set()
    assert {f.name for f in functions(path) if words(f.name) & FORBIDDEN} - GIVEN == set()


@pytest.mark.parametrize("path", TESTS, ids=named)
def test_tests_do_not_mock_what_is_ours(path: Path) -> None:
    """Tests go through real edges: no mock objects, and nothing of the server is patched."""
    used = {node.attr if isinstance(node, ast.Attribute) else node.id for node in _names(path)}
    imported = {alias.name for node in ast.walk(parsed(path)) for alias in _imported(node)}
    assert not used & {"MagicMock", "AsyncMock", "create_autospec"}
    assert not imported & {"unittest.mock", "mock", "MagicMock", "AsyncMock"}
    patched = [ast.unparse(call) for call in _calls(path, "monkeypatch", "setattr")]
    assert [call for call in patched if "server" in call] == []


def test_broad_excepts_are_the_outermost_ones() -> None:
    """Everything is caught in the places that are listed alone, unless it is raised again."""
    found = {(named(path), function.name) for path in SERVER for function in functions(path) if _catches_all(function)}
    files = {file for file, function in BROAD if function == "*"}
    assert {place for place in found - BROAD if place[0] not in files} == set()


def test_settings_are_few() -> None:
    """What may be set from outside has at most eighteen fields; all else is data or a constant."""
    tree = parsed(ROOT / "server" / "settings.py")
    settings = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "Settings")
    fields = [node.target for node in settings.body if isinstance(node, ast.AnnAssign)]
    assert 0 < len(fields) <= SETTINGS_MAX


def test_nothing_names_a_place_of_this_machine() -> None:
    """No source file names the folder that it happens to lie in, or its user's."""
    places = {f"{ROOT}", f"{Path.home()}/"} - {"/", "//"}
    assert {named(path) for path in OURS if any(place in path.read_text() for place in places)} == set()


def _names(path: Path) -> Iterator[ast.Attribute | ast.Name]:
    return (node for node in ast.walk(parsed(path)) if isinstance(node, ast.Attribute | ast.Name))


def _imported(node: ast.AST) -> list[ast.alias]:
    match node:
        case ast.Import(names=names):
            return names
        case ast.ImportFrom(module=module, names=names):
            return [*names, ast.alias(module or "")]
        case _:
            return []


def _calls(path: Path, owner: str, method: str) -> Iterator[ast.Call]:
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == f"{owner}.{method}":
            yield node


def _catches_all(function: Function) -> bool:
    caught = (node for node in ast.walk(function) if isinstance(node, ast.ExceptHandler))
    return any(_is_broad(clause.type) and not _raises_again(clause) for clause in caught)


def _is_broad(kind: ast.expr | None) -> bool:
    return kind is None or not {"Exception", "BaseException"}.isdisjoint(re.findall(r"\w+", ast.unparse(kind)))


def _raises_again(clause: ast.ExceptHandler) -> bool:
    return any(isinstance(node, ast.Raise) and node.exc is None for node in ast.walk(clause))
