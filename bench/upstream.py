"""A provider on loopback that answers `sms/send` and `sms/status` in Kavenegar's format, at the least cost.

It notes when it had read each request whole (CLOCK_MONOTONIC, which all processes of this machine share) by the number
that the text begins with. Every message is delivered when it is first asked for.
"""

import asyncio
import itertools
import json
import re
import time
from typing import Any
from urllib.parse import unquote

from bench.children import obey, run

_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_NUMBER = re.compile(rb"message=n(\d+)")
_RECEPTOR = re.compile(rb"receptor=(\d+)")
_IDS = re.compile(rb"messageid=([^&]*)")
DELIVERED = 10
QUEUED = 1


class Ledger:
    """What came in since it was last cleared."""

    def __init__(self) -> None:
        self.names = itertools.count(1)
        self.read_at: dict[int, int] = {}

    async def clear(self) -> dict[str, Any]:
        """Forget everything."""
        self.read_at = {}
        return {}

    async def taken(self) -> dict[str, Any]:
        """How many sends there were."""
        return {"count": len(self.read_at)}

    async def stamps(self) -> dict[str, Any]:
        """When each send was read."""
        return {"read_at": self.read_at}


class Conversation(asyncio.Protocol):
    """One connection."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._unread = b""
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._unread += data
        while True:
            head, gap, rest = self._unread.partition(b"\r\n\r\n")
            found = _LENGTH.search(head)
            length = int(found[1]) if found else 0
            if not gap or len(rest) < length:
                return
            self._unread = rest[length:]
            self._transport.write(_answer(self._entries(head, rest[:length])))

    def _entries(self, head: bytes, body: bytes) -> list[dict[str, object]]:
        if b"/sms/send.json " not in head:
            asked = _IDS.search(body)
            names = unquote(asked[1].decode()).split(",") if asked else []
            return [{"messageid": int(name), "status": DELIVERED, "statustext": "delivered"} for name in names]
        number, receptor = _NUMBER.search(body), _RECEPTOR.search(body)
        assert number
        assert receptor
        self._ledger.read_at[int(number[1])] = time.monotonic_ns()
        return [_taken(next(self._ledger.names), receptor[1].decode())]


def _taken(name: int, receptor: str) -> dict[str, object]:
    return {
        "messageid": name,
        "message": "",
        "status": QUEUED,
        "statustext": "in queue",
        "sender": "10004346",
        "receptor": receptor,
        "date": 1_790_000_000,
        "cost": 120,
    }


def _answer(entries: list[dict[str, object]]) -> bytes:
    body = json.dumps({"return": {"status": 200, "message": "ok"}, "entries": entries}).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


async def main() -> None:
    ledger = Ledger()
    server = await asyncio.get_running_loop().create_server(lambda: Conversation(ledger), "127.0.0.1", 0)
    verbs = {"clear": ledger.clear, "taken": ledger.taken, "stamps": ledger.stamps}
    await obey(verbs, port=server.sockets[0].getsockname()[1])
    server.close()


if __name__ == "__main__":
    run(main)
