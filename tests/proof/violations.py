"""What a check finds."""

from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Violation:
    """A promise that was broken: the check's number, whom it concerns, and how."""

    check: str
    subject: str
    why: str

    def __str__(self) -> str:
        return f"{self.check} {self.subject}: {self.why}"
