"""Magic recipients: what becomes of a message in a sandbox is told by whom it is sent to.

The phone numbers lie in one block of Iran's numbering plan. The words stand in the local part of an e-mail address
(`undelivered@example.test`; only in domains that are reserved for examples), and after `sandbox-` in a device token
or a user name (`sandbox-undelivered`). Everybody else is delivered to.
"""

from dataclasses import dataclass
from enum import auto

from server.model.enums import Channel, Word


class Fate(Word):
    """What becomes of a message."""

    DELIVERED = auto()
    UNDELIVERED = auto()
    REJECTED = auto()
    NO_RECEIPT = auto()
    OUT_OF_ORDER = auto()
    ANSWER_LOST = auto()
    RATE_LIMITED = auto()
    SLOW = auto()
    UNAVAILABLE = auto()


@dataclass(frozen=True, slots=True)
class Magic:
    """One magic recipient, as each channel spells it."""

    fate: Fate
    phone: str
    word: str
    meaning: str


MAGIC = (
    Magic(Fate.DELIVERED, "+989120000111", "delivered", "Accepted, then delivered."),
    Magic(Fate.UNDELIVERED, "+989120000112", "undelivered", "Accepted, then reported as not delivered."),
    Magic(Fate.REJECTED, "+989120000113", "rejected", "Refused for good: the recipient is invalid."),
    Magic(Fate.NO_RECEIPT, "+989120000114", "no-receipt", "Accepted; no final report ever comes."),
    Magic(
        Fate.OUT_OF_ORDER, "+989120000115", "out-of-order", "Accepted; DELIVERED is reported before an older report."
    ),
    Magic(
        Fate.ANSWER_LOST,
        "+989120000116",
        "answer-lost",
        "Taken, but the answer is lost; a look-up finds it, delivered.",
    ),
    Magic(Fate.RATE_LIMITED, "+989120000117", "rate-limited", "Refused each time: too many calls."),
    Magic(Fate.SLOW, "+989120000118", "slow", "Accepted after 3 s, then delivered."),
    Magic(Fate.UNAVAILABLE, "+989120000119", "unavailable", "Refused each time: the provider cannot answer now."),
)
SLOW_SECONDS = 3.0

_PREFIX = "sandbox-"
_BY_PHONE = {magic.phone: magic.fate for magic in MAGIC}
_BY_WORD = {magic.word: magic.fate for magic in MAGIC}
_TOP_LEVELS = ("test", "example", "invalid")
_DOMAINS = ("example.com", "example.net", "example.org")


def fate_of(channel: Channel, destination: str) -> Fate:
    """What becomes of a message to an E.164 number, an e-mail address, a device token or a user name."""
    return magic_fate(channel, destination) or Fate.DELIVERED


def magic_fate(channel: Channel, destination: str) -> Fate | None:
    """As `fate_of`; None where it is no magic recipient."""
    match channel:
        case Channel.SMS | Channel.VOICE:
            return _BY_PHONE.get(destination)
        case Channel.EMAIL:
            local, _, domain = destination.rpartition("@")
            return _BY_WORD.get(local.lower()) if _reserved(domain.lower()) else None
        case Channel.PUSH | Channel.CHAT:
            word = destination.removeprefix(_PREFIX)
            return None if word == destination else _BY_WORD.get(word)


def magic_destination(fate: Fate, channel: Channel) -> str:
    """The recipient whose messages have this fate, as the channel spells it."""
    magic = next(magic for magic in MAGIC if magic.fate == fate)
    match channel:
        case Channel.SMS | Channel.VOICE:
            return magic.phone
        case Channel.EMAIL:
            return f"{magic.word}@example.test"
        case Channel.PUSH | Channel.CHAT:
            return _PREFIX + magic.word


def _reserved(domain: str) -> bool:
    return domain.rpartition(".")[2] in _TOP_LEVELS or domain in _DOMAINS
