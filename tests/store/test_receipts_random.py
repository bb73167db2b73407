"""A thousand messages a database, each with its answer, its receipts and its caller's wishes in an order of its own.

Whatever the order, an attempt comes to the best that its receipts told of it, the log has no gap, the state moves by
the table alone, and nothing is sent twice. Every message's seed is in the failure: `play` repeats it.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from server.model.conclude import Decision
from server.model.enums import DueKind, MessageClass, OutcomeKind, ReceiptKind, State, Stop
from server.model.facts import Fact, LookedUp, Settled, Stopped, WorkerLost
from server.model.messages import Attempt
from server.model.outcomes import Accepted, Found, Receipt, ambiguous, unavailable
from server.model.work import Claim
from server.store.store import Store
from tests.model.history import MAY_BECOME
from tests.store.conftest import OpenStore
from tests.store.letters import TENANTS, rows
from tests.store.posts import (
    DELIVERED,
    ON_ITS_WAY,
    OTHER_UID,
    SEND,
    UID,
    UNDELIVERED,
    add_accounts,
    case_of,
    claimed,
    post,
    start_of,
    waiting,
)

MESSAGES = 1_000
AT_ONCE = 100
RANKS = (ReceiptKind.OTHER, ReceiptKind.UNDELIVERED, ReceiptKind.DELIVERED)


@dataclass
class Story:
    """What happens to one message whose only attempt is in flight; what is in it follows from its seed alone."""

    claim: Claim
    seed: int
    steps: int = 0
    name: str = ""
    by_url: bool = False
    found: bool = False
    lost: bool = False
    dies: bool = False
    refused: bool = False
    receipts: Sequence[Receipt] = ()
    stop: Stop | None = None
    deeds: list[object] = field(default_factory=list[object])

    def __post_init__(self) -> None:
        draw = random.Random(self.seed)
        self.name = f"p-{self.seed}"
        self.steps = draw.choice([0, 1])
        self.refused = draw.random() < 0.1
        self.lost = not self.refused and draw.random() < 0.3
        self.found = self.lost and draw.random() < 0.5
        self.by_url = draw.random() < 0.5
        told = draw.choice([[], [ON_ITS_WAY], [DELIVERED], [ON_ITS_WAY, UNDELIVERED], [UNDELIVERED, DELIVERED]])
        self.receipts = [] if self.refused else told
        self.stop = draw.choice([None, None, Stop.CANCELED, Stop.VERIFIED])
        self.deeds = [receipt for receipt in self.receipts for _ in range(draw.randint(1, 3))]
        self.deeds += [*self._answers(draw), *draw.choices(["unknown", "forged", "lies"], k=draw.randint(0, 3))]
        self.deeds += [Stopped(self.stop)] if self.stop else []
        draw.shuffle(self.deeds)
        if self.found:
            self.deeds.append(LookedUp(self.claim.hold, 1, Found(self.name)))

    def _answers(self, draw: random.Random) -> list[Fact]:
        hold = self.claim.hold
        if self.refused:
            return [Settled(hold, 1, unavailable())]
        if self.lost:
            self.dies = self.stop != Stop.VERIFIED and draw.random() < 0.5
            return [WorkerLost(hold) if self.dies else Settled(hold, 1, ambiguous())]
        return [Settled(hold, 1, Accepted(self.name))]

    async def play(self, store: Store, other: Store) -> None:
        """All of it, each deed in either process."""
        draw = random.Random(-self.seed)
        for deed in self.deeds:
            await self._do(draw.choice([store, other]), deed)

    async def _do(self, store: Store, deed: object) -> None:
        match deed:
            case Receipt():
                await post(store, self.name, deed, self.claim if self.by_url else None)
            case "unknown":
                await post(store, f"unknown-{self.seed}", UNDELIVERED)
            case "forged":
                await post(store, self.name, DELIVERED, self.claim, uid=OTHER_UID)
            case "lies":
                await post(store, f"unknown-{self.seed}", DELIVERED, self.claim, number=7)
            case _:
                assert isinstance(deed, Fact)
                await store.apply(self.claim.case.message.id, deed)

    @property
    def known(self) -> bool:
        """Whether its receipts find it in the end."""
        return self.by_url or self.found or not self.lost

    @property
    def best(self) -> ReceiptKind | None:
        """What its receipts come to, in whatever order."""
        kinds = [receipt.kind for receipt in self.receipts] if self.known else []
        return max(kinds, key=RANKS.index, default=None)

    @property
    def sends_again(self) -> bool:
        """Whether another hand-off is due in the end."""
        if self.stop is not None or not self.steps:
            return False
        return self.refused or self.best == ReceiptKind.UNDELIVERED

    def check(self, attempts: Sequence[Attempt], state: State) -> None:
        """What it must have come to."""
        assert len(attempts) == 1, f"seed {self.seed}: sent again"
        (attempt,) = attempts
        seen = f"seed {self.seed}: {self.deeds} came to {state}, {attempt}"
        assert attempt.receipt in (self.best, *([None] if self.best == ReceiptKind.OTHER else [])), seen
        # Of what was delivered nothing is due: that its worker dies then is noticed by nobody.
        unheard = [None] if self.dies and state == State.DELIVERED else []
        assert attempt.outcome in (self._outcome(), *unheard), seen
        assert state in self._states(attempt), seen

    def _outcome(self) -> OutcomeKind:
        if self.refused:
            return OutcomeKind.UNAVAILABLE
        heard = self.found or not self.lost or self.best is not None
        return OutcomeKind.ACCEPTED if heard else OutcomeKind.AMBIGUOUS

    def _states(self, attempt: Attempt) -> set[State]:
        if self.sends_again:
            return {State.SENDING}
        verified = {State.DELIVERED} if self.stop == Stop.VERIFIED else set()
        if self.refused:
            return verified | {State.CANCELED} if self.stop else {State.SENDING}
        match self.best:
            case ReceiptKind.DELIVERED:
                return {State.DELIVERED}
            case ReceiptKind.UNDELIVERED:
                return verified | {State.UNDELIVERED}
            case _:
                plain = State.SENT if attempt.outcome == OutcomeKind.ACCEPTED else State.UNCONFIRMED
                return verified or {plain}


async def test_every_order_of_answers_and_receipts_comes_to_the_same_end(store: Store, another: OpenStore) -> None:
    """A thousand messages with made-up orders; on Postgres two processes take turns."""
    other = await another() if store.engine_name == "postgres" else store
    await add_accounts(store, UID, OTHER_UID)
    stories = await _begun(store, MESSAGES)
    for start in range(0, MESSAGES, AT_ONCE):
        await asyncio.gather(*(story.play(store, other) for story in stories[start : start + AT_ONCE]))
    await asyncio.gather(store.sweep_receipts(), other.sweep_receipts())
    for story in stories:
        case = await case_of(store, story.claim)
        story.check(case.attempts, case.message.state)
    assert _shown(stories) >= {(True, True), (True, False), (False, True), (False, False)}
    await _check_logs(store)
    await _check_what_is_due(store, stories)
    await _check_inbox(store, stories)


async def _begun(store: Store, count: int) -> list[Story]:
    claims = [claim for _ in range(count // AT_ONCE) for claim in await claimed(store, AT_ONCE)]
    seed = random.SystemRandom().randrange(1, 10**6) * count
    print(f"seeds {seed} to {seed + count - 1}")  # noqa: T201 - shown where it fails
    stories = [Story(claim, seed + number) for number, claim in enumerate(claims)]
    starts = ((s.claim.case.message.id, start_of(s.claim, steps=s.steps)) for s in stories)
    assert all(isinstance(r, Decision) for r in await asyncio.gather(*(store.apply(*start) for start in starts)))
    return stories


def _shown(stories: Sequence[Story]) -> set[tuple[bool, bool]]:
    """Early and late receipts, with an end and without one, are all among them."""
    return {(isinstance(s.deeds[0], Receipt), s.best == ReceiptKind.DELIVERED) for s in stories}


async def _check_logs(store: Store) -> None:
    """Events are numbered 1..n, and move by the table; after `done` there is the correction at most."""
    told = await rows(store, "SELECT message_id, seq, state, done FROM event ORDER BY message_id, seq")
    logs: dict[str, list[tuple[int, State, bool]]] = {}
    for message_id, seq, state, done in told:
        logs.setdefault(message_id, []).append((seq, State(state), bool(done)))
    for message_id, log in logs.items():
        assert [seq for seq, _, _ in log] == list(range(1, len(log) + 1)), message_id
        for (_, old, done), (_, new, _) in pairwise(log):
            assert new == old or new in MAY_BECOME[old], f"{message_id}: {old} became {new}"
            assert not done or new == State.DELIVERED, f"{message_id}: {old} was done and became {new}"
    last = await rows(store, "SELECT id, last_seq FROM message")
    assert {message_id: len(log) for message_id, log in logs.items()} == dict(last)


async def _check_what_is_due(store: Store, stories: Sequence[Story]) -> None:
    """Just those are handed off once more whose attempt failed with something left to try; then receipts come late."""
    due = [claim async for claim in _claims(store)]
    again = {story.claim.case.message.id for story in stories if story.sends_again}
    assert {claim.case.message.id for claim in due} >= again
    repeats = [claim for claim in due if claim.case.message.id not in again]
    assert all(claim.case.attempts[-1].repeatable for claim in repeats), "sent twice"
    for story in stories[:AT_ONCE]:
        await story.play(store, store)
    assert [claim async for claim in _claims(store)] == []
    assert await rows(store, "SELECT message_id FROM attempt WHERE number > 1") == []


async def _claims(store: Store):  # noqa: ANN202 - an asynchronous generator of claims
    while claims := await store.claim(MessageClass.TRANSACTIONAL, SEND, AT_ONCE):
        for claim in claims:
            assert claim.case.message.due is not None
            assert claim.case.message.due.kind == DueKind.SEND
            yield claim


async def _check_inbox(store: Store, stories: Sequence[Story]) -> None:
    """Nothing waits there but what belongs to nobody: of ids that no attempt has, and of other accounts."""
    names = {name for _, name in await rows(store, "SELECT account_uid, provider_message_id FROM attempt")}
    left = await waiting(store)
    assert [key for key in left if key[0] == UID and key[1] in names] == []
    unknown = {s.name for s in stories if not s.known} | {f"unknown-{s.seed}" for s in stories}
    assert {name for uid, name, _ in left if uid == UID} <= unknown
    assert Counter(uid for uid, _, _ in left)[OTHER_UID] > 0
    assert await rows(store, f"SELECT id FROM message WHERE tenant_id <> '{TENANTS[0]}'") == []
