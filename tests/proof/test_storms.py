"""A Postgres that goes away and comes back costs callers a repeat, and no promise."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import Cluster
from tests.proof.ground import Layout, fresh_ground
from tests.proof.scenario import Scenario
from tests.proof.storms import SCENARIOS

ROUNDS = {"restarts": 2, "terminated backends": 1}
STRUCK_MIN = {"restarts": 2, "terminated backends": 10}


@pytest.fixture
def own_cluster() -> Iterator[Cluster]:
    """A Postgres for one test alone."""
    with Cluster() as running:
        yield running


@pytest.mark.timeout(240)
@pytest.mark.parametrize("seed", [31])
@pytest.mark.parametrize(
    ("scenario", "layout"),
    [pytest.param(one, layout, id=f"{one.name}, {layout}") for one in SCENARIOS for layout in one.layouts],
)
async def test_a_storm_over_postgres_breaks_no_promise(
    tmp_path: Path, own_cluster: Cluster, scenario: Scenario, layout: Layout, seed: int
) -> None:
    """Calls end by an answer or by STORE_UNAVAILABLE; within 10 s messages are taken and handed off again."""
    with fresh_ground(layout, tmp_path, own_cluster) as ground:
        verdict = await scenario.hold(ground, seed, ROUNDS[scenario.counted])
    verdict.require()
    assert verdict.counts[scenario.counted] >= STRUCK_MIN[scenario.counted]
    assert verdict.counts["texts"] > 0
