"""RoutingService: what rules may say, what is wrong or doubtful with them, and how a route is explained."""

import time
from typing import Any

import pytest
from angarium.v1 import routing_service_pb2 as wire
from angarium.v1.message_pb2 import (
    CHANNEL_EMAIL,
    CHANNEL_PUSH,
    CHANNEL_SMS,
    MESSAGE_CLASS_BULK,
    MESSAGE_CLASS_OTP,
    MESSAGE_CLASS_UNSPECIFIED,
    Notification,
    Recipient,
    RouteExplanation,
)
from angarium.v1.notification_service_pb2 import GetStatusRequest, ListNotificationsRequest
from angarium.v1.template_service_pb2 import CreateTemplateRequest, ProviderTemplate, Template, UpdateTemplateRequest
from google.protobuf.duration_pb2 import Duration
from grpc import StatusCode

from server.model.enums import Channel, DueKind, MessageClass, Stop
from server.model.explanation import DETAILS, Candidate, Explanation, RuleLook, Verdict
from server.model.facts import Postponed, Stopped
from server.model.outcomes import rate_limited
from server.model.work import Beside
from server.providers.roster import Roster
from tests.api.edge import UNKNOWN, Edge, letter, refused
from tests.api.test_configuration import kavenegar

CANDIDATE = RouteExplanation.Candidate
WEIGHTED = wire.RouteStep.STRATEGY_WEIGHTED
DELIVERED, SENT = Notification.STATE_DELIVERED, Notification.STATE_SENT
PERSON = Recipient(phone="09120000111")


def step(*providers: str, **fields: Any) -> wire.RouteStep:
    return wire.RouteStep(providers=providers, **fields)


def rule(name: str, *steps: wire.RouteStep, **fields: Any) -> wire.RoutingRule:
    return wire.RoutingRule(name=name, steps=steps or (step("sandbox"),), **fields)


async def set_rules(edge: Edge, *rules: wire.RoutingRule, **fields: Any) -> wire.SetRoutingRulesResponse:
    return await edge.operator.routing.SetRoutingRules(wire.SetRoutingRulesRequest(rules=rules, **fields))


async def explained(edge: Edge, **asked: Any) -> RouteExplanation:
    request = wire.ExplainRouteRequest(**asked)
    return (await edge.operator.routing.ExplainRoute(request)).explanation


async def explained_send(edge: Edge, **asked: Any) -> RouteExplanation:
    return await explained(edge, **{"intent": "ORDER_PAID", "recipient": PERSON, **asked})


def told(explanation: RouteExplanation) -> list[str]:
    """Each candidate as `step provider VERDICT REASON`."""
    verdicts = {number: name.removeprefix("VERDICT_") for name, number in CANDIDATE.Verdict.items()}
    return [f"{c.step} {c.provider} {verdicts[c.verdict]} {c.reason}".strip() for c in explanation.candidates]


def looks(explanation: RouteExplanation) -> list[str]:
    return [f"{look.name} {look.why}" + ("!" if look.matched else "") for look in explanation.rules]


async def test_a_rule_comes_back_as_it_was_set(edge: Edge) -> None:
    """Every field of match and steps; the same again changes nothing, and defaults are told."""
    first = step(
        "sandbox",
        channel=CHANNEL_PUSH,
        strategy=WEIGHTED,
        weights={"sandbox": 3},
        fallback=True,
        wait_for=DELIVERED,
        timeout=Duration(seconds=50, nanos=500_000_000),
        sender="Shop",
        application_key="app",
        template_key="short",
    )
    match = wire.RouteMatch(
        country_prefixes=["98", "44"],
        operators=["MCI"],
        message_classes=[MESSAGE_CLASS_OTP, MESSAGE_CLASS_BULK],
        tags=["vip"],
    )
    made = await set_rules(edge, rule("a", first, step(channel=CHANNEL_SMS), match=match))
    (kept,) = (await edge.operator.routing.GetRoutingRules(wire.GetRoutingRulesRequest())).rules
    assert kept == made.rules[0]
    assert (kept.match, kept.steps[0]) == (match, first)
    plain = wire.RouteStep(channel=CHANNEL_SMS, strategy=wire.RouteStep.STRATEGY_ORDERED, fallback=True, wait_for=SENT)
    assert kept.steps[1] == plain
    again = await set_rules(edge, kept)
    assert again.revision == made.revision
    assert not (await set_rules(edge, rule("b"))).rules[1].HasField("match")


SECONDS = {"timeout": Duration(seconds=5)}


@pytest.mark.parametrize(
    ("fields", "bad"),
    [
        ({"match": wire.RouteMatch(country_prefixes=["+98"])}, "match.country_prefixes[0]"),
        ({"match": wire.RouteMatch(country_prefixes=["98", "0912"])}, "match.country_prefixes[1]"),
        ({"match": wire.RouteMatch(country_prefixes=["9" * 16])}, "match.country_prefixes[0]"),
        ({"match": wire.RouteMatch(country_prefixes=["98"] * 101)}, "match.country_prefixes"),
        ({"match": wire.RouteMatch(operators=["MCI", ""])}, "match.operators[1]"),
        ({"match": wire.RouteMatch(operators=["x" * 121])}, "match.operators[0]"),
        ({"match": wire.RouteMatch(message_classes=[UNKNOWN])}, "match.message_classes"),
        ({"match": wire.RouteMatch(message_classes=[MESSAGE_CLASS_UNSPECIFIED])}, "match.message_classes"),
        ({"match": wire.RouteMatch(tags=["x" * 61])}, "match.tags[0]"),
        ({"match": wire.RouteMatch(tags=["x"] * 101)}, "match.tags"),
        ({"steps": [step(strategy=UNKNOWN)]}, "steps[0].strategy"),
        ({"steps": [step(weights={"a": 1001})]}, "steps[0].weights.a"),
        ({"steps": [step(weights={"a": -1})]}, "steps[0].weights.a"),
        ({"steps": [step(weights={"a b": 1})]}, "steps[0].weights"),
        ({"steps": [step(weights={f"a{n}": 1 for n in range(101)})]}, "steps[0].weights"),
        ({"steps": [step(wait_for=Notification.STATE_FAILED, **SECONDS)]}, "steps[0].wait_for"),
        ({"steps": [step(wait_for=UNKNOWN, **SECONDS)]}, "steps[0].wait_for"),
        ({"steps": [step(), step(wait_for=DELIVERED)]}, "steps[1].timeout"),
        ({"steps": [step(timeout=Duration(nanos=999_999_999))]}, "steps[0].timeout"),
        ({"steps": [step(timeout=Duration(seconds=86_400, nanos=1_000))]}, "steps[0].timeout"),
        ({"steps": [step(timeout=Duration(seconds=-5))]}, "steps[0].timeout"),
        ({"steps": [step(timeout=Duration(seconds=5, nanos=-5))]}, "steps[0].timeout"),
        ({"steps": [step(application_key="x" * 121)]}, "steps[0].application_key"),
        ({"steps": [step(template_key="x\n")]}, "steps[0].template_key"),
    ],
)
async def test_what_a_rule_cannot_say(sqlite_edge: Edge, fields: dict[str, Any], bad: str) -> None:
    """INVALID_FIELD names it, of a rule that is set and of a draft; nothing is kept."""
    wrong = wire.RoutingRule(**{"name": "a", "steps": [step("sandbox")], **fields})
    refusal = await refused(set_rules(sqlite_edge, wrong))
    assert (refusal.code, refusal.reason, refusal.fields) == (
        StatusCode.INVALID_ARGUMENT,
        "INVALID_FIELD",
        (f"rules[0].{bad}",),
    )
    draft = await refused(explained_send(sqlite_edge, draft_rules=[wrong]))
    assert draft.fields == (f"draft_rules[0].{bad}",)
    found = await sqlite_edge.operator.routing.GetRoutingRules(wire.GetRoutingRulesRequest())
    assert (list(found.rules), found.revision) == ([], "0")


async def test_all_that_is_wrong_is_told_at_once(sqlite_edge: Edge) -> None:
    """Of every rule and step, and beside them of what is asked."""
    bad = rule("", step(timeout=Duration()), step(strategy=UNKNOWN), match=wire.RouteMatch(tags=[""]))
    expected = ("match.tags[0]", "name", "steps[0].timeout", "steps[1].strategy")
    refusal = await refused(set_rules(sqlite_edge, rule("ok"), bad))
    assert sorted(refusal.fields) == [f"rules[1].{field}" for field in expected]
    refusal = await refused(explained(sqlite_edge, draft_rules=[bad]))
    assert sorted(refusal.fields) == sorted(["intent", "recipient", *(f"draft_rules[0].{field}" for field in expected)])


async def test_what_looks_wrong_is_warned_of(edge: Edge) -> None:
    """Templates and weights that lead nowhere, receipts that never come, rules behind one that serves everything."""
    answer = await set_rules(
        edge,
        rule("a", step("sandbox", template_key="gone"), match=wire.RouteMatch(tags=["x"])),
        rule("b", step("sandbox", strategy=WEIGHTED, weights={"sandbox": 2, "other": 1})),
        rule("c", step(strategy=WEIGHTED, weights={"sandbox": 2}), is_active=False),
        rule("d", step("sandbox", weights={"sandbox": 2}, fallback=False, wait_for=DELIVERED, **SECONDS)),
    )
    assert list(answer.warnings) == [
        "Rule a, step 1: there is no template gone.",
        "Rule b, step 1: the weight of other is that of no provider of the step.",
        "Rule d is never reached but as a scenario: rule b serves every message.",
        "Rule d, step 1: the weights count with STRATEGY_WEIGHTED alone.",
        "Rule d, step 1: without fallback no step follows when its timeout is over.",
    ]


async def test_a_route_that_might_be_taken_is_explained(edge: Edge) -> None:
    """Rules and accounts with their reasons, the number's country and operator, the text's parts, the revision."""
    await edge.operator.providers.ConfigureProvider(kavenegar(is_active=False))
    by_tag = rule("tagged", match=wire.RouteMatch(tags=["vip"]), priority=-1)
    kept = await set_rules(
        edge, by_tag, rule("paid", step("kavenegar", "sandbox"), intents=["ORDER_PAID"]), rule("rest", priority=9)
    )
    found = await explained_send(edge, text="سلام")
    assert looks(found) == ["tagged TAGS", "paid FOLLOWED!", "rest BEHIND"]
    assert told(found) == ["1 kavenegar SKIPPED INACTIVE", "1 sandbox CHOSEN"]
    assert [c.channel for c in found.candidates] == [CHANNEL_SMS, CHANNEL_SMS]
    assert found.candidates[0].detail == "The provider account is not active."
    assert (found.country, found.operator, found.segments, found.encoding) == ("IR", "MCI", 1, "UCS-2")
    assert found.revision == kept.revision
    assert looks(await explained_send(edge, tags=["vip"])) == ["tagged FOLLOWED!", "paid BEHIND", "rest BEHIND"]
    assert looks(await explained_send(edge, scenario="rest")) == ["tagged SCENARIO", "paid SCENARIO", "rest SCENARIO!"]
    nobody = await explained_send(edge, recipient=Recipient(email="a@example.test"), channel=CHANNEL_EMAIL)
    assert told(nobody) == ["1 sandbox CHOSEN", "1 kavenegar SKIPPED CHANNEL"]
    assert (nobody.country, nobody.operator) == ("", "")
    assert (await edge.operator.notifications.ListNotifications(ListNotificationsRequest())).notifications == []


async def test_drafts_stand_beside_the_rules(edge: Edge) -> None:
    """As if they were set, instead of the rule of the same name; nothing is kept."""
    await set_rules(edge, rule("a", intents=["ORDER_PAID"]), rule("b", priority=1))
    other = rule("a", intents=["LOGIN"])
    assert looks(await explained_send(edge, draft_rules=[other])) == ["a INTENT", "b FOLLOWED!"]
    new = rule("0", match=wire.RouteMatch(operators=["mci"]), is_active=True)
    assert looks(await explained_send(edge, draft_rules=[new])) == ["0 FOLLOWED!", "a BEHIND", "b BEHIND"]
    assert looks(await explained_send(edge, draft_rules=[rule("z")], scenario="z")) == [
        "a SCENARIO",
        "z SCENARIO!",
        "b SCENARIO",
    ]
    assert looks(await explained_send(edge)) == ["a FOLLOWED!", "b BEHIND"]


@pytest.mark.parametrize(
    ("asked", "resource"),
    [
        ({"scenario": "gone"}, "routing_rule"),
        ({"template_key": "gone"}, "template"),
        ({"intent": "", "recipient": None, "tracking_id": "gone"}, "notification"),
    ],
)
async def test_what_is_not_there_cannot_be_explained(sqlite_edge: Edge, asked: dict[str, Any], resource: str) -> None:
    """NOT_FOUND names what there is not."""
    refusal = await refused(explained_send(sqlite_edge, **asked))
    assert (refusal.code, refusal.told) == (StatusCode.NOT_FOUND, {"resource": resource})


@pytest.mark.parametrize(
    ("asked", "fields"),
    [
        ({}, {"intent", "recipient"}),
        ({"tracking_id": "x", "intent": "A", "text": "b", "tags": ["c"]}, {"intent", "text", "tags"}),
        ({"tracking_id": "x" * 121}, {"tracking_id"}),
        ({"intent": "A", "recipient": Recipient(phone="12")}, {"recipient.phone"}),
        ({"intent": "A", "recipient": PERSON, "text": "x" * 1_601}, {"text"}),
    ],
)
async def test_what_cannot_be_asked(sqlite_edge: Edge, asked: dict[str, Any], fields: set[str]) -> None:
    """Fields are checked as in a Send; none of them stands beside a tracking_id."""
    refusal = await refused(explained(sqlite_edge, **asked))
    assert (refusal.code, set(refusal.fields)) == (StatusCode.INVALID_ARGUMENT, fields)


async def test_a_message_is_explained_as_it_stands(edge: Edge) -> None:
    """By the rules and accounts of now; nothing goes next of one that is stopped, and another tenant sees none."""
    sent = await edge.operator.notifications.Send(letter())
    await set_rules(edge, rule("new", intents=["ORDER_PAID"]))
    found = await explained(edge, tracking_id=sent.tracking_id)
    assert (looks(found), told(found)) == (["new FOLLOWED!"], ["1 sandbox CHOSEN"])
    assert (found.operator, found.segments, found.encoding) == ("MCI", 1, "GSM-7")
    assert looks(await explained(edge, tracking_id=sent.tracking_id, draft_rules=[rule("a")])) == [
        "a FOLLOWED!",
        "new BEHIND",
    ]
    await edge.tenant("other")
    theirs = await refused(explained(edge, tracking_id=sent.tracking_id, tenant_id="other"))
    assert theirs.told == {"resource": "notification"}
    await edge.store.apply(sent.tracking_id, Stopped(Stop.CANCELED))
    assert told(await explained(edge, tracking_id=sent.tracking_id)) == ["1 sandbox SKIPPED OVER"]


async def test_templates_are_part_of_the_way(edge: Edge) -> None:
    """An account that cannot say it is passed over; a message that was sent keeps the revision that it came with."""
    templates, paid = edge.operator.templates, Template(key="paid", text="Paid %sum%.")
    await templates.CreateTemplate(CreateTemplateRequest(template=paid))
    by_template = {"template_key": "paid", "params": {"sum": "5"}}
    found = await explained_send(edge, **by_template)
    assert (told(found), found.encoding, found.segments) == (["1 sandbox CHOSEN"], "GSM-7", 1)
    assert told(await explained_send(edge, template_key="paid")) == ["1 sandbox SKIPPED TEMPLATE"]
    other = rule("a", step("sandbox", template_key="gone"), step("sandbox"))
    assert told(await explained_send(edge, **by_template, draft_rules=[other])) == [
        "1 sandbox SKIPPED TEMPLATE",
        "2 sandbox CHOSEN",
    ]
    sent = await edge.operator.notifications.Send(letter(text=None, **by_template))
    await templates.UpdateTemplate(UpdateTemplateRequest(key="paid", text="سلام %sum% %name%"))
    assert told(await explained_send(edge, **by_template)) == ["1 sandbox SKIPPED TEMPLATE"]
    kept = await explained(edge, tracking_id=sent.tracking_id)
    assert (told(kept), kept.encoding) == (["1 sandbox CHOSEN"], "GSM-7")


async def test_what_is_explained_is_what_would_be_sent(edge: Edge) -> None:
    """By the template that a step names, also of a plain text, and by the one that serves the intent."""
    templates = edge.operator.templates
    for made in (
        Template(key="short", text="Look into the app."),
        Template(
            key="other",
            intents=["ORDER_PAID"],
            provider_templates=[ProviderTemplate(provider="other", template_name="t", params={"amount": "sum"})],
        ),
    ):
        await templates.CreateTemplate(CreateTemplateRequest(template=made))
    by_step = rule("a", step("sandbox", template_key="short"))
    assert told(await explained_send(edge, text="Paid.", draft_rules=[by_step])) == ["1 sandbox CHOSEN"]
    assert told(await explained_send(edge, params={"sum": "5"})) == ["1 sandbox SKIPPED TEMPLATE"]
    unsaid = await refused(edge.operator.notifications.Send(letter(text=None, params={"sum": "5"})))
    assert unsaid.reason == "NO_ROUTE"
    await set_rules(edge, by_step)
    sent = await edge.operator.notifications.Send(letter())
    assert told(await explained(edge, tracking_id=sent.tracking_id)) == ["1 sandbox CHOSEN"]


async def test_an_explanation_has_this_process_view_and_changes_nothing(edge: Edge) -> None:
    """An account that asked for a pause is closed in it, by the database's clock, and closed it stays."""
    roster = getattr(edge.store.configuration.on_snapshot[0], "__self__", None)
    assert isinstance(roster, Roster)
    (account,) = edge.store.configuration.snapshot.accounts["default"]
    now = await edge.store.reading.now()
    roster.note(account.uid, Channel.SMS, "IR", rate_limited(retry_after=60_000_000), now)
    for _ in range(2):
        assert told(await explained_send(edge)) == ["1 sandbox FALLBACK RATE_LIMITED"]
    assert abs(now - time.time_ns() // 1000) < 60_000_000


async def test_status_tells_why_a_message_took_its_way(edge: Edge) -> None:
    """As it was kept with the latest planning; nothing where none was made yet."""
    sent = await edge.operator.notifications.Send(letter())
    asked = GetStatusRequest(tracking_id=sent.tracking_id)
    assert not (await edge.operator.notifications.GetStatus(asked)).HasField("explanation")
    (claim,) = await edge.store.claim(MessageClass.TRANSACTIONAL, frozenset({DueKind.SEND}), 1)
    why = Explanation(
        (RuleLook("r", matched=True, why="FOLLOWED"),),
        (Candidate(2, Channel.EMAIL, "m", Verdict.SKIPPED, "TEMPLATE", DETAILS["TEMPLATE"]),),
        "IR",
        "MCI",
        3,
        "UCS-2",
        "7",
    )
    await edge.store.apply(sent.tracking_id, Postponed(claim.hold, claim.now), Beside(explanation=why))
    assert (await edge.operator.notifications.GetStatus(asked)).explanation == RouteExplanation(
        rules=[RouteExplanation.Rule(name="r", matched=True, why="FOLLOWED")],
        candidates=[
            CANDIDATE(
                step=2,
                channel=CHANNEL_EMAIL,
                provider="m",
                verdict=CANDIDATE.VERDICT_SKIPPED,
                reason="TEMPLATE",
                detail=DETAILS["TEMPLATE"],
            )
        ],
        country="IR",
        operator="MCI",
        segments=3,
        encoding="UCS-2",
        revision="7",
    )
