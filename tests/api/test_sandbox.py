"""SandboxService, by real stubs, on both engines."""

from typing import Any

from angarium.v1 import access_service_pb2 as access, sandbox_service_pb2 as wire
from angarium.v1.message_pb2 import CHANNEL_SMS

from server.model.enums import Channel, DueKind, MessageClass
from server.model.facts import Opening, Settled, Started
from server.model.messages import Follow
from server.model.outcomes import Accepted
from server.model.work import Beside, SandboxCopy
from tests.api.edge import Edge, to


async def hand_off(edge: Edge, phone: str, text: str, **shown: Any) -> str:
    """A message, claimed, begun and settled as a dispatcher would; `shown` is what its copy has beside the text."""
    asked = to(phone=phone)
    asked.text = text
    sent = await edge.operator.notifications.Send(asked)
    store = edge.store
    claim = (await store.claim(MessageClass.TRANSACTIONAL, frozenset({DueKind.SEND}), 1))[0]
    account = store.configuration.snapshot.accounts["default"][0]
    opening = Opening(
        step=1,
        channel=Channel.SMS,
        account=account.name,
        account_uid=account.uid,
        destination=0,
        provider_key=7,
        deadline=claim.now + 8_000_000,
        follow=Follow(),
    )
    await store.apply(sent.tracking_id, Started(claim.hold, (opening,)))
    assert claim.content is not None
    copy = SandboxCopy(1, Channel.SMS, account.name, claim.content.recipient.phone, "SHOP", claim.content.text, **shown)
    await store.apply(sent.tracking_id, Settled(claim.hold, 1, Accepted("p-1")), Beside(copy))
    return sent.tracking_id


async def test_the_outbox_shows_what_was_said(edge: Edge) -> None:
    """Text and address of each hand-off, the newest first, by message and by number, page by page."""
    sent = [await hand_off(edge, f"0912000011{n}", f"Code {n}") for n in range(3)]
    whole = await edge.operator.sandbox.PeekOutbox(wire.PeekOutboxRequest())
    assert [(m.tracking_id, m.text) for m in whole.messages] == [(sent[n], f"Code {n}") for n in (2, 1, 0)]
    first = whole.messages[0]
    assert (first.recipient, first.sender, first.channel, first.attempt) == (
        "+989120000112",
        "SHOP",
        CHANNEL_SMS,
        1,
    )
    by_phone = await edge.operator.sandbox.PeekOutbox(wire.PeekOutboxRequest(phone="0912 000 0111"))
    by_id = await edge.operator.sandbox.PeekOutbox(wire.PeekOutboxRequest(tracking_id=sent[1]))
    assert [m.text for m in by_phone.messages] == [m.text for m in by_id.messages] == ["Code 1"]
    page = await edge.operator.sandbox.PeekOutbox(wire.PeekOutboxRequest(page_size=2))
    rest = await edge.operator.sandbox.PeekOutbox(wire.PeekOutboxRequest(page_size=2, page_token=page.next_page_token))
    assert [m.text for m in (*page.messages, *rest.messages)] == ["Code 2", "Code 1", "Code 0"]
    assert not rest.next_page_token


async def test_the_outbox_shows_by_which_template_it_was_said(edge: Edge) -> None:
    """The subject, the provider's own template and its parameters in the provider's words; empty for mere text."""
    await hand_off(edge, "09120000111", "Code 1", subject="Login", template="login", params={"token": "1"})
    await hand_off(edge, "09120000111", "Code 2")
    plain, templated = (await edge.operator.sandbox.PeekOutbox(wire.PeekOutboxRequest())).messages
    assert (templated.subject, templated.template_name, dict(templated.params)) == ("Login", "login", {"token": "1"})
    assert (templated.text, plain.subject, plain.template_name, dict(plain.params)) == ("Code 1", "", "", {})


async def test_copies_that_do_not_open_end_no_list(edge: Edge) -> None:
    """Behind copies that cannot be opened any more the list goes on, page by page."""
    sent = [await hand_off(edge, "09120000111", f"Code {n}") for n in range(5)]
    lost = ", ".join(f"'{tracking_id}'" for tracking_id in sent[1:4])
    query = f"UPDATE sandbox_message SET attempt = 9 WHERE message_id IN ({lost})"
    await edge.store._database.write(lambda c: c.exec_driver_sql(query))
    asked, found = wire.PeekOutboxRequest(page_size=1), []
    for _ in range(2):
        page = await edge.operator.sandbox.PeekOutbox(asked)
        found += [message.text for message in page.messages]
        asked.page_token = page.next_page_token
    assert (found, asked.page_token) == (["Code 4", "Code 0"], "")


async def test_a_live_tenant_has_no_outbox(edge: Edge) -> None:
    """Once a tenant is LIVE nothing can be read back, not even what it sent before."""
    await hand_off(edge, "09120000111", "Code 1")
    await edge.operator.access.UpdateTenant(access.UpdateTenantRequest(mode=access.Tenant.MODE_LIVE))
    assert not (await edge.operator.sandbox.PeekOutbox(wire.PeekOutboxRequest())).messages
