"""What an upstream read, did and answered, one JSON line a request, on the disk before the answer leaves.

It is written outside the gateway that is judged, by one that may be killed too: a line is whole or does not count.
"""

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum, auto
from pathlib import Path
from typing import Any, Self

from server.model.clock import Micros
from tests.scripted_upstream import Break, Raw, Recorded, Say, Silence

SEND = "sms/send"
LOOK_UP = "sms/statuslocalmessageid"
OK = 200


class Did(StrEnum):
    """What the upstream did with a request that it had read to its last byte."""

    ACCEPT = auto()
    """A text was taken, and that was answered."""
    DEDUPE = auto()
    """Nothing was taken: the number was known, and the record of then was answered."""
    REFUSE = auto()
    """Nothing was taken, and the answer names no record."""
    ANSWER = auto()
    """No text was at stake: a status, a look-up, the account."""
    LATE = auto()
    """A whole answer, held back first."""
    SLOW = auto()
    """A whole answer, byte by byte."""
    RESET = auto()
    """The connection was cut instead of a whole answer."""
    LOSE = auto()
    """No answer at all."""


@dataclass(frozen=True)
class Entry:
    """One request that was read whole; `at` is when, in microseconds UTC.

    `taken`: this very request made a text; `known`: its number had made one before. `status` and `code` are the HTTP
    status and the code in the body of the answer, 0 where none was written whole. `found` is what a look-up was told:
    number to status.
    """

    at: int
    number: int
    connection: int
    account: str
    call: str
    did: Did
    taken: bool
    known: bool
    status: int = 0
    code: int = 0
    localid: str = ""
    receptor: str = ""
    text: str = ""
    found: Mapping[str, int] = field(default_factory=dict)

    def line(self) -> str:
        """Without a line break in it, whatever the text holds."""
        return json.dumps(asdict(self), ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def of(cls, line: str) -> Self:
        """The entry in a line."""
        values: dict[str, Any] = json.loads(line)
        values["did"] = Did(values["did"])
        return cls(**values)


class Ledger:
    """An append-only file, written by one process: ScriptedUpstream(ledger=Ledger(path)). `now` is its clock."""

    def __init__(self, path: Path, now: Callable[[], Micros] = lambda: time.time_ns() // 1000) -> None:
        self.path = path
        self._now = now
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def note(self, request: Recorded, reply: Say | Break | Silence | Raw, *, taken: bool, known: bool) -> None:
        """Append a request and what became of it; returns when that is on the disk. Blocks."""
        entry = entry_of(request, reply, at=self._now(), taken=taken, known=known)
        os.write(self._file, f"{entry.line()}\n".encode())
        os.fdatasync(self._file)

    def entries(self) -> list[Entry]:
        """Everything noted so far."""
        return read_ledger(self.path)

    def close(self) -> None:
        os.close(self._file)


def read_ledger(path: Path) -> list[Entry]:
    """Every entry in the order of writing. A torn last line belongs to a request that was never answered: left out."""
    whole, _, _ = path.read_text("utf-8", errors="replace").rpartition("\n")
    return [Entry.of(line) for line in whole.split("\n") if line]


def entry_of(request: Recorded, reply: Say | Break | Silence | Raw, *, at: int, taken: bool, known: bool) -> Entry:
    """A request and its reply as the ledger keeps them."""
    whole = reply if isinstance(reply, Say) and reply.length in (None, len(reply.body)) else None
    code, entries = _envelope(whole) if whole else (0, [])
    named = request.call == SEND and code == OK and any(entry.get("messageid") for entry in entries)
    return Entry(
        at=at,
        number=request.number,
        connection=request.connection,
        account=account_of(request.path),
        call=request.call,
        did=_did(request, reply, named=named, known=known),
        taken=taken or (named and not known),
        known=known,
        status=whole.status if whole else 0,
        code=code,
        localid=request.form.get("localid", ""),
        receptor=request.form.get("receptor", ""),
        text=request.form.get("message", ""),
        found={str(e["localid"]): int(e["status"]) for e in entries} if request.call == LOOK_UP else {},
    )


def _did(request: Recorded, reply: Say | Break | Silence | Raw, *, named: bool, known: bool) -> Did:
    match reply:
        case Silence():
            return Did.LOSE
        case Say() if reply.length in (None, len(reply.body)):
            return _answered(request, reply, named=named, known=known)
        case _:
            return Did.RESET


def _answered(request: Recorded, say: Say, *, named: bool, known: bool) -> Did:
    if say.delay_seconds:
        return Did.LATE
    if say.by_byte_seconds:
        return Did.SLOW
    if request.call != SEND:
        return Did.ANSWER
    if not named:
        return Did.REFUSE
    return Did.DEDUPE if known else Did.ACCEPT


def _envelope(say: Say) -> tuple[int, list[dict[str, Any]]]:
    """The code and the entries of Kavenegar's answer; 0 and none where the body is something else."""
    try:
        body = json.loads(say.body)
        code, entries = int(body["return"]["status"]), body["entries"]
    except (ValueError, TypeError, KeyError):
        return 0, []
    return code, [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []


def account_of(path: str) -> str:
    """The key of the account, which Kavenegar has in its path: /v1/KEY/sms/send.json."""
    parts = path.strip("/").split("/")
    return parts[-3] if len(parts) > 3 else ""
