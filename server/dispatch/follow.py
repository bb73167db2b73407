"""What becomes of messages that a provider took, or may have: timers, look-ups and polls, in batches by account."""

import asyncio
import random
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import structlog

from server.dispatch.delivery import wakes
from server.dispatch.insist import insist
from server.dispatch.pace import ERROR_PAUSE_SECONDS, pause_seconds
from server.model.enums import DueKind, MessageClass
from server.model.facts import Fact, Followed, LookedUp, Receipted
from server.model.faults import trail_of
from server.model.messages import Attempt, Hold
from server.model.outcomes import LookUp, Receipt
from server.model.work import Claim
from server.providers.provider import Provider
from server.providers.roster import Roster
from server.store.store import Store

FOLLOWS = frozenset({DueKind.TIMER, DueKind.LOOK_UP, DueKind.POLL})
BATCH_MAX = 500
ASK_SECONDS = 8.0
"""An account that does not answer for so long has told nothing; it is asked again when its messages are due again."""

Asked = tuple[Claim, Attempt]

_log = structlog.get_logger("dispatch")


@dataclass(slots=True)
class _Question:
    """The messages that one account is asked about."""

    claims: list[Claim] = field(default_factory=list[Claim])

    def add(self, claim: Claim) -> None:
        self.claims.append(claim)

    def of(self, uid: str) -> tuple[list[Asked], list[Asked]]:
        """The attempts whose status is asked for, and those that are looked up."""
        mine = [(c, a) for c in self.claims for a in c.case.attempts if a.account_uid == uid]
        return [(c, a) for c, a in mine if _polls(a)], [(c, a) for c, a in mine if a.may_look_up(c.now)]


class Follower:
    """Claims what is due of one class and asks each account once for all of its messages.

    Accounts are asked side by side, and one that is still being asked is not asked again: its messages wait for their
    next turn, so that no account holds up the timers and receipts of another.
    """

    def __init__(
        self, store: Store, roster: Roster, message_class: MessageClass, wake: Callable[[MessageClass], None]
    ) -> None:
        self.message_class = message_class
        self.in_hand: set[tuple[str, Hold]] = set()
        self._store = store
        self._roster = roster
        self._wake = wake
        self._asking: dict[str, asyncio.Task[None]] = {}
        self._draining = False

    async def run(self) -> None:
        """Follow until `drain`; a failing store only makes it pause."""
        while not self._draining:
            try:
                claims = await self._store.claim(self.message_class, FOLLOWS, BATCH_MAX)
                await self._follow(claims)
                if len(claims) < BATCH_MAX:
                    await asyncio.sleep(pause_seconds(await self._store.next_due(self.message_class, FOLLOWS)))
            except Exception as error:  # noqa: BLE001 - the outermost loop of this task: it must outlive a turn
                _log.error("a turn of following failed", message_class=self.message_class, trail=trail_of(error))
                await asyncio.sleep(ERROR_PAUSE_SECONDS)

    def drain(self) -> None:
        """Take up nothing more."""
        self._draining = True

    async def finish(self) -> None:
        """Wait for the accounts that are being asked."""
        while self._asking:
            await asyncio.wait(set(self._asking.values()))

    async def abandon(self) -> None:
        """Ask no more; the rows go back when this process is seen to be gone."""
        for task in self._asking.values():
            task.cancel()
        await self.finish()

    async def _follow(self, claims: Sequence[Claim]) -> None:
        """Ask for each claim one account that is free; where there are several, another at each turn."""
        self.in_hand |= {(claim.case.message.id, claim.hold) for claim in claims}
        questions: defaultdict[str, _Question] = defaultdict(_Question)
        idle: list[Claim] = []
        for claim in claims:
            uids = self._askable(claim)
            if uids:
                questions[uids[claim.hold.epoch % len(uids)]].add(claim)
            else:
                idle.append(claim)
        for uid, question in questions.items():
            self._ask(uid, question)
        await self._put_back(idle)

    def _askable(self, claim: Claim) -> list[str]:
        """The accounts that may know more of a message and are not being asked now."""
        uids = dict.fromkeys(a.account_uid for a in claim.case.attempts if _polls(a) or a.may_look_up(claim.now))
        return [uid for uid in uids if uid not in self._asking and self._roster.provider(uid) is not None]

    def _ask(self, uid: str, question: _Question) -> None:
        task = asyncio.create_task(self._hear(uid, question), name=f"ask {uid}")
        self._asking[uid] = task
        task.add_done_callback(lambda _: self._asking.pop(uid, None))

    async def _hear(self, uid: str, question: _Question) -> None:
        """Ask, state what is told, and put the messages back; whatever goes wrong, they are put back."""
        polls, look_ups = question.of(uid)
        try:
            provider = self._roster.provider(uid)
            if provider is not None:
                async with asyncio.timeout(ASK_SECONDS):
                    told = await asyncio.gather(_statuses(provider, polls), _found(provider, look_ups))
                await self._tell(polls, look_ups, *told)
        except TimeoutError:
            _log.warning("an account did not answer", account=uid, message_class=self.message_class)
        except Exception as error:  # noqa: BLE001 - the outermost frame of this task: its messages must go back
            _log.error("an account could not be asked", account=uid, trail=trail_of(error))
        await self._put_back(question.claims)

    async def _tell(
        self,
        polls: Sequence[Asked],
        look_ups: Sequence[Asked],
        reports: Sequence[tuple[str, Receipt]],
        found: Mapping[int, LookUp],
    ) -> None:
        by_id = {attempt.provider_message_id: (claim, attempt) for claim, attempt in polls}
        for provider_message_id, receipt in reports:
            claim, attempt = by_id.get(provider_message_id, (None, None))
            if claim is not None and attempt is not None:
                await self._state(claim, Receipted(attempt.number, receipt))
        for claim, attempt in (asked for asked in look_ups if asked[1].provider_key in found):
            jitter = random.random()  # noqa: S311 - jitter, no secret
            await self._state(claim, LookedUp(claim.hold, attempt.number, found[attempt.provider_key], jitter))

    async def _put_back(self, claims: Sequence[Claim]) -> None:
        await asyncio.gather(*(self._state(claim, Followed(claim.hold)) for claim in claims))
        self.in_hand -= {(claim.case.message.id, claim.hold) for claim in claims}

    async def _state(self, claim: Claim, fact: Fact) -> None:
        if wakes(await insist(self._store, claim.case.message.id, fact)):
            self._wake(self.message_class)


def _polls(attempt: Attempt) -> bool:
    return attempt.accepted and attempt.follow.polls and bool(attempt.provider_message_id)


async def _statuses(provider: Provider, polls: Sequence[Asked]) -> Sequence[tuple[str, Receipt]]:
    return await provider.statuses([attempt.provider_message_id for _, attempt in polls]) if polls else ()


async def _found(provider: Provider, look_ups: Sequence[Asked]) -> Mapping[int, LookUp]:
    return await provider.look_up([attempt.provider_key for _, attempt in look_ups]) if look_ups else {}
