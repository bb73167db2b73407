"""How the content of a message is sealed, and opened again."""

import json
from dataclasses import astuple, replace

from server.model.enums import Channel, Platform
from server.model.messages import CODE, CodeSource, Content, Recipient
from server.model.work import SandboxCopy
from server.store.rows import dump
from server.vault.vault import TenantVault


def seal_content(vault: TenantVault, message_id: str, content: Content) -> tuple[bytes, bytes]:
    """The sealed body and the sealed recipient of a message."""
    body = dump(_said(content))
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
    said = json.loads(vault.open(body, f"body:{message_id}"))
    person = json.loads(vault.open(recipient, f"recipient:{message_id}"))
    phone, email, tokens, user_id, username, platform, locale = person
    known = Platform(platform) if platform else None
    return with_code(vault, _content(Recipient(phone, email, tuple(tokens), user_id, username, known, locale), *said))


def with_code(vault: TenantVault, content: Content) -> Content:
    """The content with the parameter CODE filled in where it carries a verification's code. Raises Unopenable."""
    if content.code is None:
        return content
    return replace(content, params={**content.params, CODE: vault.code(content.code)})


def _said(content: Content) -> list[object]:
    """What a message says, as it is sealed; a derived code is never in it.

    A text with nothing else is sealed as the release before this one seals it, so that either opens it.
    """
    if not (content.params or content.code or content.application_key):
        return [content.text, content.sender]
    params = {name: value for name, value in content.params.items() if content.code is None or name != CODE}
    code = astuple(content.code) if content.code else None
    return [content.text, content.sender, params, code, content.application_key]


def _content(
    recipient: Recipient,
    text: str,
    sender: str,
    params: dict[str, str] | None = None,
    code: tuple[str, str, int, int] | None = None,
    application_key: str = "",
) -> Content:
    """The release before this one sealed no more than text and sender."""
    return Content(recipient, text, sender, params or {}, CodeSource(*code) if code else None, application_key)


def seal_copy(vault: TenantVault, message_id: str, copy: SandboxCopy) -> bytes:
    """The sealed content of a sandbox copy."""
    more = [copy.subject, copy.template, dict(copy.params)] if copy.subject or copy.template or copy.params else []
    content = dump([copy.recipient, copy.sender, copy.text, *more])
    return vault.seal(content.encode(), _about_copy(message_id, copy.attempt))


def open_copy(
    vault: TenantVault, message_id: str, attempt: int, channel: Channel, provider: str, content: bytes
) -> SandboxCopy:
    """The copy whose content was sealed. Raises Unopenable."""
    recipient, sender, text, *rest = json.loads(vault.open(content, _about_copy(message_id, attempt)))
    return SandboxCopy(attempt, channel, provider, recipient, sender, text, *rest)


def _about_copy(message_id: str, attempt: int) -> str:
    return f"sandbox:{message_id}:{attempt}"
