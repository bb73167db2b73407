"""How the content of a message is sealed, and opened again."""

import json

from server.model.enums import Channel, Platform
from server.model.messages import Content, Recipient
from server.model.work import SandboxCopy
from server.store.rows import dump
from server.vault.vault import TenantVault


def seal_content(vault: TenantVault, message_id: str, content: Content) -> tuple[bytes, bytes]:
    """The sealed body and the sealed recipient of a message."""
    body = dump([content.text, content.sender])
    person = content.recipient
    recipient = dump(
        [
            person.phone,
            person.email,
            person.device_tokens,
            person.user_id,
            person.username,
            person.platform or "",
            person.locale,
        ]
    )
    return (
        vault.seal(body.encode(), f"body:{message_id}"),
        vault.seal(recipient.encode(), f"recipient:{message_id}"),
    )


def open_content(vault: TenantVault, message_id: str, body: bytes, recipient: bytes) -> Content | None:
    """What was sealed; None where it has been erased. Raises Unopenable."""
    if not body or not recipient:
        return None
    text, sender = json.loads(vault.open(body, f"body:{message_id}"))
    person = json.loads(vault.open(recipient, f"recipient:{message_id}"))
    phone, email, tokens, user_id, username, platform, locale = person
    known = Platform(platform) if platform else None
    return Content(Recipient(phone, email, tuple(tokens), user_id, username, known, locale), text, sender)


def seal_copy(vault: TenantVault, message_id: str, copy: SandboxCopy) -> bytes:
    """The sealed content of a sandbox copy."""
    content = dump([copy.recipient, copy.sender, copy.text])
    return vault.seal(content.encode(), _about_copy(message_id, copy.attempt))


def open_copy(
    vault: TenantVault, message_id: str, attempt: int, channel: Channel, provider: str, content: bytes
) -> SandboxCopy:
    """The copy whose content was sealed. Raises Unopenable."""
    recipient, sender, text = json.loads(vault.open(content, _about_copy(message_id, attempt)))
    return SandboxCopy(attempt, channel, provider, recipient, sender, text)


def _about_copy(message_id: str, attempt: int) -> str:
    return f"sandbox:{message_id}:{attempt}"
