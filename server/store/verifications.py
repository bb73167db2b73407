"""Sending codes: limits and the one live verification, in the transaction that accepts the message."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hmac import compare_digest
from typing import Any

from sqlalchemy import Connection

from server.model.clock import Micros
from server.model.enums import Stop
from server.model.errors import Exhausted
from server.model.facts import Stopped
from server.model.limits import Bucket, BucketKey, BucketKind, Conversion, Past, judge_send, judged_since, settle
from server.model.messages import CodeSource, NewMessage
from server.model.otp import CodeWanted, Renewal, Verification, attempts_max_of, renewal_of
from server.store.apply import Apply, Statement
from server.store.database import Database
from server.store.dialect import Columns, Dialect, Values, columns
from server.store.keys import TenantKeys
from server.store.limits import lock_buckets, write_buckets
from server.store.rows import Row
from server.store.tuples import among_tuples, flat
from server.vault.identity import new_id
from server.vault.vault import TenantVault

VERIFICATION = columns("verification")
_SENT = Columns(
    "verification", ("id",), ("is_live", "key_id", "generation", "length", "mac", "code", "sends", "attempts_max")
)
"""What a further send may change."""

PLACE = ("tenant_id", "destination_index", "intent")
Place = tuple[str, str, str]
"""Where at most one verification is live: (tenant, index of the address, intent)."""
Named = tuple[str, str]
"""A verification by (tenant, id)."""


@dataclass(frozen=True, slots=True)
class Sending:
    """A code that may go out at `at`. `code` is None where the caller brought it: then it is `token`."""

    verification: Verification
    code: CodeSource | None
    token: str = field(repr=False)
    at: Micros


@dataclass(frozen=True, slots=True)
class _Asked:
    """One OtpSend, and where what concerns it is found."""

    number: int
    new: NewMessage
    wanted: CodeWanted
    vault: TenantVault
    place: Place
    prefix: str
    keys: Collection[BucketKey]


class Verifications:
    """Decides on sends of codes, each by itself and one after the other."""

    def __init__(self, database: Database, keys: TenantKeys, apply: Apply) -> None:
        self._database = database
        self._keys = keys
        self._apply = apply

    def rule(self, connection: Connection, news: Mapping[int, NewMessage]) -> dict[int, Sending | Exhausted]:
        """What becomes of these messages, all of which want a code, in the order of their numbers.

        Buckets are locked before verifications, those in the order of their ids, and then the messages that end.
        """
        dialect = self._database.dialect
        asked = [self._asked(number, new) for number, new in sorted(news.items())]
        keys = [key for one in asked for key in one.keys]
        buckets = lock_buckets(connection, dialect, keys, self._database.now(connection))
        live = _lock_live(connection, dialect, {one.place for one in asked})
        # After the locks are held: whoever held them before us has left its times behind.
        now = self._database.now(connection)
        buckets = {key: settle(bucket, now) for key, bucket in buckets.items()}
        conversions = _conversions(connection, dialect, buckets, now)
        round_ = _Round(buckets, live, conversions, now)
        rulings = {one.number: round_.judge(one) for one in asked}
        write_buckets(connection, dialect, round_.buckets, now)
        _write(connection, dialect, round_.over, round_.sent.values(), known={v.id for v in live.values()})
        stop_messages(connection, dialect, self._apply, dict.fromkeys(round_.stale, Stop.CANCELED))
        return rulings

    def _asked(self, number: int, new: NewMessage) -> _Asked:
        wanted, message = new.otp, new.message
        if wanted is None:
            raise AssertionError
        vault = self._keys.get(message.tenant_id)
        prefix = vault.index(wanted.prefix)
        address = vault.index(wanted.destination)
        subjects = [(BucketKind.DESTINATION, address), (BucketKind.DESTINATION, vault.index(wanted.beside))]
        if not wanted.cooldown_alone:
            subjects += [
                (BucketKind.PREFIX, prefix),
                (BucketKind.IP, vault.index(wanted.end_user_ip)),
                (BucketKind.DEVICE, vault.index(wanted.end_user_device)),
            ]
        place = (message.tenant_id, address, message.intent)
        keys = [(message.tenant_id, kind, subject) for kind, subject in subjects if subject]
        return _Asked(number, new, wanted, vault, place, prefix, keys)


class _Round:
    """The sends of one transaction: each one finds what those before it have left."""

    def __init__(
        self,
        buckets: Mapping[BucketKey, Bucket],
        live: Mapping[Place, Verification],
        conversions: Mapping[BucketKey, Conversion],
        now: Micros,
    ) -> None:
        self.buckets = dict(buckets)
        self.over: list[str] = []
        """The ids of verifications that were live and are no more."""
        self.stale: list[Named] = []
        """Verifications whose earlier messages, where they still wait, would say a code that is good no more."""
        self.sent: dict[Place, Verification] = {}
        self._live = live
        self._conversions = conversions
        self._now = now

    def judge(self, asked: _Asked) -> Sending | Exhausted:
        """Count one send and say what goes out, or refuse it."""
        live = self.sent.get(asked.place) or self._live.get(asked.place)
        takes = live is not None and live.takes_codes(self._now)
        past = Past(
            sends=live.sends if live and takes else 0,
            ends_at=live.expires_at if live else 0,
            conversion=self._conversion(asked),
        )
        own = {key: self.buckets[key] for key in asked.keys}
        judged = judge_send(own, past, self._now, cooldown_alone=asked.wanted.cooldown_alone)
        self.buckets |= judged.buckets
        if judged.refusal is not None:
            return judged.refusal
        return self._send(asked, live)

    def _conversion(self, asked: _Asked) -> Conversion:
        return next((self._conversions[key] for key in asked.keys if key in self._conversions), Conversion())

    def _send(self, asked: _Asked, live: Verification | None) -> Sending:
        verification = self._renewed(asked, live)
        verification = replace(verification, sends=verification.sends + 1)
        self.sent[asked.place] = verification
        if verification.length:
            return Sending(verification, _source(verification), "", self._now)
        token = asked.vault.open(verification.code, _about(verification)).decode()
        return Sending(verification, None, token, self._now)

    def _renewed(self, asked: _Asked, live: Verification | None) -> Verification:
        token = asked.wanted.token
        same = live is not None and bool(token) and compare_digest(_mac(asked.vault, live, token), live.mac)
        renewal = renewal_of(live, token, self._now, same_token=same)
        if live is None:
            return _coded(self._begun(asked), asked.vault, asked.wanted)
        if renewal == Renewal.SAME:
            return live
        # Messages of one whose time is over end by that.
        if self._now < live.expires_at:
            self.stale.append((live.tenant_id, live.id))
        if renewal == Renewal.REPLACED:
            return _coded(replace(live, generation=live.generation + 1), asked.vault, asked.wanted)
        self.over.append(live.id)
        return _coded(self._begun(asked), asked.vault, asked.wanted)

    def _begun(self, asked: _Asked) -> Verification:
        tenant_id, destination_index, intent = asked.place
        return Verification(
            id=new_id(),
            tenant_id=tenant_id,
            intent=intent,
            destination_index=destination_index,
            prefix_index=asked.prefix,
            key_id="",
            mac=b"",
            attempts_max=0,
            created_at=self._now,
            expires_at=self._now + asked.wanted.ttl,
        )


def _coded(verification: Verification, vault: TenantVault, wanted: CodeWanted) -> Verification:
    """The verification with the code that the caller brought, or with one of its generation's own."""
    token = wanted.token
    keyed = replace(
        verification,
        key_id=vault.code_key,
        length=0 if token else wanted.length,
        code=vault.seal(token.encode(), _about(verification)) if token else b"",
        attempts_max=attempts_max_of(token),
    )
    return replace(keyed, mac=_mac(vault, keyed, token or vault.code(_source(keyed))))


def _about(verification: Verification) -> str:
    """What the caller's own code is sealed for."""
    return f"code:{verification.id}"


def _source(verification: Verification) -> CodeSource:
    return CodeSource(verification.id, verification.key_id, verification.generation, verification.length)


def _mac(vault: TenantVault, verification: Verification, code: str) -> bytes:
    return vault.code_mac(verification.key_id, verification.id, code)


def verification_of(row: Row) -> Verification:
    """The verification in a row of VERIFICATION."""
    values: dict[str, Any] = dict(zip(VERIFICATION.names, row, strict=True))
    values |= {"is_live": bool(values["is_live"]), "mac": bytes(values["mac"]), "code": bytes(values["code"])}
    return Verification(**values)


def end_verifications(connection: Connection, dialect: Dialect, ids: Sequence[str]) -> None:
    """They are live no more, and what their callers brought is erased."""
    connection.exec_driver_sql(
        f"UPDATE verification SET is_live = FALSE, code = {dialect.mark} WHERE {dialect.among('id')}",  # noqa: S608
        (b"", dialect.texts(ids)),
    )


def stop_messages(connection: Connection, dialect: Dialect, apply: Apply, stops: Mapping[Named, Stop]) -> None:
    """No further attempt for what is not done of these verifications' messages, from this very transaction on."""
    if not stops:
        return
    rows = connection.exec_driver_sql(
        "SELECT id, tenant_id, verification_id FROM message "  # noqa: S608
        f"WHERE {among_tuples(dialect, ('tenant_id', 'verification_id'), len(stops))} "
        # The index's own condition.
        "AND NOT done AND verification_id <> ''",
        flat(stops),
    )
    statements = [Statement(row[0], Stopped(stops[row[1], row[2]])) for row in rows]
    if statements:
        apply.rule(connection, statements)


def _row(verification: Verification, into: Columns) -> Values:
    return tuple(getattr(verification, name) for name in into.names)


def _lock_live(connection: Connection, dialect: Dialect, places: Collection[Place]) -> dict[Place, Verification]:
    """What is live at these places. Whoever verifies waits, and locks in the same order: that of the ids."""
    rows = connection.exec_driver_sql(
        f"SELECT {', '.join(VERIFICATION.names)} FROM verification "  # noqa: S608
        f"WHERE is_live AND {among_tuples(dialect, PLACE, len(places))} ORDER BY id{dialect.locked()}",
        flat(places),
    )
    found = [verification_of(row) for row in rows]
    return {(v.tenant_id, v.destination_index, v.intent): v for v in found}


def _conversions(
    connection: Connection, dialect: Dialect, buckets: Mapping[BucketKey, Bucket], now: Micros
) -> dict[BucketKey, Conversion]:
    """How the prefixes convert that have had enough sends to be judged by it."""
    prefixes = {key: bucket for key, bucket in buckets.items() if key[1] == BucketKind.PREFIX}
    judged = [(key, since) for key, bucket in prefixes.items() if (since := judged_since(bucket, now)) is not None]
    if not judged:
        return {}
    one = f"({', '.join([dialect.mark] * 3)})"
    rows = connection.exec_driver_sql(
        f"WITH judged (tenant_id, prefix_index, since) AS (VALUES {', '.join([one] * len(judged))}) "  # noqa: S608
        "SELECT v.tenant_id, v.prefix_index, SUM(v.sends), SUM(CASE WHEN v.verified_at > 0 THEN 1 ELSE 0 END) "
        "FROM judged JOIN verification AS v ON v.tenant_id = judged.tenant_id "
        "AND v.prefix_index = judged.prefix_index AND v.created_at > judged.since "
        "GROUP BY v.tenant_id, v.prefix_index",
        tuple(part for (tenant_id, _, prefix), since in judged for part in (tenant_id, prefix, since)),
    )
    return {(row[0], BucketKind.PREFIX, row[1]): Conversion(int(row[2]), int(row[3])) for row in rows}


def _write(
    connection: Connection,
    dialect: Dialect,
    over: Sequence[str],
    sent: Iterable[Verification],
    *,
    known: Collection[str],
) -> None:
    """Keep what was sent. The lock on an address's bucket keeps other senders out: no other row can be live there."""
    if over:
        end_verifications(connection, dialect, over)
    changed = [v for v in sent if v.id in known]
    begun = [v for v in sent if v.id not in known]
    if changed:
        dialect.update(connection, _SENT, [_row(v, _SENT) for v in changed])
    if begun:
        dialect.insert(connection, VERIFICATION, [_row(v, VERIFICATION) for v in begun])
