"""What a caller of OtpService does, through its stubs."""

from typing import Any

from angarium.v1 import otp_service_pb2 as wire, template_service_pb2 as kept
from angarium.v1.message_pb2 import MESSAGE_CLASS_OTP

from server.model.enums import DueKind, MessageClass
from tests.api.edge import Client, Edge

SOMEBODY = "09121234567"
"""Not magic: with limits."""
Result = wire.OtpVerifyResponse


async def make_template(caller: Client, key: str = "otp_login", **fields: Any) -> None:
    """A template that says a code."""
    given = {"key": key, "text": "Your code is %CODE%.", "message_class": MESSAGE_CLASS_OTP, **fields}
    tenant_id = given.pop("tenant_id", "")
    asked = kept.CreateTemplateRequest(tenant_id=tenant_id, template=kept.Template(**given))
    await caller.templates.CreateTemplate(asked)


def asking(**fields: Any) -> wire.OtpSendRequest:
    """An OtpSend that is accepted as it is; fields replace or, where None, remove what it has."""
    asked = {"phone": SOMEBODY, "template_key": "otp_login", **fields}
    return wire.OtpSendRequest(**{name: value for name, value in asked.items() if value is not None})


async def send(caller: Client, **fields: Any) -> wire.OtpSendResponse:
    return await caller.otp.OtpSend(asking(**fields))


async def verify(caller: Client, code: str, **fields: Any) -> wire.OtpVerifyResponse:
    return await caller.otp.OtpVerify(wire.OtpVerifyRequest(code=code, **fields))


async def code_of(edge: Edge, sent: wire.OtpSendResponse) -> str:
    """The code that goes out with a message that waits, as whoever claims it finds it."""
    claims = await edge.store.claim(MessageClass.OTP, frozenset({DueKind.SEND}), 50)
    content = next(claim.content for claim in claims if claim.case.message.id == sent.tracking_id)
    assert content is not None
    return content.params["CODE"]
