"""A process that stands still loses nothing, holds up nobody for long, and does nothing stale when it goes on."""

from pathlib import Path

import pytest

from tests.cluster import Cluster
from tests.proof.freezes import freeze
from tests.proof.ground import Layout, fresh_ground

FREEZE_SECONDS = 8.0
"""Twice as long as it takes until a process is given up."""


@pytest.mark.timeout(240)
@pytest.mark.parametrize(("layout", "seed", "rounds"), [(Layout.SQLITE, 41, 1), (Layout.REPLICAS, 42, 2)])
async def test_a_freeze_breaks_no_promise(
    tmp_path: Path, cluster: Cluster, layout: Layout, seed: int, rounds: int
) -> None:
    """Beside another process its work is taken over within 10 s; alone it goes on where it stood."""
    with fresh_ground(layout, tmp_path, cluster) as ground:
        verdict = await freeze(ground, seed, rounds, freeze_seconds=FREEZE_SECONDS)
    verdict.require()
    assert verdict.counts["freezes"] == rounds
    if layout == Layout.REPLICAS:
        assert verdict.counts["freezes of one that held messages"] > 0
