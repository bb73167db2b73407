"""The rules of the contract that the generated descriptors show."""

import importlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf import json_format, message_factory
from google.protobuf.descriptor import (
    Descriptor,
    EnumDescriptor,
    FieldDescriptor,
    FileDescriptor,
    MethodDescriptor,
)
from google.protobuf.descriptor_pb2 import FileDescriptorProto, MethodOptions

PROTOS = Path(__file__).parents[2] / "protos" / "angarium" / "v1"
PATHS = sorted(PROTOS.glob("*.proto"))
FILES: list[FileDescriptor] = [importlib.import_module(f"angarium.v1.{path.stem}_pb2").DESCRIPTOR for path in PATHS]
METHODS: list[MethodDescriptor] = [
    method for file in FILES for service in file.services_by_name.values() for method in service.methods
]

WITHOUT_TENANT = {"WhoAmI", "ListTenants", "SendAndWatch"}
WITH_REQUEST_ID = {"Send", "GetStatus", "OtpSend", "OtpVerify"}
READS: dict[str, set[str]] = {
    "NotificationService": {"GetStatus", "WatchStatus", "ListNotifications"},
    "ProviderService": {"GetProvider", "ListProviderTypes", "DescribeProviderType", "ListProviders"},
    "RoutingService": {"GetRoutingRules", "ExplainRoute"},
    "AccessService": {"WhoAmI", "ListTenants", "ListClients", "ListApiKeys"},
    "SandboxService": {"PeekOutbox"},
    "TemplateService": {"GetTemplate", "ListTemplates", "PreviewTemplate"},
    "OtpService": set(),
}
REDACTED = {
    "Recipient.phone",
    "Recipient.email",
    "Recipient.device_tokens",
    "Recipient.user_id",
    "Recipient.username",
    "NotificationFilter.phone",
    "SendRequest.params",
    "SendRequest.text",
    "ConfigureProviderRequest.secrets",
    "TestProviderRequest.phone",
    "TestProviderRequest.email",
    "CreateApiKeyResponse.secret",
    "PeekOutboxRequest.phone",
    "PeekOutboxRequest.email",
    "SandboxMessage.recipient",
    "SandboxMessage.subject",
    "SandboxMessage.text",
    "SandboxMessage.params",
    "Template.text",
    "TemplateVariant.text",
    "TemplateVariant.subject",
    "TemplateVariant.html",
    "UpdateTemplateRequest.text",
    "PreviewTemplateRequest.text",
    "PreviewTemplateRequest.params",
    "PreviewTemplateResponse.text",
    "PreviewTemplateResponse.subject",
    "OtpSendRequest.phone",
    "OtpSendRequest.email",
    "OtpSendRequest.params",
    "OtpSendRequest.user_id",
    "OtpSendRequest.end_user_ip",
    "OtpSendRequest.end_user_device",
    "OtpVerifyRequest.phone",
    "OtpVerifyRequest.email",
    "OtpVerifyRequest.code",
    "ExplainRouteRequest.params",
    "ExplainRouteRequest.text",
}
NAMES_PARAMETERS = {"ProviderTemplate.params"}
"""Fields that hold the names of parameters and never what they stand for."""
NAMES_A_PERSON_OR_A_SECRET = re.compile(
    r"(phone|email|device_tokens|device_uids?|user_id|username|end_user_\w+|recipient|allowed_recipients"
    r"|text|subject|html|params|code|secrets?|password)"
)
INTEGERS_OF_64_BITS = {
    FieldDescriptor.TYPE_INT64,
    FieldDescriptor.TYPE_UINT64,
    FieldDescriptor.TYPE_SINT64,
    FieldDescriptor.TYPE_FIXED64,
    FieldDescriptor.TYPE_SFIXED64,
}


def messages_below(message: Descriptor) -> Iterator[Descriptor]:
    """The message and those within it, without the entries of maps."""
    yield message
    for nested in message.nested_types:
        if not nested.GetOptions().map_entry:
            yield from messages_below(nested)


def all_messages() -> list[Descriptor]:
    return [below for file in FILES for top in file.message_types_by_name.values() for below in messages_below(top)]


def all_fields() -> list[FieldDescriptor]:
    return [field for message in all_messages() for field in message.fields]


def all_enums() -> list[EnumDescriptor]:
    tops = [enum for file in FILES for enum in file.enum_types_by_name.values()]
    return tops + [enum for message in all_messages() for enum in message.enum_types]


def short(full_name: str) -> str:
    """A full name without the package."""
    return full_name.removeprefix("angarium.v1.")


def is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def field_numbered(message: Descriptor, number: int) -> str | None:
    field = message.fields_by_number.get(number)
    return None if field is None else field.name


def as_proto(file: FileDescriptor) -> FileDescriptorProto:
    proto = FileDescriptorProto()
    file.CopyToProto(proto)
    return proto


def test_the_contract_has_its_services() -> None:
    """The services are those of this version, each in a file that is named after it."""
    found = {Path(file.name).stem: list(file.services_by_name) for file in FILES}
    expected: dict[str, list[str]] = {re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower(): [name] for name in READS}
    assert found == expected | {"message": [], "error_reason": []}


def test_field_1_of_a_request_is_the_tenant() -> None:
    """Field 1 of a request is `tenant_id`, or absent where the tenant is the key's or is embedded."""
    for method in METHODS:
        expected = None if method.name in WITHOUT_TENANT else "tenant_id"
        assert field_numbered(method.input_type, 1) == expected, method.full_name


def test_field_2_of_a_request_is_the_request_id() -> None:
    """Field 2 of a request is `request_id` on Send, OtpSend, OtpVerify and, as a look-up, GetStatus; else absent."""
    for method in METHODS:
        expected = "request_id" if method.name in WITH_REQUEST_ID else None
        assert field_numbered(method.input_type, 2) == expected, method.full_name


def test_no_two_rpcs_share_a_message() -> None:
    """Each RPC has a request and a response of its own name, in its service's file; only SendRequest is embedded."""
    for method in METHODS:
        assert method.input_type.name == f"{method.name}Request"
        assert method.output_type.name == f"{method.name}Response"
        assert method.input_type.file.name == method.output_type.file.name == method.containing_service.file.name
    edges = {method.input_type.name for method in METHODS} | {method.output_type.name for method in METHODS}
    assert len(edges) == 2 * len(METHODS)
    embedded = {field.message_type.name for field in all_fields() if field.message_type is not None}
    assert embedded & edges == {"SendRequest"}


def test_nothing_foreign_is_imported() -> None:
    """Whoever has protoc can compile the protos: they import each other and `google/protobuf/*` alone."""
    for file in FILES:
        for dependency in file.dependencies:
            assert dependency.name.startswith(("google/protobuf/", "angarium/v1/")), (file.name, dependency.name)


def test_nouns_of_several_services_stand_in_message_proto() -> None:
    """A service's file takes nouns from `message.proto` and from no other service's file."""
    for file in FILES:
        own = {Path(one.name).stem for one in file.dependencies if one.name.startswith("angarium/")}
        assert own <= {"message"}, file.name


@pytest.mark.parametrize("file", FILES, ids=lambda file: Path(file.name).stem)
def test_the_options_of_a_file(file: FileDescriptor) -> None:
    """Package, syntax and the options for Go and Java are what they were in the first commit."""
    proto, options = as_proto(file), file.GetOptions()
    assert (proto.syntax, proto.package) == ("proto3", "angarium.v1")
    assert options.go_package == "angarium/gen/go/angarium/v1;angariumv1"
    assert options.java_package == "angarium.v1"
    assert options.java_multiple_files
    camel = "".join(part.capitalize() for part in Path(file.name).stem.split("_"))
    assert options.java_outer_classname == f"{camel}Proto"


def test_reads_and_nothing_else_have_no_side_effects() -> None:
    """`idempotency_level = NO_SIDE_EFFECTS` stands on every read and on nothing else."""
    marked = {
        (method.containing_service.name, method.name)
        for method in METHODS
        if method.GetOptions().idempotency_level == MethodOptions.NO_SIDE_EFFECTS
    }
    assert marked == {(service, name) for service, names in READS.items() for name in names}


def test_reads_are_told_by_their_names() -> None:
    """An RPC whose name begins as a read's does is among the reads, so that a new one cannot be forgotten."""
    by_name = {m.name for m in METHODS if re.match(r"(Get|List|Describe|Watch|Peek|Explain|Preview|WhoAmI)", m.name)}
    assert by_name == {name for names in READS.values() for name in names}


def test_what_names_a_person_or_a_secret_is_redacted() -> None:
    """The fields marked `debug_redact` are exactly those that name a person or hold a secret or a content."""
    marked = {short(field.full_name) for field in all_fields() if field.GetOptions().debug_redact}
    assert marked == REDACTED


def test_no_field_names_a_person_unmarked() -> None:
    """A field of text whose name speaks of an address, a content or a secret is marked, wherever it stands."""
    for field in all_fields():
        holds_text = field.type in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES) or is_map(field)
        named = NAMES_A_PERSON_OR_A_SECRET.fullmatch(field.name) and short(field.full_name) not in NAMES_PARAMETERS
        if holds_text and named:
            assert field.GetOptions().debug_redact, field.full_name


def test_no_field_has_a_keyword_for_a_name() -> None:
    """No field is called by a word that a caller's language keeps for itself."""
    for field in all_fields():
        assert field.name not in {"from", "class", "package", "default", "import"}, field.full_name


def test_bools_that_default_to_true_have_presence() -> None:
    """`is_active` and `fallback` default to true or are three-valued, so they are `optional` wherever they stand."""
    fields = [field for field in all_fields() if field.name in {"is_active", "fallback"}]
    assert {field.name for field in fields} == {"is_active", "fallback"}
    for field in fields:
        assert field.has_presence, field.full_name


def test_updates_go_by_presence() -> None:
    """In the requests that change something, every scalar but its identity and etag can be absent."""
    always = {"tenant_id", "client_id", "type", "etag", "validate_only"}
    identities = {
        "ConfigureProviderRequest": "name",
        "UpdateTenantRequest": "tenant_id",
        "UpdateClientRequest": "client_id",
        "UpdateTemplateRequest": "key",
    }
    for name, identity in identities.items():
        message = next(one for one in all_messages() if one.name == name)
        for field in message.fields:
            scalar = field.message_type is None and field.enum_type is None
            if scalar and not field.is_repeated and field.name not in always | {identity}:
                assert field.has_presence, field.full_name


def test_there_are_no_oneofs() -> None:
    """No oneof but those that `optional` makes by itself: a recipient is one person with several addresses."""
    for message in all_messages():
        real = [oneof.name for oneof in message.oneofs if not oneof.name.startswith("_")]
        assert real == [], message.full_name


def test_enums_begin_with_unspecified() -> None:
    """An enum's 0 is `…_UNSPECIFIED`, and every value bears the enum's name in front."""
    for enum in all_enums():
        prefix = re.sub(r"(?<!^)(?=[A-Z])", "_", enum.name).upper() + "_"
        assert enum.values_by_number[0].name == f"{prefix}UNSPECIFIED", enum.full_name
        assert all(value.name.startswith(prefix) for value in enum.values), enum.full_name


def test_maps_have_strings_for_keys() -> None:
    """A map is `map<string, string>`, or counts by name in 32 bits: either has one canonical form."""
    maps = [field for field in all_fields() if is_map(field)]
    assert maps
    for field in maps:
        entry = field.message_type
        key, value = [part.type for part in entry.fields] if entry is not None else (0, 0)
        assert key == FieldDescriptor.TYPE_STRING, field.full_name
        assert value in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_INT32), field.full_name


def test_no_integer_has_64_bits() -> None:
    """JSON would print it in quotes."""
    for field in all_fields():
        assert field.type not in INTEGERS_OF_64_BITS, field.full_name


def test_times_and_spans_have_their_types() -> None:
    """What is called `…_time` is a Timestamp, and a span is a Duration; nothing else is either of them."""
    for field in all_fields():
        well_known = field.message_type.full_name if field.message_type is not None else ""
        is_time = re.search(r"_time(_min|_max)?$", field.name) is not None
        assert is_time == (well_known == "google.protobuf.Timestamp"), field.full_name
        is_span = field.name in {"ttl", "timeout", "latency"}
        assert is_span == (well_known == "google.protobuf.Duration"), field.full_name


def test_pages_are_alike() -> None:
    """A request with a `page_size` has a `page_token`, its response a `next_page_token`, and nothing counts totals."""
    paged = [method for method in METHODS if "page_size" in method.input_type.fields_by_name]
    assert paged
    for method in METHODS:
        wanted = method in paged
        assert ("page_token" in method.input_type.fields_by_name) == wanted, method.full_name
        assert ("next_page_token" in method.output_type.fields_by_name) == wanted, method.full_name
    assert not [field.full_name for field in all_fields() if field.name.startswith("total")]


def test_nothing_is_reserved() -> None:
    """Numbers kept for later are held by comments: taking a `reserved` away would count as breaking."""
    for file in FILES:
        assert "reserved_" not in str(as_proto(file)), file.name


@pytest.mark.parametrize(
    ("request_name", "line"),
    [
        ("ConfigureProviderRequest", '{"type":"kavenegar","secrets":{"api_key":"0123456789"}}'),
        ("ConfigureProviderRequest", '{"name":"kavenegar","is_active":false}'),
        (
            "SetRoutingRulesRequest",
            '{"rules":[{"name":"otp","intents":["OTP_LOGIN"],"steps":[{"providers":["kavenegar","twilio"]}]}]}',
        ),
        ("OtpSendRequest", '{"phone":"09120000111","template_key":"otp_login","params":{"token":"1234"}}'),
        (
            "CreateTemplateRequest",
            '{"template":{"key":"otp_login","text":"%CODE%","message_class":"MESSAGE_CLASS_OTP"}}',
        ),
        ("UpdateTemplateRequest", '{"key":"otp_login","is_active":false}'),
        ("SendRequest", '{"intent":"OTP_LOGIN","recipient":{"phone":"09120000111"},"text":"1234","ttl":"60s"}'),
    ],
)
def test_lines_that_work_by_hand(request_name: str, line: str) -> None:
    """Requests as one types them by hand are understood, and come back from the wire as they were written."""
    request_type = message_factory.GetMessageClass(next(one for one in all_messages() if one.name == request_name))
    request = request_type.FromString(json_format.Parse(line, request_type()).SerializeToString())
    assert json_format.MessageToDict(request, preserving_proto_field_name=True) == json.loads(line)


def test_the_stubs_are_of_these_protos() -> None:
    """The stubs were generated from these protos and hold the same messages, enums and services."""
    for path, file in zip(PATHS, FILES, strict=True):
        proto = as_proto(file)
        compiled = {m.name for m in proto.message_type} | {e.name for e in proto.enum_type}
        compiled |= {service.name for service in proto.service}
        written = set(re.findall(r"^(?:message|enum|service) (\w+)", path.read_text("utf-8"), re.MULTILINE))
        assert compiled == written, path.name
