"""What became of one hand-off to a provider: a closed union, matched exhaustively wherever it is used."""

from dataclasses import dataclass
from enum import auto

from server.model.clock import Micros
from server.model.enums import FailureReason, OutcomeKind, ReceiptKind, Word
from server.model.failures import Failure


class Refusal(Word):
    """What the provider refuses for good: this recipient, this content, or the request as we made it (our bug)."""

    RECIPIENT = auto()
    CONTENT = auto()
    REQUEST = auto()


class Fault(Word):
    """What is wrong with the provider account: two faults close the account, two only a sender or a template."""

    CREDENTIALS = auto()
    FUNDS = auto()
    SENDER = auto()
    TEMPLATE = auto()


@dataclass(frozen=True, slots=True)
class Accepted:
    """The provider confirmed that it took the message, under an id of its own."""

    provider_message_id: str


@dataclass(frozen=True, slots=True)
class Rejected:
    """The provider refused the message; the same again would be refused again."""

    refusal: Refusal
    failure: Failure


@dataclass(frozen=True, slots=True)
class Misconfigured:
    """The account cannot send; another account may."""

    fault: Fault
    failure: Failure


@dataclass(frozen=True, slots=True)
class RateLimited:
    """Certainly not processed: too many calls. `retry_after` is a span in µs, 0 where the provider named none."""

    failure: Failure
    retry_after: Micros = 0


@dataclass(frozen=True, slots=True)
class Unavailable:
    """Certainly not processed: it never left, or the provider said that it could not take it."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class Ambiguous:
    """Nobody knows whether the provider took it. `provider_code` tells what was seen."""

    failure: Failure


Outcome = Accepted | Rejected | Misconfigured | RateLimited | Unavailable | Ambiguous

KINDS: dict[type, OutcomeKind] = {
    Accepted: OutcomeKind.ACCEPTED,
    Rejected: OutcomeKind.REJECTED,
    Misconfigured: OutcomeKind.MISCONFIGURED,
    RateLimited: OutcomeKind.RATE_LIMITED,
    Unavailable: OutcomeKind.UNAVAILABLE,
    Ambiguous: OutcomeKind.AMBIGUOUS,
}


def kind_of(outcome: Outcome) -> OutcomeKind:
    """The word under which an outcome is stored and shown."""
    return KINDS[type(outcome)]


def failure_of(outcome: Outcome) -> Failure | None:
    """The failure that an outcome carries; None for Accepted."""
    return None if isinstance(outcome, Accepted) else outcome.failure


def rejected(refusal: Refusal, code: str = "", message: str = "") -> Rejected:
    """A refusal with the failure reason that goes with it."""
    return Rejected(refusal, Failure(REFUSAL_REASONS[refusal], message, code))


def misconfigured(fault: Fault, code: str = "", message: str = "") -> Misconfigured:
    """A fault with the failure reason that goes with it."""
    return Misconfigured(fault, Failure(FAULT_REASONS[fault], message, code))


def unavailable(code: str = "", message: str = "") -> Unavailable:
    """Certainly not processed."""
    return Unavailable(Failure(FailureReason.PROVIDER_UNAVAILABLE, message, code))


def rate_limited(code: str = "", message: str = "", retry_after: Micros = 0) -> RateLimited:
    """Too many calls for the provider's taste."""
    return RateLimited(Failure(FailureReason.RATE_LIMITED, message, code), retry_after)


def ambiguous(code: str = "", message: str = "") -> Ambiguous:
    """Unknown whether it was taken."""
    return Ambiguous(Failure(FailureReason.AMBIGUOUS, message, code))


REFUSAL_REASONS = {
    Refusal.RECIPIENT: FailureReason.RECIPIENT_INVALID,
    Refusal.CONTENT: FailureReason.CONTENT_REJECTED,
    Refusal.REQUEST: FailureReason.REQUEST_REFUSED,
}
FAULT_REASONS = {
    Fault.CREDENTIALS: FailureReason.PROVIDER_MISCONFIGURED,
    Fault.FUNDS: FailureReason.PROVIDER_FUNDS,
    Fault.SENDER: FailureReason.PROVIDER_MISCONFIGURED,
    Fault.TEMPLATE: FailureReason.PROVIDER_MISCONFIGURED,
}


@dataclass(frozen=True, slots=True)
class Receipt:
    """A provider's report on a message that it took. `failure` stands beside UNDELIVERED only."""

    kind: ReceiptKind
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """A receipt as a provider posts it: of the message with this id of its own."""

    provider_message_id: str
    receipt: Receipt


@dataclass(frozen=True, slots=True)
class Found:
    """A look-up by our own reference: the provider has the message, under this id."""

    provider_message_id: str


@dataclass(frozen=True, slots=True)
class NeverRegistered:
    """A look-up by our own reference: the provider never took the message."""


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """A look-up or poll that told nothing; it may be asked again."""


LookUp = Found | NeverRegistered | NoAnswer
