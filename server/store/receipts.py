"""Receipts that providers post: each moves its attempt, or waits until some attempt is known to have its id."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, text

from server.model.clock import DAY, MINUTE, Micros
from server.model.conclude import Decision
from server.model.enums import ReceiptKind
from server.model.facts import Receipted
from server.model.messages import Case
from server.model.outcomes import Report
from server.model.reporting import Reference
from server.store.apply import Apply, Ruling, Statement
from server.store.batches import Answers, Batches
from server.store.cases import read_cases
from server.store.database import Database
from server.store.dialect import Values
from server.store.inbox import Name, Waiting, keep, remove, waiting_of
from server.store.rows import failure_text

RECEIVE_MAX = 200
SWEEP_MAX = 200
LOOK_MAX = 2_000
"""So many waiting receipts are looked at in one sweep; the others' turn comes with the next ones."""
ATTEMPTS_MAX = 5 * RECEIVE_MAX
"""So many attempts are weighed for a batch, the latest: a provider may have given one id to any number of messages."""
RACE_MAX: Micros = MINUTE
"""For so long after it came a receipt may have slipped past the transaction that brought its id."""
KEPT: Micros = 3 * DAY
"""The receipt timeout: nothing asks for an id any more after it."""

Place = tuple[str, int]
"""An attempt: its message's id, and its number."""


@dataclass(frozen=True, slots=True)
class _Arrival:
    account_uid: str
    report: Report
    reference: Reference

    @property
    def name(self) -> Name:
        return (self.account_uid, self.report.provider_message_id)


@dataclass(frozen=True, slots=True)
class _Page:
    """What a sweep has looked at: the waiting receipts whose attempt is known by now, those too old, and how far."""

    found: Sequence[Waiting]
    old: Sequence[Values]
    until: Micros


class Receipts:
    """Takes receipts in, at most 200 in one transaction, and sweeps for those that slipped between two."""

    def __init__(self, database: Database, apply: Apply) -> None:
        self._database = database
        self._apply = apply
        self._batches: Batches[_Arrival, Ruling | None] = Batches(
            self._receive, database.blames_one, size_max=RECEIVE_MAX
        )
        self._swept: Micros = 0

    async def receive(self, account_uid: str, report: Report, reference: Reference) -> Ruling | None:
        """What a report made of its message, durable; None where no attempt is known to be meant: it waits."""
        return await self._batches.submit(_Arrival(account_uid, report, reference))

    async def close(self) -> None:
        """Finish what was submitted."""
        await self._batches.close()

    async def sweep(self) -> int:
        """Apply a few of the waiting receipts whose attempt is known by now; how many of them moved a message.

        The transaction that brings an id takes what waits for it. On Postgres a receipt may be committed just behind
        its look: neither saw the other.
        """
        page = await self._database.read(self._look)
        moved = await self._database.write(lambda c: self._join(c, page)) if page.found or page.old else 0
        self._swept = page.until
        return moved

    async def _receive(self, arrivals: list[_Arrival]) -> Answers[Ruling | None]:
        return await self._database.write(lambda connection: self._take(connection, arrivals))

    def _take(self, connection: Connection, arrivals: Sequence[_Arrival]) -> list[Ruling | None]:
        ids = {arrival.reference.message_id for arrival in arrivals} | self._known(connection, arrivals)
        cases = read_cases(connection, self._database.dialect, ids - {""}, lock=True)
        attempts = _Attempts(cases)
        places = [attempts.find(arrival) for arrival in arrivals]
        stated = [_stated(a.report, place) for a, place in zip(arrivals, places, strict=True) if place is not None]
        rulings = iter(self._apply.rule_on(connection, cases, stated))
        self._keep(connection, [a for a, place in zip(arrivals, places, strict=True) if place is None])
        return [None if place is None else next(rulings) for place in places]

    def _known(self, connection: Connection, arrivals: Iterable[_Arrival]) -> set[str]:
        """The messages that the ids belong to. Of several with one id, the latest: a provider has begun anew."""
        names = {arrival.name for arrival in arrivals if arrival.name[1]}
        dialect = self._database.dialect
        rows = connection.exec_driver_sql(
            "SELECT account_uid, provider_message_id, message_id FROM attempt "  # noqa: S608
            f"WHERE {dialect.among('account_uid')} AND {dialect.among('provider_message_id')} "
            f"ORDER BY started_at DESC, message_id DESC LIMIT {ATTEMPTS_MAX}",
            (dialect.texts(sorted({uid for uid, _ in names})), dialect.texts(sorted({id_ for _, id_ in names}))),
        ).all()
        latest: dict[Name, str] = {}
        for uid, id_, message_id in rows:
            latest.setdefault((uid, id_), message_id)
        return {message_id for name, message_id in latest.items() if name in names}

    def _keep(self, connection: Connection, arrivals: Sequence[_Arrival]) -> None:
        """Have these wait. What tells of no end is worth nothing once the id is known: it was taken, then."""
        ends = [a for a in arrivals if a.name[1] and a.report.receipt.kind != ReceiptKind.OTHER]
        if not ends:
            return
        tenants, now = self._tenants(connection, {a.account_uid for a in ends}), self._database.now(connection)
        rows = {
            Waiting(a.name, a.report.receipt).key: (tenants[a.account_uid], failure_text(a.report.receipt.failure), now)
            for a in ends
            if a.account_uid in tenants
        }
        keep(connection, self._database.dialect, rows)

    def _tenants(self, connection: Connection, uids: Iterable[str]) -> Mapping[str, str]:
        """Whose these accounts are; those that are gone are left out."""
        dialect = self._database.dialect
        rows = connection.exec_driver_sql(
            f"SELECT uid, tenant_id FROM provider_account WHERE {dialect.among('uid')}",  # noqa: S608
            (dialect.texts(sorted(uids)),),
        ).all()
        return {row.uid: row.tenant_id for row in rows}

    def _look(self, connection: Connection) -> _Page:
        now = self._database.now(connection)
        rows = connection.execute(_WAITING, {"since": self._swept, "most": LOOK_MAX}).all()
        old = connection.execute(_OLD, {"before": now - KEPT, "most": SWEEP_MAX}).all()
        known = [row for row in rows if row.known]
        # Behind it everything has been looked at, and nothing can have slipped any more.
        ends = [now - RACE_MAX, *(row.received_at for row in (*rows[LOOK_MAX - 1 :], *known[SWEEP_MAX:]))]
        return _Page([waiting_of(row[:4]) for row in known[:SWEEP_MAX]], [tuple(row) for row in old], min(ends))

    def _join(self, connection: Connection, page: _Page) -> int:
        arrivals = [_Arrival(one.name[0], Report(one.name[1], one.receipt), Reference()) for one in page.found]
        rulings = self._take(connection, arrivals)
        joined = [one.key for one, ruling in zip(page.found, rulings, strict=True) if ruling is not None]
        remove(connection, self._database.dialect, [*joined, *page.old])
        return sum(isinstance(ruling, Decision) for ruling in rulings)


class _Attempts:
    """The attempts that the receipts of a batch may be meant for."""

    def __init__(self, cases: Mapping[str, Case]) -> None:
        known = [((id_, attempt.number), attempt) for id_, case in cases.items() for attempt in case.attempts]
        known.sort(key=lambda one: (one[1].started_at, one[0]))
        self._names: dict[Place, Name] = {p: (a.account_uid, a.provider_message_id) for p, a in known}
        self._places: dict[Name, Place] = {name: place for place, name in self._names.items() if name[1]}

    def find(self, arrival: _Arrival) -> Place | None:
        """The attempt that it is meant for: the one that its URL names if that may be, else the latest with its id.

        It may be if it is the account's own, and is not known to have another id.
        """
        place = (arrival.reference.message_id, arrival.reference.number)
        uid, id_ = self._names.get(place, ("", ""))
        if uid == arrival.account_uid and (not id_ or arrival.name[1] in ("", id_)):
            self._bind(place, arrival.name)
            return place
        return self._places.get(arrival.name)

    def _bind(self, place: Place, name: Name) -> None:
        """From now on it has this id: the next receipt of the batch may name another one."""
        if name[1]:
            self._names[place] = name
            self._places.setdefault(name, place)


def _stated(report: Report, place: Place) -> Statement:
    message_id, number = place
    return Statement(message_id, Receipted(number, report.receipt, report.provider_message_id))


_WAITING = text(
    "SELECT account_uid, provider_message_id, kind, failure, received_at, EXISTS (SELECT 1 FROM attempt "
    "WHERE attempt.account_uid = receipt_inbox.account_uid "
    "AND attempt.provider_message_id = receipt_inbox.provider_message_id) AS known "
    "FROM receipt_inbox WHERE received_at >= :since ORDER BY received_at LIMIT :most"
)
_OLD = text(
    "SELECT account_uid, provider_message_id, kind FROM receipt_inbox WHERE received_at < :before "
    "ORDER BY received_at LIMIT :most"
)
