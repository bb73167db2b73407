"""One claimed message on its way: plan, intent, send, settle. No lock is held across a provider's call."""

import asyncio
import random
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from server.dispatch.insist import insist
from server.dispatch.moment import Moment
from server.dispatch.wordings import templates_for
from server.model.accounts import HandOff
from server.model.clock import MINUTE, SECOND, Micros
from server.model.conclude import Decision
from server.model.configuration import TenantSettings
from server.model.decide import Refused
from server.model.enums import Channel, DueKind, FailureReason, MessageClass, Mode, Stop
from server.model.facts import Fact, Opening, Postponed, Settled, Started, Stopped, Unplannable
from server.model.messages import Attempt, Content
from server.model.outcomes import Outcome, unavailable
from server.model.phones import country_of
from server.model.plan import Go, Nothing, Survey, Wait, survey
from server.model.reporting import ReportTo, nowhere
from server.model.routing import asked_of, route_for
from server.model.segments import segments_of
from server.model.work import NOTHING_BESIDE, Beside, Claim, SandboxCopy
from server.providers.provider import Provider
from server.providers.roster import Roster
from server.store.store import Store

OTP_TIMEOUT_SECONDS = 4.0
BEAT_STALE_SECONDS = 3.0
UNKNOWN_ACCOUNT_PAUSE: Micros = SECOND
TENANT_PAUSE: Micros = MINUTE
"""How long a message of a tenant that is switched off, or not known here yet, waits before it is looked at again."""
DESTINATIONS_AT_ONCE = 16

Ruling = Decision | Refused


@dataclass(frozen=True, slots=True)
class _HandOver:
    """Everything that one hand-off of a claim needs."""

    claim: Claim
    content: Content
    go: Go
    provider: Provider
    moment: Moment


@dataclass(frozen=True, slots=True)
class Delivery:
    """Moves claimed messages on. A process that has not committed a beat for three seconds hands nothing off."""

    store: Store
    roster: Roster
    report_to: ReportTo = nowhere

    async def deliver(self, claim: Claim) -> bool:
        """Take one claim as far as it goes now; whether a send of the message is due again."""
        moment = Moment(claim.now, claim.read_at)
        if not self._alive():
            await self.store.release([claim])
            return True
        if moment.now() >= claim.case.message.expires_at:
            return wakes(await self._state(claim, Stopped(Stop.EXPIRED)))
        if claim.content is None:
            return wakes(await self._state(claim, Unplannable(claim.hold, FailureReason.NO_ROUTE)))
        if self._tenant(claim) is None:
            return wakes(await self._state(claim, Postponed(claim.hold, moment.now() + TENANT_PAUSE)))
        return await self._act(claim, claim.content, await self._surveyed(claim, claim.content, moment), moment)

    async def _state(self, claim: Claim, fact: Fact, beside: Beside = NOTHING_BESIDE) -> Ruling:
        return await insist(self.store, claim.case.message.id, fact, beside)

    def _tenant(self, claim: Claim) -> TenantSettings | None:
        """The message's tenant; None where it is switched off, or not known here yet."""
        tenant = self.store.configuration.snapshot.tenants.get(claim.case.message.tenant_id)
        return tenant if tenant is not None and tenant.is_active else None

    def _alive(self) -> bool:
        return time.monotonic() - self.store.beating <= BEAT_STALE_SECONDS

    async def _surveyed(self, claim: Claim, content: Content, moment: Moment) -> Survey:
        """The plan, and why. That nothing is left is concluded only from what is configured now.

        What another process accepted a moment ago may need an account that this one's snapshot lacks still.
        """
        surveyed = await self._survey(claim, content, moment)
        if not isinstance(surveyed.plan, Nothing):
            return surveyed
        await self.store.configuration.refresh_if_changed()
        return await self._survey(claim, content, moment)

    async def _survey(self, claim: Claim, content: Content, moment: Moment) -> Survey:
        message, tenant_id = claim.case.message, claim.case.message.tenant_id
        templates = await templates_for(self.store, message)
        snapshot, now = self.store.configuration.snapshot, moment.now()
        tenant = snapshot.tenants[tenant_id]
        route = route_for(
            snapshot.rules.get(tenant_id, ()), snapshot.accounts.get(tenant_id, ()), asked_of(message, content)
        )
        return survey(
            claim.case,
            content,
            route,
            tenant.mode,
            self.roster.health(now),
            now,
            templates,
            tenant.default_locale,
            revision=snapshot.revisions.get(tenant_id, "0"),
        )

    async def _act(self, claim: Claim, content: Content, surveyed: Survey, moment: Moment) -> bool:
        why = Beside(explanation=surveyed.explanation)
        match surveyed.plan:
            case Wait(until):
                return wakes(await self._state(claim, Postponed(claim.hold, until), why))
            case Nothing(reason):
                return wakes(await self._state(claim, Unplannable(claim.hold, reason), why))
            case Go(hop) as go:
                provider = self.roster.provider(hop.account.uid)
                if provider is None:
                    until = moment.now() + UNKNOWN_ACCOUNT_PAUSE
                    return wakes(await self._state(claim, Postponed(claim.hold, until), why))
                return await self._hand_over(_HandOver(claim, content, go, provider, moment), why)

    async def _hand_over(self, over: _HandOver, why: Beside) -> bool:
        """Commit the intent, then send to every destination; one that fails unexpectedly holds up no other."""
        self._count(over)
        started = await self._state(over.claim, Started(over.claim.hold, _openings(over, self.report_to)), why)
        if isinstance(started, Refused):
            expired = started.why == "EXPIRED"
            return wakes(await self._state(over.claim, Stopped(Stop.EXPIRED)) if expired else started)
        gate = asyncio.Semaphore(DESTINATIONS_AT_ONCE)
        journeys = (self._journey(over, attempt, gate) for attempt in started.attempts)
        ended = await asyncio.gather(*journeys, return_exceptions=True)
        again = False
        for ruling in ended:
            if isinstance(ruling, BaseException):
                raise ruling
            again |= wakes(ruling)
        return again

    def _count(self, over: _HandOver) -> None:
        """Count what is about to go before anything is awaited: who plans next finds budget and probe spent."""
        hop = over.go.hop
        for destination in over.go.destinations:
            country = _country(hop.channel, over.content.recipient.addresses(hop.channel)[destination])
            self.roster.started(hop.account.uid, hop.channel, country, over.moment.now(), repeat=over.go.repeat)

    async def _journey(self, over: _HandOver, attempt: Attempt, gate: asyncio.Semaphore) -> Ruling:
        """One attempt: send and settle. The last look at clock and beat comes after the intent is committed."""
        hand_off = _hand_off_of(over, attempt, self._locale(over), self.report_to)
        uid, channel, country = attempt.account_uid, attempt.channel, _country(attempt.channel, hand_off.destination)
        async with gate:
            outcome = self._held_back(over)
            if outcome is None:
                outcome = await over.provider.send(hand_off)
                sender, template, now = hand_off.sender, hand_off.template, over.moment.now()
                self.roster.note(uid, channel, country, outcome, now, sender=sender, template=template)
        jitter = random.random()  # noqa: S311 - jitter, no secret
        settled = Settled(over.claim.hold, attempt.number, outcome, jitter)
        return await self._state(over.claim, settled, Beside(self._copy(over, attempt, hand_off)))

    def _held_back(self, over: _HandOver) -> Outcome | None:
        """Why nothing may leave any more although the intent is committed; this is no fault of the provider's."""
        if over.moment.now() >= over.claim.case.message.expires_at:
            return unavailable("EXPIRED", "Its time was over before it could be handed off.")
        if not self._alive():
            return unavailable("NO_BEAT", "This process could not reach its database and handed nothing off.")
        return None

    def _locale(self, over: _HandOver) -> str:
        tenant = self._tenant(over.claim)
        return over.content.recipient.locale or (tenant.default_locale if tenant else "")

    def _copy(self, over: _HandOver, attempt: Attempt, hand_off: HandOff) -> SandboxCopy | None:
        tenant = self.store.configuration.snapshot.tenants.get(over.claim.case.message.tenant_id)
        if tenant is None or tenant.mode != Mode.SANDBOX:
            return None
        return SandboxCopy(
            attempt=attempt.number,
            channel=attempt.channel,
            provider=attempt.account,
            recipient=hand_off.destination,
            sender=hand_off.sender,
            text=hand_off.text,
            subject=over.go.wording.subject,
            template=hand_off.template,
            params=hand_off.params,
        )


def wakes(ruling: Ruling) -> bool:
    """Whether a decision left a send that a lane may take up."""
    if isinstance(ruling, Refused):
        return False
    due = ruling.message.due
    return due is not None and due.kind == DueKind.SEND and not due.worker


def _openings(over: _HandOver, report_to: ReportTo) -> tuple[Opening, ...]:
    account, channel = over.go.hop.account, over.go.hop.channel
    follow = over.provider.follow(channel, templated=bool(over.go.wording.template))
    pushes = follow.pushes and bool(report_to(account, over.claim.case.message.id, 0))
    segments = segments_of(over.go.wording.text) if channel == Channel.SMS else 0
    deadline = over.moment.now() + int(_timeout_seconds(over) * SECOND)
    return tuple(
        Opening(
            step=over.go.hop.step,
            channel=channel,
            account=account.name,
            account_uid=account.uid,
            destination=destination,
            provider_key=_provider_key(over.claim.case.attempts, account.uid, destination),
            deadline=deadline,
            follow=replace(follow, pushes=pushes),
            behind=over.go.behind,
            segments=segments,
            patience=over.go.patience,
        )
        for destination in over.go.destinations
    )


def _provider_key(attempts: Sequence[Attempt], account_uid: str, destination: int) -> int:
    """Our number for the provider: random, one per message, account and destination, the same over all its attempts."""
    same = (a.provider_key for a in attempts if a.account_uid == account_uid and a.destination == destination)
    return next(same, 0) or secrets.randbelow(2**63 - 1) + 1


def _timeout_seconds(over: _HandOver) -> float:
    timeout = over.go.hop.account.timeout_seconds
    return min(timeout, OTP_TIMEOUT_SECONDS) if over.claim.case.message.message_class == MessageClass.OTP else timeout


def _hand_off_of(over: _HandOver, attempt: Attempt, locale: str, report_to: ReportTo) -> HandOff:
    message, wording = over.claim.case.message, over.go.wording
    return HandOff(
        tracking_id=message.id,
        attempt=attempt.number,
        channel=attempt.channel,
        message_class=message.message_class,
        destination=over.content.recipient.addresses(attempt.channel)[attempt.destination],
        text=wording.text,
        sender=over.content.sender or over.go.hop.sender,
        provider_key=attempt.provider_key,
        valid_micros=message.expires_at - over.moment.now(),
        timeout_seconds=_timeout_seconds(over),
        reference=message.reference,
        locale=wording.locale or locale,
        template=wording.template,
        params=wording.params,
        application_key=over.content.application_key or over.go.hop.application_key,
        report_to=report_to(over.go.hop.account, message.id, attempt.number),
        leave_by=over.moment.when(min(attempt.deadline, message.expires_at)),
    )


def _country(channel: Channel, destination: str) -> str:
    return country_of(destination) if channel in (Channel.SMS, Channel.VOICE) else ""
