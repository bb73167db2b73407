"""The budget for repeats of an account."""

from collections import Counter

from hypothesis import given, strategies as st

from server.model.budget import REPEATS_A_SECOND_MIN, WINDOW_SECONDS, Budget, began, spent
from server.model.clock import SECOND, Micros

START: Micros = 1_700_000_000 * SECOND

attempts = st.lists(st.tuples(st.integers(0, 3 * SECOND), st.booleans(), st.integers(1, 40)), max_size=60)


def fold(history: list[tuple[Micros, bool, int]]) -> tuple[Budget, Micros, list[tuple[int, bool]]]:
    """The budget, the time, and every attempt as (second, repeat)."""
    budget, now, told = Budget(), START, []
    for pause, repeat, count in history:
        now += pause
        for _ in range(count):
            budget = began(budget, now, repeat=repeat)
            told.append((now // SECOND, repeat))
    return budget, now, told


def test_ten_repeats_a_second_are_always_allowed() -> None:
    """Without any first attempt, ten repeats fit into a second, the eleventh does not; the next second has more."""
    budget = Budget()
    for _ in range(REPEATS_A_SECOND_MIN):
        assert not spent(budget, START)
        budget = began(budget, START, repeat=True)
    assert spent(budget, START)
    assert not spent(budget, START + SECOND)


def test_a_tenth_of_the_first_attempts_may_be_repeated() -> None:
    """After 1,000 first attempts a hundred repeats fit, even into one second, and the next does not."""
    budget = Budget()
    for _ in range(1000):
        budget = began(budget, START, repeat=False)
    for _ in range(100):
        assert not spent(budget, START)
        budget = began(budget, START, repeat=True)
    assert spent(budget, START)


def test_first_attempts_of_more_than_a_minute_ago_buy_nothing() -> None:
    """What 1,000 first attempts allowed is gone sixty seconds later."""
    budget = Budget()
    for _ in range(1000):
        budget = began(budget, START, repeat=False)
    later = START + WINDOW_SECONDS * SECOND
    for _ in range(REPEATS_A_SECOND_MIN):
        budget = began(budget, later, repeat=True)
    assert spent(budget, later)


@given(attempts)
def test_the_rule_holds_over_any_history(history: list[tuple[Micros, bool, int]]) -> None:
    """A repeat is too many when ten went in this second and a tenth of the first attempts are used up."""
    budget, now, told = fold(history)
    second = now // SECOND
    window = Counter(repeat for at, repeat in told if at > second - WINDOW_SECONDS)
    floor = sum(repeat and at == second for at, repeat in told) < REPEATS_A_SECOND_MIN
    assert spent(budget, now) == (not floor and (window[True] + 1) * 10 > window[False])


@given(attempts)
def test_obeyed_the_budget_bounds_repeats(history: list[tuple[Micros, bool, int]]) -> None:
    """Who asks before each repeat never makes more than ten a second and a tenth of the first attempts together."""
    budget, now = Budget(), START
    firsts, repeats = 0, Counter[int]()
    for pause, repeat, count in history:
        now += pause
        for _ in range(count):
            if repeat and spent(budget, now):
                continue
            budget = began(budget, now, repeat=repeat)
            firsts += not repeat
            repeats[now // SECOND] += repeat
    assert all(count <= max(REPEATS_A_SECOND_MIN, firsts / 10) for count in repeats.values())


@given(attempts)
def test_memory_is_bounded(history: list[tuple[Micros, bool, int]]) -> None:
    """A budget keeps a count a second, for a minute at most."""
    assert len(fold(history)[0].tally.buckets) <= WINDOW_SECONDS
