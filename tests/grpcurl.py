"""grpcurl, as an operator uses it: from PATH, beside our Python, or built there at the Makefile's version."""

import asyncio
import fcntl
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
BUILD_SECONDS = 600.0
RUN_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Said:
    """What one run came to. `code` is 0 or, where the server answered with an error, 64 + its gRPC code."""

    code: int
    out: str
    err: str


@dataclass(frozen=True, slots=True)
class Grpcurl:
    """The program; without TLS, and with whatever the server's reflection tells of its services."""

    program: Path

    async def run(self, *arguments: str) -> Said:
        """Run with these arguments."""
        process = await asyncio.create_subprocess_exec(
            self.program,
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            out, err = await asyncio.wait_for(process.communicate(), RUN_SECONDS)
        except TimeoutError:
            process.kill()
            await process.wait()
            raise
        return Said(process.returncode or 0, out.decode(), err.decode())

    async def list(self, address: str, *names: str) -> list[str]:
        """The services of a server, or the methods of one."""
        said = await self.run("-plaintext", address, "list", *names)
        assert said.code == 0, said.err
        return said.out.split()

    async def call(
        self, address: str, method: str, request: Mapping[str, Any], metadata: Sequence[tuple[str, str]] = ()
    ) -> dict[str, Any]:
        """The answer of a unary method, `package.Service/Method`, from JSON to JSON; an error fails the test."""
        headers = [part for name, value in metadata for part in ("-H", f"{name}: {value}")]
        said = await self.run("-plaintext", *headers, "-d", json.dumps(request), address, method)
        assert said.code == 0, said.err
        return json.loads(said.out)


def find() -> Grpcurl:
    """The program, built if need be. Several test processes at once build it once."""
    folder = Path(sys.executable).parent
    with (folder / ".grpcurl.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = shutil.which("grpcurl") or shutil.which("grpcurl", path=str(folder))
        if found is None:
            subprocess.run([ROOT / ".ci" / "grpcurl", folder, _version()], cwd=ROOT, check=True, timeout=BUILD_SECONDS)
            found = shutil.which("grpcurl", path=str(folder))
    assert found is not None, "grpcurl was built and is not there"
    return Grpcurl(Path(found))


def _version() -> str:
    found = re.search(r"^GRPCURL_VERSION := (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert found is not None
    return found[1]
