"""What the sandbox upstream took, per account: bounded, in memory, without texts and without numbers."""

import itertools
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from enum import StrEnum

from server.model.clock import SECOND, Micros
from server.model.enums import Channel
from server.model.magic import Fate, fate_of

ACCOUNTS_MAX = 1_000
MESSAGES_MAX = 100_000


class Status(StrEnum):
    """The states of a message that the upstream reports, by Kavenegar's numbers."""

    QUEUED = "1"
    SENT = "4"
    DELIVERED = "10"
    UNDELIVERED = "11"
    NOT_KNOWN = "100"

    @property
    def code(self) -> int:
        return int(self.value)


_ENDS: dict[Fate, tuple[Status, ...]] = {
    Fate.UNDELIVERED: (Status.UNDELIVERED,),
    Fate.NO_RECEIPT: (Status.SENT,),
    Fate.OUT_OF_ORDER: (Status.DELIVERED, Status.SENT),
}


@dataclass(frozen=True, slots=True)
class Taken:
    """One message that was taken."""

    message_id: int
    receptor: str = field(repr=False)
    sender: str
    fate: Fate
    at: Micros

    def reports(self, now: Micros, settle: Micros) -> tuple[Status, ...]:
        """What a status call tells of it at `now`, in that order."""
        return _ENDS.get(self.fate, (Status.DELIVERED,)) if now - self.at >= settle else (Status.SENT,)


@dataclass(slots=True)
class Ledger:
    """One account: what it is told to answer, and what it took."""

    answer: str = "ok"
    calls: int = 0
    repeated: int = 0
    taken: OrderedDict[int, Taken] = field(default_factory=OrderedDict[int, Taken])
    by_local_id: OrderedDict[int, int] = field(default_factory=OrderedDict[int, int])

    def repeat_of(self, local_id: int | None) -> Taken | None:
        """The message that was taken under the same number of the caller's."""
        return self.taken.get(self.by_local_id.get(local_id, 0)) if local_id is not None else None

    def take(self, message: Taken, local_id: int | None) -> None:
        """Remembers a message, and forgets the oldest beyond 100,000."""
        self.taken[message.message_id] = message
        if local_id is not None:
            self.by_local_id[local_id] = message.message_id
        while len(self.taken) > MESSAGES_MAX:
            self.taken.popitem(last=False)
        while len(self.by_local_id) > MESSAGES_MAX:
            self.by_local_id.popitem(last=False)


class Ledgers:
    """Every account that has called, at most 1,000; ids rise over restarts too."""

    def __init__(self) -> None:
        self._accounts: OrderedDict[str, Ledger] = OrderedDict()
        self._ids = itertools.count(now_micros())

    def of(self, api_key: str) -> Ledger:
        """The ledger of an account, made at its first call."""
        found = self._accounts.pop(api_key, None) or Ledger()
        self._accounts[api_key] = found
        while len(self._accounts) > ACCOUNTS_MAX:
            self._accounts.popitem(last=False)
        return found

    def new(self, phone: str, receptor: str, sender: str) -> Taken:
        """A message to an E.164 number, with an id that no other has."""
        return Taken(next(self._ids), receptor, sender, fate_of(Channel.SMS, phone), now_micros())


def now_micros() -> Micros:
    return int(time.time() * SECOND)
