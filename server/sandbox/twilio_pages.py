"""Twilio's lists: filters by recipient, sender and time, and pages of at most a thousand."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Self
from urllib.parse import urlencode

from server.model.clock import Micros
from server.sandbox.forms import Form, first
from server.sandbox.twilio_records import Record
from server.sandbox.twilio_wire import number_in, span_of

PAGE_SIZE = 50
PAGE_SIZE_MAX = 1000
PAGES_MAX = 1_000_000

Within = Callable[[Micros], bool]


@dataclass(frozen=True, slots=True)
class Filters:
    """What a list is narrowed to."""

    to: str = field(repr=False)
    sender: str
    times: tuple[Within, ...]

    @classmethod
    def of(cls, form: Form, date: str) -> Self:
        """`To`, `From`, and a time as `date=`, `date<=` or `date>=`; the ends of a day belong to it."""
        times: list[Within] = []
        if written := first(form, date):
            times.append(span_of(written).__contains__)
        if written := first(form, f"{date}<"):
            times.append(_before(span_of(written).stop))
        if written := first(form, f"{date}>"):
            times.append(_from(span_of(written).start))
        return cls(first(form, "To"), first(form, "From"), tuple(times))

    def let_through(self, record: Record) -> bool:
        """Whether a record is among what was asked for."""
        if self.to not in ("", record.to) or self.sender not in ("", record.sender):
            return False
        return all(within(record.at) for within in self.times)


def page(path: str, name: str, form: Form, records: Iterator[Mapping[str, object]]) -> Mapping[str, object]:
    """One page of a list with the paths of its neighbours; `Page` counts from 0."""
    size = number_in(form, "PageSize", PAGE_SIZE, range(1, PAGE_SIZE_MAX + 1))
    number = number_in(form, "Page", 0, range(PAGES_MAX))
    start = number * size
    found = list(islice(records, start, start + size + 1))

    def uri(of: int) -> str:
        asked = {key: first(form, key) for key in form if key not in ("Page", "PageSize")}
        return f"{path}?{urlencode({**asked, 'PageSize': size, 'Page': of})}"

    return {
        name.lower(): found[:size],
        "page": number,
        "page_size": size,
        "start": start,
        "end": start + max(0, min(len(found), size) - 1),
        "uri": uri(number),
        "first_page_uri": uri(0),
        "previous_page_uri": uri(number - 1) if number else None,
        "next_page_uri": uri(number + 1) if len(found) > size else None,
    }


def _before(end: Micros) -> Within:
    return lambda at: at < end


def _from(start: Micros) -> Within:
    return lambda at: at >= start
