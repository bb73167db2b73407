"""Limits: exact over any history, told apart by name, and a refusal says for how long."""

from collections.abc import Sequence

import pytest
from hypothesis import example, given, strategies as st

from server.model.clock import DAY, HOUR, MINUTE, SECOND, Micros
from server.model.errors import Exhausted, Reason
from server.model.limits import (
    Bucket,
    BucketKey,
    BucketKind,
    Conversion,
    Judged,
    Past,
    count_wrong,
    judge_check,
    judge_send,
    judged_since,
    settle,
)

START: Micros = 1_700_000_000 * SECOND
FREE = Past()
ADDRESS = {("north", BucketKind.DESTINATION, "s"): Bucket()}
WINDOWS = {
    BucketKind.DESTINATION: ((1, 30 * SECOND), (3, 10 * MINUTE), (10, DAY)),
    BucketKind.PREFIX: ((20, 10 * MINUTE),),
    BucketKind.IP: ((10, HOUR),),
    BucketKind.DEVICE: ((10, HOUR),),
}
"""The contract's figures, written down a second time."""

pauses = st.lists(
    st.one_of(
        st.integers(0, 40 * SECOND),
        st.integers(0, 12 * MINUTE),
        st.integers(0, 2 * HOUR),
        st.sampled_from([30 * SECOND, 30 * SECOND - 1, 10 * MINUTE, 10 * MINUTE - 1]),
    ),
    max_size=60,
)
kinds = st.sets(st.sampled_from(sorted(WINDOWS)), min_size=1)


def naive_wait(taken: Sequence[Micros], kind: BucketKind, now: Micros) -> Micros:
    """How long until every window of a kind has room, from the whole history."""
    waits = [0]
    for most, span in WINDOWS[kind]:
        inside = [at for at in taken if at + span > now]
        if len(inside) >= most:
            waits.append(sorted(inside)[-most] + span - now)
    return max(waits)


def told(judged: Judged) -> Exhausted:
    assert judged.refusal is not None
    return judged.refusal


def at(kind: BucketKind, subject: str = "s") -> BucketKey:
    """Where hits of a kind are counted."""
    return "north", kind, subject


def buckets_of(*wanted: BucketKind) -> dict[BucketKey, Bucket]:
    return {at(kind): Bucket() for kind in wanted}


@given(pauses, kinds)
@example([30 * SECOND, 30 * SECOND, 30 * SECOND], {BucketKind.DESTINATION})
@example([0] * 30, {BucketKind.PREFIX})
def test_a_send_is_refused_exactly_where_some_window_is_full(pauses: Sequence[Micros], kinds: set[BucketKind]) -> None:
    """Over any history: as the naive count over everything that was ever counted, and with its wait."""
    now, taken = START, list[Micros]()
    buckets = buckets_of(*kinds)
    for pause in pauses:
        now += pause
        expected = max(naive_wait(taken, kind, now) for kind in kinds)
        judged = judge_send(buckets, FREE, now)
        buckets = dict(judged.buckets)
        assert (judged.refusal is not None) == bool(expected)
        if judged.refusal is None:
            taken.append(now)
        else:
            assert judged.refusal.retry_after_seconds == pytest.approx(expected / SECOND)


@given(pauses, kinds)
def test_what_a_refusal_says_is_the_truth(pauses: Sequence[Micros], kinds: set[BucketKind]) -> None:
    """A microsecond before the time that was told it is refused still; at that time it is not."""
    now, buckets = START, buckets_of(*kinds)
    for pause in pauses:
        now += pause
        judged = judge_send(buckets, FREE, now)
        buckets = dict(judged.buckets)
        if judged.refusal is not None:
            free_at = now + round(judged.refusal.retry_after_seconds * SECOND)
            assert judge_send(buckets, FREE, free_at - 1).refusal is not None
            assert judge_send(buckets, FREE, free_at).refusal is None


@given(st.lists(st.integers(0, 20 * SECOND), max_size=60))
def test_checks_of_an_address_are_ten_a_minute(pauses: Sequence[Micros]) -> None:
    """Whatever their rhythm: never an eleventh within a minute, never a refusal while there is room."""
    now, taken, bucket = START, list[Micros](), Bucket()
    for pause in pauses:
        now += pause
        judged = judge_check({at(BucketKind.CHECKS): bucket}, now)
        bucket = judged.buckets[at(BucketKind.CHECKS)]
        room = sum(at + MINUTE > now for at in taken) < 10
        assert (judged.refusal is None) == room
        if room:
            taken.append(now)
        else:
            assert told(judged).metadata == {"limit": "checks"}


@given(st.lists(st.tuples(st.integers(0, 20 * MINUTE), st.booleans()), max_size=60))
@example([(0, True)] * 11)
@example([(6 * MINUTE, True)] * 10 + [(6 * MINUTE - 1, True), (1, True)])
def test_wrong_checks_of_an_address_are_ten_an_hour(history: Sequence[tuple[Micros, bool]]) -> None:
    """Right ones are not among them; while ten are, none is judged, and what a refusal says is how long that is."""
    now, taken, bucket = START, list[Micros](), Bucket()
    for pause, wrong in history:
        now += pause
        judged = judge_check({at(BucketKind.WRONG): bucket}, now)
        assert judged.buckets[at(BucketKind.WRONG)] == bucket
        inside = [at_ for at_ in taken if at_ + HOUR > now]
        assert (judged.refusal is None) == (len(inside) < 10)
        if judged.refusal is not None:
            assert judged.refusal.metadata == {"limit": "checks"}
            assert judged.refusal.retry_after_seconds == pytest.approx((inside[-10] + HOUR - now) / SECOND)
        elif wrong:
            taken.append(now)
            bucket = count_wrong(bucket, now)


def test_a_refused_check_is_counted_nowhere() -> None:
    """Who has no wrong one left spends none of the ten a minute either, and the wait that is longer is told."""
    buckets = {at(BucketKind.CHECKS): Bucket((START,) * 10), at(BucketKind.WRONG): Bucket((START,) * 10)}
    judged = judge_check(buckets, START + SECOND)
    assert (told(judged).retry_after_seconds, judged.buckets) == (3599, buckets)


@given(pauses, pauses)
def test_of_two_addresses_each_must_have_room(first: Sequence[Micros], second: Sequence[Micros]) -> None:
    """A code that may go to either is counted at both, and refused where one of them alone would be."""
    ours, theirs = at(BucketKind.DESTINATION, "phone"), at(BucketKind.DESTINATION, "email")
    buckets, now = {ours: Bucket(), theirs: Bucket()}, START
    turns = [(pause, (ours, theirs)) for pause in first] + [(pause, (theirs,)) for pause in second]
    for pause, keys in turns:
        now += pause
        own = {key: buckets[key] for key in keys}
        alone = {key: judge_send({key: bucket}, FREE, now).refusal for key, bucket in own.items()}
        judged = judge_send(own, FREE, now)
        assert (judged.refusal is None) == (not any(alone.values()))
        if judged.refusal is None:
            assert {judged.buckets[key].hits[-1] for key in keys} == {now}
        else:
            longest = max(refusal.retry_after_seconds for refusal in alone.values() if refusal)
            assert judged.refusal.retry_after_seconds == longest
            assert judged.buckets == own
        buckets |= judged.buckets


def test_a_refused_send_is_not_counted() -> None:
    """Who asks again and again waits no longer for it."""
    buckets = judge_send(ADDRESS, FREE, START).buckets
    for second in range(1, 30):
        judged = judge_send(buckets, FREE, START + second * SECOND)
        assert told(judged).retry_after_seconds == 30 - second
        buckets = judged.buckets
    assert judge_send(buckets, FREE, START + 30 * SECOND).refusal is None


def test_each_limit_has_its_name() -> None:
    """The cooldown has a reason of its own; the others say which they are."""
    early = told(judge_send(judge_send(ADDRESS, FREE, START).buckets, FREE, START + SECOND))
    assert (early.reason, early.metadata) == (Reason.OTP_COOLDOWN, {})
    full = {
        "destination": (Bucket((START, START + MINUTE, START + 2 * MINUTE)), BucketKind.DESTINATION),
        "prefix": (Bucket((START,) * 20), BucketKind.PREFIX),
        "end_user": (Bucket((START,) * 10), BucketKind.IP),
    }
    for name, (bucket, kind) in full.items():
        refusal = told(judge_send({at(kind): bucket}, FREE, START + 4 * MINUTE))
        assert (refusal.reason, refusal.metadata) == (Reason.QUOTA_EXHAUSTED, {"limit": name})
        assert refusal.retry_after_seconds > 0


def test_of_two_limits_the_one_that_lasts_longer_is_told() -> None:
    """A caller that waits as long as it was told is not refused again by another limit."""
    hits = (START, START + MINUTE, START + 2 * MINUTE)
    refusal = told(judge_send({at(BucketKind.DESTINATION): Bucket(hits)}, FREE, START + 2 * MINUTE + SECOND))
    assert refusal.metadata == {"limit": "destination"}
    assert refusal.retry_after_seconds == 8 * 60 - 1


def test_a_verification_has_five_sends() -> None:
    """The sixth waits until the verification is over."""
    past = Past(sends=5, ends_at=START + 70 * SECOND)
    refusal = told(judge_send(ADDRESS, past, START))
    assert (refusal.metadata, refusal.retry_after_seconds) == ({"limit": "verification"}, 70)
    assert judge_send(ADDRESS, Past(sends=4, ends_at=START + 70 * SECOND), START).refusal is None


def test_of_a_magic_recipient_only_the_cooldown_holds() -> None:
    """However many there were, 30 s after the last one the next may go, and nothing else is counted."""
    buckets = {at(BucketKind.DESTINATION): Bucket(tuple(START + n for n in range(10)))}
    past = Past(sends=9, ends_at=START + HOUR)
    assert told(judge_send(buckets, past, START + SECOND, cooldown_alone=True)).reason == Reason.OTP_COOLDOWN
    assert judge_send(buckets, past, START + 31 * SECOND, cooldown_alone=True).refusal is None


@pytest.mark.parametrize(("verified", "blocked"), [(0, True), (1, True), (2, False), (20, False)])
def test_a_prefix_that_hardly_anybody_verifies_is_blocked(verified: int, *, blocked: bool) -> None:
    """Of 20 sends fewer than a tenth: then nobody of that prefix gets a code for an hour."""
    later = START + 11 * MINUTE
    buckets = {at(BucketKind.PREFIX): Bucket((START,) * 20)}
    judged = judge_send(buckets, Past(conversion=Conversion(20, verified)), later)
    assert (judged.refusal is not None) == blocked
    if blocked:
        assert told(judged).metadata == {"limit": "prefix"}
        assert told(judged).retry_after_seconds == 3600


@given(st.integers(0, 400), st.integers(0, 400))
def test_a_tenth_is_a_tenth(sends: int, verified: int) -> None:
    """Never blocked with a tenth verified or with fewer than 20 sends; always else."""
    judged = judge_send({at(BucketKind.PREFIX): Bucket()}, Past(conversion=Conversion(sends, verified)), START)
    assert (judged.refusal is not None) == (sends >= 20 and verified * 10 < sends)


def test_each_block_is_twice_as_long_up_to_a_day() -> None:
    """1, 2, 4, 8, 16 hours, then a day each time; while one lasts, no other begins."""
    buckets, now, waits = {at(BucketKind.PREFIX): Bucket()}, START, list[float]()
    pumped = Past(conversion=Conversion(20, 0))
    for _ in range(7):
        judged = judge_send(buckets, pumped, now)
        waits.append(told(judged).retry_after_seconds / 3600)
        again = judge_send(judged.buckets, pumped, now + MINUTE)
        assert again.buckets[at(BucketKind.PREFIX)] == judged.buckets[at(BucketKind.PREFIX)]
        buckets = dict(judged.buckets)
        now = buckets[at(BucketKind.PREFIX)].blocked_until
        assert judge_send(buckets, FREE, now).refusal is None
    assert waits == [1, 2, 4, 8, 16, 24, 24]


def test_a_prefix_is_judged_by_what_came_after_its_block() -> None:
    """Twenty sends of the last day; those from before a block have been answered for."""
    hits = tuple(START + n * SECOND for n in range(20))
    assert judged_since(Bucket(hits), START + HOUR) == START + HOUR - DAY
    assert judged_since(Bucket(hits[1:]), START + HOUR) is None
    assert judged_since(Bucket(hits, 1, START + 30 * MINUTE), START + HOUR) is None
    assert judged_since(Bucket(hits), START + 2 * DAY) is None


@given(st.lists(st.integers(-DAY, 3 * DAY), max_size=20), st.integers(0, 12), st.integers(0, 30 * DAY))
def test_a_clock_that_is_set_back_locks_nobody_out(hits: list[int], blocks: int, until: Micros) -> None:
    """What lies ahead counts as now: no wait is longer than the longest window, no block than its own length."""
    bucket = Bucket(tuple(sorted(START + hit for hit in hits)), blocks, START + until if blocks else 0)
    settled = settle(bucket, START)
    assert all(hit <= START for hit in settled.hits)
    judged = judge_send({at(BucketKind.PREFIX): bucket}, FREE, START)
    wait = judged.refusal.retry_after_seconds * SECOND if judged.refusal else 0
    assert wait <= max(10 * MINUTE, min(HOUR * 2 ** max(blocks - 1, 0), DAY) if blocks else 0)
    # What was settled is what is kept: time goes on from there.
    assert judge_send(judged.buckets, FREE, START + DAY + 1).refusal is None
