"""`make run`: sandbox upstream and gateway on this machine, a code that arrives, one that falls back, one verified.

Everything it does is done through the stubs, as any caller would. It keeps serving until Ctrl-C.
"""

import argparse
import json
import os
import random
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
    otp_service_pb2 as otp,
    otp_service_pb2_grpc as otp_grpc,
    provider_service_pb2 as providers,
    provider_service_pb2_grpc as providers_grpc,
    routing_service_pb2 as routing,
    routing_service_pb2_grpc as routing_grpc,
    sandbox_service_pb2 as sandbox,
    sandbox_service_pb2_grpc as sandbox_grpc,
    template_service_pb2 as templates,
    template_service_pb2_grpc as templates_grpc,
)
from grpc_health.v1 import health_pb2, health_pb2_grpc

PHONE = "09120000111"
FIRST, SECOND = "kavenegar", "twilio"
UPSTREAM_KEY = "sandbox-first-account"
TWILIO_SID = "AC" + "0" * 32
TEMPLATE = "otp_login"
INTENT = "OTP_LOGIN"
Caller = tuple[tuple[str, str], ...]

START_SECONDS = 30.0
STOP_SECONDS = 20.0
CALL_SECONDS = 10.0
WATCH_SECONDS = 60.0


def main() -> int:
    """Start both processes, show the three codes, and serve; 0 after Ctrl-C or `--once`."""
    options = _options()
    environment = dict(
        os.environ,
        ANGARIUM_DATABASE_URL=f"sqlite:///{options.data}/angarium.db",
        ANGARIUM_LISTEN=options.listen,
        ANGARIUM_HTTP_LISTEN=options.receipts,
        ANGARIUM_PUBLIC_URL=f"http://{options.receipts}",
        ANGARIUM_ALLOW_PRIVATE_UPSTREAMS="true",
        ANGARIUM_LOG_LEVEL="WARNING",
    )
    taken = [address for address in (options.listen, options.receipts, options.upstream) if _is_taken(address)]
    if taken:
        options_to_see = "--listen, --receipts and --upstream"
        print(f"{' and '.join(taken)} in use: does another one serve? See {options_to_see}.", file=sys.stderr)
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
    parser.add_argument("--receipts", default="127.0.0.1:8088", help="HOST:PORT where the gateway takes receipts")
    parser.add_argument("--upstream", default="127.0.0.1:8089", help="HOST:PORT of the sandbox upstream")
    parser.add_argument("--once", action="store_true", help="end after the three codes")
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
        try:
            _configure(channel, caller, options.upstream)
            _show(channel, caller, options.upstream)
        except grpc.RpcError as error:
            print(f"\nThe demonstration ends here: {error.code().name}, {error.details()}", file=sys.stderr)
            if options.once:
                return 1
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
    """Two accounts with the same upstream, a template and the rules; what is there already stays as it is."""
    accounts = providers_grpc.ProviderServiceStub(channel)
    there = accounts.ListProviders(
        providers.ListProvidersRequest(page_size=1000), timeout=CALL_SECONDS, metadata=caller
    ).providers
    for wanted in _accounts():
        if wanted.name in {account.name for account in there}:
            wanted = providers.ConfigureProviderRequest(name=wanted.name)  # noqa: PLW2901 - where it is, and no more
        wanted.base_url = f"http://{upstream}"
        accounts.ConfigureProvider(wanted, timeout=CALL_SECONDS, metadata=caller)
    kept = templates_grpc.TemplateServiceStub(channel)
    keys = kept.ListTemplates(
        templates.ListTemplatesRequest(page_size=1000), timeout=CALL_SECONDS, metadata=caller
    ).templates
    if TEMPLATE not in {template.key for template in keys}:
        made = templates.CreateTemplateRequest(template=_template())
        kept.CreateTemplate(made, timeout=CALL_SECONDS, metadata=caller)
    stub = routing_grpc.RoutingServiceStub(channel)
    known = stub.GetRoutingRules(routing.GetRoutingRulesRequest(), timeout=CALL_SECONDS, metadata=caller).rules
    rules = [rule for rule in _rules() if rule.name not in {one.name for one in known}]
    if rules:
        stub.SetRoutingRules(routing.SetRoutingRulesRequest(rules=rules), timeout=CALL_SECONDS, metadata=caller)


def _accounts() -> Sequence[providers.ConfigureProviderRequest]:
    return (
        providers.ConfigureProviderRequest(
            name=FIRST, type="kavenegar", secrets={"api_key": UPSTREAM_KEY}, settings={"sender": "10004346"}
        ),
        providers.ConfigureProviderRequest(
            name=SECOND,
            type="twilio",
            settings={"account_sid": TWILIO_SID, "from": "+15005550006"},
            secrets={"auth_token": "sandbox-auth-token"},
        ),
    )


def _rules() -> Sequence[routing.RoutingRule]:
    """Both accounts in order, by text or by call."""
    step = routing.RouteStep(providers=[FIRST, SECOND])
    return (
        routing.RoutingRule(name="otp", intents=[INTENT], steps=[step]),
        routing.RoutingRule(name="texts", intents=["ORDER_SHIPPED"], steps=[step]),
    )


def _template() -> templates.Template:
    """A text for whoever takes texts, and Kavenegar's own template for Kavenegar."""
    return templates.Template(
        key=TEMPLATE,
        text="Your code is %CODE%.",
        message_class=message_pb2.MESSAGE_CLASS_OTP,
        intents=[INTENT],
        variants=[templates.TemplateVariant(locale="fa", text="کد شما: %CODE%")],
        provider_templates=[
            templates.ProviderTemplate(provider=FIRST, template_name="otp-login", params={"token": "CODE"})
        ],
    )


def _show(channel: grpc.Channel, caller: Caller, upstream: str) -> None:
    """Three codes: the caller's own by the first provider, one that falls back, one that is derived and verified."""
    own = otp.OtpSendRequest(phone=PHONE, template_key=TEMPLATE, params={"token": "1234"}, intent=INTENT)
    print(f"The code 1234 to {PHONE}, by {FIRST}'s own template:")
    _send(channel, caller, own)
    print(f"Another while {FIRST} is told to fail: {SECOND} takes over, and posts its receipt:")
    _answer(upstream, UPSTREAM_KEY, "409")
    try:
        _send(channel, caller, otp.OtpSendRequest(phone=_anybody(), template_key=TEMPLATE, intent=INTENT))
    finally:
        _answer(upstream, UPSTREAM_KEY, "ok")
    print("A code that nobody chose, read from the sandbox's outbox and verified:")
    sent = _send(channel, caller, otp.OtpSendRequest(phone=_anybody(), template_key=TEMPLATE, intent=INTENT))
    peek = sandbox.PeekOutboxRequest(tracking_id=sent.tracking_id)
    outbox = sandbox_grpc.SandboxServiceStub(channel).PeekOutbox(peek, timeout=CALL_SECONDS, metadata=caller)
    code = outbox.messages[0].params["token"] or "".join(filter(str.isdigit, outbox.messages[0].text))
    check = otp.OtpVerifyRequest(verification_id=sent.verification_id, code=code)
    told = otp_grpc.OtpServiceStub(channel).OtpVerify(check, timeout=CALL_SECONDS, metadata=caller)
    result = otp.OtpVerifyResponse.Result.Name(told.result).removeprefix("RESULT_")
    print(f"  OtpVerify {code}: {result}\n")


def _anybody() -> str:
    """A number of its own for each run: one number gets a code every 30 s, and no more than 3 in 10 minutes."""
    return f"0912{random.randrange(10**6, 10**7)}"  # noqa: S311 - a number to try, no secret


def _send(channel: grpc.Channel, caller: Caller, request: otp.OtpSendRequest) -> otp.OtpSendResponse:
    """Send one code and print its events as they come, until nothing more is awaited."""
    sent = _accepted(otp_grpc.OtpServiceStub(channel), caller, request)
    watch = notifications.WatchStatusRequest(tracking_id=sent.tracking_id)
    stub = notifications_grpc.NotificationServiceStub(channel)
    for answer in stub.WatchStatus(watch, timeout=WATCH_SECONDS, metadata=caller):
        for event in answer.events:
            print("  " + _line(event))
    print()
    return sent


def _accepted(stub: otp_grpc.OtpServiceStub, caller: Caller, request: otp.OtpSendRequest) -> otp.OtpSendResponse:
    """Send it, once more after the cooldown where this number got a code a moment ago."""
    try:
        return stub.OtpSend(request, timeout=CALL_SECONDS, metadata=caller)
    except grpc.RpcError as error:
        trailer = cast("Sequence[tuple[str, str]]", error.trailing_metadata())
        pauses = [value for name, value in trailer if name == "grpc-retry-pushback-ms"]
        if error.code() != grpc.StatusCode.RESOURCE_EXHAUSTED or not pauses:
            raise
    seconds = int(pauses[0]) / 1000
    print(f"  {request.phone} got a code a moment ago: waiting {seconds:.0f} s.", flush=True)
    time.sleep(seconds)
    return stub.OtpSend(request, timeout=CALL_SECONDS, metadata=caller)


def _line(event: message_pb2.StatusEvent) -> str:
    kind = message_pb2.StatusEvent.Kind.Name(event.kind).removeprefix("KIND_").lower()
    state = message_pb2.Notification.State.Name(event.state).removeprefix("STATE_")
    words = [f"{event.sequence:>2}", event.event_time.ToDatetime().strftime("%H:%M:%S.%f")[:-3], f"{state:<11}", kind]
    if event.attempt:
        words.append(f"attempt {event.attempt} by {event.provider}")
    if event.kind == message_pb2.StatusEvent.KIND_ATTEMPT_ENDED:
        words.append(message_pb2.Outcome.Name(event.outcome).removeprefix("OUTCOME_").lower())
    return " ".join(words) + (" (done)" if event.done else "")


def _answer(upstream: str, key: str, answer: str) -> None:
    """Tell the sandbox upstream how to answer one account."""
    body = json.dumps({"answer": answer}).encode()
    url = f"http://{upstream}/sandbox/accounts/{key}"
    request = urllib.request.Request(url, data=body, method="PUT", headers={"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=CALL_SECONDS):
        pass


def _invite(options: argparse.Namespace) -> None:
    call = f'grpcurl -plaintext -H "authorization: Bearer $(cat {options.data}/operator.key)"'
    target = f"{options.listen} angarium.v1"
    send = json.dumps({"intent": "ORDER_SHIPPED", "recipient": {"phone": PHONE}, "text": "Hello."})
    code = json.dumps({"phone": _anybody(), "template_key": TEMPLATE, "params": {"token": "1234"}})
    print("It keeps serving; Ctrl-C stops it. Try next, in another terminal:\n")
    print(f"  {call} -d '{code}' {target}.OtpService/OtpSend")
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
