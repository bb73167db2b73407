"""What may be shown of a recipient."""

from server.model.emails import hint_of_email
from server.model.messages import Recipient
from server.model.phones import hint_of


def hint_of_recipient(recipient: Recipient) -> str:
    """Enough to recognise the first address by, never the whole of it; empty where only a user id is known."""
    if recipient.phone:
        return hint_of(recipient.phone)
    if recipient.email:
        return hint_of_email(recipient.email)
    if recipient.device_tokens:
        return f"{len(recipient.device_tokens)} device(s)"
    return f"{recipient.username[:1]}•••" if recipient.username else ""
