"""Acceptance: callers that come together are committed together, one statement a table."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from sqlalchemy import Connection
from sqlalchemy.exc import StatementError

from server.model.clock import Micros
from server.model.conclude import accepted_event
from server.model.enums import DueKind, MessageClass
from server.model.errors import Exhausted, Unavailable
from server.model.messages import TOKEN, Case, Due, Hold, Message, NewMessage
from server.model.work import Acceptance, Claim
from server.store.apply import Apply
from server.store.batches import Answers, Batches
from server.store.database import Database
from server.store.dialect import Values
from server.store.keys import TenantKeys
from server.store.offers import Offers
from server.store.replays import Kept, Key, forget_keys, key_of, read_kept, replay
from server.store.rows import (
    DUE,
    EVENT_NEW,
    IDEMPOTENCY,
    MESSAGE_NEW,
    MESSAGE_TAG,
    due_row,
    event_row,
    message_row,
)
from server.store.sealing import seal_content, with_code
from server.store.verifications import Sending, Verifications

FLUSH_MAX = 200


@dataclass(frozen=True, slots=True)
class _Entry:
    """One message of a flush and its place among the calls. `assign`: our dispatcher has room for it."""

    place: int
    new: NewMessage
    assign: bool


@dataclass(frozen=True, slots=True)
class _Accepted:
    """A message as a flush writes it."""

    place: int
    message: Message
    due: Due
    row: Values
    claim: Claim | None


@dataclass(frozen=True, slots=True)
class _Written:
    """What came of the entries of a flush: by the limits of codes some are refused."""

    accepted: Sequence[_Accepted] = ()
    refused: Mapping[int, Exhausted] = field(default_factory=dict[int, Exhausted])


class Flush:
    """Accepts messages, at most 200 in one transaction, OTP first."""

    def __init__(self, database: Database, keys: TenantKeys, apply: Apply, boot_id: str) -> None:
        self.offers = Offers()
        self.on_assigned: Callable[[Claim], None] | None = None
        self._database = database
        self._keys = keys
        self._boot_id = boot_id
        self._verifications = Verifications(database, keys, apply)
        self._batches: Batches[NewMessage, Acceptance] = Batches(
            self._flush,
            database.blames_one,
            size_max=FLUSH_MAX,
            linger=True,
            first=lambda new: new.message.message_class == MessageClass.OTP,
        )

    async def accept(self, new: NewMessage) -> Acceptance:
        """Answer once the message is durable. Raises AlreadyExists (REQUEST_ID_REUSED), Exhausted, Unavailable."""
        return await self._batches.submit(new)

    async def close(self) -> None:
        """Finish the flush at work and those who wait."""
        await self._batches.close()

    async def _flush(self, news: list[NewMessage]) -> Answers[Acceptance]:
        firsts = _firsts(news)
        entries = [_Entry(place, news[place], self._assignable(news[place])) for place in sorted(set(firsts))]
        assigned: Counter[MessageClass] = Counter()
        try:
            written = await self._database.write(lambda connection: self._write(connection, entries))
            assigned = self._hand_over(written.accepted)
        finally:
            self.offers.settle(assigned)
        answers = await self._answers(news, firsts, {new.place: new.message for new in written.accepted})
        for place, first in enumerate(firsts):
            if first in written.refused and news[place].fingerprint == news[first].fingerprint:
                answers[place] = written.refused[first]
        return answers

    def _assignable(self, new: NewMessage) -> bool:
        return (
            self.on_assigned is not None and not new.message.schedule_at and self.offers.take(new.message.message_class)
        )

    def _hand_over(self, accepted: Iterable[_Accepted]) -> Counter[MessageClass]:
        """Tell the dispatcher what is its own now; how many there were of each class."""
        claims = [new.claim for new in accepted if new.claim is not None]
        if self.on_assigned is not None:
            loop = asyncio.get_running_loop()
            for claim in claims:
                # Not called here: what goes wrong in there is no fault of this flush.
                loop.call_soon(self.on_assigned, claim)
        return Counter(claim.case.message.message_class for claim in claims)

    def _write(self, connection: Connection, entries: Sequence[_Entry]) -> _Written:
        """Write the messages whose key is new and that no limit refuses; the others are left out."""
        read_at = time.monotonic()
        now = self._database.now(connection)
        prepared = [self._prepare(entry, now, read_at) for entry in entries if entry.new.otp is None]
        taken = self._take_keys(connection, entries, now)
        accepted = [new for new in prepared if new.place not in taken]
        coded = [entry for entry in entries if entry.new.otp is not None and entry.place not in taken]
        refused: Mapping[int, Exhausted] = {}
        if coded:
            sent, refused = self._send_codes(connection, coded)
            accepted += sent
        if accepted:
            self._insert(connection, sorted(accepted, key=lambda new: new.message.id))
        return _Written(accepted, refused)

    def _send_codes(
        self, connection: Connection, entries: Sequence[_Entry]
    ) -> tuple[list[_Accepted], Mapping[int, Exhausted]]:
        """The messages that carry a code, and the calls that are refused: their keys are free again."""
        read_at = time.monotonic()
        rulings = self._verifications.rule(connection, {entry.place: entry.new for entry in entries})
        refused = {place: ruling for place, ruling in rulings.items() if isinstance(ruling, Exhausted)}
        news = {entry.place: entry.new.message for entry in entries if entry.place in refused}
        forget_keys(connection, self._database.dialect, [key_of(new) for new in news.values() if new.request_id])
        accepted = [
            self._prepare(_coded(entry, ruling), ruling.at, read_at)
            for entry in entries
            if isinstance(ruling := rulings[entry.place], Sending)
        ]
        return accepted, refused

    def _take_keys(self, connection: Connection, entries: Sequence[_Entry], now: Micros) -> set[int]:
        """The places of those whose key belongs to another message already."""
        keyed = [entry for entry in entries if entry.new.message.request_id]
        if not keyed:
            return set()
        rows = sorted(
            (*key_of(entry.new.message), entry.new.message.id, entry.new.fingerprint, now, "") for entry in keyed
        )
        won = self._database.dialect.insert_new(connection, IDEMPOTENCY, rows, "message_id")
        return {entry.place for entry in keyed if entry.new.message.id not in won}

    def _prepare(self, entry: _Entry, now: Micros, read_at: float) -> _Accepted:
        content = entry.new.content
        recipient = content.recipient
        vault = self._keys.get(entry.new.message.tenant_id)
        due = self._due(entry, now)
        message = replace(
            _timed(entry.new.message, now),
            due=due,
            phone_index=vault.index(recipient.phone) if recipient.phone else "",
        )
        body, sealed_recipient = seal_content(vault, message.id, content)
        row = (
            *message_row(message),
            vault.index(recipient.email) if recipient.email else "",
            vault.index(recipient.user_id) if recipient.user_id else "",
            body,
            sealed_recipient,
            False,
        )
        hold = Hold(due.worker, due.epoch)
        claim = Claim(Case(message), hold, now, read_at, with_code(vault, content)) if due.worker else None
        return _Accepted(entry.place, message, due, row, claim)

    def _due(self, entry: _Entry, now: Micros) -> Due:
        if entry.assign:
            return Due(DueKind.SEND, now, epoch=1, claims=1, worker=self._boot_id)
        return Due(DueKind.SEND, max(now, entry.new.message.schedule_at))

    def _insert(self, connection: Connection, accepted: Sequence[_Accepted]) -> None:
        dialect, log_epoch = self._database.dialect, self._database.log_epoch
        dialect.insert(connection, MESSAGE_NEW, [new.row for new in accepted])
        tags = [
            (new.message.id, tag, new.message.tenant_id) for new in accepted for tag in sorted(set(new.message.tags))
        ]
        if tags:
            dialect.insert(connection, MESSAGE_TAG, tags)
        dialect.insert(connection, EVENT_NEW, [event_row(accepted_event(new.message), log_epoch) for new in accepted])
        dialect.insert(connection, DUE, [due_row(new.message, new.due) for new in accepted])
        self._database.events_appended()

    async def _answers(
        self, news: Sequence[NewMessage], firsts: Sequence[int], accepted: Mapping[int, Message]
    ) -> list[Acceptance | Exception]:
        """In the order of the calls; those whose first was not accepted get what their key belongs to."""
        kept = {
            key_of(news[place].message): Kept(message, news[place].fingerprint) for place, message in accepted.items()
        }
        lost = sorted({key_of(news[place].message) for place in firsts if place not in accepted})
        try:
            kept |= await self._read_kept(lost)
        except (Unavailable, StatementError) as error:
            # The flush is committed: nothing of it may be tried again, so only those without an answer learn of this.
            return [
                Acceptance(accepted[place], replayed=False) if place in accepted else error
                for place in range(len(news))
            ]
        return [
            Acceptance(accepted[place], replayed=False)
            if place in accepted
            else replay(new, kept.get(key_of(new.message)))
            for place, new in enumerate(news)
        ]

    async def _read_kept(self, keys: Sequence[Key]) -> Mapping[Key, Kept]:
        if not keys:
            return {}
        dialect = self._database.dialect
        return await self._database.read(lambda connection: read_kept(connection, dialect, keys))


def _timed(message: Message, now: Micros) -> Message:
    """Its life is counted by the database's clock, as its expiry will be: no caller's or replica's clock matters."""
    late = 0 if message.schedule_at else now - message.created_at
    return replace(message, created_at=now, updated_at=now, expires_at=message.expires_at + late)


def _coded(entry: _Entry, sending: Sending) -> _Entry:
    """The message with its code; it lives as long as its verification, whenever that began."""
    new, verification = entry.new, sending.verification
    message = replace(
        new.message,
        verification_id=verification.id,
        created_at=sending.at,
        expires_at=verification.expires_at,
    )
    params = {**new.content.params, TOKEN: sending.token} if sending.token else new.content.params
    content = replace(new.content, params=params, code=sending.code)
    return replace(entry, new=replace(new, message=message, content=content))


def _firsts(news: Sequence[NewMessage]) -> list[int]:
    """For each call the place of the first one with its key: its own where it has none."""
    places: dict[Key, int] = {}
    return [
        places.setdefault(key_of(new.message), place) if new.message.request_id else place
        for place, new in enumerate(news)
    ]
