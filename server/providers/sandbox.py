"""The sandbox type: every channel, inside the process, with fates that the magic recipients tell.

The id that a message gets says what becomes of it, so reports need no memory and outlive a restart.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Mapping, Sequence

from server.model.accounts import Account, Check, HandOff, ProviderType, Sought
from server.model.clock import SECOND
from server.model.enums import Channel, FailureReason, ReceiptKind
from server.model.failures import Failure
from server.model.magic import SLOW_SECONDS, Fate, fate_of
from server.model.messages import Follow
from server.model.outcomes import (
    Accepted,
    Found,
    LookUp,
    NoAnswer,
    Outcome,
    Receipt,
    Refusal,
    Report,
    ambiguous,
    rate_limited,
    rejected,
    unavailable,
)
from server.providers.transport import Transport

TYPE = ProviderType(
    type="sandbox",
    caption="Sandbox",
    channels=tuple(Channel),
    follow=Follow(polls=True, looks_up=True),
    capabilities=("deduplication", "look_up", "status_polls"),
    in_process=True,
)
LOST_MAX = 10_000

_DELIVERED = Receipt(ReceiptKind.DELIVERED)
_UNDELIVERED = Receipt(
    ReceiptKind.UNDELIVERED,
    Failure(FailureReason.RECIPIENT_UNREACHABLE, "The sandbox reports this recipient as out of reach.", "UNDELIVERED"),
)
REPORTS: Mapping[Fate, tuple[Receipt, ...]] = {
    Fate.DELIVERED: (_DELIVERED,),
    Fate.UNDELIVERED: (_UNDELIVERED,),
    Fate.NO_RECEIPT: (),
    Fate.OUT_OF_ORDER: (_DELIVERED, Receipt(ReceiptKind.OTHER)),
    Fate.ANSWER_LOST: (_DELIVERED,),
    Fate.SLOW: (_DELIVERED,),
}


class Sandbox:
    """One account of the sandbox type. Remembers the last 10,000 messages whose answers it lost."""

    type = TYPE

    def __init__(self, account: Account, transport: Transport) -> None:  # noqa: ARG002 - what makes any provider
        self._lost: OrderedDict[int, str] = OrderedDict()

    async def send(self, hand_off: HandOff) -> Outcome:
        """What the magic recipient says; anybody else's message is accepted."""
        fate = fate_of(hand_off.channel, hand_off.destination)
        name = f"{fate.lower()}.{hand_off.provider_key}"
        match fate:
            case Fate.REJECTED:
                return rejected(Refusal.RECIPIENT, fate, "The sandbox refuses this recipient.")
            case Fate.RATE_LIMITED:
                return rate_limited(fate, "The sandbox asks to slow down.", SECOND)
            case Fate.UNAVAILABLE:
                return unavailable(fate, "The sandbox cannot answer now.")
            case Fate.ANSWER_LOST:
                self._lose(hand_off.provider_key, name)
                return ambiguous(fate, "The sandbox took the message and lost its answer.")
            case Fate.SLOW:
                return await _slowly(name, hand_off)
            case Fate.DELIVERED | Fate.UNDELIVERED | Fate.NO_RECEIPT | Fate.OUT_OF_ORDER:
                return Accepted(name)

    async def statuses(self, ids: Sequence[str]) -> Sequence[tuple[str, Receipt]]:
        """The reports that each id spells."""
        return [(name, receipt) for name in ids for receipt in REPORTS.get(_fate_in(name), ())]

    async def look_up(self, sought: Sequence[Sought]) -> Sequence[LookUp]:
        """Finds what it lost the answer of. What it does not remember may be from before a restart: no answer."""
        lost = (self._lost.get(one.provider_key) for one in sought)
        return [NoAnswer() if name is None else Found(name) for name in lost]

    def follow(self, channel: Channel, *, templated: bool) -> Follow:  # noqa: ARG002 - all alike
        """Everything is told, whatever it is."""
        return TYPE.follow

    def reports(self, url: str, headers: Mapping[str, str], body: bytes) -> Sequence[Report] | None:  # noqa: ARG002 - as above
        """It posts nothing: whatever comes is not from it."""
        return None

    async def check(self) -> Check:
        """Always well."""
        return Check(Accepted(""))

    def preview(self, hand_off: HandOff) -> str:
        """What would be handed off, field by field; nothing leaves the process."""
        fields = {
            "channel": hand_off.channel,
            "to": hand_off.destination,
            "from": hand_off.sender,
            "text": hand_off.text,
            "template": hand_off.template,
            **{f"params.{name}": value for name, value in hand_off.params.items()},
            "key": str(hand_off.provider_key),
        }
        return "\n".join(f"{name}={value}" for name, value in fields.items() if value)

    async def aclose(self) -> None:
        """Nothing to let go of."""

    def _lose(self, key: int, name: str) -> None:
        self._lost[key] = name
        while len(self._lost) > LOST_MAX:
            self._lost.popitem(last=False)


async def _slowly(name: str, hand_off: HandOff) -> Outcome:
    if hand_off.timeout_seconds <= SLOW_SECONDS:
        await asyncio.sleep(hand_off.timeout_seconds)
        return ambiguous(Fate.SLOW, "The sandbox took longer than it was given.")
    await asyncio.sleep(SLOW_SECONDS)
    return Accepted(name)


def _fate_in(name: str) -> Fate:
    word = name.partition(".")[0].upper()
    return Fate(word) if word in Fate.__members__ else Fate.NO_RECEIPT
