"""Timestamps and durations of the contract, and microseconds."""

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from server.model.clock import SECOND, Micros

_NANOS = 1_000_000_000
_FIRST_SECOND, _LAST_SECOND = -62_135_596_800, 253_402_300_799
"""The years 1 to 9999, which is what a Timestamp may hold."""
_DURATION_SECONDS_MAX = 315_576_000_000


class BadTime(ValueError):
    """The value is outside what its type may hold. Its message is a sentence for the caller."""


def micros_of(at: Timestamp) -> Micros:
    """The time, rounded down. Raises BadTime."""
    if not (_FIRST_SECOND <= at.seconds <= _LAST_SECOND and 0 <= at.nanos < _NANOS):
        raise BadTime("is no time between the years 1 and 9999 with 0–999,999,999 nanoseconds")
    return at.seconds * SECOND + at.nanos // 1000


def span_of(span: Duration) -> Micros:
    """The span in microseconds, rounded down. Raises BadTime."""
    same_sign = span.seconds == 0 or span.nanos == 0 or (span.seconds < 0) == (span.nanos < 0)
    if not (abs(span.seconds) <= _DURATION_SECONDS_MAX and abs(span.nanos) < _NANOS and same_sign):
        raise BadTime("is no duration that its type may hold")
    return span.seconds * SECOND + span.nanos // 1000


def timestamp(at: Micros) -> Timestamp | None:
    """The Timestamp of a time; None for 0, which is never."""
    return Timestamp(seconds=at // SECOND, nanos=at % SECOND * 1000) if at else None


def duration(span: Micros) -> Duration:
    """The Duration of a span that is not negative."""
    return Duration(seconds=span // SECOND, nanos=span % SECOND * 1000)
