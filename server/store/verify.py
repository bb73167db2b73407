"""Checking codes: each check spends its attempt in one statement that decides."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from sqlalchemy import Connection, text

from server.model.clock import Micros
from server.model.enums import Stop
from server.model.errors import AlreadyExists, Exhausted, Reason, Unavailable
from server.model.limits import Bucket, BucketKey, BucketKind, count_wrong, judge_check
from server.model.otp import Check, Checked, CheckResult, Verification, why_over
from server.store.apply import Apply
from server.store.batches import Answers, Batches
from server.store.database import Database
from server.store.dialect import Columns, Dialect
from server.store.keys import TenantKeys
from server.store.limits import lock_buckets, write_buckets
from server.store.replays import Key, forget_keys
from server.store.rows import IDEMPOTENCY, dump
from server.store.tuples import among_tuples, flat
from server.store.verifications import PLACE, VERIFICATION, Named, Place, stop_messages, verification_of
from server.vault.identity import new_id

VERIFY_MAX = 200
KIND = "check"

_ANSWER = Columns("idempotency", ("tenant_id", "client_id", "kind", "request_id"), ("answer",))


@dataclass(frozen=True, slots=True)
class _Kept:
    """The first answer under a key, and the fingerprint of the check that got it."""

    checked: Checked
    fingerprint: bytes


@dataclass(frozen=True, slots=True)
class _Aimed:
    """A check and the verification that it means: what it is counted against, and the macs that would be right.

    Where there is none it is counted against the address that it named, or else against its client account, and
    compared with nothing, at the same cost.
    """

    number: int
    check: Check
    verification_id: str
    subject: str
    macs: tuple[bytes, bytes]

    @property
    def checks(self) -> BucketKey:
        """Where it is counted."""
        return self.check.tenant_id, BucketKind.CHECKS, self.subject

    @property
    def wrong(self) -> BucketKey:
        """Where it is counted when it is wrong."""
        return self.check.tenant_id, BucketKind.WRONG, self.subject


class Verify:
    """Checks codes, at most 200 in one transaction, each by itself."""

    def __init__(self, database: Database, keys: TenantKeys, apply: Apply) -> None:
        self._database = database
        self._keys = keys
        self._apply = apply
        self._batches: Batches[Check, Checked] = Batches(
            self._verify, database.blames_one, size_max=VERIFY_MAX, linger=True
        )

    async def verify(self, check: Check) -> Checked:
        """What the check came to, durable. Raises AlreadyExists (REQUEST_ID_REUSED), Exhausted, Unavailable."""
        return await self._batches.submit(check)

    async def close(self) -> None:
        """Finish the checks at work and those who wait."""
        await self._batches.close()

    async def _verify(self, checks: list[Check]) -> Answers[Checked]:
        firsts = _firsts(checks)
        decided = await self._database.write(lambda c: self._decide(c, {n: checks[n] for n in sorted(set(firsts))}))
        return [
            decided[number] if number == first else _repeated(check, checks[first], decided[first])
            for number, (check, first) in enumerate(zip(checks, firsts, strict=True))
        ]

    def _decide(self, connection: Connection, checks: Mapping[int, Check]) -> dict[int, Checked | Exception]:
        """Keys, then limits, then verifications, then messages: the order in which everybody locks."""
        dialect = self._database.dialect
        replays = self._replays(connection, checks)
        fresh = {number: check for number, check in checks.items() if number not in replays}
        if not fresh:
            return replays
        aimed = self._aim(connection, fresh)
        keys = [key for one in aimed for key in (one.checks, one.wrong)]
        buckets = lock_buckets(connection, dialect, keys, self._database.now(connection))
        # After the locks are held: whoever held them before us has left its times behind.
        now = self._database.now(connection)
        answers = self._judge(connection, aimed, buckets, now)
        write_buckets(connection, dialect, buckets, now)
        checked = {number: answer for number, answer in answers.items() if isinstance(answer, Checked)}
        self._stop_messages(connection, aimed, checked)
        refused = [checks[number] for number in answers if number not in checked]
        forget_keys(connection, dialect, [_key(check) for check in refused if check.request_id])
        _keep_answers(connection, dialect, checks, checked)
        return {**replays, **answers}

    def _judge(
        self, connection: Connection, aimed: Sequence[_Aimed], buckets: dict[BucketKey, Bucket], now: Micros
    ) -> dict[int, Checked | Exhausted]:
        """Count these checks and spend an attempt of each, in the order of the verifications' ids; refuse the rest.

        One by one, for a wrong one may be the last that its address has.
        """
        answers: dict[int, Checked | Exhausted] = {}
        for one in sorted(aimed, key=lambda one: (one.verification_id, one.number)):
            judged = judge_check({key: buckets[key] for key in (one.checks, one.wrong)}, now)
            buckets.update(judged.buckets)
            if judged.refusal is not None:
                answers[one.number] = judged.refusal
                continue
            answers[one.number] = checked = self._spend(connection, one, now)
            if checked.result == CheckResult.WRONG_CODE:
                buckets[one.wrong] = count_wrong(buckets[one.wrong], now)
        return answers

    def _replays(self, connection: Connection, checks: Mapping[int, Check]) -> dict[int, Checked | Exception]:
        """Take the keys of these checks; the answers to those whose key was taken before."""
        keyed = {number: check for number, check in checks.items() if check.request_id}
        if not keyed:
            return {}
        now = self._database.now(connection)
        ids = {number: new_id() for number in keyed}
        rows = sorted((*_key(check), ids[number], check.fingerprint, now, "") for number, check in keyed.items())
        won = self._database.dialect.insert_new(connection, IDEMPOTENCY, rows, "message_id")
        lost = {number: check for number, check in keyed.items() if ids[number] not in won}
        if not lost:
            return {}
        kept = _read_kept(connection, self._database.dialect, {_key(check) for check in lost.values()})
        return {number: _replay(check, kept.get(_key(check))) for number, check in lost.items()}

    def _aim(self, connection: Connection, checks: Mapping[int, Check]) -> list[_Aimed]:
        """What each check means, in the order in which they came."""
        dialect = self._database.dialect
        places = {n: self._place(check) for n, check in checks.items() if not check.verification_id}
        ids = {n: (check.tenant_id, check.verification_id) for n, check in checks.items() if check.verification_id}
        latest = _latest(connection, dialect, set(places.values())) if places else {}
        named = _by_id(connection, dialect, list(ids.values())) if ids else {}
        found = {n: latest.get(place) for n, place in places.items()} | {n: named.get(id_) for n, id_ in ids.items()}
        return [self._aimed(number, check, found[number]) for number, check in checks.items()]

    def _place(self, check: Check) -> Place:
        return check.tenant_id, self._keys.get(check.tenant_id).index(check.destination), check.intent

    def _aimed(self, number: int, check: Check, found: Verification | None) -> _Aimed:
        vault = self._keys.get(check.tenant_id)
        id_ = found.id if found else check.verification_id
        # No address has a NUL.
        named = check.destination or f"client\x00{check.client_id}"
        subject = found.destination_index if found else vault.index(named)
        # Under the row's key as it was found, and under the one that a send beside this check would take.
        key_ids = (found.key_id if found else vault.code_key, vault.code_key)
        macs = (vault.code_mac(key_ids[0], id_, check.code), vault.code_mac(key_ids[1], id_, check.code))
        return _Aimed(number, check, id_, subject, macs)

    def _spend(self, connection: Connection, one: _Aimed, now: Micros) -> Checked:
        """What an attempt came to, or why there was none to spend."""
        values = {
            "id": one.verification_id,
            "tenant_id": one.check.tenant_id,
            "mac": one.macs[0],
            "other_mac": one.macs[1],
            "now": now,
            "erased": b"",
        }
        row = connection.execute(_SPEND, values).one_or_none()
        if row is None:
            return self._why_not(connection, one)
        result = CheckResult.VERIFIED if row.verified_at else CheckResult.WRONG_CODE
        left = 0 if row.verified_at else row.attempts_max - row.attempts
        return Checked(result, left, one.verification_id, row.verified_at)

    def _why_not(self, connection: Connection, one: _Aimed) -> Checked:
        this = (one.check.tenant_id, one.verification_id)
        found = _by_id(connection, self._database.dialect, [this]).get(this)
        return Checked(why_over(found), verification_id=found.id if found else "")

    def _stop_messages(self, connection: Connection, aimed: Sequence[_Aimed], checked: Mapping[int, Checked]) -> None:
        """Nothing goes out any more of a code that verified, or whose last attempt was spent."""
        stops: dict[Named, Stop] = {}
        for one in aimed:
            answer = checked.get(one.number)
            if answer is not None and (stop := _stop_after(answer)) is not None:
                stops[one.check.tenant_id, one.verification_id] = stop
        stop_messages(connection, self._database.dialect, self._apply, stops)


_SPEND = text(
    "UPDATE verification SET attempts = attempts + 1, "
    "verified_at = CASE WHEN mac IN (:mac, :other_mac) THEN :now ELSE 0 END, "
    "is_live = (mac NOT IN (:mac, :other_mac) AND attempts + 1 < attempts_max), "
    "code = CASE WHEN mac NOT IN (:mac, :other_mac) AND attempts + 1 < attempts_max THEN code ELSE :erased END "
    "WHERE id = :id AND tenant_id = :tenant_id "
    "AND is_live AND verified_at = 0 AND attempts < attempts_max AND expires_at > :now "
    "RETURNING verified_at, attempts, attempts_max"
)


def _stop_after(answer: Checked) -> Stop | None:
    """What ends the messages of the verification that was answered so."""
    if answer.result == CheckResult.VERIFIED:
        return Stop.VERIFIED
    return Stop.CANCELED if answer.result == CheckResult.WRONG_CODE and not answer.attempts_left else None


def _key(check: Check) -> Key:
    return check.tenant_id, check.client_id, KIND, check.request_id


def _firsts(checks: Sequence[Check]) -> list[int]:
    """For each check the number of the first one with its key: its own where it has none."""
    numbers: dict[Key, int] = {}
    return [
        numbers.setdefault(_key(check), number) if check.request_id else number for number, check in enumerate(checks)
    ]


def _repeated(check: Check, first: Check, answer: Checked | Exception) -> Checked | Exception:
    """What a check is answered that came together with the first one of its key."""
    if isinstance(answer, Checked):
        return _replay(check, _Kept(answer, first.fingerprint))
    # A refused check leaves its key free: another one under it was not decided here.
    return answer if check.fingerprint == first.fingerprint else _forgotten()


def _replay(check: Check, kept: _Kept | None) -> Checked | Exception:
    """The first answer again for the same check, AlreadyExists for another one under its key."""
    if kept is None:
        return _forgotten()
    if kept.fingerprint != check.fingerprint:
        return AlreadyExists(Reason.REQUEST_ID_REUSED, "The request_id was used for another check.")
    return replace(kept.checked, replayed=True)


def _forgotten() -> Unavailable:
    return Unavailable(Reason.STORE_UNAVAILABLE, "The key was just being forgotten. Repeat the call.")


def _read_kept(connection: Connection, dialect: Dialect, keys: Collection[Key]) -> dict[Key, _Kept]:
    rows = connection.exec_driver_sql(
        "SELECT tenant_id, client_id, kind, request_id, fingerprint, answer FROM idempotency "  # noqa: S608
        f"WHERE {among_tuples(dialect, IDEMPOTENCY.key, len(keys))}",
        flat(keys),
    )
    return {(row[0], row[1], row[2], row[3]): _Kept(_checked_of(row[5]), bytes(row[4])) for row in rows}


def _keep_answers(
    connection: Connection, dialect: Dialect, checks: Mapping[int, Check], answers: Mapping[int, Checked]
) -> None:
    keyed = [(checks[number], answer) for number, answer in answers.items() if checks[number].request_id]
    rows = [(*_key(check), _answer_text(answer)) for check, answer in keyed]
    if rows:
        dialect.update(connection, _ANSWER, sorted(rows))


def _answer_text(checked: Checked) -> str:
    return dump([checked.result, checked.attempts_left, checked.verification_id, checked.verified_at])


def _checked_of(answer: str) -> Checked:
    result, *rest = json.loads(answer)
    return Checked(CheckResult(result), *rest)


def _by_id(
    connection: Connection, dialect: Dialect, wanted: Sequence[tuple[str, str]]
) -> dict[tuple[str, str], Verification]:
    """Verifications by (tenant, id)."""
    rows = connection.exec_driver_sql(
        f"SELECT {', '.join(VERIFICATION.names)} FROM verification "  # noqa: S608
        f"WHERE {dialect.among('tenant_id')} AND {dialect.among('id')}",
        (dialect.texts(sorted({tenant for tenant, _ in wanted})), dialect.texts(sorted({id_ for _, id_ in wanted}))),
    )
    return {(row.tenant_id, row.id): verification_of(row) for row in rows}


def _latest(connection: Connection, dialect: Dialect, places: Collection[Place]) -> dict[Place, Verification]:
    """The latest verification of each address and intent."""
    rows = connection.exec_driver_sql(
        f"SELECT {', '.join(VERIFICATION.names)} FROM verification "  # noqa: S608
        f"WHERE {among_tuples(dialect, PLACE, len(places))} ORDER BY created_at, id",
        flat(places),
    )
    return {(v.tenant_id, v.destination_index, v.intent): v for v in map(verification_of, rows)}
