"""Pages: which entries one holds, and the token of the next."""

import hashlib
from collections.abc import Sequence
from typing import TypeVar

from google.protobuf.message import Message

PAGE_BYTES_MAX = 2 * 1024 * 1024
"""A page ends early rather than grow beyond what a client takes."""

_Entry = TypeVar("_Entry", bound=Message)


def listing_of(method: str, request: Message) -> str:
    """The name of the list that a request asks for: the method and every field that chooses its entries."""
    chosen = type(request)()
    chosen.CopyFrom(request)
    for field in ("page_size", "page_token"):
        chosen.ClearField(field)
    return f"{method} {hashlib.sha256(chosen.SerializeToString(deterministic=True)).hexdigest()}"


def fitting(entries: Sequence[_Entry]) -> Sequence[_Entry]:
    """As many of the entries, from the first, as fit on one page; at least one."""
    size = 0
    for count, entry in enumerate(entries):
        size += entry.ByteSize()
        if size > PAGE_BYTES_MAX and count:
            return entries[:count]
    return entries
