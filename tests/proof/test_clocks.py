"""A clock that jumps an hour loses nothing, sends nothing twice and nothing stale, and has nobody taken for dead."""

from pathlib import Path

import pytest

from tests.proof.clocks import RESUMED, jump_clock
from tests.proof.ground import Ground, Layout

JUMPS = 2


@pytest.mark.timeout(300)
@pytest.mark.parametrize("layout", Layout)
async def test_a_clock_that_jumps_breaks_no_promise(tmp_path: Path, layout: Layout) -> None:
    """Every promise of the checker's; what is accepted after the clock is right goes out within ten seconds."""
    verdict = await jump_clock(Ground(layout, tmp_path), 5, JUMPS)
    verdict.require()
    assert len(verdict.seconds[RESUMED]) == JUMPS
    assert verdict.counts["texts"] > 2 * JUMPS
