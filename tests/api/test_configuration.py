"""ProviderService and RoutingService, by real stubs, on both engines."""

from typing import Any

import pytest
from angarium.v1 import provider_service_pb2 as wire, routing_service_pb2 as routing
from angarium.v1.access_service_pb2 import UpdateTenantRequest
from angarium.v1.message_pb2 import (
    CHANNEL_EMAIL,
    CHANNEL_SMS,
    OUTCOME_ACCEPTED,
    OUTCOME_AMBIGUOUS,
    OUTCOME_MISCONFIGURED,
    OUTCOME_REJECTED,
    Failure,
    LocalizedResource,
)
from google.protobuf.duration_pb2 import Duration
from grpc import StatusCode

from server.api import trial
from server.api.interceptor import UNARY_SECONDS_MAX
from tests.api.edge import Edge, refused, running
from tests.scripted_upstream import ScriptedUpstream, Silence

SECRET = "s3cr3t-that-nobody-sees-9876"


def kavenegar(**fields: object) -> wire.ConfigureProviderRequest:
    asked = {"type": "kavenegar", "secrets": {"api_key": SECRET}, **fields}
    return wire.ConfigureProviderRequest(**asked)


async def test_an_account_is_merged_key_by_key(edge: Edge) -> None:
    """What is absent is kept, what is cleared goes, the same again changes nothing."""
    operator = edge.operator.providers
    made = await operator.ConfigureProvider(
        kavenegar(settings={"sender": "10004346"}, timeout=Duration(seconds=5), caption="Main line")
    )
    again = await operator.ConfigureProvider(kavenegar(settings={"sender": "10004346"}))
    changed = await operator.ConfigureProvider(
        wire.ConfigureProviderRequest(name="kavenegar", clear=["timeout", "settings.sender"], priority=7)
    )
    assert (made.created, again.created, changed.created) == (True, False, False)
    assert again.provider == made.provider
    assert (made.provider.configured, made.provider.requires_setup, made.provider.is_active) == (True, True, True)
    assert dict(changed.provider.settings) == {}
    assert not changed.provider.HasField("timeout")
    assert (changed.provider.caption, changed.provider.priority) == ("Main line", 7)
    assert changed.provider.etag != made.provider.etag
    assert changed.provider.secrets == made.provider.secrets


async def test_an_etag_guards_a_change(edge: Edge) -> None:
    """A change made on an older state is refused, and so is a deletion; nothing of it is kept."""
    operator = edge.operator.providers
    made = (await operator.ConfigureProvider(kavenegar())).provider
    await operator.ConfigureProvider(wire.ConfigureProviderRequest(name="kavenegar", priority=1))
    late = (
        operator.ConfigureProvider(wire.ConfigureProviderRequest(name="kavenegar", priority=2, etag=made.etag)),
        operator.DeleteProvider(wire.DeleteProviderRequest(name="kavenegar", etag=made.etag)),
    )
    for call in late:
        refusal = await refused(call)
        assert (refusal.code, refusal.reason) == (StatusCode.FAILED_PRECONDITION, "ETAG_MISMATCH")
    assert (await operator.GetProvider(wire.GetProviderRequest(name="kavenegar"))).provider.priority == 1


async def test_validation_changes_nothing(edge: Edge) -> None:
    """`validate_only` tells what would be, errors too, and keeps nothing."""
    operator = edge.operator.providers
    would = await operator.ConfigureProvider(kavenegar(validate_only=True))
    assert (would.created, would.provider.name, would.provider.configured) == (True, "kavenegar", True)
    refusal = await refused(operator.ConfigureProvider(kavenegar(secrets={"api_key": "x"}, validate_only=True)))
    assert refusal.fields == ("secrets.api_key",)
    assert (await refused(operator.GetProvider(wire.GetProviderRequest(name="kavenegar")))).code == StatusCode.NOT_FOUND


async def test_settings_are_judged_by_their_type(edge: Edge) -> None:
    """Unknown names, values against the rules and secrets in the wrong map are all named at once, without a value."""
    asked = kavenegar(settings={"sender": "1" * 21, "api_key": SECRET, "colour": "red"}, secrets={"api_key": "short"})
    refusal = await refused(edge.operator.providers.ConfigureProvider(asked))
    assert (refusal.code, refusal.reason) == (StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    assert set(refusal.fields) == {"settings.sender", "settings.api_key", "settings.colour", "secrets.api_key"}
    assert SECRET not in str(refusal)


async def test_settings_are_judged_beside_all_other_fields(edge: Edge) -> None:
    """One answer names everything, for a new account by its type, and for one that is there by its name alone."""
    operator = edge.operator.providers
    bad: dict[str, Any] = {
        "timeout": Duration(seconds=61),
        "settings": {"colour": "red"},
        "secrets": {"api_key": "short"},
    }
    fields = {"timeout", "settings.colour", "secrets.api_key"}
    assert set((await refused(operator.ConfigureProvider(kavenegar(**bad)))).fields) == fields
    await operator.ConfigureProvider(kavenegar())
    by_name = wire.ConfigureProviderRequest(name="kavenegar", **bad)
    assert set((await refused(operator.ConfigureProvider(by_name))).fields) == fields
    blank = kavenegar(caption="\n", settings={"colour": ""}, secrets={"api_key": ""})
    assert set((await refused(operator.ConfigureProvider(blank))).fields) == {"caption", "secrets.api_key"}
    nobodys = wire.ConfigureProviderRequest(name="nobody", **bad)
    assert (await refused(operator.ConfigureProvider(nobodys))).fields == ("timeout",)


async def test_names_and_types_that_there_are_not(edge: Edge) -> None:
    """An unknown account or type is NOT_FOUND by its kind; a name that is taken by another type ALREADY_EXISTS."""
    operator = edge.operator.providers
    calls = {
        "provider": operator.ConfigureProvider(wire.ConfigureProviderRequest(name="nobody", is_active=False)),
        "provider_type": operator.ConfigureProvider(wire.ConfigureProviderRequest(type="pigeons")),
    }
    for resource, call in calls.items():
        refusal = await refused(call)
        assert (refusal.code, refusal.told) == (StatusCode.NOT_FOUND, {"resource": resource})
    for missing in (
        operator.ConfigureProvider(wire.ConfigureProviderRequest(type="Kavenegar")),
        operator.DescribeProviderType(wire.DescribeProviderTypeRequest(type="Kavenegar")),
    ):
        refusal = await refused(missing)
        assert (refusal.code, refusal.told) == (StatusCode.NOT_FOUND, {"resource": "provider_type"})
        assert "'Kavenegar'. ListProviderTypes tells which there are, in lower case." in refusal.message
    taken = await refused(operator.ConfigureProvider(kavenegar(name="sandbox")))
    assert (taken.code, taken.reason) == (StatusCode.ALREADY_EXISTS, "RESOURCE_EXISTS")
    for name in ("", "Upper", "-x", "a" * 64):
        refusal = await refused(operator.GetProvider(wire.GetProviderRequest(name=name)))
        assert refusal.fields == ("name",)


async def test_secrets_do_not_come_back(edge: Edge) -> None:
    """Of a secret only its last four characters and a fingerprint are shown, by every RPC that shows accounts."""
    operator = edge.operator.providers
    made = await operator.ConfigureProvider(kavenegar())
    answers = (
        made,
        await operator.GetProvider(wire.GetProviderRequest(name="kavenegar")),
        await operator.ListProviders(wire.ListProvidersRequest()),
        await operator.DeleteProvider(wire.DeleteProviderRequest(name="kavenegar")),
    )
    for answer in answers:
        assert SECRET.encode() not in answer.SerializeToString()
    shown = made.provider.secrets[0]
    assert (shown.name, shown.last_four, shown.version) == ("api_key", "9876", 1)


async def test_lists_are_filtered_ordered_and_paged(edge: Edge) -> None:
    """Every account once, in the order asked for, whatever the page size; types without an account on request."""
    operator = edge.operator.providers
    for name, priority in (("b", 2), ("a", 2), ("c", 1)):
        await operator.ConfigureProvider(
            wire.ConfigureProviderRequest(name=name, type="sandbox", priority=priority, caption=f"Line {name}")
        )

    async def names(size: int, **fields: object) -> list[str]:
        found: list[str] = []
        request = wire.ListProvidersRequest(page_size=size, **fields)  # type: ignore[arg-type]
        while not found or request.page_token:
            answer = await operator.ListProviders(request)
            found += [provider.name for provider in answer.providers]
            request.page_token = answer.next_page_token
        return found

    assert await names(2) == ["sandbox", "c", "a", "b"]
    assert await names(1, order_by="name desc") == ["sandbox", "c", "b", "a"]
    assert await names(3, order_by="create_time") == ["sandbox", "b", "a", "c"]
    assert await names(50, caption="LINE", is_active=True) == ["c", "a", "b"]
    assert await names(50, include_unconfigured=True, channel=CHANNEL_SMS, type="kavenegar") == ["kavenegar"]
    unmade = await operator.ListProviders(wire.ListProvidersRequest(include_unconfigured=True, name="kavenegar"))
    assert (unmade.providers[0].configured, unmade.providers[0].uid) == (False, "")


async def test_types_describe_what_they_need(edge: Edge) -> None:
    """Each type tells its settings; a form can be made of it."""
    operator = edge.operator.providers
    types = (await operator.ListProviderTypes(wire.ListProviderTypesRequest())).provider_types
    assert [kind.type for kind in types] == ["kavenegar", "sandbox", "twilio"]
    by_mail = await operator.ListProviderTypes(wire.ListProviderTypesRequest(channel=CHANNEL_EMAIL))
    assert [kind.type for kind in by_mail.provider_types] == ["sandbox"]
    asked = wire.DescribeProviderTypeRequest(type="kavenegar")
    kind = (await operator.DescribeProviderType(asked)).provider_type
    assert [(s.name, s.secret, s.required, s.control) for s in kind.settings] == [
        ("api_key", True, True, "password"),
        ("sender", False, False, "text"),
    ]


async def test_an_account_can_be_tried(edge: Edge) -> None:
    """The check asks the account, `send` hands one message over, and the request is shown with what it hides."""
    operator = edge.operator.providers
    check = await operator.TestProvider(wire.TestProviderRequest(name="sandbox"))
    assert (check.outcome, check.request_preview) == (OUTCOME_ACCEPTED, "")
    sent = await operator.TestProvider(wire.TestProviderRequest(name="sandbox", send=True, phone="09120000111"))
    assert sent.outcome == OUTCOME_ACCEPTED
    assert "+98•••••0111" in sent.request_preview
    assert "9120000111" not in sent.request_preview
    turned = await operator.TestProvider(wire.TestProviderRequest(name="sandbox", send=True, phone="09120000113"))
    assert (turned.outcome, turned.failure.reason) == (OUTCOME_REJECTED, Failure.REASON_RECIPIENT_INVALID)
    mailed = await operator.TestProvider(wire.TestProviderRequest(name="sandbox", send=True, email="a@example.com"))
    assert mailed.outcome == OUTCOME_ACCEPTED
    refusal = await refused(operator.TestProvider(wire.TestProviderRequest(name="sandbox", send=True)))
    assert set(refusal.fields) == {"phone", "email"}


async def test_a_trial_keeps_to_the_tenants_mode(edge: Edge) -> None:
    """In SANDBOX a real account may neither send nor be checked, whatever it is asked; one without a key says so."""
    operator = edge.operator.providers
    await operator.ConfigureProvider(wire.ConfigureProviderRequest(name="bare", type="kavenegar"))
    bare = await operator.TestProvider(wire.TestProviderRequest(name="bare"))
    assert (bare.outcome, bare.failure.provider_code) == (OUTCOME_MISCONFIGURED, "NOT_CONFIGURED")
    await operator.ConfigureProvider(kavenegar())
    for sent in (wire.TestProviderRequest(send=True, phone="09120000111"), wire.TestProviderRequest()):
        sent.name = "kavenegar"
        refusal = await refused(operator.TestProvider(sent))
        assert (refusal.code, refusal.reason) == (StatusCode.FAILED_PRECONDITION, "NO_ROUTE")
        assert refusal.told == {"provider": "kavenegar"}


async def test_a_trial_keeps_to_the_tenants_countries(edge: Edge) -> None:
    """A test message goes to no country that the tenant's messages may not go to; to e-mail no country applies."""
    await edge.operator.access.UpdateTenant(UpdateTenantRequest(allowed_countries=["DE"]))
    operator = edge.operator.providers
    for phone, country in (("09120000111", "IR"), ("+12025550123", "US")):
        trial = wire.TestProviderRequest(name="sandbox", send=True, phone=phone)
        refusal = await refused(operator.TestProvider(trial))
        assert (refusal.code, refusal.reason) == (StatusCode.FAILED_PRECONDITION, "COUNTRY_NOT_ALLOWED")
        assert refusal.told == {"country": country}
    for address in ({"phone": "+4915112345678"}, {"email": "a@example.com"}):
        assert (
            await operator.TestProvider(wire.TestProviderRequest(name="sandbox", send=True, **address))
        ).outcome == OUTCOME_ACCEPTED


async def test_a_trial_ends_before_its_call(
    sqlite_url: str, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long the account waits, a provider that is silent is an outcome of the trial, and no deadline missed."""
    assert trial.SECONDS_MAX < UNARY_SECONDS_MAX
    monkeypatch.setattr(trial, "SECONDS_MAX", 0.3)
    upstream.always(Silence())
    async with running(sqlite_url, allow_private_upstreams=True) as edge:
        operator = edge.operator.providers
        asked = kavenegar(base_url=upstream.base_url, timeout=Duration(seconds=60))
        await operator.ConfigureProvider(asked)
        check = await operator.TestProvider(wire.TestProviderRequest(name="kavenegar"))
        sent = await operator.TestProvider(wire.TestProviderRequest(name="kavenegar", send=True, phone="09120000111"))
    for told in (check, sent):
        assert (told.outcome, told.failure.provider_code) == (OUTCOME_AMBIGUOUS, "NO_ANSWER_IN_TIME")


async def test_texts_for_people_come_back(edge: Edge) -> None:
    """Localized texts are kept in their order and replaced as a whole."""
    texts = [LocalizedResource(key="caption", locale="fa", value="خط اصلی")]
    made = await edge.operator.providers.ConfigureProvider(kavenegar(resources=texts))
    kept = await edge.operator.providers.ConfigureProvider(kavenegar(priority=1))
    assert list(made.provider.resources) == list(kept.provider.resources) == texts


def rule(name: str, *providers: str, **fields: object) -> routing.RoutingRule:
    return routing.RoutingRule(name=name, steps=[routing.RouteStep(providers=providers)], **fields)  # type: ignore[arg-type]


async def test_rules_are_made_replaced_and_deleted(edge: Edge) -> None:
    """All rules come back in the order in which they are tried; the revision moves with each change and guards it."""
    operator = edge.operator.routing
    made = await operator.SetRoutingRules(
        routing.SetRoutingRulesRequest(rules=[rule("b", "sandbox", intents=["X"]), rule("a", "sandbox", priority=5)])
    )
    assert [r.name for r in made.rules] == ["b", "a"]
    step = made.rules[0].steps[0]
    assert (list(step.providers), step.fallback, made.rules[0].is_active) == (["sandbox"], True, True)
    same = await operator.SetRoutingRules(routing.SetRoutingRulesRequest(rules=[rule("b", "sandbox", intents=["X"])]))
    assert (same.revision, [r.name for r in same.rules]) == (made.revision, ["b", "a"])
    late = routing.SetRoutingRulesRequest(rules=[rule("c", "sandbox")], revision="77")
    gone_late = routing.DeleteRoutingRulesRequest(names=["b"], revision="77")
    for call in (operator.SetRoutingRules(late), operator.DeleteRoutingRules(gone_late)):
        refusal = await refused(call)
        assert (refusal.reason, refusal.told) == ("ETAG_MISMATCH", {"resource": "routing_rule"})
        assert refusal.message.startswith("The routing rules have changed since; they are at revision ")
    found = await operator.GetRoutingRules(routing.GetRoutingRulesRequest(intent="Y"))
    assert [r.name for r in found.rules] == ["a"]
    gone = await operator.DeleteRoutingRules(routing.DeleteRoutingRulesRequest(names=["b"]))
    assert [r.name for r in gone.rules] == ["b"]
    assert gone.revision != made.revision
    missing = await refused(operator.DeleteRoutingRules(routing.DeleteRoutingRulesRequest(names=["b"])))
    assert (missing.code, missing.told) == (StatusCode.NOT_FOUND, {"resource": "routing_rule"})
    emptied = await operator.SetRoutingRules(routing.SetRoutingRulesRequest(replace_all=True))
    assert list(emptied.rules) == []


async def test_doubtful_rules_are_warned_of(edge: Edge) -> None:
    """An account that is not there or not active, and a rule that is never reached, are allowed and told."""
    await edge.operator.providers.ConfigureProvider(kavenegar(is_active=False))
    answer = await edge.operator.routing.SetRoutingRules(
        routing.SetRoutingRulesRequest(rules=[rule("a", "nobody", "kavenegar"), rule("b", "sandbox")])
    )
    assert list(answer.warnings) == [
        "Rule a, step 1: there is no provider nobody.",
        "Rule a, step 1: the provider kavenegar is not active.",
        "Rule b is never reached but as a scenario: rule a serves every message.",
    ]


async def test_rehearsed_rules_are_not_kept(edge: Edge) -> None:
    """`validate_only` shows the rules as they would be, with the present revision."""
    operator = edge.operator.routing
    before = await operator.SetRoutingRules(routing.SetRoutingRulesRequest(rules=[rule("a", "sandbox")]))
    would = await operator.SetRoutingRules(
        routing.SetRoutingRulesRequest(rules=[rule("b", "sandbox")], validate_only=True)
    )
    assert [r.name for r in would.rules] == ["a", "b"]
    after = await operator.GetRoutingRules(routing.GetRoutingRulesRequest())
    assert ([r.name for r in after.rules], after.revision) == (["a"], before.revision)


async def test_an_account_that_a_rule_names_stays(edge: Edge) -> None:
    """Deleting it is RESOURCE_IN_USE with the rules' names, unless forced."""
    await edge.operator.routing.SetRoutingRules(routing.SetRoutingRulesRequest(rules=[rule("a", "sandbox")]))
    delete = edge.operator.providers.DeleteProvider
    refusal = await refused(delete(wire.DeleteProviderRequest(name="sandbox")))
    assert (refusal.code, refusal.reason) == (StatusCode.FAILED_PRECONDITION, "RESOURCE_IN_USE")
    assert refusal.told == {"resource": "provider", "rules": "a"}
    assert (await delete(wire.DeleteProviderRequest(name="sandbox", force=True))).provider.name == "sandbox"
