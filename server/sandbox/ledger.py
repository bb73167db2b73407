"""What the accounts of the sandbox upstream did: bounded, and in memory alone."""

import time
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from server.model.clock import SECOND, Micros
from server.sandbox.faults import OK

ACCOUNTS_MAX = 1_000

Name = TypeVar("Name")
Entry = TypeVar("Entry")


class Recent(Generic[Name, Entry]):
    """The newest entries by their names; an older one is forgotten when its place is needed."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._entries: OrderedDict[Name, Entry] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, name: Name) -> Entry | None:
        return self._entries.get(name)

    def keep(self, name: Name, entry: Entry) -> None:
        """Remembers an entry as the newest one."""
        self._entries[name] = entry
        self._entries.move_to_end(name)
        while len(self._entries) > self._most:
            self._entries.popitem(last=False)

    def newest_first(self) -> Iterator[Entry]:
        return iter(reversed(self._entries.values()))


@dataclass(slots=True)
class Ledger(ABC):
    """One account: what it is told to answer, and how often it called."""

    answer: str = OK
    calls: int = 0

    @abstractmethod
    def counts(self) -> Mapping[str, int]:
        """What else its page tells, without texts and without numbers of people."""


AnyLedger = TypeVar("AnyLedger", bound=Ledger)


class Ledgers(Generic[AnyLedger]):
    """Every account of one provider that has called: the last 1,000 of them."""

    def __init__(self, make: Callable[[], AnyLedger]) -> None:
        self._make = make
        self._accounts: Recent[str, AnyLedger] = Recent(ACCOUNTS_MAX)

    def of(self, key: str) -> AnyLedger:
        """The ledger of an account, made at its first call."""
        found = self._accounts.get(key) or self._make()
        self._accounts.keep(key, found)
        return found


def now_micros() -> Micros:
    return int(time.time() * SECOND)
