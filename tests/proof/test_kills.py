"""kill -9 at any step, at a start, in a rescue and at any time loses nothing, and sends nothing twice."""

from collections import Counter
from pathlib import Path
from random import Random
from statistics import median

import pytest

from tests.cluster import Cluster
from tests.proof.checker import violations_of
from tests.proof.ground import Layout, fresh_ground
from tests.proof.kills import (
    PLAIN_START,
    RECOVERY,
    RESCUE,
    RESCUE_SECONDS,
    START,
    SUCCESSION,
    When,
    aim_at,
    kill_at_any_time,
    kill_at_points,
    not_once,
    order_of,
    points_of,
)
from tests.proof.stories import delivered, failed, history_of
from tests.proof.trial import Verdict

POINTS = {
    Layout.SQLITE: points_of(Layout.SQLITE),
    Layout.POSTGRES: points_of(Layout.POSTGRES)[::2],
    Layout.REPLICAS: points_of(Layout.REPLICAS)[1::2],
}
"""Where processes die here: everywhere on SQLite, and everywhere on Postgres, by halves."""
STRIKES = 2
START_SECONDS = 2.0


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("layout", "seed"), [(Layout.SQLITE, 21), (Layout.POSTGRES, 22), (Layout.REPLICAS, 23)])
async def test_a_kill_at_any_step_breaks_no_promise(
    tmp_path: Path, cluster: Cluster, layout: Layout, seed: int
) -> None:
    """Every promise of the checker's; where the upstream is honest, each text is read once and delivered."""
    points = POINTS[layout]
    with fresh_ground(layout, tmp_path, cluster) as ground:
        verdict = await kill_at_points(ground, seed, len(points), points=points)
    verdict.require()
    struck = [aim_at(point, Random(seed)).name for point in points]
    assert {name: verdict.counts.get(name) for name in struck} == dict.fromkeys(struck, 1)
    require_work(verdict, len(points))
    require_speed(verdict)
    rescued = {Layout.SQLITE: RECOVERY, Layout.POSTGRES: SUCCESSION, Layout.REPLICAS: RESCUE}
    assert verdict.seconds.get(rescued[layout]), "no rescue was measured"


@pytest.mark.timeout(400)
@pytest.mark.parametrize(("layout", "seed"), [(Layout.SQLITE, 31), (Layout.POSTGRES, 32), (Layout.REPLICAS, 33)])
async def test_a_kill_at_any_time_breaks_no_promise(
    tmp_path: Path, cluster: Cluster, layout: Layout, seed: int
) -> None:
    """The same, whatever the processes are doing, and though they are killed again while they start."""
    with fresh_ground(layout, tmp_path, cluster) as ground:
        verdict = await kill_at_any_time(ground, seed, STRIKES)
    verdict.require()
    require_work(verdict, STRIKES - 1)
    require_speed(verdict)


def require_work(verdict: Verdict, kills: int) -> None:
    """So many processes were killed at least, and there was work for each."""
    assert verdict.counts["kills"] >= kills
    assert verdict.counts["accepted"] >= 5 * kills
    assert verdict.counts["texts"] >= 5 * kills


def require_speed(verdict: Verdict) -> None:
    """No more than the order of magnitude: what else the machine does is not known. docs/reliability.md has figures."""
    plain, starts = verdict.seconds[PLAIN_START], verdict.seconds[START]
    assert median(starts) <= 2 * max(plain) + START_SECONDS, "a start after a kill is no start any more"
    assert max(verdict.seconds.get(SUCCESSION, [0])) <= RESCUE_SECONDS + max(starts)


def test_every_point_has_its_turn() -> None:
    """In any order none comes again before all have come; the first ones, which follow no death, die under load."""
    points = points_of(Layout.REPLICAS)
    for seed in range(50):
        order = list(order_of(points, 2 * len(points), Random(seed)))
        assert set(Counter(order[: len(points)]).values()) == {1}
        assert set(Counter(order).values()) == {2}
        assert {when for when, _ in order[:2]} == {When.LOAD}


def test_a_text_that_is_read_twice_or_not_delivered_is_found() -> None:
    """Though a class may allow it: of an honest upstream nothing else explains it."""
    once, lost = history_of(delivered()), history_of(failed())
    entries = list(once.ledger or ())
    assert violations_of(once) == list(not_once(once.dump, entries, "t1", {"key-of-t1"})) == []
    assert [v.why for v in not_once(once.dump, entries * 2, "t1", {"key-of-t1"})] == ["read 2 times"]
    assert [v.why for v in not_once(lost.dump, [], "t1", {"key-of-t1"})] == ["ended FAILED"]
    assert list(not_once(lost.dump, entries * 2, "t2", {"key-of-t2"})) == []
