"""A trial: a gateway under load and under a fault, and everything noted that its judge needs.

Whoever calls, whoever provides and whoever watches stays outside the processes that are tried.
"""

import asyncio
import itertools
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from random import Random
from typing import Self

import grpc

from server.model.clock import SECOND, Micros
from tests.api.edge import bearer
from tests.gateway import EAGER, GatewayProcess, eventually, key_of
from tests.ledger import SEND, Entry, Ledger
from tests.proof.callers import CALL_SECONDS, Caller, Watcher, now_micros
from tests.proof.checker import violations_of
from tests.proof.dump import read_dump
from tests.proof.ground import Ground, Peek
from tests.proof.history import Canary, Dump, History, Watch
from tests.proof.load import CANARY_PHONE, CANARY_TEXT, Load, Mood, strange_answers
from tests.proof.violations import Violation
from tests.scripted_upstream import ScriptedUpstream

ChannelOptions = Sequence[tuple[str, str | int]]

TENANTS = ("north", "south")
ACCOUNTS = ("one", "two")
CALLERS_PER_TENANT = 4
FOLLOWED_MAX = 10
"""So many messages are watched by themselves."""
TIMEOUT_SECONDS = 2
QUIET_SECONDS = 90.0
LOOK_SECONDS = 0.05
CATCH_UP_SECONDS = 15.0
PATIENCE_SECONDS = 60.0


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

    `environment` is added to each process's; `now` is the database's clock. Callers go from process to process, or with
    `over_all`, the options of a channel, each tenant's by one channel that leads to all of them. Times that a fault
    measures go to `seconds`, what it counts to `counts`, what it finds broken itself to `violations`.
    """

    def __init__(
        self,
        ground: Ground,
        seed: int,
        *,
        environment: Mapping[str, str] | None = None,
        slack_seconds: float = 1.0,
        now: Callable[[], Micros] = now_micros,
        call_seconds: float = CALL_SECONDS,
        over_all: ChannelOptions | None = None,
    ) -> None:
        self.ground = ground
        self.dice = Random(seed)
        self.peek = Peek(ground.url)
        self.counts: defaultdict[str, int] = defaultdict(int)
        self.seconds: defaultdict[str, list[float]] = defaultdict(list)
        self.violations: list[Violation] = []
        self.forbidden: Sequence[str] = ()
        """Words that no process may have logged."""
        self.watchers: defaultdict[int, list[Watcher]] = defaultdict(list)
        """Of each process by its place, who watches a tenant there."""
        self.gateways: list[GatewayProcess] = []
        self.jumps: list[Micros] = []
        """What the database's clock showed right after each time that the fault has moved it."""
        self.boots: dict[int, str] = {}
        """Of each process by its place, the id that it holds messages under."""
        self._environment = {"ANGARIUM_LOG_LEVEL": "DEBUG", **(environment or {})}
        self._slack_seconds = slack_seconds
        self._now = now
        self._call_seconds = call_seconds
        self._over_all = over_all
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
        self.ledger = Ledger(self.ground.folder / "ledger", self._now)
        self._stack.callback(self.ledger.close)
        self.upstream = await ScriptedUpstream(self.ledger).start()
        self._stack.push_async_callback(self.upstream.close)
        self.upstream.always(Mood(self.upstream, self.dice))
        for place in range(self.ground.layout.processes):
            await self._add(place)
        for tenant in TENANTS:
            await self._settle_in(tenant)
        self.load = Load(self._callers, self.dice, call_seconds=self._call_seconds)

    async def _add(self, place: int) -> None:
        gateway = GatewayProcess(self.ground.folder, environment=self._environment, url=self.ground.postgres_url)
        await self._stack.enter_async_context(gateway)
        self.gateways.append(gateway)
        self._note_boot(place)
        channel = grpc.aio.insecure_channel(f"ipv4:{gateway.address}", options=self._over_all or EAGER)
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
        for place, channel in enumerate(self._channels):
            self.watchers[place].append(await self._watched(tenant, secret, channel))
        channels = self._channels
        if self._over_all is not None:
            channels = [await self._channel_over_all(self._over_all)]
            await self._watched(tenant, secret, channels[0])
        self._callers += [self._caller(tenant, secret, channels) for _ in range(CALLERS_PER_TENANT)]

    async def _watched(self, tenant: str, secret: str, channel: grpc.aio.Channel) -> Watcher:
        watcher = Watcher(self._caller(tenant, secret, [channel]), f"watcher of {tenant}")
        self._watchers.append(await self._stack.enter_async_context(watcher))
        await asyncio.wait_for(watcher.ready.wait(), CATCH_UP_SECONDS)
        return watcher

    async def _channel_over_all(self, options: ChannelOptions) -> grpc.aio.Channel:
        addresses = ",".join(gateway.address for gateway in self.gateways)
        return await self._stack.enter_async_context(grpc.aio.insecure_channel(f"ipv4:{addresses}", options=options))

    def caller_at(self, place: int) -> Caller:
        """One more caller, of the first tenant, who goes to one process alone."""
        caller = self._caller(TENANTS[0], self._secrets[0], [self._channels[place]])
        self._callers.append(caller)
        return caller

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

    def has_sent_since(self, began: Micros) -> bool:
        """Whether the upstream has read the text of a message that was first asked for after that, by this clock."""
        texts = {op.text for op in self.load.sends if op.ok and not op.replayed and op.invoked_at >= began}
        return any(request.form["message"] in texts for request in self.upstream.calls(SEND))

    async def within(self, seconds: float, name: str, holds: Callable[[], object], since: float | None = None) -> None:
        """Measure how long it takes until this holds; a violation where that is longer than so many seconds.

        It is counted from `since`, a reading of time.monotonic(), or from now.
        """
        began = time.monotonic() if since is None else since
        await eventually(holds, PATIENCE_SECONDS)
        took = time.monotonic() - began
        self.seconds[name].append(took)
        if took > seconds:
            self.violations.append(Violation("TIME", name, f"{took:.1f} s, {seconds:.0f} s are allowed"))

    def require_answers(self, *bearable: tuple[str, str]) -> None:
        """No call ended by an error but those that the load provokes, and these: their codes and reasons.

        A watch may end by UNAVAILABLE besides.
        """
        ops = [op for caller in self._callers for op in caller.ops]
        self.violations += strange_answers(ops, bearable)
        for watcher in self._watchers:
            strange = [error for error in watcher.errors if not error.startswith(grpc.StatusCode.UNAVAILABLE.name)]
            self.violations += [Violation("ANSWER", watcher.name, error) for error in strange]

    async def judged(self) -> Verdict:
        """End the load, let everything come to its end, and judge the whole history."""
        await self.load.stop()
        self.upstream.always(None)
        undone = await self._quiet()
        history = await self._history()
        late = [Violation("END", id_, f"not done {QUIET_SECONDS:.0f} s after the load") for id_ in sorted(undone)]
        given_up = [Violation("END", op.key, f"never answered: {op.code}") for op in self.load.unanswered]
        self.counts |= {
            "accepted": len({op.tracking_id for op in history.sends if op.ok}),
            "texts": len(history.texts),
            "events": sum(map(len, history.dump.events.values())),
            "unknown answers": sum(op.result == "info" for op in history.ops),
        }
        said = [line for gateway in self.gateways for line in gateway.stderr.splitlines()]
        logged = [Violation("LOG", "stderr", line) for line in said if any(word in line for word in self.forbidden)]
        violations = [*self.violations, *violations_of(history), *late, *given_up, *logged]
        return Verdict(violations, dict(self.counts), dict(self.seconds))

    async def _quiet(self) -> set[str]:
        """The messages that do not come to their end.

        A clock that jumps ahead ends the time in which a provider is asked often: what became of a text that it may
        have is then learned some minutes later.
        """
        deadline = time.monotonic() + QUIET_SECONDS
        awaited = self.peek.unsent if self.jumps else self.peek.undone
        while undone := await asyncio.to_thread(awaited):
            if time.monotonic() > deadline:
                return undone
            await asyncio.sleep(LOOK_SECONDS)
        return set()

    async def _history(self) -> History:
        """All that is known, from one moment between two changes where one comes in time."""
        deadline = time.monotonic() + CATCH_UP_SECONDS
        while True:
            entries = self.ledger.entries()
            dump = await asyncio.to_thread(read_dump, self.ground.url)
            watches = [watcher.watch(complete=True) for watcher in self._watchers]
            still = len(entries) == len(self.ledger.entries()) and self._agree(dump)
            if still or time.monotonic() > deadline:
                return self._history_of(entries, dump, watches)
            await asyncio.sleep(LOOK_SECONDS)

    def _agree(self, dump: Dump) -> bool:
        """Whether every watcher has been told just what the database holds."""
        wanted: Counter[str] = Counter()
        for message in dump.messages.values():
            wanted[message.tenant_id] += message.last_seq
        return all(w.ended.is_set() if w.follows_one else len(w.seen) == wanted[w.tenant_id] for w in self._watchers)

    def _history_of(self, entries: Sequence[Entry], dump: Dump, watches: Sequence[Watch]) -> History:
        return History(
            ops=[op for caller in self._callers for op in caller.ops],
            watches=watches,
            ledger=entries,
            dump=dump,
            logs={gateway.address: gateway.stderr for gateway in self.gateways},
            canaries=self._canaries(),
            accounts={key_of(f"{tenant}-{account}"): tenant for tenant in TENANTS for account in ACCOUNTS},
            slack=int(self._slack_seconds * SECOND),
            jumps=self.jumps,
        )

    def _canaries(self) -> Sequence[Canary]:
        return [
            Canary("a text", CANARY_TEXT),
            Canary("a phone number", CANARY_PHONE[1:]),
            *(Canary("a caller's key", secret) for secret in self._secrets),
            *(Canary("a provider's key", key_of(f"{t}-{a}")) for t in TENANTS for a in ACCOUNTS),
        ]
