"""What a caller is told of an error."""

import grpc
import pytest
from angarium.v1.error_reason_pb2 import ErrorReason
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, QuotaFailure, RetryInfo
from google.rpc.status_pb2 import Status

from server.api.errors import CODES, DETAILS_BYTES_MAX, VIOLATIONS_MAX, answer_of, internal
from server.model import errors
from server.model.errors import AngariumError, Reason, Violation
from server.model.faults import trail_of

PREFIX = "ERROR_REASON_"


def status_of(trailers: tuple[tuple[str, str | bytes], ...]) -> Status:
    raw = dict(trailers)["grpc-status-details-bin"]
    assert isinstance(raw, bytes)
    return Status.FromString(raw)


def test_reasons_are_those_of_the_contract() -> None:
    """Every reason of the house is in the contract, and every one of the contract in the house."""
    names = {value.name.removeprefix(PREFIX) for value in ErrorReason.DESCRIPTOR.values}
    contract = names - {"UNSPECIFIED"}
    assert contract == {str(reason) for reason in Reason}


def test_every_class_of_error_has_one_code() -> None:
    """The table names every class of error, and nothing else."""
    assert set(CODES) == set(AngariumError.__subclasses__())
    assert len(set(CODES.values())) == len(CODES)


def test_the_first_violations_are_told_and_all_are_counted() -> None:
    """Of 1,000 violations 20 at most go out, all are counted, and the details stay small whatever the fields are."""
    violations = [Violation(f"rules[{n}]." + "x" * 5_000, "y" * 5_000) for n in range(1_000)]
    answer = answer_of(errors.Invalid(Reason.INVALID_FIELD, "z" * 5_000, violations=violations))
    status = status_of(answer.trailers)
    info, bad = ErrorInfo(), BadRequest()
    assert status.details[0].Unpack(info)
    assert status.details[1].Unpack(bad)
    assert info.metadata["violation_count"] == "1000"
    assert 0 < len(bad.field_violations) <= VIOLATIONS_MAX
    assert status.ByteSize() < DETAILS_BYTES_MAX + 600


@pytest.mark.parametrize(
    ("error", "pushback"),
    [
        (errors.Unavailable(Reason.STORE_UNAVAILABLE, "."), "1000"),
        (errors.Exhausted(Reason.OVERLOADED, ".", retry_after_seconds=0.7), "700"),
        (errors.Exhausted(Reason.WATCH_LAGGED, "."), None),
        (errors.NotFound(Reason.RESOURCE_NOT_FOUND, "."), None),
    ],
)
def test_waiting_is_told_twice_where_it_helps(error: AngariumError, pushback: str | None) -> None:
    """RetryInfo and the trailer that gRPC's own retries read say the same, or neither is there."""
    answer = answer_of(error)
    told = [detail.type_url for detail in status_of(answer.trailers).details]
    assert dict(answer.trailers).get("grpc-retry-pushback-ms") == pushback
    assert any(url.endswith("RetryInfo") for url in told) == (pushback is not None)


@pytest.mark.parametrize(
    ("reason", "told", "subject"),
    [(Reason.QUOTA_EXHAUSTED, {"limit": "prefix"}, "prefix"), (Reason.OTP_COOLDOWN, {}, "otp_cooldown")],
)
def test_a_limit_is_told_as_a_quota_too(reason: Reason, told: dict[str, str], subject: str) -> None:
    """Between the reason and the pause stands which limit was met."""
    status = status_of(answer_of(errors.Exhausted(reason, "Too many.", told, retry_after_seconds=3.0)).trailers)
    quota, retry = QuotaFailure(), RetryInfo()
    assert status.details[1].Unpack(quota)
    assert status.details[2].Unpack(retry)
    assert [(violation.subject, violation.description) for violation in quota.violations] == [(subject, "Too many.")]
    assert retry.retry_delay.seconds == 3


def test_a_message_is_called_as_in_the_contract() -> None:
    """What the house calls a message is a notification to callers."""
    info = ErrorInfo()
    assert status_of(answer_of(errors.not_found("message", "x")).trailers).details[0].Unpack(info)
    assert info.metadata["resource"] == "notification"


def test_a_fault_of_ours_tells_its_trace_id_alone() -> None:
    """INTERNAL carries the id under which the log tells the rest."""
    answer = internal("4bf92f")
    info = ErrorInfo()
    assert status_of(answer.trailers).details[0].Unpack(info)
    assert (answer.code, info.reason, dict(info.metadata)) == (
        grpc.StatusCode.INTERNAL,
        "INTERNAL",
        {"trace_id": "4bf92f"},
    )


def test_the_log_tells_where_and_not_what() -> None:
    """Of an exception the log gets kinds and places; its text, which may hold secrets, and its cause's, stay out."""
    with pytest.raises(RuntimeError) as caught:
        fail_with_secrets()
    trail = "\n".join(trail_of(caught.value))
    assert "RuntimeError" in trail
    assert "ValueError" in trail
    assert "test_errors.py" in trail
    assert "123456" not in trail
    assert "hunter2" not in trail


def fail_with_secrets() -> None:
    try:
        int("123456 is a code")
    except ValueError as cause:
        raise RuntimeError("password=hunter2") from cause
