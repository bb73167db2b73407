"""One-time codes: what counts as one, what a further send makes of a live verification, what a check came to."""

import re
from dataclasses import dataclass, field
from enum import auto

from server.model.clock import Micros
from server.model.enums import Word

CODE_CHARS_MIN, CODE_CHARS_MAX = 4, 10
CODE_LENGTH_DEFAULT = 6
SHORT_BELOW = 6
ATTEMPTS_MAX, ATTEMPTS_MAX_SHORT = 5, 3
TYPED_CHARS_MAX = 64
INTENT_DEFAULT = "OTP"

_CODE = re.compile(rf"[0-9A-Za-z]{{{CODE_CHARS_MIN},{CODE_CHARS_MAX}}}")
_DIGITS = {ord(zero) + digit: str(digit) for zero in "۰٠" for digit in range(10)}  # noqa: RUF001 - Persian, Arabic
_BETWEEN = re.compile(r"[\s\-\u2010\u2011]+")  # spaces, and hyphens as people and programs write them


@dataclass(frozen=True, slots=True)
class CodeWanted:
    """What an OtpSend asks for beside its message.

    `destination` is the address that the verification belongs to, `prefix` the number without its last digits.
    `beside` is another address that the message may go to: it is counted, too.
    `token` is the caller's own code; without one, a new verification gets a code of so many digits.
    """

    destination: str = field(repr=False)
    prefix: str = field(repr=False)
    ttl: Micros
    length: int = CODE_LENGTH_DEFAULT
    beside: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    end_user_ip: str = field(default="", repr=False)
    end_user_device: str = field(default="", repr=False)
    cooldown_alone: bool = False
    """A magic recipient of a sandbox: of all limits only the cooldown holds."""


@dataclass(frozen=True, slots=True)
class Verification:
    """One person's code for one intent.

    Where the caller brought it, `length` is 0 and `code` is the code, sealed, as long as the verification is live.
    """

    id: str
    tenant_id: str
    intent: str
    destination_index: str
    key_id: str
    mac: bytes = field(repr=False)
    attempts_max: int
    created_at: Micros
    expires_at: Micros
    prefix_index: str = ""
    is_live: bool = True
    generation: int = 1
    length: int = 0
    code: bytes = field(default=b"", repr=False)
    sends: int = 0
    attempts: int = 0
    verified_at: Micros = 0

    def takes_codes(self, now: Micros) -> bool:
        """Whether a code may still verify."""
        return self.is_live and not self.verified_at and self.attempts < self.attempts_max and now < self.expires_at


class Renewal(Word):
    """What a send does with the code of its address and intent. REPLACED: in the same verification."""

    SAME = auto()
    REPLACED = auto()
    NEW = auto()


class CheckResult(Word):
    """What a check came to."""

    VERIFIED = auto()
    WRONG_CODE = auto()
    EXPIRED = auto()
    EXHAUSTED = auto()
    USED = auto()
    UNKNOWN = auto()


@dataclass(frozen=True, slots=True)
class Check:
    """A code that somebody typed, for a verification by its id, or for the latest one of an address and intent."""

    tenant_id: str
    client_id: str
    code: str = field(repr=False)
    verification_id: str = ""
    destination: str = field(default="", repr=False)
    intent: str = ""
    request_id: str = ""
    fingerprint: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Checked:
    """What was answered to a check."""

    result: CheckResult
    attempts_left: int = 0
    verification_id: str = ""
    verified_at: Micros = 0
    replayed: bool = False


def is_code(text: str) -> bool:
    """4–10 of `0-9 A-Z a-z`: what a caller may bring as a code."""
    return _CODE.fullmatch(text) is not None


def code_of(typed: str) -> str:
    """The code that somebody typed, without spaces and hyphens and with plain digits; empty where it can be none."""
    plain = _BETWEEN.sub("", typed.translate(_DIGITS))
    return plain if is_code(plain) else ""


def attempts_max_of(token: str) -> int:
    """How many attempts a caller's own code has; "" stands for one of ours."""
    return ATTEMPTS_MAX_SHORT if 0 < len(token) < SHORT_BELOW else ATTEMPTS_MAX


def renewal_of(live: Verification | None, token: str, now: Micros, *, same_token: bool) -> Renewal:
    """What becomes of the verification that is live. `same_token`: its code is the one that the caller brings.

    Only another code of the caller's replaces the one that is live. Attempts stay spent. A code that would be born
    without any left gets a verification of its own.
    """
    if live is None or not live.takes_codes(now):
        return Renewal.NEW
    if same_token or not token:
        return Renewal.SAME
    return Renewal.REPLACED if live.attempts < attempts_max_of(token) else Renewal.NEW


def why_over(verification: Verification | None) -> CheckResult:
    """Why a verification takes no more codes."""
    if verification is None:
        return CheckResult.UNKNOWN
    if verification.verified_at:
        return CheckResult.USED
    return CheckResult.EXHAUSTED if verification.attempts >= verification.attempts_max else CheckResult.EXPIRED
