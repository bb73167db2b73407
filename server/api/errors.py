"""The one table from errors to gRPC's codes, and what goes out with them: google.rpc details under 6 KB in all."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, QuotaFailure, RetryInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from server.model import errors
from server.model.errors import AngariumError, Reason

DOMAIN = "angarium"
CODES: Mapping[type[AngariumError], grpc.StatusCode] = {
    errors.Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    errors.Forbidden: grpc.StatusCode.PERMISSION_DENIED,
    errors.Invalid: grpc.StatusCode.INVALID_ARGUMENT,
    errors.NotFound: grpc.StatusCode.NOT_FOUND,
    errors.AlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
    errors.Precondition: grpc.StatusCode.FAILED_PRECONDITION,
    errors.CursorExpired: grpc.StatusCode.OUT_OF_RANGE,
    errors.Exhausted: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.DeadlineTooShort: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.Unavailable: grpc.StatusCode.UNAVAILABLE,
}
PAUSES_SECONDS: Mapping[Reason, float] = {
    Reason.DRAINING: 0.2,
    Reason.STORE_UNAVAILABLE: 1.0,
    Reason.STORAGE_FULL: 5.0,
    Reason.OVERLOADED: 1.0,
    Reason.TOO_MANY_STREAMS: 5.0,
}
"""After what waiting helps, where the error itself names no pause."""

QUOTAS = frozenset({Reason.QUOTA_EXHAUSTED, Reason.OTP_COOLDOWN})

RESOURCES = {"message": "notification"}
"""What the contract calls a thing that has another name in the house."""

VIOLATIONS_MAX = 20
MESSAGE_CHARS_MAX = 300
TEXT_CHARS_MAX = 160
DETAILS_BYTES_MAX = 5_500
PUSHBACK = "grpc-retry-pushback-ms"


@dataclass(frozen=True, slots=True)
class Answer:
    """An error as it goes out: code, sentence and trailing metadata."""

    code: grpc.StatusCode
    reason: Reason
    message: str
    trailers: tuple[tuple[str, str | bytes], ...]


def answer_of(error: AngariumError) -> Answer:
    """What a caller is told of an error: ErrorInfo always, then what helps: bad fields, the quota, how long to wait."""
    violations = list(error.violations[:VIOLATIONS_MAX]) if isinstance(error, errors.Invalid) else []
    pause = _pause_of(error)
    metadata = {name: _cut(value, MESSAGE_CHARS_MAX) for name, value in error.metadata.items()}
    if "resource" in metadata:
        metadata["resource"] = RESOURCES.get(metadata["resource"], metadata["resource"])
    if isinstance(error, errors.Invalid) and error.violations:
        metadata["violation_count"] = str(len(error.violations))
    details: list[Message] = [ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=metadata)]
    if violations:
        fields = [
            BadRequest.FieldViolation(field=_cut(v.field), description=_cut(v.description, MESSAGE_CHARS_MAX))
            for v in violations
        ]
        details.append(_fitting(BadRequest(field_violations=fields), _size(details)))
    if error.reason in QUOTAS:
        subject = metadata.get("limit", error.reason.lower())
        violation = QuotaFailure.Violation(subject=subject, description=_cut(error.message))
        details.append(QuotaFailure(violations=[violation]))
    if pause:
        details.append(RetryInfo(retry_delay=Duration(seconds=int(pause), nanos=round(pause % 1 * 1e9))))
    return _answer(CODES[type(error)], error.reason, error.message, details, pause)


def internal(trace_id: str) -> Answer:
    """What a caller is told of a fault of ours: the id under which the log tells the rest, and nothing else."""
    info = ErrorInfo(reason=Reason.INTERNAL, domain=DOMAIN, metadata={"trace_id": trace_id})
    return _answer(grpc.StatusCode.INTERNAL, Reason.INTERNAL, f"Internal error, trace id {trace_id}.", [info], 0.0)


def _answer(code: grpc.StatusCode, reason: Reason, message: str, details: list[Message], pause: float) -> Answer:
    status = Status(code=code.value[0], message=_cut(message, MESSAGE_CHARS_MAX))
    for detail in details:
        status.details.add().Pack(detail)
    trailers: list[tuple[str, str | bytes]] = [*cast("Any", rpc_status).to_status(status).trailing_metadata]
    if pause:
        trailers.append((PUSHBACK, str(math.ceil(pause * 1000))))
    return Answer(code, reason, status.message, tuple(trailers))


def _pause_of(error: AngariumError) -> float:
    own = error.retry_after_seconds if isinstance(error, errors.Exhausted | errors.Unavailable) else 0.0
    return own or PAUSES_SECONDS.get(error.reason, 0.0)


def _fitting(bad: BadRequest, used: int) -> BadRequest:
    while bad.ByteSize() + used > DETAILS_BYTES_MAX and bad.field_violations:
        del bad.field_violations[-1]
    return bad


def _size(details: list[Message]) -> int:
    return sum(detail.ByteSize() for detail in details)


def _cut(text: str, chars_max: int = TEXT_CHARS_MAX) -> str:
    return text if len(text) <= chars_max else text[: chars_max - 1] + "…"
