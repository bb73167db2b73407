"""The one place that changes a message: facts come in, `decide` judges, what follows is written with its events."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection

from server.model.clock import Micros
from server.model.conclude import Decision
from server.model.decide import Refused, decide
from server.model.facts import Fact
from server.model.messages import Attempt, Case, Event, Message
from server.model.work import SandboxCopy
from server.store.attempts import ATTEMPT, attempt_row
from server.store.batches import Answers, Batches
from server.store.cases import read_cases
from server.store.database import Database
from server.store.dialect import Values
from server.store.keys import TenantKeys
from server.store.rows import (
    DUE,
    EVENT_NEW,
    MESSAGE_MOVED,
    SANDBOX_MESSAGE,
    due_row,
    event_row,
    moved_row,
)
from server.store.sealing import seal_copy

APPLY_MAX = 200

Ruling = Decision | Refused


@dataclass(frozen=True, slots=True)
class _Statement:
    """A fact about a message, and what a sandbox tenant may see of it."""

    message_id: str
    fact: Fact
    copy: SandboxCopy | None


@dataclass(slots=True)
class _Change:
    """What the facts of a batch have made of one message so far."""

    before: Message
    case: Case
    attempts: dict[int, Attempt] = field(default_factory=dict[int, Attempt])
    events: list[Event] = field(default_factory=list[Event])
    copies: list[SandboxCopy] = field(default_factory=list[SandboxCopy])

    def take(self, decision: Decision) -> None:
        """Go on from a decision."""
        changed = {attempt.number: attempt for attempt in decision.attempts}
        merged = {attempt.number: attempt for attempt in self.case.attempts} | changed
        self.case = Case(decision.message, tuple(merged[number] for number in sorted(merged)))
        self.attempts |= changed
        self.events.extend(decision.events)


class Apply:
    """Applies facts, at most 200 in one transaction; the facts of one message in the order in which they came."""

    def __init__(self, database: Database, keys: TenantKeys) -> None:
        self._database = database
        self._keys = keys
        self._batches: Batches[_Statement, Ruling] = Batches(self._apply, database.blames_one, size_max=APPLY_MAX)

    async def apply(self, message_id: str, fact: Fact, copy: SandboxCopy | None = None) -> Ruling:
        """What the fact made of the message, once that is durable; Refused where it changes nothing.

        `copy` is written only beside a decision. Raises Unavailable: then it may or may not have been applied.
        """
        return await self._batches.submit(_Statement(message_id, fact, copy))

    async def close(self) -> None:
        """Finish what was submitted."""
        await self._batches.close()

    async def _apply(self, statements: list[_Statement]) -> Answers[Ruling]:
        return await self._database.write(lambda connection: self._rule(connection, statements))

    def _rule(self, connection: Connection, statements: Sequence[_Statement]) -> list[Ruling]:
        ids = {statement.message_id for statement in statements}
        cases = read_cases(connection, self._database.dialect, ids, lock=True)
        # After the locks are held: whoever held them before us has left its times behind.
        now = self._database.now(connection)
        changes = {id_: _Change(case.message, case) for id_, case in cases.items()}
        rulings = [_rule_one(changes.get(statement.message_id), statement, now) for statement in statements]
        self._write(connection, [changes[id_] for id_ in sorted(changes)], now)
        return rulings

    def _write(self, connection: Connection, changes: Sequence[_Change], now: Micros) -> None:
        dialect, log_epoch = self._database.dialect, self._database.log_epoch
        moved = [row for c in changes if (row := moved_row(c.case.message)) != moved_row(c.before)]
        ended = [c.before.id for c in changes if c.before.due is not None and c.case.message.due is None]
        events = [event_row(event, log_epoch) for c in changes for event in c.events]
        for into, rows in (
            (ATTEMPT, [attempt_row(c.before.id, c.attempts[n]) for c in changes for n in sorted(c.attempts)]),
            (DUE, _due_rows(changes)),
            (SANDBOX_MESSAGE, [self._copy_row(c.before, copy, now) for c in changes for copy in c.copies]),
        ):
            if rows:
                dialect.upsert(connection, into, rows)
        if moved:
            dialect.update(connection, MESSAGE_MOVED, moved)
        if ended:
            dialect.delete(connection, "due", "message_id", ended)
        if events:
            dialect.insert(connection, EVENT_NEW, events)
            self._database.events_appended()

    def _copy_row(self, message: Message, copy: SandboxCopy, now: Micros) -> Values:
        vault = self._keys.get(message.tenant_id)
        values = {
            "message_id": message.id,
            "attempt": copy.attempt,
            "tenant_id": message.tenant_id,
            "channel": copy.channel.value,
            "provider": copy.provider,
            "address_index": vault.index(copy.recipient),
            "content": seal_copy(vault, message.id, copy),
            "created_at": now,
        }
        return tuple(values[name] for name in SANDBOX_MESSAGE.names)


def _rule_one(change: _Change | None, statement: _Statement, now: Micros) -> Ruling:
    if change is None:
        return Refused("UNKNOWN")
    ruling = decide(change.case, statement.fact, now)
    if isinstance(ruling, Decision):
        change.take(ruling)
        if statement.copy is not None:
            change.copies.append(statement.copy)
    return ruling


def _due_rows(changes: Sequence[_Change]) -> list[Values]:
    return [
        due_row(c.case.message, c.case.message.due)
        for c in changes
        if c.case.message.due is not None and c.case.message.due != c.before.due
    ]
