"""Taking up what is due, fairly between tenants, and giving it back."""

import time
from collections import Counter
from collections.abc import Sequence
from functools import cache

import structlog
from sqlalchemy import Connection, TextClause, bindparam, text

from server.model.clock import SECOND, Micros
from server.model.enums import DueKind, MessageClass
from server.model.messages import Case, Content, Hold, Message
from server.model.policy import POISON_ALONE_AFTER
from server.model.work import Claim
from server.store.cases import read_cases
from server.store.database import Database
from server.store.dialect import FREE, TAKEN, Lane, Taking
from server.store.keys import TenantKeys
from server.store.rows import DUE, Row, due_of
from server.store.sealing import open_content
from server.vault.vault import Unopenable

SEALED_PAUSE: Micros = 60 * SECOND
"""For so long a message is let be whose content no key of ours opens."""

_log = structlog.get_logger("store")


class Claims:
    """Due rows of this worker: `boot_id` is written into what it holds."""

    def __init__(self, database: Database, keys: TenantKeys, boot_id: str) -> None:
        self._database = database
        self._keys = keys
        self._boot_id = boot_id
        self._last_served: dict[tuple[str, frozenset[DueKind]], str] = {}

    async def claim(
        self, message_class: MessageClass, kinds: frozenset[DueKind], limit: int, *, alone: bool = False
    ) -> list[Claim]:
        """Hold up to `limit` messages of these kinds that are due.

        Every tenant with due work gets an equal share, then what is left goes round again; where there are more tenants
        than room, each call goes on after the tenant that was served last. `alone`: one message at most, of those that
        are claimed alone because claims of them died. What does not open is not claimed but put off by a
        minute: a master key that is missing or wrong fails no message.
        """
        if limit <= 0 or not kinds:
            return []
        take = self._take_alone if alone else self._take

        def claim(connection: Connection) -> list[Claim]:
            read_at = time.monotonic()
            now = self._database.now(connection)
            taking = Taking(self._boot_id, message_class.value, now, 1, limit)
            return self._claims(connection, take(connection, kinds, taking), now, read_at)

        return await self._database.write(claim)

    async def next_due(self, message_class: MessageClass, kinds: frozenset[DueKind]) -> Micros | None:
        """How long until something may be claimed among others: 0 when it may be now, None for nothing."""

        def read(connection: Connection) -> Micros | None:
            found = [due_at for _, due_at in _lanes(connection, message_class, kinds)]
            return max(0, min(found) - self._database.now(connection)) if found else None

        return await self._database.read(read)

    async def release(self, claims: Sequence[Claim]) -> None:
        """Give back what was claimed and not begun: anybody may take it at once, and the claim does not count."""
        rows = sorted((claim.case.message.id, claim.hold.worker, claim.hold.epoch) for claim in claims)
        if rows:
            values = [{"id": id_, "worker": worker, "epoch": epoch} for id_, worker, epoch in rows]
            await self._database.write(lambda connection: connection.execute(_RELEASE, values).close())

    async def held(self) -> list[tuple[str, Hold]]:
        """Everything that this worker holds."""
        return await self._database.read(lambda connection: held_by(connection, self._boot_id))

    def _take(self, connection: Connection, kinds: frozenset[DueKind], taking: Taking) -> list[Row]:
        message_class = MessageClass(taking.message_class)
        ready = [lane for lane, due_at in _lanes(connection, message_class, kinds) if due_at <= taking.now]
        lanes: list[Lane] = _rotated(ready, self._last_served.get((taking.message_class, kinds), ""))
        taken: list[Row] = []
        while lanes and len(taken) < taking.limit:
            room = taking.limit - len(taken)
            round_ = Taking(taking.worker, taking.message_class, taking.now, max(1, room // len(lanes)), room)
            served = lanes[:room]
            rows = self._database.dialect.take_due(connection, DUE, served, round_)
            if not taken:
                self._last_served[taking.message_class, kinds] = served[-1].tenant_id
            taken.extend(rows)
            counts = Counter(Lane(row[3], row[1]) for row in rows)
            lanes = [lane for lane in lanes if lane not in served or counts[lane] >= round_.each]
        return taken

    def _take_alone(self, connection: Connection, kinds: frozenset[DueKind], taking: Taking) -> list[Row]:
        statement = _take_alone(self._database.dialect.locked(skip=True))
        values = {"worker": taking.worker, "class": taking.message_class, "now": taking.now, "kinds": sorted(kinds)}
        return list(connection.execute(statement, values).all())

    def _claims(self, connection: Connection, rows: Sequence[Row], now: Micros, read_at: float) -> list[Claim]:
        ids = [row[0] for row in rows]
        cases = read_cases(connection, self._database.dialect, ids)
        contents = self._read_contents(connection, cases)
        sealed = [case.message for id_, case in cases.items() if isinstance(contents.get(id_), Unopenable)]
        if sealed:
            self._let_be(connection, sealed, now)
        return [
            Claim(cases[row[0]], Hold(self._boot_id, due_of(row).epoch), now, read_at, content)
            for row in rows
            if row[0] in cases and not isinstance(content := contents.get(row[0]), Unopenable)
        ]

    def _let_be(self, connection: Connection, sealed: Sequence[Message], now: Micros) -> None:
        later = [{"id": id_, "worker": self._boot_id, "at": now + SEALED_PAUSE} for id_ in sorted(m.id for m in sealed)]
        connection.execute(_LET_BE, later)
        for tenant_id, count in sorted(Counter(message.tenant_id for message in sealed).items()):
            _log.error("messages wait: their content does not open", tenant_id=tenant_id, messages=count)

    def _read_contents(self, connection: Connection, cases: dict[str, Case]) -> dict[str, Content | Unopenable | None]:
        dialect = self._database.dialect
        rows = connection.exec_driver_sql(
            f"SELECT id, body, recipient FROM message WHERE {dialect.among('id')}",  # noqa: S608
            (dialect.texts(list(cases)),),
        ).all()
        return {row.id: self._open(cases[row.id], row.body, row.recipient) for row in rows}

    def _open(self, case: Case, body: bytes, recipient: bytes) -> Content | Unopenable | None:
        """None for what has been erased."""
        if not body or not recipient:
            return None
        try:
            return open_content(self._keys.get(case.message.tenant_id), case.message.id, body, recipient)
        except Unopenable as sealed:
            return sealed


def held_by(connection: Connection, worker: str) -> list[tuple[str, Hold]]:
    """Everything that a worker holds."""
    rows = connection.execute(_HELD, {"worker": worker})
    return [(row.message_id, Hold(worker, row.epoch)) for row in rows]


def _lanes(connection: Connection, message_class: MessageClass, kinds: frozenset[DueKind]) -> list[tuple[Lane, Micros]]:
    """Every tenant and kind with something that is free, and when its first falls due, in the order of tenants."""
    rows = connection.execute(_lanes_of(kinds), {"class": message_class.value})
    lanes = [(Lane(row.kind, row.tenant_id), row.due_at) for row in rows if row.due_at is not None]
    return sorted(lanes, key=lambda found: (found[0].tenant_id, found[0].kind))


def _rotated(lanes: list[Lane], last_served: str) -> list[Lane]:
    """The lanes of the tenants behind the one that was served last, then the others."""
    return sorted(lanes, key=lambda lane: lane.tenant_id <= last_served)


@cache
def _lanes_of(kinds: frozenset[DueKind]) -> TextClause:
    """Jumps from tenant to tenant on the index, however many rows each of them has."""
    free = f"SELECT {{}} FROM due WHERE {FREE} AND message_class = :class AND kind = lane.kind"  # noqa: S608
    first = free.format("tenant_id") + " ORDER BY tenant_id LIMIT 1"
    following = free.format("tenant_id") + " AND tenant_id > lane.tenant_id ORDER BY tenant_id LIMIT 1"
    due_at = free.format("due_at") + " AND tenant_id = lane.tenant_id ORDER BY due_at LIMIT 1"
    wanted = " UNION ALL ".join(f"SELECT '{kind.value}' AS kind" for kind in sorted(kinds))
    return text(
        f"WITH RECURSIVE wanted AS ({wanted}), tenants AS ("  # noqa: S608
        f"SELECT lane.kind, ({first}) AS tenant_id FROM wanted AS lane UNION ALL "
        f"SELECT lane.kind, ({following}) FROM tenants AS lane WHERE lane.tenant_id IS NOT NULL) "
        f"SELECT lane.kind, lane.tenant_id, ({due_at}) AS due_at FROM tenants AS lane WHERE lane.tenant_id IS NOT NULL"
    )


@cache
def _take_alone(locked: str) -> TextClause:
    return text(
        "WITH free AS MATERIALIZED (SELECT message_id FROM due "  # noqa: S608
        f"WHERE worker = '' AND claims >= {POISON_ALONE_AFTER} AND message_class = :class AND kind IN :kinds "
        f"AND due_at <= :now ORDER BY due_at LIMIT 1{locked}) "
        f"UPDATE due SET {TAKEN.format(':worker')} WHERE message_id IN (SELECT message_id FROM free) "
        f"RETURNING {', '.join(DUE.names)}"
    ).bindparams(bindparam("kinds", expanding=True))


_UNTAKEN = "worker = '', claims = CASE WHEN kind = 'SEND' AND claims > 0 THEN claims - 1 ELSE claims END"
_RELEASE = text(f"UPDATE due SET {_UNTAKEN} WHERE message_id = :id AND worker = :worker AND epoch = :epoch")  # noqa: S608
_LET_BE = text(f"UPDATE due SET {_UNTAKEN}, due_at = :at WHERE message_id = :id AND worker = :worker")  # noqa: S608

_HELD = text("SELECT message_id, epoch FROM due WHERE worker = :worker AND worker <> '' ORDER BY message_id")
