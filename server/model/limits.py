"""How often codes may be asked for and checked: sliding windows over the times of the latest hits.

A refusal names the limit that makes the caller wait longest, and how long that is.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import auto

from server.model.clock import DAY, HOUR, MINUTE, SECOND, Micros
from server.model.enums import Word
from server.model.errors import Exhausted, Reason


class BucketKind(Word):
    """What is counted: sends to an address, to a prefix of numbers, of an end user's; checks, and the wrong ones."""

    DESTINATION = auto()
    PREFIX = auto()
    IP = auto()
    DEVICE = auto()
    CHECKS = auto()
    WRONG = auto()


BucketKey = tuple[str, BucketKind, str]
"""Where hits are counted: (tenant, kind, subject)."""


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `most` hits in `span`; `name` is what callers are told."""

    name: str
    most: int
    span: Micros


COOLDOWN = Limit("cooldown", 1, 30 * SECOND)
LIMITS: Mapping[BucketKind, tuple[Limit, ...]] = {
    BucketKind.DESTINATION: (COOLDOWN, Limit("destination", 3, 10 * MINUTE), Limit("destination", 10, DAY)),
    BucketKind.PREFIX: (Limit("prefix", 20, 10 * MINUTE),),
    BucketKind.IP: (Limit("end_user", 10, HOUR),),
    BucketKind.DEVICE: (Limit("end_user", 10, HOUR),),
    BucketKind.CHECKS: (Limit("checks", 10, MINUTE),),
    BucketKind.WRONG: (Limit("checks", 10, HOUR),),
}
VERIFICATION_SENDS_MAX = 5
PREFIX_DIGITS_CUT = 4
"""A prefix is a number without so many of its last digits."""

JUDGED_SENDS = 20
JUDGED_SPAN: Micros = DAY
VERIFIED_ONE_IN = 10
"""A prefix is blocked where, of so many sends or more in that span, fewer than one in ten were verified."""
BLOCK_FIRST: Micros = HOUR
BLOCK_MAX: Micros = DAY


@dataclass(frozen=True, slots=True)
class Bucket:
    """What was counted against one limit: the times of the latest hits, oldest first. A prefix may be blocked."""

    hits: tuple[Micros, ...] = ()
    blocks: int = 0
    blocked_until: Micros = 0


@dataclass(frozen=True, slots=True)
class Conversion:
    """How many sends a prefix has had since it was last judged, and how many codes of them were verified."""

    sends: int = 0
    verified: int = 0


@dataclass(frozen=True, slots=True)
class Past:
    """What of a send's past is in no bucket: the live verification's sends and end, its prefix's conversion."""

    sends: int = 0
    ends_at: Micros = 0
    conversion: Conversion = Conversion()


@dataclass(frozen=True, slots=True)
class Judged:
    """The buckets after one hit, and why it is refused; a refused one is not counted."""

    buckets: Mapping[BucketKey, Bucket]
    refusal: Exhausted | None = None


def judge_send(buckets: Mapping[BucketKey, Bucket], past: Past, now: Micros, *, cooldown_alone: bool = False) -> Judged:
    """Whether a code may be sent. `cooldown_alone`: no other limit holds, and nothing but addresses is counted."""
    settled = _settled(buckets, now)
    if cooldown_alone:
        addresses = _of_kind(settled, BucketKind.DESTINATION)
        waits = [(wait_of(settled[address], COOLDOWN, now), COOLDOWN.name) for address in addresses]
        return _judged(settled, addresses, waits, now)
    for key in _of_kind(settled, BucketKind.PREFIX):
        settled[key] = _blocked(settled[key], past.conversion, now)
    waits = [*_waits(settled, now), (_wait_of_verification(past, now), "verification")]
    return _judged(settled, settled, waits, now)


def judge_check(buckets: Mapping[BucketKey, Bucket], now: Micros) -> Judged:
    """Whether a code may be checked. That it is wrong is counted once it is known: `count_wrong`."""
    settled = _settled(buckets, now)
    return _judged(settled, _of_kind(settled, BucketKind.CHECKS), _waits(settled, now), now)


def count_wrong(bucket: Bucket, now: Micros) -> Bucket:
    """The bucket of wrong checks after one more."""
    return _hit(BucketKind.WRONG, settle(bucket, now), now)


def wait_of(bucket: Bucket, limit: Limit, now: Micros) -> Micros:
    """How long until the limit allows another hit; 0 for now. A hit counts until its span is over, not at its end."""
    counted = [hit for hit in bucket.hits if hit > now - limit.span]
    return counted[-limit.most] + limit.span - now if len(counted) >= limit.most else 0


def settle(bucket: Bucket, now: Micros) -> Bucket:
    """The bucket as of now. What lies ahead, because the clock was set back, ends no later than if it began now."""
    longest = now + _block_of(bucket.blocks - 1) if bucket.blocks else 0
    return replace(
        bucket,
        hits=tuple(min(hit, now) for hit in bucket.hits),
        blocked_until=min(bucket.blocked_until, longest),
    )


def judged_since(bucket: Bucket, now: Micros) -> Micros | None:
    """From when a prefix's conversion counts; None where it has not had so many sends since that it is judged."""
    since = max(now - JUDGED_SPAN, bucket.blocked_until)
    return since if sum(hit > since for hit in bucket.hits) >= JUDGED_SENDS else None


def _settled(buckets: Mapping[BucketKey, Bucket], now: Micros) -> dict[BucketKey, Bucket]:
    return {key: settle(bucket, now) for key, bucket in buckets.items()}


def _of_kind(buckets: Iterable[BucketKey], wanted: BucketKind) -> list[BucketKey]:
    return [key for key in buckets if key[1] == wanted]


def _judged(
    buckets: Mapping[BucketKey, Bucket], hit: Iterable[BucketKey], waits: Iterable[tuple[Micros, str]], now: Micros
) -> Judged:
    # Of equals the first: the one that is named before the others.
    wait, name = max(waits, key=lambda found: found[0])
    if wait:
        return Judged(buckets, _exhausted(name, wait))
    return Judged({**buckets, **{key: _hit(key[1], buckets[key], now) for key in hit}})


def _hit(kind: BucketKind, bucket: Bucket, now: Micros) -> Bucket:
    kept = max(limit.most for limit in LIMITS[kind])
    return replace(bucket, hits=(*bucket.hits, now)[-kept:])


def _waits(buckets: Mapping[BucketKey, Bucket], now: Micros) -> list[tuple[Micros, str]]:
    return [
        (max(wait_of(bucket, limit, now), bucket.blocked_until - now, 0), limit.name)
        for (_, kind, _), bucket in buckets.items()
        for limit in LIMITS[kind]
    ]


def _wait_of_verification(past: Past, now: Micros) -> Micros:
    """The next code needs a new verification: that is when this one is over."""
    return max(past.ends_at - now, 0) if past.sends >= VERIFICATION_SENDS_MAX else 0


def _blocked(bucket: Bucket, conversion: Conversion, now: Micros) -> Bucket:
    """A prefix that nearly nobody verifies codes of is blocked, each time for twice as long, a day at most."""
    few = conversion.verified * VERIFIED_ONE_IN < conversion.sends
    if now < bucket.blocked_until or conversion.sends < JUDGED_SENDS or not few:
        return bucket
    return replace(bucket, blocks=bucket.blocks + 1, blocked_until=now + _block_of(bucket.blocks))


def _block_of(earlier: int) -> Micros:
    """How long a prefix is blocked that was blocked so often before."""
    return min(BLOCK_FIRST * 2 ** min(earlier, 10), BLOCK_MAX)


def _exhausted(name: str, wait: Micros) -> Exhausted:
    seconds = wait / SECOND
    if name == COOLDOWN.name:
        sentence = "A code was sent to this address less than 30 s ago."
        return Exhausted(Reason.OTP_COOLDOWN, sentence, retry_after_seconds=seconds)
    sentence = f"The limit {name!r} of one-time codes was met."
    return Exhausted(Reason.QUOTA_EXHAUSTED, sentence, {"limit": name}, seconds)
