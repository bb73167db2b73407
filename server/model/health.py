"""How well provider accounts do, as values that a plan can be made from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import auto

from server.model.clock import Micros
from server.model.enums import Channel, Word

Line = tuple[str, Channel, str]
"""(account uid, channel, country of the destination): what a breaker watches."""


class Cause(Word):
    """Why an account, or a part of it, is passed over for a while."""

    BREAKER_OPEN = auto()
    RATE_LIMITED = auto()
    CREDENTIALS = auto()
    FUNDS = auto()
    SENDER = auto()
    TEMPLATE = auto()


@dataclass(frozen=True, slots=True)
class Closed:
    """Not to be used before `until`."""

    until: Micros
    cause: Cause


@dataclass(frozen=True, slots=True)
class Health:
    """What is closed at one moment, in this process. Whatever is not named is open.

    Senders and templates go by the account's uid and their name there. `spent` names the accounts whose budget for
    repeats is used up.
    """

    lines: Mapping[Line, Closed] = field(default_factory=dict[Line, Closed])
    accounts: Mapping[str, Closed] = field(default_factory=dict[str, Closed])
    senders: Mapping[tuple[str, str], Closed] = field(default_factory=dict[tuple[str, str], Closed])
    templates: Mapping[tuple[str, str], Closed] = field(default_factory=dict[tuple[str, str], Closed])
    spent: frozenset[str] = frozenset()

    def closed(self, line: Line, sender: str, template: str, now: Micros) -> Closed | None:
        """What stands in the way of this line at `now`; the account's own fault first.

        `template` is the provider's own name of what says it; "" where a text does.
        """
        uid = line[0]
        of_sender, of_template = self.senders.get((uid, sender)), self.templates.get((uid, template))
        for found in (self.accounts.get(uid), of_sender, of_template, self.lines.get(line)):
            if found is not None and found.until > now:
                return found
        return None
