"""What a Send says by a template: which one, filled in with what, and how a repeat of it is known."""

from collections.abc import Callable
from typing import Any

import pytest
from angarium.v1 import notification_service_pb2 as wire, routing_service_pb2 as routing, template_service_pb2 as kept
from angarium.v1.message_pb2 import (
    CHANNEL_EMAIL,
    CHANNEL_VOICE,
    MESSAGE_CLASS_BULK,
    MESSAGE_CLASS_OTP,
    MESSAGE_CLASS_TRANSACTIONAL,
    MESSAGE_KIND_PROVIDER_TEMPLATED,
    MESSAGE_KIND_TEXT,
    Recipient,
)
from angarium.v1.provider_service_pb2 import ConfigureProviderRequest
from angarium.v1.sandbox_service_pb2 import PeekOutboxRequest
from grpc import StatusCode

from server.api.convert.messages import digest_of
from server.model.enums import Channel, DueKind, MessageClass, State
from server.model.messages import Content, Message, NewMessage, Recipient as Person
from server.model.templates import worded
from tests.api.edge import UNKNOWN, Edge, letter, refused
from tests.gateway import Gateway

PARAMS = {"order": "7", "shop": "Mall"}
ODD = ["{{7*7}}", "{x.__class__}", "%s", "${}", "%shop%", "%%", "\\1", "<b>"]


def by(key: str = "paid", params: dict[str, str] | None = None, **fields: Any) -> wire.SendRequest:
    """A letter said by a template."""
    asked = {"text": None, "template_key": key, "params": PARAMS if params is None else params, **fields}
    return letter(**asked)


async def make(edge: Edge, key: str = "paid", **fields: Any) -> kept.Template:
    given = {"key": key, "text": "Order %order% of %shop%", **fields}
    asked = kept.CreateTemplateRequest(template=kept.Template(**given))
    return (await edge.operator.templates.CreateTemplate(asked)).template


async def update(edge: Edge, key: str = "paid", **fields: Any) -> None:
    await edge.operator.templates.UpdateTemplate(kept.UpdateTemplateRequest(key=key, **fields))


async def send(edge: Edge, request: wire.SendRequest) -> wire.SendResponse:
    return await edge.operator.notifications.Send(request)


async def told(edge: Edge, tracking_id: str) -> Any:
    asked = wire.GetStatusRequest(tracking_id=tracking_id)
    return (await edge.operator.notifications.GetStatus(asked)).notification


async def said(edge: Edge) -> str:
    """What the one message that waits would say by SMS, as whoever claims it finds it."""
    claims = await edge.store.claim(MessageClass.TRANSACTIONAL, frozenset({DueKind.SEND}), 10)
    message, content = claims[-1].case.message, claims[-1].content
    assert content is not None
    template = await edge.store.configuration.pinned("default", message.template_key, message.template_revision)
    wording = worded(message, content, template, Channel.SMS, "sandbox", "")
    assert wording is not None
    return wording.text


async def test_a_message_keeps_the_revision_that_it_was_accepted_with(edge: Edge) -> None:
    """Its parts are those of what it says; a change of the template is for messages after it."""
    await make(edge, text="Order %order% of %shop%" + "x" * 140)
    sent = await send(edge, by())
    await update(edge, text="Changed %order% %shop%")
    shown = await told(edge, sent.tracking_id)
    assert (shown.template_key, shown.template_revision, shown.segments) == ("paid", 1, 1)
    assert await said(edge) == "Order 7 of Mall" + "x" * 140
    later = await told(edge, (await send(edge, by())).tracking_id)
    assert later.template_revision == 2
    assert await said(edge) == "Changed 7 Mall"


async def test_an_earlier_revision_can_be_asked_for(edge: Edge) -> None:
    """With its own parameters; one that there is not is NOT_FOUND."""
    await make(edge)
    await update(edge, text="Changed %other%")
    shown = await told(edge, (await send(edge, by(template_revision=1))).tracking_id)
    assert shown.template_revision == 1
    assert await said(edge) == "Order 7 of Mall"
    refusal = await refused(send(edge, by(template_revision=3)))
    assert (refusal.code, refusal.told) == (StatusCode.NOT_FOUND, {"resource": "template"})
    assert (await refused(send(edge, by()))).fields == ("params.other", "params.order", "params.shop")


async def test_the_template_that_serves_the_intent(edge: Edge) -> None:
    """Of several the first by priority, then key, of those that are active and fit the class that is asked for."""
    for key, fields in (
        ("b", {"priority": 1}),
        ("a", {"priority": 1}),
        ("first", {"is_active": False}),
        ("bulk", {"message_class": MESSAGE_CLASS_BULK}),
        ("other", {"intents": ["OTHER"]}),
    ):
        await make(edge, key, **{"intents": ["ORDER_PAID"], **fields})
    for asked, expected in ((MESSAGE_CLASS_TRANSACTIONAL, "a"), (MESSAGE_CLASS_BULK, "bulk"), (None, "bulk")):
        sent = await send(edge, by("", message_class=asked))
        assert (await told(edge, sent.tracking_id)).template_key == expected
    refusal = await refused(send(edge, by("", intent="NONE")))
    assert (refusal.code, refusal.fields) == (StatusCode.INVALID_ARGUMENT, ("text",))
    assert "'NONE'" in refusal.descriptions[0]
    assert "template_key" in refusal.descriptions[0]


async def test_a_template_that_there_is_not(edge: Edge) -> None:
    """Row 34: NOT_FOUND, also where another tenant has one."""
    await edge.tenant("mall")
    await edge.operator.templates.CreateTemplate(
        kept.CreateTemplateRequest(tenant_id="mall", template=kept.Template(key="paid", text="x"))
    )
    refusal = await refused(send(edge, by()))
    assert (refusal.code, refusal.reason) == (StatusCode.NOT_FOUND, "RESOURCE_NOT_FOUND")
    assert refusal.told == {"resource": "template"}


async def test_a_template_that_may_not_be_used(edge: Edge) -> None:
    """Row 35: switched off, whatever it was at the revision that is asked for, or for another class."""
    await make(edge)
    await update(edge, is_active=False)
    await make(edge, "login", message_class=MESSAGE_CLASS_OTP)
    plain: dict[str, Any] = {"message_class": MESSAGE_CLASS_TRANSACTIONAL}
    for asked in (by(), by(template_revision=1), by("login", **plain), by("login", template_revision=1, **plain)):
        refusal = await refused(send(edge, asked))
        assert (refusal.code, refusal.reason) == (StatusCode.FAILED_PRECONDITION, "TEMPLATE_INACTIVE")
        assert refusal.told == {"template_key": asked.template_key}
    await update(edge, is_active=True)
    for revision in (1, 2, 3):
        assert (await send(edge, by(template_revision=revision))).tracking_id


async def test_a_template_without_words_for_the_channel(edge: Edge) -> None:
    """Row 35: where no account of the route could say it, there is no route."""
    await make(edge, text="", variants=[kept.TemplateVariant(channel=CHANNEL_EMAIL, text="%order% %shop%")])
    both = Recipient(phone="09120000111", email="a@example.com")
    assert (await send(edge, by(recipient=both, channel=CHANNEL_EMAIL))).tracking_id
    refusal = await refused(send(edge, by()))
    assert (refusal.code, refusal.reason) == (StatusCode.FAILED_PRECONDITION, "NO_ROUTE")


FIELDS: dict[str, tuple[Callable[[], wire.SendRequest], dict[str, str]]] = {
    "36 missing": (lambda: by(params={}), {"params.order": "required by the template paid", "params.shop": "required"}),
    "36 extra": (lambda: by(params={**PARAMS, "x": "y"}), {"params.x": "template paid"}),
    "36 both": (lambda: by(params={"order": "7", "Shop": "x"}), {"params.shop": "required", "params.Shop": "nothing"}),
    "36 extra code": (lambda: by(params={**PARAMS, "token": "1"}), {"params.token": "nothing"}),
    "one parameter twice": (
        lambda: by("login", {"token": "1", "CODE": "1"}),
        {"params.token": "the same parameter as CODE"},
    ),
    "a bad name": (lambda: by(params={**PARAMS, "a b": "x"}), {"params": "'a b'"}),
    "a control character": (lambda: by(params={**PARAMS, "order": "a\x00"}), {"params.order": "control"}),
    "a long value": (lambda: by(params={**PARAMS, "order": "س" * 2_049}), {"params.order": "4096 bytes"}),
    "too many": (lambda: by("", {str(n): "" for n in range(65)}, text="x"), {"params": "65 values"}),
    "too much": (lambda: by("many", {str(n): "x" * 4_096 for n in range(4)}), {"params": "16384 bytes in all"}),
    "too many parts": (lambda: by(params={**PARAMS, "shop": "س" * 671}), {"params": "SMS parts"}),
    "a text beside": (lambda: by(text="x"), {"text": "beside template_key"}),
    "params beside a text": (lambda: by("", text="x"), {"params": "a template needs"}),
    "a bad key": (lambda: by("a b"), {"template_key": "characters"}),
    "a negative revision": (lambda: by(template_revision=-1), {"template_revision": "negative"}),
    "a revision of nothing": (
        lambda: letter(template_revision=1),
        {"template_revision": "template_key"},
    ),
    "20 unknown kind": (lambda: by(message_kind=UNKNOWN), {"message_kind": "no value"}),
    "a templated text": (lambda: letter(message_kind=MESSAGE_KIND_PROVIDER_TEMPLATED), {"message_kind": "text"}),
    "a bad scenario": (lambda: letter(scenario="a b"), {"scenario": "characters"}),
    "a long application": (lambda: letter(application_key="k" * 121), {"application_key": "120"}),
}


@pytest.mark.parametrize("row", FIELDS)
async def test_fields_of_a_templated_send(sqlite_edge: Edge, row: str) -> None:
    """Row 36 and the others: INVALID_ARGUMENT, every bad field by its path, and what is wrong with it."""
    await make(sqlite_edge)
    await make(sqlite_edge, "login", text="%CODE%")
    await make(sqlite_edge, "many", text="%0%%1%%2%%3%")
    asked, expected = FIELDS[row]
    refusal = await refused(send(sqlite_edge, asked()))
    assert (refusal.code, refusal.reason) == (StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    described = dict(zip(refusal.fields, refusal.descriptions, strict=True))
    assert described.keys() == expected.keys()
    for field, words in expected.items():
        assert words in described[field]


async def test_a_template_is_judged_beside_all_other_fields(sqlite_edge: Edge) -> None:
    """What it lacks is told together with what else is bad."""
    await make(sqlite_edge)
    refusal = await refused(send(sqlite_edge, by(params={"order": "7"}, sender="SHOP\r\n")))
    assert set(refusal.fields) == {"params.shop", "sender"}


@pytest.mark.parametrize("odd", ODD)
async def test_what_parameters_hold_is_literal(sqlite_edge: Edge, odd: str) -> None:
    """Row 37: nothing is evaluated, and nothing is read again."""
    await make(sqlite_edge)
    await send(sqlite_edge, by(params={"order": odd, "shop": "Mall"}))
    assert await said(sqlite_edge) == f"Order {odd} of Mall"


async def test_a_provider_template_is_asked_for(edge: Edge) -> None:
    """Accounts without one are passed over: with none bound there is no route, with one there is."""
    await make(edge)
    kind = MESSAGE_KIND_PROVIDER_TEMPLATED
    refusal = await refused(send(edge, by(message_kind=kind)))
    assert (refusal.code, refusal.reason) == (StatusCode.FAILED_PRECONDITION, "NO_ROUTE")
    bound = kept.ProviderTemplate(provider="sandbox", template_name="paid", params={"token": "order"})
    await update(edge, provider_templates=[bound], clear=["text"])
    only = {"order": "7"}
    assert (await send(edge, by(params=only, message_kind=kind))).tracking_id
    assert (await send(edge, by(params=only))).tracking_id
    assert (await refused(send(edge, by(params=only, message_kind=MESSAGE_KIND_TEXT)))).reason == "NO_ROUTE"


async def test_a_rule_is_asked_for_by_its_name(edge: Edge) -> None:
    """It is followed whatever its intents; an unknown one is NOT_FOUND, one that is switched off is no route."""
    rules = [
        routing.RoutingRule(name="vip", intents=["OTHER"], steps=[routing.RouteStep(providers=["sandbox"])]),
        routing.RoutingRule(name="off", steps=[routing.RouteStep()], is_active=False),
    ]
    await edge.operator.routing.SetRoutingRules(routing.SetRoutingRulesRequest(rules=rules))
    assert (await told(edge, (await send(edge, letter(scenario="vip"))).tracking_id)).rule == "vip"
    refusal = await refused(send(edge, letter(scenario="none")))
    assert (refusal.code, refusal.told) == (StatusCode.NOT_FOUND, {"resource": "routing_rule"})
    refusal = await refused(send(edge, letter(scenario="off")))
    assert (refusal.code, refusal.reason) == (StatusCode.FAILED_PRECONDITION, "NO_ROUTE")


async def test_what_is_asked_is_kept_for_the_dispatcher(edge: Edge) -> None:
    """Kind, rule and application travel with the message; parameters are sealed."""
    await make(edge)
    secret = "order-4711-of-nobody"
    await send(
        edge, by(params={"order": secret, "shop": "Mall"}, message_kind=MESSAGE_KIND_TEXT, application_key="app")
    )
    claim = (await edge.store.claim(MessageClass.TRANSACTIONAL, frozenset({DueKind.SEND}), 1))[0]
    assert claim.content is not None
    assert (claim.case.message.message_kind, claim.content.application_key) == ("TEXT", "app")
    assert claim.content.params == {"order": secret, "shop": "Mall"}
    rows = await edge.store._database.read(lambda c: c.exec_driver_sql("SELECT * FROM message").all())
    assert secret.encode() not in b"".join(bytes(v) if isinstance(v, bytes) else str(v).encode() for v in rows[0])


async def test_a_repeat_is_answered_though_the_template_has_changed(edge: Edge) -> None:
    """Changed, needing more, switched off or deleted: what was asked for is the same, and the first message is told."""
    await make(edge)
    await make(edge, "bound", intents=["BOUND"])
    asked = (by(request_id="k"), by("", intent="BOUND", request_id="l"))
    first = [await send(edge, each) for each in asked]

    async def repeated() -> None:
        again = [await send(edge, each) for each in asked]
        assert [(each.tracking_id, each.replayed) for each in again] == [(each.tracking_id, True) for each in first]

    for key in ("paid", "bound"):
        await update(edge, key, text="Order %order% of %shop%: thanks")
    await repeated()
    for key in ("paid", "bound"):
        await update(edge, key, text="%more%")
    await repeated()
    for key in ("paid", "bound"):
        await update(edge, key, is_active=False)
    await repeated()
    for each in first:
        await edge.operator.notifications.Cancel(wire.CancelRequest(tracking_id=each.tracking_id))
    for key in ("paid", "bound"):
        await edge.operator.templates.DeleteTemplate(kept.DeleteTemplateRequest(key=key))
    await repeated()
    other = by(params={"order": "8", "shop": "Mall"}, request_id="k")
    assert (await refused(send(edge, other))).reason == "REQUEST_ID_REUSED"


@pytest.mark.parametrize(
    "changed",
    [
        {"params": {"order": "8", "shop": "Mall"}},
        {"template_key": "other"},
        {"template_key": ""},
        {"template_revision": 1},
        {"message_kind": MESSAGE_KIND_TEXT},
        {"scenario": "vip"},
        {"application_key": "app"},
        {"template_key": "", "params": {}, "text": "Order 7 of Mall"},
    ],
    ids=lambda changed: "-".join(f"{name}={value}" for name, value in changed.items() if name != "params") or "params",
)
async def test_whatever_is_said_differently_is_another_request(sqlite_edge: Edge, changed: dict[str, Any]) -> None:
    """Every field counts for the fingerprint: the revision that is asked for, not the one that was chosen."""
    await make(sqlite_edge, intents=["ORDER_PAID"])
    await make(sqlite_edge, "other")
    rules = [routing.RoutingRule(name="vip", steps=[routing.RouteStep()])]
    await sqlite_edge.operator.routing.SetRoutingRules(routing.SetRoutingRulesRequest(rules=rules))
    fields: dict[str, Any] = {"text": None, "template_key": "paid", "params": PARAMS, "request_id": "k"}
    await send(sqlite_edge, letter(**fields))
    assert (await refused(send(sqlite_edge, letter(**{**fields, **changed})))).reason == "REQUEST_ID_REUSED"


async def test_parameters_have_no_order(sqlite_edge: Edge) -> None:
    """The same parameters the other way round are the same request."""
    await make(sqlite_edge)
    first = await send(sqlite_edge, by(params={"order": "7", "shop": "Mall"}, request_id="k"))
    again = await send(sqlite_edge, by(params={"shop": "Mall", "order": "7"}, request_id="k"))
    assert (again.tracking_id, again.replayed) == (first.tracking_id, True)


async def test_a_bad_repeat_is_told_what_is_bad(sqlite_edge: Edge) -> None:
    """Under a key that is taken, a request that could never be valid is INVALID_ARGUMENT still."""
    await send(sqlite_edge, letter(request_id="k"))
    refusal = await refused(send(sqlite_edge, letter(request_id="k", text="x" * 1_601)))
    assert (refusal.reason, refusal.fields) == ("INVALID_FIELD", ("text",))


SAID: dict[str, tuple[dict[str, Any], tuple[str, str, dict[str, str]]]] = {
    "in text": ({}, ("A {{7*7}} %x% 1234", "", {})),
    "in the person's language": (
        {"recipient": Recipient(phone="09120000111", locale="fa-IR")},
        ("فا {{7*7}} %x% 1234", "", {}),
    ),
    "aloud": ({"channel": CHANNEL_VOICE}, ("A {{7*7}} %x% 1, 2, 3, 4", "", {})),
    "by the provider": ({"template_key": "b"}, ("B {{7*7}} %x% 1234", "theirs", {"token": "1234"})),
    "as its step has it": ({"scenario": "step"}, ("B {{7*7}} %x% 1234", "theirs", {"token": "1234"})),
}


async def test_what_is_handed_off(gateway: Gateway) -> None:
    """From the call to the provider account: the words are those of template, language, channel, account and step."""
    stubs = gateway.stubs
    await stubs.providers.ConfigureProvider(ConfigureProviderRequest(type="sandbox"))
    own = kept.Template(
        key="a", text="A %x% %CODE%", variants=[kept.TemplateVariant(locale="fa", text="فا %x% %CODE%")]
    )
    bound = kept.ProviderTemplate(provider="sandbox", template_name="theirs", params={"token": "token"})
    other = kept.Template(key="b", text="B %x% %CODE%", provider_templates=[bound])
    for template in (own, other):
        await stubs.templates.CreateTemplate(kept.CreateTemplateRequest(template=template))
    rule = routing.RoutingRule(name="step", intents=["NONE"], steps=[routing.RouteStep(template_key="b")])
    await stubs.routing.SetRoutingRules(routing.SetRoutingRulesRequest(rules=[rule]))
    params = {"x": "{{7*7}} %x%", "token": "1234"}
    for name, (fields, expected) in SAID.items():
        asked = wire.SendAndWatchRequest(send=by(**{"template_key": "a", "params": params, **fields}))
        answers = [answer async for answer in stubs.notifications.SendAndWatch(asked)]
        outbox = PeekOutboxRequest(tracking_id=answers[0].notification.tracking_id)
        (copy,) = (await stubs.sandbox.PeekOutbox(outbox)).messages
        assert (copy.text, copy.template_name, dict(copy.params)) == expected, name


def test_a_text_is_recognised_as_it_was_before_there_were_templates() -> None:
    """A key that an older release kept is known by this one: the digest of such a request is what it was."""
    message = Message(
        id="m",
        tenant_id="shop",
        client_id="c",
        intent="ORDER_PAID",
        message_class=MessageClass.TRANSACTIONAL,
        state=State.ACCEPTED,
        created_at=1_000_000,
        updated_at=1_000_000,
        expires_at=3_601_000_000,
        channel_wanted=Channel.SMS,
        reference="order 7",
        tags=("vip",),
    )
    content = Content(Person(phone="+989120000111", locale="fa"), "Paid. پرداخت شد", "SHOP")
    digest = "ad5fe27225a4c108ebdcea5325e7e3a3a33e5685de8c1bb3ebcf6c6b89201d81"
    assert digest_of(NewMessage(message, content)) == digest
