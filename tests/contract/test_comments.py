"""The rules of the contract that only the protos' text shows: comments, and what must not be written at all."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

PATHS = sorted((Path(__file__).parents[2] / "protos" / "angarium" / "v1").glob("*.proto"))

SCOPES = {"send", "otp", "read", "configure", "access", "sandbox", "tenant.override"}
KEPT = {
    "ErrorReason": {16, 24},
    "Recipient": {6},
    "Notification": {16, 24},
    "StatusEvent": {17, 18},
    "NotificationFilter": {6},
    "Provider": {20},
    "Tenant": {8},
    "Tenant.Mode": {3},
    "CreateTenantRequest": {8},
    "UpdateTenantRequest": {10},
}
VENDORS = re.compile(
    r"\b(kavenegar|twilio|vonage|nexmo|smsaero|ippanel|delevera|alfa-?cell|firebase|fcm|apns|sendgrid|messagebird|infobip"
    r"|plivo|sinch|telnyx|mailgun|postmark|mandrill|onesignal|whatsapp|telegram|rubika|eitaa|slack|amazon|aws)\b"
)
# Every reason of the contract under its code, in the order that gives it its number.
REASONS_BY_CODE = {
    "UNAUTHENTICATED": "CREDENTIALS_MISSING CREDENTIALS_INVALID",
    "PERMISSION_DENIED": "SCOPE_MISSING TENANT_FORBIDDEN TENANT_DISABLED",
    "INVALID_ARGUMENT": "MALFORMED_MESSAGE INVALID_FIELD CURSOR_INVALID PAGE_TOKEN_INVALID",
    "NOT_FOUND": "RESOURCE_NOT_FOUND",
    "ALREADY_EXISTS": "REQUEST_ID_REUSED RESOURCE_EXISTS",
    "FAILED_PRECONDITION": "NO_ROUTE RECIPIENT_UNRESOLVED COUNTRY_NOT_ALLOWED RECIPIENT_NOT_ALLOWED SENDER_NOT_ALLOWED "
    "TEMPLATE_INACTIVE ETAG_MISMATCH RESOURCE_IN_USE NOTHING_TO_CANCEL",
    "OUT_OF_RANGE": "CURSOR_EXPIRED",
    "RESOURCE_EXHAUSTED": "MESSAGE_TOO_LARGE RATE_LIMITED QUOTA_EXHAUSTED OTP_COOLDOWN OVERLOADED TOO_MANY_STREAMS "
    "WATCH_LAGGED",
    "DEADLINE_EXCEEDED": "DEADLINE_TOO_SHORT",
    "UNAVAILABLE": "DRAINING STORE_UNAVAILABLE STORAGE_FULL",
    "INTERNAL": "INTERNAL",
}
CODE_OF_REASON = {reason: code for code, reasons in REASONS_BY_CODE.items() for reason in reasons.split()}


@dataclass(frozen=True, slots=True)
class Declaration:
    """A line of a proto, the message, enum, service or rpc that it stands in, and the comment above it."""

    scope: str
    line: str
    comment: str


def declarations(path: Path) -> Iterator[Declaration]:
    """The declarations of a proto in the form that `buf format` gives it; a comment by itself has an empty line."""
    scopes: list[str] = []
    comment: list[str] = []
    for line in (raw.strip() for raw in path.read_text("utf-8").splitlines()):
        if line.startswith("//"):
            comment.append(line.removeprefix("//").strip())
            continue
        yield Declaration(".".join(scopes), line, "\n".join(comment))
        comment = []
        if line == "}":
            scopes.pop()
        elif opened := re.fullmatch(r"(?:message|enum|service|rpc) (\w+).*\{", line):
            scopes.append(opened[1])


ALL_DECLARATIONS = [declaration for path in PATHS for declaration in declarations(path)]
RPC_COMMENTS = {
    found[1]: declaration.comment
    for declaration in ALL_DECLARATIONS
    if (found := re.match(r"rpc (\w+)\(", declaration.line))
}


def reason_comments() -> dict[str, str]:
    """The comment of each reason, by its name on the wire."""
    return {
        found[1]: declaration.comment
        for declaration in ALL_DECLARATIONS
        if (found := re.match(r"ERROR_REASON_(\w+) = [1-9]", declaration.line))
    }


def numbers_used(scope: str) -> set[int]:
    """The numbers of the fields of a message or of the values of an enum."""
    lines = [declaration.line for declaration in ALL_DECLARATIONS if declaration.scope == scope]
    return {int(found[1]) for line in lines if (found := re.search(r" = (\d+)[ ;]", line))}


def test_the_protos_are_read() -> None:
    """What is looked at below is the contract, and not an empty folder."""
    assert {"message", "error_reason", "notification_service"} <= {path.stem for path in PATHS}
    assert numbers_used("SendResponse") == {1, 2, 3, 4, 5, 6}


def test_numbers_kept_for_later_are_not_used() -> None:
    """What a later version needs has its number still, and a comment in its place says so."""
    said: dict[str, set[int]] = {}
    for declaration in ALL_DECLARATIONS:
        if found := re.match(r"Numbers? kept for later: ([\d, ]+)\.", declaration.comment):
            numbers = {int(number) for number in re.findall(r"\d+", found[1])}
            said[declaration.scope] = said.get(declaration.scope, set()) | numbers
    assert said == KEPT
    for scope, numbers in KEPT.items():
        assert numbers_used(scope), scope
        assert numbers_used(scope).isdisjoint(numbers), scope


def test_no_vendor_is_named() -> None:
    """Names of vendors are data: they occur nowhere in the protos."""
    for path in PATHS:
        assert VENDORS.findall(path.read_text("utf-8").lower()) == [], path.name


def test_reasons_have_their_numbers() -> None:
    """A reason's number is its place in the contract's list, whether or not an earlier one is of this version."""
    lines = [declaration.line for declaration in ALL_DECLARATIONS if declaration.scope == "ErrorReason"]
    found = {m[1]: int(m[2]) for line in lines if (m := re.match(r"ERROR_REASON_(\w+) = (\d+);", line))}
    numbers = {reason: number for number, reason in enumerate(CODE_OF_REASON, start=1)}
    present = {reason: number for reason, number in numbers.items() if number not in KEPT["ErrorReason"]}
    assert found == {"UNSPECIFIED": 0} | present


@pytest.mark.parametrize("reason", sorted(reason_comments()))
def test_every_reason_has_its_code_and_an_example(reason: str) -> None:
    """A reason's comment begins with its gRPC code and ends with an ErrorInfo as a caller would get it."""
    comment = reason_comments()[reason]
    code = comment.split(".", maxsplit=1)[0]
    assert code == CODE_OF_REASON[reason]
    assert hasattr(grpc.StatusCode, code)
    example = json.loads(comment.rpartition("Example:")[2])
    assert set(example) == {"reason", "domain", "metadata"}
    assert (example["reason"], example["domain"]) == (reason, "angarium")
    assert all(isinstance(value, str) for value in example["metadata"].values())


def test_errors_that_rpcs_name_exist() -> None:
    """What an RPC's comment calls an error is a gRPC code with reasons of that code."""
    known = reason_comments()
    for name, comment in RPC_COMMENTS.items():
        errors = " ".join(comment.partition("Errors:")[2].split())
        for code, inside in re.findall(r"([A-Z_]{6,}) \(([^)]*)\)", errors):
            reasons = re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", inside)
            assert reasons, (name, code)
            for reason in reasons:
                assert reason in known, (name, reason)
                assert CODE_OF_REASON[reason] == code, (name, reason)


def test_every_rpc_names_its_scope() -> None:
    """An RPC's comment says which scope its key needs, or that it needs none."""
    assert RPC_COMMENTS
    for name, comment in RPC_COMMENTS.items():
        line = next((line for line in comment.splitlines() if line.startswith("Scope: ")), "")
        scopes = set(re.findall(r"`([a-z.]+)`", line))
        assert scopes <= SCOPES, name
        assert scopes or line == "Scope: none.", name
