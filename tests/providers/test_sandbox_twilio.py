"""The sandbox upstream as Twilio: what every magic recipient comes to, by text and by call, and the receipts of it."""

import asyncio
import re
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from server.model.enums import Channel
from server.model.magic import Fate, magic_destination
from server.sandbox.receipts import Callback, Receipt, Receipts, Tally, signature
from server.sandbox.upstream import Running, serve
from tests.providers.sandbox_account import (
    BOUND_SECONDS,
    FORMS,
    FROM,
    KEY_SID,
    SERVICE,
    SID,
    TOKEN,
    Receiver,
    call_to,
    client_of,
    path,
    text_to,
)

SLOW_SECONDS = 0.3
EVERY_EVENT = ["initiated", "ringing", "answered", "completed"]


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    taking = await Receiver().start()
    yield taking
    await taking.close()


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    started = await serve("127.0.0.1", 0, slow_seconds=SLOW_SECONDS, settle_seconds=0.0)
    yield started
    await started.close()


@pytest.fixture
async def client(running: Running) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(running) as opened:
        yield opened


async def test_what_a_message_is_answered_with(client: httpx.AsyncClient) -> None:
    """201 and every documented field; all strings but the error's code."""
    answer = await client.post(path("Messages"), data=text_to())
    shown = answer.json()
    assert answer.status_code == 201
    assert re.fullmatch(r"SM[0-9a-f]{32}", shown["sid"])
    uri = f"/2010-04-01/Accounts/{SID}/Messages/{shown['sid']}"
    dated = {name: shown.pop(name) for name in ("date_created", "date_updated")}
    assert all(re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d \+0000", date) for date in dated.values())
    assert shown == {
        "sid": shown["sid"],
        "account_sid": SID,
        "api_version": "2010-04-01",
        "body": "canary سلام",
        "date_sent": None,
        "direction": "outbound-api",
        "error_code": None,
        "error_message": None,
        "from": FROM,
        "messaging_service_sid": None,
        "num_media": "0",
        "num_segments": "1",
        "price": None,
        "price_unit": "USD",
        "status": "queued",
        "subresource_uris": {"media": f"{uri}/Media.json"},
        "to": "+989120000111",
        "uri": f"{uri}.json",
    }


async def test_a_messaging_service_picks_the_sender(client: httpx.AsyncClient, receiver: Receiver) -> None:
    """`accepted` without a sender at first; the receipts name the sender and the service."""
    form = text_to(MessagingServiceSid=SERVICE, StatusCallback=receiver.url())
    del form["From"]
    shown = (await client.post(path("Messages"), data=form)).json()
    assert (shown["status"], shown["from"], shown["messaging_service_sid"]) == ("accepted", None, SERVICE)
    await receiver.until(lambda: len(receiver.posts) == 2)
    assert (receiver.posts[0].get("From"), receiver.posts[0].get("MessagingServiceSid")) == (FROM, SERVICE)


@pytest.mark.parametrize(
    ("fate", "posted", "end", "code"),
    [
        (Fate.DELIVERED, ["sent", "delivered"], "delivered", None),
        (Fate.UNDELIVERED, ["sent", "undelivered"], "undelivered", 30003),
        (Fate.NO_RECEIPT, ["sent"], "sent", None),
        (Fate.OUT_OF_ORDER, ["delivered", "sent"], "delivered", None),
        (Fate.SLOW, ["sent", "delivered"], "delivered", None),
    ],
)
async def test_a_message_that_is_taken(
    client: httpx.AsyncClient, receiver: Receiver, fate: Fate, posted: list[str], end: str, code: int | None
) -> None:
    """Its receipts come in the order of its fate, whole and signed; a fetch tells its end."""
    begun = time.monotonic()
    answer = await client.post(path("Messages"), data=text_to(fate, StatusCallback=receiver.url()))
    sid = answer.json()["sid"]
    assert (time.monotonic() - begun >= SLOW_SECONDS) == (fate == Fate.SLOW)
    await receiver.until(lambda: len(receiver.of(sid)) >= len(posted))
    await _settled(client, receiver)
    assert [post.status for post in receiver.of(sid)] == posted
    for post in receiver.of(sid):
        assert dict(post.fields) == {
            "MessageSid": sid,
            "SmsSid": sid,
            "MessageStatus": post.status,
            "SmsStatus": post.status,
            "To": magic_destination(fate, Channel.SMS),
            "From": FROM,
            "AccountSid": SID,
            "ApiVersion": "2010-04-01",
        } | ({"ErrorCode": str(code)} if post.status == "undelivered" else {})
        assert post.headers["x-twilio-signature"] == signature(receiver.url(), post.fields, TOKEN)
    shown = (await client.get(path(f"Messages/{sid}"))).json()
    assert (shown["status"], shown["error_code"]) == (end, code)


@pytest.mark.parametrize(
    ("fate", "posted", "end"),
    [
        (Fate.DELIVERED, ["initiated", "ringing", "in-progress", "completed"], "completed"),
        (Fate.UNDELIVERED, ["initiated", "ringing", "no-answer"], "no-answer"),
        (Fate.NO_RECEIPT, ["initiated", "ringing", "in-progress"], "in-progress"),
        (Fate.OUT_OF_ORDER, ["completed", "initiated", "ringing", "in-progress"], "completed"),
        (Fate.SLOW, ["initiated", "ringing", "in-progress", "completed"], "completed"),
    ],
)
async def test_a_call_that_is_taken(
    client: httpx.AsyncClient, receiver: Receiver, fate: Fate, posted: list[str], end: str
) -> None:
    """The same for a call that asks for every event; numbered as it happened, its duration with its end."""
    form = call_to(fate, StatusCallback=receiver.url(), StatusCallbackEvent=EVERY_EVENT)
    answer = await client.post(path("Calls"), data=form)
    sid = answer.json()["sid"]
    assert (answer.status_code, answer.json()["status"]) == (201, "queued")
    assert re.fullmatch(r"CA[0-9a-f]{32}", sid)
    await receiver.until(lambda: len(receiver.of(sid)) >= len(posted))
    await _settled(client, receiver)
    posts = receiver.of(sid)
    assert [post.status for post in posts] == posted
    numbers = [int(post.get("SequenceNumber")) for post in posts]
    assert numbers == ([3, 0, 1, 2] if fate == Fate.OUT_OF_ORDER else list(range(len(posted))))
    for post in posts:
        assert post.headers["x-twilio-signature"] == signature(receiver.url(), post.fields, TOKEN)
        assert (post.get("CallDuration") != "") == (post.status in ("completed", "no-answer"))
        assert post.get("Timestamp").endswith("+0000")
        assert (post.get("Direction"), post.get("AccountSid")) == ("outbound-api", SID)
    assert (await client.get(path(f"Calls/{sid}"))).json()["status"] == end


async def _settled(client: httpx.AsyncClient, receiver: Receiver) -> None:
    """Waits until a message that was made after all others has posted its end."""
    sid = (await client.post(path("Messages"), data=text_to(StatusCallback=receiver.url()))).json()["sid"]
    await receiver.until(lambda: [post.status for post in receiver.of(sid)] == ["sent", "delivered"])


async def test_a_call_posts_its_end_alone_unless_told(client: httpx.AsyncClient, receiver: Receiver) -> None:
    """Without StatusCallbackEvent there is one receipt."""
    sid = (await client.post(path("Calls"), data=call_to(StatusCallback=receiver.url()))).json()["sid"]
    await receiver.until(lambda: bool(receiver.of(sid)))
    await _settled(client, receiver)
    assert [(post.status, post.get("SequenceNumber")) for post in receiver.of(sid)] == [("completed", "0")]


@pytest.mark.parametrize(
    ("resource", "fate", "status", "code"),
    [
        ("Messages", Fate.REJECTED, 400, 21211),
        ("Messages", Fate.RATE_LIMITED, 429, 20429),
        ("Messages", Fate.UNAVAILABLE, 503, 20503),
        ("Calls", Fate.REJECTED, 400, 21217),
        ("Calls", Fate.RATE_LIMITED, 429, 20429),
        ("Calls", Fate.UNAVAILABLE, 503, 20503),
    ],
)
async def test_refusals(
    client: httpx.AsyncClient, receiver: Receiver, resource: str, fate: Fate, status: int, code: int
) -> None:
    """An error in the classic shape; nothing is taken and nothing is posted."""
    answer = await client.post(path(resource), data=FORMS[resource](fate, StatusCallback=receiver.url()))
    body = answer.json()
    assert (answer.status_code, body["code"], body["status"]) == (status, code, status)
    assert set(body) == {"code", "message", "more_info", "status"}
    assert body["more_info"].endswith(f"/{code}")
    assert ("retry-after" in answer.headers) == (fate == Fate.UNAVAILABLE)
    assert (await client.get(path(resource))).json()[resource.lower()] == []
    await _settled(client, receiver)
    assert len(receiver.posts) == 2


@pytest.mark.parametrize("resource", ["Messages", "Calls"])
async def test_a_lost_answer_is_found_in_the_list(client: httpx.AsyncClient, receiver: Receiver, resource: str) -> None:
    """The connection ends without an answer, and the message is there; a repeat makes a second one."""
    form = FORMS[resource](Fate.ANSWER_LOST, StatusCallback=receiver.url())
    for count in (1, 2):
        with pytest.raises(httpx.TransportError):
            await client.post(path(resource), data=form)
        found = await client.get(path(resource), params={"To": form["To"]})
        assert len(found.json()[resource.lower()]) == count
    ends = ["delivered"] * 2 if resource == "Messages" else ["completed"] * 2
    await receiver.until(lambda: [post.status for post in receiver.posts if post.status != "sent"] == ends)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (
            [
                ("CallSid", "CA1234567890ABCDE"),
                ("Digits", "1234"),
                ("From", "+14158675309"),
                ("To", "+18005551212"),
                ("Caller", "+14158675309"),
            ],
            "RSOYDt4T1cUTdK1PDd93/VVr8B8=",
        ),
        (
            [("Sid", "CA123"), ("SidAccount", "AC123"), ("Digits", "5678"), ("Digits", "1234"), ("Digits", "1234")],
            "IK+Dwps556ElfBT0I3Rgjkr1wJU=",
        ),
    ],
)
def test_signatures_are_twilios(fields: list[tuple[str, str]], expected: str) -> None:
    """Two vectors of the official SDK's tests."""
    assert signature("https://mycompany.com/myapp.php?foo=1&bar=2", fields, "12345") == expected


async def test_the_signature_is_of_the_url_as_it_was_given(running: Running, receiver: Receiver) -> None:
    """Quoting and query as they stand, the fragment left out; keyed with the password of the API key that called."""
    url = receiver.url("/hooks/%7Ea//b%2Fc?x=%20y&x=&z")
    async with client_of(running, KEY_SID, "secret-of-the-key") as client:
        await client.post(path("Messages"), data=text_to(StatusCallback=f"{url}#rc=2&rt=15000"))
    await receiver.until(lambda: len(receiver.posts) == 2)
    for post in receiver.posts:
        assert post.url == url
        assert post.headers["x-twilio-signature"] == signature(url, post.fields, "secret-of-the-key")
        assert post.headers["x-twilio-signature"] != signature(url, post.fields, TOKEN)


@pytest.mark.parametrize(
    ("statuses", "posts", "taken", "given_up"),
    [([500], 3, 2, 0), ([500, 404], 3, 1, 1), ([302, 302], 3, 1, 1), ([], 2, 2, 0)],
)
async def test_a_receipt_is_posted_twice_at_most(
    client: httpx.AsyncClient, receiver: Receiver, statuses: list[int], posts: int, taken: int, given_up: int
) -> None:
    """Once more where the answer is no 2xx, with the same idempotency token, and to no other place; then the next."""
    receiver.statuses = list(statuses)
    await client.post(path("Messages"), data=text_to(StatusCallback=receiver.url()))
    counts = {"receipts_taken": taken, "receipts_given_up": given_up}
    page = await _page_with(client, counts)
    assert page | counts == page
    assert [post.status for post in receiver.posts] == ["sent"] * (posts - 1) + ["delivered"]
    assert {post.url for post in receiver.posts} == {receiver.url()}
    tokens = [post.headers["i-twilio-idempotency-token"] for post in receiver.posts]
    assert len(set(tokens[:-1])) == 1
    assert tokens[-1] not in tokens[:-1]


async def _page_with(client: httpx.AsyncClient, counts: dict[str, int]) -> dict[str, Any]:
    """The account's page as soon as it tells these counts, or as it is when time is up."""
    deadline = time.monotonic() + BOUND_SECONDS
    page: dict[str, Any] = {}
    while page | counts != page and time.monotonic() < deadline:
        page = (await client.get(f"/sandbox/accounts/{SID}")).json()
    return page


async def test_nobody_listens(client: httpx.AsyncClient, receiver: Receiver) -> None:
    """A callback that no one answers costs its receipts and nothing else; the page tells how many."""
    await client.post(path("Messages"), data=text_to(StatusCallback="http://127.0.0.1:1/"))
    await _page_with(client, {"receipts_given_up": 2})
    await _settled(client, receiver)
    page = await _page_with(client, {"receipts_taken": 2})
    assert page == {"answer": "ok", "calls": 2, "taken": 2, "receipts_taken": 2, "receipts_given_up": 2}


@pytest.mark.parametrize("resource", ["Messages", "Calls"])
async def test_an_end_settles_after_a_while(receiver: Receiver, resource: str) -> None:
    """Until then a message is sent and a call goes on; its end is posted that much later."""
    running = await serve("127.0.0.1", 0, settle_seconds=0.3)
    async with client_of(running) as client:
        form = FORMS[resource](StatusCallback=receiver.url(), StatusCallbackEvent=["answered", "completed"])
        sid = (await client.post(path(resource), data=form)).json()["sid"]
        under_way = (await client.get(path(f"{resource}/{sid}"))).json()["status"]
        await receiver.until(lambda: len(receiver.posts) == 2)
        ended = (await client.get(path(f"{resource}/{sid}"))).json()["status"]
    await running.close()
    assert [under_way, ended] == [post.status for post in receiver.posts]
    assert receiver.posts[1].at - receiver.posts[0].at >= 0.3


async def test_a_stop_waits_for_no_receipt(receiver: Receiver) -> None:
    """What is still to be posted is given up: a stop takes far less than the settle time, and nothing comes later."""
    running = await serve("127.0.0.1", 0, settle_seconds=60.0)
    async with client_of(running) as client:
        await client.post(path("Messages"), data=text_to(StatusCallback=receiver.url()))
        await receiver.until(lambda: len(receiver.posts) == 1)
    async with asyncio.timeout(BOUND_SECONDS):
        await running.close()
    assert [post.status for post in receiver.posts] == ["sent"]


async def test_receipts_that_wait_are_bounded(receiver: Receiver) -> None:
    """One too many is given up at once, and counted."""
    receipts, tally = Receipts(repeat_seconds=0.0, waiting_max=1), Tally()
    callback = Callback(receiver.url(), TOKEN)
    for _ in range(2):
        receipts.post(callback, [Receipt(0.0, {"MessageSid": "SM1"})] * 2, tally)
    assert tally == Tally(taken=0, given_up=2)
    await receiver.until(lambda: len(receiver.posts) == 2)
    await receipts.close()
    assert tally.given_up == 2
    assert len(receiver.posts) == 2
