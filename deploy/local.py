"""`make run`: sandbox upstream and gateway on this machine, a message that arrives, one that falls back, and on.

Everything it does is done through the stubs, as any caller would. It keeps serving until Ctrl-C.
"""

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import grpc
from angarium.v1 import (
    message_pb2,
    notification_service_pb2 as notifications,
    notification_service_pb2_grpc as notifications_grpc,
    provider_service_pb2 as providers,
    provider_service_pb2_grpc as providers_grpc,
    routing_service_pb2 as routing,
    routing_service_pb2_grpc as routing_grpc,
)
from grpc_health.v1 import health_pb2, health_pb2_grpc

PHONE = "09120000111"
FIRST, SECOND = "kavenegar", "kavenegar-second"
UPSTREAM_KEYS = {FIRST: "sandbox-first-account", SECOND: "sandbox-second-account"}
Caller = tuple[tuple[str, str], ...]

START_SECONDS = 30.0
STOP_SECONDS = 20.0
CALL_SECONDS = 10.0
WATCH_SECONDS = 60.0


def main() -> int:
    """Start both processes, show the two sends, and serve; 0 after Ctrl-C or `--once`."""
    options = _options()
    environment = dict(
        os.environ,
        ANGARIUM_DATABASE_URL=f"sqlite:///{options.data}/angarium.db",
        ANGARIUM_LISTEN=options.listen,
        ANGARIUM_ALLOW_PRIVATE_UPSTREAMS="true",
        ANGARIUM_LOG_LEVEL="WARNING",
    )
    taken = [address for address in (options.listen, options.upstream) if _is_taken(address)]
    if taken:
        print(f"{' and '.join(taken)} in use: does another one serve? See --listen and --upstream.", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, _interrupt)
    with (
        _process(["sandbox-upstream", "--listen", options.upstream], environment) as upstream,
        _process(["serve"], environment) as gateway,
    ):
        try:
            return _show_and_serve(options, upstream, gateway)
        except KeyboardInterrupt:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            print("\nStopping.")
            return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of the database and its keys")
    parser.add_argument("--listen", default="127.0.0.1:50051", help="HOST:PORT of the gateway")
    parser.add_argument("--upstream", default="127.0.0.1:8089", help="HOST:PORT of the sandbox upstream")
    parser.add_argument("--once", action="store_true", help="end after the two sends")
    return parser.parse_args()


def _is_taken(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with socket.socket() as asking:
        return asking.connect_ex((host, int(port))) == 0


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


@contextmanager
def _process(arguments: Sequence[str], environment: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """One child in a session of its own, so that Ctrl-C reaches this process alone and the order of stops is ours."""
    process = subprocess.Popen([sys.executable, "-m", "server", *arguments], env=environment, start_new_session=True)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _show_and_serve(
    options: argparse.Namespace, upstream: subprocess.Popen[bytes], gateway: subprocess.Popen[bytes]
) -> int:
    with grpc.insecure_channel(options.listen) as channel:
        if not _serving(channel, upstream, gateway):
            return 1
        key = (options.data / "operator.key").read_text().strip()
        caller: Caller = (("authorization", f"Bearer {key}"),)
        print(
            f"Angarium serves on {options.listen}, SQLite in {options.data}/, sandbox upstream on {options.upstream}.\n"
        )
        _configure(channel, caller, options.upstream)
        _send(channel, caller, f"A text to {PHONE}, by {FIRST}:")
        _answer(options.upstream, FIRST, "409")
        _send(channel, caller, f"The same while {FIRST} is told to fail: {SECOND} takes over:")
        _answer(options.upstream, FIRST, "ok")
    if options.once:
        return 0
    _invite(options)
    return _wait(upstream, gateway)


def _serving(channel: grpc.Channel, *processes: subprocess.Popen[bytes]) -> bool:
    """Wait until the gateway says SERVING; False when a process ended instead (it has said why)."""
    health = cast("Any", health_pb2_grpc.HealthStub(channel))
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and all(process.poll() is None for process in processes):
        try:
            status = health.Check(health_pb2.HealthCheckRequest(), timeout=1, wait_for_ready=True).status
        except grpc.RpcError:
            continue
        if status == health_pb2.HealthCheckResponse.SERVING:
            return True
        time.sleep(0.05)
    print("The gateway or the upstream did not start.", file=sys.stderr)
    return False


def _configure(channel: grpc.Channel, caller: Caller, upstream: str) -> None:
    """Two accounts with the same upstream, and a rule that tries them in order. The same again changes nothing."""
    accounts = providers_grpc.ProviderServiceStub(channel)
    for name, key in UPSTREAM_KEYS.items():
        wanted = providers.ConfigureProviderRequest(
            name=name,
            type="kavenegar",
            secrets={"api_key": key},
            settings={"sender": "10004346"},
            base_url=f"http://{upstream}",
        )
        accounts.ConfigureProvider(wanted, timeout=CALL_SECONDS, metadata=caller)
    step = routing.RouteStep(channel=message_pb2.CHANNEL_SMS, providers=list(UPSTREAM_KEYS))
    rule = routing.RoutingRule(name="texts", intents=["ORDER_SHIPPED"], steps=[step])
    rules = routing_grpc.RoutingServiceStub(channel)
    rules.SetRoutingRules(routing.SetRoutingRulesRequest(rules=[rule]), timeout=CALL_SECONDS, metadata=caller)


def _send(channel: grpc.Channel, caller: Caller, title: str) -> None:
    """Send one text and print its events as they come, until nothing more is awaited."""
    print(title)
    request = notifications.SendRequest(
        intent="ORDER_SHIPPED",
        recipient=message_pb2.Recipient(phone=PHONE),
        text="Your parcel is on its way.",
    )
    wanted = notifications.SendAndWatchRequest(send=request)
    stub = notifications_grpc.NotificationServiceStub(channel)
    for answer in stub.SendAndWatch(wanted, timeout=WATCH_SECONDS, metadata=caller):
        for event in answer.events:
            print("  " + _line(event))
    print()


def _line(event: message_pb2.StatusEvent) -> str:
    kind = message_pb2.StatusEvent.Kind.Name(event.kind).removeprefix("KIND_").lower()
    state = message_pb2.Notification.State.Name(event.state).removeprefix("STATE_")
    words = [f"{event.sequence:>2}", event.event_time.ToDatetime().strftime("%H:%M:%S.%f")[:-3], f"{state:<11}", kind]
    if event.attempt:
        words.append(f"attempt {event.attempt} by {event.provider}")
    if event.kind == message_pb2.StatusEvent.KIND_ATTEMPT_ENDED:
        words.append(message_pb2.Outcome.Name(event.outcome).removeprefix("OUTCOME_").lower())
    return " ".join(words) + (" (done)" if event.done else "")


def _answer(upstream: str, name: str, answer: str) -> None:
    """Tell the sandbox upstream how to answer one account."""
    body = json.dumps({"answer": answer}).encode()
    url = f"http://{upstream}/sandbox/accounts/{UPSTREAM_KEYS[name]}"
    request = urllib.request.Request(url, data=body, method="PUT", headers={"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=CALL_SECONDS):
        pass


def _invite(options: argparse.Namespace) -> None:
    call = f'grpcurl -plaintext -H "authorization: Bearer $(cat {options.data}/operator.key)"'
    target = f"{options.listen} angarium.v1"
    send = json.dumps({"intent": "ORDER_SHIPPED", "recipient": {"phone": PHONE}, "text": "Hello."})
    print("It keeps serving; Ctrl-C stops it. Try next, in another terminal:\n")
    print(f"  {call} -d '{json.dumps({'send': json.loads(send)})}' {target}.NotificationService/SendAndWatch")
    print(f"  {call} -d '{send}' {target}.NotificationService/Send")
    print(f"  {call} -d '{{}}' {target}.NotificationService/ListNotifications")
    print(f'  {call} -d \'{{"phone": "{PHONE}"}}\' {target}.SandboxService/PeekOutbox')
    print('  More numbers to try: README.md, "The sandbox".', flush=True)


def _wait(*processes: subprocess.Popen[bytes]) -> int:
    while all(process.poll() is None for process in processes):
        time.sleep(0.2)
    print("A process ended by itself.", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
