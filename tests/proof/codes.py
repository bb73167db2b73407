"""kill -9 while codes are sent, checked and reported on: each verifies once, costs what was checked, ends its texts.

The upstream is the sandbox's own, with Twilio's wire format: it posts its receipts to the process that handed off, just
when the next step is due. Callers repeat every call until it is answered.
"""

import asyncio
import itertools
import signal
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from random import Random
from typing import Any

import grpc
from angarium.v1 import message_pb2 as messages, otp_service_pb2 as otp, otp_service_pb2_grpc as otp_grpc
from angarium.v1.provider_service_pb2 import ConfigureProviderRequest
from angarium.v1.routing_service_pb2 import RouteStep, RoutingRule, SetRoutingRulesRequest
from angarium.v1.sandbox_service_pb2 import PeekOutboxRequest
from angarium.v1.sandbox_service_pb2_grpc import SandboxServiceStub
from angarium.v1.template_service_pb2 import CreateTemplateRequest, Template
from sqlalchemy import NullPool, create_engine, make_url, text

from server.model.clock import SECOND, Micros
from server.model.enums import Channel, EventKind, Stop
from server.model.messages import Message
from server.model.policy import sends_max
from server.sandbox import upstream
from tests.api.edge import bearer
from tests.cluster import free_port
from tests.crashing import CODE_POINTS
from tests.gateway import GatewayProcess, eventually
from tests.proof.dump import read_dump
from tests.proof.ground import Ground, Layout
from tests.proof.history import Dump
from tests.proof.kills import CAREFUL, DEATH_SECONDS, Aim, When
from tests.proof.scenario import Scenario
from tests.proof.trial import QUIET_SECONDS, Verdict
from tests.proof.violations import Violation

CALLERS = 6
CALL_SECONDS = 5.0
REPEAT_SECONDS = 0.1
ANSWERED_SECONDS = 60.0
"""For so long a call is repeated."""
SETTLE_SECONDS = 1.0
"""So long after a text was taken its receipt is posted, and its step is over."""
PEEK_SECONDS = 10.0
SLACK: Micros = SECOND // 2
"""Between the moment at which a check reads the clock and that at which it holds the message."""
SHORT_CODE, LONG_CODE = "7391", "K7391XQ2"
COUNT_MAX = 6
CODES_PER_KILL = 4
INTENT = "OTP_PROOF"


@dataclass(frozen=True)
class Check:
    """One check as its caller was answered: its key, whether the code was right, what came of it."""

    key: str
    right: bool
    result: str
    verification_id: str


@dataclass
class Told:
    """What callers were told."""

    sent: dict[str, str] = field(default_factory=dict[str, str])
    """Verification by tracking id."""
    checks: list[Check] = field(default_factory=list[Check])
    unanswered: list[str] = field(default_factory=list[str])


class CodeCallers:
    """Callers at work between `start` and `stop`: a code each, then wrong and right ones beside each other."""

    def __init__(self, connect: Callable[[], grpc.aio.Channel], secret: str, dice: Random) -> None:
        self.told = Told()
        self._connect = connect
        self._metadata = bearer(secret)
        self._dice = dice
        self._numbers = itertools.count(1)
        self._stopping = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to call."""
        dices = [Random(self._dice.random()) for _ in range(CALLERS)]
        self._tasks = [asyncio.create_task(self._work(dice), name="caller of codes") for dice in dices]

    async def stop(self) -> None:
        """Wait until every caller has its last answer."""
        self._stopping.set()
        await asyncio.gather(*self._tasks)

    async def reach(self, count: int) -> None:
        """Until so many codes more were sent."""
        wanted = len(self.told.sent) + count
        await eventually(lambda: len(self.told.sent) >= wanted, ANSWERED_SECONDS)

    async def _work(self, dice: Random) -> None:
        while not self._stopping.is_set():
            number = next(self._numbers)
            own = dice.choice(("", SHORT_CODE, LONG_CODE))
            request = otp.OtpSendRequest(
                request_id=f"code-{number}",
                phone=f"0912{dice.randrange(10**6, 10**7)}",
                intent=INTENT,
                params={"token": own} if own else {},
            )
            sent = await self._insist("OtpSend", request)
            if sent is None:
                continue
            self.told.sent[sent.tracking_id] = sent.verification_id
            code = own or await self._read(sent.tracking_id)
            if code:
                await self._check(sent.verification_id, code, number, dice)

    async def _check(self, verification_id: str, code: str, number: int, dice: Random) -> None:
        """One wrong code at most and two right ones, all at once; whoever is not answered asks again."""
        await asyncio.sleep(dice.random() * 2 * SETTLE_SECONDS)
        wrong = code[:-1] + ("1" if code[-1] != "1" else "2")
        tries = [code, code, wrong][: dice.choice((1, 2, 3))]
        dice.shuffle(tries)
        asked = [(f"check-{number}-{n}", typed) for n, typed in enumerate(tries)]
        await asyncio.gather(*(self._checked(key, verification_id, typed, right=typed == code) for key, typed in asked))

    async def _checked(self, key: str, verification_id: str, typed: str, *, right: bool) -> None:
        request = otp.OtpVerifyRequest(request_id=key, verification_id=verification_id, code=typed)
        for _ in range(2):
            told = await self._insist("OtpVerify", request)
            if told is not None:
                result = otp.OtpVerifyResponse.Result.Name(told.result).removeprefix("RESULT_")
                self.told.checks.append(Check(key, right, result, verification_id))

    async def _read(self, tracking_id: str) -> str:
        """The code in the outbox; "" where no hand-off of it was ever noted there."""
        until = asyncio.get_running_loop().time() + PEEK_SECONDS
        while asyncio.get_running_loop().time() < until:
            try:
                stub: Any = SandboxServiceStub(self._connect())
                asked = PeekOutboxRequest(tracking_id=tracking_id)
                outbox = await stub.PeekOutbox(asked, timeout=CALL_SECONDS, metadata=self._metadata)
            except grpc.aio.AioRpcError:
                outbox = None
            if outbox is not None and outbox.messages:
                return outbox.messages[0].text.rpartition(" ")[2]
            await asyncio.sleep(REPEAT_SECONDS)
        return ""

    async def _insist(self, method: str, request: Any) -> Any:
        """The answer, asked for again while nobody knows how it ended; None where it never came."""
        until = asyncio.get_running_loop().time() + ANSWERED_SECONDS
        while asyncio.get_running_loop().time() < until:
            call = getattr(otp_grpc.OtpServiceStub(self._connect()), method)
            try:
                return await call(request, timeout=CALL_SECONDS, metadata=self._metadata)
            except grpc.aio.AioRpcError as error:
                if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                    self.told.unanswered.append(f"{method} {request.request_id}: {error.code().name} {error.details()}")
                    return None
            await asyncio.sleep(REPEAT_SECONDS)
        self.told.unanswered.append(f"{method} {request.request_id}: never")
        return None


class Codes:
    """Processes with receipts of their own, killed one after the other at points of a code's way."""

    def __init__(self, ground: Ground, seed: int) -> None:
        self._ground = ground
        self._dice = Random(seed)
        self._counts: Counter[str] = Counter()
        self._gateways: list[GatewayProcess] = []
        self._stack = AsyncExitStack()

    async def hold(self, rounds: int, points: Sequence[str]) -> Verdict:
        """So many kills, at these points in turn, then what was left behind is judged."""
        async with self._stack:
            self._upstream = await upstream.serve("127.0.0.1", 0, settle_seconds=SETTLE_SECONDS)
            self._stack.push_async_callback(self._upstream.close)
            for _ in range(self._ground.layout.processes):
                await self._add()
            callers = await self._set_up()
            callers.start()
            for number in range(rounds):
                await self._kill(callers, points[number % len(points)], number % len(self._gateways))
            await callers.stop()
            return await self._judged(callers.told)

    async def _add(self) -> None:
        receipts = f"127.0.0.1:{free_port()}"
        environment = {
            "ANGARIUM_HTTP_LISTEN": receipts,
            "ANGARIUM_PUBLIC_URL": f"http://{receipts}",
            "ANGARIUM_LOG_LEVEL": "DEBUG",
        }
        gateway = GatewayProcess(self._ground.folder, environment=environment, url=self._ground.postgres_url)
        self._gateways.append(await self._stack.enter_async_context(gateway))

    async def _set_up(self) -> CodeCallers:
        """Two accounts, of which the second has its turn when no receipt of the first came in time."""
        stubs = self._gateways[0].stubs
        for number, name in enumerate(("first", "second")):
            asked = ConfigureProviderRequest(
                name=name,
                type="twilio",
                settings={"account_sid": f"AC{number:032x}", "from": "+15005550006"},
                secrets={"auth_token": f"token-of-{name}"},
                base_url=f"http://127.0.0.1:{self._upstream.port}",
            )
            await stubs.providers.ConfigureProvider(asked)
        made = Template(key="proof", text="Your code is %CODE%", message_class=messages.MESSAGE_CLASS_OTP)
        await stubs.templates.CreateTemplate(CreateTemplateRequest(template=made))
        first = RouteStep(
            channel=messages.CHANNEL_SMS, providers=["first"], wait_for=messages.Notification.STATE_DELIVERED
        )
        first.timeout.FromMilliseconds(int(SETTLE_SECONDS * 1000))
        second = RouteStep(channel=messages.CHANNEL_SMS, providers=["second"])
        rule = RoutingRule(name="codes", intents=[INTENT], steps=[first, second])
        await stubs.routing.SetRoutingRules(SetRoutingRulesRequest(rules=[rule]))
        _, secret = await self._gateways[0].secret("otp", "sandbox")
        addresses = ",".join(gateway.address for gateway in self._gateways)
        channel = grpc.aio.insecure_channel(f"ipv4:{addresses}", options=CAREFUL)
        self._stack.push_async_callback(channel.close)
        return CodeCallers(lambda: channel, secret, self._dice)

    async def _kill(self, callers: CodeCallers, point: str, place: int) -> None:
        """Start the process as one that is to die there, let it, and start it again as it should be."""
        gateway = self._gateways[place]
        gateway.signal(signal.SIGTERM)
        await gateway.ended()
        gateway.start(Aim(When.LOAD, point, self._dice.randint(1, COUNT_MAX)).command)
        await gateway.serving()
        await callers.reach(CODES_PER_KILL)
        gateway.signal(signal.SIGUSR1)
        code = await gateway.ended(DEATH_SECONDS)
        assert code == -signal.SIGKILL, f"{point}: it ended with {code}:\n{gateway.stderr[-2000:]}"
        self._counts["kills"] += 1
        self._counts[f"kills at {point}"] += 1
        gateway.start()
        await gateway.serving()

    async def _judged(self, told: Told) -> Verdict:
        verified = {check.verification_id for check in told.checks if check.result == "VERIFIED"}

        def undone() -> list[str]:
            of = {id_ for id_, verification in told.sent.items() if verification in verified}
            return [m.id for m in read_dump(self._ground.url).messages.values() if m.id in of and not m.done]

        async def over() -> bool:
            return not await asyncio.to_thread(undone)

        late: list[Violation] = []
        try:
            await eventually(over, QUIET_SECONDS)
        except TimeoutError:
            late = [Violation("END", id_, "verified, and not done") for id_ in await asyncio.to_thread(undone)]
        dump = await asyncio.to_thread(read_dump, self._ground.url)
        rows = await asyncio.to_thread(verifications, self._ground.url)
        self._counts |= Counter(accepted=len(told.sent), checks=len(told.checks), verified=len(verified))
        unanswered = [Violation("ANSWER", "a call", why) for why in told.unanswered]
        logs = [line for gateway in self._gateways for line in gateway.stderr.splitlines()]
        leaks = [Violation("C9", "a code", line) for line in (*logs, *dump.plain) if LONG_CODE in line]
        return Verdict([*late, *unanswered, *leaks, *violations_of(told, dump, rows)], dict(self._counts))


@dataclass(frozen=True)
class Row:
    """A verification as it is stored."""

    attempts: int
    attempts_max: int
    verified_at: Micros

    @property
    def verified(self) -> bool:
        return self.verified_at > 0


def verifications(url: str) -> dict[str, Row]:
    """Every verification, by SQL of our own."""
    address = make_url(url).set(drivername="sqlite" if url.startswith("sqlite") else "postgresql+psycopg")
    with create_engine(address, poolclass=NullPool).connect() as connection:
        rows = connection.execute(text("SELECT id, attempts, attempts_max, verified_at FROM verification"))
        return {id_: Row(attempts, most, verified_at) for id_, attempts, most, verified_at in rows}


def violations_of(told: Told, dump: Dump, rows: Mapping[str, Row]) -> Iterator[Violation]:
    """C7: a code verifies once, a check is spent once however often it is asked for, and its texts end with it."""
    by_verification: defaultdict[str, dict[str, set[Check]]] = defaultdict(lambda: defaultdict(set))
    for check in told.checks:
        by_verification[check.verification_id][check.key].add(check)
    for id_, by_key in by_verification.items():
        yield from _of_checks(id_, by_key, rows.get(id_))
    for id_, verification_id in told.sent.items():
        row, message = rows.get(verification_id), dump.messages.get(id_)
        if row is None or message is None:
            yield Violation("C7", id_, "its caller was answered, and it or its verification is not there")
        elif row.verified:
            yield from _of_ended(message, row.verified_at, dump)


def _of_checks(id_: str, by_key: Mapping[str, set[Check]], row: Row | None) -> Iterator[Violation]:
    if any(len(answers) > 1 for answers in by_key.values()):
        yield Violation("C7", id_, "one check was answered in two ways")
    checks = [next(iter(answers)) for answers in by_key.values()]
    results = Counter(check.result for check in checks)
    right = any(check.right for check in checks)
    if results["VERIFIED"] != int(right):
        yield Violation("C7", id_, f"a code verified {results['VERIFIED']} times: {dict(results)}")
    if any(check.result == "VERIFIED" and not check.right for check in checks):
        yield Violation("C7", id_, "a wrong code verified")
    spent = results["VERIFIED"] + results["WRONG_CODE"]
    if row is None or row.attempts != spent or row.attempts > row.attempts_max or row.verified != right:
        yield Violation("C7", id_, f"{spent} attempts were spent, {row} is stored")


def _of_ended(message: Message, verified_at: Micros, dump: Dump) -> Iterator[Violation]:
    """Nothing is begun after the code was verified, and no more than the class allows was begun at all."""
    if message.stop not in (Stop.VERIFIED, None) or not message.done:
        yield Violation("C7", message.id, f"verified, and it is {message.state}, stopped by {message.stop}")
    begun = [event.at for event in dump.events[message.id] if event.kind == EventKind.ATTEMPT_STARTED]
    if any(at > verified_at + SLACK for at in begun):
        yield Violation("C7", message.id, "an attempt was begun after its code was verified")
    may_have_arrived = [a for a in dump.attempts.get(message.id, ()) if a.may_arrive or a.undelivered]
    if len(may_have_arrived) > sends_max(message, Channel.SMS):
        yield Violation("C3", message.id, f"{len(may_have_arrived)} texts may have arrived")


async def check_under_kills(ground: Ground, seed: int, rounds: int, *, points: Sequence[str] = CODE_POINTS) -> Verdict:
    """So many kills at these points of a code's way, in turn, in an order of the seed's."""
    return await Codes(ground, seed).hold(rounds, Random(seed).sample(points, len(points)))


SCENARIOS = (Scenario("kill -9 while codes are checked", tuple(Layout), "kills", len(CODE_POINTS), check_under_kills),)
