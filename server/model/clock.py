"""Times are integers: microseconds since 1970, UTC."""

import datetime

Micros = int

SECOND: Micros = 1_000_000
MINUTE: Micros = 60 * SECOND
HOUR: Micros = 60 * MINUTE
DAY: Micros = 24 * HOUR


def micros(seconds: float) -> Micros:
    """A span in seconds as microseconds, rounded down."""
    return int(seconds * SECOND)


def moment(at: Micros) -> datetime.datetime:
    """The UTC datetime of a time, for people and for JSON."""
    return datetime.datetime.fromtimestamp(at / SECOND, tz=datetime.UTC)
