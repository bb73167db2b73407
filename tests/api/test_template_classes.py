"""Which class a message has whose caller names none: that of its template, and with it how long it may live."""

from typing import Any

import pytest
from angarium.v1 import notification_service_pb2 as wire, routing_service_pb2 as routing
from angarium.v1.message_pb2 import (
    MESSAGE_CLASS_BULK,
    MESSAGE_CLASS_OTP,
    MESSAGE_CLASS_TRANSACTIONAL,
    MESSAGE_CLASS_UNSPECIFIED,
    Recipient,
)
from google.protobuf.duration_pb2 import Duration
from grpc import StatusCode

from server.model.enums import DueKind, MessageClass
from tests.api.edge import Edge, letter, refused
from tests.api.test_templated_sends import by, make, send, told, update

DAYS = 24 * 3_600
BY_INTENT: dict[str, Any] = {"intents": ["ORDER_PAID"]}
CLASSES = [
    (MESSAGE_CLASS_OTP, MESSAGE_CLASS_OTP, 300),
    (MESSAGE_CLASS_BULK, MESSAGE_CLASS_BULK, DAYS),
    (MESSAGE_CLASS_UNSPECIFIED, MESSAGE_CLASS_TRANSACTIONAL, 3_600),
]


def span_of(sent: wire.SendResponse) -> int:
    """How long the message lives, in seconds."""
    return sent.expire_time.seconds - sent.create_time.seconds


@pytest.mark.parametrize(("given", "expected", "seconds"), CLASSES)
@pytest.mark.parametrize("key", ["paid", ""])
async def test_a_class_that_is_not_given(sqlite_edge: Edge, key: str, given: Any, expected: Any, seconds: int) -> None:
    """It is the template's where that has one, be it named or chosen by the intent, and the life is that class's."""
    await make(sqlite_edge, message_class=given, **BY_INTENT)
    sent = await send(sqlite_edge, by(key))
    shown = await told(sqlite_edge, sent.tracking_id)
    assert (shown.template_key, shown.message_class, span_of(sent)) == ("paid", expected, seconds)


async def test_a_class_by_its_template_has_its_lane(edge: Edge) -> None:
    """A code that is sent by template is claimed among the codes, and no text takes its class from a template."""
    await make(edge, message_class=MESSAGE_CLASS_OTP, **BY_INTENT)
    code, text = await send(edge, by()), await send(edge, letter())
    for message_class, sent in ((MessageClass.OTP, code), (MessageClass.TRANSACTIONAL, text)):
        claims = await edge.store.claim(message_class, frozenset({DueKind.SEND}), 10)
        assert [claim.case.message.id for claim in claims] == [sent.tracking_id]


async def test_a_class_is_that_of_the_revision(edge: Edge) -> None:
    """A message has the class that its template had at the revision that says it."""
    await make(edge, message_class=MESSAGE_CLASS_OTP)
    await update(edge, message_class=MESSAGE_CLASS_BULK)
    for revision, expected in ((1, MESSAGE_CLASS_OTP), (2, MESSAGE_CLASS_BULK), (0, MESSAGE_CLASS_BULK)):
        sent = await send(edge, by(template_revision=revision))
        assert (await told(edge, sent.tracking_id)).message_class == expected


@pytest.mark.parametrize("key", ["paid", ""])
async def test_a_ttl_is_judged_by_the_class_that_was_found(sqlite_edge: Edge, key: str) -> None:
    """What an order may have is too long for a code; what is too long for an order, one of many may have."""
    await make(sqlite_edge, message_class=MESSAGE_CLASS_OTP, **BY_INTENT)
    refusal = await refused(send(sqlite_edge, by(key, ttl=Duration(seconds=601))))
    assert (refusal.fields, refusal.descriptions) == (("ttl",), ("Must be 30–600 s for the class OTP.",))
    assert span_of(await send(sqlite_edge, by(key, ttl=Duration(seconds=600)))) == 600
    await update(sqlite_edge, message_class=MESSAGE_CLASS_BULK)
    assert span_of(await send(sqlite_edge, by(key, ttl=Duration(seconds=7 * DAYS)))) == 7 * DAYS


async def test_a_template_for_another_class_than_was_asked_for(edge: Edge) -> None:
    """Named it is refused as such; chosen by the intent it is passed over, and it is not said that none serves it."""
    await make(edge, message_class=MESSAGE_CLASS_OTP, **BY_INTENT)
    named = await refused(send(edge, by(message_class=MESSAGE_CLASS_BULK)))
    assert (named.code, named.reason) == (StatusCode.FAILED_PRECONDITION, "TEMPLATE_INACTIVE")
    unnamed = await refused(send(edge, by("", message_class=MESSAGE_CLASS_BULK)))
    assert (unnamed.code, unnamed.fields) == (StatusCode.INVALID_ARGUMENT, ("text",))
    assert "no template for the class BULK serves the intent 'ORDER_PAID'" in unnamed.descriptions[0]
    none = await refused(send(edge, by("", intent="NONE")))
    assert "no template serves the intent 'NONE'" in none.descriptions[0]


@pytest.mark.parametrize("key", ["paid", ""])
@pytest.mark.parametrize("ttl", [None, Duration(seconds=7 * DAYS)])
async def test_a_repeat_is_known_though_the_class_has_changed(edge: Edge, key: str, ttl: Duration | None) -> None:
    """What the template gave is no part of what was asked: a class, the life of that class, what it allows of a ttl."""
    await make(edge, message_class=MESSAGE_CLASS_BULK, **BY_INTENT)
    asked = by(key, request_id="k", ttl=ttl)
    first = await send(edge, asked)
    changes: list[dict[str, Any]] = [
        {"message_class": MESSAGE_CLASS_OTP},
        {"clear": ["message_class"]},
        {"is_active": False},
    ]
    for change in changes:
        await update(edge, **change)
        again = await send(edge, asked)
        assert (again.tracking_id, again.replayed) == (first.tracking_id, True)
        assert span_of(again) == (7 * DAYS if ttl else DAYS)
    bad = await refused(send(edge, by(key, request_id="k", ttl=Duration(seconds=7 * DAYS + 1))))
    assert "ttl" in bad.fields
    other = await refused(send(edge, by(key, request_id="k", ttl=Duration(seconds=2 * DAYS))))
    assert (other.code, other.reason) == (StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")


async def test_an_unset_class_and_transactional_are_one_request(edge: Edge) -> None:
    """As they are for a text, and were before templates had classes; any other class is another request."""
    await make(edge, message_class=MESSAGE_CLASS_OTP)
    first = await send(edge, by(request_id="k"))
    again = await send(edge, by(request_id="k", message_class=MESSAGE_CLASS_TRANSACTIONAL))
    assert (again.tracking_id, again.replayed) == (first.tracking_id, True)
    other = await refused(send(edge, by(request_id="k", message_class=MESSAGE_CLASS_OTP)))
    assert other.reason == "REQUEST_ID_REUSED"


async def test_a_route_is_explained_by_the_templates_class(edge: Edge) -> None:
    """As a Send would take it: by the class of the template, named or chosen, unless a class is asked for."""
    rule = routing.RoutingRule(
        name="codes",
        match=routing.RouteMatch(message_classes=[MESSAGE_CLASS_OTP]),
        steps=[routing.RouteStep(providers=["sandbox"])],
    )
    await edge.operator.routing.SetRoutingRules(routing.SetRoutingRulesRequest(rules=[rule]))
    await make(edge, message_class=MESSAGE_CLASS_OTP, **BY_INTENT)
    plain: dict[str, Any] = {"message_class": MESSAGE_CLASS_TRANSACTIONAL}
    for fields, why in (
        ({"template_key": "paid"}, "FOLLOWED"),
        ({}, "FOLLOWED"),
        ({"text": "x"}, "MESSAGE_CLASS"),
        ({"template_key": "paid", **plain}, "MESSAGE_CLASS"),
        (plain, "MESSAGE_CLASS"),
    ):
        asked: dict[str, Any] = {"intent": "ORDER_PAID", "recipient": Recipient(phone="09120000111"), **fields}
        answer = await edge.operator.routing.ExplainRoute(routing.ExplainRouteRequest(**asked))
        assert answer.explanation.rules[0].why == why, fields
    sent = await send(edge, by())
    assert (await told(edge, sent.tracking_id)).rule == "codes"
