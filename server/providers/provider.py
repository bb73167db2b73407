"""What an upstream is to the rest of the gateway."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from server.model.accounts import Account, Check, HandOff, ProviderType
from server.model.outcomes import LookUp, Outcome, Receipt
from server.providers.transport import Transport


class Provider(Protocol):
    """One live account with an upstream. Safe for concurrent use by the tasks of one event loop.

    No method raises for anything that an upstream can do; cancellation passes through.
    """

    @property
    def type(self) -> ProviderType:
        """How accounts of this kind are configured and what they can do."""
        ...

    async def send(self, hand_off: HandOff) -> Outcome:
        """Hands one message over, within `hand_off.timeout_seconds` in all; never twice."""
        ...

    async def statuses(self, ids: Sequence[str]) -> Sequence[tuple[str, Receipt]]:
        """What the provider reports of the messages with these ids of its own, in the order it tells.

        An id may come several times; one that it does not know, or does not answer for, is absent.
        """
        ...

    async def look_up(self, keys: Sequence[int]) -> Mapping[int, LookUp]:
        """Whether the provider took the messages with these provider keys; every key has an entry."""
        ...

    async def check(self) -> Check:
        """Whether the account itself works. Sends no message; Accepted with an empty id when all is well."""
        ...

    def preview(self, hand_off: HandOff) -> str:
        """The request as `send` would make it, secrets as `•••`. It holds the recipient and the text: never log it."""
        ...

    async def aclose(self) -> None:
        """Lets go of what this account holds. Calls in flight may still end."""
        ...


Maker = Callable[[Account, Transport], Provider]


@dataclass(frozen=True, slots=True)
class Kind:
    """A type of provider, and what makes a live one of an account."""

    type: ProviderType
    make: Maker
