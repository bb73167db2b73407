"""The errors that a caller can see. Each has one gRPC code, given once in `api/errors.py`.

AngariumError
├── Unauthenticated      who is calling is not known
├── Forbidden            known, and not allowed
├── Invalid              the request can never be valid
├── NotFound             nothing of that name for this tenant
├── AlreadyExists        the key or the name is taken by something else
├── Precondition         valid, but configuration or state must change first
├── CursorExpired        the log does not reach back that far
├── Exhausted            a limit; waiting helps where `retry_after_seconds` is given
├── DeadlineTooShort     the caller's deadline leaves no time to commit
└── Unavailable          safe to repeat with the same key
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import auto

from server.model.enums import Word


class Reason(Word):
    """`ErrorInfo.reason`, as `error_reason.proto` spells it."""

    CREDENTIALS_MISSING = auto()
    CREDENTIALS_INVALID = auto()
    SCOPE_MISSING = auto()
    TENANT_FORBIDDEN = auto()
    TENANT_DISABLED = auto()
    MALFORMED_MESSAGE = auto()
    INVALID_FIELD = auto()
    CURSOR_INVALID = auto()
    PAGE_TOKEN_INVALID = auto()
    RESOURCE_NOT_FOUND = auto()
    REQUEST_ID_REUSED = auto()
    RESOURCE_EXISTS = auto()
    NO_ROUTE = auto()
    RECIPIENT_UNRESOLVED = auto()
    COUNTRY_NOT_ALLOWED = auto()
    SENDER_NOT_ALLOWED = auto()
    TEMPLATE_INACTIVE = auto()
    ETAG_MISMATCH = auto()
    RESOURCE_IN_USE = auto()
    NOTHING_TO_CANCEL = auto()
    CURSOR_EXPIRED = auto()
    MESSAGE_TOO_LARGE = auto()
    QUOTA_EXHAUSTED = auto()
    OTP_COOLDOWN = auto()
    OVERLOADED = auto()
    TOO_MANY_STREAMS = auto()
    WATCH_LAGGED = auto()
    DEADLINE_TOO_SHORT = auto()
    DRAINING = auto()
    STORE_UNAVAILABLE = auto()
    STORAGE_FULL = auto()
    INTERNAL = auto()


@dataclass(frozen=True, slots=True)
class Violation:
    """One bad field: its path in the request (`recipient.phone`) and a sentence that helps."""

    field: str
    description: str


@dataclass(eq=False)
class AngariumError(Exception):
    """Never raised itself. `metadata` goes to the caller: ids and names, no secrets and no personal data."""

    reason: Reason
    message: str
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])

    def __str__(self) -> str:
        return f"{self.reason}: {self.message}"


class Unauthenticated(AngariumError):
    """Who is calling is not known."""


class Forbidden(AngariumError):
    """The caller is known and may not do this."""


@dataclass(eq=False)
class Invalid(AngariumError):
    """The request can never be valid; every bad field is listed."""

    violations: Sequence[Violation] = ()


class NotFound(AngariumError):
    """There is nothing of that name for this tenant; whatever another tenant owns does not exist."""


class AlreadyExists(AngariumError):
    """The key or the name is taken by something else."""


class Precondition(AngariumError):
    """The request is valid, but configuration or state must change first."""


class CursorExpired(AngariumError):
    """The log does not reach back to the cursor, or was restored to before it."""


@dataclass(eq=False)
class Exhausted(AngariumError):
    """A limit was met. `retry_after_seconds` > 0 where waiting helps."""

    retry_after_seconds: float = 0.0


class DeadlineTooShort(AngariumError):
    """The caller's deadline leaves no time to commit."""


@dataclass(eq=False)
class Unavailable(AngariumError):
    """Nothing was done, or it is safe to repeat with the same key."""

    retry_after_seconds: float = 0.0


def invalid_field(name: str, description: str) -> Invalid:
    """An Invalid with a single bad field."""
    return Invalid(Reason.INVALID_FIELD, f"{name}: {description}", violations=(Violation(name, description),))


def not_found(resource: str, name: str) -> NotFound:
    """A NotFound that names the kind of thing and the name that was asked for."""
    return NotFound(Reason.RESOURCE_NOT_FOUND, f"There is no {resource} {name!r}.", {"resource": resource})
