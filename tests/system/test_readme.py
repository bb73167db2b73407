"""What the README shows works as it stands there."""

import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from angarium.v1 import (
    access_service_pb2,
    notification_service_pb2,
    otp_service_pb2,
    provider_service_pb2,
    routing_service_pb2,
    sandbox_service_pb2,
    template_service_pb2,
)

from tests.cluster import free_port
from tests.grpcurl import Grpcurl

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
FILES = (
    access_service_pb2,
    notification_service_pb2,
    otp_service_pb2,
    provider_service_pb2,
    routing_service_pb2,
    sandbox_service_pb2,
    template_service_pb2,
)


def block(language: str) -> str:
    found = re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)
    assert len(found) == 1, f"one {language} block is expected"
    return found[0]


class Shown:
    """`make run`'s processes on ports and in a folder of their own, and the README's text moved onto them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.gateway, self.receipts, self.upstream = free_port(), free_port(), free_port()

    @property
    def command(self) -> list[str]:
        command = [sys.executable, str(ROOT / "deploy/local.py"), f"--data={self.folder / 'data'}"]
        ports = {"listen": self.gateway, "receipts": self.receipts, "upstream": self.upstream}
        return [*command, *(f"--{name}=127.0.0.1:{port}" for name, port in ports.items())]

    def moved(self, text: str) -> str:
        return text.replace(":50051", f":{self.gateway}").replace(":8089", f":{self.upstream}")


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Shown, str]]:
    place = Shown(tmp_path_factory.mktemp("shown"))
    with subprocess.Popen(place.command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines: list[str] = []
        try:
            for line in process.stdout:
                lines.append(line)
                if "SandboxService/PeekOutbox" in line:
                    break
            assert process.poll() is None, "".join(lines)
            yield place, "".join(lines)
        finally:
            process.terminate()
            assert process.wait(30) == 0


def test_make_run_shows_a_delivery_a_fallback_and_a_verified_code(shown: tuple[Shown, str]) -> None:
    """The first code is delivered by the first provider, the second by the second after the first failed."""
    first, rest = shown[1].split("Another while")
    second, third = rest.split("A code that nobody chose")
    assert re.search(r"DELIVERED +receipt attempt 1 by kavenegar \(done\)", first)
    assert "attempt 1 by kavenegar unavailable" in second
    assert re.search(r"DELIVERED +receipt attempt 2 by twilio \(done\)", second)
    assert re.search(r"OtpVerify \d{6}: VERIFIED", third)


def test_a_second_run_goes_on_with_the_same_data(tmp_path: Path) -> None:
    """`make run` twice in the same folder: the accounts are there already, and the codes arrive again."""
    for _ in range(2):
        place = Shown(tmp_path)
        command = [*place.command, "--once"]
        finished = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert finished.returncode == 0, finished.stderr
        assert finished.stdout.count("(done)") == 3
        assert finished.stdout.count(": VERIFIED") == 1


def test_every_grpcurl_line_of_the_readme_works(shown: tuple[Shown, str], grpcurl: Grpcurl) -> None:
    """The whole block runs, stops at no error, and names every RPC that there is."""
    script = shown[0].moved(block("sh"))
    environment = dict(os.environ, PATH=f"{grpcurl.program.parent}:{os.environ['PATH']}")
    command = ["bash", "-euo", "pipefail", "-c", script]
    finished = subprocess.run(
        command, cwd=shown[0].folder, env=environment, capture_output=True, text=True, timeout=90, check=False
    )
    assert finished.returncode == 0, finished.stderr
    assert '"state": "STATE_CANCELED"' in finished.stdout
    called = set(re.findall(r"call (\w+/\w+)", script))
    services = [service for file in FILES for service in file.DESCRIPTOR.services_by_name.values()]
    assert called == {f"{service.name}/{method.name}" for service in services for method in service.methods}


def test_the_python_example_of_the_readme_works(shown: tuple[Shown, str]) -> None:
    """Copied as it stands it prints the events up to the one that is done."""
    script = shown[0].moved(block("python"))
    finished = subprocess.run(
        [sys.executable, "-c", script], cwd=shown[0].folder, capture_output=True, text=True, timeout=60, check=False
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.strip().endswith("STATE_DELIVERED True")


def test_the_sandbox_upstream_takes_the_commands_that_the_readme_names(shown: tuple[Shown, str]) -> None:
    """The PUT of the README, sent by urllib, is answered with success."""
    url = f"http://127.0.0.1:{shown[0].upstream}/sandbox/accounts/KEYKEYKEY"
    request = urllib.request.Request(url, data=b'{"answer": "409"}', method="PUT")
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.status in (200, 204)
