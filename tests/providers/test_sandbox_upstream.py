"""The sandbox upstream as Kavenegar: texts by the real adapter over a socket, templates and calls by hand."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import replace

import httpx
import pytest

from server.model.enums import Channel, ReceiptKind
from server.model.magic import Fate, magic_destination
from server.model.outcomes import (
    Accepted,
    Ambiguous,
    Fault,
    Found,
    Misconfigured,
    NeverRegistered,
    NoAnswer,
    RateLimited,
    Refusal,
    Rejected,
    Unavailable,
)
from server.providers.kavenegar import Kavenegar
from server.providers.transport import Transport
from server.sandbox.upstream import Running, serve
from tests.providers.conftest import API_KEY, KEY, account_at, hand_off, sought

SLOW_SECONDS = 0.3
CONTROL = "/sandbox/accounts/canary%2Fkey%200123456789"


@pytest.fixture
async def sandbox_upstream() -> AsyncIterator[Running]:
    running = await serve("127.0.0.1", 0, slow_seconds=SLOW_SECONDS, settle_seconds=0.0)
    yield running
    await running.close()


@pytest.fixture
async def control(sandbox_upstream: Running) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{sandbox_upstream.port}", trust_env=False) as client:
        yield client


@pytest.fixture
def provider(sandbox_upstream: Running, transport: Transport) -> Kavenegar:
    return Kavenegar(account_at(f"http://127.0.0.1:{sandbox_upstream.port}"), transport)


def to(fate: Fate) -> str:
    return magic_destination(fate, Channel.SMS)


@pytest.mark.parametrize(
    ("fate", "told"),
    [
        (Fate.DELIVERED, [ReceiptKind.DELIVERED]),
        (Fate.UNDELIVERED, [ReceiptKind.UNDELIVERED]),
        (Fate.NO_RECEIPT, [ReceiptKind.OTHER]),
        (Fate.OUT_OF_ORDER, [ReceiptKind.DELIVERED, ReceiptKind.OTHER]),
        (Fate.SLOW, [ReceiptKind.DELIVERED]),
    ],
)
async def test_what_is_accepted_is_reported(provider: Kavenegar, fate: Fate, told: list[ReceiptKind]) -> None:
    """Accepted under an id, then what the magic recipient says."""
    outcome = await provider.send(hand_off(to(fate)))
    assert isinstance(outcome, Accepted)
    reports = await provider.statuses([outcome.provider_message_id])
    assert [(name, receipt.kind) for name, receipt in reports] == [(outcome.provider_message_id, kind) for kind in told]


async def test_refusals(provider: Kavenegar) -> None:
    """Rejected, rate-limited and unavailable come as Kavenegar's codes, and nothing is taken."""
    rejected = await provider.send(hand_off(to(Fate.REJECTED)))
    assert isinstance(rejected, Rejected)
    assert rejected.refusal == Refusal.RECIPIENT
    assert isinstance(await provider.send(hand_off(to(Fate.RATE_LIMITED))), RateLimited)
    assert isinstance(await provider.send(hand_off(to(Fate.UNAVAILABLE))), Unavailable)
    assert await provider.look_up(sought(KEY)) == [NeverRegistered()]


async def test_a_lost_answer_is_found_by_its_key(provider: Kavenegar) -> None:
    """Ambiguous; the look-up finds it, delivered, and a repeat with the same key is answered with that record."""
    assert isinstance(await provider.send(hand_off(to(Fate.ANSWER_LOST))), Ambiguous)
    found = (await provider.look_up(sought(KEY)))[0]
    assert isinstance(found, Found)
    [(_, receipt)] = await provider.statuses([found.provider_message_id])
    assert receipt.kind == ReceiptKind.DELIVERED
    assert await provider.send(hand_off(to(Fate.ANSWER_LOST))) == Accepted(found.provider_message_id)


async def test_the_same_key_is_taken_once(provider: Kavenegar, control: httpx.AsyncClient) -> None:
    """Two sends, one message; the account's page counts both and shows no number and no text."""
    assert await provider.send(hand_off()) == await provider.send(hand_off())
    page = (await control.get(CONTROL)).json()
    assert page == {"answer": "ok", "calls": 2, "taken": 1, "repeated": 1}


async def test_a_report_settles_after_a_while(transport: Transport) -> None:
    """At first a message is with the operator; its end is reported later."""
    running = await serve("127.0.0.1", 0, settle_seconds=0.3)
    provider = Kavenegar(account_at(f"http://127.0.0.1:{running.port}"), transport)
    outcome = await provider.send(hand_off())
    assert isinstance(outcome, Accepted)
    kinds: list[ReceiptKind] = []
    deadline = time.monotonic() + 5
    while ReceiptKind.DELIVERED not in kinds and time.monotonic() < deadline:
        kinds += [receipt.kind for _, receipt in await provider.statuses([outcome.provider_message_id])]
        await asyncio.sleep(0.02)
    await running.close()
    assert kinds[0] == ReceiptKind.OTHER
    assert kinds[-1] == ReceiptKind.DELIVERED


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("409", Unavailable),
        ("451", RateLimited),
        ("403", Misconfigured),
        ("411", Rejected),
        ("424", Misconfigured),
        ("http_503", Ambiguous),
        ("disconnect", Ambiguous),
    ],
)
async def test_an_account_can_be_told_to_fail(
    provider: Kavenegar, control: httpx.AsyncClient, answer: str, expected: type
) -> None:
    """From the command on every call of this account fails so, until it is told `ok`; other accounts are unharmed."""
    assert (await control.put(CONTROL, json={"answer": answer})).json()["answer"] == answer
    assert type(await provider.send(hand_off())) is expected
    assert (await provider.look_up(sought(KEY)))[0] == NoAnswer()
    other = await control.post("/v1/another-key/account/info.json")
    assert other.json()["return"]["status"] == 200
    await control.put(CONTROL, json={"answer": "ok"})
    assert isinstance(await provider.send(hand_off()), Accepted)


@pytest.mark.parametrize(
    "body", [b"", b"x", b"[]", b"{}", b'{"answer":"599"}', b'{"answer":409.5}', b'{"answer":null}']
)
async def test_a_command_it_does_not_know_is_refused(control: httpx.AsyncClient, body: bytes) -> None:
    """400, and the account goes on as before."""
    assert (await control.put(CONTROL, content=body)).status_code == 400
    assert (await control.get(CONTROL)).json()["answer"] == "ok"


async def test_the_check(provider: Kavenegar, sandbox_upstream: Running, transport: Transport) -> None:
    """An account has credit; a key that is too short is none."""
    assert (await provider.check()).balance == "1000000 IRR"
    account = replace(account_at(f"http://127.0.0.1:{sandbox_upstream.port}"), secrets={"api_key": "short"})
    outcome = (await Kavenegar(account, transport).check()).outcome
    assert isinstance(outcome, Misconfigured)
    assert outcome.fault == Fault.CREDENTIALS


@pytest.mark.parametrize(
    ("call", "form", "code"),
    [
        ("sms/send", {}, 406),
        ("sms/send", {"receptor": "09120000111"}, 413),
        ("sms/send", {"receptor": "09120000111", "message": "x" * 901}, 413),
        ("sms/send", {"receptor": "abc", "message": "x"}, 411),
        ("sms/send", {"receptor": "09120000111", "message": "x", "localid": "a"}, 400),
        ("sms/send", {"receptor": "09120000111", "message": "x", "localid": "1,2"}, 419),
        ("sms/send", {"receptor": ",".join(["09120000111"] * 201), "message": "x"}, 414),
        ("sms/status", {}, 406),
        ("sms/status", {"messageid": "x"}, 400),
        ("sms/status", {"messageid": ",".join(["1"] * 501)}, 414),
        ("sms/statuslocalmessageid", {"localid": ",".join(["1"] * 501)}, 414),
        ("sms/nothing", {}, 404),
        ("call/maketts", {"message": "x"}, 406),
        ("call/maketts", {"receptor": "09120000111"}, 413),
        ("call/maketts", {"receptor": "abc", "message": "x"}, 411),
        ("call/maketts", {"receptor": "09120000111", "message": "x", "localid": "1,2"}, 419),
        ("call/maketts", {"receptor": ",".join(["09120000111"] * 201), "message": "x"}, 414),
    ],
)
async def test_bad_calls(control: httpx.AsyncClient, call: str, form: dict[str, str], code: int) -> None:
    """Kavenegar's codes, in the body and as the HTTP status."""
    answer = await control.post(f"/v1/0123456789/{call}.json", data=form)
    assert (answer.status_code, answer.json()["return"]["status"]) == (code, code)


@pytest.mark.parametrize(
    ("fate", "told"),
    [
        (Fate.DELIVERED, [10]),
        (Fate.UNDELIVERED, [11]),
        (Fate.NO_RECEIPT, [4]),
        (Fate.OUT_OF_ORDER, [10, 4]),
        (Fate.SLOW, [10]),
    ],
)
@pytest.mark.parametrize("call", ["call/maketts", "verify/lookup"])
async def test_calls_and_templates_that_are_taken(
    control: httpx.AsyncClient, call: str, fate: Fate, told: list[int]
) -> None:
    """Told as an object, queued at first; then the status that the magic recipient says."""
    begun = time.monotonic()
    answer = (await control.post(f"/v1/0123456789/{call}.json", data=form_of(call, fate))).json()
    assert (time.monotonic() - begun >= SLOW_SECONDS) == (fate == Fate.SLOW)
    entry = answer["entries"]
    assert (answer["return"]["status"], entry["status"], entry["receptor"]) == (200, 1, to(fate))
    reports = await control.post("/v1/0123456789/sms/status.json", data={"messageid": entry["messageid"]})
    assert [entry["status"] for entry in reports.json()["entries"]] == told


@pytest.mark.parametrize(("fate", "code"), [(Fate.REJECTED, 411), (Fate.RATE_LIMITED, 451), (Fate.UNAVAILABLE, 409)])
@pytest.mark.parametrize("call", ["call/maketts", "verify/lookup"])
async def test_calls_and_templates_that_are_refused(
    control: httpx.AsyncClient, call: str, fate: Fate, code: int
) -> None:
    """By Kavenegar's codes; nothing is taken."""
    answer = await control.post(f"/v1/0123456789/{call}.json", data=form_of(call, fate))
    assert (answer.status_code, answer.json()["return"]["status"]) == (code, code)
    assert (await control.get("/sandbox/accounts/0123456789")).json()["taken"] == 0


def form_of(call: str, fate: Fate = Fate.DELIVERED) -> dict[str, str]:
    """What the call needs; a template is read out."""
    if call == "call/maketts":
        return {"receptor": to(fate), "message": "1, 2, 3, 4"}
    return {"receptor": to(fate), "template": "otp", "token": "1234", "type": "call"}


async def test_a_call_whose_answer_was_lost_is_found_by_its_number(control: httpx.AsyncClient) -> None:
    """A repeat under the same number makes no second one."""
    form = form_of("call/maketts", Fate.ANSWER_LOST) | {"localid": "7"}
    with pytest.raises(httpx.TransportError):
        await control.post("/v1/0123456789/call/maketts.json", data=form)
    found = await control.post("/v1/0123456789/sms/statuslocalmessageid.json", data={"localid": "7"})
    assert found.json()["entries"][0]["status"] == 10
    again = await control.post("/v1/0123456789/call/maketts.json", data=form)
    assert again.json()["entries"]["messageid"] == found.json()["entries"][0]["messageid"]
    page = (await control.get("/sandbox/accounts/0123456789")).json()
    assert (page["taken"], page["repeated"]) == (1, 1)


async def test_a_template_whose_answer_was_lost_is_taken_twice(control: httpx.AsyncClient) -> None:
    """There is no number that a repeat could be known by: one that is given counts for nothing."""
    form = form_of("verify/lookup", Fate.ANSWER_LOST) | {"localid": "7"}
    for _ in range(2):
        with pytest.raises(httpx.TransportError):
            await control.post("/v1/0123456789/verify/lookup.json", data=form)
    assert (await control.get("/sandbox/accounts/0123456789")).json()["taken"] == 2


async def test_several_calls_are_told_as_a_list(control: httpx.AsyncClient) -> None:
    """An object for one, a list for two; both under their own numbers."""
    form = {"receptor": "09120000111,09120000112", "message": "1", "localid": "1,2"}
    entries = (await control.post("/v1/0123456789/call/maketts.json", data=form)).json()["entries"]
    assert [entry["receptor"] for entry in entries] == ["09120000111", "09120000112"]
    assert entries[0]["messageid"] != entries[1]["messageid"]


@pytest.mark.parametrize(
    ("tokens", "code"),
    [
        ({"token": "1234"}, 200),
        ({"token": "x" * 100, "token2": "a_b", "token3": "سلام"}, 200),
        ({"token": "x", "token10": "a b c d e f", "token20": "a b c d e f g h i"}, 200),
        ({"token": ""}, 406),
        ({"token2": "x"}, 406),
        ({"token": "x" * 101}, 431),
        ({"token": "a b"}, 431),
        ({"token": "a\nb"}, 431),
        ({"token": "a_b"}, 431),
        ({"token": "x", "token2": "a b"}, 431),
        ({"token": "x", "token3": "a\nb"}, 431),
        ({"token": "x", "token10": "a b c d e f g"}, 431),
        ({"token": "x", "token20": "a b c d e f g h i j"}, 431),
        ({"token": "x", "token20": "x" * 101}, 431),
        ({"token": "x", "template": "missing"}, 424),
        ({"token": "x", "template": ""}, 406),
        ({"token": "x", "receptor": ""}, 406),
        ({"token": "x", "receptor": "09120000111,09120000112"}, 411),
        ({"token": "x", "type": "fax"}, 400),
        ({"token": "12a4", "type": "call"}, 428),
        ({"token": "1234", "token2": "words", "type": "call"}, 200),
    ],
)
async def test_templates_take_what_suits_them(control: httpx.AsyncClient, tokens: dict[str, str], code: int) -> None:
    """How long a parameter may be, how many spaces it may hold, and what can be read out."""
    form = {"receptor": "09120000111", "template": "otp"} | tokens
    answer = await control.post("/v1/0123456789/verify/lookup.json", data=form)
    assert (answer.status_code, answer.json()["return"]["status"]) == (code, code)


async def test_a_body_that_is_no_form(control: httpx.AsyncClient) -> None:
    """Its parameters are incomplete."""
    headers = {"Content-Type": "application/x-www-form-urlencoded; charset=none"}
    answer = await control.post("/v1/0123456789/sms/send.json", content=b"receptor=1", headers=headers)
    assert answer.json()["return"]["status"] == 400


async def test_ids_it_does_not_know(control: httpx.AsyncClient) -> None:
    """Status 100, and for our own numbers with the number."""
    by_id = await control.post("/v1/0123456789/sms/status.json", data={"messageid": "5"})
    assert by_id.json()["entries"] == [{"messageid": 5, "status": 100, "statustext": "unknown id"}]
    by_key = await control.post("/v1/0123456789/sms/statuslocalmessageid.json", data={"localid": "5"})
    assert by_key.json()["entries"][0]["localid"] == "5"
    assert by_key.json()["entries"][0]["status"] == 100


async def test_it_tells_the_time_without_a_key(control: httpx.AsyncClient) -> None:
    """The liveness call takes the key 0."""
    answer = await control.get("/v1/0/utils/getdate.json")
    assert abs(answer.json()["entries"]["unixtime"] - time.time()) < 5


async def test_it_runs_as_a_process_and_stops_when_told() -> None:
    """On a free port, with its address on the first line of its output; SIGTERM ends it with 0."""
    script = "import sys; from server.sandbox.upstream import main; sys.exit(main(sys.argv[1:]))"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, "--listen", "127.0.0.1:0", stdout=asyncio.subprocess.PIPE, env={**os.environ}
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(20):
            line = (await process.stdout.readline()).decode()
            url = line.split()[-1]
            async with httpx.AsyncClient(trust_env=False) as client:
                answer = await client.get(f"{url}/v1/{API_KEY.replace('/', '-')}/account/info.json")
            assert answer.status_code == 200
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
