"""Receipts over HTTP: what is proved moves its message, and nothing else moves anything."""

import asyncio
import json
import re
from urllib.parse import urlsplit

import aiohttp
import pytest

from server import app
from server.model.messages import Follow
from server.sandbox import upstream as sandbox
from tests.cluster import Cluster
from tests.gateway import Gateway, eventually, names_of, outcomes, reason_of, state_of
from tests.hooks.edge import ACCOUNT_SID, PUBLIC_URL, HttpGateway, behind_the_proxy, posts, sent, told
from tests.providers.twilio_upstream import TwilioUpstream, created, sid
from tests.scripted_upstream import Break, Recorded, Say
from tests.store.letters import everything, rows

OTHER_TOKEN = "canary-token-of-another"
STRANGER = "0" * 32


async def test_a_signed_receipt_delivers_its_message(edge: HttpGateway, twilio: TwilioUpstream) -> None:
    """The URL that the provider was given is public, names the attempt, and is answered with 204 once it is kept."""
    tracking_id, name, url = await sent(edge, twilio)
    assert re.fullmatch(rf"{PUBLIC_URL}/receipts/[0-9a-f-]{{36}}/[0-9a-f]{{32}}\?m={tracking_id}&n=1", url)
    assert (await edge.post(url, told(name, "sent"))).status == 204
    assert state_of(await edge.status(tracking_id)) == "SENT"
    assert (await _follow(edge)).pushes
    reply = await edge.post(url, told(name, "delivered"))
    assert (reply.status, reply.body) == (204, b"")
    found = await edge.status(tracking_id)
    assert (state_of(found), found.notification.done) == ("DELIVERED", True)
    for status in ("delivered", "sent", "undelivered"):
        assert (await edge.post(url, told(name, status))).status == 204
    assert await edge.status(tracking_id) == found


async def _follow(gateway: HttpGateway) -> Follow:
    """How what becomes of the only attempt is learned."""
    ((text,),) = await rows(gateway.application.store, "SELECT follow FROM attempt")
    return Follow(*json.loads(text))


async def test_a_receipt_says_why_it_was_not_delivered(edge: HttpGateway, twilio: TwilioUpstream) -> None:
    """The provider's code becomes a reason; a late receipt corrects it."""
    tracking_id, name, url = await sent(edge, twilio)
    await edge.post(url, told(name, "undelivered", ErrorCode="30003"))
    found = await edge.status(tracking_id)
    assert (state_of(found), found.notification.failure.provider_code) == ("UNDELIVERED", "30003")
    assert reason_of(found)
    await edge.post(url, told(name, "delivered"))
    assert state_of(await edge.status(tracking_id)) == "DELIVERED"


async def test_a_receipt_that_outruns_the_answer_is_kept(edge: HttpGateway, twilio: TwilioUpstream) -> None:
    """It comes while the provider's answer is on its way, by the URL and by the id alone: both are delivered."""
    twilio.script(*[lambda request: _slowly(request, twilio)] * 2)
    ids = [await edge.send(), await edge.send()]
    await twilio.wait_for(2)
    for number, request in enumerate(posts(twilio), 1):
        url = request.form["StatusCallback"]
        url = url if number == 1 else url.partition("?")[0]
        assert (await edge.post(url, told(sid("SM", number), "delivered"))).status == 204
    for tracking_id in ids:
        found = await edge.reach(tracking_id, "DELIVERED")
        assert names_of(found)[-1] == "DELIVERED"
    assert await rows(edge.application.store, "SELECT kind FROM receipt_inbox") == []


def _slowly(request: Recorded, twilio: TwilioUpstream) -> Say:
    name = sid("SM", len(twilio.records) + 1)
    twilio.records[name] = {}
    answer = created(name, request.form["To"])
    return Say(answer.status, answer.body, delay_seconds=1.0)


async def test_a_receipt_tells_what_a_lost_answer_would_have(edge: HttpGateway, twilio: TwilioUpstream) -> None:
    """Nobody knows the provider's id of a message whose answer was lost: the URL alone says which one it is."""
    twilio.script(Break.AFTER_REQUEST)
    tracking_id = await edge.send()
    await edge.reach(tracking_id, "UNCONFIRMED")
    url = posts(twilio)[0].form["StatusCallback"]
    assert (await edge.post(url, told(sid("SM", 1), "delivered"))).status == 204
    found = await edge.status(tracking_id)
    assert (state_of(found), outcomes(found)) == ("DELIVERED", [("twilio", "ACCEPTED")])


async def test_what_is_not_signed_changes_nothing(edge: HttpGateway, twilio: TwilioUpstream) -> None:
    """A wrong token, another body, another message's URL, no signature: 403, and every row is as it was."""
    _, name, url = await sent(edge, twilio)
    _, _, other_url = await sent(edge, twilio)
    before = await everything(edge.application.store)
    target, good = behind_the_proxy(url), told(name, "delivered")
    forged = [
        await edge.post(url, good, OTHER_TOKEN),
        await edge.post(url, good, **{"X-Twilio-Signature": ""}),
        await edge.post(url, good, **{"X-Twilio-Signature": "AAAAAAAAAAAAAAAAAAAAAAAAAAA="}),
        await edge.call(target, data=b"MessageSid=x&MessageStatus=delivered"),
        await edge.call(target + "&more=1", data=b""),
    ]
    assert [(reply.status, reply.body) for reply in forged] == [(403, b"")] * len(forged)
    assert other_url != url
    assert await everything(edge.application.store) == before


async def test_the_host_that_a_call_names_does_not_count(edge: HttpGateway, twilio: TwilioUpstream) -> None:
    """A signature for the public URL is good under any Host; one for the Host that was named is not."""
    tracking_id, name, url = await sent(edge, twilio)
    evil = f"https://evil.example.test{behind_the_proxy(url)}"
    forged = await edge.post(evil, told(name, "delivered"), OTHER_TOKEN, Host="evil.example.test")
    assert forged.status == 403
    signed_for_evil = await edge.post(evil, told(name, "delivered"), Host="evil.example.test")
    assert signed_for_evil.status == 403
    reply = await edge.post(url, told(name, "delivered"), Host="evil.example.test")
    assert reply.status == 204
    assert state_of(await edge.status(tracking_id)) == "DELIVERED"


async def test_a_url_of_nobody_is_not_found(edge: HttpGateway, twilio: TwilioUpstream) -> None:
    """A wrong token, an account that is not there, another account's token: all answered alike, however well signed."""
    _, name, url = await sent(edge, twilio)
    await edge.configure_twilio(twilio.base_url, "other")
    uids = [
        uid for (uid,) in await rows(edge.application.store, "SELECT uid FROM provider_account ORDER BY created_at")
    ]
    (_, _, own, token), query = urlsplit(behind_the_proxy(url)).path.split("/"), urlsplit(url).query
    (other,) = set(uids) - {own}
    paths = [(own, STRANGER), (own, token[:-1]), (own, ""), (own, "%00"), (own, "%C3%A9"), (STRANGER, token)]
    paths += [(STRANGER, STRANGER), (other, token), (own, token.upper() + "x")]
    replies = [
        await edge.post(f"{PUBLIC_URL}/receipts/{uid}/{given}?{query}", told(name, "delivered")) for uid, given in paths
    ]
    replies += [await edge.call(path) for path in ("/", "/receipts", f"/receipts/{own}", "/metrics")]
    assert {(reply.status, reply.body) for reply in replies} == {(404, b"")}


async def test_a_url_speaks_for_its_own_account_alone(edge: HttpGateway, twilio: TwilioUpstream) -> None:
    """Who has an account signs a receipt with another one's message in the URL: it is taken, and moves nothing."""
    tracking_id, name, url = await sent(edge, twilio)
    await edge.configure_twilio(twilio.base_url, "other", OTHER_TOKEN)
    await edge.route("other")
    _, _, other_url = await sent(edge, twilio)
    crossed = f"{other_url.partition('?')[0]}?{urlsplit(url).query}"
    assert (await edge.post(crossed, told(name, "delivered"), OTHER_TOKEN)).status == 204
    assert state_of(await edge.status(tracking_id)) == "SENT"


@pytest.mark.parametrize("query", ["", "?m=%00&n=1", "?m=1&n=x", "?n=99999999999999999999", "?m=&m=&n=1", "?%ff=%ff"])
async def test_a_url_that_names_no_attempt_leaves_the_id(
    on_sqlite: HttpGateway, twilio: TwilioUpstream, query: str
) -> None:
    """Whatever the query holds, the receipt counts by the provider's own id."""
    tracking_id, name, url = await sent(on_sqlite, twilio)
    reply = await on_sqlite.post(url.partition("?")[0] + query, told(name, "delivered"))
    assert reply.status == 204
    assert state_of(await on_sqlite.status(tracking_id)) == "DELIVERED"


async def test_receipts_of_what_is_not_known_are_taken(edge: HttpGateway, twilio: TwilioUpstream) -> None:
    """204: the provider must not come again for ever; they wait for their message."""
    _, _, url = await sent(edge, twilio)
    for name in (sid("SM", 77), sid("CA", 77)):
        fields = told(name, "delivered") if name.startswith("SM") else {"CallSid": name, "CallStatus": "completed"}
        assert (await edge.post(url, fields)).status == 204
    kept = "SELECT provider_message_id FROM receipt_inbox ORDER BY provider_message_id"
    assert await rows(edge.application.store, kept) == [(sid("CA", 77),), (sid("SM", 77),)]


async def test_an_account_that_another_process_made_is_known_at_once(postgres_url: str, twilio: TwilioUpstream) -> None:
    """A URL that a process has not heard of yet is looked up once before it is refused."""
    async with HttpGateway(postgres_url) as one:
        other = await app.build(one.settings.model_copy(update={"http_listen": "127.0.0.1:0"}))
        try:
            await other.http.start("127.0.0.1:0")
            await one.configure_twilio(twilio.base_url)
            tracking_id, name, url = await sent(one, twilio)
            one.http = f"127.0.0.1:{other.http.port}"
            assert (await one.post(url, told(name, "delivered"))).status == 204
            assert state_of(await one.status(tracking_id)) == "DELIVERED"
        finally:
            await other.stop()


async def test_without_a_public_url_receipts_are_polled(sqlite_url: str, twilio: TwilioUpstream) -> None:
    """The provider is given no URL, none is served, and nobody waits for a receipt that cannot come."""
    async with HttpGateway(sqlite_url, public_url="") as gateway:
        await gateway.configure_twilio(twilio.base_url)
        tracking_id = await gateway.send()
        await gateway.reach(tracking_id, "SENT")
        assert "StatusCallback" not in posts(twilio)[0].form
        assert not (await _follow(gateway)).pushes
        ((uid,),) = await rows(gateway.application.store, "SELECT uid FROM provider_account")
        assert (await gateway.call(f"/receipts/{uid}/{STRANGER}", data=b"")).status == 404
        assert (await gateway.call("/healthz", method="GET")).status == 200


async def test_an_edge_without_http_serves_none(sqlite_url: str) -> None:
    """Nothing listens where no address is given."""
    async with Gateway(sqlite_url) as gateway:
        assert gateway.application.http.port == 0


async def test_while_the_database_is_away_receipts_come_again(cluster: Cluster, twilio: TwilioUpstream) -> None:
    """503 with a pause until it is back; then the same receipt is taken."""
    database = cluster.create()
    async with HttpGateway(cluster.url(database)) as gateway:
        await gateway.configure_twilio(twilio.base_url)
        tracking_id, name, url = await sent(gateway, twilio)
        cluster.stop()
        try:
            reply = await gateway.post(url, told(name, "delivered"))
            assert (reply.status, reply.headers["Retry-After"]) == (503, "1")
            await eventually(lambda: _unwell(gateway))
        finally:
            cluster.start()
        await eventually(lambda: _taken(gateway, url, name), seconds=30.0)
        assert state_of(await gateway.status(tracking_id)) == "DELIVERED"
    cluster.drop(database)


async def _unwell(gateway: HttpGateway) -> bool:
    return (await gateway.call("/healthz", method="GET")).status == 503


async def _taken(gateway: HttpGateway, url: str, name: str) -> bool:
    return (await gateway.post(url, told(name, "delivered"))).status == 204


async def test_a_whole_upstream_that_posts_by_itself_delivers(database_url: str) -> None:
    """The sandbox upstream signs and posts what becomes of its messages, some before its answer: all are delivered."""
    running = await sandbox.serve("127.0.0.1", 0, settle_seconds=0.02)
    try:
        async with HttpGateway(database_url, public_url="http://HTTP") as gateway:
            await gateway.configure_twilio(f"http://127.0.0.1:{running.port}")
            ids = await gateway.send_all({} for _ in range(50))
            await asyncio.gather(*(gateway.reach(tracking_id, "DELIVERED") for tracking_id in ids))
            found = [await gateway.status(tracking_id) for tracking_id in ids]
            assert {len(one.attempts) for one in found} == {1}
            told_by = await rows(gateway.application.store, "SELECT DISTINCT receipt FROM attempt")
            assert told_by == [("DELIVERED",)]
            account = f"http://127.0.0.1:{running.port}/sandbox/accounts/{ACCOUNT_SID}"
            async with aiohttp.ClientSession() as session, session.get(account) as answer:
                did = await answer.json()
            assert (did["calls"], did["taken"], did["receipts_given_up"]) == (50, 50, 0), "it was polled"
    finally:
        await running.close()
