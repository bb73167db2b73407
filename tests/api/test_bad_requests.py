"""What a caller gets for a request that does not fit what there is."""

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from angarium.v1 import (
    access_service_pb2 as access,
    notification_service_pb2 as notifications,
    provider_service_pb2 as providers,
    routing_service_pb2 as routing,
)
from angarium.v1.message_pb2 import CHANNEL_EMAIL, CHANNEL_SMS, NotificationFilter, Recipient
from grpc import StatusCode

from tests.api.edge import SECONDS, UNKNOWN, Edge, letter, refused, to


async def test_a_country_that_is_not_allowed(edge: Edge) -> None:
    """Row 27: FAILED_PRECONDITION with the country; an e-mail goes out all the same."""
    await edge.tenant("mall", allowed_countries=["IR"])
    inside = await edge.key("send", tenant_id="mall")
    refusal = await refused(inside.notifications.Send(to(phone="+4915123456789")))
    assert (refusal.code, refusal.reason, refusal.told) == (
        StatusCode.FAILED_PRECONDITION,
        "COUNTRY_NOT_ALLOWED",
        {"country": "DE"},
    )
    both = Recipient(phone="+4915123456789", email="a@example.com")
    await inside.notifications.Send(letter(recipient=both, channel=CHANNEL_EMAIL))
    await inside.notifications.Send(to(phone="09120000111"))


async def test_no_way_out(edge: Edge) -> None:
    """Row 28: no account, or a rule that names none that is there, is NO_ROUTE."""
    switch_off = providers.ConfigureProviderRequest(name="sandbox", is_active=False)
    rule = routing.RoutingRule(name="r", intents=["LOST"], steps=[routing.RouteStep(providers=["nobody"])])
    await edge.operator.routing.SetRoutingRules(routing.SetRoutingRulesRequest(rules=[rule]))
    refusals = [await refused(edge.operator.notifications.Send(letter(intent="LOST")))]
    await edge.operator.providers.ConfigureProvider(switch_off)
    refusals.append(await refused(edge.operator.notifications.Send(letter())))
    assert [(r.code, r.reason) for r in refusals] == [(StatusCode.FAILED_PRECONDITION, "NO_ROUTE")] * 2
    assert [r.told for r in refusals] == [
        {"intent": "LOST", "reasons": "nobody:UNKNOWN"},
        {"intent": "ORDER_PAID", "reasons": "sandbox:INACTIVE"},
    ]


@pytest.mark.parametrize(
    "asked",
    [to(user_id="u-1"), letter(recipient=Recipient(email="a@example.com"), channel=CHANNEL_SMS)],
    ids=["a user id alone", "no address for the only channel"],
)
async def test_nobody_to_reach(sqlite_edge: Edge, asked: notifications.SendRequest) -> None:
    """A user id alone, or no address for the only channel, is RECIPIENT_UNRESOLVED."""
    refusal = await refused(sqlite_edge.operator.notifications.Send(asked))
    assert (refusal.code, refusal.reason) == (StatusCode.FAILED_PRECONDITION, "RECIPIENT_UNRESOLVED")


async def test_a_sender_that_no_account_may_use(sqlite_edge: Edge) -> None:
    """Row 32: where every account of the route has a line of its own, another is SENDER_NOT_ALLOWED."""
    operator = sqlite_edge.operator
    await operator.providers.ConfigureProvider(
        providers.ConfigureProviderRequest(
            type="kavenegar", settings={"sender": "10004346"}, secrets={"api_key": "0123456789"}
        )
    )
    await operator.access.UpdateTenant(access.UpdateTenantRequest(mode=access.Tenant.MODE_LIVE))
    rule = routing.RoutingRule(name="r", steps=[routing.RouteStep(providers=["kavenegar"])])
    await operator.routing.SetRoutingRules(routing.SetRoutingRulesRequest(rules=[rule]))
    refusal = await refused(operator.notifications.Send(letter(sender="2000500666")))
    assert (refusal.code, refusal.reason, refusal.told) == (
        StatusCode.FAILED_PRECONDITION,
        "SENDER_NOT_ALLOWED",
        {"sender": "2000500666"},
    )
    assert (await operator.notifications.Send(letter(sender="10004346"))).tracking_id


async def test_a_key_for_another_request(edge: Edge) -> None:
    """Row 41: ALREADY_EXISTS with the first message; row 42: other clients and tenants have keys of their own."""
    await edge.tenant("mall")
    first = await edge.operator.notifications.Send(letter(request_id="k"))
    again = await edge.operator.notifications.Send(letter(request_id="k"))
    assert (again.tracking_id, again.replayed, first.replayed) == (first.tracking_id, True, False)
    refusal = await refused(edge.operator.notifications.Send(letter(request_id="k", text="Other.")))
    assert (refusal.code, refusal.reason, refusal.told) == (
        StatusCode.ALREADY_EXISTS,
        "REQUEST_ID_REUSED",
        {"tracking_id": first.tracking_id},
    )
    other_client, other_tenant = await edge.key("send"), await edge.key("send", tenant_id="mall")
    for caller in (other_client, other_tenant):
        assert (await caller.notifications.Send(letter(request_id="k", text="Other."))).tracking_id != first.tracking_id


async def test_cancel_what_is_over(edge: Edge) -> None:
    """Rows 55 and 56: canceling again is OK; the first stop leaves nothing behind that could have arrived."""
    sent = await edge.operator.notifications.Send(letter())
    cancel = notifications.CancelRequest(tracking_id=sent.tracking_id)
    first, second = [await edge.operator.notifications.Cancel(cancel) for _ in range(2)]
    assert first == second
    assert (first.notification.state, first.notification.done, first.handed_off) == (9, True, False)


PAGES: dict[str, tuple[Callable[[Edge], Any], str, tuple[str, ...]]] = {
    "negative size": (
        lambda e: e.operator.notifications.ListNotifications(notifications.ListNotificationsRequest(page_size=-1)),
        "INVALID_FIELD",
        ("page_size",),
    ),
    "forged token": (
        lambda e: e.operator.providers.ListProviders(providers.ListProvidersRequest(page_token="forged")),
        "PAGE_TOKEN_INVALID",
        (),
    ),
    "forged token of tenants": (
        lambda e: e.operator.access.ListTenants(access.ListTenantsRequest(page_token="cGFnZQ")),
        "PAGE_TOKEN_INVALID",
        (),
    ),
    "unknown order": (
        lambda e: e.operator.providers.ListProviders(providers.ListProvidersRequest(order_by="secrets")),
        "INVALID_FIELD",
        ("order_by",),
    ),
    "forged cursor": (
        lambda e: e.operator.notifications.WatchStatus(
            notifications.WatchStatusRequest(filter=NotificationFilter(), cursor="forged")
        ),
        "CURSOR_INVALID",
        (),
    ),
    "neither message nor filter": (
        lambda e: e.operator.notifications.WatchStatus(notifications.WatchStatusRequest()),
        "INVALID_FIELD",
        ("tracking_id", "filter"),
    ),
    "neither id nor key": (
        lambda e: e.operator.notifications.GetStatus(notifications.GetStatusRequest()),
        "INVALID_FIELD",
        ("tracking_id", "request_id"),
    ),
    "unknown state": (
        lambda e: e.operator.notifications.ListNotifications(
            notifications.ListNotificationsRequest(filter=NotificationFilter(states=[UNKNOWN]))
        ),
        "INVALID_FIELD",
        ("filter.states",),
    ),
}


@pytest.mark.parametrize("row", PAGES)
async def test_pages_and_cursors(sqlite_edge: Edge, row: str) -> None:
    """Rows 57 and 58: what the server did not make, and what no list has, is INVALID_ARGUMENT."""
    made, reason, fields = PAGES[row]
    refusal = await refused(made(sqlite_edge))
    assert (refusal.code, refusal.reason, refusal.fields) == (StatusCode.INVALID_ARGUMENT, reason, fields)


async def test_a_cursor_of_another_filter_tenant_or_message(edge: Edge) -> None:
    """Row 58: a cursor that the server made for something else is CURSOR_INVALID."""
    await edge.tenant("mall")
    listed = notifications.ListNotificationsRequest(filter=NotificationFilter(intents=["ORDER_PAID"]))
    cursor = (await edge.operator.notifications.ListNotifications(listed)).cursor
    first, second = [await edge.operator.notifications.Send(letter()) for _ in range(2)]
    asked = (
        notifications.WatchStatusRequest(filter=NotificationFilter(), cursor=cursor),
        notifications.WatchStatusRequest(tenant_id="mall", filter=listed.filter, cursor=cursor),
        notifications.WatchStatusRequest(tracking_id=second.tracking_id, cursor=first.cursor),
        notifications.WatchStatusRequest(tracking_id=second.tracking_id, cursor=cursor),
    )
    for request in asked:
        refusal = await refused(edge.operator.notifications.WatchStatus(request))
        assert (refusal.code, refusal.reason) == (StatusCode.INVALID_ARGUMENT, "CURSOR_INVALID")


async def test_too_many_streams(sqlite_edge: Edge) -> None:
    """Row 60: the 65th stream of a connection is TOO_MANY_STREAMS with the limit; one that ends makes room."""
    watch = notifications.WatchStatusRequest(filter=NotificationFilter())
    streams = [sqlite_edge.operator.notifications.WatchStatus(watch) for _ in range(64)]
    for stream in streams:
        await asyncio.wait_for(stream.read(), SECONDS)
    refusal = await refused(sqlite_edge.operator.notifications.WatchStatus(watch))
    assert (refusal.code, refusal.reason) == (StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_STREAMS")
    assert (refusal.told, refusal.pushback) == ({"limit": "64"}, "5000")
    streams.pop().cancel()
    again = await opened(sqlite_edge, watch)
    for stream in (*streams, again):
        stream.cancel()


async def opened(edge: Edge, watch: notifications.WatchStatusRequest) -> Any:
    """A stream that has begun; tries until the one that left has been noticed."""
    async with asyncio.timeout(SECONDS):
        while True:
            stream = edge.operator.notifications.WatchStatus(watch)
            try:
                await stream.read()
            except grpc.aio.AioRpcError:
                await asyncio.sleep(0.02)
            else:
                return stream
