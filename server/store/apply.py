"""The one place that changes a message: facts come in, `decide` judges, what follows is written with its events.

A fact that brings a provider's id of a message brings with it the receipts that wait for that id. What a look-up found
is no answer where another attempt has the id.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from sqlalchemy import Connection

from server.model.clock import Micros
from server.model.conclude import Decision
from server.model.decide import Refused, decide
from server.model.explanation import Explanation
from server.model.facts import Fact, LookedUp, Receipted, Settled, Started
from server.model.messages import Attempt, Case, Event, Message
from server.model.outcomes import Accepted, Found, NoAnswer, Receipt
from server.model.work import NOTHING_BESIDE, Beside, SandboxCopy
from server.store.attempts import ATTEMPT, attempt_row
from server.store.batches import Answers, Batches
from server.store.cases import read_cases
from server.store.database import Database
from server.store.dialect import Values
from server.store.inbox import Inbox, Name, read_inbox
from server.store.keys import TenantKeys
from server.store.names import Names, read_names
from server.store.rows import (
    DUE,
    EVENT_NEW,
    EXPLANATION,
    MESSAGE_MOVED,
    SANDBOX_MESSAGE,
    due_row,
    event_row,
    explanation_text,
    moved_row,
)
from server.store.sealing import seal_copy

APPLY_MAX = 200

Ruling = Decision | Refused


@dataclass(frozen=True, slots=True)
class Statement:
    """A fact about a message, and what is kept beside the decision on it."""

    message_id: str
    fact: Fact
    beside: Beside = NOTHING_BESIDE


@dataclass(slots=True)
class _Change:
    """What the facts of a batch have made of one message so far."""

    before: Message
    case: Case
    attempts: dict[int, Attempt] = field(default_factory=dict[int, Attempt])
    events: list[Event] = field(default_factory=list[Event])
    copies: list[SandboxCopy] = field(default_factory=list[SandboxCopy])
    explanation: Explanation | None = None

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
        self._batches: Batches[Statement, Ruling] = Batches(self._apply, database.blames_one, size_max=APPLY_MAX)

    async def apply(self, message_id: str, fact: Fact, beside: Beside = NOTHING_BESIDE) -> Ruling:
        """What the fact made of the message, once that is durable; Refused where it changes nothing.

        `beside` is written only with a decision. Raises Unavailable: then it may or may not have been applied.
        """
        return await self._batches.submit(Statement(message_id, fact, beside))

    async def close(self) -> None:
        """Finish what was submitted."""
        await self._batches.close()

    async def _apply(self, statements: list[Statement]) -> Answers[Ruling]:
        return await self._database.write(lambda connection: self.rule(connection, statements))

    def rule(self, connection: Connection, statements: Sequence[Statement]) -> list[Ruling]:
        """Apply facts in the caller's transaction, which locks their messages in the order of their ids."""
        ids = {statement.message_id for statement in statements}
        return self.rule_on(connection, read_cases(connection, self._database.dialect, ids, lock=True), statements)

    def rule_on(
        self, connection: Connection, cases: Mapping[str, Case], statements: Sequence[Statement]
    ) -> list[Ruling]:
        """As `rule`, of messages that the caller's transaction has read and locked."""
        dialect = self._database.dialect
        # After the locks are held: whoever held them before us has left its times behind.
        now = self._database.now(connection)
        names = read_names(connection, dialect, _names_found(cases, statements))
        inbox = read_inbox(connection, dialect, _accounts(cases, statements), _ids_brought(statements))
        changes = {id_: _Change(case.message, case) for id_, case in cases.items()}
        rulings = [_rule_one(changes.get(each.message_id), each, names, inbox, now) for each in statements]
        self._write(connection, [changes[id_] for id_ in sorted(changes)], now)
        inbox.forget(connection, dialect)
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
            (
                EXPLANATION,
                [(c.before.id, c.before.tenant_id, explanation_text(c.explanation)) for c in changes if c.explanation],
            ),
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


def _rule_one(change: _Change | None, statement: Statement, names: Names, inbox: Inbox, now: Micros) -> Ruling:
    if change is None:
        return Refused("UNKNOWN")
    fact = _unless_anothers(statement, change.case, names)
    name = _name_brought(change.case, fact)
    waiting = inbox.look(name) if name else ()
    ruling = decide(change.case, _with_receipts(fact, waiting), now)
    if isinstance(ruling, Refused):
        return ruling
    change.take(ruling)
    names.give(statement.message_id, ruling.attempts)
    if statement.beside.copy is not None:
        change.copies.append(statement.beside.copy)
    change.explanation = statement.beside.explanation or change.explanation
    if name and waiting:
        inbox.take(name)
        return _rule_waiting(change, fact, waiting, now) or ruling
    return ruling


def _unless_anothers(statement: Statement, case: Case, names: Names) -> Fact:
    """The fact; of a look-up that found what another attempt has, that it found nothing."""
    fact = statement.fact
    name = _name_brought(case, fact)
    if isinstance(fact, LookedUp) and name and names.is_anothers(name, (statement.message_id, fact.number)):
        return replace(fact, result=NoAnswer())
    return fact


def _rule_waiting(change: _Change, fact: Fact, waiting: Iterable[Receipt], now: Micros) -> Ruling | None:
    """Apply what waited for the id that a fact has brought, where the fact itself has not; the last decision."""
    last: Ruling | None = None
    if isinstance(fact, LookedUp | Receipted):
        for receipt in waiting:
            ruling = decide(change.case, Receipted(fact.number, receipt), now)
            if isinstance(ruling, Decision):
                change.take(ruling)
                last = ruling
    return last


def _with_receipts(fact: Fact, waiting: Sequence[Receipt]) -> Fact:
    if waiting and isinstance(fact, Settled):
        return replace(fact, receipts=(*fact.receipts, *waiting))
    return fact


def _name_brought(case: Case, fact: Fact) -> Name | None:
    """The provider's name of the message that a fact brings, if it brings one to an attempt."""
    id_ = _id_brought(fact)
    if not id_ or not isinstance(fact, Settled | LookedUp | Receipted):
        return None
    return next(((a.account_uid, id_) for a in case.attempts if a.number == fact.number), None)


def _id_brought(fact: Fact) -> str:
    match fact:
        case Settled(outcome=Accepted(id_)) | LookedUp(result=Found(id_)) | Receipted(provider_message_id=id_):
            return id_
        case _:
            return ""


def _names_found(cases: Mapping[str, Case], statements: Iterable[Statement]) -> set[Name]:
    """The names that look-ups bring."""
    found = [s for s in statements if s.message_id in cases and isinstance(s.fact, LookedUp)]
    return {name for s in found if (name := _name_brought(cases[s.message_id], s.fact)) is not None}


def _ids_brought(statements: Iterable[Statement]) -> set[str]:
    return {id_ for statement in statements if (id_ := _id_brought(statement.fact))}


def _accounts(cases: Mapping[str, Case], statements: Iterable[Statement]) -> set[str]:
    """All accounts of the messages' attempts, with those that are only begun by these facts."""
    begun = [opening.account_uid for s in statements if isinstance(s.fact, Started) for opening in s.fact.openings]
    return {attempt.account_uid for case in cases.values() for attempt in case.attempts}.union(begun)


def _due_rows(changes: Sequence[_Change]) -> list[Values]:
    return [
        due_row(c.case.message, c.case.message.due)
        for c in changes
        if c.case.message.due is not None and c.case.message.due != c.before.due
    ]
