"""A scenario: a fault that is put to a gateway under load, as often as it is told, and judged."""

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass

from tests.proof.ground import Ground, Layout
from tests.proof.trial import Verdict


@dataclass(frozen=True)
class Scenario:
    """`hold` makes a trial on a ground, from a seed, with so many rounds of the fault, and judges it.

    `counted` names the count of the verdict that is N: how many times the fault struck. `rounds` are those of one trial
    where time is no matter.
    """

    name: str
    layouts: Sequence[Layout]
    counted: str
    rounds: int
    hold: Callable[[Ground, int, int], Coroutine[None, None, Verdict]]
