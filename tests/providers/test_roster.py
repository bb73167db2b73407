"""The roster: which providers live, and what it tells of their health."""

from dataclasses import replace

import pytest

from server.model.accounts import Account
from server.model.clock import SECOND, Micros
from server.model.configuration import Snapshot
from server.model.enums import Channel
from server.model.health import Cause, Closed
from server.model.outcomes import (
    Accepted,
    Fault,
    Outcome,
    Refusal,
    ambiguous,
    misconfigured,
    rate_limited,
    rejected,
    unavailable,
)
from server.providers.roster import TYPES, Roster
from server.providers.transport import NO_CONNECTION, TOO_LATE, Call, NotSent, Transport
from tests.providers.conftest import account_at, hand_off
from tests.scripted_upstream import ScriptedUpstream

NOW: Micros = 1_700_000_000 * SECOND
UID = "u-1"
LINE = (UID, Channel.SMS, "98")


@pytest.fixture
async def roster(transport: Transport) -> Roster:
    made = Roster(transport)
    made.follow(of(account_at("http://127.0.0.1:9")))
    return made


def of(*accounts: Account) -> Snapshot:
    """A configuration of these accounts."""
    return Snapshot(accounts={"t": accounts})


def note(roster: Roster, outcome: Outcome, now: Micros = NOW, *, country: str = "98", **said_by: str) -> None:
    roster.note(UID, Channel.SMS, country, outcome, now, **said_by)


def broken(roster: Roster) -> None:
    for _ in range(5):
        note(roster, unavailable(NO_CONNECTION))


def test_every_type_is_described() -> None:
    """The upstreams and the sandbox, each with what a form needs; only the sandbox stays in the process."""
    types = Roster.types()
    assert set(types) == {"kavenegar", "sandbox", "twilio"}
    assert types["kavenegar"].requires_setup
    assert types["twilio"].requires_setup
    assert not types["sandbox"].requires_setup
    assert [name for name, described in types.items() if described.in_process] == ["sandbox"]
    assert set(types["sandbox"].channels) == set(Channel)
    assert all(name == kind.type.type for name, kind in TYPES.items())


async def test_one_provider_lives_per_version(roster: Roster) -> None:
    """The same version keeps its provider, a new one replaces it, an account that is gone has none."""
    account = account_at("http://127.0.0.1:9")
    first = roster.provider(UID)
    roster.follow(of(account))
    assert roster.provider(UID) is first
    roster.follow(of(replace(account, version=2)))
    second = roster.provider(UID)
    assert second is not None
    assert second is not first
    roster.follow(of())
    assert roster.provider(UID) is None


async def test_an_account_that_is_switched_off_lives_on(roster: Roster) -> None:
    """What it took must still be followed."""
    roster.follow(of(replace(account_at("http://127.0.0.1:9"), version=2, is_active=False)))
    assert roster.provider(UID) is not None


@pytest.mark.parametrize(
    "change",
    [{"configured": False}, {"type": "no-such-type"}, {"secrets": {}}],
    ids=["not configured", "unknown type", "no key"],
)
async def test_what_cannot_live_does_not(transport: Transport, change: dict[str, object]) -> None:
    """Not configured, of an unknown type, or without its key: no provider; other accounts are unharmed."""
    good = account_at("http://127.0.0.1:9")
    bad = replace(good, uid="u-2", **change)
    roster = Roster(transport)
    roster.follow(of(bad, good))
    assert roster.provider("u-2") is None
    assert roster.provider(UID) is not None


async def test_a_new_version_sends_with_its_own_key(upstream: ScriptedUpstream, transport: Transport) -> None:
    """After the key changed, the next call bears the new one, and the old provider's calls still end."""
    roster = Roster(transport)
    account = account_at(upstream.base_url)
    roster.follow(of(account))
    old = roster.provider(UID)
    roster.follow(of(replace(account, version=2, secrets={"api_key": "another-key"})))
    new = roster.provider(UID)
    assert old is not None
    assert new is not None
    for provider in (old, new):
        assert isinstance(await provider.send(hand_off()), Accepted)
    assert [request.path.split("/")[2] for request in upstream.requests] == ["canary%2Fkey%200123456789", "another-key"]


def test_health_is_the_same_value_until_something_changes(roster: Roster) -> None:
    """A plan costs no copy while all is well."""
    first = roster.health(NOW)
    note(roster, Accepted("1"))
    roster.started(UID, Channel.SMS, "98", NOW, repeat=False)
    assert roster.health(NOW + SECOND) is first
    broken(roster)
    assert roster.health(NOW + SECOND) is not first


def test_a_line_that_fails_is_closed_and_no_other(roster: Roster) -> None:
    """Five calls without a connection close this account, channel and country for five seconds."""
    broken(roster)
    health = roster.health(NOW)
    assert health.lines == {LINE: Closed(NOW + 5 * SECOND, Cause.BREAKER_OPEN)}
    assert health.closed(LINE, "", "", NOW) is not None
    assert health.closed((UID, Channel.SMS, "44"), "", "", NOW) is None
    assert health.closed(LINE, "", "", NOW + 5 * SECOND) is None


def test_a_code_of_the_provider_is_no_lost_connection(roster: Roster) -> None:
    """An answer that says "cannot answer now" did connect: five of them are too few to judge."""
    for _ in range(5):
        note(roster, unavailable("409"))
    assert roster.health(NOW).lines == {}


def test_what_came_too_late_itself_closes_nothing(roster: Roster) -> None:
    """A process that stood still says nothing of the account; a probe that it held gives way to another."""
    for _ in range(10):
        note(roster, unavailable(TOO_LATE))
    assert roster.health(NOW).lines == {}
    broken(roster)
    later = NOW + 5 * SECOND
    roster.started(UID, Channel.SMS, "98", later, repeat=False)
    note(roster, unavailable(TOO_LATE), later)
    assert roster.health(later).closed(LINE, "", "", later) is None


def test_half_of_twenty_calls_close_a_line(roster: Roster) -> None:
    """Ten unknown answers among twenty."""
    for n in range(20):
        note(roster, ambiguous("NO_ANSWER") if n % 2 else Accepted(str(n)))
    assert set(roster.health(NOW).lines) == {LINE}


def test_refusals_close_nothing(roster: Roster) -> None:
    """A hundred bad recipients, texts and requests say nothing of the account."""
    empty = roster.health(NOW)
    for n in range(100):
        note(roster, rejected(list(Refusal)[n % 3], "411"))
    assert roster.health(NOW) is empty


def test_one_probe_goes_through_a_line_that_is_half_open(roster: Roster) -> None:
    """After the span the line is open; once an attempt has started it is closed until that one's outcome."""
    broken(roster)
    later = NOW + 5 * SECOND
    assert roster.health(later).closed(LINE, "", "", later) is None
    roster.started(UID, Channel.SMS, "98", later, repeat=False)
    assert roster.health(later).closed(LINE, "", "", later + 1) is not None
    note(roster, Accepted("1"), later + 1)
    assert roster.health(later + 1).closed(LINE, "", "", later + 1) is None


@pytest.mark.parametrize(("fault", "cause"), [(Fault.CREDENTIALS, Cause.CREDENTIALS), (Fault.FUNDS, Cause.FUNDS)])
def test_a_fault_of_the_account_closes_it_for_a_minute(roster: Roster, fault: Fault, cause: Cause) -> None:
    """Every line of it; after sixty seconds it may be tried again."""
    note(roster, misconfigured(fault, "403"))
    assert roster.health(NOW).accounts == {UID: Closed(NOW + 60 * SECOND, cause)}
    assert roster.health(NOW).closed((UID, Channel.VOICE, "1"), "any", "", NOW) is not None
    assert roster.health(NOW + 60 * SECOND).accounts == {}


def test_a_fault_of_a_sender_closes_that_sender(roster: Roster) -> None:
    """Other senders of the account go on, and so does its template by another sender."""
    note(roster, misconfigured(Fault.SENDER, "412"), sender="2000", template="code")
    closed = Closed(NOW + 60 * SECOND, Cause.SENDER)
    health = roster.health(NOW)
    assert (health.senders, health.templates) == ({(UID, "2000"): closed}, {})
    assert health.closed(LINE, "2000", "", NOW) == closed
    assert health.closed(LINE, "3000", "code", NOW) is None


def test_a_fault_of_a_template_closes_that_template(roster: Roster) -> None:
    """For sixty seconds, by whatever sender; other templates, texts and accounts go on."""
    note(roster, misconfigured(Fault.TEMPLATE, "424"), sender="2000", template="code")
    closed = Closed(NOW + 60 * SECOND, Cause.TEMPLATE)
    health = roster.health(NOW)
    assert (health.senders, health.templates) == ({}, {(UID, "code"): closed})
    assert health.closed(LINE, "2000", "code", NOW) == closed
    assert health.closed(LINE, "3000", "code", NOW) == closed
    assert health.closed(LINE, "2000", "other", NOW) is None
    assert health.closed(LINE, "2000", "", NOW) is None
    assert health.closed(("u-2", Channel.SMS, "98"), "2000", "code", NOW) is None
    assert roster.health(NOW + 60 * SECOND).templates == {}


def test_a_fault_of_a_template_that_was_not_named_closes_nothing(roster: Roster) -> None:
    """A code of the provider's may come to a text: texts would all be closed for it."""
    note(roster, misconfigured(Fault.TEMPLATE, "607"), sender="2000")
    health = roster.health(NOW)
    assert (health.accounts, health.senders, health.templates) == ({}, {}, {})


@pytest.mark.parametrize(("asked", "closed"), [(0, 1), (7, 7), (60, 60), (600, 60)])
def test_a_rate_limit_pauses_the_account(roster: Roster, asked: int, closed: int) -> None:
    """As long as asked, a second at least, a minute at most."""
    note(roster, rate_limited("451", "", asked * SECOND))
    assert roster.health(NOW).accounts == {UID: Closed(NOW + closed * SECOND, Cause.RATE_LIMITED)}


def test_a_shorter_pause_does_not_end_a_longer_closure(roster: Roster) -> None:
    """A rate limit beside wrong credentials leaves the account closed for those."""
    note(roster, misconfigured(Fault.CREDENTIALS, "403"))
    note(roster, rate_limited("451"))
    assert roster.health(NOW).accounts[UID].cause == Cause.CREDENTIALS


async def test_a_new_version_starts_with_a_clean_slate(roster: Roster) -> None:
    """Who corrects a key need not wait a minute."""
    note(roster, misconfigured(Fault.CREDENTIALS, "403"))
    note(roster, misconfigured(Fault.SENDER, "412"), sender="2000")
    note(roster, misconfigured(Fault.TEMPLATE, "424"), template="code")
    broken(roster)
    roster.follow(of(replace(account_at("http://127.0.0.1:9"), version=2)))
    health = roster.health(NOW)
    assert (health.accounts, health.senders, health.templates, health.lines) == ({}, {}, {}, {})


def test_repeats_spend_the_budget_and_time_refills_it(roster: Roster) -> None:
    """Ten repeats a second; the eleventh waits for the next second. First attempts spend nothing."""
    for _ in range(10):
        assert UID not in roster.health(NOW).spent
        roster.started(UID, Channel.SMS, "98", NOW, repeat=True)
    for _ in range(50):
        roster.started("u-2", Channel.SMS, "98", NOW, repeat=False)
    assert roster.health(NOW).spent == {UID}
    assert roster.health(NOW + SECOND).spent == frozenset()


def test_first_attempts_earn_repeats(roster: Roster) -> None:
    """Two hundred first attempts allow twenty repeats, even in one second."""
    for _ in range(200):
        roster.started(UID, Channel.SMS, "98", NOW, repeat=False)
    for _ in range(20):
        assert UID not in roster.health(NOW).spent
        roster.started(UID, Channel.SMS, "98", NOW, repeat=True)
    assert roster.health(NOW).spent == {UID}


async def test_the_end_drops_every_provider(transport: Transport) -> None:
    """After aclose nobody is left, and nothing is sent any more."""
    roster = Roster(transport)
    roster.follow(of(Account("t", "u-9", "sandbox", "sandbox", tuple(Channel), in_process=True)))
    assert roster.provider("u-9") is not None
    await roster.aclose()
    assert roster.provider("u-9") is None
    assert await transport.exchange(Call("http://127.0.0.1:9", "/"), 1.0) == NotSent(NO_CONNECTION)
