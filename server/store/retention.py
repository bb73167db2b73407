"""What is forgotten, and when: keys after seven days, content a day after the end, the rest a week after it.

A one-time code's content goes as soon as its message is done, one that its caller
brought also from its verification when that expires, and the verification a day after that.
"""

from collections.abc import Sequence

from sqlalchemy import Connection, text

from server.model.clock import DAY, MINUTE, Micros
from server.model.limits import BLOCK_MAX
from server.store.database import Database
from server.store.verifications import end_verifications

PRUNE_MAX = 500
KEY_KEPT: Micros = 7 * DAY
CONTENT_KEPT: Micros = DAY
MESSAGE_KEPT: Micros = 7 * DAY
VERIFICATION_KEPT: Micros = DAY
BUCKET_KEPT: Micros = DAY + BLOCK_MAX
"""No limit looks back further, and no block that an old bucket holds still lasts."""
OVERLAP: Micros = MINUTE
"""What is done is committed within so long: later it is not looked for once more."""

_PARTS = ("message_tag", "due", "attempt", "event", "sandbox_message", "explanation")


class Retention:
    """Forgets a little at a time, so that nobody waits for it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._codes_from: Micros = 0
        """Codes that were done before are erased."""

    async def prune(self, now: Micros | None = None) -> int:
        """Forget at most 500 rows of each kind, each kind in a transaction of its own; how many rows that were.

        As long as it answers more than 0 there may be more. `now` defaults to the database's clock.
        """
        counts = [
            await self._database.write(
                lambda connection, step=step: step(connection, now or self._database.now(connection))
            )
            for step in (
                self._prune_keys,
                self._erase_codes,
                self._erase_contents,
                self._prune_messages,
                self._end_own_codes,
                self._prune_verifications,
                self._prune_buckets,
            )
        ]
        return sum(counts)

    def _prune_keys(self, connection: Connection, now: Micros) -> int:
        keys = self._locked(connection, _OLD_KEYS, now - KEY_KEPT)
        if keys:
            connection.execute(_DELETE_KEY, keys)
        return len(keys)

    def _erase_codes(self, connection: Connection, now: Micros) -> int:
        """A code whose message is done is sent no more. Only what became so since the last time is looked through."""
        # A clock that was set back leaves no other trace: then all of them are looked through once more.
        since = self._codes_from if now - CONTENT_KEPT < self._codes_from <= now else now - CONTENT_KEPT
        done = self._locked(connection, _DONE_CODES, now, since=since)
        self._erase(connection, [row["id"] for row in done])
        if len(done) < PRUNE_MAX:
            self._codes_from = now - OVERLAP
        return len(done)

    def _erase_contents(self, connection: Connection, now: Micros) -> int:
        ids = [row["id"] for row in self._locked(connection, _UNERASED, now - CONTENT_KEPT)]
        self._erase(connection, ids)
        if ids:
            self._database.dialect.delete(connection, "sandbox_message", "message_id", ids)
        return len(ids)

    def _erase(self, connection: Connection, ids: Sequence[str]) -> None:
        if ids:
            dialect = self._database.dialect
            connection.exec_driver_sql(
                f"UPDATE message SET body = {dialect.mark}, recipient = {dialect.mark}, erased = TRUE "  # noqa: S608
                f"WHERE {dialect.among('id')}",
                (b"", b"", dialect.texts(ids)),
            )

    def _end_own_codes(self, connection: Connection, now: Micros) -> int:
        """A caller's own code goes when its time is over; a clock that is set back does not revive it."""
        ids = [row["id"] for row in self._locked(connection, _OVER_OWN_CODES, now)]
        if ids:
            end_verifications(connection, self._database.dialect, ids)
        return len(ids)

    def _prune_verifications(self, connection: Connection, now: Micros) -> int:
        ids = [row["id"] for row in self._locked(connection, _OLD_VERIFICATIONS, now - VERIFICATION_KEPT)]
        if ids:
            self._database.dialect.delete(connection, "verification", "id", ids)
        return len(ids)

    def _prune_buckets(self, connection: Connection, now: Micros) -> int:
        buckets = self._locked(connection, _OLD_BUCKETS, now - BUCKET_KEPT)
        if buckets:
            connection.execute(_DELETE_BUCKET, buckets)
        return len(buckets)

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

    def _locked(self, connection: Connection, select: str, before: Micros, **more: Micros) -> list[dict[str, str]]:
        """The first of what is old, without what another process is at."""
        locked = self._database.dialect.locked(skip=True)
        rows = connection.execute(text(f"{select} LIMIT {PRUNE_MAX}{locked}"), {"before": before, **more})
        return [{**row} for row in rows.mappings()]


_OLD_KEYS = (
    "SELECT message_id AS id, tenant_id, client_id, kind, request_id FROM idempotency "
    "WHERE created_at < :before ORDER BY created_at"
)
_UNERASED = "SELECT id FROM message WHERE done_at > 0 AND NOT erased AND done_at < :before ORDER BY done_at"
# The code that a sandbox's outbox shows stays as long as its other contents.
_DONE_CODES = (
    "SELECT id FROM message WHERE done_at > 0 AND NOT erased AND done_at > :since AND done_at <= :before "
    "AND message_class = 'OTP' AND NOT EXISTS (SELECT 1 FROM sandbox_message AS s WHERE s.message_id = message.id) "
    "ORDER BY done_at"
)
_OVER_OWN_CODES = (
    "SELECT id FROM verification WHERE is_live AND length = 0 AND expires_at <= :before ORDER BY expires_at"
)
_OLD_VERIFICATIONS = "SELECT id FROM verification WHERE expires_at < :before ORDER BY expires_at"
_OLD_BUCKETS = "SELECT tenant_id, kind, subject FROM limit_bucket WHERE updated_at < :before ORDER BY updated_at"
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
_DELETE_BUCKET = text("DELETE FROM limit_bucket WHERE tenant_id = :tenant_id AND kind = :kind AND subject = :subject")
