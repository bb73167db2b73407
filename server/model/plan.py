"""Whom to hand a message to next: a pure choice from its route, its attempts so far and the providers' health."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import auto

from server.model.clock import Micros
from server.model.enums import Channel, FailureReason, Mode, Word
from server.model.health import Cause, Health
from server.model.messages import Attempt, Behind, Case, Content
from server.model.outcomes import Refusal
from server.model.phones import country_of
from server.model.policy import retry_of
from server.model.routing import Hop, Route
from server.model.senders import may_use
from server.model.verdict import doubt_forbids, failures_on


class Skip(Word):
    """Why a hop of the route is passed over."""

    INACTIVE = auto()
    NOT_CONFIGURED = auto()
    NOT_FOR_SANDBOX = auto()
    NO_ADDRESS = auto()
    SENDER = auto()
    CHANNEL_REFUSED = auto()
    ACCOUNT_REFUSED = auto()
    STEP_OVER = auto()
    REPEATS_SPENT = auto()
    BUDGET_SPENT = auto()
    CLOSED = auto()


@dataclass(frozen=True, slots=True)
class Go:
    """Hand off now, to these destinations (by their number among the recipient's addresses of the channel)."""

    hop: Hop
    destinations: tuple[int, ...]
    behind: Behind
    repeat: bool


@dataclass(frozen=True, slots=True)
class Wait:
    """Every way that is left is closed for a while."""

    until: Micros
    cause: Cause | Skip


@dataclass(frozen=True, slots=True)
class Nothing:
    """No way is left."""

    reason: FailureReason


Plan = Go | Wait | Nothing

BUDGET_PAUSE: Micros = 1_000_000
"""How long a repeat waits when its account's budget for repeats is spent."""


@dataclass(frozen=True, slots=True)
class _Usable:
    """A hop that may be taken. `closed_until` > 0: only when nothing better is left."""

    hop: Hop
    order: tuple[int, int]
    destinations: tuple[int, ...]
    repeat: bool
    closed_until: Micros = 0
    cause: Cause | Skip = Skip.CLOSED


def plan(case: Case, content: Content, route: Route, mode: Mode, health: Health, now: Micros) -> Plan:
    """Choose the next hop: untried accounts in the route's order, then repeats, least failed first.

    A breaker never closes the last way: when every usable hop is closed by breakers or account faults, the first goes
    all the same. A pause that a provider asked for, or a spent budget for repeats, is waited out.
    """
    if any(a.refusal == Refusal.REQUEST for a in case.attempts):
        return Nothing(FailureReason.REQUEST_REFUSED)
    hops = _without_others(case, content, route.hops, mode)
    weighed = [_weigh(case, content, hop, n, mode, health, now) for n, hop in enumerate(hops)]
    usable = sorted((w for w in weighed if isinstance(w, _Usable)), key=lambda w: w.order)
    open_now = [w for w in usable if not w.closed_until]
    if not usable:
        return Nothing(_why_nothing(weighed, case.attempts))
    if open_now:
        return _go(open_now[0], usable)
    passable = [w for w in usable if w.cause not in (Cause.RATE_LIMITED, Skip.BUDGET_SPENT)]
    if passable:
        return _go(passable[0], usable)
    soonest = min(usable, key=lambda w: w.closed_until)
    return Wait(soonest.closed_until, soonest.cause)


def _without_others(case: Case, content: Content, hops: Sequence[Hop], mode: Mode) -> Sequence[Hop]:
    """Of a step without fallback one account is left: the one that was tried, else the first that may be."""
    sole = [hop for hop in hops if hop.sole]
    if not sole:
        return hops
    tried = {a.account_uid for a in case.attempts if a.step == sole[0].step}
    fit = (hop for hop in sole if _fits(hop, content, mode) and (not tried or hop.account.uid in tried))
    chosen = next(fit, sole[0])
    return [hop for hop in hops if not hop.sole or hop is chosen]


def _fits(hop: Hop, content: Content, mode: Mode) -> bool:
    reachable = bool(content.recipient.addresses(hop.channel))
    return reachable and _barred(hop, content.sender or hop.sender, mode) is None


def _go(chosen: _Usable, usable: Sequence[_Usable]) -> Go:
    others = [w for w in usable if w is not chosen and w.order[0] <= chosen.order[0]]
    behind = Behind(
        candidates=len(others),
        steps=sum(w.hop.step > chosen.hop.step for w in others),
        channels=sum(w.hop.channel != chosen.hop.channel for w in others),
    )
    return Go(chosen.hop, chosen.destinations, behind, chosen.repeat)


def _why_nothing(weighed: Sequence[_Usable | Skip], attempts: Sequence[Attempt]) -> FailureReason:
    if attempts and Skip.REPEATS_SPENT in weighed:
        return FailureReason.PROVIDER_UNAVAILABLE
    return FailureReason.NO_ROUTE


def _weigh(
    case: Case, content: Content, hop: Hop, position: int, mode: Mode, health: Health, now: Micros
) -> _Usable | Skip:
    barred = _barred(hop, content.sender or hop.sender, mode)
    if barred is not None:
        return barred
    destinations = content.recipient.addresses(hop.channel)
    if not destinations:
        return Skip.NO_ADDRESS
    judged = {n: _judge(case, hop, n) for n in range(len(destinations))}
    open_ones = tuple(n for n, skip in judged.items() if skip is None)
    if not open_ones:
        return next(skip for skip in judged.values() if skip is not None)
    failures = max(failures_on(case.attempts, hop.account.uid, n, hop.step) for n in open_ones)
    tried = failures + any(a.ambiguous and a.account_uid == hop.account.uid for a in case.attempts)
    until, cause = _closed(hop, content, destinations[open_ones[0]], health, now, repeat=tried > 0)
    return _Usable(hop, (tried, position), open_ones, tried > 0, until, cause)


def _barred(hop: Hop, sender: str, mode: Mode) -> Skip | None:
    if not hop.account.is_active:
        return Skip.INACTIVE
    if not hop.account.configured:
        return Skip.NOT_CONFIGURED
    if mode == Mode.SANDBOX and not hop.account.safe_for_sandbox:
        return Skip.NOT_FOR_SANDBOX
    return None if may_use(hop.account, sender) else Skip.SENDER


def _judge(case: Case, hop: Hop, destination: int) -> Skip | None:
    """Whether this destination still needs this hop."""
    mine = [a for a in case.attempts if a.channel == hop.channel and a.destination == destination]
    if any(a.refusal == Refusal.RECIPIENT for a in mine):
        return Skip.CHANNEL_REFUSED
    if _reached(case, hop, destination):
        return Skip.STEP_OVER
    on_account = [a for a in mine if a.account_uid == hop.account.uid]
    if any(a.refusal is not None or a.fault is not None for a in on_account):
        return Skip.ACCOUNT_REFUSED
    retry = retry_of(case.message.message_class, hop.channel)
    failures = failures_on(case.attempts, hop.account.uid, destination, hop.step)
    return Skip.REPEATS_SPENT if failures > retry.repeats_max else None


def _reached(case: Case, hop: Hop, destination: int) -> bool:
    """Whether a hand-off by this hop is not needed or not allowed: somebody may be reached, or the step is over."""
    same = [a for a in case.attempts if a.step == hop.step and a.destination == destination]
    earlier = [a for a in case.attempts if a.step < hop.step]
    if any(_awaited(a) for a in (*same, *earlier)) or any(a.undelivered for a in same):
        return True
    if any(a.step > hop.step for a in case.attempts):
        return True
    return doubt_forbids(case.message, case.attempts, hop.channel, destination, hop.step)


def _awaited(attempt: Attempt) -> bool:
    return attempt.may_arrive and not (attempt.ambiguous and attempt.given_up)


def _closed(
    hop: Hop, content: Content, destination: str, health: Health, now: Micros, *, repeat: bool
) -> tuple[Micros, Cause | Skip]:
    country = country_of(destination) if hop.channel in (Channel.SMS, Channel.VOICE) else ""
    closed = health.closed((hop.account.uid, hop.channel, country), content.sender or hop.sender, now)
    # A spent budget outweighs a breaker, which never closes the last way: repeats would go on without a limit.
    if repeat and hop.account.uid in health.spent and (closed is None or closed.cause != Cause.RATE_LIMITED):
        return now + BUDGET_PAUSE, Skip.BUDGET_SPENT
    return (closed.until, closed.cause) if closed is not None else (0, Skip.CLOSED)
