"""The order of a list of configuration, and where in it a page ends."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from angarium.v1.provider_service_pb2 import Provider
from angarium.v1.template_service_pb2 import Template
from google.protobuf.timestamp_pb2 import Timestamp

from server.api.convert.checks import Checks

DEFAULT = "priority"
_ORDER = re.compile(r"([a-z_]+)( desc)?")


class _Entry(Protocol):
    """What can be ordered."""

    @property
    def name(self) -> str: ...
    @property
    def priority(self) -> int: ...
    @property
    def create_time(self) -> Timestamp: ...
    @property
    def update_time(self) -> Timestamp: ...


Entry = TypeVar("Entry", bound=_Entry)


@dataclass(frozen=True, slots=True)
class Ordering(Generic[Entry]):
    """By one field, then by what names an entry; all of it the other way round where `descending`."""

    value_of: Callable[[Entry], str | int]
    named: Callable[[Entry], str]
    descending: bool

    def page(self, rows: Sequence[Entry], after: Sequence[str]) -> list[Entry]:
        """The rows in order, behind the one whose marks are `after`, or all of them."""
        ordered = sorted(rows, key=self._key, reverse=self.descending)
        if not after or not ordered:
            return ordered
        is_number = isinstance(self.value_of(ordered[0]), int)
        last = (int(after[0]) if is_number else after[0], after[1])
        return [row for row in ordered if (self._key(row) < last if self.descending else self._key(row) > last)]

    def marks(self, row: Entry) -> list[str]:
        """By what the place of a row is found again, though the row itself may go."""
        value, name = self._key(row)
        return [str(value), name]

    def _key(self, row: Entry) -> tuple[str | int, str]:
        return self.value_of(row), self.named(row)


def ordering_of(checks: Checks, order_by: str) -> Ordering[Provider]:
    """The order of accounts that a request asks for; by priority unless told."""
    return _ordering(checks, order_by, {"type": lambda row: row.type}, lambda row: row.name)


def template_ordering_of(checks: Checks, order_by: str) -> Ordering[Template]:
    """The order of templates that a request asks for; by priority unless told."""
    return _ordering(checks, order_by, {"key": lambda row: row.key}, lambda row: row.key)


def _ordering(
    checks: Checks, order_by: str, own: Mapping[str, Callable[[Entry], str]], named: Callable[[Entry], str]
) -> Ordering[Entry]:
    fields: dict[str, Callable[[Entry], str | int]] = {
        "name": lambda row: row.name,
        **own,
        "priority": lambda row: row.priority,
        "create_time": lambda row: row.create_time.ToNanoseconds(),
        "update_time": lambda row: row.update_time.ToNanoseconds(),
    }
    found = _ORDER.fullmatch(order_by or DEFAULT)
    if found is None or found[1] not in fields:
        *first, last = fields
        checks.fail("order_by", f"must be {', '.join(first)} or {last}, with ` desc` behind it or not")
        return Ordering(fields[DEFAULT], named, descending=False)
    return Ordering(fields[found[1]], named, descending=found[2] is not None)
