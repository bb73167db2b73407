"""RoutingService and Send: why a route leads nowhere, whom it passes over, and what of the rules is in vain."""

import json
from dataclasses import replace

import pytest
from angarium.v1 import routing_service_pb2 as wire
from angarium.v1.message_pb2 import (
    CHANNEL_CHAT,
    CHANNEL_EMAIL,
    CHANNEL_PUSH,
    CHANNEL_SMS,
    CHANNEL_UNSPECIFIED,
    CHANNEL_VOICE,
    Recipient,
    RouteExplanation,
)
from angarium.v1.notification_service_pb2 import GetStatusRequest, GetStatusResponse
from angarium.v1.otp_service_pb2 import OtpSendRequest
from angarium.v1.provider_service_pb2 import ConfigureProviderRequest, DeleteProviderRequest
from angarium.v1.template_service_pb2 import CreateTemplateRequest, ProviderTemplate, Template
from grpc import StatusCode

from server.model.enums import Channel, DueKind, MessageClass
from server.model.explanation import DETAILS, Explanation, RuleLook, Skip, skipped
from server.model.facts import Postponed
from server.model.work import Beside
from server.store.rows import explanation_of, explanation_text
from tests.api.edge import Edge, letter, refused
from tests.api.test_configuration import kavenegar
from tests.api.test_routing import explained_send, rule, set_rules, step, told

BARE = ConfigureProviderRequest(name="bare", type="kavenegar")
BY_EMAIL = {"recipient": Recipient(phone="09120000111", email="a@example.test"), "channel": CHANNEL_EMAIL}


async def test_a_refused_send_says_why(edge: Edge) -> None:
    """Who is not for a sandbox, not configured, not active, not there: in words, in a sentence, and as explained."""
    await edge.operator.providers.ConfigureProvider(kavenegar())
    await edge.operator.providers.ConfigureProvider(BARE)
    await edge.operator.providers.ConfigureProvider(kavenegar(name="off", is_active=False))
    await set_rules(edge, rule("r", step("kavenegar", "bare"), step("off", "nobody")))
    refusal = await refused(edge.operator.notifications.Send(letter()))
    assert (refusal.code, refusal.reason) == (StatusCode.FAILED_PRECONDITION, "NO_ROUTE")
    reasons = "kavenegar:NOT_FOR_SANDBOX,bare:NOT_CONFIGURED,off:INACTIVE,nobody:UNKNOWN"
    assert refusal.told == {"intent": "ORDER_PAID", "reasons": reasons}
    assert refusal.message.startswith(
        f"No active provider account can take the message. kavenegar: {DETAILS['NOT_FOR_SANDBOX']} bare: "
    )
    assert refusal.message.endswith(". ExplainRoute tells more.")
    assert told(await explained_send(edge)) == [
        "1 kavenegar SKIPPED NOT_FOR_SANDBOX",
        "1 bare SKIPPED NOT_CONFIGURED",
        "2 off SKIPPED INACTIVE",
        "2 nobody SKIPPED UNKNOWN",
    ]


async def test_a_channel_that_nobody_serves_is_told(edge: Edge) -> None:
    """By a rule and without one, the accounts and steps of other channels say that they are such."""
    await edge.operator.providers.ConfigureProvider(kavenegar(base_url="https://93.184.215.14"))
    await edge.operator.providers.DeleteProvider(DeleteProviderRequest(name="sandbox"))
    refusal = await refused(edge.operator.notifications.Send(letter(**BY_EMAIL)))
    assert refusal.told["reasons"] == "kavenegar:CHANNEL"
    assert f" kavenegar: {DETAILS['CHANNEL']} " in refusal.message
    await set_rules(edge, rule("r", step(channel=CHANNEL_SMS), step("kavenegar")))
    refusal = await refused(edge.operator.notifications.Send(letter(**BY_EMAIL)))
    assert refusal.told["reasons"] == "step 1:CHANNEL,kavenegar:CHANNEL"


async def test_who_cannot_say_it_is_told(edge: Edge) -> None:
    """Of a message by template and of a code alike."""
    elsewhere = ProviderTemplate(provider="elsewhere", template_name="x", params={"token": "CODE"})
    only = Template(key="only", provider_templates=[elsewhere])
    await edge.operator.templates.CreateTemplate(CreateTemplateRequest(template=only))
    asked = letter(text=None, template_key="only", params={"CODE": "1234"})
    refusal = await refused(edge.operator.notifications.Send(asked))
    assert (refusal.reason, refusal.told) == ("NO_ROUTE", {"intent": "ORDER_PAID", "reasons": "sandbox:TEMPLATE"})
    assert f" sandbox: {DETAILS['TEMPLATE']} " in refusal.message
    refusal = await refused(edge.operator.otp.OtpSend(OtpSendRequest(phone="09120000111", template_key="only")))
    assert (refusal.reason, refusal.told["reasons"]) == ("NO_ROUTE", "sandbox:TEMPLATE")


async def test_an_account_that_is_gone_is_still_told_of(edge: Edge) -> None:
    """Named by a draft, or deleted by force under its rule: a candidate that is passed over, not a hole."""
    draft = rule("a", step("nobody", "sandbox"), step("lost", channel=CHANNEL_PUSH))
    found = await explained_send(edge, draft_rules=[draft])
    assert told(found) == ["1 sandbox CHOSEN", "1 nobody SKIPPED UNKNOWN", "2 lost SKIPPED UNKNOWN"]
    assert [c.channel for c in found.candidates] == [CHANNEL_SMS, CHANNEL_UNSPECIFIED, CHANNEL_PUSH]
    assert found.candidates[1].detail == "There is no such provider account."
    await set_rules(edge, rule("a", step("sandbox")))
    await edge.operator.providers.DeleteProvider(DeleteProviderRequest(name="sandbox", force=True))
    assert told(await explained_send(edge)) == ["1 sandbox SKIPPED UNKNOWN"]
    refusal = await refused(edge.operator.notifications.Send(letter()))
    assert refusal.told["reasons"] == "sandbox:UNKNOWN"


async def test_steps_of_another_channel_are_told_of(edge: Edge) -> None:
    """Who asks for e-mail sees which steps were passed over for it, each with its own channel."""
    await set_rules(edge, rule("a", step("sandbox", channel=CHANNEL_PUSH), step(channel=CHANNEL_SMS), step("sandbox")))
    found = await explained_send(edge, **BY_EMAIL)
    assert told(found) == ["1 sandbox SKIPPED CHANNEL", "2  SKIPPED CHANNEL", "3 sandbox CHOSEN"]
    assert [c.channel for c in found.candidates] == [CHANNEL_PUSH, CHANNEL_SMS, CHANNEL_EMAIL]
    assert found.candidates[0].detail == DETAILS["CHANNEL"]


async def test_without_a_rule_the_unusable_are_told_of(edge: Edge) -> None:
    """Accounts that are switched off or lack a setting stand behind those that may go."""
    await edge.operator.providers.ConfigureProvider(BARE)
    await edge.operator.providers.ConfigureProvider(kavenegar(name="off", is_active=False))
    assert told(await explained_send(edge)) == [
        "1 sandbox CHOSEN",
        "1 bare SKIPPED NOT_CONFIGURED",
        "1 off SKIPPED INACTIVE",
    ]


async def test_a_kept_explanation_may_lack_a_channel(edge: Edge) -> None:
    """Of a candidate that is no account; it is 0 on the wire."""
    sent = await edge.operator.notifications.Send(letter())
    (claim,) = await edge.store.claim(MessageClass.TRANSACTIONAL, frozenset({DueKind.SEND}), 1)
    why = Explanation(candidates=(skipped(1, None, "gone", Skip.UNKNOWN),))
    await edge.store.apply(sent.tracking_id, Postponed(claim.hold, claim.now), Beside(explanation=why))
    answer: GetStatusResponse = await edge.operator.notifications.GetStatus(
        GetStatusRequest(tracking_id=sent.tracking_id)
    )
    assert answer.explanation.candidates == [
        RouteExplanation.Candidate(
            step=1,
            channel=CHANNEL_UNSPECIFIED,
            provider="gone",
            verdict=RouteExplanation.Candidate.VERDICT_SKIPPED,
            reason="UNKNOWN",
            detail=DETAILS["UNKNOWN"],
        )
    ]


def test_what_is_kept_of_an_explanation_is_short_and_reads_whole() -> None:
    """Rules behind the followed one are left out, sentences are told anew, and no channel is kept as an empty text."""
    followed = (RuleLook("a", matched=False, why="INTENT"), RuleLook("b", matched=True, why="FOLLOWED"))
    whole = Explanation(
        rules=(*followed, RuleLook("c", matched=False, why="BEHIND")),
        candidates=(skipped(1, None, "gone", Skip.UNKNOWN), skipped(2, Channel.SMS, "main", Skip.INACTIVE)),
        country="IR",
        revision="7",
    )
    kept = explanation_text(whole)
    assert explanation_of(kept) == replace(whole, rules=followed)
    assert not any(sentence in kept for sentence in DETAILS.values())
    assert json.loads(kept)[1][0][1] == ""


async def test_providers_that_cannot_go_are_warned_of(edge: Edge) -> None:
    """Not configured, not for the sandbox, or nobody for the channel; a LIVE tenant may use the real provider."""
    await edge.operator.providers.ConfigureProvider(kavenegar())
    await edge.operator.providers.ConfigureProvider(BARE)
    doubtful = rule("a", step("kavenegar", "bare", "sandbox"))
    found = (await set_rules(edge, doubtful)).warnings
    assert list(found) == [
        "Rule a, step 1: the provider kavenegar is not for a sandbox without a base_url of its own.",
        "Rule a, step 1: the provider bare lacks a setting that it needs.",
    ]
    await edge.operator.providers.ConfigureProvider(kavenegar(base_url="https://93.184.215.14"))
    await edge.operator.providers.DeleteProvider(DeleteProviderRequest(name="sandbox", force=True))
    unserved = rule("b", step(channel=CHANNEL_VOICE), step(channel=CHANNEL_CHAT), step(), intents=["X"])
    found = (await set_rules(edge, unserved, replace_all=True)).warnings
    assert list(found) == ["Rule b, step 2: there is no provider that may be used for CHAT."]
    await edge.operator.providers.DeleteProvider(DeleteProviderRequest(name="kavenegar"))
    found = (await set_rules(edge, rule("b", step()), replace_all=True)).warnings
    assert list(found) == ["Rule b, step 1: there is no provider that may be used."]


LOGIN, PAID = "OTP_LOGIN", "ORDER_PAID"
VIP = wire.RouteMatch(tags=["vip"])


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ([rule("a", intents=[LOGIN]), rule("b", intents=[LOGIN])], ["b: rule a serves all of its intents."]),
        (
            [rule("a", intents=[LOGIN]), rule("b", intents=[PAID]), rule("c", intents=[PAID, LOGIN])],
            ["c: rules b, a serve all of its intents."],
        ),
        (
            [rule("a", intents=[LOGIN, PAID]), rule("b", intents=[LOGIN], match=VIP)],
            ["b: rule a serves all of its intents."],
        ),
        ([rule("a", intents=[LOGIN]), rule("b", intents=[LOGIN, PAID]), rule("c")], []),
        ([rule("a", intents=[LOGIN], match=VIP), rule("b", intents=[LOGIN])], []),
        ([rule("a", intents=[LOGIN], is_active=False), rule("b", intents=[LOGIN])], []),
        ([rule("a", intents=[LOGIN]), rule("b", intents=[LOGIN], is_active=False)], []),
        (
            [rule("a", intents=[LOGIN], priority=2), rule("b", intents=[LOGIN])],
            ["a: rule b serves all of its intents."],
        ),
        (
            [rule("a", intents=[LOGIN]), rule("b"), rule("c", intents=[LOGIN])],
            ["c: rule b serves every message."],
        ),
        (
            [*(rule(f"a{n}", intents=[f"I{n}"]) for n in range(6)), rule("z", intents=[f"I{n}" for n in range(6)])],
            ["z: rules a0, a1, a2, a3, a4, … serve all of its intents."],
        ),
    ],
)
async def test_rules_that_no_message_comes_to_are_warned_of(
    sqlite_edge: Edge, rules: list[wire.RoutingRule], expected: list[str]
) -> None:
    """Where earlier active rules without a match serve all of a rule's intents, one alone or several together."""
    warned = (await set_rules(sqlite_edge, *rules)).warnings
    assert list(warned) == [f"Rule {each}".replace(":", " is never reached but as a scenario:") for each in expected]
