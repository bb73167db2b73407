"""One message's life as the store leads it: claims, facts, decisions; every step is held against the promises."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

from server.model.clock import SECOND, Micros
from server.model.conclude import Decision, accepted_event
from server.model.decide import Refused, decide
from server.model.enums import (
    Channel,
    DueKind,
    EventKind,
    MessageClass,
    OnUnconfirmed,
    ReceiptKind,
    State,
    Status,
)
from server.model.facts import Fact, Followed, LookedUp, Opening, Receipted, Settled, Started
from server.model.messages import Attempt, Case, Due, Event, Follow, Hold, Message
from server.model.outcomes import NeverRegistered, Outcome, Receipt
from server.model.policy import LIVES, sends_max

START: Micros = 1_700_000_000 * SECOND
CLAIM_TAKES: Micros = 1000
DEAD_ENDS = frozenset({State.FAILED, State.EXPIRED, State.CANCELED})
FINAL = DEAD_ENDS | {State.DELIVERED, State.UNDELIVERED}
CORRECTABLE = frozenset({State.UNDELIVERED, State.SENT, State.UNCONFIRMED})

# DESIGN's table of states, written down once more: the code's own table must not judge itself.
MAY_BECOME = {
    State.ACCEPTED: {State.SENDING, *DEAD_ENDS},
    State.SCHEDULED: {State.SENDING, *DEAD_ENDS},
    State.SENDING: {State.SENT, State.UNCONFIRMED, *FINAL},
    State.SENT: {State.DELIVERED, State.UNDELIVERED, State.SENDING, State.UNCONFIRMED},
    State.UNCONFIRMED: {State.SENDING, State.SENT, *FINAL},
    State.DELIVERED: set(),
    State.UNDELIVERED: {State.DELIVERED},
    State.FAILED: set(),
    State.EXPIRED: set(),
    State.CANCELED: set(),
}


def owed(case: Case, now: Micros) -> Case:
    """The case as if a send of its message were due, whatever it has come to."""
    due = Due(DueKind.SEND, now)
    return replace(case, message=replace(case.message, done=False, stop=None, due=due))


def message_of(
    message_class: MessageClass = MessageClass.TRANSACTIONAL,
    on_unconfirmed: OnUnconfirmed = OnUnconfirmed.STAY,
    life: Micros = 0,
    state: State = State.ACCEPTED,
) -> Message:
    """A message as `Send` hands it to the store, due at once; `life` in microseconds, 0 for the class's default."""
    return Message(
        id="m1",
        tenant_id="t1",
        client_id="c1",
        intent="otp",
        message_class=message_class,
        state=state,
        created_at=START,
        updated_at=START,
        expires_at=START + (life or LIVES[message_class].default),
        on_unconfirmed=on_unconfirmed,
        due=Due(DueKind.SEND, START),
    )


def opening_of(account: str = "a", destination: int = 0, **changes: Any) -> Opening:
    """An opening of step 1 by SMS that runs for eight seconds from START; `changes` replace its fields."""
    opening = Opening(
        step=1,
        channel=Channel.SMS,
        account=account,
        account_uid=f"uid-{account}",
        destination=destination,
        provider_key=1,
        deadline=START + 8 * SECOND,
        follow=Follow(),
    )
    return replace(opening, **changes)


@dataclass
class History:
    """A message from its acceptance on. `tell` decides a fact and checks what came of it."""

    message: Message
    now: Micros = START
    attempts: Sequence[Attempt] = ()
    events: list[Event] = field(default_factory=list[Event])
    _boots: int = 0

    def __post_init__(self) -> None:
        self.events.append(accepted_event(self.message))

    @property
    def case(self) -> Case:
        return Case(self.message, self.attempts)

    @property
    def due(self) -> Due | None:
        return self.message.due

    @property
    def kind(self) -> DueKind | None:
        return self.due.kind if self.due is not None else None

    @property
    def held(self) -> bool:
        return self.due is not None and bool(self.due.worker)

    @property
    def in_flight(self) -> Sequence[Attempt]:
        return [attempt for attempt in self.attempts if attempt.in_flight]

    @property
    def hold(self) -> Hold:
        """The hold under which the message is held now."""
        assert self.due is not None
        assert self.due.worker
        return Hold(self.due.worker, self.due.epoch)

    def claim(self) -> Hold:
        """What the store's claim does to the due row, by a worker that never was before; waits until it is due."""
        assert self.due is not None
        assert not self.due.worker
        self._boots += 1
        self.now = max(self.now, self.due.at) + CLAIM_TAKES
        claims = self.due.claims + (self.due.kind == DueKind.SEND)
        due = replace(self.due, epoch=self.due.epoch + 1, claims=claims, worker=f"boot-{self._boots}")
        self.message = replace(self.message, due=due)
        return self.hold

    def begin(self, *openings: Opening) -> Hold:
        """Claim and start; the hold of the claim."""
        hold = self.claim()
        assert isinstance(self.tell(Started(hold, openings or (opening_of(),))), Decision)
        return hold

    def tell(self, fact: Fact) -> Decision | Refused:
        """Decide a fact as `store.apply` does, check the promises, and take the decision over."""
        before = self.case
        decision = decide(before, fact, self.now)
        if isinstance(decision, Refused):
            return decision
        by_number = {a.number: a for a in (*self.attempts, *decision.attempts)}
        self.attempts = tuple(by_number[number] for number in sorted(by_number))
        self.message = decision.message
        self.events += decision.events
        check_step(before, fact, self.case, decision.events, self.now)
        check_log(self.events, self.message)
        return decision


def started(
    message_class: MessageClass = MessageClass.TRANSACTIONAL,
    again: OnUnconfirmed = OnUnconfirmed.STAY,
    **opening: Any,
) -> History:
    """A message whose first attempt is in flight."""
    life = History(message_of(message_class, again))
    life.begin(opening_of(**opening))
    return life


def settle(life: History, outcome: Outcome, number: int = 1, jitter: float = 0.5) -> History:
    assert isinstance(life.tell(Settled(life.hold, number, outcome, jitter)), Decision)
    return life


def check_step(before: Case, fact: Fact, after: Case, events: Sequence[Event], now: Micros) -> None:
    """What every single decision must keep."""
    _check_state(before, fact, after)
    _check_done(before.message, after)
    _check_due(before, after, now)
    _check_overdue(before, fact, after, now)
    if isinstance(fact, Started):
        _check_start(before, fact, after, now)
    for event in events:
        message = after.message
        assert (event.state, event.status, event.done) == (message.state, message.status, message.done)
        assert event.at == now


def _check_state(before: Case, fact: Fact, after: Case) -> None:
    old, new = before.message.state, after.message.state
    assert new == old or new in MAY_BECOME[old], f"{old} became {new}"
    if new != old and new in DEAD_ENDS:
        assert not any(a.may_arrive for a in after.attempts), f"{new} although it may arrive"
    if old == State.UNCONFIRMED and new in DEAD_ENDS:
        assert isinstance(fact, LookedUp)
        assert isinstance(fact.result, NeverRegistered)
    assert after.message.status == _status(after)
    if new in {State.FAILED, State.EXPIRED, State.UNDELIVERED}:
        assert after.message.failure is not None


def _status(case: Case) -> Status:
    match case.message.state:
        case State.SENT | State.DELIVERED:
            return Status.SENT
        case State.UNCONFIRMED:
            return Status.SENT if case.message.done else Status.PENDING
        case State.ACCEPTED | State.SCHEDULED:
            return Status.PENDING
        case State.SENDING:
            return Status.SENT if any(a.accepted for a in case.attempts) else Status.PENDING
        case _:
            return Status.FAILED


def _check_done(before: Message, after: Case) -> None:
    message = after.message
    idle = message.due is None and not any(a.in_flight for a in after.attempts)
    assert message.done == (idle or message.state in FINAL)
    assert message.done == (message.due is None), "whatever is not done has something due"
    assert message.done == bool(message.done_at)
    if before.done:
        assert message.done
        assert message.state == before.state or (message.state == State.DELIVERED and before.state in CORRECTABLE)


def _check_due(before: Case, after: Case, now: Micros) -> None:
    due, old = after.message.due, before.message.due
    if due is None:
        return
    assert due.at > 0
    assert due.epoch >= max([a.epoch for a in after.attempts] + [old.epoch if old else 0])
    if due.kind == DueKind.SEND and not any(a.in_flight for a in after.attempts):
        assert due.at <= max(after.message.expires_at, now)
    if any(a.in_flight for a in after.attempts):
        assert due.worker, "whoever handed off holds the message until it is settled"


def _check_overdue(before: Case, fact: Fact, after: Case, now: Micros) -> None:
    """Only time makes an attempt overdue, and nothing makes it wait again."""
    was = {a.number: a.overdue for a in before.attempts}
    for attempt in after.attempts:
        assert attempt.overdue >= was.get(attempt.number, False)
        if attempt.overdue and not was[attempt.number]:
            assert isinstance(fact, Followed)
            assert attempt.patience > 0
            assert now >= attempt.ended_at + attempt.patience
            assert before.message.stop is None


def _check_start(before: Case, fact: Started, after: Case, now: Micros) -> None:
    message = before.message
    assert message.due is not None
    assert message.due.held_by(fact.hold)
    assert message.state not in FINAL
    assert message.stop is None
    assert now < message.expires_at
    assert not any(a.delivered for a in before.attempts), "a step begins although it has arrived"
    new = [a for a in after.attempts if a.number > message.attempt_count]
    awaited = [a for a in before.attempts if a.accepted and not a.overdue]
    assert not any(a.step < n.step for a in awaited for n in new), "a step begins although a receipt is awaited"


def check_log(events: Sequence[Event], message: Message) -> None:
    """Events are numbered 1..n, end once, and say at most one thing afterwards: the correction."""
    assert [event.seq for event in events] == list(range(1, message.last_seq + 1))
    ends = sum(new.done and not old.done for old, new in pairwise(events))
    assert ends == (1 if message.done else 0)
    late = [event for event in events if event.done][1:]
    assert len(late) <= 1
    assert all(event.state == State.DELIVERED and event.moved for event in late)
    for old, new in pairwise(events):
        assert new.moved == ((old.state, old.done) != (new.state, new.done))
        assert new.moved or new.kind != EventKind.STATE


def check_sends(case: Case) -> None:
    """Nobody was handed more that may arrive than the class allows, whatever accounts, channels and steps there are.

    Over one channel to one destination the class decides alone. Over all of them it decides where somebody is in doubt;
    what is overdue was followed by another channel because the route says so. Push and e-mail may be repeated, because
    their providers or readers fold repeats; they do not license a text.
    """
    taken = [attempt for attempt in case.attempts if attempt.may_arrive]
    for channel, destination in {(attempt.channel, attempt.destination) for attempt in taken}:
        there = [a for a in taken if (a.channel, a.destination) == (channel, destination)]
        assert len(there) <= sends_max(case.message, channel), "a second text over one channel"
    doubtful = [attempt for attempt in taken if not attempt.overdue]
    others = [attempt for attempt in doubtful if attempt.channel != Channel.PUSH]
    assert len(others) <= max([sends_max(case.message, attempt.channel) for attempt in others], default=0)
    if len({attempt.channel for attempt in doubtful}) > 1:
        assert sends_max(case.message, Channel.SMS) > 1, "another channel after an unknown hand-off"


def check_late_receipt(case: Case, now: Micros) -> None:
    """Whatever was taken, or may have been: a report now that it arrived makes the message DELIVERED, and ends it."""
    for attempt in case.attempts:
        if not (attempt.may_arrive or attempt.undelivered) or attempt.delivered:
            continue
        told = decide(case, Receipted(attempt.number, Receipt(ReceiptKind.DELIVERED)), now)
        assert isinstance(told, Decision)
        assert (told.message.state, told.message.done, told.message.due) == (State.DELIVERED, True, None)
        hold = Hold(case.message.due.worker, case.message.due.epoch) if case.message.due else Hold("w", 0)
        assert decide(Case(told.message, case.attempts), Started(hold, (opening_of(step=9),)), now) == Refused("FINAL")
