"""Room that this process's dispatcher has for messages that are being accepted."""

from collections import Counter

from server.model.enums import MessageClass


class Offers:
    """Counts room by class. What the flush at work has taken is not offered again until its dispatcher knows of it."""

    def __init__(self) -> None:
        self._free: Counter[MessageClass] = Counter()
        self._taken: Counter[MessageClass] = Counter()

    def offer(self, message_class: MessageClass, free: int) -> None:
        """There is room for `free` messages of this class, whatever was offered before."""
        self._free[message_class] = max(0, free - self._taken[message_class])

    def take(self, message_class: MessageClass) -> bool:
        """Take room for one message, if there is any."""
        if self._free[message_class] <= 0:
            return False
        self._free[message_class] -= 1
        self._taken[message_class] += 1
        return True

    def settle(self, assigned: Counter[MessageClass]) -> None:
        """The flush is over: what it took and did not assign is room again."""
        self._free += self._taken - assigned
        self._taken.clear()
