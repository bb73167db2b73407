"""A stop loses nothing, leaves nothing to others, and is seen by callers as a repeat at most."""

from pathlib import Path

import pytest

from tests.cluster import Cluster
from tests.proof.ground import Layout, fresh_ground
from tests.proof.stops import roll, stop_in_place

STOPS = 2


@pytest.mark.timeout(240)
async def test_a_stop_under_load_breaks_no_promise(tmp_path: Path, cluster: Cluster) -> None:
    """It ends with 0 in its time and with nothing in hand; callers who repeat get all that they asked for."""
    with fresh_ground(Layout.SQLITE, tmp_path, cluster) as ground:
        verdict = await stop_in_place(ground, 51, STOPS)
    verdict.require()
    assert verdict.counts["stops"] == STOPS
    assert verdict.counts["attempts in flight"] > 0


@pytest.mark.timeout(240)
async def test_a_rolling_restart_is_seen_by_nobody(tmp_path: Path, cluster: Cluster) -> None:
    """Callers with gRPC's own retries are told of no error at all; watchers go on from their cursors."""
    with fresh_ground(Layout.REPLICAS, tmp_path, cluster) as ground:
        verdict = await roll(ground, 52, STOPS)
    verdict.require()
    assert verdict.counts["stops"] == STOPS
    assert verdict.counts["unknown answers"] == 0
    assert verdict.counts["attempts in flight"] > 0
