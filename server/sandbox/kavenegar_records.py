"""What the sandbox upstream took as Kavenegar: texts and calls, without what they say."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from server.model.clock import Micros
from server.model.enums import Channel
from server.model.magic import Fate, fate_of
from server.sandbox.ledger import Ledger, Recent, now_micros

MESSAGES_MAX = 100_000
LINE = "10004346"
"""Who sends where the call names nobody."""


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
class KavenegarLedger(Ledger):
    """One account: its last 100,000 messages, under Kavenegar's ids and under the caller's numbers."""

    repeated: int = 0
    taken: Recent[int, Taken] = field(default_factory=lambda: Recent(MESSAGES_MAX))
    by_local_id: Recent[int, int] = field(default_factory=lambda: Recent(MESSAGES_MAX))

    def repeat_of(self, local_id: int | None) -> Taken | None:
        """The message that was taken under the same number of the caller's."""
        message_id = self.by_local_id.get(local_id) if local_id is not None else None
        return self.taken.get(message_id) if message_id is not None else None

    def take(self, message: Taken, local_id: int | None) -> None:
        self.taken.keep(message.message_id, message)
        if local_id is not None:
            self.by_local_id.keep(local_id, message.message_id)

    def counts(self) -> Mapping[str, int]:
        """How many messages it has, and how often one of them was asked for again."""
        return {"taken": len(self.taken), "repeated": self.repeated}


class MessageIds:
    """Ids that rise over restarts too, so that no two messages share one."""

    def __init__(self) -> None:
        self._ids = itertools.count(now_micros())

    def new(self, channel: Channel, phone: str, receptor: str, sender: str) -> Taken:
        """A message to an E.164 number."""
        return Taken(next(self._ids), receptor, sender or LINE, fate_of(channel, phone), now_micros())
