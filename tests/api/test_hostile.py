"""Every RPC, and every text field of every request, with what somebody hostile would put there."""

import asyncio
from collections.abc import Iterator
from typing import Any, cast

import grpc
import pytest
from angarium.v1 import (
    access_service_pb2 as access,
    notification_service_pb2 as notifications,
    provider_service_pb2 as providers,
    routing_service_pb2 as routing,
    template_service_pb2 as templates,
)
from angarium.v1.message_pb2 import NotificationFilter
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc import StatusCode

from server.api.server import SERVICES
from tests.api.edge import SECONDS, Edge, bearer, letter, refusal_of

TEXTS = ["'; DROP TABLE message; --", "\x00", "a\x00b", "x" * 70_000, "\u202e😀", "../../etc/passwd", "%s{x}${y}"]
FINE = {
    StatusCode.INVALID_ARGUMENT,
    StatusCode.NOT_FOUND,
    StatusCode.PERMISSION_DENIED,
    StatusCode.FAILED_PRECONDITION,
    StatusCode.ALREADY_EXISTS,
}
METHODS = [method for service in SERVICES for method in service.methods]
VALID: dict[str, Message] = {
    "SendRequest": letter(),
    "SendAndWatchRequest": notifications.SendAndWatchRequest(send=letter()),
    "WatchStatusRequest": notifications.WatchStatusRequest(filter=NotificationFilter()),
    "ConfigureProviderRequest": providers.ConfigureProviderRequest(name="sandbox"),
    "TestProviderRequest": providers.TestProviderRequest(name="sandbox"),
    "SetRoutingRulesRequest": routing.SetRoutingRulesRequest(
        rules=[routing.RoutingRule(name="r", steps=[routing.RouteStep()])], validate_only=True
    ),
    "CreateTemplateRequest": templates.CreateTemplateRequest(template=templates.Template(key="t", text="%name%")),
    "UpdateTemplateRequest": templates.UpdateTemplateRequest(key="t"),
    "PreviewTemplateRequest": templates.PreviewTemplateRequest(text="%name%"),
    "CreateTenantRequest": access.CreateTenantRequest(tenant_id="mall"),
    "CreateClientRequest": access.CreateClientRequest(client_id="shop"),
    "UpdateClientRequest": access.UpdateClientRequest(client_id="operator"),
    "CreateApiKeyRequest": access.CreateApiKeyRequest(client_id="operator", scopes=["send"]),
}


def path_of(method: MethodDescriptor) -> str:
    return f"/{method.containing_service.full_name}/{method.name}"


def valid(method: MethodDescriptor) -> Message:
    """A request that is answered well, or one as empty as possible."""
    return VALID.get(method.input_type.name, GetMessageClass(method.input_type)())


def spoilt(request: Message, text: str, depth: int = 4) -> Iterator[tuple[str, Message]]:
    """The request once for each text field that it has or could have, with the text in it."""
    for field in request.DESCRIPTOR.fields:
        copy = type(request)()
        copy.CopyFrom(request)
        if field.type == FieldDescriptor.TYPE_STRING:
            put(copy, field, text)
            yield field.name, copy
        elif field.message_type is not None and field.message_type.GetOptions().map_entry:
            holds_text = field.message_type.fields_by_name["value"].type == FieldDescriptor.TYPE_STRING
            getattr(copy, field.name)[text] = "value" if holds_text else 1
            yield f"{field.name}[key]", copy
            if holds_text:
                copy = type(request)()
                copy.CopyFrom(request)
                getattr(copy, field.name)["api_key"] = text
                yield f"{field.name}[]", copy
        elif field.message_type is not None and depth:
            yield from within(request, field, text, depth)


def put(request: Message, field: Any, text: str) -> None:
    if repeated(field):
        getattr(request, field.name).append(text)
    else:
        setattr(request, field.name, text)


def within(request: Message, field: Any, text: str, depth: int) -> Iterator[tuple[str, Message]]:
    held = getattr(request, field.name)
    inner = (held[0] if len(held) else held.add()) if repeated(field) else held
    for name, spoilt_inner in spoilt(inner, text, depth - 1):
        copy = type(request)()
        copy.CopyFrom(request)
        target = getattr(copy, field.name)
        if repeated(field):
            del target[:]
            target.append(spoilt_inner)
        else:
            target.CopyFrom(spoilt_inner)
        yield f"{field.name}.{name}", copy


def repeated(field: Any) -> bool:
    return field.label == FieldDescriptor.LABEL_REPEATED


async def answer_to(channel: grpc.aio.Channel, method: MethodDescriptor, request: Message, secret: str) -> StatusCode:
    """The code of a call; of a stream, that of its first answer."""
    metadata, body = bearer(secret) if secret else (), request.SerializeToString()
    try:
        if not method.server_streaming:
            await channel.unary_unary(path_of(method))(body, timeout=SECONDS, metadata=metadata)
            return StatusCode.OK
        stream: Any = channel.unary_stream(path_of(method))(body, timeout=SECONDS, metadata=metadata)
        await asyncio.wait_for(stream.read(), SECONDS)
        stream.cancel()
    except grpc.aio.AioRpcError as error:
        return refusal_of(error).code
    return StatusCode.OK


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
async def test_every_rpc_needs_a_key(sqlite_edge: Edge, method: MethodDescriptor) -> None:
    """Whatever the RPC, without a key it is UNAUTHENTICATED."""
    async with grpc.aio.insecure_channel(sqlite_edge.address) as channel:
        assert await answer_to(channel, method, valid(method), "") == StatusCode.UNAUTHENTICATED


async def test_every_text_field_takes_anything(edge: Edge) -> None:
    """Row 38: what is hostile is kept literally or refused for what it is; it is never a fault of ours."""
    bad: dict[str, StatusCode] = {}
    count = 0
    async with grpc.aio.insecure_channel(edge.address) as channel:
        for method in METHODS:
            for text in TEXTS:
                for name, request in spoilt(valid(method), text):
                    code = await answer_to(channel, method, request, edge.secret)
                    count += 1
                    if code not in FINE and code != StatusCode.OK:
                        bad[f"{method.name}.{name} {text[:10]!r}"] = code
    assert bad == {}
    assert count > 500
    whoami = cast("access.WhoAmIResponse", await edge.operator.access.WhoAmI(access.WhoAmIRequest()))
    assert whoami.tenant.tenant_id == "default"
