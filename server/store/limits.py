"""What was counted against limits: rows that are locked, judged by pure rules, and written back in one transaction."""

import json
from collections.abc import Iterable, Mapping

from sqlalchemy import Connection

from server.model.clock import Micros
from server.model.limits import Bucket, BucketKey, BucketKind
from server.store.dialect import Dialect, columns
from server.store.rows import dump
from server.store.tuples import among_tuples, flat

LIMIT_BUCKET = columns("limit_bucket")


def lock_buckets(
    connection: Connection, dialect: Dialect, keys: Iterable[BucketKey], now: Micros
) -> dict[BucketKey, Bucket]:
    """The buckets of these keys, which nobody else changes until the transaction ends; new ones are made, empty.

    All are inserted before any is locked, each in the order of the keys, so that two that do this never wait for each
    other.
    """
    wanted = sorted(set(keys))
    found: dict[BucketKey, Bucket] = {}
    # More than once only where retention took an old row away between the two statements.
    while len(found) < len(wanted):
        dialect.insert_new(connection, LIMIT_BUCKET, [(*key, "[]", 0, 0, now) for key in wanted], "subject")
        found = _locked(connection, dialect, wanted)
    return found


def write_buckets(connection: Connection, dialect: Dialect, buckets: Mapping[BucketKey, Bucket], now: Micros) -> None:
    """Keep what was counted."""
    if buckets:
        rows = [(*key, dump(b.hits), b.blocks, b.blocked_until, now) for key, b in sorted(buckets.items())]
        dialect.update(connection, LIMIT_BUCKET, rows)


def _locked(connection: Connection, dialect: Dialect, keys: list[BucketKey]) -> dict[BucketKey, Bucket]:
    rows = connection.exec_driver_sql(
        "SELECT tenant_id, kind, subject, hits, blocks, blocked_until FROM limit_bucket "  # noqa: S608
        f"WHERE {among_tuples(dialect, LIMIT_BUCKET.key, len(keys))} "
        f"ORDER BY tenant_id, kind, subject{dialect.locked()}",
        flat(keys),
    )
    return {(row[0], BucketKind(row[1]), row[2]): Bucket(tuple(json.loads(row[3])), row[4], row[5]) for row in rows}
