"""The enums of the contract and of the model: the same words, with and without their prefix."""

from typing import Generic, Protocol, TypeVar

from angarium.v1.access_service_pb2 import Tenant
from angarium.v1.message_pb2 import (
    Channel as WireChannel,
    Failure,
    MessageClass as WireClass,
    MessageKind as WireMessageKind,
    Notification,
    Outcome as WireOutcome,
    Platform as WirePlatform,
    RouteExplanation,
    StatusEvent,
)
from angarium.v1.notification_service_pb2 import SendRequest
from angarium.v1.routing_service_pb2 import RouteStep

from server.model.enums import (
    Channel,
    EventKind,
    FailureReason,
    MessageClass,
    MessageKind,
    Mode,
    OnUnconfirmed,
    OutcomeKind,
    Platform,
    State,
    Status,
    Strategy,
    Word,
)
from server.model.explanation import Verdict

_Word = TypeVar("_Word", bound=Word)
_Number = TypeVar("_Number", bound=int)
_Told_co = TypeVar("_Told_co", bound=int, covariant=True)


class Wire(Protocol[_Told_co]):
    """An enum of the generated code."""

    def Value(self, name: str) -> _Told_co:
        """The number of a name; raises ValueError."""
        ...


class Words(Generic[_Word, _Number]):
    """One enum both ways. Values of the model that the contract lacks fail here, when the module is imported."""

    def __init__(self, wire: Wire[_Number], words: type[_Word], prefix: str) -> None:
        self._unspecified = wire.Value(f"{prefix}_UNSPECIFIED")
        self._numbers = {word: wire.Value(f"{prefix}_{word}") for word in words}
        self._words: dict[int, _Word] = {number: word for word, number in self._numbers.items()}

    def number(self, word: _Word | None) -> _Number:
        """The contract's number; 0 for None."""
        return self._unspecified if word is None else self._numbers[word]

    def word(self, number: int) -> _Word | None:
        """The model's word; None for 0 and for a number that nobody knows."""
        return self._words.get(number)

    def knows(self, number: int) -> bool:
        """Whether the number is 0 or stands for a word."""
        return number == 0 or number in self._words


CHANNELS = Words(WireChannel, Channel, "CHANNEL")
CLASSES = Words(WireClass, MessageClass, "MESSAGE_CLASS")
MESSAGE_KINDS = Words(WireMessageKind, MessageKind, "MESSAGE_KIND")
PLATFORMS = Words(WirePlatform, Platform, "PLATFORM")
OUTCOMES = Words(WireOutcome, OutcomeKind, "OUTCOME")
REASONS = Words(Failure.Reason, FailureReason, "REASON")
STATES = Words(Notification.State, State, "STATE")
STATUSES = Words(Notification.Status, Status, "STATUS")
KINDS = Words(StatusEvent.Kind, EventKind, "KIND")
ON_UNCONFIRMED = Words(SendRequest.OnUnconfirmed, OnUnconfirmed, "ON_UNCONFIRMED")
MODES = Words(Tenant.Mode, Mode, "MODE")
STRATEGIES = Words(RouteStep.Strategy, Strategy, "STRATEGY")
VERDICTS = Words(RouteExplanation.Candidate.Verdict, Verdict, "VERDICT")
