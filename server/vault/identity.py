"""Identities for the rooms that act: the rules are handed theirs."""

import secrets
import time

from server.model.ids import RANDOM_BYTES, uuid7


def new_id() -> str:
    """A UUID of version 7 of now: ids sort by the time of their making."""
    return uuid7(time.time_ns() // 1000, secrets.token_bytes(RANDOM_BYTES))
