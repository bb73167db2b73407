"""One claimed message on its way: plan, intent, send, settle. No lock is held across a provider's call."""

import asyncio
import random
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass

from server.dispatch.insist import insist
from server.dispatch.moment import Moment
from server.model.accounts import HandOff
from server.model.clock import SECOND, Micros
from server.model.conclude import Decision
from server.model.decide import Refused
from server.model.enums import Channel, DueKind, FailureReason, MessageClass, Mode, Stop
from server.model.facts import Opening, Postponed, Settled, Started, Stopped, Unplannable
from server.model.messages import Attempt, Content
from server.model.outcomes import Outcome, unavailable
from server.model.phones import country_of
from server.model.plan import Go, Nothing, Plan, Wait, plan
from server.model.routing import Route, route_for
from server.model.segments import segments_of
from server.model.work import Claim, SandboxCopy
from server.providers.provider import Provider
from server.providers.roster import Roster
from server.store.store import Store

OTP_TIMEOUT_SECONDS = 4.0
BEAT_STALE_SECONDS = 3.0
UNKNOWN_ACCOUNT_PAUSE: Micros = SECOND
DESTINATIONS_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Delivery:
    """Moves claimed messages on. A process that has not committed a beat for three seconds hands nothing off."""

    store: Store
    roster: Roster

    async def deliver(self, claim: Claim) -> Decision | Refused | None:
        """Take one claim as far as it goes now; the decision that concluded it, None where the claim was given back."""
        moment = Moment.of(claim.now)
        message = claim.case.message
        if not self._alive():
            await self.store.release([claim])
            return None
        if moment.now() >= message.expires_at:
            return await insist(self.store, message.id, Stopped(Stop.EXPIRED))
        if claim.content is None:
            return await insist(self.store, message.id, Unplannable(claim.hold, FailureReason.NO_ROUTE))
        return await self._act(claim, claim.content, self._plan(claim, claim.content, moment.now()), moment)

    def _alive(self) -> bool:
        return time.monotonic() - self.store.beating <= BEAT_STALE_SECONDS

    def _plan(self, claim: Claim, content: Content, now: Micros) -> Plan:
        snapshot = self.store.configuration.snapshot
        message = claim.case.message
        tenant = snapshot.tenants.get(message.tenant_id)
        if tenant is None:
            return Nothing(FailureReason.NO_ROUTE)
        route: Route = route_for(
            snapshot.rules.get(message.tenant_id, ()),
            snapshot.accounts.get(message.tenant_id, ()),
            message.intent,
            content.recipient,
            message.channel_wanted,
        )
        return plan(claim.case, content, route, tenant.mode, self.roster.health(now), now)

    async def _act(self, claim: Claim, content: Content, chosen: Plan, moment: Moment) -> Decision | Refused:
        message_id = claim.case.message.id
        match chosen:
            case Wait(until):
                return await insist(self.store, message_id, Postponed(claim.hold, until))
            case Nothing(reason):
                return await insist(self.store, message_id, Unplannable(claim.hold, reason))
            case Go(hop):
                provider = self.roster.provider(hop.account.uid)
                if provider is None:
                    until = moment.now() + UNKNOWN_ACCOUNT_PAUSE
                    return await insist(self.store, message_id, Postponed(claim.hold, until))
                return await self._hand_off(claim, content, chosen, provider, moment)

    async def _hand_off(
        self, claim: Claim, content: Content, go: Go, provider: Provider, moment: Moment
    ) -> Decision | Refused:
        started = await insist(
            self.store, claim.case.message.id, Started(claim.hold, _openings(claim, content, go, moment))
        )
        if isinstance(started, Refused):
            if started.why == "EXPIRED":
                return await insist(self.store, claim.case.message.id, Stopped(Stop.EXPIRED))
            return started
        gate = asyncio.Semaphore(DESTINATIONS_AT_ONCE)
        journeys = [self._journey(claim, content, go, provider, moment, a, gate) for a in started.attempts]
        concluded = await asyncio.gather(*journeys)
        return concluded[-1]

    async def _journey(
        self,
        claim: Claim,
        content: Content,
        go: Go,
        provider: Provider,
        moment: Moment,
        attempt: Attempt,
        gate: asyncio.Semaphore,
    ) -> Decision | Refused:
        """One attempt: send and settle. The last look at clock and beat comes after the intent is committed."""
        hand_off = _hand_off_of(claim, content, go, attempt, moment.now())
        uid, channel, country = attempt.account_uid, attempt.channel, _country(attempt.channel, hand_off.destination)
        async with gate:
            outcome = self._held_back(claim, moment.now())
            if outcome is None:
                self.roster.started(uid, channel, country, moment.now(), repeat=go.repeat)
                outcome = await provider.send(hand_off)
                self.roster.note(uid, channel, country, outcome, moment.now(), sender=hand_off.sender)
        copy = self._copy(claim, attempt, hand_off)
        settled = Settled(claim.hold, attempt.number, outcome, jitter=random.random())  # noqa: S311 - jitter, no secret
        return await insist(self.store, claim.case.message.id, settled, copy)

    def _held_back(self, claim: Claim, now: Micros) -> Outcome | None:
        """Why nothing may leave any more although the intent is committed; this is no fault of the provider's."""
        if now >= claim.case.message.expires_at:
            return unavailable("EXPIRED", "Its time was over before it could be handed off.")
        if not self._alive():
            return unavailable("NO_BEAT", "This process could not reach its database and handed nothing off.")
        return None

    def _copy(self, claim: Claim, attempt: Attempt, hand_off: HandOff) -> SandboxCopy | None:
        tenant = self.store.configuration.snapshot.tenants.get(claim.case.message.tenant_id)
        if tenant is None or tenant.mode != Mode.SANDBOX:
            return None
        return SandboxCopy(
            attempt=attempt.number,
            channel=attempt.channel,
            provider=attempt.account,
            recipient=hand_off.destination,
            sender=hand_off.sender,
            text=hand_off.text,
        )


def wakes(decision: Decision | Refused | None) -> bool:
    """Whether a decision left a send that a lane may take up."""
    if not isinstance(decision, Decision):
        return False
    due = decision.message.due
    return due is not None and due.kind == DueKind.SEND and not due.worker


def _openings(claim: Claim, content: Content, go: Go, moment: Moment) -> tuple[Opening, ...]:
    account, channel = go.hop.account, go.hop.channel
    segments = segments_of(content.text) if channel == Channel.SMS else 0
    deadline = moment.now() + int(_timeout_seconds(claim, go) * SECOND)
    return tuple(
        Opening(
            step=go.hop.step,
            channel=channel,
            account=account.name,
            account_uid=account.uid,
            destination=destination,
            provider_key=_provider_key(claim.case.attempts, account.uid, destination),
            deadline=deadline,
            follow=account.follow,
            behind=go.behind,
            segments=segments,
        )
        for destination in go.destinations
    )


def _provider_key(attempts: Sequence[Attempt], account_uid: str, destination: int) -> int:
    """Our number for the provider: random, one per message, account and destination, the same over all its attempts."""
    same = (a.provider_key for a in attempts if a.account_uid == account_uid and a.destination == destination)
    return next(same, 0) or secrets.randbelow(2**63 - 1) + 1


def _timeout_seconds(claim: Claim, go: Go) -> float:
    timeout = go.hop.account.timeout_seconds
    return min(timeout, OTP_TIMEOUT_SECONDS) if claim.case.message.message_class == MessageClass.OTP else timeout


def _hand_off_of(claim: Claim, content: Content, go: Go, attempt: Attempt, now: Micros) -> HandOff:
    message = claim.case.message
    return HandOff(
        tracking_id=message.id,
        attempt=attempt.number,
        channel=attempt.channel,
        message_class=message.message_class,
        destination=content.recipient.addresses(attempt.channel)[attempt.destination],
        text=content.text,
        sender=content.sender or go.hop.sender,
        provider_key=attempt.provider_key,
        valid_micros=message.expires_at - now,
        timeout_seconds=_timeout_seconds(claim, go),
        reference=message.reference,
    )


def _country(channel: Channel, destination: str) -> str:
    return country_of(destination) if channel in (Channel.SMS, Channel.VOICE) else ""
