"""The epoch of the event log: raised whenever the database's history may be another than the one that cursors know."""

import time

from sqlalchemy import Connection, text

from server.store.dialect import Dialect


def open_log(connection: Connection, dialect: Dialect, running: int) -> int:
    """The epoch to write events under. `running` is this process's own so far, 0 at its start.

    On SQLite it rises at every start; on Postgres when the cluster or its timeline is not the one that was stored.
    It becomes the time in ms, and at least one more than before.
    """
    identity = dialect.identity(connection)
    # Locked: of two processes that find another history, the second one finds the first one's epoch.
    select = f"SELECT log_epoch, system FROM log WHERE id = 1{dialect.locked()}"  # noqa: S608
    stored = connection.execute(text(select)).one()
    if stored.system == identity if dialect.postgres else running:
        return stored.log_epoch
    epoch = max(time.time_ns() // 1_000_000, stored.log_epoch + 1)
    connection.execute(_RAISE, {"epoch": epoch, "system": identity})
    return epoch


_RAISE = text("UPDATE log SET log_epoch = :epoch, system = :system WHERE id = 1")
