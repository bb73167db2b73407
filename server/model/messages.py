"""A message, its attempts, what is due, and the events that tell of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from server.model.clock import SECOND, Micros
from server.model.enums import (
    Channel,
    DueKind,
    EventKind,
    MessageClass,
    MessageKind,
    OnUnconfirmed,
    OutcomeKind,
    Platform,
    ReceiptKind,
    State,
    Status,
    Stop,
)
from server.model.failures import Failure
from server.model.otp import CodeWanted
from server.model.outcomes import Fault, Refusal


@dataclass(frozen=True, slots=True)
class Recipient:
    """One person, by one address or several. `phone` is E.164, `email` is lower-cased in its domain."""

    phone: str = ""
    email: str = ""
    device_tokens: tuple[str, ...] = ()
    user_id: str = ""
    username: str = ""
    platform: Platform | None = None
    locale: str = ""

    def addresses(self, channel: Channel) -> tuple[str, ...]:
        """Where a message of this channel would go, one destination each; empty when they cannot be reached so."""
        match channel:
            case Channel.SMS | Channel.VOICE:
                return (self.phone,) if self.phone else ()
            case Channel.EMAIL:
                return (self.email,) if self.email else ()
            case Channel.PUSH:
                return self.device_tokens
            case Channel.CHAT:
                return (self.username,) if self.username else ()


CODE = "CODE"
TOKEN = "token"  # noqa: S105 - the name of a parameter
"""Two names of one parameter: the code of a verification. `token` is what callers bring their own under."""


@dataclass(frozen=True, slots=True)
class CodeSource:
    """From which the code of a verification is derived anew each time, so that it is stored nowhere."""

    verification_id: str
    key_id: str
    generation: int
    length: int


@dataclass(frozen=True, slots=True)
class Content:
    """What is to be said, and to whom: kept sealed, opened only to plan and to send.

    It is `text` as it stands, or the message's template with `params`. Where there is a `code`, the store fills in the
    parameter CODE when it opens the content.
    """

    recipient: Recipient
    text: str = ""
    sender: str = ""
    params: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    code: CodeSource | None = None
    application_key: str = ""


@dataclass(frozen=True, slots=True)
class Hold:
    """Who may move a message on: a worker process (its boot id), and the epoch of its claim."""

    worker: str
    epoch: int


@dataclass(frozen=True, slots=True)
class Due:
    """The one thing to be done next, not before `at`. While `worker` is set, that worker is at it."""

    kind: DueKind
    at: Micros
    epoch: int = 0
    claims: int = 0
    worker: str = ""

    def held_by(self, hold: Hold) -> bool:
        """Whether this very claim still owns the row."""
        return bool(self.worker) and self.worker == hold.worker and self.epoch == hold.epoch


@dataclass(frozen=True, slots=True)
class Follow:
    """How what became of an accepted message can be learned from its provider.

    It tells statuses for `keeps_seconds`, and finds by our own reference for `looks_up_seconds`; 0: without end.
    """

    polls: bool = False
    looks_up: bool = False
    pushes: bool = False
    keeps_seconds: int = 0
    looks_up_seconds: int = 0

    @property
    def reports(self) -> bool:
        """Whether receipts come at all."""
        return self.polls or self.pushes


@dataclass(frozen=True, slots=True)
class Behind:
    """What the plan held behind a candidate: how many others in all, of later steps, and of other channels."""

    candidates: int = 0
    steps: int = 0
    channels: int = 0


@dataclass(frozen=True, slots=True)
class Attempt:
    """One hand-off of a message to one account for one destination."""

    number: int
    step: int
    channel: Channel
    account: str
    account_uid: str
    destination: int
    epoch: int
    provider_key: int
    started_at: Micros
    deadline: Micros
    follow: Follow = Follow()
    behind: Behind = Behind()
    outcome: OutcomeKind | None = None
    refusal: Refusal | None = None
    fault: Fault | None = None
    failure: Failure | None = None
    receipt: ReceiptKind | None = None
    provider_message_id: str = ""
    ended_at: Micros = 0
    receipt_at: Micros = 0
    retry_at: Micros = 0
    segments: int = 0
    given_up: bool = False
    """Its window is over and the class's policy has been asked: nothing more is awaited before another attempt."""
    patience: Micros = 0
    """How long after its acceptance its receipt is waited for before the next step may go; 0: without end."""
    overdue: bool = False
    """That time is over: it may still arrive, and does not hold up the next step."""

    @property
    def in_flight(self) -> bool:
        """Handed off, and nothing heard yet."""
        return self.outcome is None

    @property
    def delivered(self) -> bool:
        return self.receipt == ReceiptKind.DELIVERED

    @property
    def undelivered(self) -> bool:
        return self.receipt == ReceiptKind.UNDELIVERED

    @property
    def accepted(self) -> bool:
        """Taken by the provider, its end not known."""
        return self.outcome == OutcomeKind.ACCEPTED and self.receipt in (None, ReceiptKind.OTHER)

    @property
    def ambiguous(self) -> bool:
        """Perhaps taken."""
        return self.outcome == OutcomeKind.AMBIGUOUS and self.receipt is None

    @property
    def may_arrive(self) -> bool:
        """It arrived, or may yet."""
        return self.in_flight or self.accepted or self.ambiguous or self.delivered

    def may_look_up(self, now: Micros) -> bool:
        """Whether a look-up would still tell the truth: one that comes too late says "never taken" of everything."""
        kept = self.follow.looks_up_seconds * SECOND
        return self.ambiguous and self.follow.looks_up and (not kept or now < self.started_at + kept)

    @property
    def repeatable(self) -> bool:
        """Closed, certainly not processed, and worth another try on the same account."""
        return self.outcome in (OutcomeKind.UNAVAILABLE, OutcomeKind.RATE_LIMITED)

    @property
    def state(self) -> State:
        """What became of this attempt, in the words of a message's states."""
        if self.in_flight:
            return State.SENDING
        if self.delivered:
            return State.DELIVERED
        if self.undelivered:
            return State.UNDELIVERED
        if self.accepted:
            return State.SENT
        return State.UNCONFIRMED if self.ambiguous else State.FAILED


@dataclass(frozen=True, slots=True)
class Message:
    """One message to one recipient, without its content. `due` is None when nothing is left to do."""

    id: str
    tenant_id: str
    client_id: str
    intent: str
    message_class: MessageClass
    state: State
    created_at: Micros
    updated_at: Micros
    expires_at: Micros
    request_id: str = ""
    kind: str = "notification"
    status: Status = Status.PENDING
    channel_wanted: Channel | None = None
    channel: Channel | None = None
    provider: str = ""
    done: bool = False
    stop: Stop | None = None
    failure: Failure | None = None
    last_seq: int = 1
    attempt_count: int = 0
    rule: str = ""
    scenario: str = ""
    template_key: str = ""
    template_revision: int = 0
    message_kind: MessageKind | None = None
    verification_id: str = ""
    reference: str = ""
    tags: tuple[str, ...] = ()
    on_unconfirmed: OnUnconfirmed = OnUnconfirmed.STAY
    recipient_hint: str = ""
    phone_index: str = ""
    segments: int = 0
    schedule_at: Micros = 0
    done_at: Micros = 0
    due: Due | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """One entry of a message's log, numbered from 1. State, status and done are as they are after it."""

    message_id: str
    seq: int
    kind: EventKind
    at: Micros
    state: State
    status: Status
    done: bool
    tenant_id: str
    client_id: str
    intent: str
    message_class: MessageClass
    moved: bool = True
    channel: Channel | None = None
    provider: str = ""
    attempt: int = 0
    outcome: OutcomeKind | None = None
    failure: Failure | None = None
    reference: str = ""
    tags: tuple[str, ...] = ()
    phone_index: str = ""
    created_at: Micros = 0


@dataclass(frozen=True, slots=True)
class NewMessage:
    """What Send asks the store to accept. `fingerprint` is the hash of the validated request without its key.

    `otp`: it carries a code; its verification, its expiry and its code are then the store's to fill in.
    """

    message: Message
    content: Content
    fingerprint: bytes = b""
    otp: CodeWanted | None = None


@dataclass(frozen=True, slots=True)
class Case:
    """All that is known of a message when something is to be decided on it."""

    message: Message
    attempts: Sequence[Attempt] = field(default_factory=tuple[Attempt, ...])
