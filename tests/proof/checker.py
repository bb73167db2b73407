"""The promises as pure functions: a history in, its violations out. No violation in N runs means at most 3/N (95 %)."""

from collections.abc import Callable, Iterable, Iterator, Sequence

from server.model.enums import Channel, OutcomeKind, State
from server.model.messages import Attempt, Message
from server.model.policy import sends_max
from tests.proof.events import check_events, check_fences, check_watches
from tests.proof.history import History, Op, Result
from tests.proof.leaks import check_leaks
from tests.proof.violations import Violation

Check = Callable[[History], Iterator[Violation]]

TAKEN_STATES = frozenset({State.SENT, State.DELIVERED, State.UNDELIVERED})
EXPLAINED_STATES = frozenset({State.FAILED, State.EXPIRED, State.UNDELIVERED, State.UNCONFIRMED})
CERTAIN = frozenset(
    {OutcomeKind.REJECTED, OutcomeKind.MISCONFIGURED, OutcomeKind.RATE_LIMITED, OutcomeKind.UNAVAILABLE}
)
NATIONAL_DIGITS = 10


def check_lost(history: History) -> Iterator[Violation]:
    """C1: what was accepted is stored, and has been handed off or bears the reason why not."""
    for op in history.sends:
        if not op.ok:
            continue
        message = history.dump.messages.get(op.tracking_id)
        if message is None:
            yield Violation("C1", op.tracking_id, "accepted, and not in the database")
        elif message.tenant_id != op.tenant_id or message.client_id != op.client_id:
            yield Violation("C1", op.tracking_id, "accepted from one client and stored as another's")
    for message in history.dump.messages.values():
        yield from (Violation("C1", message.id, why) for why in _lost(history, message))


def _lost(history: History, message: Message) -> Iterator[str]:
    read = bool(history.texts_of(message.id))
    if not message.done and message.due is None:
        yield "not done, and nothing is due: nobody will ever take it up"
    if message.done and message.state in EXPLAINED_STATES and message.failure is None:
        yield f"{message.state} without a reason"
    if history.ledger is not None and message.state in TAKEN_STATES and not read:
        yield f"{message.state}, and no upstream has read it"
    if not history.quiet or read or history.ledger is None:
        return
    if not message.done:
        yield "neither handed off nor ended, although there was time"
    elif message.failure is None and message.state != State.CANCELED:
        yield "ended without a hand-off and without a reason"


def check_unexpected(history: History) -> Iterator[Violation]:
    """C2: what an upstream reads was asked for by a caller, was begun before it left, and says what the caller said."""
    for entry in history.texts:
        id_ = history.owner_of_key.get(entry.localid)
        if id_ is None:
            yield Violation("C2", entry.localid, "an upstream read it, and no attempt bears its number")
            continue
        attempts = [a for a in history.attempts_of(id_) if str(a.provider_key) == entry.localid]
        if entry.at + history.slack < min(a.started_at for a in attempts) and not history.is_near_jump(entry.at):
            yield Violation("C2", id_, "left before its intent was stored")
        asked = _asked_for(history, history.dump.messages[id_]) if id_ in history.dump.messages else []
        if not asked:
            yield Violation("C2", id_, "handed off, and no caller asked for it")
        elif not any(op.text in ("", entry.text) for op in asked):
            yield Violation("C2", id_, "the upstream read another text than the caller gave")
        elif not any(_same_phone(op.phone, entry.receptor) for op in asked):
            yield Violation("C2", id_, "the upstream read another number than the caller gave")


def _asked_for(history: History, message: Message) -> list[Op]:
    """The calls that may have made a message: those told its id, and those without an answer under its key."""
    owner = (message.tenant_id, message.client_id)
    calls = [op for op in history.sends if (op.tenant_id, op.client_id) == owner]
    told = [op for op in calls if op.ok and op.tracking_id == message.id]
    return told or [op for op in calls if op.result == Result.INFO and op.key == message.request_id]


def _same_phone(asked: str, receptor: str) -> bool:
    return not asked or asked[-NATIONAL_DIGITS:] == receptor[-NATIONAL_DIGITS:]


def check_sends(history: History) -> Iterator[Violation]:
    """C3: no more hand-offs that may arrive than the class allows, as upstreams read them and as attempts tell.

    Hand-offs under one of our numbers are one text, for the upstream folds them; one that was reported undelivered has
    reached nobody.
    """
    for message in history.dump.messages.values():
        for most, attempts in _counted_together(message, history.attempts_of(message.id)):
            texts, chances = _texts_read(history, attempts), sum(a.may_arrive for a in attempts)
            if texts > most:
                yield Violation("C3", message.id, f"{texts} texts, {most} are allowed")
            if chances > most:
                yield Violation("C3", message.id, f"{chances} attempts may arrive, {most} are allowed")


def _counted_together(message: Message, attempts: Sequence[Attempt]) -> Iterator[tuple[int, list[Attempt]]]:
    """Attempts and how many of them may arrive: each device's pushes by themselves, all else, whatever the channel."""
    for device in sorted({a.destination for a in attempts if a.channel == Channel.PUSH}):
        pushed = [a for a in attempts if (a.channel, a.destination) == (Channel.PUSH, device)]
        yield sends_max(message, Channel.PUSH), pushed
    others = [a for a in attempts if a.channel != Channel.PUSH]
    yield max((sends_max(message, a.channel) for a in others), default=0), others


def _texts_read(history: History, attempts: Sequence[Attempt]) -> int:
    by_number: dict[str, list[Attempt]] = {}
    for attempt in attempts:
        by_number.setdefault(str(attempt.provider_key), []).append(attempt)
    return sum(_counts(history, number, group) for number, group in by_number.items())


def _counts(history: History, number: str, attempts: Iterable[Attempt]) -> bool:
    read = history.texts_by_key.get(number, ())
    if not read or any(a.undelivered for a in attempts):
        return False
    return any(entry.taken or entry.known for entry in read) or not all(a.outcome in CERTAIN for a in attempts)


def check_keys(history: History) -> Iterator[Violation]:
    """C4: one key makes one message; another request under it is refused, the same again is told the first one's id."""
    by_key: dict[tuple[str, str, str], list[Op]] = {}
    for op in history.sends:
        if op.key:
            by_key.setdefault((op.tenant_id, op.client_id, op.key), []).append(op)
    for (tenant, client, key), ops in by_key.items():
        yield from (Violation("C4", f"{tenant}/{client}/{key}", why) for why in _key_faults(ops))
    yield from _stored_keys(history)
    fresh = [op.tracking_id for op in history.sends if op.ok and not op.replayed]
    for id_ in sorted({id_ for id_ in fresh if fresh.count(id_) > 1}):
        yield Violation("C4", id_, "two calls were told that each had made it")


def _key_faults(ops: Sequence[Op]) -> Iterator[str]:
    answered = [op for op in ops if op.ok]
    if len({op.tracking_id for op in answered}) > 1:
        yield "it made more than one message"
    if len({op.fingerprint for op in answered}) > 1:
        yield "two different requests were both accepted"
    prints = {op.fingerprint for op in ops}
    if len(prints) == 1 and any(op.reason == "REQUEST_ID_REUSED" for op in ops):
        yield "refused as used for another request, and there was none"


def _stored_keys(history: History) -> Iterator[Violation]:
    owners: dict[tuple[str, str, str, str], str] = {}
    for message in history.dump.messages.values():
        key = (message.tenant_id, message.client_id, message.kind, message.request_id)
        if message.request_id and owners.setdefault(key, message.id) != message.id:
            yield Violation("C4", message.id, f"stored beside {owners[key]} under the same key")
    for key in history.dump.keys:
        owner = owners.get((key.tenant_id, key.client_id, key.kind, key.request_id))
        if owner != key.message_id:
            yield Violation("C4", key.message_id, f"its key leads to it, and belongs to {owner}")


def check_stale(history: History) -> Iterator[Violation]:
    """C6: nothing is begun after the message's expiry, and nothing comes to an upstream after it."""
    for message in history.dump.messages.values():
        if any(a.started_at >= message.expires_at for a in history.attempts_of(message.id)):
            yield Violation("C6", message.id, "an attempt was begun after its expiry")
        for entry in history.texts_of(message.id):
            if entry.at >= message.expires_at + history.slack and not history.is_near_jump(entry.at):
                late = (entry.at - message.expires_at) // 1000
                yield Violation("C6", message.id, f"an upstream read it {late} ms after its expiry")
    for op in history.sends:
        message = history.dump.messages.get(op.tracking_id)
        if op.ok and message is not None and op.expires_at not in (0, message.expires_at):
            yield Violation("C6", message.id, "its caller was told another expiry than is stored")


def check_walls(history: History) -> Iterator[Violation]:
    """C8: nobody is told of, or moves, what is another tenant's; nothing goes out by another tenant's account."""
    tenants = {id_: message.tenant_id for id_, message in history.dump.messages.items()}
    for op in history.ops:
        if op.ok and tenants.get(op.tracking_id, op.tenant_id) != op.tenant_id:
            yield Violation("C8", op.tracking_id, f"{op.method} of {op.tenant_id} reached it")
    for watch in history.watches:
        for seen in watch.seen:
            if seen.tenant_id != watch.tenant_id or tenants.get(seen.message_id, watch.tenant_id) != watch.tenant_id:
                yield Violation("C8", seen.message_id, f"shown to {watch.name} of {watch.tenant_id}")
    for entry in history.texts:
        owner = tenants.get(history.owner_of_key.get(entry.localid, ""))
        if owner is not None and history.accounts.get(entry.account, owner) != owner:
            yield Violation("C8", history.owner_of_key[entry.localid], "went out by another tenant's account")


CHECKS: tuple[Check, ...] = (
    check_lost,
    check_unexpected,
    check_sends,
    check_keys,
    check_events,
    check_watches,
    check_stale,
    check_walls,
    check_leaks,
    check_fences,
)


def violations_of(history: History) -> list[Violation]:
    """Every violation of every promise."""
    return [violation for check in CHECKS for violation in check(history)]
