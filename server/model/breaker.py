"""When a line to a provider is passed over: a breaker as a value, moved by what its calls came to.

Closed, it opens when half of at least 20 calls in 10 s failed, or when 5 in a row could not connect. Open, it lets
nothing through for 5 s, doubled at each opening up to 60 s. Half-open, it lets one probe through at a time; 3 successes
close it, a failure opens it again. What a provider refuses about a recipient, a text or an account says nothing of the
line.
"""

from dataclasses import dataclass, replace
from enum import auto

from server.model.clock import SECOND, Micros
from server.model.enums import Word
from server.model.outcomes import Accepted, Ambiguous, Misconfigured, Outcome, RateLimited, Rejected, Unavailable
from server.model.tally import Tally

WINDOW_SECONDS = 10
CALLS_MIN = 20
FAILED_SHARE_PERCENT = 50
NOT_CONNECTED_MAX = 5
OPEN_FIRST: Micros = 5 * SECOND
OPEN_MAX: Micros = 60 * SECOND
PROBES_TO_CLOSE = 3
PROBE_MAX: Micros = 10 * SECOND
"""A probe whose answer has not come by then is given up, and another may go."""


class Result(Word):
    """What a call says of its line."""

    SUCCEEDED = auto()
    FAILED = auto()
    NOT_CONNECTED = auto()


_NO_CALLS = Tally(WINDOW_SECONDS)


@dataclass(frozen=True, slots=True)
class Breaker:
    """The state of one line. `window` counts calls and failures; `openings` is 0 while closed."""

    window: Tally = _NO_CALLS
    not_connected: int = 0
    openings: int = 0
    open_until: Micros = 0
    successes: int = 0
    probe_until: Micros = 0

    def half_open(self, now: Micros) -> bool:
        """Whether only probes may go."""
        return self.openings > 0 and now >= self.open_until

    def closed_until(self, now: Micros) -> Micros:
        """Before when nothing may be sent by this line; 0 when something may be."""
        if now < self.open_until:
            return self.open_until
        return self.probe_until if self.half_open(now) and now < self.probe_until else 0


def result_of(outcome: Outcome, *, connected: bool) -> Result | None:
    """What an outcome says of the line, None for nothing. `connected` tells two kinds of Unavailable apart."""
    match outcome:
        case Accepted():
            return Result.SUCCEEDED
        case Unavailable():
            return Result.FAILED if connected else Result.NOT_CONNECTED
        case Ambiguous():
            return Result.FAILED
        case Rejected() | Misconfigured() | RateLimited():
            return None


def probing(breaker: Breaker, now: Micros) -> Breaker:
    """The breaker once a call has been let through: half-open, that call is the probe and no other goes beside it."""
    if not breaker.half_open(now) or now < breaker.probe_until:
        return breaker
    return replace(breaker, probe_until=now + PROBE_MAX)


def after(breaker: Breaker, result: Result | None, now: Micros) -> Breaker:
    """The breaker after a call. Answers to calls from before an opening that come while it is open change nothing."""
    if now < breaker.open_until:
        return breaker
    if breaker.half_open(now):
        return _after_probe(breaker, result, now)
    if result is None:
        return breaker
    counted = replace(
        breaker,
        window=breaker.window.add(now, 1, int(result != Result.SUCCEEDED)),
        not_connected=breaker.not_connected + 1 if result == Result.NOT_CONNECTED else 0,
    )
    return _opened(counted, now) if _trips(counted, now) else counted


def _after_probe(breaker: Breaker, result: Result | None, now: Micros) -> Breaker:
    match result:
        case None:
            return replace(breaker, probe_until=0)
        case Result.FAILED | Result.NOT_CONNECTED:
            return _opened(breaker, now)
        case Result.SUCCEEDED if breaker.successes + 1 >= PROBES_TO_CLOSE:
            return Breaker()
        case Result.SUCCEEDED:
            return replace(breaker, successes=breaker.successes + 1, probe_until=0)


def _trips(breaker: Breaker, now: Micros) -> bool:
    calls, failed = breaker.window.totals(now)
    return breaker.not_connected >= NOT_CONNECTED_MAX or (
        calls >= CALLS_MIN and failed * 100 >= calls * FAILED_SHARE_PERCENT
    )


def _opened(breaker: Breaker, now: Micros) -> Breaker:
    span = min(OPEN_MAX, OPEN_FIRST * 2 ** min(breaker.openings, 10))
    return Breaker(openings=breaker.openings + 1, open_until=now + span)
