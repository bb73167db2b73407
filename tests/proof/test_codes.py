"""Codes under kill -9, and that the judge of them finds what is wrong."""

from dataclasses import replace
from pathlib import Path

import pytest

from server.model.enums import EventKind, Stop
from tests.cluster import Cluster
from tests.crashing import CODE_POINTS
from tests.proof.codes import SLACK, Check, Row, Told, check_under_kills, violations_of
from tests.proof.ground import Layout, fresh_ground
from tests.proof.stories import delivered, history_of

RIGHT = Check("check-1", True, "VERIFIED", "v-1")
WRONG = Check("check-2", False, "WRONG_CODE", "v-1")
POINTS = {Layout.SQLITE: CODE_POINTS, Layout.POSTGRES: CODE_POINTS[::2], Layout.REPLICAS: CODE_POINTS[1::2]}
"""Where processes die here: everywhere on SQLite, and everywhere on Postgres, by halves."""
LATE = 10**18
SPENT = {"v-1": Row(2, 5, LATE)}


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("layout", "seed"), [(Layout.SQLITE, 41), (Layout.POSTGRES, 42), (Layout.REPLICAS, 43)])
async def test_a_kill_while_codes_are_checked_breaks_no_promise(
    tmp_path: Path, cluster: Cluster, layout: Layout, seed: int
) -> None:
    """Every code that was checked right verified once, each check was spent once, and no text was begun after it."""
    points = POINTS[layout]
    with fresh_ground(layout, tmp_path, cluster) as ground:
        verdict = await check_under_kills(ground, seed, len(points), points=points)
    verdict.require()
    assert {point: verdict.counts.get(f"kills at {point}") for point in points} == dict.fromkeys(points, 1)
    assert verdict.counts["verified"] >= len(points)


@pytest.mark.parametrize(
    ("checks", "rows"),
    [
        ([RIGHT, replace(RIGHT, key="check-3")], {"v-1": Row(2, 5, LATE)}),
        ([RIGHT, WRONG], {"v-1": Row(3, 5, LATE)}),
        ([RIGHT, WRONG], {"v-1": Row(1, 5, LATE)}),
        ([RIGHT, replace(RIGHT, result="USED")], {"v-1": Row(1, 5, LATE)}),
        ([replace(WRONG, result="VERIFIED")], {"v-1": Row(1, 5, LATE)}),
        ([replace(RIGHT, result="USED")], {"v-1": Row(0, 5, 0)}),
        ([WRONG], {}),
    ],
    ids=["twice", "overspent", "free", "two answers", "wrong code", "never", "lost"],
)
def test_checks_that_do_not_add_up_are_found(checks: list[Check], rows: dict[str, Row]) -> None:
    """Two successes, attempts that were not counted or twice, two answers to one check, and what was lost."""
    dump = history_of(delivered()).dump
    assert list(violations_of(Told({}, [RIGHT, WRONG]), dump, SPENT)) == []
    assert {violation.check for violation in violations_of(Told({}, checks), dump, rows)} == {"C7"}


def test_an_attempt_after_the_check_is_found() -> None:
    """What was verified is done, and nothing of it begins after that, though it be before its end."""
    dump = history_of(delivered()).dump
    id_, message = next(iter(dump.messages.items()))
    told = Told({id_: "v-1"}, [RIGHT, WRONG])
    assert list(violations_of(told, dump, SPENT)) == []
    begun = next(event.at for event in dump.events[id_] if event.kind == EventKind.ATTEMPT_STARTED)
    before = {"v-1": Row(2, 5, begun - SLACK - 1)}
    assert {v.check for v in violations_of(told, dump, before)} == {"C7"}
    canceled = replace(dump, messages={id_: replace(message, stop=Stop.CANCELED)})
    assert {v.check for v in violations_of(told, canceled, SPENT)} == {"C7"}
