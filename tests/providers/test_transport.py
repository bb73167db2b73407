"""The transport: what was not sent, what is unknown, and what is an answer."""

import asyncio
import contextlib
import logging
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.providers.transport import (
    NO_ANSWER,
    NO_CONNECTION,
    NO_CONNECTION_IN_TIME,
    OVERSIZE,
    TOO_LATE,
    Answer,
    Call,
    NotSent,
    Transport,
    Unknown,
    form_call,
)
from tests.scripted_upstream import Break, Say, ScriptedUpstream, Silence

STILL_SECONDS = 0.01


@pytest.fixture
def blackhole() -> Iterator[str]:
    """A port whose backlog is full: the kernel answers no further connection."""
    with contextlib.ExitStack() as sockets:
        listener = sockets.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            filler = sockets.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


async def test_a_connect_that_takes_too_long_is_not_sent(transport: Transport, blackhole: str) -> None:
    """The total timeout in the connect phase: nothing left."""
    started = time.monotonic()
    assert await transport.exchange(Call(blackhole, "/"), 0.3) == NotSent(NO_CONNECTION_IN_TIME)
    assert time.monotonic() - started < 2


async def test_a_connect_has_a_timeout_of_its_own(transport: Transport, blackhole: str) -> None:
    """A dead address is given up after three seconds, though the call may take longer."""
    started = time.monotonic()
    assert await transport.exchange(Call(blackhole, "/"), 20.0) == NotSent(NO_CONNECTION_IN_TIME)
    assert time.monotonic() - started < 8


async def test_a_refused_connection_is_not_sent(transport: Transport) -> None:
    """Nobody listens on a port that was just closed."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    assert await transport.exchange(Call(f"http://127.0.0.1:{port}", "/"), 2.0) == NotSent(NO_CONNECTION)


async def test_a_name_that_does_not_exist_is_not_sent(transport: Transport) -> None:
    """Names under .invalid never resolve."""
    reply = await transport.exchange(Call("http://nobody.invalid", "/"), 5.0)
    assert isinstance(reply, NotSent)


async def test_a_tls_handshake_that_fails_is_not_sent(transport: Transport, upstream: ScriptedUpstream) -> None:
    """TLS to a port that speaks plain text: the request never left."""
    reply = await transport.exchange(Call(f"https://127.0.0.1:{upstream.port}", "/"), 0.5)
    assert isinstance(reply, NotSent)
    assert upstream.requests == []


async def test_an_untrusted_certificate_is_not_sent(transport: Transport, tmp_path: Path) -> None:
    """The peer is not who it says: the request never left."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(_self_signed(tmp_path))
    read: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        read.append(await reader.read(1))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    reply = await transport.exchange(Call(f"https://127.0.0.1:{port}", "/"), 5.0)
    server.close()
    await server.wait_closed()
    assert isinstance(reply, NotSent)
    assert b"".join(read) == b""


async def test_waiting_for_a_free_connection_is_not_sent(upstream: ScriptedUpstream, transport: Transport) -> None:
    """When every connection is busy until the timeout, the call never began."""
    upstream.always(Silence())
    busy = [
        asyncio.create_task(transport.exchange(Call(upstream.base_url, "/v1/k/account/info.json"), 30.0))
        for _ in range(128)
    ]
    await upstream.wait_for(128)
    reply = await transport.exchange(Call(upstream.base_url, "/v1/k/account/info.json"), 0.3)
    for task in busy:
        task.cancel()
    await asyncio.gather(*busy, return_exceptions=True)
    assert reply == NotSent(NO_CONNECTION_IN_TIME)
    assert len(upstream.requests) == 128


async def test_cancellation_passes_through(upstream: ScriptedUpstream, transport: Transport) -> None:
    """A caller that is cancelled is cancelled; the transport still works afterwards."""
    upstream.script(Silence())
    task = asyncio.create_task(transport.exchange(Call(upstream.base_url, "/v1/k/account/info.json"), 30.0))
    await upstream.wait_for(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert isinstance(await transport.exchange(Call(upstream.base_url, "/v1/k/account/info.json"), 2.0), Answer)


async def test_the_phase_is_each_call_s_own(upstream: ScriptedUpstream, transport: Transport, blackhole: str) -> None:
    """A call that was sent and one that was not, side by side, are told apart."""
    upstream.always(Silence())
    sent, not_sent = await asyncio.gather(
        transport.exchange(Call(upstream.base_url, "/v1/k/account/info.json"), 0.4),
        transport.exchange(Call(blackhole, "/"), 0.4),
    )
    assert isinstance(sent, Unknown)
    assert isinstance(not_sent, NotSent)


async def test_a_post_is_never_repeated(upstream: ScriptedUpstream, transport: Transport) -> None:
    """Neither on a fresh connection nor on a kept one does a broken call come twice."""
    call = form_call(upstream.base_url, "/v1/k/sms/send.json", {"receptor": "09120000111", "message": "x"})
    assert isinstance(await transport.exchange(call, 2.0), Answer)
    upstream.always(Break.AFTER_REQUEST)
    assert await transport.exchange(call, 2.0) == Unknown(NO_ANSWER)
    assert await transport.exchange(call, 2.0) == Unknown(NO_ANSWER)
    assert len(upstream.requests) == 3


async def test_redirects_are_answers(upstream: ScriptedUpstream, transport: Transport) -> None:
    """A redirect is told, not followed."""
    upstream.script(Say(307, b"", {"Location": upstream.base_url + "/elsewhere"}))
    reply = await transport.exchange(Call(upstream.base_url, "/v1/k/account/info.json"), 2.0)
    assert isinstance(reply, Answer)
    assert reply.status == 307
    assert len(upstream.requests) == 1


async def test_cookies_are_not_kept(upstream: ScriptedUpstream, transport: Transport) -> None:
    """What one account's answer sets is not sent with another's call."""
    upstream.script(Say(200, b"{}", {"Set-Cookie": "session=1"}))
    for _ in range(2):
        await transport.exchange(Call(upstream.base_url, "/v1/k/account/info.json"), 2.0)
    assert "cookie" not in upstream.requests[1].headers


async def test_proxies_of_the_environment_are_ignored(
    upstream: ScriptedUpstream, transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HTTP_PROXY changes nothing."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    reply = await transport.exchange(Call(upstream.base_url, "/v1/k/account/info.json"), 2.0)
    assert isinstance(reply, Answer)


@pytest.mark.parametrize(("size", "fits"), [(64 * 1024, True), (64 * 1024 + 1, False), (5_000_000, False)])
async def test_answers_are_bounded(upstream: ScriptedUpstream, transport: Transport, size: int, fits: bool) -> None:
    """64 KiB are read, one byte more is not an answer."""
    upstream.script(Say(200, b"x" * size))
    reply = await transport.exchange(Call(upstream.base_url, "/v1/k/account/info.json"), 5.0)
    assert reply == Unknown(OVERSIZE) if not fits else isinstance(reply, Answer)


async def test_a_connection_is_kept_for_the_next_call(upstream: ScriptedUpstream, transport: Transport) -> None:
    """Ten calls in a row share one connection, and an answer that is too long spoils nothing for the next call."""
    for _ in range(10):
        await transport.exchange(Call(upstream.base_url, "/v1/k/account/info.json"), 2.0)
    assert upstream.connections == 1
    for size in (100_000, 1_000_000):
        upstream.script(Say(200, b"x" * size))
        await transport.exchange(Call(upstream.base_url, "/v1/k/account/info.json"), 2.0)
        reply = await transport.exchange(Call(upstream.base_url, "/v1/k/account/info.json"), 2.0)
        assert isinstance(reply, Answer)
        assert b"remaincredit" in reply.body


async def test_what_may_not_leave_any_more_does_not(upstream: ScriptedUpstream, transport: Transport) -> None:
    """Not a byte leaves after its time, wherever on its way to the socket the process stands still; else all does.

    The loop stops for a moment at each of its turns, and the time is over at another turn in each call.
    """
    standing = asyncio.create_task(stand_still(STILL_SECONDS))
    call = form_call(upstream.base_url, "/v1/KEY/sms/send.json", {"receptor": "0912", "message": "x", "localid": "7"})
    replies = [
        await transport.exchange(call, 20.0, leave_by=time.monotonic() + turns * STILL_SECONDS / 2)
        for turns in range(-1, 30)
    ]
    standing.cancel()
    answered = [reply for reply in replies if isinstance(reply, Answer)]
    assert [reply for reply in replies if reply not in answered] == [NotSent(TOO_LATE)] * (len(replies) - len(answered))
    assert 0 < len(answered) < len(replies)
    assert len(upstream.requests) == len(answered)


async def stand_still(seconds: float) -> None:
    """Stop the loop for so long at each of its turns."""
    while True:
        time.sleep(seconds)  # noqa: ASYNC251 - that nothing else goes on is the point
        await asyncio.sleep(0)


async def test_a_closed_transport_sends_nothing(upstream: ScriptedUpstream) -> None:
    """Also when it was never opened; closing twice is fine."""
    transport = Transport(allow_private=True)
    await transport.aclose()
    await transport.aclose()
    assert await transport.exchange(Call(upstream.base_url, "/"), 2.0) == NotSent(NO_CONNECTION)
    assert upstream.connections == 0


def test_nothing_secret_is_in_a_repr() -> None:
    """Of a call and of an answer, paths, bodies and headers stay inside."""
    call = form_call("https://api.example.com", "/v1/canary/x", {"message": "canary"})
    assert "canary" not in repr(call) + repr(Answer(200, b"canary", {"x": "canary"}))


def _self_signed(folder: Path) -> Path:
    import datetime  # noqa: PLC0415

    from cryptography import x509  # noqa: PLC0415
    from cryptography.hazmat.primitives import hashes, serialization  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    file = folder / "server.pem"
    file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return file


@pytest.mark.parametrize("name", ["httpx", "httpcore.http11", "aiohttp.client", "aiohttp.internal"])
def test_the_libraries_say_nothing(transport: Transport, caplog: pytest.LogCaptureFixture, name: str) -> None:
    """Their log lines hold URLs, so they are off whatever level is asked for."""
    caplog.set_level(logging.DEBUG)
    logging.getLogger(name).critical("https://api.example.com/v1/canary")
    assert "canary" not in caplog.text
