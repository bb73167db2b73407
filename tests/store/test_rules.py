"""Rules as rows become the nouns that a plan is made from, and an explanation lies beside its message."""

import json

import pytest

from server.model.clock import DAY, HOUR, SECOND
from server.model.configuration_tables import RoutingRule
from server.model.enums import Channel, DueKind, MessageClass, ReceiptKind, State, Strategy
from server.model.errors import NotFound
from server.model.explanation import DETAILS, Candidate, Explanation, RuleLook, Verdict
from server.model.facts import Postponed, Receipted, Settled
from server.model.outcomes import Accepted, Receipt
from server.model.routing import Match, Rule, Step
from server.model.work import Beside
from server.store.store import Store
from tests.store.letters import TENANTS, change, letter, rows, started

NORTH, SOUTH, _ = TENANTS
SEND = frozenset({DueKind.SEND})
STEP = {
    "channel": "PUSH",
    "providers": ["a", "b"],
    "fallback": True,
    "sender": "s",
    "strategy": "WEIGHTED",
    "weights": {"a": 3},
    "wait_for": "DELIVERED",
    "timeout": 50 * SECOND,
    "application_key": "app",
    "template_key": "short",
}
MATCH = {"country_prefixes": ["98"], "operators": ["MCI"], "message_classes": ["OTP", "BULK"], "tags": ["vip"]}
WHY = Explanation(
    (RuleLook("r", matched=True, why="FOLLOWED"),),
    (
        Candidate(1, Channel.SMS, "first", Verdict.CHOSEN),
        Candidate(2, Channel.EMAIL, "m", Verdict.FALLBACK, "TRIED", DETAILS["TRIED"]),
    ),
    "IR",
    "MCI",
    1,
    "GSM-7",
    "7",
)


async def test_a_rule_is_read_with_all_that_it_says(store: Store) -> None:
    """Match, strategy, weights, what is waited for and how long, template and application."""
    row = RoutingRule(tenant_id=NORTH, name="r", steps=json.dumps([STEP]), match=json.dumps(MATCH))
    await store.configuration.set_rules(NORTH, [row])
    match = Match(("98",), ("MCI",), (MessageClass.OTP, MessageClass.BULK), ("vip",))
    step = Step(
        Channel.PUSH, ("a", "b"), True, "s", Strategy.WEIGHTED, {"a": 3}, State.DELIVERED, 50 * SECOND, "app", "short"
    )
    assert store.configuration.snapshot.rules[NORTH] == (Rule("r", steps=(step,), match=match),)
    assert store.configuration.snapshot.revisions[NORTH] == "1"


async def test_a_rule_of_an_older_release_is_read(store: Store) -> None:
    """A row whose steps say less, and whose match nobody ever wrote, asks for nothing more."""
    await change(
        store,
        "INSERT INTO routing_rule (tenant_id, name, caption, intents, steps, is_active, priority, created_at, "
        "updated_at) VALUES ('north', 'old', '', '[\"order\"]', "
        '\'[{"channel": "SMS", "providers": ["a"], "fallback": false, "sender": ""}]\', true, 3, 1, 1)',
    )
    await store.configuration.refresh()
    (rule,) = store.configuration.snapshot.rules[NORTH]
    assert rule == Rule("old", ("order",), (Step(Channel.SMS, ("a",), fallback=False),), priority=3)


async def test_why_a_message_takes_its_way_is_kept_with_it(store: Store) -> None:
    """As of the last planning, read with its status by its tenant alone, and gone with the message."""
    new = letter()
    id_ = (await store.accept(new)).message.id
    assert (await store.reading.status(NORTH, tracking_id=id_))[2] is None
    (claim,) = await store.claim(MessageClass.TRANSACTIONAL, SEND, 1)
    await store.apply(id_, Postponed(claim.hold, claim.now), Beside(explanation=Explanation(revision="6")))
    assert (await store.reading.status(NORTH, tracking_id=id_))[2] == Explanation(revision="6")
    (claim,) = await store.claim(MessageClass.TRANSACTIONAL, SEND, 1)
    await store.apply(id_, started(claim), Beside(explanation=WHY))
    await store.apply(id_, Settled(claim.hold, 1, Accepted("p-1")))
    await store.apply(id_, Receipted(1, Receipt(ReceiptKind.DELIVERED)))
    case, events, why = await store.reading.status(NORTH, tracking_id=id_)
    assert (case.message.state, len(events), why) == (State.DELIVERED, 4, WHY)
    with pytest.raises(NotFound):
        await store.reading.status(SOUTH, tracking_id=id_)
    for age, left in ((7 * DAY - HOUR, 1), (7 * DAY + HOUR, 0)):
        while await store.prune(case.message.done_at + age):
            pass
        assert len(await rows(store, "SELECT content FROM explanation")) == left


async def test_a_message_is_opened_for_its_tenant(store: Store) -> None:
    """With its content, which is None once it is erased or no key opens it; another tenant finds nothing."""
    new = letter()
    id_ = (await store.accept(new)).message.id
    case, content = await store.reading.opened(NORTH, id_)
    assert (case.message.id, content) == (id_, new.content)
    with pytest.raises(NotFound):
        await store.reading.opened(SOUTH, id_)
    for body in ("x'00'", "x''") if store.engine_name == "sqlite" else ("'\\x00'", "''"):
        await change(store, f"UPDATE message SET body = {body}")
        assert (await store.reading.opened(NORTH, id_))[1] is None
