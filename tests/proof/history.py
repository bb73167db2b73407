"""What is known of a run from outside: what callers were told, upstreams read, the database holds and logs say."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum, auto
from functools import cached_property

from server.model.clock import Micros
from server.model.enums import EventKind, MessageClass, State
from server.model.messages import Attempt, Event, Message
from tests.ledger import SEND, Entry

CANARY_CHARS_MIN = 8


class Result(StrEnum):
    """How a call ended for its caller."""

    OK = auto()
    FAIL = auto()
    """It certainly had no effect."""
    INFO = auto()
    """Nobody knows: the answer was lost, or the error says nothing of it."""


@dataclass(frozen=True)
class Op:
    """One call of one caller, from its invocation to its end. Times are microseconds UTC.

    `made`: a call that makes a message; else one about the message that `tracking_id` names. `fingerprint` is a hash of
    the request without its key. `code`, `reason` and `error` are those of an error, `error` with all its details.
    """

    result: Result
    tenant_id: str
    client_id: str
    method: str = "Send"
    made: bool = True
    key: str = ""
    fingerprint: str = ""
    message_class: MessageClass | None = None
    phone: str = ""
    text: str = ""
    tracking_id: str = ""
    replayed: bool = False
    expires_at: Micros = 0
    code: str = ""
    reason: str = ""
    error: str = ""
    invoked_at: Micros = 0
    ended_at: Micros = 0

    @property
    def ok(self) -> bool:
        return self.result == Result.OK


@dataclass(frozen=True)
class Seen:
    """One event as a watcher was told of it, with the cursor of that answer. `whole` is all that it said."""

    message_id: str
    seq: int
    kind: EventKind
    state: State
    done: bool
    tenant_id: str
    cursor: str = ""
    whole: str = ""


@dataclass(frozen=True)
class Watch:
    """One watcher over all its connections: each was resumed from the cursor that it had got last.

    Without `message_id` it follows the whole tenant. `from_first`: it began before the first event that it could see.
    `complete`: it was let see the last one.
    """

    name: str
    tenant_id: str
    seen: Sequence[Seen]
    message_id: str = ""
    from_first: bool = True
    complete: bool = True


@dataclass(frozen=True)
class Key:
    """One row of the idempotency table."""

    tenant_id: str
    client_id: str
    kind: str
    request_id: str
    message_id: str


@dataclass(frozen=True)
class Dump:
    """What the database holds. `plain` is every row that must name no person and no secret, as text."""

    messages: Mapping[str, Message] = field(default_factory=dict[str, Message])
    attempts: Mapping[str, Sequence[Attempt]] = field(default_factory=dict[str, Sequence[Attempt]])
    events: Mapping[str, Sequence[Event]] = field(default_factory=dict[str, Sequence[Event]])
    keys: Sequence[Key] = ()
    plain: Sequence[str] = ()


@dataclass(frozen=True)
class Canary:
    """A text that must be seen nowhere, long enough to be nowhere by chance."""

    name: str
    text: str = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.text) < CANARY_CHARS_MIN:
            raise ValueError(f"canary {self.name} is too short to mean anything")


@dataclass(frozen=True)
class History:
    """One run. `ledger` is None where no upstream kept one; `accounts` names the tenant of an account there.

    `quiet`: the run was given the time to finish what was accepted. `slack` is how long a hand-off may take from the
    gateway's last look at the clock to the upstream's last byte. `jumps`: what the clock showed right after each time
    that it was moved; who looked before goes by the clock of before for so long, and events keep the times of then.
    """

    ops: Sequence[Op] = ()
    watches: Sequence[Watch] = ()
    ledger: Sequence[Entry] | None = None
    dump: Dump = field(default_factory=Dump)
    logs: Mapping[str, str] = field(default_factory=dict[str, str])
    canaries: Sequence[Canary] = ()
    accounts: Mapping[str, str] = field(default_factory=dict[str, str])
    quiet: bool = True
    slack: Micros = 0
    jumps: Sequence[Micros] = ()

    def is_near_jump(self, at: Micros) -> bool:
        """Whether two readings of the clock were in use then."""
        return any(jump <= at < jump + self.slack for jump in self.jumps)

    @property
    def sends(self) -> Sequence[Op]:
        """The calls that make a message."""
        return [op for op in self.ops if op.made]

    @property
    def texts(self) -> Sequence[Entry]:
        """The hand-offs that an upstream read whole."""
        return [entry for entry in self.ledger or () if entry.call == SEND]

    @cached_property
    def texts_by_key(self) -> Mapping[str, Sequence[Entry]]:
        """The hand-offs under each of our numbers."""
        by_key: dict[str, list[Entry]] = {}
        for entry in self.texts:
            by_key.setdefault(entry.localid, []).append(entry)
        return by_key

    @cached_property
    def owner_of_key(self) -> Mapping[str, str]:
        """The message that each of our numbers was drawn for."""
        owned = ((a.provider_key, id_) for id_, attempts in self.dump.attempts.items() for a in attempts)
        return {str(key): id_ for key, id_ in owned}

    def attempts_of(self, message_id: str) -> Sequence[Attempt]:
        return self.dump.attempts.get(message_id, ())

    def events_of(self, message_id: str) -> Sequence[Event]:
        return self.dump.events.get(message_id, ())

    def texts_of(self, message_id: str) -> Sequence[Entry]:
        """The hand-offs of a message that an upstream read whole."""
        keys = {str(attempt.provider_key) for attempt in self.attempts_of(message_id)}
        return [entry for key in sorted(keys) for entry in self.texts_by_key.get(key, ())]
