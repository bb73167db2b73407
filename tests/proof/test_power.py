"""A power cut loses nothing that a caller was told of, and nothing is sent twice after it."""

from pathlib import Path

import pytest

from tests.proof.ground import Ground, Layout
from tests.proof.power import SCENARIOS
from tests.proof.scenario import Scenario

CUTS = 3


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
async def test_a_power_cut_breaks_no_promise(tmp_path: Path, scenario: Scenario) -> None:
    """Every promise of the checker's, over all cuts of one database."""
    verdict = await scenario.hold(Ground(Layout.SQLITE, tmp_path), 11, CUTS)
    verdict.require()
    assert len(verdict.seconds["from the start to serving"]) == CUTS
    assert verdict.counts["texts"] >= CUTS
