"""What a dispatcher takes from the store, and what it puts back beside a fact."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from server.model.clock import Micros
from server.model.enums import Channel
from server.model.explanation import Explanation
from server.model.messages import Case, Content, Hold, Message


@dataclass(frozen=True, slots=True)
class Claim:
    """A message that this process may now move on.

    `now` is the database's clock, and `read_at` a reading of time.monotonic() from just before it was looked at: what
    passes until the claim is committed and taken up counts too.
    `content` is None where the sealed content has been erased or can not be opened: nothing can be sent then.
    """

    case: Case
    hold: Hold
    now: Micros
    read_at: float
    content: Content | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class SandboxCopy:
    """What PeekOutbox shows of one attempt; written with its outcome, for SANDBOX tenants only."""

    attempt: int
    channel: Channel
    provider: str
    recipient: str = field(repr=False)
    sender: str
    text: str = field(repr=False)
    subject: str = field(default="", repr=False)
    template: str = ""
    params: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)


@dataclass(frozen=True, slots=True)
class Beside:
    """What is kept beside a decision, in its transaction: a sandbox tenant's copy, why the message took its way."""

    copy: SandboxCopy | None = None
    explanation: Explanation | None = None


NOTHING_BESIDE = Beside()


@dataclass(frozen=True, slots=True)
class Acceptance:
    """What `accept` answers: the message as it stands now, and whether its key had been used for it before."""

    message: Message
    replayed: bool
