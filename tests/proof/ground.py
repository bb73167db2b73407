"""What a trial is held on: one process on SQLite, one on Postgres, or two on the same Postgres."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum, auto
from pathlib import Path
from tempfile import mkdtemp

from sqlalchemy import NullPool, create_engine, make_url, text

from tests.cluster import Cluster


class Layout(StrEnum):
    """Of the processes and their database."""

    SQLITE = auto()
    POSTGRES = auto()
    REPLICAS = auto()

    @property
    def processes(self) -> int:
        return 2 if self == Layout.REPLICAS else 1


@dataclass(frozen=True)
class Ground:
    """A folder for everything that is written, and on Postgres an empty database of a cluster."""

    layout: Layout
    folder: Path
    cluster: Cluster | None = None
    database: str = ""

    @property
    def postgres_url(self) -> str:
        """Of the database; "" on SQLite."""
        return self.cluster.url(self.database) if self.cluster else ""

    @property
    def url(self) -> str:
        """Of the database, as the gateway is given it."""
        return self.postgres_url or f"sqlite:///{self.folder / 'angarium.db'}"


@contextmanager
def fresh_ground(layout: Layout, parent: Path, cluster: Cluster) -> Iterator[Ground]:
    """A ground for one trial, of whose database nothing is left afterwards; the folder stays."""
    folder = Path(mkdtemp(prefix=f"{layout}-", dir=parent))
    if layout == Layout.SQLITE:
        yield Ground(layout, folder)
        return
    database = cluster.create()
    try:
        yield Ground(layout, folder, cluster, database)
    finally:
        cluster.drop(database)


class Peek:
    """Looks into a gateway's database while it serves, and changes nothing.

    On SQLite not even what a kill has left: who may write would recover it, and leave the next start nothing to do.
    """

    def __init__(self, url: str) -> None:
        wanted = make_url(url).set(drivername="postgresql+psycopg")
        if url.startswith("sqlite"):
            wanted = make_url(f"sqlite:///file:{make_url(url).database}?mode=ro&uri=true")
        self._engine = create_engine(wanted, poolclass=NullPool)

    def workers(self) -> set[str]:
        """Every process that says that it is alive."""
        return self._column("SELECT boot_id FROM worker")

    def holders(self) -> set[str]:
        """Every process, alive or dead, that anything is known of: its row, or what it holds."""
        return self._column("SELECT boot_id FROM worker UNION SELECT worker FROM due WHERE worker <> ''")

    def holding(self) -> set[str]:
        """Every process, alive or dead, that holds anything."""
        return self._column("SELECT worker FROM due WHERE worker <> ''")

    def in_flight(self, worker: str) -> set[str]:
        """The messages that a process is handing off."""
        attempts = "FROM due JOIN attempt ON attempt.message_id = due.message_id"
        return self._column(f"SELECT due.message_id {attempts} WHERE worker = :worker AND outcome = ''", worker=worker)

    def undone(self) -> set[str]:
        """The messages that are not done."""
        return self._column("SELECT id FROM message WHERE done = :no", no=False)

    def unsent(self) -> set[str]:
        """The messages that have not come to a provider, nor may have, and are not done."""
        states = "state NOT IN ('SENT', 'UNCONFIRMED')"
        return self._column(f"SELECT id FROM message WHERE done = :no AND {states}", no=False)

    def _column(self, statement: str, **values: object) -> set[str]:
        with self._engine.connect() as connection:
            return set(connection.execute(text(statement), values).scalars())
