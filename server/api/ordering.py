"""The order of a list of provider accounts, and where in it a page ends."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from angarium.v1.provider_service_pb2 import Provider

from server.api.convert.checks import Checks

_ORDER = re.compile(r"(name|type|priority|create_time|update_time)( desc)?")
_KEYS: Mapping[str, Callable[[Provider], str | int]] = {
    "name": lambda row: row.name,
    "type": lambda row: row.type,
    "priority": lambda row: row.priority,
    "create_time": lambda row: row.create_time.ToNanoseconds(),
    "update_time": lambda row: row.update_time.ToNanoseconds(),
}
_NUMBERS = ("priority", "create_time", "update_time")
DEFAULT = "priority"


@dataclass(frozen=True, slots=True)
class Ordering:
    """By one field, then by name; all of it the other way round where `descending`."""

    field: str
    descending: bool

    def page(self, rows: Sequence[Provider], after: Sequence[str]) -> list[Provider]:
        """The rows in order, behind the one whose marks are `after`, or all of them."""
        ordered = sorted(rows, key=self._key, reverse=self.descending)
        if not after:
            return ordered
        last = (int(after[0]) if self.field in _NUMBERS else after[0], after[1])
        return [row for row in ordered if (self._key(row) < last if self.descending else self._key(row) > last)]

    def marks(self, row: Provider) -> list[str]:
        """By what the place of a row is found again, though the row itself may go."""
        value, name = self._key(row)
        return [str(value), name]

    def _key(self, row: Provider) -> tuple[str | int, str]:
        return _KEYS[self.field](row), row.name


def ordering_of(checks: Checks, order_by: str) -> Ordering:
    """The order that a request asks for; by priority unless told."""
    found = _ORDER.fullmatch(order_by or DEFAULT)
    if found is None:
        checks.fail(
            "order_by", "must be name, type, priority, create_time or update_time, with ` desc` behind it or not"
        )
        return Ordering(DEFAULT, descending=False)
    return Ordering(found[1], descending=found[2] is not None)
