"""What a sandbox sent, as PeekOutbox shows it."""

from angarium.v1 import sandbox_service_pb2 as wire

from server.api.convert.times import timestamp
from server.api.convert.words import CHANNELS
from server.store.reading import SandboxRecord


def sandbox_message(record: SandboxRecord) -> wire.SandboxMessage:
    """One hand-off, with what it said and its address."""
    copy = record.copy
    return wire.SandboxMessage(
        tracking_id=record.tracking_id,
        attempt=copy.attempt,
        channel=CHANNELS.number(copy.channel),
        provider=copy.provider,
        recipient=copy.recipient,
        sender=copy.sender,
        subject=copy.subject,
        text=copy.text,
        template_name=copy.template,
        params=copy.params,
        create_time=timestamp(record.created_at),
    )
