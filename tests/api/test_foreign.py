"""What is another tenant's is not there for anybody: nothing is told of it, and nothing becomes of it."""

from angarium.v1 import access_service_pb2 as access, notification_service_pb2 as wire
from angarium.v1.message_pb2 import NotificationFilter
from angarium.v1.sandbox_service_pb2 import PeekOutboxRequest
from grpc import StatusCode

from tests.api.edge import Edge, letter, refused
from tests.store.letters import everything, rows


async def test_what_a_tenant_asks_of_anothers_message_leaves_it_as_it_was(edge: Edge) -> None:
    """By any RPC that takes the id of a message: NOT_FOUND or nothing, and not one row is another after it."""
    await edge.tenant("mall")
    stranger = await edge.key("send", "read", "sandbox", tenant_id="mall")
    theirs = (await edge.operator.notifications.Send(letter(request_id="mine"))).tracking_id
    before = await everything(edge.store)
    for call in (
        stranger.notifications.Cancel(wire.CancelRequest(tracking_id=theirs)),
        stranger.notifications.GetStatus(wire.GetStatusRequest(tracking_id=theirs)),
        stranger.notifications.GetStatus(wire.GetStatusRequest(request_id="mine")),
        stranger.notifications.WatchStatus(wire.WatchStatusRequest(tracking_id=theirs)),
    ):
        refusal = await refused(call)
        assert (refusal.code, refusal.told) == (StatusCode.NOT_FOUND, {"resource": "notification"})
    named = wire.ListNotificationsRequest(filter=NotificationFilter(tracking_ids=[theirs]))
    assert not (await stranger.notifications.ListNotifications(named)).notifications
    assert not (await stranger.sandbox.PeekOutbox(PeekOutboxRequest(tracking_id=theirs))).messages
    assert await everything(edge.store) == before


async def test_a_tenant_finds_and_revokes_no_key_of_another(edge: Edge) -> None:
    """A key is listed and revoked within its tenant; for others it is NOT_FOUND, and works on."""
    await edge.tenant("mall")
    stranger = await edge.key("access", tenant_id="mall")
    whole = "SELECT * FROM api_key ORDER BY key_id"
    ids = {key_id for (key_id,) in await rows(edge.store, "SELECT key_id FROM api_key WHERE tenant_id <> 'mall'")}
    before = await rows(edge.store, whole)
    for key_id in ids:
        refusal = await refused(stranger.access.RevokeApiKey(access.RevokeApiKeyRequest(key_id=key_id)))
        assert (refusal.code, refusal.told) == (StatusCode.NOT_FOUND, {"resource": "api_key"})
    assert ids
    assert await rows(edge.store, whole) == before
    listed = (await stranger.access.ListApiKeys(access.ListApiKeysRequest())).api_keys
    assert listed
    assert not {key.key_id for key in listed} & ids
