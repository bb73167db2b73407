"""What a gateway accepted is there when the power is back, and nothing was sent that it then forgot."""

import asyncio
import os
import random
import shutil
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from angarium.v1.access_service_pb2 import WhoAmIRequest
from angarium.v1.message_pb2 import MessageClass, Recipient
from angarium.v1.notification_service_pb2 import SendRequest

from server.model.clock import SECOND
from server.model.enums import OutcomeKind
from tests.gateway import ROOT, GatewayProcess, key_of
from tests.ledger import SEND, Ledger, read_ledger
from tests.proof.callers import Caller, Watcher
from tests.proof.checker import violations_of
from tests.proof.dump import read_dump
from tests.proof.history import Canary, History, Op
from tests.proof.powercut import Disk
from tests.scripted_upstream import Break, Recorded, Reply, Say, ScriptedUpstream, envelope

CUTS = int(os.environ.get("POWER_CUTS", "3"))
CARELESS_CUTS_MAX = 5
CALLERS = 16
LOAD_SECONDS = 0.6
FINISH_SECONDS = 60.0
POLL_SECONDS = 0.1
PHONES = "91234567"
KEY_FILE = "operator.key"
TENANT, CLIENT = "default", "operator"
CLASSES = ("OTP", "TRANSACTIONAL", "BULK")


@pytest.fixture
async def upstream(tmp_path: Path) -> AsyncIterator[ScriptedUpstream]:
    ledger = Ledger(tmp_path / "ledger")
    running = await ScriptedUpstream(ledger=ledger).start()
    yield running
    await running.close()
    ledger.close()


class Power:
    """A gateway whose power is cut again and again; what was on the disk is what the next one finds."""

    def __init__(self, parent: Path, seed: int, early_permille: int = 0, command: Sequence[str] | None = None) -> None:
        self.disk = Disk.under(parent, "disk-0", early_permille=early_permille, seed=seed)
        self.dice = random.Random(seed)
        self.caller = Caller(lambda: self.gateway.channel, (), TENANT, CLIENT)
        self.logs: dict[str, str] = {}
        self._command = command
        self._number = 0
        self._sent = 0
        self._new_gateway()

    async def on(self) -> None:
        """Start on what the disk holds."""
        self.gateway.start()
        await self.gateway.serving()
        self.caller.metadata = self.gateway.operator

    async def cut(self) -> None:
        """Cut the power; the next gateway is not started yet."""
        self.gateway.kill()
        await self.gateway.ended()
        await self.off()
        self._number += 1
        key = (self.disk.folder / KEY_FILE).read_bytes()
        self.disk = self.disk.after_cut(f"disk-{self._number}", seed=self._number)
        # The operator keeps its key elsewhere; whether it is on the disk is a claim of its own.
        (self.disk.folder / KEY_FILE).write_bytes(key)
        self._new_gateway()

    async def off(self) -> None:
        """Stop, in good order where it still runs."""
        await self.gateway.__aexit__()
        self._keep_log()

    async def load(self, seconds: float) -> None:
        """Callers send one message after the other until the power is cut, so long after the first was accepted."""
        before, deadline = len(self.accepted), time.monotonic() + FINISH_SECONDS
        callers = [asyncio.create_task(self._send_on()) for _ in range(CALLERS)]
        while len(self.accepted) == before:
            assert time.monotonic() < deadline, f"nothing is accepted: {self.caller.ops[-1]}"
            await asyncio.sleep(POLL_SECONDS / 10)
        await asyncio.sleep(seconds)
        await self.cut()
        for task in callers:
            task.cancel()
        await asyncio.gather(*callers, return_exceptions=True)

    async def _send_on(self) -> None:
        while True:
            self._sent += 1
            if not (await self.caller.send(request_of(self._sent))).ok:
                return

    def _keep_log(self) -> None:
        self.logs[self.gateway.address] = self.gateway.stderr

    def _new_gateway(self) -> None:
        self.gateway = GatewayProcess(self.disk.folder, self._command, self.disk.environment)

    @property
    def url(self) -> str:
        return f"sqlite:///{self.disk.folder / 'angarium.db'}"

    @property
    def accepted(self) -> list[Op]:
        return [op for op in self.caller.ops if op.made and op.ok]


def request_of(number: int) -> SendRequest:
    return SendRequest(
        request_id=f"cut-{number}",
        intent="CUT",
        recipient=Recipient(phone=f"+98{PHONES}{number % 100:02}"),
        text=f"canary in a coal mine {number}",
        message_class=MessageClass.Value(f"MESSAGE_CLASS_{CLASSES[number % 3]}"),
    )


def weather(upstream: ScriptedUpstream, seed: int) -> Reply:
    """Most texts are taken and answered; of some the answer is lost, some are lost themselves, some are refused."""
    dice = random.Random(seed)

    def reply(request: Recorded) -> Say | Break:
        fate = dice.random() if request.call == SEND else 1.0
        if fate < 0.1:
            return Break.AFTER_REQUEST
        if fate < 0.15:
            return envelope(409)
        answer = upstream.honest(request)
        return Break.MID_BODY if fate < 0.25 else answer

    return reply


@asynccontextmanager
async def power_for(parent: Path, **options: Any) -> AsyncIterator[Power]:
    power = Power(parent, **options)
    try:
        await power.on()
        yield power
    finally:
        await power.off()


async def found(power: Power, ops: Sequence[Op]) -> set[str]:
    """Those of the accepted messages that the gateway knows."""
    gate = asyncio.Semaphore(CALLERS)

    async def ask(op: Op) -> Op:
        async with gate:
            return await power.caller.status(op.tracking_id)

    asked = await asyncio.gather(*map(ask, ops))
    assert all(op.ok or op.code == "NOT_FOUND" for op in asked), {op.error for op in asked}
    return {op.tracking_id for op in asked if op.ok}


async def finished(power: Power) -> None:
    """Until no message waits for its hand-off any more."""
    deadline = time.monotonic() + FINISH_SECONDS
    while any(not m.done for m in (await asyncio.to_thread(read_dump, power.url)).messages.values()):
        assert time.monotonic() < deadline, "some messages do not come to an end"
        await asyncio.sleep(POLL_SECONDS)


@pytest.mark.timeout(100 + 20 * CUTS)
@pytest.mark.parametrize("early_permille", [0, 300], ids=["nothing-early", "some-early"])
async def test_what_was_accepted_is_there_after_a_power_cut(
    tmp_path: Path, upstream: ScriptedUpstream, early_permille: int
) -> None:
    """After each cut under load every message that was accepted is found, and in the end all promises are kept.

    POWER_CUTS in the environment: how many cuts, 3 without it.
    """
    upstream.always(weather(upstream, early_permille))
    async with power_for(tmp_path, seed=early_permille + 11, early_permille=early_permille) as power:
        await power.gateway.configure_kavenegar(upstream.base_url)
        async with Watcher(power.caller, "the tenant's") as watcher:
            await asyncio.wait_for(watcher.ready.wait(), FINISH_SECONDS)
            for _ in range(CUTS):
                before = len(power.accepted)
                await power.load(power.dice.random() * LOAD_SECONDS)
                await power.on()
                new = power.accepted[before:]
                assert await found(power, new) == {op.tracking_id for op in new}
            await finished(power)
            dump = await asyncio.to_thread(read_dump, power.url)
            await watcher.saw(sum(map(len, dump.events.values())), FINISH_SECONDS)
        await power.off()
    history = History(
        ops=power.caller.ops,
        watches=[watcher.watch(complete=True)],
        ledger=read_ledger(tmp_path / "ledger"),
        dump=dump,
        logs=power.logs,
        canaries=[
            Canary("phone", PHONES),
            Canary("text", "canary in a coal mine"),
            Canary("key", key_of("kavenegar")),
        ],
        slack=SECOND,
    )
    assert violations_of(history) == []
    assert {a.outcome for attempts in dump.attempts.values() for a in attempts} > {OutcomeKind.ACCEPTED}


async def test_a_gateway_that_does_not_sync_loses_what_it_accepted(tmp_path: Path, upstream: ScriptedUpstream) -> None:
    """The same cuts find the gateway out whose database runs with synchronous=NORMAL."""
    async with power_for(tmp_path, seed=5, command=careless_gateway(tmp_path)) as power:
        await power.gateway.configure_kavenegar(upstream.base_url)
        lost = 0
        for _ in range(CARELESS_CUTS_MAX):
            before = len(power.accepted)
            await power.load(power.dice.random() * LOAD_SECONDS)
            await power.on()
            new = power.accepted[before:]
            lost += len(new) - len(await found(power, new))
            if lost:
                break
    assert lost


async def test_a_power_cut_after_the_first_start_leaves_the_operator_its_key(tmp_path: Path) -> None:
    """The key that opens the database is on the disk by the time that the database knows it."""
    disk = Disk.under(tmp_path, "disk")
    async with GatewayProcess(disk.folder, environment=disk.environment) as gateway:
        gateway.kill()
        await gateway.ended()
    left = disk.after_cut("left")
    async with GatewayProcess(left.folder) as gateway:
        await gateway.stubs.access.WhoAmI(WhoAmIRequest())


def careless_gateway(folder: Path) -> Sequence[str]:
    """A copy of the server that syncs only at checkpoints, and how to run it."""
    shutil.copytree(ROOT / "server", folder / "careless" / "server", ignore=shutil.ignore_patterns("__pycache__"))
    source = folder / "careless" / "server" / "store" / "sqlite.py"
    before = source.read_text()
    assert before.count('"synchronous=FULL"') == 1
    source.write_text(before.replace('"synchronous=FULL"', '"synchronous=NORMAL"'))
    first = f"import runpy, sys; sys.path.insert(0, {str(source.parents[2])!r})"
    return (sys.executable, "-c", f"{first}; runpy.run_module('server', run_name='__main__')")
