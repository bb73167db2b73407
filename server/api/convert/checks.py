"""Collects whatever is wrong with a request, so that a caller is told of all of it at once."""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from server.api.convert.times import BadTime, micros_of, span_of
from server.api.convert.words import Words
from server.model.clock import Micros
from server.model.enums import Word
from server.model.errors import Invalid, Reason, Violation

ID_CHARS_MAX = 120
CAPTION_CHARS_MAX = 255
PAGE_SIZE_DEFAULT = 50
PAGE_SIZE_MAX = 1_000

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_CONTROL_BUT_BREAKS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_IDENTITY = re.compile(r"[A-Za-z0-9_.:@-]+")
_INTENT = re.compile(r"[A-Za-z0-9_.:-]+")
_PRINTABLE_ASCII = re.compile(r"[\x20-\x7e]*")
_LOCALE = re.compile(r"[A-Za-z]{2,8}(?:-[A-Za-z0-9]{1,8})*")
LOCALE_CHARS_MAX = 35

_Word = TypeVar("_Word", bound=Word)
_Number = TypeVar("_Number", bound=int)


class Checks:
    """The violations of one request. Each check gives back a value to go on with, whether it held or not."""

    def __init__(self) -> None:
        self._violations: list[Violation] = []

    def fail(self, field: str, description: str) -> None:
        """Note that a field is bad; `description` goes on from the field's name ("is required") or is a sentence."""
        self._violations.append(Violation(field, description[:1].upper() + description[1:].rstrip(".") + "."))

    @property
    def failed(self) -> bool:
        """Whether anything was noted."""
        return bool(self._violations)

    def settle(self) -> None:
        """Raise Invalid(INVALID_FIELD) with everything that was noted."""
        if self._violations:
            names = ", ".join(dict.fromkeys(v.field for v in self._violations))
            raise Invalid(Reason.INVALID_FIELD, f"Bad fields: {names}.", violations=tuple(self._violations))

    def line(self, field: str, value: str, chars_max: int, *, required: bool = False) -> str:
        """One line of text without control characters."""
        if required and not value:
            self.fail(field, "is required")
        elif len(value) > chars_max:
            self.fail(field, f"has more than {chars_max} characters")
        elif _CONTROL.search(value):
            self.fail(field, "holds control characters")
        return value

    def text(self, field: str, value: str, chars_max: int) -> str:
        """Text that may hold line breaks and tabs."""
        if not value:
            self.fail(field, "is required")
        elif len(value) > chars_max:
            self.fail(field, f"has more than {chars_max} characters")
        elif _CONTROL_BUT_BREAKS.search(value):
            self.fail(field, "holds control characters other than line breaks and tabs")
        return value

    def identity(self, field: str, value: str, *, required: bool = True) -> str:
        """A name that the caller gives to a tenant, a client or the like."""
        return self._matching(field, value, _IDENTITY, "A-Z a-z 0-9 _ . : @ -", required=required)

    def intent(self, field: str, value: str, *, required: bool = True) -> str:
        """An intent, or the name of a rule."""
        return self._matching(field, value, _INTENT, "A-Z a-z 0-9 _ . : -", required=required)

    def printable_ascii(self, field: str, value: str, chars_max: int) -> str:
        """A key of the caller's own."""
        if len(value) > chars_max:
            self.fail(field, f"has more than {chars_max} characters")
        elif not _PRINTABLE_ASCII.fullmatch(value):
            self.fail(field, "holds other than printable ASCII characters")
        return value

    def locale(self, field: str, value: str) -> str:
        """A BCP 47 tag, or nothing. Many systems write `fa_IR`: it comes back as `fa-IR`."""
        tag = value.replace("_", "-")
        if tag and (len(tag) > LOCALE_CHARS_MAX or not _LOCALE.fullmatch(tag)):
            self.fail(field, "is no BCP 47 language tag such as fa-IR")
        return tag

    def word(self, field: str, words: Words[_Word, _Number], number: int) -> _Word | None:
        """The model's word for an enum's number; None where it is unset."""
        if not words.knows(number):
            self.fail(field, f"has no value {number}")
        return words.word(number)

    def count(self, field: str, values: Collection[object], most: int) -> bool:
        """Whether there are no more than so many values."""
        if len(values) > most:
            self.fail(field, f"has {len(values)} values; {most} are allowed")
        return len(values) <= most

    def lines(self, field: str, values: Sequence[str], most: int, chars_max: int) -> tuple[str, ...]:
        """A list of lines, none of them empty."""
        if self.count(field, values, most):
            for number, value in enumerate(values):
                self.line(f"{field}[{number}]", value, chars_max, required=True)
        return tuple(values)

    def entries(self, field: str, values: Mapping[str, str], most: int, chars_max: int) -> dict[str, str]:
        """A map of texts by name; a text may be empty."""
        if self.count(field, values, most):
            for name, value in values.items():
                self.identity(field, name)
                if value:
                    self.text(f"{field}.{name}", value, chars_max)
        return dict(values)

    def time(self, field: str, value: Timestamp) -> Micros | None:
        """A time; None where it is bad."""
        try:
            return micros_of(value)
        except BadTime as bad:
            self.fail(field, str(bad))
            return None

    def span(self, field: str, value: Duration) -> Micros | None:
        """A span; None where it is bad."""
        try:
            return span_of(value)
        except BadTime as bad:
            self.fail(field, str(bad))
            return None

    def page_size(self, value: int) -> int:
        """How many entries a page shall have: 50 unless told, 1,000 at most."""
        if value < 0:
            self.fail("page_size", "is negative")
        return min(value, PAGE_SIZE_MAX) or PAGE_SIZE_DEFAULT

    def exactly_one(self, fields: Mapping[str, bool]) -> None:
        """One of these fields must be there, and no other of them."""
        if sum(fields.values()) != 1:
            for name in fields:
                self.fail(name, f"exactly one of {' and '.join(fields)} is needed")

    def _matching(self, field: str, value: str, pattern: re.Pattern[str], allowed: str, *, required: bool) -> str:
        if not value:
            if required:
                self.fail(field, "is required")
        elif len(value) > ID_CHARS_MAX:
            self.fail(field, f"has more than {ID_CHARS_MAX} characters")
        elif not pattern.fullmatch(value):
            self.fail(field, f"holds characters other than {allowed}")
        return value
