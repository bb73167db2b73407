"""Why a message, or one attempt of it, came to nothing."""

from dataclasses import dataclass

from server.model.enums import FailureReason


@dataclass(frozen=True, slots=True)
class Failure:
    """A reason, a sentence of ours (never the provider's raw text) and the provider's own code where it gave one."""

    reason: FailureReason
    message: str = ""
    provider_code: str = ""
