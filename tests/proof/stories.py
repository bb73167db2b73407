"""Lives of one message as the rule book leads them, and what everybody would have seen of each."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from server.model.clock import SECOND
from server.model.enums import Channel, FailureReason, MessageClass, OutcomeKind, ReceiptKind, Stop
from server.model.facts import Followed, LookedUp, Receipted, Settled, Stopped, Unplannable, WorkerLost
from server.model.failures import Failure
from server.model.messages import Attempt, Event, Follow
from server.model.outcomes import Accepted, NeverRegistered, Outcome, Receipt, ambiguous
from tests.ledger import LOOK_UP, SEND, Did, Entry
from tests.model.history import History as Life, message_of, opening_of
from tests.proof.history import Canary, Dump, History, Key, Op, Result, Seen, Watch

PHONE = "+989121234567"
TEXT = "your parcel waits at the gate"
SECRET = "k-5f1e0c7a9d"
LOOKS_UP = Follow(polls=True, looks_up=True)
DELIVERED = Receipt(ReceiptKind.DELIVERED)
UNDELIVERED = Receipt(ReceiptKind.UNDELIVERED, Failure(FailureReason.RECIPIENT_UNREACHABLE))


def life_of(message_class: MessageClass = MessageClass.TRANSACTIONAL, **changes: Any) -> Life:
    return Life(replace(message_of(message_class), request_id="order-17", **changes))


def begin(life: Life, key: int, account: str = "a", follow: Follow = LOOKS_UP) -> None:
    life.begin(opening_of(account, provider_key=key, follow=follow, deadline=life.now + 8 * SECOND))


def settle(life: Life, outcome: Outcome) -> None:
    life.now += SECOND
    life.tell(Settled(life.hold, life.attempts[-1].number, outcome))


def lose_worker(life: Life) -> None:
    life.now += 4 * SECOND
    life.tell(WorkerLost(life.hold))


def delivered() -> Life:
    """Sent at once, and delivered."""
    life = life_of()
    begin(life, key=71)
    settle(life, Accepted("8001"))
    life.now += SECOND
    life.tell(Receipted(1, DELIVERED))
    return life


def corrected() -> Life:
    """Reported undelivered, done, and then delivered after all."""
    life = life_of()
    begin(life, key=71)
    settle(life, Accepted("8001"))
    life.now += SECOND
    life.tell(Receipted(1, UNDELIVERED))
    life.now += SECOND
    life.tell(Receipted(1, DELIVERED))
    return life


def looked_up() -> Life:
    """Its worker died, a look-up proved that nothing was taken, and it went out after all, under the same number."""
    life = life_of()
    begin(life, key=71)
    lose_worker(life)
    life.claim()
    # Only after the hand-off's own deadline, and a second more, is it proof.
    life.now += 10 * SECOND
    life.tell(LookedUp(life.hold, 1, NeverRegistered(), jitter=0.0))
    begin(life, key=71)
    settle(life, Accepted("8001"))
    return life


def proved_late() -> Life:
    """Its worker was given up, and brought the proof afterwards that the provider had taken it."""
    life = life_of()
    begin(life, key=71)
    hold = life.hold
    lose_worker(life)
    life.tell(Settled(hold, 1, Accepted("8001")))
    return life


def sent_twice() -> Life:
    """An OTP that nobody can vouch for goes out a second time, by another account."""
    life = life_of(MessageClass.OTP)
    begin(life, key=71, follow=Follow())
    settle(life, ambiguous())
    life.claim()
    life.now += 4 * SECOND
    life.tell(Followed(life.hold))
    begin(life, key=72, account="b", follow=Follow())
    settle(life, ambiguous())
    return life


def pushed() -> Life:
    """To two devices; of one of them nobody knows whether it took the first push, and it gets another."""
    life = life_of()
    life.begin(*(opening_of(channel=Channel.PUSH, destination=n, provider_key=71 + n) for n in range(2)))
    life.now += SECOND
    life.tell(Settled(life.hold, 1, Accepted("8001")))
    life.tell(Settled(life.hold, 2, ambiguous()))
    life.claim()
    life.now += 6 * SECOND
    life.tell(Followed(life.hold))
    life.begin(opening_of(channel=Channel.PUSH, destination=1, provider_key=72))
    settle(life, Accepted("8002"))
    return life


def failed() -> Life:
    """No provider would carry it."""
    life = life_of()
    life.tell(Unplannable(life.claim(), FailureReason.NO_ROUTE))
    return life


def expired() -> Life:
    """Its time was over before it could be handed off."""
    life = life_of()
    life.now = life.message.expires_at + SECOND
    life.tell(Stopped(Stop.EXPIRED))
    return life


def canceled() -> Life:
    life = life_of()
    life.now += SECOND
    life.tell(Stopped(Stop.CANCELED))
    return life


LIVES: tuple[Callable[[], Life], ...] = (
    delivered,
    corrected,
    looked_up,
    proved_late,
    sent_twice,
    failed,
    expired,
    canceled,
)


def history_of(life: Life) -> History:
    """A life as everybody would have seen it."""
    message = life.message
    expires_at = message.expires_at
    told = Op(Result.OK, "t1", "c1", key="order-17", fingerprint="f1", text=TEXT, phone=PHONE, expires_at=expires_at)
    events = tuple(life.events)
    ends = [event.at for event in events if event.done][:1]
    single = [event for event in events if not ends or event.at <= ends[0]]
    return History(
        ops=(
            replace(told, result=Result.INFO, code="UNAVAILABLE", error="UNAVAILABLE\nconnection reset"),
            replace(told, tracking_id=message.id),
            replace(told, tracking_id=message.id, replayed=True),
            replace(told, result=Result.FAIL, fingerprint="f2", reason="REQUEST_ID_REUSED", code="ALREADY_EXISTS"),
            Op(Result.FAIL, "t2", "c9", method="GetStatus", made=False, tracking_id=message.id, code="NOT_FOUND"),
        ),
        watches=(
            Watch("the message's", "t1", [seen_of(e) for e in single], message_id=message.id),
            Watch("the tenant's", "t1", [seen_of(e) for e in events]),
            Watch("the other's", "t2", []),
            Watch("the late one's", "t1", [seen_of(e) for e in events[1:]], from_first=False),
        ),
        ledger=[entry for attempt in life.attempts for entry in entries_of(life, attempt)],
        dump=Dump(
            {message.id: message},
            {message.id: tuple(life.attempts)},
            {message.id: events},
            [Key("t1", "c1", "notification", "order-17", message.id)],
            [f"message {message.id} {message.recipient_hint}"],
        ),
        logs={"gateway": '{"event":"sent","recipient":"+98•••••4567"}'},
        canaries=(Canary("phone", PHONE[3:]), Canary("text", TEXT), Canary("secret", SECRET)),
        accounts={"key-of-t1": "t1", "key-of-t2": "t2"},
    )


def entries_of(life: Life, attempt: Attempt) -> list[Entry]:
    """What the upstream noted of an attempt: a text that it took, or a look-up that proved that it took none."""
    absent = attempt.outcome == OutcomeKind.UNAVAILABLE
    entry = Entry(
        at=attempt.started_at + 1000,
        number=attempt.number,
        connection=1,
        account="key-of-t1",
        call=LOOK_UP if absent else SEND,
        did=Did.ANSWER if absent else Did.ACCEPT,
        taken=not absent,
        known=False,
        localid="" if absent else str(attempt.provider_key),
        receptor="" if absent else "09121234567",
        text="" if absent else TEXT,
        found={str(attempt.provider_key): 100} if absent else {},
    )
    return [entry]


def seen_of(event: Event) -> Seen:
    return Seen(event.message_id, event.seq, event.kind, event.state, event.done, event.tenant_id, "cursor", "event")
