"""A trial: a gateway under load and under a fault, and everything noted that its judge needs.

Whoever calls, whoever provides and whoever watches stays outside the processes that are tried.
"""

import asyncio
import itertools
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from random import Random
from typing import Self

import grpc

from server.model.clock import SECOND
from tests.api.edge import bearer
from tests.gateway import EAGER, GatewayProcess, eventually, key_of
from tests.ledger import Ledger
from tests.proof.callers import Caller, Watcher
from tests.proof.checker import violations_of
from tests.proof.dump import read_dump
from tests.proof.ground import Ground, Peek
from tests.proof.history import Canary, Dump, History
from tests.proof.load import CANARY_PHONE, CANARY_TEXT, Load, Mood
from tests.proof.violations import Violation
from tests.scripted_upstream import ScriptedUpstream

TENANTS = ("north", "south")
ACCOUNTS = ("one", "two")
CALLERS_PER_TENANT = 4
FOLLOWED_MAX = 10
"""So many messages are watched by themselves."""
TIMEOUT_SECONDS = 2
QUIET_SECONDS = 90.0
LOOK_SECONDS = 0.05
CATCH_UP_SECONDS = 15.0


@dataclass(frozen=True)
class Verdict:
    """What a trial has shown. `seconds` are the times that its fault measured, by what they measure."""

    violations: Sequence[Violation]
    counts: Mapping[str, int]
    seconds: Mapping[str, Sequence[float]] = field(default_factory=dict[str, Sequence[float]])

    def require(self) -> None:
        """Fail with every violation."""
        assert not self.violations, "\n".join(map(str, sorted(self.violations)))


class Trial:
    """From its start to its judgement; use as an asynchronous context manager, and `load.start()` when it is to begin.

    `environment` is added to each process's. Times that a fault measures go to `seconds`, what it counts to `counts`.
    """

    def __init__(
        self,
        ground: Ground,
        seed: int,
        *,
        environment: Mapping[str, str] | None = None,
        honest_share: float = 0.75,
        slack_seconds: float = 1.0,
    ) -> None:
        self.ground = ground
        self.dice = Random(seed)
        self.peek = Peek(ground.url)
        self.counts: defaultdict[str, int] = defaultdict(int)
        self.seconds: defaultdict[str, list[float]] = defaultdict(list)
        self.gateways: list[GatewayProcess] = []
        self.boots: dict[int, str] = {}
        """Of each process by its place, the id that it holds messages under."""
        self._environment = {"ANGARIUM_LOG_LEVEL": "DEBUG", **(environment or {})}
        self._honest_share = honest_share
        self._slack_seconds = slack_seconds
        self._known_boots: set[str] = set()
        self._secrets: list[str] = []
        self._channels: list[grpc.aio.Channel] = []
        self._watchers: list[Watcher] = []
        self._callers: list[Caller] = []
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        try:
            await self._set_up()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def _set_up(self) -> None:
        self.ledger = Ledger(self.ground.folder / "ledger")
        self._stack.callback(self.ledger.close)
        self.upstream = await ScriptedUpstream(self.ledger).start()
        self._stack.push_async_callback(self.upstream.close)
        self.upstream.always(Mood(self.upstream, self.dice, honest_share=self._honest_share))
        for place in range(self.ground.layout.processes):
            await self._add(place)
        for tenant in TENANTS:
            await self._settle_in(tenant)
        self.load = Load(self._callers, self.dice)

    async def _add(self, place: int) -> None:
        gateway = GatewayProcess(self.ground.folder, environment=self._environment, url=self.ground.postgres_url)
        await self._stack.enter_async_context(gateway)
        self.gateways.append(gateway)
        self._note_boot(place)
        channel = grpc.aio.insecure_channel(gateway.address, options=EAGER)
        self._channels.append(channel)
        self._stack.push_async_callback(channel.close)

    async def _settle_in(self, tenant: str) -> None:
        """A tenant with two accounts, its callers, and a watcher of all its messages at each process."""
        first = self.gateways[0]
        await first.tenant(tenant)
        names = [f"{tenant}-{account}" for account in ACCOUNTS]
        for name in names:
            await first.configure_kavenegar(
                self.upstream.base_url, name, tenant_id=tenant, timeout_seconds=TIMEOUT_SECONDS
            )
        await first.route(*names, tenant_id=tenant)
        _, secret = await first.secret("send", "read", tenant_id=tenant)
        self._secrets.append(secret)
        for channel in self._channels:
            watcher = Watcher(self._caller(tenant, secret, [channel]), f"watcher of {tenant}")
            self._watchers.append(await self._stack.enter_async_context(watcher))
            await asyncio.wait_for(watcher.ready.wait(), CATCH_UP_SECONDS)
        self._callers += [self._caller(tenant, secret, self._channels) for _ in range(CALLERS_PER_TENANT)]

    def _caller(self, tenant: str, secret: str, channels: Sequence[grpc.aio.Channel]) -> Caller:
        """A caller that goes from process to process."""
        turns = itertools.cycle(channels)
        return Caller(lambda: next(turns), bearer(secret), tenant, "shop")

    async def follow(self, count: int = FOLLOWED_MAX) -> None:
        """Watch so many of the messages that were accepted last, each by itself, from its first event."""
        for caller in self._callers:
            mine = [op.tracking_id for op in caller.ops if op.ok and op.made and op.tenant_id == caller.tenant_id]
            for id_ in mine[-max(1, count // len(self._callers)) :]:
                watching = Caller(caller.connect, caller.metadata, caller.tenant_id, caller.client_id)
                watcher = Watcher(watching, f"watcher of {id_}", id_)
                self._watchers.append(await self._stack.enter_async_context(watcher))

    async def revive(self, place: int, command: Sequence[str] | None = None) -> float:
        """Start a process again that has ended; how long until it served."""
        gateway = self.gateways[place]
        began = time.monotonic()
        gateway.start(command)
        await gateway.serving()
        took = time.monotonic() - began
        self._note_boot(place)
        return took

    def _note_boot(self, place: int) -> None:
        """The id of the process that was started last: the one that nobody knew before."""
        self.boots[place] = max(self.peek.workers() - self._known_boots)
        self._known_boots.add(self.boots[place])

    async def forgotten(self, boot: str, seconds: float = 30.0) -> None:
        """Until nothing is held in the name of a dead process, and its row is gone."""

        async def gone() -> bool:
            return boot not in await asyncio.to_thread(self.peek.holders)

        await eventually(gone, seconds)

    async def judged(self) -> Verdict:
        """End the load, let everything come to its end, and judge the whole history."""
        await self.load.stop()
        self.upstream.always(None)
        undone = await self._quiet()
        dump = await self._caught_up()
        history = self._history(dump)
        late = [Violation("END", id_, f"not done {QUIET_SECONDS:.0f} s after the load") for id_ in sorted(undone)]
        given_up = [Violation("END", op.key, f"never answered: {op.code}") for op in self.load.unanswered]
        self.counts |= {
            "accepted": len({op.tracking_id for op in history.sends if op.ok}),
            "texts": len(history.texts),
            "events": sum(map(len, dump.events.values())),
            "unknown answers": sum(op.result == "info" for op in history.ops),
        }
        return Verdict([*violations_of(history), *late, *given_up], dict(self.counts), dict(self.seconds))

    async def _quiet(self) -> set[str]:
        deadline = time.monotonic() + QUIET_SECONDS
        while undone := await asyncio.to_thread(self.peek.undone):
            if time.monotonic() > deadline:
                return undone
            await asyncio.sleep(LOOK_SECONDS)
        return set()

    async def _caught_up(self) -> Dump:
        """What the database holds once every watcher has been told as much, or had the time for it."""
        deadline = time.monotonic() + CATCH_UP_SECONDS
        while True:
            dump = await asyncio.to_thread(read_dump, self.ground.url)
            if self._told(dump) or time.monotonic() > deadline:
                return dump
            await asyncio.sleep(LOOK_SECONDS)

    def _told(self, dump: Dump) -> bool:
        wanted: Counter[str] = Counter()
        for message in dump.messages.values():
            wanted[message.tenant_id] += message.last_seq
        return all(w.ended.is_set() if w.follows_one else len(w.seen) >= wanted[w.tenant_id] for w in self._watchers)

    def _history(self, dump: Dump) -> History:
        return History(
            ops=[op for caller in self._callers for op in caller.ops],
            watches=[watcher.watch(complete=True) for watcher in self._watchers],
            ledger=self.ledger.entries(),
            dump=dump,
            logs={gateway.address: gateway.stderr for gateway in self.gateways},
            canaries=self._canaries(),
            accounts={key_of(f"{tenant}-{account}"): tenant for tenant in TENANTS for account in ACCOUNTS},
            slack=int(self._slack_seconds * SECOND),
        )

    def _canaries(self) -> Sequence[Canary]:
        return [
            Canary("a text", CANARY_TEXT),
            Canary("a phone number", CANARY_PHONE[1:]),
            *(Canary("a caller's key", secret) for secret in self._secrets),
            *(Canary("a provider's key", key_of(f"{t}-{a}")) for t in TENANTS for a in ACCOUNTS),
        ]
