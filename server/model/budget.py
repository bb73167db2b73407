"""How many repeats an account may be given: a value that counts first attempts and repeats.

A repeat on the same account is allowed while the repeats of the last 60 s stay within a tenth of the first attempts,
and the first ten repeats of any second always are. Passing on to another account is a first attempt there.
"""

from dataclasses import dataclass, replace

from server.model.clock import Micros
from server.model.tally import Tally

WINDOW_SECONDS = 60
SHARE_PERCENT = 10
REPEATS_A_SECOND_MIN = 10

_NO_ATTEMPTS = Tally(WINDOW_SECONDS)


@dataclass(frozen=True, slots=True)
class Budget:
    """First attempts and repeats of one account."""

    tally: Tally = _NO_ATTEMPTS


def began(budget: Budget, now: Micros, *, repeat: bool) -> Budget:
    """The budget once an attempt has begun."""
    return replace(budget, tally=budget.tally.add(now, int(not repeat), int(repeat)))


def spent(budget: Budget, now: Micros) -> bool:
    """Whether one more repeat at `now` is too many."""
    if budget.tally.of_second(now)[1] < REPEATS_A_SECOND_MIN:
        return False
    firsts, repeats = budget.tally.totals(now)
    return (repeats + 1) * 100 > firsts * SHARE_PERCENT
