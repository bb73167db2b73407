"""What an upstream is to the rest of the gateway."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from server.model.accounts import Account, Check, HandOff, ProviderType, Sought
from server.model.enums import Channel
from server.model.messages import Follow
from server.model.outcomes import LookUp, Outcome, Receipt, Report
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

    async def look_up(self, sought: Sequence[Sought]) -> Sequence[LookUp]:
        """Whether the provider took these hand-offs: an answer to each, in their order.

        Two attempts of one message bear the same provider key. NeverRegistered only where the provider's word is proof.
        """
        ...

    def follow(self, channel: Channel, *, templated: bool) -> Follow:
        """How what becomes of a message of this kind can be learned. `pushes`: receipts go to `HandOff.report_to`."""
        ...

    def reports(self, url: str, headers: Mapping[str, str], body: bytes) -> Sequence[Report] | None:
        """What a call to a URL of ours reports; None where it is not proved to come from the provider.

        `url` is the one that `report_to` named, with its query; names of headers are in lower case. Statuses that tell
        nothing are left out. Never raises for anything that a body can hold.
        """
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
