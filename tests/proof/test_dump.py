"""What a run leaves on either engine, read from outside, is what its callers were told."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from angarium.v1.message_pb2 import Recipient
from angarium.v1.notification_service_pb2 import SendRequest

from tests.gateway import Gateway, key_of
from tests.ledger import SEND, Ledger
from tests.proof.callers import Caller, Watcher
from tests.proof.checker import violations_of
from tests.proof.dump import read_dump
from tests.proof.history import Canary, Dump, History, Result
from tests.scripted_upstream import Break, ScriptedUpstream

MESSAGES = 9
PHONES = "91234567"
WAIT_SECONDS = 20.0


@pytest.fixture
async def ledger(tmp_path: Path) -> AsyncIterator[Ledger]:
    ledger = Ledger(tmp_path / "ledger")
    yield ledger
    ledger.close()


@pytest.fixture
async def upstream(ledger: Ledger) -> AsyncIterator[ScriptedUpstream]:
    running = await ScriptedUpstream(ledger=ledger).start()
    yield running
    await running.close()


def request_of(number: int, text: str = "a canary sings") -> SendRequest:
    return SendRequest(
        request_id=f"dump-{number}", intent="DUMP", recipient=Recipient(phone=f"+98{PHONES}{number:02}"), text=text
    )


async def dumped(url: str, count: int) -> Dump:
    """What the database holds as soon as so many messages are done."""
    async with asyncio.timeout(WAIT_SECONDS):
        while True:
            dump = await asyncio.to_thread(read_dump, url)
            if sum(message.done for message in dump.messages.values()) == count:
                return dump
            await asyncio.sleep(0.05)


async def test_a_run_keeps_every_promise_as_seen_from_outside(
    database_url: str, upstream: ScriptedUpstream, ledger: Ledger
) -> None:
    """Callers, watchers, ledger and database of one run agree, a stranger learns nothing, and it all was looked at."""
    async with Gateway(database_url) as gateway:
        await gateway.configure_kavenegar(upstream.base_url)
        await gateway.tenant("other")
        _, secret = await gateway.secret("send", "read", tenant_id="other", client_id="stranger")
        operator = Caller(lambda: gateway.channel, gateway.operator, "default", "operator")
        stranger = Caller(lambda: gateway.channel, (("authorization", f"Bearer {secret}"),), "other", "stranger")
        upstream.script(Break.AFTER_REQUEST)
        async with Watcher(operator, "the tenant's") as watcher, Watcher(stranger, "the stranger's") as other:
            await asyncio.gather(watcher.ready.wait(), other.ready.wait())
            for number in range(MESSAGES):
                await operator.send(request_of(number))
                watcher.cut()
            await operator.send(request_of(0))
            assert (await operator.send(request_of(0, "another text"))).result == Result.FAIL
            for op in operator.ops[:MESSAGES]:
                assert (await stranger.status(op.tracking_id)).code == "NOT_FOUND"
                assert (await stranger.cancel(op.tracking_id)).code == "NOT_FOUND"
            async with Watcher(operator, "one message's", operator.ops[0].tracking_id) as single:
                dump = await dumped(database_url, MESSAGES)
                await asyncio.wait_for(single.ended.wait(), WAIT_SECONDS)
            await watcher.saw(sum(map(len, dump.events.values())), WAIT_SECONDS)
    history = History(
        ops=[*operator.ops, *stranger.ops],
        watches=[one.watch(complete=True) for one in (watcher, other, single)],
        ledger=ledger.entries(),
        dump=dump,
        canaries=[Canary("phone", PHONES), Canary("text", "a canary sings"), Canary("key", key_of("kavenegar"))],
        accounts={key_of("kavenegar"): "default"},
    )
    assert violations_of(history) == []
    assert len([entry for entry in history.ledger or () if entry.call == SEND]) > MESSAGES
    assert watcher.connections > 1
    assert len(dump.messages) == len(dump.keys) == MESSAGES
