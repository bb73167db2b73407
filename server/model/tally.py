"""Two counts over a sliding window of whole seconds, as a value."""

from dataclasses import dataclass, replace

from server.model.clock import SECOND, Micros

Bucket = tuple[int, int, int]
"""(second, first count, second count)."""


@dataclass(frozen=True, slots=True)
class Tally:
    """Counts of the last `seconds` seconds, the running one included. Never holds more than one bucket a second."""

    seconds: int
    buckets: tuple[Bucket, ...] = ()

    def add(self, now: Micros, one: int = 0, other: int = 0) -> "Tally":
        """The tally with more counted at `now`. A clock that went back counts into the latest second."""
        if self.buckets and self.buckets[-1][0] >= now // SECOND:
            second, ones, others = self.buckets[-1]
            return replace(self, buckets=(*self.buckets[:-1], (second, ones + one, others + other)))
        kept = self.buckets
        if kept and kept[0][0] <= now // SECOND - self.seconds:
            kept = self._live(now)
        return replace(self, buckets=(*kept, (now // SECOND, one, other)))

    def totals(self, now: Micros) -> tuple[int, int]:
        """Both counts over the window that ends with the second of `now`."""
        live = self._live(now)
        return sum(bucket[1] for bucket in live), sum(bucket[2] for bucket in live)

    def of_second(self, now: Micros) -> tuple[int, int]:
        """Both counts of the running second alone."""
        if not self.buckets or self.buckets[-1][0] < now // SECOND:
            return 0, 0
        return self.buckets[-1][1], self.buckets[-1][2]

    def _live(self, now: Micros) -> tuple[Bucket, ...]:
        oldest = now // SECOND - self.seconds + 1
        return tuple(bucket for bucket in self.buckets if bucket[0] >= oldest)
