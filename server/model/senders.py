"""Which senders an account may use."""

from server.model.accounts import Account


def may_use(account: Account, sender: str) -> bool:
    """Whether the account sends under this sender; one with a `sender` of its own sends under that one alone."""
    return not sender or account.settings.get("sender", "") in ("", sender)
