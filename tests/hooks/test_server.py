"""The HTTP server takes only so much, only for so long, and answers what it has begun before it ends."""

import asyncio
import time
from pathlib import Path
from urllib.parse import urlencode

import pytest

from server import app
from tests.gateway import eventually, state_of
from tests.hooks.edge import HttpGateway, behind_the_proxy, sent, signature, stalled, told, under_way
from tests.providers.twilio_upstream import TOKEN, TwilioUpstream

CANARY = "canary-09120000111"
BODY_BYTES_MAX = 64 * 1024
AT_ONCE_MAX = 64
REQUEST_SECONDS = 10.0


async def test_a_body_has_64_kib_at_most(on_sqlite: HttpGateway, twilio: TwilioUpstream) -> None:
    """One byte more is 413, whether its length is named or it comes in chunks; what fits is judged by its signature."""
    _, name, url = await sent(on_sqlite, twilio)
    target = behind_the_proxy(url)
    padded = {**told(name, "delivered"), "Padding": ""}
    padded["Padding"] = "x" * (BODY_BYTES_MAX - len(urlencode(padded)))
    assert (await on_sqlite.call(target, data=b"x" * (BODY_BYTES_MAX + 1))).status == 413
    assert (await on_sqlite.call(target, data=_chunks(BODY_BYTES_MAX + 1))).status == 413
    assert (await on_sqlite.call(target, data=_chunks(BODY_BYTES_MAX))).status == 403
    assert (await on_sqlite.post(url, padded)).status == 204


async def _chunks(length: int):  # noqa: ANN202 - an asynchronous generator, as the client wants it
    for start in range(0, length, 1000):
        yield b"x" * min(1000, length - start)


async def test_what_is_no_http_is_told_so_and_leaves_no_trace(
    on_sqlite: HttpGateway,
    twilio: TwilioUpstream,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Broken requests are answered with 400 or not at all, the next one is served, and nothing of them is logged."""
    _, name, url = await sent(on_sqlite, twilio)
    target = behind_the_proxy(url)
    capfd.readouterr()
    broken = [
        f"POST {target} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz{CANARY}\r\n",
        f"POST {target} HTTP/1.1\r\nHost: a\r\nContent-Length: -5{CANARY}\r\n\r\n",
        f"POST {target} HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n{CANARY}",
        f"{CANARY}\r\n\r\n",
        f"POST {target} HTTP/1.1\r\nBad Header {CANARY}\r\n\r\n",
        "\x16\x03\x01\x02\x00\x01" + CANARY,
    ]
    for request in broken:
        assert await _raw(on_sqlite, request.encode("latin-1")) in (b"", b"HTTP/1.1 400 Bad Request")
    for body in (b"\xff\xfe\x00" + CANARY.encode(), b"", b"%00=%ff&&&==", b"MessageSid=" + b"a&" * 3000):
        assert (await on_sqlite.call(target, data=body)).status == 403
    assert (await on_sqlite.post(url, told(name, "delivered"))).status == 204
    written = capfd.readouterr()
    logged, token = written.out + written.err + caplog.text, url.partition("?")[0].rpartition("/")[2]
    assert "a receipt was not proved" in logged
    assert CANARY not in logged
    assert token not in logged


async def _raw(edge: HttpGateway, request: bytes) -> bytes:
    """The status line that is answered to these bytes; empty where the connection ends without one."""
    host, _, port = edge.http.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(request)
        writer.write_eof()
        async with asyncio.timeout(10.0):
            return (await reader.readline()).strip()
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


async def test_other_methods_are_not_allowed(on_sqlite: HttpGateway, twilio: TwilioUpstream) -> None:
    """POST takes receipts, GET tells of health; a compressed body is no other body than it is.

    A call that would be lost is not answered as one that was taken: no method but POST brings fields in its body.
    """
    _, name, url = await sent(on_sqlite, twilio)
    target = behind_the_proxy(url)
    signed = {"X-Twilio-Signature": signature(url, {}, TOKEN)}
    for method in ("GET", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"):
        assert (await on_sqlite.call(target, method=method, headers=signed)).status == 405
    reply = await on_sqlite.post(url, told(name, "delivered"), **{"Content-Encoding": "gzip"})
    assert reply.status == 204


async def test_so_many_are_taken_at_a_time_and_only_for_so_long(on_sqlite: HttpGateway, twilio: TwilioUpstream) -> None:
    """With 64 bodies that do not come, the next call is put off; after ten seconds the 64 are given up."""
    tracking_id, name, url = await sent(on_sqlite, twilio)
    began = time.monotonic()
    calls = [await stalled(on_sqlite, behind_the_proxy(url)) for _ in range(AT_ONCE_MAX)]
    await under_way(on_sqlite, AT_ONCE_MAX)
    reply = await on_sqlite.post(url, told(name, "delivered"))
    assert (reply.status, reply.headers["Retry-After"]) == (503, "1")
    assert (await on_sqlite.call("/receipts/x/y", data=b"")).status == 404
    assert (await on_sqlite.call("/healthz", method="GET")).status == 200
    answers = await asyncio.gather(*(reader.readline() for reader, _ in calls))
    assert REQUEST_SECONDS - 1 < time.monotonic() - began < REQUEST_SECONDS + 5
    assert set(answers) == {b"HTTP/1.1 503 Service Unavailable\r\n"}
    assert (await on_sqlite.post(url, told(name, "delivered"))).status == 204
    assert state_of(await on_sqlite.status(tracking_id)) == "DELIVERED"
    for _, writer in calls:
        writer.close()


async def test_who_leaves_in_the_middle_leaves_room(on_sqlite: HttpGateway, twilio: TwilioUpstream) -> None:
    """A connection that is cut before its body has come counts no longer."""
    _, name, url = await sent(on_sqlite, twilio)
    for _ in range(3):
        calls = [await stalled(on_sqlite, behind_the_proxy(url)) for _ in range(AT_ONCE_MAX)]
        await under_way(on_sqlite, AT_ONCE_MAX)
        for _, writer in calls:
            writer.transport.abort()
        await under_way(on_sqlite, 0)
    assert (await on_sqlite.post(url, told(name, "delivered"))).status == 204


async def test_a_stop_answers_what_is_under_way(database_url: str, twilio: TwilioUpstream) -> None:
    """A receipt whose body is half here when the stop begins is kept and answered; new callers find nobody."""
    async with HttpGateway(database_url) as edge:
        await edge.configure_twilio(twilio.base_url)
        tracking_id, name, url = await sent(edge, twilio)
        fields = told(name, "delivered")
        body = urlencode(fields).encode()
        signed = f"{len(body)}\r\nX-Twilio-Signature: {signature(url, fields, TOKEN)}"
        reader, writer = await _begin(edge, behind_the_proxy(url), signed)
        writer.write(body[:10])
        await under_way(edge, 1)
        edge.application.http.drain()
        assert (await edge.call("/healthz", method="GET")).status == 503
        stopping = asyncio.create_task(edge.application.http.stop())
        await eventually(lambda: _is_refused(edge))
        writer.write(body[10:])
        assert await reader.readline() == b"HTTP/1.1 204 No Content\r\n"
        async with asyncio.timeout(5.0):
            await stopping
        assert state_of(await edge.status(tracking_id)) == "DELIVERED"
        writer.close()


async def _is_refused(edge: HttpGateway) -> bool:
    host, _, port = edge.http.rpartition(":")
    try:
        _, writer = await asyncio.open_connection(host, int(port))
    except ConnectionError:
        return True
    writer.close()
    return False


async def _begin(edge: HttpGateway, target: str, length: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, _, port = edge.http.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"POST {target} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n".encode())
    return reader, writer


async def test_a_start_is_refused_where_its_address_is_taken(sqlite_url: str, tmp_path: Path) -> None:
    """StartRefused with the address of HTTP, and nothing is left running."""
    async with HttpGateway(sqlite_url) as edge:
        settings = edge.settings.model_copy(update={"database_url": f"sqlite:///{tmp_path / 'second' / 'angarium.db'}"})
        second = await app.build(settings)
        with pytest.raises(app.StartRefused, match=edge.http):
            await second.start()
