"""Templates are kept by revision: what a message was accepted with it says, whatever becomes of the template."""

import asyncio
import json

import pytest

from server.model.configuration_tables import RoutingRule
from server.model.enums import Channel, DueKind, MessageClass, Stop
from server.model.errors import AlreadyExists, Invalid, NotFound, Precondition, Reason, invalid_field
from server.model.facts import Stopped
from server.model.templates import (
    KeptTemplate,
    ProviderTemplate,
    Resource,
    TemplateChange,
    TemplateContent,
    Variant,
)
from server.store.configuration import Configuration
from server.store.store import Store
from server.store.templates import COUNTED_MAX, PINNED_MAX
from tests.store.letters import TENANTS, accept_all, change, letter, rows

NORTH, SOUTH, _ = TENANTS
LOGIN = TemplateContent(
    name="Login",
    caption="Ingresso",
    text="Code %CODE%",
    priority=3,
    variants=(Variant("fa", Channel.SMS, "کد %CODE%", "s", "<b>%CODE%</b>"), Variant("en", None, "Code: %CODE%")),
    provider_templates=(ProviderTemplate("kavenegar", "login", {"token": "CODE"}, "fa"),),
    resources=(Resource("caption", "fa", "ورود"),),
    message_class=MessageClass.OTP,
    intents=("LOGIN", "OTP"),
)


@pytest.fixture
async def configuration(store: Store) -> Configuration:
    return store.configuration


def anything(_: TemplateContent) -> None:
    """No rule of its own."""


async def update(configuration: Configuration, key: str = "t", *, etag: str = "", **fields: object) -> KeptTemplate:
    wanted = TemplateChange(**fields)  # pyright: ignore[reportArgumentType] - the fields of a change by name
    return await configuration.update_template(NORTH, key, wanted, etag=etag, check=anything)


async def version(store: Store) -> int:
    return (await rows(store, "SELECT version FROM config_version"))[0][0]


async def test_a_template_is_kept_as_it_was_given(store: Store, configuration: Configuration) -> None:
    """All of it is read back, and it is in force in this process at once and in another at its next look."""
    other = Configuration(store._database, store.keys, {})
    await other.refresh()
    kept = await configuration.create_template(NORTH, "t", LOGIN)
    assert (kept.key, kept.revision, kept.content) == ("t", 1, LOGIN)
    assert kept.created_at == kept.updated_at > 0
    assert await configuration.template(NORTH, "t") == kept
    assert await configuration.list_templates(NORTH) == [kept]
    assert configuration.snapshot.templates == {NORTH: {"t": kept.template}}
    await other.refresh_if_changed()
    assert other.snapshot.templates == configuration.snapshot.templates


async def test_the_same_again_answers_the_same(store: Store, configuration: Configuration) -> None:
    """No second revision, and nobody reads anew; another content under the key is refused and changes nothing."""
    first = await configuration.create_template(NORTH, "t", LOGIN)
    before = await version(store)
    assert await configuration.create_template(NORTH, "t", LOGIN) == first
    with pytest.raises(AlreadyExists) as taken:
        await configuration.create_template(NORTH, "t", TemplateContent(text="x"))
    assert (taken.value.reason, taken.value.metadata["resource"]) == (Reason.RESOURCE_EXISTS, "template")
    assert await version(store) == before
    assert await configuration.template(NORTH, "t") == first


async def test_every_change_is_a_revision_of_its_own(store: Store, configuration: Configuration) -> None:
    """What is absent stays, what is cleared goes back; earlier revisions stay as they were; no change makes none."""
    first = await configuration.create_template(NORTH, "t", LOGIN)
    second = await update(configuration, text="New %CODE%", is_active=False, priority=0, etag="1")
    assert (second.revision, second.content.text, second.content.is_active) == (2, "New %CODE%", False)
    assert (second.content.priority, second.content.variants) == (0, LOGIN.variants)
    assert (second.created_at, second.updated_at > first.updated_at) == (first.created_at, True)
    third = await update(configuration, clear=frozenset({"variants", "intents", "message_class"}), intents=("PAID",))
    assert (third.content.variants, third.content.intents, third.content.message_class) == ((), ("PAID",), None)
    before = await version(store)
    assert await update(configuration, text="New %CODE%", intents=("PAID",)) == third
    assert await version(store) == before
    for kept in (first, second, third):
        assert await configuration.template(NORTH, "t", kept.revision) == kept
    with pytest.raises(NotFound):
        await configuration.template(NORTH, "t", 4)


async def test_what_does_not_fit_changes_nothing(configuration: Configuration) -> None:
    """A wrong etag, an unknown key, and what the check refuses of the merged content."""
    first = await configuration.create_template(NORTH, "t", LOGIN)
    with pytest.raises(Precondition) as stale:
        await update(configuration, text="x", etag="2")
    assert (stale.value.reason, stale.value.metadata) == (Reason.ETAG_MISMATCH, {"resource": "template"})
    with pytest.raises(NotFound):
        await update(configuration, "none", text="x")

    def refuse(content: TemplateContent) -> None:
        assert (content.text, content.variants) == ("", LOGIN.variants)
        raise invalid_field("text", "is required")

    with pytest.raises(Invalid):
        await configuration.update_template(NORTH, "t", TemplateChange(text=""), etag="", check=refuse)
    assert await configuration.template(NORTH, "t") == first


async def test_two_who_change_one_template_do_not_lose_a_change(store: Store, configuration: Configuration) -> None:
    """Changes of different fields at once are all there; with one etag one alone wins; one key is made once."""
    other = Configuration(store._database, store.keys, {})
    await other.refresh()
    made = [replica.create_template(NORTH, "t", LOGIN) for replica in (configuration, other) * 5]
    assert {kept.revision for kept in await asyncio.gather(*made)} == {1}
    await asyncio.gather(update(configuration, text="a"), update(other, caption="b"), update(configuration, priority=9))
    kept = await configuration.template(NORTH, "t")
    assert (kept.content.text, kept.content.caption, kept.content.priority, kept.revision) == ("a", "b", 9, 4)
    fenced = [update(replica, etag="4", name=str(n)) for n, replica in enumerate((configuration, other))]
    answers = await asyncio.gather(*fenced, return_exceptions=True)
    assert sorted(type(answer).__name__ for answer in answers) == ["KeptTemplate", "Precondition"]


async def test_a_deleted_template_goes_on_from_its_last_revision(configuration: Configuration) -> None:
    """It is nowhere to be found; made again, even with the same content, it counts on."""
    first = await configuration.create_template(NORTH, "t", LOGIN)
    with pytest.raises(Precondition):
        await configuration.delete_template(NORTH, "t", "2")
    assert await configuration.delete_template(NORTH, "t", "1") == first
    assert (await configuration.list_templates(NORTH), configuration.snapshot.templates) == ([], {})
    for gone in (
        configuration.template(NORTH, "t"),
        configuration.template(NORTH, "t", 1),
        configuration.delete_template(NORTH, "t"),
        update(configuration, text="x"),
    ):
        with pytest.raises(NotFound):
            await gone
    again = await configuration.create_template(NORTH, "t", LOGIN)
    assert (again.revision, again.content) == (2, LOGIN)
    assert again.created_at > first.created_at
    assert (await configuration.template(NORTH, "t", 1)).content == LOGIN


async def test_a_template_that_a_rule_names_is_not_deleted(configuration: Configuration) -> None:
    """RESOURCE_IN_USE names the rules; another tenant's do not count."""
    await configuration.create_template(NORTH, "t", LOGIN)
    await configuration.create_template(SOUTH, "t", LOGIN)
    steps = json.dumps([{"channel": "", "providers": [], "template_key": "t"}])
    named = [RoutingRule(tenant_id=NORTH, name=name, steps=steps) for name in ("b", "a")]
    await configuration.set_rules(NORTH, named)
    with pytest.raises(Precondition) as used:
        await configuration.delete_template(NORTH, "t")
    assert used.value.reason == Reason.RESOURCE_IN_USE
    assert used.value.metadata == {"resource": "template", "rules": "a,b"}
    await configuration.delete_template(SOUTH, "t")
    await configuration.delete_rules(NORTH, ["a", "b"])
    await configuration.delete_template(NORTH, "t")


async def test_a_template_that_messages_wait_with_is_not_deleted(store: Store, configuration: Configuration) -> None:
    """RESOURCE_IN_USE counts those that are not done, of this tenant and template."""
    await configuration.create_template(NORTH, "t", LOGIN)
    waiting = [letter(template_key="t", template_revision=1) for _ in range(3)]
    for new in (*waiting, letter(SOUTH, template_key="t"), letter(template_key="other"), letter()):
        await store.accept(new)
    with pytest.raises(Precondition) as used:
        await configuration.delete_template(NORTH, "t")
    assert used.value.metadata == {"resource": "template", "messages": "3"}
    (claim, *_) = await store.claim(MessageClass.TRANSACTIONAL, frozenset({DueKind.SEND}), 1)
    for new in waiting[1:]:
        await store.apply(new.message.id, Stopped(Stop.CANCELED))
    with pytest.raises(Precondition) as held:
        await configuration.delete_template(NORTH, "t")
    assert held.value.metadata["messages"] == "1"
    assert claim.case.message.id == waiting[0].message.id
    await store.apply(waiting[0].message.id, Stopped(Stop.CANCELED))
    await configuration.delete_template(NORTH, "t")


async def test_of_messages_that_wait_with_a_template_a_hundred_are_counted(
    store: Store, configuration: Configuration
) -> None:
    """More are not: all writes wait meanwhile."""
    await configuration.create_template(NORTH, "t", LOGIN)
    await accept_all(store, [letter(template_key="t", template_revision=1) for _ in range(COUNTED_MAX + 1)])
    with pytest.raises(Precondition) as used:
        await configuration.delete_template(NORTH, "t")
    assert used.value.metadata["messages"] == str(COUNTED_MAX) == "100"


async def test_a_revision_is_found_whatever_becomes_of_its_template(store: Store, configuration: Configuration) -> None:
    """Changed, deleted and made again: a message says what it was accepted with. What never was is None."""
    first = await configuration.create_template(NORTH, "t", LOGIN)
    assert await configuration.pinned(NORTH, "t", 1) is configuration.snapshot.templates[NORTH]["t"]
    await update(configuration, text="New")
    await configuration.delete_template(NORTH, "t")
    other = Configuration(store._database, store.keys, {})
    await other.refresh()
    assert await configuration.pinned(NORTH, "t", 1) == await other.pinned(NORTH, "t", 1) == first.template
    for never in (configuration.pinned(NORTH, "t", 3), configuration.pinned(SOUTH, "t", 1)):
        assert await never is None


async def test_a_revision_is_read_once(store: Store, configuration: Configuration) -> None:
    """An earlier one is at hand after its first use, until 256 others were asked for since it was used last."""
    await configuration.create_template(NORTH, "t", LOGIN)
    await update(configuration, text="New")
    others = range(10, 10 + PINNED_MAX)
    content = "SELECT content FROM template_revision WHERE revision = 2"
    values = ", ".join(f"('{NORTH}', 't', {revision}, ({content}), 1)" for revision in others)
    await change(
        store, f"INSERT INTO template_revision (tenant_id, key, revision, content, created_at) VALUES {values}"
    )
    found = await configuration.pinned(NORTH, "t", 1)
    await change(store, "UPDATE template_revision SET content = '' WHERE revision = 1")
    for revision in others:
        assert await configuration.pinned(NORTH, "t", 1) is found
        assert await configuration.pinned(NORTH, "t", revision) is not None
    assert await configuration.pinned(NORTH, "t", 1) is found
    for revision in others:
        assert await configuration.pinned(NORTH, "t", revision) is not None
    with pytest.raises(ValueError, match="Expecting value"):
        await configuration.pinned(NORTH, "t", 1)


async def test_after_a_restore_revisions_are_read_anew(store: Store, configuration: Configuration) -> None:
    """A revision of another history is another text: what was at hand is of no use."""
    await configuration.create_template(NORTH, "t", LOGIN)
    await update(configuration, text="New")
    assert await configuration.pinned(NORTH, "t", 1) is not None
    await change(store, "DELETE FROM template_revision WHERE revision = 1")
    assert await configuration.pinned(NORTH, "t", 1) is not None
    store._database.log_epoch += 1
    await configuration.refresh_if_changed()
    assert await configuration.pinned(NORTH, "t", 1) is None


async def test_templates_are_within_their_tenant(configuration: Configuration) -> None:
    """Another tenant's template can neither be read, nor changed, nor listed, nor deleted; keys do not collide."""
    await configuration.create_template(SOUTH, "t", LOGIN)
    for theirs in (
        configuration.template(NORTH, "t"),
        update(configuration, text="x"),
        configuration.delete_template(NORTH, "t"),
    ):
        with pytest.raises(NotFound):
            await theirs
    assert await configuration.list_templates(NORTH) == []
    mine = await configuration.create_template(NORTH, "t", TemplateContent(text="mine"))
    assert (await configuration.template(SOUTH, "t")).content == LOGIN
    assert await configuration.list_templates(NORTH) == [mine]


async def test_the_snapshot_knows_the_revision_of_each_tenants_rules(
    store: Store, configuration: Configuration
) -> None:
    """It rises with every change; a tenant that never had rules is at 0."""
    for tenant in (NORTH, SOUTH):
        await change(
            store,
            "INSERT INTO tenant (tenant_id, caption, mode, is_active, default_region, default_locale, time_zone, "
            "allowed_countries, revision, created_at, updated_at) "
            f"VALUES ('{tenant}', '', 'LIVE', true, '', '', '', '[]', 1, 0, 0)",
        )
    await configuration.set_rules(NORTH, [RoutingRule(tenant_id=NORTH, name="a")])
    assert configuration.snapshot.revisions == {NORTH: "1", SOUTH: "0"}
    await configuration.delete_rules(NORTH, ["a"])
    assert configuration.snapshot.revisions[NORTH] == "2"


async def test_a_tenant_has_so_many_templates(store: Store, configuration: Configuration) -> None:
    """One more is refused, and leaves nothing; another tenant's do not count, and deleted ones make room."""
    numbers = " UNION ALL ".join(f"SELECT {n} AS n" for n in range(10))
    names = "is_deleted, revision, created_at, updated_at"
    for tenant in (NORTH, SOUTH):
        key = "'k' || (a.n * 100 + b.n * 10 + c.n)"
        values = f"SELECT '{tenant}', {key}, FALSE, 1, 0, 0"
        crossed = f"FROM ({numbers}) a CROSS JOIN ({numbers}) b CROSS JOIN ({numbers}) c"
        await change(store, f"INSERT INTO template (tenant_id, key, {names}) {values} {crossed}")
    with pytest.raises(Invalid):
        await configuration.create_template(NORTH, "one-more", LOGIN)
    assert await rows(store, "SELECT count(*) FROM template WHERE key = 'one-more'") == [(0,)]
    await change(store, f"UPDATE template SET is_deleted = TRUE WHERE tenant_id = '{NORTH}' AND key = 'k7'")
    assert (await configuration.create_template(NORTH, "one-more", LOGIN)).key == "one-more"
