"""The live providers, one per account and version, with how well each does. Made once, handed to whoever needs it.

Everything happens on one event loop. Health is this process's own: other replicas see their own calls.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import structlog

from server.model import breaker as breakers, budget as budgets
from server.model.accounts import Account, ProviderType
from server.model.breaker import Breaker, Result
from server.model.budget import Budget
from server.model.clock import SECOND, Micros
from server.model.configuration import Snapshot
from server.model.enums import Channel
from server.model.health import Cause, Closed, Health, Line
from server.model.outcomes import Fault, Misconfigured, Outcome, RateLimited, Unavailable
from server.providers import kavenegar, sandbox, twilio
from server.providers.provider import Kind, Provider
from server.providers.transport import NOT_SENT, TOO_LATE, Transport

TYPES: Mapping[str, Kind] = MappingProxyType(
    {
        kavenegar.TYPE.type: Kind(kavenegar.TYPE, kavenegar.Kavenegar),
        sandbox.TYPE.type: Kind(sandbox.TYPE, sandbox.Sandbox),
        twilio.TYPE.type: Kind(twilio.TYPE, twilio.Twilio),
    }
)
FAULT_CLOSES: Micros = 60 * SECOND
RATE_LIMIT_CLOSES_MIN: Micros = SECOND
"""Also where the provider named no pause."""
RATE_LIMIT_CLOSES_MAX: Micros = 60 * SECOND
CLOCK_SET_BACK: Micros = 10 * SECOND
"""Hand-offs at work read the clock at different times, though not by so much."""
LINES_MAX = 10_000
SENDERS_MAX = 10_000
TEMPLATES_MAX = 10_000

_log = structlog.get_logger("providers")


@dataclass(frozen=True, slots=True)
class _Live:
    version: int
    provider: Provider


class Roster:
    """Live providers by account uid, and their health."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._live: dict[str, _Live] = {}
        self._breakers: dict[Line, Breaker] = {}
        self._budgets: dict[str, Budget] = {}
        self._accounts: dict[str, Closed] = {}
        self._senders: dict[tuple[str, str], Closed] = {}
        self._templates: dict[tuple[str, str], Closed] = {}
        self._health = Health()
        self._health_until: Micros = 0
        self._latest: Micros = 0
        self._closing: set[asyncio.Task[None]] = set()

    @staticmethod
    def types() -> Mapping[str, ProviderType]:
        """Every type that an account may be of, by its name."""
        return {name: kind.type for name, kind in TYPES.items()}

    def follow(self, snapshot: Snapshot) -> None:
        """Makes a provider of each configured account that has none at its version; drops those of accounts gone.

        An account that is switched off keeps its provider: what it took is still followed. A new version starts with
        a clean slate. Must be called on the event loop.
        """
        live: dict[str, _Live] = {}
        for account in (account for accounts in snapshot.accounts.values() for account in accounts):
            found = self._live.get(account.uid)
            made = found if found and found.version == account.version else self._made(account)
            if made is not None:
                live[account.uid] = made
        dropped = {uid: old for uid, old in self._live.items() if live.get(uid) is not old}
        self._live = live
        for uid, old in dropped.items():
            self._forget(uid)
            self._drop(old.provider)

    def provider(self, uid: str) -> Provider | None:
        """The live provider of an account; None when it is gone, not configured, or of a type that is not known."""
        live = self._live.get(uid)
        return live.provider if live else None

    def started(self, uid: str, channel: Channel, country: str, now: Micros, *, repeat: bool) -> None:
        """An attempt is about to be handed off: counts it for the budget, and as the probe of a line that is half-open.

        `repeat`: the message was handed to this very account for this destination before.
        """
        self._mind_the_clock(now)
        was_spent = uid in self._health.spent
        self._budgets[uid] = budgets.began(self._budgets.get(uid, Budget()), now, repeat=repeat)
        line = (uid, channel, country)
        breaker = self._breakers.get(line)
        probing = breakers.probing(breaker, now) if breaker else None
        if breaker is not None and probing is not None and probing is not breaker:
            self._breakers[line] = probing
            self._health_until = 0
        if budgets.spent(self._budgets[uid], now) != was_spent:
            self._health_until = 0

    def note(
        self,
        uid: str,
        channel: Channel,
        country: str,
        outcome: Outcome,
        now: Micros,
        *,
        sender: str = "",
        template: str = "",
    ) -> None:
        """What a hand-off came to: moves the breaker of its line, closes an account, sender or template at fault."""
        self._mind_the_clock(now)
        self._close(uid, sender, template, outcome, now)
        line = (uid, channel, country)
        before = self._breakers.get(line, Breaker())
        moved = breakers.after(before, _result_of(outcome), now)
        if moved is before:
            return
        self._breakers[line] = moved
        if moved.closed_until(now) != before.closed_until(now):
            self._health_until = 0
            until = moved.closed_until(now)
            _log.info("breaker moved", account=uid, channel=channel, country=country, open_micros=max(0, until - now))
        if len(self._breakers) > LINES_MAX:
            self._breakers.pop(next(iter(self._breakers)))

    def health(self, now: Micros) -> Health:
        """What is closed at `now`. The same value is returned until something changes or expires."""
        self._mind_the_clock(now)
        if now >= self._health_until:
            self._health = self._told(now)
            self._health_until = _expiry(self._health, now)
        return self._health

    async def aclose(self) -> None:
        """Drops every provider and closes the transport."""
        self.follow(Snapshot())
        await asyncio.gather(*self._closing)
        await self._transport.aclose()

    def _made(self, account: Account) -> _Live | None:
        kind = TYPES.get(account.type)
        if kind is None or not account.configured:
            return None
        missing = kind.type.missing([name for name in {**account.settings, **account.secrets} if _has(account, name)])
        if missing:
            _log.warning("an account lacks settings", account=account.uid, missing=missing)
            return None
        return _Live(account.version, kind.make(account, self._transport))

    def _drop(self, provider: Provider) -> None:
        task = asyncio.get_running_loop().create_task(provider.aclose())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def _forget(self, uid: str) -> None:
        self._accounts.pop(uid, None)
        self._budgets.pop(uid, None)
        self._breakers = {line: breaker for line, breaker in self._breakers.items() if line[0] != uid}
        self._senders = {sender: closed for sender, closed in self._senders.items() if sender[0] != uid}
        self._templates = {template: closed for template, closed in self._templates.items() if template[0] != uid}
        self._health_until = 0

    def _mind_the_clock(self, now: Micros) -> None:
        """A clock that was set back would keep closed for as long what was to open in a moment: all begins anew.

        For some seconds hand-offs that read the clock before and after it was moved come in turns.
        """
        if now < self._latest - CLOCK_SET_BACK:
            _log.info("the clock was set back: the health of all accounts begins anew")
            for closings in (self._breakers, self._budgets, self._accounts, self._senders, self._templates):
                closings.clear()
            self._health_until, self._latest = 0, now
        self._latest = max(self._latest, now)

    def _close(self, uid: str, sender: str, template: str, outcome: Outcome, now: Micros) -> None:
        match outcome:
            case Misconfigured(Fault.CREDENTIALS):
                self._accounts[uid] = Closed(now + FAULT_CLOSES, Cause.CREDENTIALS)
            case Misconfigured(Fault.FUNDS):
                self._accounts[uid] = Closed(now + FAULT_CLOSES, Cause.FUNDS)
            case Misconfigured(Fault.SENDER):
                _put(self._senders, (uid, sender), Closed(now + FAULT_CLOSES, Cause.SENDER), SENDERS_MAX)
            case Misconfigured(Fault.TEMPLATE) if template:
                _put(self._templates, (uid, template), Closed(now + FAULT_CLOSES, Cause.TEMPLATE), TEMPLATES_MAX)
            case RateLimited(retry_after=pause):
                self._rate_limit(uid, now + min(max(pause, RATE_LIMIT_CLOSES_MIN), RATE_LIMIT_CLOSES_MAX))
            case _:
                return
        self._health_until = 0

    def _rate_limit(self, uid: str, until: Micros) -> None:
        standing = self._accounts.get(uid)
        if standing is None or standing.until < until:
            self._accounts[uid] = Closed(until, Cause.RATE_LIMITED)

    def _told(self, now: Micros) -> Health:
        self._accounts = {uid: closed for uid, closed in self._accounts.items() if closed.until > now}
        self._senders = {sender: closed for sender, closed in self._senders.items() if closed.until > now}
        self._templates = {template: closed for template, closed in self._templates.items() if closed.until > now}
        lines = {line: breaker.closed_until(now) for line, breaker in self._breakers.items()}
        return replace(
            Health(),
            lines={line: Closed(until, Cause.BREAKER_OPEN) for line, until in lines.items() if until},
            accounts=dict(self._accounts),
            senders=dict(self._senders),
            templates=dict(self._templates),
            spent=frozenset(uid for uid, budget in self._budgets.items() if budgets.spent(budget, now)),
        )


def _result_of(outcome: Outcome) -> Result | None:
    code = outcome.failure.provider_code if isinstance(outcome, Unavailable) else ""
    return None if code == TOO_LATE else breakers.result_of(outcome, connected=code not in NOT_SENT)


def _put(closings: dict[tuple[str, str], Closed], what: tuple[str, str], closed: Closed, most: int) -> None:
    """Close it; where too many are closed, what was closed first opens."""
    closings[what] = closed
    if len(closings) > most:
        closings.pop(next(iter(closings)))


def _has(account: Account, name: str) -> bool:
    return bool(account.secrets.get(name) or account.settings.get(name))


def _expiry(health: Health, now: Micros) -> Micros:
    """When the health must be told anew though nothing happens."""
    closings = (health.lines, health.accounts, health.senders, health.templates)
    untils = [closed.until for each in closings for closed in each.values()]
    if health.spent:
        untils.append((now // SECOND + 1) * SECOND)
    return min(untils, default=now + 3600 * SECOND)
