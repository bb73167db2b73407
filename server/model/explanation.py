"""Why a message takes the way that it takes: what was looked at, and what was decided of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import auto

from server.model.enums import Channel, Word


class Verdict(Word):
    """What was decided of a candidate."""

    CHOSEN = auto()
    FALLBACK = auto()
    SKIPPED = auto()


class Skip(Word):
    """Why a hop of the route is passed over, or is not the first choice."""

    INACTIVE = auto()
    NOT_CONFIGURED = auto()
    NOT_FOR_SANDBOX = auto()
    UNKNOWN = auto()
    CHANNEL = auto()
    NO_ADDRESS = auto()
    SENDER = auto()
    TEMPLATE = auto()
    NO_FALLBACK = auto()
    CHANNEL_REFUSED = auto()
    ACCOUNT_REFUSED = auto()
    AWAITED = auto()
    STEP_OVER = auto()
    IN_DOUBT = auto()
    SENDS_SPENT = auto()
    TOO_LATE = auto()
    REPEATS_SPENT = auto()
    BUDGET_SPENT = auto()
    CLOSED = auto()
    TRIED = auto()
    REQUEST_REFUSED = auto()
    OVER = auto()
    STOPPED = auto()


class Why(Word):
    """Why a rule is followed or passed over. BEHIND: it would match, and one before it did."""

    FOLLOWED = auto()
    SCENARIO = auto()
    INACTIVE = auto()
    INTENT = auto()
    COUNTRY = auto()
    OPERATOR = auto()
    MESSAGE_CLASS = auto()
    TAGS = auto()
    BEHIND = auto()
    IMPLIED = auto()


@dataclass(frozen=True, slots=True)
class RuleLook:
    """One rule as it was looked at: whether the message follows it, and why, in a word."""

    name: str
    matched: bool
    why: str


@dataclass(frozen=True, slots=True)
class Candidate:
    """One account in one step: what was decided of it, why in a word, and in a sentence.

    No channel: nobody named one, and there is no account to tell it. No provider: of a step that names none, the whole.
    """

    step: int
    channel: Channel | None
    provider: str
    verdict: Verdict
    reason: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Explanation:
    """One planning of a route. It names no person: it is kept beside the message in the clear."""

    rules: tuple[RuleLook, ...] = ()
    candidates: tuple[Candidate, ...] = ()
    country: str = ""
    operator: str = ""
    segments: int = 0
    encoding: str = ""
    revision: str = ""


DETAILS: Mapping[str, str] = {
    "INACTIVE": "The provider account is not active.",
    "NOT_CONFIGURED": "The provider account lacks a setting that it needs.",
    "NOT_FOR_SANDBOX": "The tenant is a sandbox, and the account has no base_url of its own.",
    "UNKNOWN": "There is no such provider account.",
    "CHANNEL": "It is not for a channel that the caller, the step or the implied rule takes.",
    "NO_ADDRESS": "The recipient has no address for this channel.",
    "SENDER": "The account may not use this sender, or the provider has just refused it.",
    "TEMPLATE": "No text, template or parameter fits this account, or the provider has just refused its template.",
    "NO_FALLBACK": "The step has no fallback: one account of it is tried, and no other.",
    "CHANNEL_REFUSED": "A provider of this channel has refused the recipient.",
    "ACCOUNT_REFUSED": "The account has refused this message, or said that it cannot send.",
    "AWAITED": "What was handed off before is waited for: this one may go when that fails or takes too long.",
    "STEP_OVER": "The step is over.",
    "IN_DOUBT": "Nobody knows whether it was taken already, and the message's class forbids another.",
    "SENDS_SPENT": "It was taken already on this channel, and the message's class forbids another there.",
    "TOO_LATE": "The time of this step is over, and a later one can go.",
    "REPEATS_SPENT": "The account was tried as often as the message's class allows.",
    "BUDGET_SPENT": "The account's budget for repeats is spent for the moment.",
    "CLOSED": "The account is closed for the moment.",
    "REQUEST_REFUSED": "A provider found the request malformed: no other is asked.",
    "OVER": "The message is over.",
    "STOPPED": "The message was stopped: nothing more is tried.",
    "TRIED": "The account has failed this message before: others go first.",
    "BREAKER_OPEN": "Too many of the account's latest hand-offs failed.",
    "RATE_LIMITED": "The provider asked for a pause.",
    "CREDENTIALS": "The provider has just refused the account's credentials.",
    "FUNDS": "The provider has just said that the account has no credit left.",
}
"""What a candidate's reason says in a sentence."""


def skipped(step: int, channel: Channel | None, provider: str, reason: Skip) -> Candidate:
    """A candidate that is passed over."""
    return Candidate(step, channel, provider, Verdict.SKIPPED, reason.value, DETAILS[reason])
