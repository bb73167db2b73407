"""How loops of this room wait: for what is due next, for a wake, and after an error."""

from server.model.clock import SECOND, Micros

IDLE_POLL_SECONDS = 0.25
LEAST_PAUSE_SECONDS = 0.02
ERROR_PAUSE_SECONDS = 1.0


def pause_seconds(until_due: Micros | None) -> float:
    """How long to sleep when the next row falls due in so many microseconds; other processes may always add one."""
    if until_due is None:
        return IDLE_POLL_SECONDS
    return min(max(until_due / SECOND, LEAST_PAUSE_SECONDS), IDLE_POLL_SECONDS)
