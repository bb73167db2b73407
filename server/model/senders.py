"""Which senders an account may use."""

from server.model.accounts import Account


def may_use(account: Account, sender: str) -> bool:
    """Whether the account sends under this sender; one that has a sender of its own sends under that one alone."""
    own = account.settings.get("sender", "") or account.settings.get("from", "")
    return not sender or own in ("", sender)
