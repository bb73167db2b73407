"""Server reflection, v1 beside v1alpha: grpcio-reflection serves the older one alone.

Both are the same messages under two package names. So v1's descriptor is v1alpha's with the other name, and every
answer is v1alpha's own, read back as v1.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Any, cast

import grpc
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import Default
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha import reflection, reflection_pb2

PACKAGE, OLD_PACKAGE = "grpc.reflection.v1", "grpc.reflection.v1alpha"
SERVICE = f"{PACKAGE}.ServerReflection"
FILE = "grpc/reflection/v1/reflection.proto"


def add_reflection(server: grpc.aio.Server, services: Sequence[str]) -> None:
    """Serve both versions for these services, reflection itself among them."""
    shown = (*services, reflection.SERVICE_NAME, SERVICE)
    request_class, response_class = (_v1_class(f"ServerReflection{which}") for which in ("Request", "Response"))
    old = cast("Any", reflection).aio.ReflectionServicer(shown)

    async def inform(requests: AsyncIterator[Message], context: object) -> AsyncGenerator[Message, None]:
        asked = _read_as(reflection_pb2.ServerReflectionRequest, requests)
        async for answer in _read_as(response_class, old.ServerReflectionInfo(asked, context)):
            yield answer

    handler = grpc.stream_stream_rpc_method_handler(
        inform,
        request_deserializer=request_class.FromString,
        response_serializer=response_class.SerializeToString,
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"ServerReflectionInfo": handler}),))
    cast("Any", reflection).enable_server_reflection(shown, server)


async def _read_as(kind: type[Message], messages: AsyncIterator[Message]) -> AsyncGenerator[Any, None]:
    async for message in messages:
        yield kind.FromString(message.SerializeToString())


def _v1_class(name: str) -> type[Message]:
    """A message of v1, from the pool, so that reflection can describe itself."""
    pool = Default()
    try:
        pool.FindFileByName(FILE)
    except KeyError:
        pool.Add(_v1_file())
    return GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{name}"))


def _v1_file() -> FileDescriptorProto:
    file = FileDescriptorProto()
    reflection_pb2.DESCRIPTOR.CopyToProto(file)
    file.name, file.package = FILE, PACKAGE
    for message in file.message_type:
        _rename_fields(message)
    for service in file.service:
        for method in service.method:
            method.input_type, method.output_type = _renamed(method.input_type), _renamed(method.output_type)
    return file


def _rename_fields(message: DescriptorProto) -> None:
    for field in message.field:
        if field.type_name:
            field.type_name = _renamed(field.type_name)


def _renamed(type_name: str) -> str:
    return type_name.replace(f".{OLD_PACKAGE}.", f".{PACKAGE}.")
