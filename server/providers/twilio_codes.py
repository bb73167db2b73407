"""Twilio's tables: what its codes mean when it refuses, and what its words mean when it reports."""

from collections.abc import Callable, Mapping

from server.model.enums import FailureReason, ReceiptKind
from server.model.failures import Failure
from server.model.outcomes import (
    Fault,
    Outcome,
    Receipt,
    Refusal,
    Rejected,
    ambiguous,
    failure_of,
    misconfigured,
    rate_limited,
    rejected,
    unavailable,
)
from server.providers.answers import retry_after

Meaning = Callable[[str, Mapping[str, str]], Outcome]
"""What a code comes to, with the headers of its answer."""


def _refused(refusal: Refusal, message: str, reason: FailureReason | None = None) -> Meaning:
    def outcome(code: str, _: Mapping[str, str]) -> Outcome:
        return Rejected(refusal, Failure(reason, message, code)) if reason else rejected(refusal, code, message)

    return outcome


def _elsewhere(message: str) -> Meaning:
    """Neither the account nor the recipient is at fault for good: another account may reach them."""
    return _refused(Refusal.CONTENT, message, FailureReason.RECIPIENT_UNREACHABLE)


def _not_enabled(message: str) -> Meaning:
    """The account must be enabled for the region, or for the number. It closes nothing: others can be reached."""
    return _refused(Refusal.CONTENT, message, FailureReason.PROVIDER_MISCONFIGURED)


def _fault(fault: Fault, message: str) -> Meaning:
    return lambda code, _: misconfigured(fault, code, message)


def _limited(message: str) -> Meaning:
    return lambda code, headers: rate_limited(code, message, retry_after(headers))


def _conflict(message: str) -> Meaning:
    return lambda code, _: unavailable(code, message)


def _down(message: str) -> Meaning:
    """Not processed only where it says when to come again."""
    return lambda code, headers: (unavailable if "retry-after" in headers else ambiguous)(code, message)


def _doubtful(message: str) -> Meaning:
    return lambda code, _: ambiguous(code, message)


CODES: Mapping[int, Meaning] = {
    10001: _fault(Fault.CREDENTIALS, "The account is not active."),
    13223: _refused(Refusal.RECIPIENT, "The number to call is malformed."),
    13224: _not_enabled("The account may not call this number."),
    13225: _not_enabled("The account may not call such numbers."),
    13226: _not_enabled("The account can not call this country code."),
    13227: _not_enabled("The account may not call this region."),
    14107: _limited("Too many messages in a period."),
    20001: _refused(Refusal.REQUEST, "A parameter of our request is not known."),
    20003: _fault(Fault.CREDENTIALS, "The account SID and its token or key do not match."),
    20005: _fault(Fault.CREDENTIALS, "The account is suspended."),
    20403: _fault(Fault.CREDENTIALS, "The credentials do not allow this call."),
    20404: _fault(Fault.CREDENTIALS, "The provider knows no such account; check account_sid and base_url."),
    20409: _conflict("Our request stood against another one."),
    20422: _refused(Refusal.REQUEST, "A parameter of our request is invalid."),
    20429: _limited("Too many requests at once."),
    20500: _doubtful("The provider failed, perhaps after it took the message."),
    20503: _down("The provider cannot answer now."),
    21205: _fault(Fault.CREDENTIALS, "The provider can not call a URL of ours; check ANGARIUM_PUBLIC_URL."),
    21210: _fault(Fault.SENDER, "The caller's number is not verified."),
    21211: _refused(Refusal.RECIPIENT, "The recipient's number is malformed."),
    21212: _fault(Fault.SENDER, "The sender is malformed."),
    21213: _fault(Fault.SENDER, "The caller's number is missing."),
    21214: _elsewhere("The provider can not reach this number."),
    21215: _not_enabled("The account may not call this region."),
    21216: _refused(Refusal.RECIPIENT, "The provider blocks calls to this number.", FailureReason.RECIPIENT_BLOCKED),
    21217: _refused(Refusal.RECIPIENT, "The recipient's number is malformed."),
    21408: _not_enabled("The account may not send to this region."),
    21601: _fault(Fault.SENDER, "The sender can not send texts."),
    21602: _refused(Refusal.REQUEST, "The body of our request is missing."),
    21603: _refused(Refusal.REQUEST, "The sender is missing in our request."),
    21604: _refused(Refusal.REQUEST, "The recipient is missing in our request."),
    21606: _fault(Fault.SENDER, "The sender is not the account's, or can not send texts."),
    21608: _not_enabled("The account is on trial: it may only send to verified numbers."),
    21609: _fault(Fault.CREDENTIALS, "The provider refuses our URL for receipts; check ANGARIUM_PUBLIC_URL."),
    21610: _refused(Refusal.RECIPIENT, "The recipient opted out of this sender.", FailureReason.RECIPIENT_BLOCKED),
    21611: _limited("The queue of the sender is full."),
    21612: _elsewhere("The provider can not reach this number from this sender."),
    21614: _refused(Refusal.RECIPIENT, "The number is no mobile number."),
    21617: _refused(Refusal.CONTENT, "The text is empty or too long."),
    21635: _refused(Refusal.RECIPIENT, "The number is a landline."),
    21659: _fault(Fault.SENDER, "The sender is not the account's."),
    21660: _fault(Fault.SENDER, "The sender is not the account's."),
    21661: _fault(Fault.SENDER, "The sender can not send texts."),
    21703: _fault(Fault.SENDER, "The messaging service has no number that can be used."),
    21704: _fault(Fault.SENDER, "The messaging service has no numbers."),
    21705: _fault(Fault.SENDER, "The messaging service is invalid."),
    35111: _refused(Refusal.REQUEST, "The time to send at is missing in our request."),
    35114: _refused(Refusal.REQUEST, "The time to send at in our request is not supported."),
    35115: _refused(Refusal.REQUEST, "The time to send at in our request is too near."),
    35117: _refused(Refusal.REQUEST, "The time to send at in our request is too far."),
    35118: _refused(Refusal.REQUEST, "Our request would need a messaging service."),
    35125: _limited("The account has too many scheduled messages."),
}

FAILURES: Mapping[int, tuple[FailureReason, str]] = {
    30001: (FailureReason.PROVIDER_UNAVAILABLE, "The provider's queue was full, or the message waited in it too long."),
    30002: (FailureReason.PROVIDER_MISCONFIGURED, "The account is suspended."),
    30003: (FailureReason.RECIPIENT_UNREACHABLE, "The handset is off or out of reach."),
    30004: (FailureReason.RECIPIENT_BLOCKED, "The carrier or the recipient blocks the message."),
    30005: (FailureReason.RECIPIENT_INVALID, "The number is not in use."),
    30006: (FailureReason.RECIPIENT_INVALID, "The number is a landline or of a carrier that can not be reached."),
    30007: (FailureReason.CONTENT_REJECTED, "The message was filtered as spam."),
    30008: (FailureReason.PROVIDER_UNAVAILABLE, "The provider can not say why."),
    30010: (FailureReason.PROVIDER_UNAVAILABLE, "The message would cost more than is allowed."),
    30017: (FailureReason.PROVIDER_UNAVAILABLE, "The carrier is congested."),
    30018: (FailureReason.PROVIDER_MISCONFIGURED, "The sender must be registered in the recipient's country."),
    30019: (FailureReason.CONTENT_REJECTED, "The message is too long for the carrier."),
    30022: (FailureReason.RATE_LIMITED, "The sender sends too fast for the carriers."),
    30023: (FailureReason.RATE_LIMITED, "The sender's messages of the day are used up."),
    30024: (FailureReason.PROVIDER_MISCONFIGURED, "The sender must be registered in the recipient's country."),
    30032: (FailureReason.PROVIDER_MISCONFIGURED, "The toll-free sender is not verified."),
    30034: (FailureReason.PROVIDER_MISCONFIGURED, "The sender is not registered with the carriers."),
    30410: (FailureReason.PROVIDER_UNAVAILABLE, "A carrier gave no answer in time."),
    30450: (FailureReason.RECIPIENT_BLOCKED, "The number is blocked for some minutes: too many messages go its way."),
    63038: (FailureReason.RATE_LIMITED, "The account's messages of the day are used up."),
}
"""What the error code of a message means that did not arrive. Those of CODES may stand there too."""

_FAILED = (FailureReason.PROVIDER_UNAVAILABLE, "The provider failed to carry the message.")
_OTHER = Receipt(ReceiptKind.OTHER)
_DELIVERED = Receipt(ReceiptKind.DELIVERED)


def _undelivered(word: str, reason: FailureReason, message: str) -> Receipt:
    return Receipt(ReceiptKind.UNDELIVERED, Failure(reason, message, word.upper()))


MESSAGE_STATUSES: Mapping[str, Receipt] = {
    **dict.fromkeys(("accepted", "scheduled", "queued", "sending", "sent"), _OTHER),
    **dict.fromkeys(("delivered", "partially_delivered", "read"), _DELIVERED),
    "undelivered": _undelivered("undelivered", *_FAILED),
    "failed": _undelivered("failed", *_FAILED),
    "canceled": _undelivered("canceled", FailureReason.PROVIDER_UNAVAILABLE, "It was canceled at the provider."),
}
CALL_STATUSES: Mapping[str, Receipt] = {
    **dict.fromkeys(("queued", "ringing", "in-progress"), _OTHER),
    "completed": _DELIVERED,
    "busy": _undelivered("busy", FailureReason.RECIPIENT_UNREACHABLE, "The line was busy."),
    "no-answer": _undelivered("no-answer", FailureReason.RECIPIENT_UNREACHABLE, "Nobody answered the call."),
    "failed": _undelivered("failed", *_FAILED),
    "canceled": _undelivered("canceled", FailureReason.PROVIDER_UNAVAILABLE, "It was canceled at the provider."),
}
_TOLD_BY_CODE = frozenset({"undelivered", "failed"})


def receipt_of(statuses: Mapping[str, Receipt], status: str, error_code: int | None) -> Receipt | None:
    """What a status reports, with the reason that its error code names; None for a status that is in no table."""
    receipt = statuses.get(status)
    if receipt is None or status not in _TOLD_BY_CODE or not error_code:
        return receipt
    return Receipt(receipt.kind, _failure(error_code))


def _failure(code: int) -> Failure:
    reason, message = FAILURES.get(code, _FAILED)
    meaning = CODES.get(code)
    refused = failure_of(meaning(str(code), {})) if meaning else None
    return refused or Failure(reason, message, str(code))
