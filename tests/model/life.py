"""A random life of one message: a tape of bytes decides what workers, providers and callers do next."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from hypothesis import note

from server.model.accounts import Account
from server.model.clock import HOUR, MINUTE, SECOND, Micros
from server.model.conclude import Decision
from server.model.decide import Refused, decide
from server.model.enums import (
    Channel,
    DueKind,
    FailureReason,
    MessageClass,
    Mode,
    OnUnconfirmed,
    ReceiptKind,
    State,
    Stop,
    Strategy,
)
from server.model.explanation import Verdict
from server.model.facts import (
    Fact,
    Followed,
    LookedUp,
    Opening,
    Postponed,
    Receipted,
    Settled,
    Started,
    Stopped,
    Unplannable,
    WorkerLost,
)
from server.model.failures import Failure
from server.model.health import Cause, Closed, Health
from server.model.messages import Attempt, Content, Follow, Hold, Recipient
from server.model.outcomes import (
    Accepted,
    Fault,
    Found,
    NeverRegistered,
    NoAnswer,
    Receipt,
    Refusal,
    ambiguous,
    misconfigured,
    rate_limited,
    rejected,
    unavailable,
)
from server.model.plan import Go, Nothing, Plan, Wait, survey
from server.model.routing import Route, Rule, Step, asked_of, route_for
from tests.model.history import START, History, check_late_receipt, check_sends, message_of, opening_of, owed

PEOPLE = (
    Recipient(phone="+989120000111"),
    Recipient(phone="+989120000111", email="a@example.test"),
    Recipient(device_tokens=("t0", "t1", "t2"), phone="+989120000111"),
)
CHANNELS = (Channel.SMS, Channel.EMAIL, Channel.PUSH)
FOLLOWS = (
    Follow(),
    Follow(polls=True, looks_up=True, keeps_seconds=3600),
    Follow(pushes=True),
    Follow(polls=True),
    Follow(looks_up=True, looks_up_seconds=30),
)
UNDELIVERED = Receipt(ReceiptKind.UNDELIVERED, Failure(FailureReason.RECIPIENT_UNREACHABLE))
RECEIPTS = (Receipt(ReceiptKind.DELIVERED), UNDELIVERED, Receipt(ReceiptKind.OTHER))
OUTCOMES = (
    Accepted("p1"),
    ambiguous(),
    ambiguous(),
    unavailable(),
    unavailable(),
    rate_limited(retry_after=0),
    rate_limited(retry_after=2 * MINUTE),
    misconfigured(Fault.FUNDS),
    rejected(Refusal.CONTENT),
    rejected(Refusal.RECIPIENT),
    rejected(Refusal.REQUEST),
)
LOOK_UPS = (NoAnswer(), Found("p1"), NeverRegistered())
TIMEOUTS: tuple[Micros, ...] = (SECOND, 20 * SECOND, 5 * MINUTE, 20 * HOUR)
SPANS: tuple[Micros, ...] = (1, SECOND, 5 * SECOND, MINUTE, 6 * MINUTE, 2 * HOUR)
TURNS_MAX = 60
TURNS_AFTER_DONE = 4
PATIENCE = 1000

T = TypeVar("T")


class Tape:
    """Choices read from bytes; at its end the first choice, always."""

    def __init__(self, tape: bytes) -> None:
        self._bytes = iter(tape)
        self.over = False

    def choose(self, choices: Sequence[T]) -> T:
        byte = next(self._bytes, None)
        self.over = self.over or byte is None
        return choices[(byte or 0) % len(choices)]


class Life:
    """One message from acceptance to its end.

    `taken`: providers mostly take it, and its steps wait for receipts that mostly do not come in time.
    """

    def __init__(self, tape: bytes, *, taken: bool = False) -> None:
        self.tape = Tape(tape)
        self._taken = taken
        choose = self.tape.choose
        self.content = Content(choose(PEOPLE[1:] if taken else PEOPLE), "text")
        state = choose([State.ACCEPTED, State.SCHEDULED])
        message = message_of(choose([*MessageClass]), choose([*OnUnconfirmed]), state=state)
        self.history = History(replace(message, scenario=choose(["", "followed"])))
        self.route = self._any_route()
        self._given_up_on: Sequence[Attempt] | None = None
        note(f"{self.history.message}\n{self.content.recipient}")
        for hop in self.route.hops:
            note(f"  {hop.step} {hop.channel} {hop.account.name} {hop.wait_for} {hop.timeout} {hop.account.follow}")

    def play(self) -> None:
        """Random turns; then patience alone must bring the message to its end."""
        for _ in range(TURNS_MAX):
            if self.tape.over or self.history.message.done:
                break
            self._turn()
        for _ in range(PATIENCE):
            if self.history.message.done:
                break
            self._patiently()
        assert self.history.message.done, "patience did not bring it to its end"
        for _ in range(TURNS_AFTER_DONE):
            if self.history.attempts:
                self.tape.choose([self._receive, self._settle_any, self._stop])()

    def _turn(self) -> None:
        history, choose = self.history, self.tape.choose
        always: list[Callable[[], None]] = [self._wait, self._stop]
        if history.attempts:
            always += [self._receive, self._settle_any]
        if history.in_flight:
            choose([self._settle] * 8 + [self._lose_worker] * 2 + always)()
        elif history.held:
            choose([self._lose_worker] * 4 + always)()
        else:
            choose([self._work] * 12 + [self._crash] + always)()
        self._say_what_is_stale()
        check_late_receipt(self.history.case, self.history.now)

    def _wait(self) -> None:
        self.history.now += self.tape.choose(SPANS)

    def _stop(self) -> None:
        self.tell(Stopped(self.tape.choose([Stop.CANCELED, Stop.EXPIRED, Stop.VERIFIED])))

    def _receive(self) -> None:
        attempt = self.tape.choose(self.history.attempts)
        self.tell(Receipted(attempt.number, self.tape.choose(RECEIPTS)))

    def _settle(self) -> None:
        self._settled(self.tape.choose(self.history.in_flight))

    def _settle_any(self) -> None:
        self._settled(self.tape.choose(self.history.attempts))

    def _settled(self, attempt: Attempt) -> None:
        choose = self.tape.choose
        outcome = choose(OUTCOMES + (Accepted("p1"),) * 20 * self._taken)
        early = (choose(RECEIPTS),) if isinstance(outcome, Accepted) and choose([0, 0, 0, 1]) else ()
        jitter = choose([0.5, 0.0, 0.999])
        told = self.tell(Settled(Hold("w", attempt.epoch), attempt.number, outcome, jitter, early))
        counts = attempt.in_flight or (attempt.ambiguous and isinstance(outcome, Accepted))
        assert isinstance(told, Decision) == counts

    def _crash(self) -> None:
        self.history.claim()

    def _lose_worker(self) -> None:
        self.tell(WorkerLost(self.history.hold))

    def _work(self) -> None:
        hold = self.history.claim()
        if self.history.kind == DueKind.SEND:
            self._send(hold, self._any_health())
        else:
            self._follow(hold)

    def _patiently(self) -> None:
        """Dead workers are swept, providers take nothing more and answer no question."""
        if self.history.held:
            self.tell(WorkerLost(self.history.hold))
            return
        hold = self.history.claim()
        if self.history.kind != DueKind.SEND:
            self.tell(Followed(hold))
            return
        for attempt in self._send(hold, Health()):
            self.tell(Settled(hold, attempt.number, unavailable()))

    def _send(self, hold: Hold, health: Health) -> Sequence[Attempt]:
        if self.history.now >= self.history.message.expires_at:
            self.tell(Stopped(Stop.EXPIRED))
            return ()
        match self.plan(health):
            case Wait(until):
                self.tell(Postponed(hold, until))
            case Nothing(reason):
                assert self.history.attempts != self._given_up_on, "due again although nothing has changed"
                self.tell(Unplannable(hold, reason))
                self._given_up_on = self.history.attempts
            case Go() as go:
                told = self.tell(Started(hold, tuple(self._opening(go, number) for number in go.destinations)))
                assert isinstance(told, Decision), told
                check_sends(self.history.case)
                return told.attempts
        return ()

    def _follow(self, hold: Hold) -> None:
        choose = self.tape.choose
        for attempt in self.history.attempts:
            if attempt.may_look_up(self.history.now):
                self.tell(LookedUp(hold, attempt.number, choose(LOOK_UPS), choose([0.5, 0.0])))
            elif attempt.accepted and attempt.follow.polls and choose([False, True]):
                self.tell(Receipted(attempt.number, choose(RECEIPTS)))
        self.tell(Followed(hold))

    def _say_what_is_stale(self) -> None:
        """What a worker says that never had the message, or has lost it, changes nothing."""
        due = self.history.due
        for hold in (Hold("boot-0", due.epoch if due else 1), Hold(due.worker if due else "boot-1", -1), Hold("", 0)):
            for fact in (
                Started(hold, (opening_of(),)),
                WorkerLost(hold),
                Followed(hold),
                Postponed(hold, START),
                Unplannable(hold, FailureReason.NO_ROUTE),
            ):
                assert isinstance(decide(self.history.case, fact, self.history.now), Refused)
        for attempt in self.history.in_flight:
            for epoch in (attempt.epoch - 1, attempt.epoch + 1):
                fact = Settled(Hold("w", epoch), attempt.number, Accepted("p1"))
                assert isinstance(decide(self.history.case, fact, self.history.now), Refused)

    def plan(self, health: Health) -> Plan:
        """The plan if a send were due; its reasons tell the same, and of one that is over or stopped nothing."""
        case, now = self.history.case, self.history.now
        found = survey(owed(case, now), self.content, self.route, Mode.LIVE, health, now).plan
        told = survey(case, self.content, self.route, Mode.LIVE, health, now)
        goes = case.message.stop is None and self.history.kind == DueKind.SEND
        assert told.plan == found if goes else isinstance(told.plan, Nothing)
        chosen = [c for c in told.explanation.candidates if c.verdict == Verdict.CHOSEN]
        going = [told.plan.hop] if isinstance(told.plan, Go) else []
        assert [(c.step, c.channel, c.provider) for c in chosen] == [(h.step, h.channel, h.account.name) for h in going]
        return found

    def tell(self, fact: Fact) -> Decision | Refused:
        before = self.history.message.state
        told = self.history.tell(fact)
        note(f"{self.history.now - START}: {fact} -> {told.why if isinstance(told, Refused) else _shown(told)}")
        if State.FAILED == self.history.message.state != before and not isinstance(fact, Unplannable | WorkerLost):
            left = self.plan(Health())
            assert isinstance(left, Nothing), f"FAILED although this is left: {left}"
        return told

    def _opening(self, go: Go, destination: int) -> Opening:
        """With the plan's patience, or the step's own, which the plan had cut where no step could follow."""
        waits = go.hop.timeout if go.hop.wait_for == State.DELIVERED else 0
        return opening_of(
            go.hop.account.name,
            destination,
            step=go.hop.step,
            channel=go.hop.channel,
            deadline=self.history.now + 8 * SECOND,
            follow=go.hop.account.follow,
            behind=go.behind,
            patience=self.tape.choose([go.patience, waits]),
        )

    def _any_route(self) -> Route:
        choose = self.tape.choose
        follows = {name: choose(FOLLOWS) for name in "abc"}
        accounts = [Account("t1", f"uid-{name}", name, "x", CHANNELS, follow=follows[name]) for name in "abc"]
        rule = Rule(
            "followed", steps=tuple(self._any_step() for _ in range(choose([2, 3] if self._taken else [1, 1, 2, 3])))
        )
        asked = asked_of(self.history.message, self.content)
        return route_for((Rule("before", priority=-1), rule) if asked.scenario else (rule,), accounts, asked)

    def _any_step(self) -> Step:
        choose = self.tape.choose
        waits_for = choose([State.SENT, *[State.DELIVERED] * (8 if self._taken else 1)])
        timeout = choose(TIMEOUTS) if waits_for == State.DELIVERED else choose([0, *TIMEOUTS])
        return Step(
            channel=choose(CHANNELS),
            providers=tuple(choose(["a", "ab", "abc", "b", "c", "bca"])),
            fallback=choose([*[True] * (12 if self._taken else 3), False]),
            strategy=choose([*Strategy]),
            weights={"a": choose([0, 1, 5])},
            wait_for=waits_for,
            timeout=timeout,
        )

    def _any_health(self) -> Health:
        """Mostly all open; else accounts closed for an hour or until after the message, or out of budget."""
        choose = self.tape.choose
        names = choose(["", "", "", "", "a", "b", "ab", "c", "abc"])
        until = self.history.now + choose([HOUR, 1, 200 * HOUR])
        closed = {f"uid-{name}": Closed(until, choose([*Cause])) for name in names}
        return Health(accounts=closed, spent=frozenset(f"uid-{name}" for name in choose(["", "", "abc"])))


def _shown(decision: Decision) -> str:
    message = decision.message
    return f"{message.state} done={message.done} due={message.due} attempts={[a.number for a in decision.attempts]}"
