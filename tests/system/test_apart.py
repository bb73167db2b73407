"""What one account or tenant does holds up no other, and a stop leaves nothing running."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from angarium.v1.access_service_pb2 import UpdateTenantRequest
from angarium.v1.message_pb2 import CHANNEL_SMS
from angarium.v1.routing_service_pb2 import RouteStep, RoutingRule, SetRoutingRulesRequest

from tests.gateway import Gateway, state_of
from tests.scripted_upstream import Recorded, Say, ScriptedUpstream, Silence


@pytest.fixture
async def other() -> AsyncIterator[ScriptedUpstream]:
    """A second upstream."""
    async with asyncio.timeout(60):
        running = await ScriptedUpstream().start()
        yield running
        await running.close()


async def rules(gateway: Gateway, **providers: str) -> None:
    """Texts of each intent go to one account."""
    step = {intent: RouteStep(channel=CHANNEL_SMS, providers=[name]) for intent, name in providers.items()}
    wanted = [RoutingRule(name=intent, intents=[intent], steps=[step[intent]]) for intent in providers]
    await gateway.stubs.routing.SetRoutingRules(SetRoutingRulesRequest(rules=wanted))


async def test_an_account_that_does_not_answer_holds_up_no_others_receipts(
    gateway: Gateway, upstream: ScriptedUpstream, other: ScriptedUpstream
) -> None:
    """While one account's status calls hang, messages of another are told delivered, poll after poll."""

    def hang(request: Recorded) -> Say | Silence:
        answer = upstream.honest(request)
        return Silence() if request.call == "sms/status" else answer

    upstream.always(hang)
    await gateway.configure_kavenegar(upstream.base_url, "hangs", timeout_seconds=60)
    await gateway.configure_kavenegar(other.base_url, "works")
    await rules(gateway, HANGS="hangs", WORKS="works")
    stuck = await gateway.send(intent="HANGS")
    await upstream.wait_for(2, timeout_seconds=20)
    assert upstream.calls("sms/status")
    began = time.monotonic()
    well = await gateway.send_all({"intent": "WORKS"} for _ in range(5))
    for tracking_id in well:
        await gateway.reach(tracking_id, "DELIVERED")
    assert time.monotonic() - began < 7, "polls waited for the account that hangs"
    assert state_of(await gateway.status(stuck)) == "SENT"


async def test_what_waits_for_a_tenant_that_is_switched_off_is_not_sent(
    gateway: Gateway, upstream: ScriptedUpstream
) -> None:
    """A scheduled message stays where it is while its tenant is off, though its time comes; nothing is handed off."""
    await gateway.tenant("off")
    await gateway.configure_kavenegar(upstream.base_url, tenant_id="off")
    soon = int(time.time()) + 2
    tracking_id = await gateway.send(tenant_id="off", schedule_time={"seconds": soon})
    await gateway.stubs.access.UpdateTenant(UpdateTenantRequest(tenant_id="off", is_active=False))
    await asyncio.sleep(max(soon + 1.5 - time.time(), 0))
    assert not upstream.calls("sms/send")
    found = await gateway.application.store.reading.message("off", tracking_id=tracking_id)
    assert (found.message.state, found.attempts) == ("SCHEDULED", ())


async def test_a_stop_leaves_no_task_behind(sqlite_url: str, upstream: ScriptedUpstream) -> None:
    """With a hand-off that outlasts the drain, nothing of the gateway runs on once it has stopped."""
    upstream.always(Silence())
    async with Gateway(sqlite_url, drain_seconds=0.3) as gateway:
        await gateway.configure_kavenegar(upstream.base_url, timeout_seconds=30)
        await gateway.send()
        await upstream.wait_for(1)
    left = {task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith(("deliver", "ask", "Lane"))}
    assert not left
