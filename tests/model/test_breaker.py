"""The breaker of a line, as a rule over what its calls came to."""

from collections.abc import Sequence

import pytest
from hypothesis import given, strategies as st

from server.model.breaker import (
    CALLS_MIN,
    NOT_CONNECTED_MAX,
    OPEN_FIRST,
    OPEN_MAX,
    PROBE_MAX,
    PROBES_TO_CLOSE,
    Breaker,
    Result,
    after,
    probing,
    result_of,
)
from server.model.clock import SECOND, Micros
from server.model.outcomes import (
    Accepted,
    Fault,
    Outcome,
    Refusal,
    ambiguous,
    misconfigured,
    rate_limited,
    rejected,
    unavailable,
)

START: Micros = 1_700_000_000 * SECOND

results = st.sampled_from([*Result, None])
pauses = st.integers(0, 20 * SECOND)
calls = st.lists(st.tuples(pauses, results), max_size=120)


def fold(calls: Sequence[tuple[Micros, Result | None]]) -> tuple[Breaker, Micros]:
    breaker, now = Breaker(), START
    for pause, result in calls:
        now += pause
        breaker = after(probing(breaker, now), result, now)
    return breaker, now


def opened(times: int = 1) -> tuple[Breaker, Micros]:
    """A breaker that opened so often, at the moment it opened last."""
    breaker, now = fold([(0, Result.NOT_CONNECTED)] * NOT_CONNECTED_MAX)
    for _ in range(times - 1):
        now = breaker.open_until
        breaker = after(probing(breaker, now), Result.FAILED, now)
    return breaker, now


def test_half_of_twenty_calls_failing_opens() -> None:
    """Ten failures among twenty calls in ten seconds open the line for five seconds."""
    breaker, now = fold([(SECOND // 10, r) for r in [Result.SUCCEEDED, Result.FAILED] * 10])
    assert breaker.closed_until(now) == now + OPEN_FIRST


def test_fewer_than_twenty_calls_never_open_by_share() -> None:
    """Nineteen failures that did connect leave the line closed: too few to judge."""
    breaker, now = fold([(0, Result.FAILED)] * (CALLS_MIN - 1))
    assert breaker.closed_until(now) == 0


def test_failures_of_more_than_ten_seconds_ago_are_forgotten() -> None:
    """Nineteen failures, then one eleven seconds later: no window holds twenty calls."""
    breaker, now = fold([(0, Result.FAILED)] * (CALLS_MIN - 1) + [(11 * SECOND, Result.FAILED)])
    assert breaker.closed_until(now) == 0


def test_five_calls_in_a_row_without_a_connection_open() -> None:
    """Five opens, whatever the share; a success in between starts the count anew."""
    four = [(0, Result.NOT_CONNECTED)] * (NOT_CONNECTED_MAX - 1)
    interrupted, now = fold([*four, (0, Result.SUCCEEDED), *four])
    assert interrupted.closed_until(now) == 0
    assert opened()[0].closed_until(START) == START + OPEN_FIRST


@pytest.mark.parametrize(
    ("outcome", "connected", "result"),
    [
        (Accepted("1"), True, Result.SUCCEEDED),
        (unavailable("409"), True, Result.FAILED),
        (unavailable("NO_CONNECTION"), False, Result.NOT_CONNECTED),
        (ambiguous("NO_ANSWER"), True, Result.FAILED),
        (rejected(Refusal.RECIPIENT), True, None),
        (rejected(Refusal.CONTENT), True, None),
        (rejected(Refusal.REQUEST), True, None),
        (misconfigured(Fault.CREDENTIALS), True, None),
        (misconfigured(Fault.SENDER), True, None),
        (rate_limited("451"), True, None),
    ],
)
def test_only_infrastructure_speaks_of_the_line(outcome: Outcome, connected: bool, result: Result | None) -> None:
    """What a provider refuses about a recipient, a text or an account is no failure of the line, and no success."""
    assert result_of(outcome, connected=connected) == result


@given(calls, st.integers(0, 50))
def test_refusals_never_count(history: list[tuple[Micros, Result | None]], refusals: int) -> None:
    """Any number of refusals leaves a closed line exactly as it was."""
    breaker, now = fold(history)
    if breaker.openings == 0:
        for _ in range(refusals):
            assert after(breaker, None, now) is breaker


@pytest.mark.parametrize(("times", "seconds"), [(1, 5), (2, 10), (3, 20), (4, 40), (5, 60), (6, 60), (40, 60)])
def test_each_opening_doubles_up_to_a_minute(times: int, seconds: int) -> None:
    """5, 10, 20, 40, 60, 60 … seconds."""
    breaker, now = opened(times)
    assert breaker.closed_until(now) == now + seconds * SECOND


def test_one_probe_at_a_time() -> None:
    """Half-open, a probe closes the line to others until its answer comes, or for ten seconds."""
    breaker, _ = opened()
    now = breaker.open_until
    assert breaker.closed_until(now) == 0
    probe = probing(breaker, now)
    assert probe.closed_until(now + 1) == now + PROBE_MAX
    assert probing(probe, now + 1) is probe
    assert after(probe, Result.SUCCEEDED, now + 2).closed_until(now + 2) == 0
    assert after(probe, None, now + 2).closed_until(now + 2) == 0
    assert probe.closed_until(now + PROBE_MAX) == 0


def test_three_successful_probes_close_and_forget() -> None:
    """After the third the line is as new: the next opening is five seconds again."""
    breaker, _ = opened(4)
    now = breaker.open_until
    for n in range(PROBES_TO_CLOSE):
        assert breaker.openings == 4, n
        breaker = after(probing(breaker, now + n), Result.SUCCEEDED, now + n)
    assert breaker == Breaker()


def test_answers_from_before_the_opening_change_nothing() -> None:
    """A success that comes while the line is open does not close it, a failure does not prolong it."""
    breaker, now = opened()
    for result in Result:
        assert after(breaker, result, now + 1) is breaker


@given(calls)
def test_open_spans_are_bounded(history: list[tuple[Micros, Result | None]]) -> None:
    """At any moment a line opens again within a minute, and a line with no failures never closed at all."""
    breaker, now = fold(history)
    until = breaker.closed_until(now)
    assert until == 0 or now < until <= now + OPEN_MAX
    if all(result in (Result.SUCCEEDED, None) for _, result in history):
        assert breaker.openings == 0


@given(calls)
def test_a_closed_line_had_too_few_failures(history: list[tuple[Micros, Result | None]]) -> None:
    """While closed, the window holds fewer than twenty calls or fewer failures than half: the rule, restated."""
    breaker, now = fold(history)
    if breaker.openings == 0:
        done, failed = breaker.window.totals(now)
        assert done < CALLS_MIN or failed * 2 < done
        assert breaker.not_connected < NOT_CONNECTED_MAX


@given(calls)
def test_memory_is_bounded(history: list[tuple[Micros, Result | None]]) -> None:
    """A breaker keeps a count a second, however many calls there were."""
    assert len(fold(history)[0].window.buckets) <= 10
