"""What an answer means when its body does not say: the table of HTTP statuses, and how bodies and pauses are read."""

import json
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import cast

from server.model.clock import SECOND, Micros
from server.model.outcomes import (
    Fault,
    Outcome,
    Refusal,
    ambiguous,
    misconfigured,
    rate_limited,
    rejected,
    unavailable,
)
from server.providers.transport import TOO_LATE, Answer, NotSent, Unknown

RETRY_AFTER_SECONDS_MAX = 600
SECONDS_DIGITS_MAX = 9
INT_DIGITS_MAX = 20

_STATUSES: dict[int, Callable[[str], Outcome]] = {
    400: lambda code: rejected(Refusal.REQUEST, code, "The provider could not read our request."),
    401: lambda code: misconfigured(Fault.CREDENTIALS, code, "The provider refused the account's credentials."),
    402: lambda code: misconfigured(Fault.FUNDS, code, "The account's credit is used up."),
    403: lambda code: misconfigured(Fault.CREDENTIALS, code, "The provider refused the account's credentials."),
    404: lambda code: misconfigured(Fault.CREDENTIALS, code, "The provider knows no such address; check base_url."),
    405: lambda code: misconfigured(Fault.CREDENTIALS, code, "The provider takes no such call; check base_url."),
    407: lambda code: misconfigured(Fault.CREDENTIALS, code, "A proxy in between asks for credentials."),
    413: lambda code: rejected(Refusal.CONTENT, code, "The message is too long for the provider."),
    415: lambda code: misconfigured(Fault.CREDENTIALS, code, "The provider takes no such call; check base_url."),
    422: lambda code: rejected(Refusal.REQUEST, code, "The provider could not read our request."),
    425: lambda code: unavailable(code, "The provider asked to try again later."),
}


def outcome_of_silence(reply: NotSent | Unknown) -> Outcome:
    """What a call without an answer came to."""
    if isinstance(reply, NotSent):
        late = "Its time was over before this process came to hand it off."
        return unavailable(reply.code, late if reply.code == TOO_LATE else "The provider could not be reached.")
    return ambiguous(reply.code, "The provider gave no readable answer.")


def outcome_of_status(answer: Answer) -> Outcome:
    """What an HTTP status alone tells of a call. Never Accepted; what is not in the table is Ambiguous."""
    code = f"HTTP_{answer.status}"
    if answer.status == HTTPStatus.TOO_MANY_REQUESTS:
        return rate_limited(code, "The provider asked to slow down.", retry_after(answer.headers))
    if answer.status == HTTPStatus.SERVICE_UNAVAILABLE and "retry-after" in answer.headers:
        return unavailable(code, "The provider asked to try again later.")
    listed = _STATUSES.get(answer.status)
    return listed(code) if listed else ambiguous(code, "The provider gave no readable answer.")


def retry_after(headers: Mapping[str, str]) -> Micros:
    """The pause that an answer asks for, 0 when it asks for none or spells it wrongly; 10 minutes at most.

    A date counts from the answer's own Date.
    """
    value = headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit() and len(value) <= SECONDS_DIGITS_MAX:
        seconds = int(value)
    else:
        seconds = _until(value, headers.get("date", ""))
    return max(0, min(seconds, RETRY_AFTER_SECONDS_MAX)) * SECOND


def _until(value: str, date: str) -> int:
    try:
        return int((parsedate_to_datetime(value) - parsedate_to_datetime(date)).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return 0


def json_object(body: bytes) -> Mapping[str, object] | None:
    """The JSON object that a body holds, or None when it holds anything else."""
    try:
        value: object = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return as_object(value)


def as_object(value: object) -> Mapping[str, object] | None:
    """A JSON value as an object, or None."""
    return cast("Mapping[str, object]", value) if isinstance(value, dict) else None


def objects_in(value: object) -> list[Mapping[str, object]]:
    """The objects of a JSON value that may be one object, a list of them, or nothing."""
    values = cast("list[object]", value) if isinstance(value, list) else [value]
    return [found for found in map(as_object, values) if found is not None]


def as_int(value: object) -> int | None:
    """A JSON value as a whole number, which may be spelled as text; None when it is none."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    text = value.strip() if isinstance(value, str) else ""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= INT_DIGITS_MAX else None
