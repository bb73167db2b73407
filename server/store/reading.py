"""Reading messages, for callers: always within one tenant."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, Select, and_, select, tuple_
from sqlmodel import col

from server.model.clock import Micros
from server.model.enums import Channel
from server.model.errors import not_found
from server.model.explanation import Explanation
from server.model.messages import Case, Content, Event, Message
from server.model.tables import METADATA, ExplanationRow, Idempotency, SandboxMessage
from server.model.watching import Filter
from server.model.work import SandboxCopy
from server.store.cases import read_cases
from server.store.database import Database
from server.store.filters import wanted_rows
from server.store.keys import TenantKeys
from server.store.log import own_events
from server.store.rows import DUE, MESSAGE, due_of, explanation_of, message_of
from server.store.sealing import open_content, open_copy
from server.vault.vault import TenantVault, Unopenable

_MESSAGE = METADATA.tables["message"]
_DUE = METADATA.tables["due"]
_NOTIFICATION = "notification"
COPIES_AT_ONCE = 1_000
"""How many copies are read at a time once some of a page did not open."""


@dataclass(frozen=True, slots=True)
class SandboxRecord:
    """One hand-off of a SANDBOX tenant, as PeekOutbox shows it."""

    tracking_id: str
    copy: SandboxCopy
    created_at: Micros

    @property
    def place(self) -> str:
        """Where it stands in the outbox: what a page token holds."""
        return _place(self.created_at, self.tracking_id, self.copy.attempt)


class Reading:
    """What there is of a tenant's messages. Whatever is another tenant's is not there."""

    def __init__(self, database: Database, keys: TenantKeys) -> None:
        self._database = database
        self._keys = keys

    async def now(self) -> Micros:
        """The database's clock, by which everything is planned."""
        return await self._database.read(self._database.now)

    async def message(
        self, tenant_id: str, *, tracking_id: str = "", client_id: str = "", request_id: str = ""
    ) -> Case:
        """A message with its attempts: by its id, or by the key under which a client sent it. Raises NotFound."""

        def read(connection: Connection) -> Case:
            return self._case(connection, tenant_id, tracking_id, client_id, request_id)

        return await self._database.read(read)

    async def status(
        self, tenant_id: str, *, tracking_id: str = "", client_id: str = "", request_id: str = ""
    ) -> tuple[Case, list[Event], Explanation | None]:
        """As `message`, with its events in order, of one moment: the last event made the state what it is.

        And why it took its way, as of the last time that its route was planned; None where it never was.
        """

        def read(connection: Connection) -> tuple[Case, list[Event], Explanation | None]:
            case = self._case(connection, tenant_id, tracking_id, client_id, request_id)
            message_id = case.message.id
            return (
                case,
                own_events(connection, tenant_id, message_id, 0),
                _explanation(connection, tenant_id, message_id),
            )

        return await self._database.read(read)

    async def opened(self, tenant_id: str, tracking_id: str) -> tuple[Case, Content | None]:
        """A message with its attempts and its content; None for what was erased or does not open. Raises NotFound."""
        vault = await self._keys.ready(tenant_id)

        def read(connection: Connection) -> tuple[Case, Content | None]:
            case = self._case(connection, tenant_id, tracking_id, "", "")
            this = (_MESSAGE.c.tenant_id == tenant_id, _MESSAGE.c.id == case.message.id)
            body, recipient = connection.execute(select(_MESSAGE.c.body, _MESSAGE.c.recipient).where(*this)).one()
            try:
                return case, open_content(vault, case.message.id, body, recipient)
            except Unopenable:
                return case, None

        return await self._database.read(read)

    async def timeline(self, tenant_id: str, message_id: str) -> list[Event]:
        """A message's events in order; [] where there is none."""
        return await self._database.read(lambda c: own_events(c, tenant_id, message_id, 0))

    def _case(self, connection: Connection, tenant_id: str, tracking_id: str, client_id: str, request_id: str) -> Case:
        message_id = tracking_id or _sent_under(connection, tenant_id, client_id, request_id)
        if not _is_of(connection, tenant_id, message_id):
            raise not_found("message", tracking_id or request_id)
        return read_cases(connection, self._database.dialect, [message_id])[message_id]

    async def messages(self, tenant_id: str, wanted: Filter, *, before: str = "", limit: int) -> list[Message]:
        """At most `limit` messages that a filter wants, newest first. `before`: the last id of the page before."""

        def read(connection: Connection) -> list[Message]:
            conditions = wanted_rows(_MESSAGE, tenant_id, wanted)
            if before:
                conditions.append(_MESSAGE.c.id < before)
            page = _with_due().where(*conditions).order_by(_MESSAGE.c.id.desc()).limit(limit)
            return [_message_in(row) for row in connection.execute(page)]

        return await self._database.read(read)

    async def outbox(
        self,
        tenant_id: str,
        *,
        tracking_id: str = "",
        phone: str = "",
        email: str = "",
        before: str = "",
        limit: int,
    ) -> list[SandboxRecord]:
        """At most `limit` hand-offs of a SANDBOX tenant, newest first; of a message, or to an address.

        `before`: the `place` of the last record of the page before. What can no longer be opened is left out.
        """
        vault = await self._keys.ready(tenant_id)
        addresses = [vault.index(address) for address in (phone, email) if address]
        records: list[SandboxRecord] = []
        size = limit
        while len(records) < limit:
            page = _copies(tenant_id, tracking_id, addresses, before).limit(size)
            rows = await self._database.read(lambda c, page=page: c.execute(page).all())
            records += [record for row in rows if (record := _record_in(vault, row)) is not None]
            if len(rows) < size:
                break
            last, size = rows[-1], max(limit, COPIES_AT_ONCE)
            before = _place(last.created_at, last.message_id, last.attempt)
        return records[:limit]


def _place(created_at: Micros, message_id: str, attempt: int) -> str:
    return f"{created_at}:{message_id}:{attempt}"


def _is_of(connection: Connection, tenant_id: str, message_id: str) -> bool:
    this = (_MESSAGE.c.tenant_id == tenant_id, _MESSAGE.c.id == message_id)
    return connection.execute(select(_MESSAGE.c.id).where(*this)).one_or_none() is not None


def _explanation(connection: Connection, tenant_id: str, message_id: str) -> Explanation | None:
    this = (col(ExplanationRow.tenant_id) == tenant_id, col(ExplanationRow.message_id) == message_id)
    content = connection.execute(select(col(ExplanationRow.content)).where(*this)).scalar_one_or_none()
    return explanation_of(content) if content else None


def _sent_under(connection: Connection, tenant_id: str, client_id: str, request_id: str) -> str:
    key = select(col(Idempotency.message_id)).where(
        col(Idempotency.tenant_id) == tenant_id,
        col(Idempotency.client_id) == client_id,
        col(Idempotency.kind) == _NOTIFICATION,
        col(Idempotency.request_id) == request_id,
    )
    return connection.execute(key).scalar_one_or_none() or ""


def _with_due() -> Select[Any]:
    both = _MESSAGE.outerjoin(_DUE, and_(_DUE.c.message_id == _MESSAGE.c.id, _DUE.c.tenant_id == _MESSAGE.c.tenant_id))
    return select(*(_MESSAGE.c[n] for n in MESSAGE.names), *(_DUE.c[n] for n in DUE.names)).select_from(both)


def _message_in(row: Row[Any]) -> Message:
    of_due = row[len(MESSAGE.names) :]
    return message_of(row, due_of(of_due) if of_due[0] else None)


def _copies(tenant_id: str, tracking_id: str, addresses: Sequence[str], before: str) -> Select[Any]:
    place = (col(SandboxMessage.created_at), col(SandboxMessage.message_id), col(SandboxMessage.attempt))
    copies = select(SandboxMessage).where(col(SandboxMessage.tenant_id) == tenant_id)
    if tracking_id:
        copies = copies.where(col(SandboxMessage.message_id) == tracking_id)
    for address in addresses:
        copies = copies.where(col(SandboxMessage.address_index) == address)
    if before:
        created_at, message_id, attempt = before.split(":")
        copies = copies.where(tuple_(*place) < (int(created_at), message_id, int(attempt)))
    return copies.order_by(*(column.desc() for column in place))


def _record_in(vault: TenantVault, row: Row[Any]) -> SandboxRecord | None:
    try:
        copy = open_copy(vault, row.message_id, row.attempt, Channel(row.channel), row.provider, row.content)
    except Unopenable:
        return None
    return SandboxRecord(row.message_id, copy, row.created_at)
