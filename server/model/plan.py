"""Whom to hand a message to next: a pure choice from its route, its attempts so far and the providers' health."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from server.model.clock import Micros
from server.model.enums import Channel, DueKind, FailureReason, Mode, State
from server.model.explanation import DETAILS, Candidate, Explanation, Skip, Verdict
from server.model.health import Cause, Health
from server.model.messages import Attempt, Behind, Case, Content
from server.model.outcomes import Refusal
from server.model.phones import country_of, operator_of
from server.model.policy import retry_of
from server.model.routing import Hop, Route, barred
from server.model.segments import is_gsm7, segments_of
from server.model.senders import may_use
from server.model.templates import NO_TEMPLATES, Template, Wording, worded_by_step
from server.model.verdict import class_forbids, doubt_forbids, failures_on, is_awaited, may_repeat_taken


@dataclass(frozen=True, slots=True)
class Go:
    """Hand off now, to these destinations (by their number among the recipient's addresses of the channel).

    `patience`: how long a receipt is waited for, once it is taken, before a later step goes; 0 where none would.
    """

    hop: Hop
    destinations: tuple[int, ...]
    behind: Behind
    repeat: bool
    wording: Wording = Wording("")
    patience: Micros = 0


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
class Survey:
    """A plan, and why it is what it is."""

    plan: Plan
    explanation: Explanation


@dataclass(frozen=True, slots=True)
class _Usable:
    """A hop that may be taken. `closed_until` > 0: only when nothing better is left."""

    hop: Hop
    order: tuple[int, int]
    destinations: tuple[int, ...]
    repeat: bool
    wording: Wording
    closed_until: Micros = 0
    cause: Cause | Skip = Skip.CLOSED


_Weighed = _Usable | Skip


@dataclass(frozen=True, slots=True)
class _Ground:
    """What hops are weighed by. `templates` None: whether they can say the message is not asked."""

    case: Case
    content: Content
    mode: Mode
    health: Health
    now: Micros
    templates: Mapping[str, Template] | None
    default_locale: str

    def wording(self, hop: Hop) -> Wording | None:
        if self.templates is None:
            return Wording(self.content.text)
        return worded_by_step(
            self.case.message,
            self.content,
            self.templates,
            hop.template_key,
            hop.channel,
            hop.account.name,
            self.default_locale,
        )

    def sender(self, hop: Hop) -> str:
        return self.content.sender or hop.sender


def survey(  # noqa: PLR0913, PLR0917 - all that a plan depends on
    case: Case,
    content: Content,
    route: Route,
    mode: Mode,
    health: Health,
    now: Micros,
    templates: Mapping[str, Template] | None = NO_TEMPLATES,
    default_locale: str = "",
    *,
    revision: str = "",
) -> Survey:
    """Choose the next hop, and say why: untried accounts in the route's order, then repeats, least failed first.

    A breaker never closes the last way: when every usable hop is closed by breakers or account faults, the first goes
    all the same. A pause that a provider asked for, or a spent budget for repeats, is waited out. Of a message that is
    over, stopped or waiting for a report nothing goes next.
    `templates`: the message's own under "", those that steps name under their keys; None: whether the accounts can say
    the message is not asked. `revision` is that of the rules.
    """
    ground = _Ground(case, content, mode, health, now, templates, default_locale)
    resting = _resting(case)
    weighed = _weigh_all(ground, route.hops)
    if resting is not None:
        weighed = [resting if isinstance(w, _Usable) or resting == Skip.OVER else w for w in weighed]
    chosen, usable = _choose(ground, weighed)
    text = _text_of(ground, route.hops, usable)
    phone = content.recipient.phone
    by_sms = any(hop.channel == Channel.SMS for hop in route.hops)
    explanation = Explanation(
        rules=route.looks(),
        candidates=_candidates(route, weighed, usable),
        country=country_of(phone) if phone else "",
        operator=operator_of(phone) if phone else "",
        segments=segments_of(text) if by_sms else 0,
        encoding=("GSM-7" if is_gsm7(text) else "UCS-2") if text else "",
        revision=revision,
    )
    return Survey(chosen, explanation)


def _resting(case: Case) -> Skip | None:
    """Why nothing is handed off next, whatever way is open; None where it may be."""
    message = case.message
    if message.done:
        return Skip.OVER
    if message.stop is not None:
        return Skip.STOPPED
    if not case.attempts or (message.due is not None and message.due.kind == DueKind.SEND):
        return None
    return Skip.IN_DOUBT if any(a.ambiguous for a in case.attempts) else Skip.AWAITED


def _choose(ground: _Ground, weighed: Sequence[_Weighed]) -> tuple[Plan, _Usable | None]:
    usable = sorted((w for w in weighed if isinstance(w, _Usable)), key=lambda w: w.order)
    if not usable:
        return Nothing(_why_nothing(weighed, ground.case.attempts)), None
    passable = [w for w in usable if w.cause not in (Cause.RATE_LIMITED, Skip.BUDGET_SPENT)]
    going = next((w for w in usable if not w.closed_until), passable[0] if passable else None)
    if going is not None:
        return _go(ground, going, usable), going
    soonest = min(usable, key=lambda w: w.closed_until)
    return Wait(soonest.closed_until, soonest.cause), None


def _go(ground: _Ground, chosen: _Usable, usable: Sequence[_Usable]) -> Go:
    others = [w for w in usable if w is not chosen and w.order[0] <= chosen.order[0]]
    behind = Behind(
        candidates=len(others),
        steps=sum(w.hop.step > chosen.hop.step for w in others),
        channels=sum(w.hop.channel != chosen.hop.channel for w in others),
    )
    patience = chosen.hop.timeout if _is_waited_for(ground.case, chosen, others) else 0
    return Go(chosen.hop, chosen.destinations, behind, chosen.repeat, chosen.wording, patience)


def _is_waited_for(case: Case, chosen: _Usable, others: Sequence[_Usable]) -> bool:
    """Whether a later step would go if this hop's receipt did not come in time, and the class allows it."""
    hop = chosen.hop
    if hop.wait_for != State.DELIVERED:
        return False
    again = any(may_repeat_taken(case.message, case.attempts, hop.channel, n) for n in chosen.destinations)
    return any(w.hop.step > hop.step and (again or w.hop.channel != hop.channel) for w in others)


def _why_nothing(weighed: Sequence[_Weighed], attempts: Sequence[Attempt]) -> FailureReason:
    if Skip.REQUEST_REFUSED in weighed or any(a.refusal == Refusal.REQUEST for a in attempts):
        return FailureReason.REQUEST_REFUSED
    if attempts and Skip.REPEATS_SPENT in weighed:
        return FailureReason.PROVIDER_UNAVAILABLE
    return FailureReason.NO_ROUTE


def _weigh_all(ground: _Ground, hops: Sequence[Hop]) -> Sequence[_Weighed]:
    if any(a.refusal == Refusal.REQUEST for a in ground.case.attempts):
        return [Skip.REQUEST_REFUSED] * len(hops)
    sole = _sole(ground, hops)
    weighed = [
        Skip.NO_FALLBACK if hop.sole and hop is not sole else _weigh(ground, hop, n) for n, hop in enumerate(hops)
    ]
    latest = max((w.hop.step for w in weighed if isinstance(w, _Usable) and not w.closed_until), default=0)
    return [Skip.TOO_LATE if isinstance(w, _Usable) and _is_late(ground, w.hop, latest) else w for w in weighed]


def _is_late(ground: _Ground, hop: Hop, latest: int) -> bool:
    """Whether the time of the hop's step is over and a later step can go now; without one, late is better than not."""
    if not hop.timeout or hop.wait_for != State.SENT or hop.step >= latest:
        return False
    began = min((a.started_at for a in ground.case.attempts if a.step == hop.step), default=ground.now)
    return ground.now >= began + hop.timeout


def _sole(ground: _Ground, hops: Sequence[Hop]) -> Hop | None:
    """Of a step without fallback one account is left: the one that was tried, else the first that may be."""
    sole = [hop for hop in hops if hop.sole]
    if not sole:
        return None
    tried = {a.account_uid for a in ground.case.attempts if a.step == sole[0].step}
    fit = (hop for hop in sole if (hop.account.uid in tried if tried else _fits(ground, hop)))
    return next(fit, sole[0])


def _fits(ground: _Ground, hop: Hop) -> bool:
    reachable = bool(ground.content.recipient.addresses(hop.channel))
    return reachable and _barred(ground, hop) is None and ground.wording(hop) is not None


def _weigh(ground: _Ground, hop: Hop, position: int) -> _Weighed:
    case = ground.case
    barred = _barred(ground, hop)
    if barred is not None:
        return barred
    destinations = ground.content.recipient.addresses(hop.channel)
    if not destinations:
        return Skip.NO_ADDRESS
    judged = {n: _judge(case, hop, n) for n in range(len(destinations))}
    open_ones = tuple(n for n, skip in judged.items() if skip is None)
    if not open_ones:
        return next(skip for skip in judged.values() if skip is not None)
    wording = ground.wording(hop)
    if wording is None:
        return Skip.TEMPLATE
    failures = max(failures_on(case.attempts, hop.account.uid, n, hop.step) for n in open_ones)
    tried = failures + any(a.ambiguous and a.account_uid == hop.account.uid for a in case.attempts)
    until, cause = _closed(ground, hop, destinations[open_ones[0]], wording, repeat=tried > 0)
    return _Usable(hop, (tried, position), open_ones, tried > 0, wording, until, cause)


def _barred(ground: _Ground, hop: Hop) -> Skip | None:
    return barred(hop.account, ground.mode) or (None if may_use(hop.account, ground.sender(hop)) else Skip.SENDER)


def _judge(case: Case, hop: Hop, destination: int) -> Skip | None:
    """Why this destination needs this hop no more, or must not have it; None where it may."""
    if not case.attempts:
        return None
    mine = [a for a in case.attempts if a.channel == hop.channel and a.destination == destination]
    if any(a.refusal == Refusal.RECIPIENT for a in mine):
        return Skip.CHANNEL_REFUSED
    held = _held(case, hop, destination)
    if held is not None:
        return held
    on_account = [a for a in mine if a.account_uid == hop.account.uid]
    if any(a.refusal is not None or a.fault is not None for a in on_account):
        return Skip.ACCOUNT_REFUSED
    retry = retry_of(case.message.message_class, hop.channel)
    failures = failures_on(case.attempts, hop.account.uid, destination, hop.step)
    return Skip.REPEATS_SPENT if failures > retry.repeats_max else None


def _held(case: Case, hop: Hop, destination: int) -> Skip | None:
    """What holds a hand-off by this hop up: somebody may be reached, the step is over, or the class forbids it."""
    message, attempts = case.message, case.attempts
    same = [a for a in attempts if a.step == hop.step and a.destination == destination]
    earlier = [a for a in attempts if a.step < hop.step]
    if any(a.delivered or is_awaited(a) for a in (*same, *earlier)):
        return Skip.AWAITED
    if any(a.undelivered or a.overdue for a in same) or any(a.step > hop.step for a in attempts):
        return Skip.STEP_OVER
    if doubt_forbids(message, attempts, hop.channel, destination, hop.step):
        return Skip.IN_DOUBT
    return Skip.SENDS_SPENT if class_forbids(message, attempts, hop.channel, destination) else None


def _closed(
    ground: _Ground, hop: Hop, destination: str, wording: Wording, *, repeat: bool
) -> tuple[Micros, Cause | Skip]:
    country = country_of(destination) if hop.channel in (Channel.SMS, Channel.VOICE) else ""
    line = (hop.account.uid, hop.channel, country)
    closed = ground.health.closed(line, ground.sender(hop), wording.template, ground.now)
    # A spent budget outweighs a breaker, which never closes the last way: repeats would go on without a limit.
    if repeat and hop.account.uid in ground.health.spent and (closed is None or closed.cause != Cause.RATE_LIMITED):
        return ground.now + BUDGET_PAUSE, Skip.BUDGET_SPENT
    return (closed.until, closed.cause) if closed is not None else (0, Skip.CLOSED)


def _candidates(route: Route, weighed: Sequence[_Weighed], chosen: _Usable | None) -> tuple[Candidate, ...]:
    """In the order of the steps; in each, what gave no hop comes behind the accounts that did."""
    found = [_candidate(hop, w, chosen) for hop, w in zip(route.hops, weighed, strict=True)]
    return tuple(sorted((*found, *route.passed()), key=lambda candidate: candidate.step))


def _candidate(hop: Hop, weighed: _Weighed, chosen: _Usable | None) -> Candidate:
    if isinstance(weighed, Skip):
        verdict, reason = Verdict.SKIPPED, weighed.value
    else:
        verdict = Verdict.CHOSEN if weighed is chosen else Verdict.FALLBACK
        reason = weighed.cause.value if weighed.closed_until else Skip.TRIED.value if weighed.repeat else ""
    return Candidate(hop.step, hop.channel, hop.account.name, verdict, reason, DETAILS.get(reason, ""))


def _text_of(ground: _Ground, hops: Sequence[Hop], chosen: _Usable | None) -> str:
    """What is said, by SMS where that is among the channels; "" where nothing is known to be."""
    by_sms = [hop for hop in hops if hop.channel == Channel.SMS]
    if chosen is not None and (chosen.hop.channel == Channel.SMS or not by_sms):
        return chosen.wording.text
    said = (ground.wording(hop) for hop in by_sms or hops)
    return next((wording.text for wording in said if wording is not None), ground.content.text)
