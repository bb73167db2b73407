"""Conditions on several columns at once."""

from collections.abc import Iterable, Sequence

from server.store.dialect import Dialect, Value, Values


def among_tuples(dialect: Dialect, columns: Sequence[str], count: int) -> str:
    """A condition: the columns hold one of `count` tuples, whose parts are the values that `flat` makes.

    SQLite 3.40 looks several rows of VALUES up in an index only where a SELECT stands around them; without it, it goes
    through the whole table.
    """
    one = f"({', '.join([dialect.mark] * len(columns))})"
    rows = ", ".join([one] * count)
    return f"({', '.join(columns)}) IN (SELECT * FROM (VALUES {rows}) AS wanted)"  # noqa: S608


def flat(tuples: Iterable[Sequence[Value]]) -> Values:
    """The parts of all tuples, in their order."""
    return tuple(part for one in tuples for part in one)
