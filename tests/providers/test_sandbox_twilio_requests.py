"""The sandbox upstream as Twilio: who may call, which requests it refuses, its lists, and faults on command."""

import datetime
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from server.model.magic import Fate
from server.sandbox.upstream import Running, serve
from tests.providers.sandbox_account import (
    FORMS,
    FROM,
    KEY_SID,
    OTHER_SID,
    SERVICE,
    SID,
    TOKEN,
    call_to,
    client_of,
    path,
    text_to,
)

CONTROL = f"/sandbox/accounts/{SID}"
KAVENEGAR_KEY = "a-key-of-kavenegar"


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    started = await serve("127.0.0.1", 0, slow_seconds=0.0, settle_seconds=0.0)
    yield started
    await started.close()


@pytest.fixture
async def client(running: Running) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(running) as opened:
        yield opened


@pytest.mark.parametrize(
    ("form", "code"),
    [
        (text_to(To=""), 21604),
        (text_to(From=""), 21603),
        (text_to(Body=""), 21602),
        (text_to(Body="x" * 1601), 21617),
        (text_to(To="09120000111"), 21211),
        (text_to(To="+0912"), 21211),
        (text_to(To="+9891200001111111"), 21211),
        (text_to(From="+0"), 21212),
        (text_to(From="a name too long"), 21212),
        (text_to(MessagingServiceSid="MG1"), 21705),
        (text_to(ContentSid="HX1"), 20001),
        (text_to(ContentVariables="[1]"), 20001),
        (text_to(ContentVariables="{"), 20001),
        (text_to(ContentVariables="[" * 50_000), 20001),
        (text_to(ValidityPeriod="0"), 20001),
        (text_to(ValidityPeriod="36001"), 20001),
        (text_to(ValidityPeriod="1.5"), 20001),
        (text_to(StatusCallbackMethod="GET"), 20001),
    ],
)
async def test_bad_messages(client: httpx.AsyncClient, form: dict[str, str], code: int) -> None:
    """400 with the code of what is missing or wrong, and nothing is taken."""
    await _refused(client, "Messages", form, code)


@pytest.mark.parametrize(
    ("form", "code"),
    [
        (call_to(To=""), 21201),
        (call_to(From=""), 21213),
        (call_to(Twiml=""), 21205),
        (call_to(Twiml="x" * 4001), 20001),
        (call_to(To="09120000111"), 21217),
        (call_to(From="A name"), 21212),
        (call_to(Timeout="601"), 20001),
        (call_to(StatusCallbackEvent=["completed", "sneezed"]), 20001),
    ],
)
async def test_bad_calls(client: httpx.AsyncClient, form: dict[str, str], code: int) -> None:
    """The same for calls."""
    await _refused(client, "Calls", form, code)


@pytest.mark.parametrize("resource", ["Messages", "Calls"])
@pytest.mark.parametrize(
    "url",
    [
        "/hooks",
        "ftp://127.0.0.1/",
        "http://example.com/",
        "http://127.0.0.1.example.com/",
        "http://127.0.0.1@example.com/",
        "http://user@127.0.0.1/",
        "http://example.com\\@127.0.0.1/",
        "http://169.254.169.254/",
        "http://0.0.0.0/",
        "http://[::ffff:127.0.0.1]/",
        "http://127.0.0.1:99999/",
        "http://127.0.0.1:x/",
        "http://[",
        "http://local_host/",
        "http://127.0.0.1/a b",
        "http://127.0.0.1/\r\nX: y",
        "http://127.0.0.1/سلام",
    ],
)
async def test_callbacks_go_to_loopback_alone(client: httpx.AsyncClient, resource: str, url: str) -> None:
    """21609 for every other place, and for what is no URL."""
    await _refused(client, resource, FORMS[resource](StatusCallback=url), 21609)


async def _refused(client: httpx.AsyncClient, resource: str, form: dict[str, str], code: int) -> None:
    answer = await client.post(path(resource), data=form)
    assert (answer.status_code, answer.json()["code"]) == (400, code)
    assert (await client.get(path(resource))).json()[resource.lower()] == []


@pytest.mark.parametrize(
    "form",
    [
        text_to(Body="x" * 1600, ValidityPeriod="36000"),
        text_to(From="Angarium"),
        text_to(From="12345"),
        text_to(To="whatsapp:+989120000111", From=f"whatsapp:{FROM}"),
        text_to(Body="", ContentSid="HX" + "0e" * 16, ContentVariables='{"1": "1234"}'),
        text_to(From="", MessagingServiceSid=SERVICE),
        text_to(StatusCallback="http://localhost:1/"),
        text_to(StatusCallback="https://[::1]:1/"),
    ],
)
async def test_good_messages(client: httpx.AsyncClient, form: dict[str, str]) -> None:
    """What lies just within the rules is taken."""
    assert (await client.post(path("Messages"), data=form)).status_code == 201


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", b'{"To": "+989120000111"}'),
        ("application/x-www-form-urlencoded; charset=none", b"To=x"),
        ("application/x-www-form-urlencoded", b"To=\xff\xfe"),
        ("multipart/form-data", b"To"),
    ],
)
async def test_bodies_that_are_no_form(client: httpx.AsyncClient, content_type: str, body: bytes) -> None:
    """An error in the classic shape as well."""
    answer = await client.post(path("Messages"), content=body, headers={"Content-Type": content_type})
    assert (answer.status_code, answer.json()["code"] in (20001, 21604)) == (400, True)


@pytest.mark.parametrize(
    ("account_sid", "user", "password"),
    [
        (SID, SID, "short67"),
        (SID, OTHER_SID, TOKEN),
        (SID, "SK1", TOKEN),
        (SID, "", TOKEN),
        ("AC1", "AC1", TOKEN),
        ("AC" + "0g" * 16, "AC" + "0g" * 16, TOKEN),
        (KEY_SID, KEY_SID, TOKEN),
    ],
)
async def test_strangers(running: Running, account_sid: str, user: str, password: str) -> None:
    """401 with code 20003 unless the path names an account and the login is its own, or a key's."""
    async with client_of(running, user, password) as client:
        for resource in ("Messages", "Balance", "Nothing"):
            answer = await client.get(path(resource, account_sid))
            assert (answer.status_code, answer.json()["code"]) == (401, 20003)
            assert answer.headers["www-authenticate"].startswith("Basic ")


@pytest.mark.parametrize("authorization", ["", "Basic", "Basic !", "Bearer QUM6", "Basic /w==", "Basic \u0665"])
async def test_logins_that_are_none(running: Running, authorization: str) -> None:
    """The same for a header that holds no login, and for none."""
    headers = [(b"Authorization", authorization.encode())] if authorization else []
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.get(f"http://127.0.0.1:{running.port}{path('Balance')}", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (401, 20003)


@pytest.mark.parametrize(("user", "password"), [(SID, "12345678"), (KEY_SID, "pass:word"), (SID, "گذرواژه ما")])
async def test_the_balance(running: Running, user: str, password: str) -> None:
    """An account has money, whether it calls with its token or with a key."""
    async with client_of(running, user, password) as client:
        answer = (await client.get(path("Balance"))).json()
    assert answer == {"account_sid": SID, "balance": "1000.00", "currency": "USD"}


@pytest.mark.parametrize(
    ("method", "resource"),
    [
        ("GET", "Messages/SM" + "0" * 32),
        ("GET", "Calls/CA" + "0" * 32),
        ("DELETE", "Messages/SM" + "0" * 32),
        ("POST", "Balance"),
        ("GET", "Nothing"),
    ],
)
async def test_what_is_not_there(client: httpx.AsyncClient, method: str, resource: str) -> None:
    """404 with code 20404."""
    answer = await client.request(method, path(resource))
    assert (answer.status_code, answer.json()["code"]) == (404, 20404)


@pytest.mark.parametrize("resource", ["Messages", "Calls"])
async def test_accounts_know_nothing_of_each_other(running: Running, client: httpx.AsyncClient, resource: str) -> None:
    """Another account neither fetches nor lists it."""
    sid = (await client.post(path(resource), data=FORMS[resource]())).json()["sid"]
    async with client_of(running, OTHER_SID) as other:
        assert (await other.get(path(f"{resource}/{sid}", OTHER_SID))).status_code == 404
        assert (await other.get(path(resource, OTHER_SID))).json()[resource.lower()] == []
    assert (await client.get(path(f"{resource}/{sid}"))).json()["sid"] == sid


@pytest.mark.parametrize(("resource", "date"), [("Messages", "DateSent"), ("Calls", "StartTime")])
async def test_lists_are_narrowed(client: httpx.AsyncClient, resource: str, date: str) -> None:
    """By recipient, by sender, and by a day or a second, whose ends belong to it; the newest comes first."""
    forms = (FORMS[resource](), FORMS[resource](Fate.NO_RECEIPT), FORMS[resource](From="+15005550009"))
    answers = [await client.post(path(resource), data=form) for form in forms]
    sids = [answer.json()["sid"] for answer in answers]

    async def listed(**asked: Any) -> list[str]:
        answer = await client.get(path(resource), params=asked)
        return [shown["sid"] for shown in answer.json()[resource.lower()]]

    newest = (await client.get(path(f"{resource}/{sids[-1]}"))).json()
    at = datetime.datetime.strptime(newest["date_created"], "%a, %d %b %Y %H:%M:%S %z")
    day = datetime.timedelta(days=1)
    assert await listed() == sids[::-1]
    assert await listed(To="+989120000114") == [sids[1]]
    assert await listed(To="+989120000111") == [sids[2], sids[0]]
    assert await listed(To="+989120000111", From=FROM) == [sids[0]]
    assert await listed(To="+447700900123") == []
    assert (await listed(**{date: f"{at.date()}"}))[0] == sids[2]
    assert (await listed(**{date: at.isoformat()}))[0] == sids[2]
    assert (await listed(**{date: f"{at:%Y-%m-%dT%H:%M:%SZ}"}))[0] == sids[2]
    assert await listed(**{date: f"{at.date() - day}"}) == []
    assert await listed(**{f"{date}<": f"{at.date()}"}) == sids[::-1]
    assert await listed(**{f"{date}<": f"{at.date() - 2 * day}"}) == []
    assert await listed(**{f"{date}>": f"{at.date() - day}"}) == sids[::-1]
    assert await listed(**{f"{date}>": f"{at.date() + day}"}) == []


@pytest.mark.parametrize("resource", ["Messages", "Calls"])
async def test_lists_come_in_pages(client: httpx.AsyncClient, resource: str) -> None:
    """`next_page_uri` leads from page to page, with the filters kept, until there is none."""
    for _ in range(5):
        await client.post(path(resource), data=FORMS[resource]())
        await client.post(path(resource), data=FORMS[resource](Fate.NO_RECEIPT))
    answer = await client.get(path(resource), params={"To": "+989120000111", "PageSize": "2"})
    pages = [answer.json()]
    while pages[-1]["next_page_uri"]:
        pages.append((await client.get(pages[-1]["next_page_uri"])).json())
    assert [len(page[resource.lower()]) for page in pages] == [2, 2, 1]
    assert [(page["page"], page["start"], page["end"]) for page in pages] == [(0, 0, 1), (1, 2, 3), (2, 4, 4)]
    shown = [record for page in pages for record in page[resource.lower()]]
    assert len({record["sid"] for record in shown}) == 5
    assert {record["to"] for record in shown} == {"+989120000111"}
    assert (await client.get(pages[2]["previous_page_uri"])).json() == pages[1]
    assert (await client.get(pages[2]["first_page_uri"])).json() == pages[0]


@pytest.mark.parametrize(
    "asked", [{"PageSize": "0"}, {"PageSize": "1001"}, {"PageSize": "x"}, {"Page": "-1"}, {"DateSent": "yesterday"}]
)
async def test_bad_lists(client: httpx.AsyncClient, asked: dict[str, str]) -> None:
    """400 with code 20001."""
    answer = await client.get(path("Messages"), params=asked)
    assert (answer.status_code, answer.json()["code"]) == (400, 20001)


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("20003", 401),
        ("20005", 400),
        ("20403", 403),
        ("20404", 404),
        ("20429", 429),
        ("20500", 500),
        ("20503", 503),
        ("21408", 400),
        ("21610", 400),
        ("13227", 400),
        ("35125", 400),
    ],
)
async def test_an_account_can_be_told_to_fail(
    running: Running, client: httpx.AsyncClient, code: str, status: int
) -> None:
    """Every call of it fails with the code and its HTTP status until it is told `ok`; other accounts are unharmed."""
    assert (await client.put(CONTROL, json={"answer": code})).json()["answer"] == code
    for resource in ("Messages", "Calls", "Balance"):
        answer = await client.get(path(resource))
        assert (answer.status_code, answer.json()["code"]) == (status, int(code))
    assert (await client.post(path("Messages"), data=text_to())).status_code == status
    async with client_of(running, OTHER_SID) as other:
        assert (await other.get(path("Balance", OTHER_SID))).status_code == 200
    await client.put(CONTROL, json={"answer": "ok"})
    assert (await client.get(path("Messages"))).json()["messages"] == []


async def test_faults_that_are_no_codes(client: httpx.AsyncClient) -> None:
    """`http_503` is the page of a gateway on the way, without Retry-After; `disconnect` ends the connection."""
    await client.put(CONTROL, json={"answer": "http_503"})
    answer = await client.post(path("Messages"), data=text_to())
    assert (answer.status_code, answer.text, "retry-after" in answer.headers) == (
        503,
        "<html>unavailable</html>",
        False,
    )
    await client.put(CONTROL, json={"answer": "disconnect"})
    with pytest.raises(httpx.TransportError):
        await client.post(path("Messages"), data=text_to())
    await client.put(CONTROL, json={"answer": "ok"})
    assert (await client.get(path("Messages"))).json()["messages"] == []


@pytest.mark.parametrize(
    ("key", "answer", "status"),
    [
        (SID, "21610", 200),
        (SID, "409", 400),
        (SID, "30003", 400),
        (KAVENEGAR_KEY, "409", 200),
        (KAVENEGAR_KEY, "21610", 400),
        (f"{SID}0", "409", 200),
        (f"{SID}0", "21610", 400),
    ],
)
async def test_the_shape_of_the_key_decides_whose_codes_hold(
    client: httpx.AsyncClient, key: str, answer: str, status: int
) -> None:
    """Twilio's for an AccountSid, Kavenegar's for every other key."""
    assert (await client.put(f"/sandbox/accounts/{key}", json={"answer": answer})).status_code == status
