"""A provider made of a raw TCP server: it records every request that it read whole and misbehaves as its script says.

Without a script it answers Kavenegar's wire format: each text is taken under an increasing id and delivered, and a
number of the caller's that it has seen is answered with the record of then. It needs nothing but asyncio: a test may
run it in its own loop, and a process of its own may serve a whole system.
"""

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, Protocol, Self
from urllib.parse import parse_qs, urlsplit

READ_SECONDS = 30.0


@dataclass(frozen=True)
class Recorded:
    """One request that was read to its last byte, and which connection it came by (from 1)."""

    number: int
    connection: int
    method: str
    path: str
    form: Mapping[str, str]
    headers: Mapping[str, str]

    @property
    def call(self) -> str:
        """The method of Kavenegar that was called: `sms/send`."""
        return "/".join(self.path.removesuffix(".json").split("/")[-2:])


class Break(Enum):
    """Where the connection is cut instead of a whole answer."""

    BEFORE_READING = auto()
    AFTER_REQUEST = auto()
    MID_STATUS_LINE = auto()
    MID_HEADERS = auto()
    MID_BODY = auto()


@dataclass(frozen=True)
class Say:
    """An answer. `length` lies about the body's; `by_byte_seconds` writes it byte by byte with that pause."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    length: int | None = None
    delay_seconds: float = 0.0
    by_byte_seconds: float = 0.0
    close: bool = False
    close_at_once: bool = False

    def head(self) -> bytes:
        length = len(self.body) if self.length is None else self.length
        headers = {"Content-Type": "application/json", "Content-Length": str(length), **self.headers}
        if self.close:
            headers["Connection"] = "close"
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"HTTP/1.1 {self.status} Scripted\r\n{lines}\r\n".encode()


@dataclass(frozen=True)
class Silence:
    """The request is read and never answered."""


@dataclass(frozen=True)
class Raw:
    """These bytes are the answer, whatever they are; then the connection is cut."""

    answer: bytes


Reply = Say | Break | Silence | Raw | Callable[[Recorded], "Say | Break | Silence | Raw"]


class Notes(Protocol):
    """Is told of every request that was read whole, and keeps it, before anything of the answer leaves."""

    def note(self, request: Recorded, reply: Say | Break | Silence | Raw, *, taken: bool, known: bool) -> None:
        """`taken`: this request made a record; `known`: its number had one before."""
        ...


def envelope(code: int, entries: object = None, http_status: int | None = None, message: str = "scripted") -> Say:
    """Kavenegar's answer with a code in its body, copied to the HTTP status unless another is asked for."""
    body = json.dumps({"return": {"status": code, "message": message}, "entries": entries}).encode()
    return Say(code if http_status is None else http_status, body)


class ScriptedUpstream:
    """Serves from `start()` to `close()`. Replies of `script(...)` come first, one a request, then the default."""

    def __init__(self, ledger: Notes | None = None) -> None:
        self._ledger = ledger
        self.requests: list[Recorded] = []
        self.connections = 0
        self.port = 0
        self.records: dict[str, dict[str, Any]] = {}
        self._script: deque[Reply] = deque()
        self._default: Reply | None = None
        self._by_local_id: dict[str, dict[str, Any]] = {}
        self._statuses: dict[str, tuple[int, ...]] = {}
        self._changed = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> Self:
        self._server = await asyncio.start_server(self._serve, host, port, limit=2**20)
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        for writer in tuple(self._open):
            writer.transport.abort()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._server is not None:
            await self._server.wait_closed()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def script(self, *replies: Reply) -> None:
        """Answers the next requests so, one each, in this order."""
        self._script.extend(replies)

    def always(self, reply: Reply | None) -> None:
        """Answers so whenever the script is empty; None: as Kavenegar would."""
        self._default = reply

    def report(self, message_id: str, *statuses: int) -> None:
        """What the status calls tell of a message from now on; without any, it is not known."""
        self._statuses[message_id] = statuses or (100,)

    def calls(self, call: str) -> Sequence[Recorded]:
        """The requests of one method, in the order they were read."""
        return [request for request in self.requests if request.call == call]

    async def wait_for(self, count: int, timeout_seconds: float = 5.0) -> None:
        """Until so many requests have been read whole."""
        async with asyncio.timeout(timeout_seconds):
            while len(self.requests) < count:
                self._changed.clear()
                await self._changed.wait()

    def drop_connections(self) -> None:
        """Cuts every open connection."""
        for writer in tuple(self._open):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._open.add(writer)
        self.connections += 1
        try:
            await self._talk(reader, writer, self.connections)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._open.discard(writer)
            self._tasks.discard(task)
            writer.transport.abort()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: int) -> None:
        while True:
            if self._script and self._script[0] is Break.BEFORE_READING:
                self._script.popleft()
                return
            request = await self._read(reader, connection)
            self.requests.append(request)
            self._changed.set()
            if not await self._reply(writer, self._noted(request)):
                return

    async def _read(self, reader: asyncio.StreamReader, connection: int) -> Recorded:
        async with asyncio.timeout(READ_SECONDS):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            first, *lines = head.strip().split("\r\n")
            method, path, _ = first.split(" ")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            body = await reader.readexactly(int(headers.get("content-length", "0")))
        form = {name: values[-1] for name, values in parse_qs(body.decode()).items()}
        return Recorded(len(self.requests) + 1, connection, method, urlsplit(path).path, form, headers)

    def _noted(self, request: Recorded) -> Say | Break | Silence | Raw:
        known, count = request.form.get("localid", "") in self._by_local_id, len(self.records)
        reply = self._next(request)
        if self._ledger is not None:
            self._ledger.note(request, reply, taken=len(self.records) > count, known=known)
        return reply

    def _next(self, request: Recorded) -> Say | Break | Silence | Raw:
        reply = self._script.popleft() if self._script else self._default
        if reply is None:
            return self.honest(request)
        return reply if isinstance(reply, Say | Break | Silence | Raw) else reply(request)

    async def _reply(self, writer: asyncio.StreamWriter, reply: Say | Break | Silence | Raw) -> bool:
        """Whether the connection is kept."""
        match reply:
            case Silence():
                await asyncio.sleep(READ_SECONDS)
                return False
            case Raw(answer):
                writer.write(answer)
            case Break():
                writer.write(_cut(reply))
            case Say():
                return await _say(writer, reply)
        await writer.drain()
        with contextlib.suppress(OSError):  # the other side may be gone
            writer.write_eof()
        return False

    def honest(self, request: Recorded) -> Say:
        """What Kavenegar would answer; it may be named in a script too."""
        match request.call:
            case "sms/send":
                return envelope(200, [self._take(request.form)])
            case "sms/status":
                names = request.form["messageid"].split(",")
                return envelope(200, [entry for name in names for entry in self._told(name)])
            case "sms/statuslocalmessageid":
                return envelope(200, [self._found(key) for key in request.form["localid"].split(",")])
            case "account/info":
                return envelope(200, {"remaincredit": 123456, "expiredate": 4102444800, "type": "master"})
            case _:
                return envelope(404)

    def _take(self, form: Mapping[str, str]) -> dict[str, Any]:
        known = self._by_local_id.get(form.get("localid", ""))
        if known is not None:
            return known
        name = str(8_000_000_000 + len(self.records) + 1)
        record = {
            "messageid": int(name),
            "message": form["message"],
            "status": 1,
            "statustext": "queued",
            "sender": form.get("sender", "10004346"),
            "receptor": form["receptor"],
            "date": 1_700_000_000,
            "cost": 120,
        }
        self.records[name] = record
        if form.get("localid"):
            self._by_local_id[form["localid"]] = record
        return record

    def _told(self, name: str) -> list[dict[str, Any]]:
        codes = self._statuses.get(name, (10,) if name in self.records else (100,))
        return [{"messageid": int(name), "status": code, "statustext": "told"} for code in codes]

    def _found(self, key: str) -> dict[str, Any]:
        record = self._by_local_id.get(key)
        status, name = (10, record["messageid"]) if record else (100, 0)
        return {"messageid": name, "localid": key, "status": status, "statustext": "found"}


async def _say(writer: asyncio.StreamWriter, say: Say) -> bool:
    await asyncio.sleep(say.delay_seconds)
    if say.by_byte_seconds:
        writer.write(say.head())
        for byte in say.body:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(say.by_byte_seconds)
    else:
        writer.write(say.head() + say.body)
        await writer.drain()
    if say.close_at_once or say.length not in (None, len(say.body)):
        with contextlib.suppress(OSError):
            writer.write_eof()
        return False
    return not say.close


def _cut(where: Break) -> bytes:
    whole = envelope(200, [{"messageid": 1, "receptor": "09120000111", "status": 1}])
    match where:
        case Break.BEFORE_READING | Break.AFTER_REQUEST:
            return b""
        case Break.MID_STATUS_LINE:
            return b"HTTP/1.1 2"
        case Break.MID_HEADERS:
            return whole.head()[:-20]
        case Break.MID_BODY:
            return whole.head() + whole.body[: len(whole.body) // 2]
