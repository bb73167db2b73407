"""What becomes of messages that a provider took, or may have: timers, look-ups and polls, in batches by account."""

import asyncio
import random
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence, Set as AbstractSet
from dataclasses import dataclass, field

import structlog

from server.dispatch.delivery import Ruling, wakes
from server.dispatch.insist import insist
from server.dispatch.pace import ERROR_PAUSE_SECONDS, pause_seconds
from server.dispatch.wordings import wording_of_attempt
from server.model.accounts import Sought
from server.model.conclude import Decision
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
ASK_SECONDS = {MessageClass.OTP: 2.0, MessageClass.TRANSACTIONAL: 8.0, MessageClass.BULK: 8.0}
"""An account that does not answer for so long has told nothing; it is asked again when its messages are due again.

Short for OTP: no look-up may hold up the window after which the next provider gets its turn.
"""

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

    Accounts are asked side by side, so that none holds up the timers and receipts of another. What falls due while its
    account is being asked is held for the next question: put back, it would lose its turn, and its pauses grow.
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
        self._waiting: dict[str, _Question] = {}
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
        self._waiting.clear()
        for task in self._asking.values():
            task.cancel()
        await self.finish()

    async def _follow(self, claims: Sequence[Claim]) -> None:
        """Ask for each claim one account, a free one if there is any; where there are several, another at each turn."""
        self.in_hand |= {(claim.case.message.id, claim.hold) for claim in claims}
        questions: defaultdict[str, _Question] = defaultdict(_Question)
        idle: list[Claim] = []
        for claim in claims:
            uid = self._account_for(claim)
            if uid is None:
                idle.append(claim)
            elif uid in self._asking:
                self._waiting.setdefault(uid, _Question()).add(claim)
            else:
                questions[uid].add(claim)
        for uid, question in questions.items():
            self._ask(uid, question)
        await self._put_back(idle)

    def _account_for(self, claim: Claim) -> str | None:
        """An account that may know more of a message and has room for a question; None where there is none."""
        attempts = claim.case.attempts
        uids = dict.fromkeys(a.account_uid for a in attempts if _polls(a) or a.may_look_up(claim.now))
        known = [uid for uid in uids if self._roster.provider(uid) is not None and not self._is_full(uid)]
        ready = [uid for uid in known if uid not in self._asking] or known
        return ready[claim.hold.epoch % len(ready)] if ready else None

    def _is_full(self, uid: str) -> bool:
        return uid in self._waiting and len(self._waiting[uid].claims) >= BATCH_MAX

    def _ask(self, uid: str, question: _Question) -> None:
        task = asyncio.create_task(self._hear(uid, question), name=f"ask {uid}")
        self._asking[uid] = task
        task.add_done_callback(lambda _: self._asked(uid))

    def _asked(self, uid: str) -> None:
        """Ask the account of what has come meanwhile."""
        del self._asking[uid]
        question = self._waiting.pop(uid, None)
        if question is not None:
            self._ask(uid, question)

    async def _hear(self, uid: str, question: _Question) -> None:
        """Ask, state what is told, and put the messages back; whatever goes wrong, they are put back."""
        polls, look_ups = question.of(uid)
        over: set[str] = set()
        try:
            provider = self._roster.provider(uid)
            if provider is not None and not self._draining:
                async with asyncio.timeout(ASK_SECONDS[self.message_class]):
                    told = await asyncio.gather(_statuses(provider, polls), self._found(provider, look_ups))
                over = await self._tell(polls, look_ups, *told)
        except TimeoutError:
            _log.warning("an account did not answer", account=uid, message_class=self.message_class)
        except Exception as error:  # noqa: BLE001 - the outermost frame of this task: its messages must go back
            _log.error("an account could not be asked", account=uid, trail=trail_of(error))
        await self._put_back(question.claims, over)

    async def _found(self, provider: Provider, look_ups: Sequence[Asked]) -> Sequence[LookUp]:
        sought = [await self._sought(claim, attempt) for claim, attempt in look_ups]
        return await provider.look_up(sought) if sought else ()

    async def _sought(self, claim: Claim, attempt: Attempt) -> Sought:
        """What a look-up asks for. Content that was erased is left out: a provider may know our number all the same."""
        said, content = await wording_of_attempt(self._store, claim, attempt), claim.content
        return Sought(
            provider_key=attempt.provider_key,
            channel=attempt.channel,
            destination=content.recipient.addresses(attempt.channel)[attempt.destination] if content else "",
            text=said.text if said else "",
            started_at=attempt.started_at,
            deadline=attempt.deadline,
        )

    async def _tell(
        self,
        polls: Sequence[Asked],
        look_ups: Sequence[Asked],
        reports: Sequence[tuple[str, Receipt]],
        found: Sequence[LookUp],
    ) -> set[str]:
        """State what is told; the messages of which nothing is due any more."""
        by_id = _by_id(polls)
        facts: list[tuple[Claim, Fact]] = [
            (claim, Receipted(attempt.number, receipt))
            for name, receipt in reports
            for claim, attempt in by_id.get(name, ())
        ]
        for (claim, attempt), result in zip(look_ups, found, strict=True):
            jitter = random.random()  # noqa: S311 - jitter, no secret
            facts.append((claim, LookedUp(claim.hold, attempt.number, result, jitter)))
        # Side by side, they share commits; the facts of one message are applied in this order all the same.
        rulings = await asyncio.gather(*(self._state(claim, fact) for claim, fact in facts))
        return {ruling.message.id for ruling in rulings if isinstance(ruling, Decision) and ruling.message.due is None}

    async def _put_back(self, claims: Sequence[Claim], over: AbstractSet[str] = frozenset()) -> None:
        left = (claim for claim in claims if claim.case.message.id not in over)
        await asyncio.gather(*(self._state(claim, Followed(claim.hold)) for claim in left))
        self.in_hand -= {(claim.case.message.id, claim.hold) for claim in claims}

    async def _state(self, claim: Claim, fact: Fact) -> Ruling:
        ruling = await insist(self._store, claim.case.message.id, fact)
        if wakes(ruling):
            self._wake(self.message_class)
        return ruling


def _polls(attempt: Attempt) -> bool:
    return attempt.accepted and attempt.follow.polls and bool(attempt.provider_message_id)


def _by_id(polls: Sequence[Asked]) -> Mapping[str, Sequence[Asked]]:
    """The attempts of each id: a provider that knows a repeat answers two of them with one."""
    found: defaultdict[str, list[Asked]] = defaultdict(list)
    for claim, attempt in polls:
        found[attempt.provider_message_id].append((claim, attempt))
    return found


async def _statuses(provider: Provider, polls: Sequence[Asked]) -> Sequence[tuple[str, Receipt]]:
    return await provider.statuses(list(_by_id(polls))) if polls else ()
