"""The load of a trial: callers that send, repeat what was not answered, cancel, and ask for what is not theirs."""

import asyncio
import itertools
from collections.abc import Iterator, Sequence
from random import Random
from typing import Any

from angarium.v1 import message_pb2 as messages, notification_service_pb2 as notifications

from tests.gateway import eventually
from tests.ledger import SEND
from tests.proof.callers import CALL_SECONDS, Caller
from tests.proof.history import Op, Result
from tests.proof.violations import Violation
from tests.scripted_upstream import Break, Recorded, Say, ScriptedUpstream, Silence, envelope

CANARY_TEXT = "nobody may read this 7f3a"
CANARY_PHONE = "09127777666"
PAUSE_SECONDS = 0.03
REPEAT_SECONDS = 0.1
REPEATING_SECONDS = 40.0
"""For so long a caller repeats a call that was not answered."""
CLASSES = (
    messages.MESSAGE_CLASS_OTP,
    messages.MESSAGE_CLASS_TRANSACTIONAL,
    messages.MESSAGE_CLASS_TRANSACTIONAL,
    messages.MESSAGE_CLASS_BULK,
)
PROVOKED = frozenset({("ALREADY_EXISTS", "REQUEST_ID_REUSED"), ("FAILED_PRECONDITION", "NOTHING_TO_CANCEL")})
"""What it asks for itself: codes and reasons."""
NOT_THERE = ("NOT_FOUND", "RESOURCE_NOT_FOUND")
BUSY, REFUSED = 409, 411
HONEST_SHARE = 0.75


class Load:
    """So many callers at work between `start` and `stop`, each after the other's own dice."""

    def __init__(
        self,
        callers: Sequence[Caller],
        dice: Random,
        *,
        call_seconds: float = CALL_SECONDS,
    ) -> None:
        self.unanswered: list[Op] = []
        """The calls that were given up after all their repeats."""
        self._callers = callers
        self._dice = dice
        self._call_seconds = call_seconds
        self._numbers = itertools.count(1)
        self._stopping = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def sends(self) -> Sequence[Op]:
        """Every call so far that may have made a message."""
        return [op for caller in self._callers for op in caller.ops if op.made]

    @property
    def accepted(self) -> Sequence[str]:
        """The messages that callers were told of so far."""
        return [op.tracking_id for op in self.sends if op.ok]

    def start(self) -> None:
        """Begin to call."""
        self._tasks = [
            asyncio.create_task(self._work(caller, Random(self._dice.random())), name=f"load of {caller.tenant_id}")
            for caller in self._callers
        ]

    async def stop(self) -> None:
        """Wait until every caller has its last answer."""
        self._stopping.set()
        await asyncio.gather(*self._tasks)

    async def reach(self, count: int, seconds: float = 30.0) -> None:
        """Until so many messages more were accepted."""
        wanted = len(self.accepted) + count
        await eventually(lambda: len(self.accepted) >= wanted, seconds)

    async def _work(self, caller: Caller, dice: Random) -> None:
        while not self._stopping.is_set():
            await self._turn(caller, dice, letter(next(self._numbers), dice))
            await asyncio.sleep(dice.random() * 2 * PAUSE_SECONDS)

    async def _turn(self, caller: Caller, dice: Random, request: notifications.SendRequest) -> None:
        roll = dice.random()
        if request.request_id and roll < 0.1:
            await asyncio.gather(self._insist(caller, request), self._insist(caller, request))
            return
        op = await self._insist(caller, request)
        if request.request_id and roll < 0.15:
            await self._insist(caller, _changed(request))
        elif op.ok and roll < 0.2:
            await caller.cancel(op.tracking_id)
        elif op.ok and roll < 0.3:
            await dice.choice(self._callers).status(op.tracking_id)

    async def _insist(self, caller: Caller, request: notifications.SendRequest) -> Op:
        """Send, and with a key send again while nobody knows how it ended."""
        op = await caller.send(request, timeout_seconds=self._call_seconds)
        until = asyncio.get_running_loop().time() + REPEATING_SECONDS
        while op.result == Result.INFO and request.request_id:
            if asyncio.get_running_loop().time() > until:
                self.unanswered.append(op)
                break
            await asyncio.sleep(REPEAT_SECONDS)
            op = await caller.send(request, timeout_seconds=self._call_seconds)
        return op


def letter(number: int, dice: Random) -> notifications.SendRequest:
    """A request unlike any other; most bear a key, some a text or a number that must be seen nowhere."""
    canary = dice.random() < 0.3
    wish = notifications.SendRequest.ON_UNCONFIRMED_SEND_AGAIN
    return notifications.SendRequest(
        request_id=f"key-{number}" if dice.random() < 0.9 else "",
        intent="PROOF",
        recipient=messages.Recipient(phone=CANARY_PHONE if canary else f"0912{dice.randrange(1_000_000, 8_000_000)}"),
        text=f"text {number} {CANARY_TEXT if canary else ''}".strip(),
        message_class=dice.choice(CLASSES),
        on_unconfirmed=wish if dice.random() < 0.2 else notifications.SendRequest.ON_UNCONFIRMED_UNSPECIFIED,
    )


def _changed(request: notifications.SendRequest) -> notifications.SendRequest:
    other = notifications.SendRequest()
    other.CopyFrom(request)
    other.text = f"{request.text} and more"
    return other


def strange_answers(ops: Sequence[Op], bearable: Sequence[tuple[str, str]]) -> Iterator[Violation]:
    """Errors that neither the load asks for, nor are bearable."""
    own = {(op.tenant_id, op.tracking_id) for op in ops if op.made and op.ok}
    for op in ops:
        error = (op.code, op.reason)
        foreign = error == NOT_THERE and (op.tenant_id, op.tracking_id) not in own
        if not (op.ok or foreign or error in PROVOKED or error in bearable):
            yield Violation("ANSWER", op.key or op.tracking_id, f"{op.method} ended with {op.error}")


class Mood:
    """How an upstream takes texts: most as it should, some in each way that leaves a gateway in doubt."""

    def __init__(self, upstream: ScriptedUpstream, dice: Random) -> None:
        self._upstream = upstream
        self._dice = dice

    def __call__(self, request: Recorded) -> Say | Break | Silence:
        if request.call != SEND or self._dice.random() < HONEST_SHARE:
            return self._upstream.honest(request)
        return self._dice.choice(self._faults())(request)

    def _faults(self) -> Sequence[Any]:
        return (
            lambda request: self._taken(request, Break.AFTER_REQUEST),
            lambda request: self._taken(request, Break.MID_BODY),
            lambda request: self._taken(request, Silence()),
            self._late,
            lambda _: Break.AFTER_REQUEST,
            lambda _: Say(status=502, body=b"<html>bad gateway</html>"),
            lambda _: envelope(BUSY),
            lambda _: envelope(REFUSED),
        )

    def _taken(self, request: Recorded, reply: Break | Silence) -> Break | Silence:
        """The text is taken, and its answer lost."""
        self._upstream.honest(request)
        return reply

    def _late(self, request: Recorded) -> Say:
        said = self._upstream.honest(request)
        return Say(said.status, said.body, delay_seconds=self._dice.random() * 0.5)
