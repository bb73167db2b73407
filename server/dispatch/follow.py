"""What becomes of messages that a provider took, or may have: timers, look-ups and polls, in batches by account."""

import asyncio
import random
from collections import defaultdict
from collections.abc import Callable, Sequence

import structlog

from server.dispatch.delivery import wakes
from server.dispatch.insist import insist
from server.model.clock import SECOND
from server.model.enums import DueKind, MessageClass
from server.model.facts import Fact, Followed, LookedUp, Receipted
from server.model.messages import Attempt
from server.model.work import Claim
from server.providers.provider import Provider
from server.providers.roster import Roster
from server.store.store import Store

FOLLOWS = frozenset({DueKind.TIMER, DueKind.LOOK_UP, DueKind.POLL})
BATCH_MAX = 500
IDLE_POLL_SECONDS = 0.25
LEAST_PAUSE_SECONDS = 0.02
ERROR_PAUSE_SECONDS = 1.0

Asked = tuple[Claim, Attempt]

_log = structlog.get_logger("dispatch")


class Follower:
    """Claims what is due of one class and asks each account once for all of its messages."""

    def __init__(
        self, store: Store, roster: Roster, message_class: MessageClass, wake: Callable[[MessageClass], None]
    ) -> None:
        self.message_class = message_class
        self.in_hand: dict[str, Claim] = {}
        self._store = store
        self._roster = roster
        self._wake = wake
        self._draining = False

    async def run(self) -> None:
        """Follow until `drain`; a failing store only makes it pause."""
        while not self._draining:
            try:
                claims = await self._store.claim(self.message_class, FOLLOWS, BATCH_MAX)
                await self._follow(claims)
                if len(claims) < BATCH_MAX:
                    await asyncio.sleep(await self._pause_seconds())
            except Exception:  # noqa: BLE001 - the outermost loop of this task: it must outlive whatever a turn meets
                _log.exception("follow_turn_failed", message_class=self.message_class)
                await asyncio.sleep(ERROR_PAUSE_SECONDS)

    def drain(self) -> None:
        """Take up nothing more."""
        self._draining = True

    async def _pause_seconds(self) -> float:
        wait = await self._store.next_due(self.message_class, FOLLOWS)
        return IDLE_POLL_SECONDS if wait is None else min(max(wait / SECOND, LEAST_PAUSE_SECONDS), IDLE_POLL_SECONDS)

    async def _follow(self, claims: Sequence[Claim]) -> None:
        self.in_hand = {claim.case.message.id: claim for claim in claims}
        polls: defaultdict[str, list[Asked]] = defaultdict(list)
        look_ups: defaultdict[str, list[Asked]] = defaultdict(list)
        for claim in claims:
            for attempt in claim.case.attempts:
                if attempt.accepted and attempt.follow.polls and attempt.provider_message_id:
                    polls[attempt.account_uid].append((claim, attempt))
                elif attempt.may_look_up(claim.now):
                    look_ups[attempt.account_uid].append((claim, attempt))
        asking = [self._poll(uid, asked) for uid, asked in polls.items()]
        asking += [self._look_up(uid, asked) for uid, asked in look_ups.items()]
        await asyncio.gather(*asking)
        await asyncio.gather(*(self._state(claim, Followed(claim.hold)) for claim in claims))
        self.in_hand = {}

    async def _poll(self, account_uid: str, asked: Sequence[Asked]) -> None:
        provider: Provider | None = self._roster.provider(account_uid)
        if provider is None:
            return
        by_id = {attempt.provider_message_id: (claim, attempt) for claim, attempt in asked}
        for provider_message_id, receipt in await provider.statuses(list(by_id)):
            claim, attempt = by_id.get(provider_message_id, (None, None))
            if claim is not None and attempt is not None:
                await self._state(claim, Receipted(attempt.number, receipt))

    async def _look_up(self, account_uid: str, asked: Sequence[Asked]) -> None:
        provider = self._roster.provider(account_uid)
        if provider is None:
            return
        results = await provider.look_up([attempt.provider_key for _, attempt in asked])
        for claim, attempt in asked:
            jitter = random.random()  # noqa: S311 - jitter, no secret
            fact = LookedUp(claim.hold, attempt.number, results[attempt.provider_key], jitter)
            await self._state(claim, fact)

    async def _state(self, claim: Claim, fact: Fact) -> None:
        decision = await insist(self._store, claim.case.message.id, fact)
        if wakes(decision):
            self._wake(self.message_class)
