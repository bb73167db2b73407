"""Configuration: accounts and rules are changed by merging, fenced by etags, and seen everywhere."""

import asyncio
import json
import time

import pytest

from server.model.accounts import Account, ProviderType, Setting
from server.model.clock import SECOND
from server.model.configuration import ProviderChange, Snapshot
from server.model.configuration_tables import ProviderAccount, RoutingRule
from server.model.enums import Channel
from server.model.errors import AlreadyExists, Invalid, NotFound, Precondition, Reason, invalid_field
from server.model.messages import Follow
from server.model.routing import Step
from server.store.configuration import Configuration
from server.store.rules import RULES_MAX
from server.store.store import Store
from tests.store.conftest import OpenAt
from tests.store.letters import TENANTS, change, rows

NORTH, SOUTH, _ = TENANTS
SMS = ProviderType(
    "courier",
    "Courier",
    (Channel.SMS, Channel.VOICE),
    (
        Setting("api_key", "Key", required=True, secret=True),
        Setting("sender", "Sender"),
        Setting("region", "Region", required=True, default="eu"),
    ),
    follow=Follow(polls=True, keeps_seconds=60),
)
MAIL = ProviderType("mail", "Mail", (Channel.EMAIL,), in_process=True)
TYPES = {SMS.type: SMS, MAIL.type: MAIL}
SECRET = "0123456789abcdef"


@pytest.fixture
async def configuration(store: Store) -> Configuration:
    return await _replica(store)


async def _replica(store: Store) -> Configuration:
    """The configuration as another process would see it."""
    configuration = Configuration(store._database, store.keys, TYPES)
    await configuration.refresh()
    return configuration


def anything(_: Account) -> None:
    """No rule of its own."""


async def configure(
    configuration: Configuration, name: str = "first", tenant: str = NORTH, *, etag: str = "", **fields: object
) -> tuple[ProviderAccount, bool]:
    change = ProviderChange(**fields)  # pyright: ignore[reportArgumentType] - the fields of a change by name
    return await configuration.configure_provider(tenant, name, change, client_id="ops", etag=etag, check=anything)


def seen(snapshot: Snapshot, name: str = "first", tenant: str = NORTH) -> Account:
    return next(account for account in snapshot.accounts[tenant] if account.name == name)


async def test_an_account_is_made_and_is_in_force_at_once(configuration: Configuration) -> None:
    """What the message path sees has the type's channels and defaults, and the secrets as they were given."""
    snapshots: list[Snapshot] = []
    configuration.on_snapshot.append(snapshots.append)
    row, created = await configure(
        configuration,
        type="courier",
        secrets={"api_key": SECRET},
        settings={"sender": "Shop"},
        timeout_micros=3 * SECOND,
    )
    assert created
    assert (row.type, row.client_id, row.revision) == ("courier", "ops", 1)
    assert json.loads(row.settings) == {"sender": "Shop"}
    assert await configuration.provider(NORTH, "first") == row
    account = seen(configuration.snapshot)
    assert snapshots[-1] is configuration.snapshot
    assert account == Account(
        NORTH, row.uid, "first", "courier", SMS.channels, timeout_seconds=3.0,
        settings={"region": "eu", "sender": "Shop"}, secrets={"api_key": SECRET}, follow=SMS.follow,
    )  # fmt: skip
    assert SECRET not in repr(account)


async def test_a_change_is_merged_by_key(configuration: Configuration) -> None:
    """What is absent stays, what is empty or cleared goes, and every change raises the revision."""
    await configure(
        configuration, type="courier", secrets={"api_key": SECRET, "other": "x"}, settings={"sender": "Shop"}
    )
    row, created = await configure(
        configuration, settings={"region": "us"}, secrets={"other": ""}, priority=5, caption="C"
    )
    assert (created, row.revision, row.priority, row.caption) == (False, 2, 5, "C")
    assert json.loads(row.settings) == {"region": "us", "sender": "Shop"}
    assert seen(configuration.snapshot).secrets == {"api_key": SECRET}
    row, _ = await configure(
        configuration, is_active=False, clear=frozenset({"settings.sender", "priority", "secrets"})
    )
    assert (json.loads(row.settings), row.priority, row.is_active, row.caption) == ({"region": "us"}, 0, False, "C")
    account = seen(configuration.snapshot)
    assert (dict(account.secrets), account.configured, account.is_active, account.version) == ({}, False, False, 3)
    row, _ = await configure(configuration, settings={"sender": "New"}, clear=frozenset({"settings", "is_active"}))
    assert (json.loads(row.settings), row.is_active) == ({"sender": "New"}, True)


async def test_the_same_again_changes_nothing(store: Store, configuration: Configuration) -> None:
    """The same answer, no new revision, and no replica reads anew."""
    first = await configure(configuration, type="courier", secrets={"api_key": SECRET}, settings={"sender": "Shop"})
    version = configuration.snapshot.version
    again = await configure(configuration, type="courier", secrets={"api_key": SECRET}, settings={"sender": "Shop"})
    assert (again[0], again[1]) == (first[0], False)
    assert await rows(store, "SELECT version FROM config_version") == [(version,)]


async def test_of_a_secret_no_more_is_shown_than_its_marks(store: Store, configuration: Configuration) -> None:
    """Nothing of it lies open in the database; a mark changes with its secret alone; a short one shows none."""
    row, _ = await configure(configuration, type="courier", secrets={"api_key": SECRET, "pin": "1234567"})
    marks = json.loads(row.secret_marks)
    assert marks["api_key"]["last_four"] == SECRET[-4:]
    assert marks["pin"]["last_four"] == ""
    assert [mark["version"] for mark in marks.values()] == [1, 1]
    assert SECRET.encode() not in b"".join(str(value).encode() for value in (await _account_rows(store))[0])
    later = json.loads((await configure(configuration, secrets={"api_key": SECRET[::-1]}))[0].secret_marks)
    assert later["pin"] == marks["pin"]
    assert later["api_key"]["version"] == 2
    assert later["api_key"]["fingerprint"] != marks["api_key"]["fingerprint"]
    other, _ = await configure(configuration, "second", type="courier", secrets={"api_key": SECRET})
    assert json.loads(other.secret_marks)["api_key"]["fingerprint"] == marks["api_key"]["fingerprint"]
    theirs, _ = await configure(configuration, tenant=SOUTH, type="courier", secrets={"api_key": SECRET})
    assert json.loads(theirs.secret_marks)["api_key"]["fingerprint"] != marks["api_key"]["fingerprint"]


async def _account_rows(store: Store) -> list[tuple[object, ...]]:
    return await rows(store, "SELECT * FROM provider_account")


async def test_secrets_of_another_account_do_not_open(store: Store, configuration: Configuration) -> None:
    """Sealed secrets that were copied between rows leave that account unconfigured; all others go on."""
    await configure(configuration, type="courier", secrets={"api_key": SECRET})
    await configure(configuration, "second", type="courier", secrets={"api_key": "another-secret"})
    copied = "SELECT secrets FROM provider_account WHERE name = 'first'"
    await change(store, f"UPDATE provider_account SET secrets = ({copied}) WHERE name = 'second'")
    await configuration.refresh()
    assert seen(configuration.snapshot).secrets == {"api_key": SECRET}
    assert not seen(configuration.snapshot, "second").configured
    assert seen(configuration.snapshot, "second").secrets == {}


async def test_what_does_not_fit_is_refused_and_nothing_is_kept(store: Store, configuration: Configuration) -> None:
    """A wrong etag, another type, no type, an unknown one, and what the check refuses."""
    await configure(configuration, type="courier", secrets={"api_key": SECRET})
    before = await _account_rows(store)
    with pytest.raises(Precondition) as stale:
        await configure(configuration, etag="2", caption="x")
    assert stale.value.reason == Reason.ETAG_MISMATCH
    with pytest.raises(Precondition):
        await configure(configuration, "new", etag="1", type="courier")
    with pytest.raises(AlreadyExists) as taken:
        await configure(configuration, type="mail")
    assert taken.value.reason == Reason.RESOURCE_EXISTS
    with pytest.raises(Invalid):
        await configure(configuration, "new")
    with pytest.raises(NotFound):
        await configure(configuration, "new", type="pigeon")

    def refuse(account: Account) -> None:
        assert account.secrets == {"api_key": "short"}
        raise invalid_field("secrets.api_key", "has fewer than 8 characters")

    changed = ProviderChange(secrets={"api_key": "short"})
    with pytest.raises(Invalid):
        await configuration.configure_provider(NORTH, "first", changed, client_id="ops", check=refuse)
    assert await _account_rows(store) == before
    assert (await configure(configuration, etag="1", caption="x"))[0].revision == 2


async def test_validate_only_keeps_nothing(store: Store, configuration: Configuration) -> None:
    """The answer is that of a real change, of an account and of rules; nothing is written and nobody reads anew."""
    version = configuration.snapshot.version
    wanted = ProviderChange(type="courier", secrets={"api_key": SECRET})
    row, created = await configuration.configure_provider(
        NORTH, "first", wanted, client_id="ops", check=anything, validate_only=True
    )
    assert (created, row.name, row.revision) == (True, "first", 1)
    kept, revision = await configuration.set_rules(NORTH, [rule("a")], validate_only=True)
    assert ([one.name for one in kept], revision) == (["a"], "1")
    assert await _account_rows(store) == []
    assert await configuration.rules(NORTH) == ([], "0")
    assert await rows(store, "SELECT version FROM config_version") == [(version,)]


async def test_an_account_that_rules_name_is_deleted_by_force_alone(configuration: Configuration) -> None:
    """RESOURCE_IN_USE names the rules; another tenant's rules do not count."""
    await configure(configuration, type="courier")
    await configure(configuration, type="courier", tenant=SOUTH)
    await configuration.set_rules(
        NORTH, [rule("b", providers=["first"]), rule("a", providers=["x", "first"]), rule("c")]
    )
    with pytest.raises(Precondition) as used:
        await configuration.delete_provider(NORTH, "first")
    assert (used.value.reason, used.value.metadata["rules"]) == (Reason.RESOURCE_IN_USE, "a,b")
    with pytest.raises(Precondition):
        await configuration.delete_provider(NORTH, "first", "7", force=True)
    uid = (await configuration.delete_provider(NORTH, "first", "1", force=True)).uid
    assert NORTH not in configuration.snapshot.accounts
    with pytest.raises(NotFound):
        await configuration.delete_provider(NORTH, "first")
    await configuration.delete_provider(SOUTH, "first")
    assert (await configure(configuration, type="courier"))[0].uid != uid


async def test_accounts_are_within_their_tenant(configuration: Configuration) -> None:
    """Another tenant's account can neither be read, nor changed, nor listed, nor deleted."""
    mine, _ = await configure(configuration, type="courier")
    with pytest.raises(NotFound):
        await configuration.provider(SOUTH, "first")
    theirs, created = await configure(configuration, tenant=SOUTH, type="mail")
    assert created
    assert theirs.uid != mine.uid
    assert await configuration.list_providers(NORTH) == [mine]
    assert await configuration.list_providers(SOUTH) == [theirs]
    await configuration.delete_provider(SOUTH, "first")
    assert await configuration.list_providers(NORTH) == [mine]


async def test_two_who_change_one_account_do_not_lose_a_change(store: Store, configuration: Configuration) -> None:
    """Merges of different keys at once are all there; with the same etag one alone wins."""
    await configure(configuration, type="courier")
    replicas = [configuration, await _replica(store)]
    await asyncio.gather(*(configure(replicas[n % 2], settings={f"k{n}": "v"}) for n in range(10)))
    row = await configuration.provider(NORTH, "first")
    assert (len(json.loads(row.settings)), row.revision) == (10, 11)
    fenced = [configure(replica, etag="11", caption=str(n)) for n, replica in enumerate(replicas)]
    answers = await asyncio.gather(*fenced, return_exceptions=True)
    assert sorted(type(answer).__name__ for answer in answers) == ["Precondition", "tuple"]


def rule(
    name: str, intents: list[str] | None = None, providers: list[str] | None = None, priority: int = 0
) -> RoutingRule:
    steps = [{"channel": "SMS", "providers": providers or [], "fallback": False}, {"channel": "", "providers": []}]
    return RoutingRule(
        tenant_id=NORTH, name=name, intents=json.dumps(intents or []), steps=json.dumps(steps), priority=priority
    )


async def test_rules_are_set_read_and_deleted_as_one_set(configuration: Configuration) -> None:
    """Each change raises the revision, the same again does not; the snapshot has them as the plan wants them."""
    kept, revision = await configuration.set_rules(NORTH, [rule("b", ["login"]), rule("a", priority=1)])
    assert ([one.name for one in kept], revision) == (["b", "a"], "1")
    again, revision = await configuration.set_rules(NORTH, [rule("b", ["login"])], revision="1")
    assert (again, revision) == (kept[:1], "1")
    assert [one.name for one in (await configuration.rules(NORTH))[0]] == ["b", "a"]
    assert [one.name for one in (await configuration.rules(NORTH, names=["a"]))[0]] == ["a"]
    assert [one.name for one in (await configuration.rules(NORTH, intent="other"))[0]] == ["a"]
    assert [one.name for one in (await configuration.rules(NORTH, intent="login"))[0]] == ["b", "a"]
    (first, _) = configuration.snapshot.rules[NORTH]
    assert first.steps == (Step(Channel.SMS, (), fallback=False), Step())
    changed, revision = await configuration.set_rules(NORTH, [rule("b", ["login"], priority=9)], replace_all=True)
    assert (revision, changed[0].created_at) == ("2", kept[0].created_at)
    assert [one.name for one in configuration.snapshot.rules[NORTH]] == ["b"]
    deleted, revision = await configuration.delete_rules(NORTH, ["b"], "2")
    assert ([one.name for one in deleted], revision) == (["b"], "3")
    assert await configuration.rules(NORTH) == ([], "3")
    assert NORTH not in configuration.snapshot.rules


async def test_rules_are_fenced_walled_and_bounded(configuration: Configuration) -> None:
    """A wrong revision, unknown names, another tenant's rule, one name twice, the 201st: refused and not kept."""
    await configuration.set_rules(NORTH, [rule("a")])
    for refused in (
        configuration.set_rules(NORTH, [rule("b")], revision="0"),
        configuration.delete_rules(NORTH, ["a"], "2"),
    ):
        with pytest.raises(Precondition) as stale:
            await refused
        assert stale.value.reason == Reason.ETAG_MISMATCH
    with pytest.raises(NotFound):
        await configuration.delete_rules(NORTH, ["a", "none"])
    with pytest.raises(NotFound):
        await configuration.delete_rules(SOUTH, ["a"])
    assert await configuration.rules(SOUTH) == ([], "0")
    await configuration.set_rules(SOUTH, [rule("a")], replace_all=True)
    with pytest.raises(Invalid):
        await configuration.set_rules(NORTH, [rule("b"), rule("b", priority=1)])
    many = [rule(f"r{n}") for n in range(RULES_MAX)]
    with pytest.raises(Invalid):
        await configuration.set_rules(NORTH, many)
    assert [one.name for one in (await configuration.rules(NORTH))[0]] == ["a"]
    await configuration.set_rules(NORTH, many, replace_all=True)
    with pytest.raises(Invalid):
        await configuration.set_rules(NORTH, [*many, rule("one more")], replace_all=True)
    assert [one.tenant_id for one in (await configuration.rules(SOUTH))[0]] == [SOUTH]


async def test_a_change_reaches_another_process_by_its_next_look(store: Store, configuration: Configuration) -> None:
    """One look at the version finds it; without a change the snapshot stays the very same."""
    other = await _replica(store)
    before = other.snapshot
    await other.refresh_if_changed()
    assert other.snapshot is before
    await configure(configuration, type="courier", secrets={"api_key": SECRET})
    await other.refresh_if_changed()
    assert seen(other.snapshot) == seen(configuration.snapshot)


async def test_a_change_reaches_another_store_within_two_seconds(
    on_postgres: Store, postgres_url: str, open_at: OpenAt
) -> None:
    """Two stores on one Postgres, the second one looking each second as a dispatcher makes it."""
    other = await open_at(postgres_url)

    async def follow() -> None:
        while "late" not in other.configuration.snapshot.rules:
            await asyncio.sleep(1)
            await other.configuration.refresh_if_changed()

    following = asyncio.create_task(follow())
    await asyncio.sleep(0)
    began = time.monotonic()
    await on_postgres.configuration.set_rules("late", [rule("a")])
    await asyncio.wait_for(following, 10)
    assert time.monotonic() - began < 2


async def test_an_account_of_a_type_that_is_gone_is_kept_and_not_used(
    store: Store, configuration: Configuration
) -> None:
    """After a downgrade it is not configured, and can be deleted."""
    await configure(configuration, type="courier", secrets={"api_key": SECRET})
    older = Configuration(store._database, store.keys, {})
    await older.refresh()
    account = seen(older.snapshot)
    assert (account.configured, account.channels) == (False, ())
    await older.delete_provider(NORTH, "first")
