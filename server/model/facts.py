"""What can happen to a message: the facts that `decide` turns into a state, an event and the next due row.

Facts with a `hold` come from the worker that claimed the message, and count only while its claim stands.
`jitter` is a random number in [0, 1) that whoever states the fact has drawn.
"""

from dataclasses import dataclass

from server.model.clock import Micros
from server.model.enums import Channel, FailureReason, Stop
from server.model.messages import Behind, Follow, Hold
from server.model.outcomes import LookUp, Outcome, Receipt


@dataclass(frozen=True, slots=True)
class Opening:
    """One attempt about to be made, and what the plan holds behind it."""

    step: int
    channel: Channel
    account: str
    account_uid: str
    destination: int
    provider_key: int
    deadline: Micros
    follow: Follow
    behind: Behind = Behind()
    segments: int = 0
    patience: Micros = 0


@dataclass(frozen=True, slots=True)
class Started:
    """The intent: these attempts are about to be handed off. Refused where they must not be."""

    hold: Hold
    openings: tuple[Opening, ...]


@dataclass(frozen=True, slots=True)
class Settled:
    """The outcome of a hand-off. `receipts` are reports that came before it."""

    hold: Hold
    number: int
    outcome: Outcome
    jitter: float = 0.5
    receipts: tuple[Receipt, ...] = ()


@dataclass(frozen=True, slots=True)
class WorkerLost:
    """The worker that held it is dead. With an intent open nobody knows what became of it; else it is due again."""

    hold: Hold


@dataclass(frozen=True, slots=True)
class LookedUp:
    """What a look-up by our own reference said of an attempt."""

    hold: Hold
    number: int
    result: LookUp
    jitter: float = 0.5


@dataclass(frozen=True, slots=True)
class Receipted:
    """A provider's report on an attempt, polled or pushed; its own id of the message where the report names it."""

    number: int
    receipt: Receipt
    provider_message_id: str = ""


@dataclass(frozen=True, slots=True)
class Followed:
    """A timer fired, or a poll or look-up told nothing new: what is over is ended, what is not is due again later."""

    hold: Hold


@dataclass(frozen=True, slots=True)
class Postponed:
    """Nothing can be sent before `until`: a provider asked for a pause, or the retry budget is spent."""

    hold: Hold
    until: Micros


@dataclass(frozen=True, slots=True)
class Stopped:
    """No further attempt: the caller canceled, the message expired, or its code was verified or is good no more."""

    stop: Stop


@dataclass(frozen=True, slots=True)
class Unplannable:
    """Nothing is left to try (NO_ROUTE and its like), or the message kills its workers (POISON)."""

    hold: Hold
    reason: FailureReason


@dataclass(frozen=True, slots=True)
class ClockSetBack:
    """The database's clock shows less than when the message was changed last: it is timed anew, nothing else."""


Fact = (
    Started | Settled | WorkerLost | LookedUp | Receipted | Followed | Postponed | Stopped | Unplannable | ClockSetBack
)
