"""The ledger holds every request that the upstream read whole, before the answer to it leaves."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from urllib.parse import urlencode

import pytest

from tests.ledger import LOOK_UP, SEND, Did, Entry, Ledger, read_ledger
from tests.scripted_upstream import Break, Raw, Recorded, Reply, Say, ScriptedUpstream, Silence, envelope

ANSWER_SECONDS = 0.3
RECORD = {"messageid": 1, "receptor": "09121234567", "status": 1}


@pytest.fixture
async def upstream(tmp_path: Path) -> AsyncIterator[ScriptedUpstream]:
    ledger = Ledger(tmp_path / "ledger")
    running = await ScriptedUpstream(ledger=ledger).start()
    yield running
    await running.close()
    ledger.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger"


async def ask(
    upstream: ScriptedUpstream, form: Mapping[str, str], *, call: str = SEND, cut_at: int | None = None
) -> bytes:
    """What is answered within a moment; `cut_at`: the request ends after so many bytes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", upstream.port)
    body = urlencode(form).encode()
    head = f"POST /v1/KEY-1/{call}.json HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    writer.write((head + body)[:cut_at])
    answer = b""
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            while piece := await reader.read(4096):
                answer += piece
    except (TimeoutError, ConnectionError):
        pass
    finally:
        writer.close()
    return answer


def text(number: str = "71") -> dict[str, str]:
    return {"receptor": "09121234567", "message": "سلام\u2028\n", "localid": number}


def tear(path: Path) -> None:
    """The last line once more, without its end."""
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:-20])


def take_and_cut(upstream: ScriptedUpstream) -> Reply:
    def reply(request: Recorded) -> Break:
        upstream.honest(request)
        return Break.MID_BODY

    return reply


async def test_a_text_that_was_taken_stands_in_it_with_all_that_names_it(
    upstream: ScriptedUpstream, path: Path
) -> None:
    """Account, number, recipient and text, whatever characters it has."""
    assert b"200" in await ask(upstream, text())
    [entry] = read_ledger(path)
    assert entry == Entry(
        at=entry.at,
        number=1,
        connection=1,
        account="KEY-1",
        call=SEND,
        did=Did.ACCEPT,
        taken=True,
        known=False,
        status=200,
        code=200,
        localid="71",
        receptor="09121234567",
        text="سلام\u2028\n",
    )


@pytest.mark.parametrize(
    ("reply", "did", "taken", "status"),
    [
        (envelope(418), Did.REFUSE, False, 418),
        (Say(500, b"<html>"), Did.REFUSE, False, 500),
        (envelope(200, [RECORD]), Did.ACCEPT, True, 200),
        (Silence(), Did.LOSE, False, 0),
        (Raw(b"HTTP"), Did.RESET, False, 0),
        (Break.AFTER_REQUEST, Did.RESET, False, 0),
        (Say(200, b"{}", length=9), Did.RESET, False, 0),
        (Say(429, b"{}", delay_seconds=0.01), Did.LATE, False, 429),
        (Say(200, b"{}", by_byte_seconds=0.001), Did.SLOW, False, 200),
    ],
)
async def test_what_it_did_stands_in_it(
    upstream: ScriptedUpstream, path: Path, reply: Reply, did: Did, taken: bool, status: int
) -> None:
    """Whatever the script says, the ledger tells what became of the request."""
    upstream.script(reply)
    await ask(upstream, text())
    [entry] = read_ledger(path)
    assert (entry.did, entry.taken, entry.status) == (did, taken, status)


async def test_a_text_whose_answer_was_lost_is_taken(upstream: ScriptedUpstream, path: Path) -> None:
    """Taking and answering are two things; the second call under the number is told the first one's record."""
    upstream.script(take_and_cut(upstream))
    await ask(upstream, text())
    await ask(upstream, text())
    await ask(upstream, text("72"))
    told = [(entry.did, entry.taken, entry.known) for entry in read_ledger(path)]
    assert told == [(Did.RESET, True, False), (Did.DEDUPE, False, True), (Did.ACCEPT, True, False)]


async def test_a_look_up_stands_in_it_with_what_was_found(upstream: ScriptedUpstream, path: Path) -> None:
    """The proof that a number was never taken, or was."""
    await ask(upstream, text())
    await ask(upstream, {"localid": "71,72"}, call=LOOK_UP)
    entry = read_ledger(path)[-1]
    assert (entry.did, entry.taken, entry.found) == (Did.ANSWER, False, {"71": 10, "72": 100})


@pytest.mark.parametrize("cut_at", [20, 80, -1])
async def test_what_was_not_read_whole_is_not_in_it(upstream: ScriptedUpstream, path: Path, cut_at: int) -> None:
    """Bytes that did not all arrive make no text."""
    await ask(upstream, text(), cut_at=cut_at)
    assert read_ledger(path) == []


async def test_a_line_that_was_torn_does_not_count(upstream: ScriptedUpstream, path: Path) -> None:
    """Its request was never answered."""
    await ask(upstream, text())
    tear(path)
    assert len(read_ledger(path)) == 1


async def test_it_is_on_the_disk_before_the_answer_leaves(upstream: ScriptedUpstream, path: Path) -> None:
    """Whoever has read the first byte of an answer finds the request in the file."""
    for number in range(20):
        reader, writer = await asyncio.open_connection("127.0.0.1", upstream.port)
        body = urlencode(text(str(number))).encode()
        writer.write(b"POST /v1/K/sms/send.json HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        await reader.readexactly(1)
        assert read_ledger(path)[-1].localid == str(number)
        writer.close()
