"""What is forgotten, and when: keys after seven days, content a day after the end, the rest a week after it."""

from collections.abc import Sequence

from sqlalchemy import Connection, text

from server.model.clock import DAY, Micros
from server.store.database import Database

PRUNE_MAX = 500
KEY_KEPT: Micros = 7 * DAY
CONTENT_KEPT: Micros = DAY
MESSAGE_KEPT: Micros = 7 * DAY

_PARTS = ("message_tag", "due", "attempt", "event", "sandbox_message")


class Retention:
    """Forgets a little at a time, so that nobody waits for it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def prune(self, now: Micros | None = None) -> int:
        """Forget at most 500 keys, contents and messages, each in a transaction of its own; how many rows that were.

        As long as it answers more than 0 there may be more. `now` defaults to the database's clock.
        """
        counts = [
            await self._database.write(
                lambda connection, step=step: step(connection, now or self._database.now(connection))
            )
            for step in (self._prune_keys, self._erase_contents, self._prune_messages)
        ]
        return sum(counts)

    def _prune_keys(self, connection: Connection, now: Micros) -> int:
        keys = self._locked(connection, _OLD_KEYS, now - KEY_KEPT)
        if keys:
            connection.execute(_DELETE_KEY, keys)
        return len(keys)

    def _erase_contents(self, connection: Connection, now: Micros) -> int:
        ids = [row["id"] for row in self._locked(connection, _UNERASED, now - CONTENT_KEPT)]
        if ids:
            dialect = self._database.dialect
            connection.exec_driver_sql(
                f"UPDATE message SET body = {dialect.mark}, recipient = {dialect.mark}, erased = TRUE "  # noqa: S608
                f"WHERE {dialect.among('id')}",
                (b"", b"", dialect.texts(ids)),
            )
            dialect.delete(connection, "sandbox_message", "message_id", ids)
        return len(ids)

    def _prune_messages(self, connection: Connection, now: Micros) -> int:
        done = self._locked(connection, _LONG_DONE, now - MESSAGE_KEPT)
        ids = [row["id"] for row in done]
        if ids:
            self._note_pruned(connection, ids)
            for table in _PARTS:
                self._database.dialect.delete(connection, table, "message_id", ids)
            # A key never outlives its message, or it would lead nowhere.
            connection.execute(_DELETE_KEY, done)
            self._database.dialect.delete(connection, "message", "id", ids)
        return len(ids)

    def _note_pruned(self, connection: Connection, ids: Sequence[str]) -> None:
        """Cursors below the last event that is removed lead nowhere from now on."""
        dialect = self._database.dialect
        last = connection.exec_driver_sql(
            # Materialised: a planner that went down the log's own index would go through what is younger, all of it.
            f"WITH gone AS MATERIALIZED (SELECT log_epoch, xid, id FROM event WHERE {dialect.among('message_id')}) "  # noqa: S608
            "SELECT log_epoch, xid, id FROM gone ORDER BY log_epoch DESC, xid DESC, id DESC LIMIT 1",
            (dialect.texts(ids),),
        ).one_or_none()
        if last is not None:
            connection.execute(_NOTE_PRUNED, {"epoch": last.log_epoch, "xid": last.xid, "id": last.id})

    def _locked(self, connection: Connection, select: str, before: Micros) -> list[dict[str, str]]:
        """The first of what is old, without what another process is at."""
        locked = self._database.dialect.locked(skip=True)
        rows = connection.execute(text(f"{select} LIMIT {PRUNE_MAX}{locked}"), {"before": before})
        return [{**row} for row in rows.mappings()]


_OLD_KEYS = (
    "SELECT message_id AS id, tenant_id, client_id, kind, request_id FROM idempotency "
    "WHERE created_at < :before ORDER BY created_at"
)
_UNERASED = "SELECT id FROM message WHERE done_at > 0 AND NOT erased AND done_at < :before ORDER BY done_at"
_LONG_DONE = (
    "SELECT id, tenant_id, client_id, kind, request_id FROM message "
    "WHERE done_at > 0 AND done_at < :before ORDER BY done_at"
)
# The same key may belong to a younger message by now.
_DELETE_KEY = text(
    "DELETE FROM idempotency WHERE tenant_id = :tenant_id AND client_id = :client_id AND kind = :kind "
    "AND request_id = :request_id AND message_id = :id"
)
_NOTE_PRUNED = text(
    "UPDATE log SET pruned_epoch = :epoch, pruned_xid = :xid, pruned_id = :id "
    "WHERE (pruned_epoch, pruned_xid, pruned_id) < (:epoch, :xid, :id)"
)
