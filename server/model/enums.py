"""The closed sets of words that the schema, the rules and the contract share.

Each value is spelled as in the contract, without its prefix, and is stored as text.
"""

from enum import StrEnum, auto


class Word(StrEnum):
    """A StrEnum whose `auto()` keeps the name as it is written."""

    @staticmethod
    def _generate_next_value_(name: str, start: int, count: int, last_values: list[str]) -> str:  # noqa: ARG004 - the signature is enum's
        return name


class Channel(Word):
    SMS = auto()
    VOICE = auto()
    PUSH = auto()
    EMAIL = auto()
    CHAT = auto()


class MessageClass(Word):
    OTP = auto()
    TRANSACTIONAL = auto()
    BULK = auto()


class MessageKind(Word):
    """In which form a message is handed to a provider."""

    TEXT = auto()
    PROVIDER_TEMPLATED = auto()


class Strategy(Word):
    """In which order the accounts of a step are tried."""

    ORDERED = auto()
    WEIGHTED = auto()


class Platform(Word):
    ANDROID = auto()
    IOS = auto()
    WEB = auto()


class State(Word):
    ACCEPTED = auto()
    SCHEDULED = auto()
    SENDING = auto()
    SENT = auto()
    DELIVERED = auto()
    UNDELIVERED = auto()
    FAILED = auto()
    EXPIRED = auto()
    CANCELED = auto()
    UNCONFIRMED = auto()


class Status(Word):
    PENDING = auto()
    SENT = auto()
    FAILED = auto()


class OnUnconfirmed(Word):
    STAY = auto()
    SEND_AGAIN = auto()


class Stop(Word):
    """Why no further attempt may start. EXHAUSTED: every way was tried, or none was left."""

    CANCELED = auto()
    EXPIRED = auto()
    VERIFIED = auto()
    EXHAUSTED = auto()


class DueKind(Word):
    """What is to be done with a message next."""

    SEND = auto()
    TIMER = auto()
    LOOK_UP = auto()
    POLL = auto()


class OutcomeKind(Word):
    ACCEPTED = auto()
    REJECTED = auto()
    MISCONFIGURED = auto()
    RATE_LIMITED = auto()
    UNAVAILABLE = auto()
    AMBIGUOUS = auto()


class ReceiptKind(Word):
    """What a provider reports of a message that it took. OTHER: still on its way."""

    DELIVERED = auto()
    UNDELIVERED = auto()
    OTHER = auto()


class EventKind(Word):
    STATE = auto()
    ATTEMPT_STARTED = auto()
    ATTEMPT_ENDED = auto()
    RECEIPT = auto()
    NOTE = auto()


class FailureReason(Word):
    RECIPIENT_INVALID = auto()
    RECIPIENT_BLOCKED = auto()
    RECIPIENT_UNREACHABLE = auto()
    SUPPRESSED = auto()
    CONTENT_REJECTED = auto()
    NO_ROUTE = auto()
    PROVIDER_MISCONFIGURED = auto()
    PROVIDER_FUNDS = auto()
    PROVIDER_UNAVAILABLE = auto()
    RATE_LIMITED = auto()
    EXPIRED = auto()
    NO_RECEIPT = auto()
    BUDGET = auto()
    AMBIGUOUS = auto()
    POISON = auto()
    REQUEST_REFUSED = auto()


class Mode(Word):
    LIVE = auto()
    SANDBOX = auto()


class Scope(StrEnum):
    """What a key may do. `tenant.override` lets it name a tenant other than its own."""

    SEND = "send"
    OTP = "otp"
    READ = "read"
    CONFIGURE = "configure"
    ACCESS = "access"
    SANDBOX = "sandbox"
    TENANT_OVERRIDE = "tenant.override"
