"""Which senders an account may use."""

from server.model.accounts import Account


def may_use(account: Account, sender: str) -> bool:
    """An account that has a line of its own sends from that line alone; of others only their provider knows."""
    own = account.settings.get("sender", "")
    return own in ("", sender)
