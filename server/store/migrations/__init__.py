"""Bringing a database to this release's schema. Revisions only add: a release runs on its own schema and on the next.

Revisions are numbered `0001`, `0002`, … without a branch.
"""

from pathlib import Path

from sqlalchemy import Connection, inspect, text

from server.store.database import Database
from server.store.dialect import UnsafeDatabase

HEAD = "0002"


async def upgrade(database: Database) -> None:
    """Apply the revisions that are missing; whoever else starts at the same time waits.

    Raises UnsafeDatabase where the database is more than one revision ahead of this release.
    """
    if await database.write(_is_behind):
        await database.write(lambda connection: _upgrade(connection, database))


def _is_behind(connection: Connection) -> bool:
    revision = _revision(connection)
    if revision > f"{int(HEAD) + 1:04}":
        raise UnsafeDatabase(f"The database has schema {revision}; this release knows {HEAD} and may run on one more.")
    return revision < HEAD


def _revision(connection: Connection) -> str:
    if not inspect(connection).has_table("alembic_version"):
        return ""
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar() or ""


def _upgrade(connection: Connection, database: Database) -> None:
    from alembic import command  # noqa: PLC0415 - a quarter of a second that most starts do not need
    from alembic.config import Config  # noqa: PLC0415 - as above

    database.dialect.lock_schema(connection)
    if not _is_behind(connection):
        return
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(Path(__file__).parent))
    command.upgrade(config, HEAD)
