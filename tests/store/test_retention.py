"""Retention: keys for seven days, content for one after the end, the message for seven, and not an hour less."""

from server.model.clock import DAY, HOUR
from server.model.enums import Channel, DueKind, MessageClass, ReceiptKind
from server.model.facts import Receipted, Settled
from server.model.outcomes import Accepted, Receipt
from server.model.work import Beside, SandboxCopy
from server.store.store import Store
from tests.store.letters import TENANTS, accept_all, change, everything, letter, rows, started

SEND = frozenset({DueKind.SEND})


async def _done(store: Store, request_id: str = "") -> tuple[str, int]:
    """A message that was delivered, and when."""
    id_ = (await store.accept(letter(request_id=request_id, tags=("a",)))).message.id
    (claim,) = await store.claim(MessageClass.TRANSACTIONAL, SEND, 1)
    copy = SandboxCopy(1, Channel.SMS, "first", "+989120000111", "Shop", "Your order is on its way.")
    await store.apply(id_, started(claim))
    await store.apply(id_, Settled(claim.hold, 1, Accepted("p-1")), Beside(copy))
    await store.apply(id_, Receipted(1, Receipt(ReceiptKind.DELIVERED)))
    ((done_at,),) = await rows(store, f"SELECT done_at FROM message WHERE id = '{id_}'")
    return id_, done_at


async def _prune(store: Store, now: int) -> None:
    while await store.prune(now):
        pass


async def test_content_is_erased_a_day_after_the_end(store: Store) -> None:
    """Before the day is over it is there; after it no text and no recipient is left, the message and its log are."""
    id_, done_at = await _done(store)
    await _prune(store, done_at + DAY - HOUR)
    ((body, recipient),) = await rows(store, "SELECT body, recipient FROM message")
    assert body
    assert recipient
    await _prune(store, done_at + DAY + HOUR)
    assert await rows(store, "SELECT body, recipient FROM message") == [(b"", b"")]
    assert await rows(store, "SELECT content FROM sandbox_message") == []
    case = await store.reading.message(TENANTS[0], tracking_id=id_)
    assert case.attempts
    assert len(await rows(store, "SELECT seq FROM event")) == 4


async def test_a_message_is_forgotten_seven_days_after_its_end(store: Store) -> None:
    """Nothing of it is left then, its key neither; what came later is untouched."""
    _, done_at = await _done(store, "r-1")
    await store.accept(letter(request_id="r-2"))
    await _prune(store, done_at + 7 * DAY - HOUR)
    assert len(await rows(store, "SELECT id FROM message")) == 2
    await _prune(store, done_at + 7 * DAY + HOUR)
    left = await everything(store)
    assert [row[0] for row in await rows(store, "SELECT request_id FROM message")] == ["r-2"]
    assert {table: len(found) for table, found in left.items()} == {
        "message": 1,
        "message_tag": 0,
        "due": 1,
        "attempt": 0,
        "event": 1,
        "idempotency": 0,
        "sandbox_message": 0,
    }


async def test_where_the_log_begins_is_noted(store: Store) -> None:
    """After events were forgotten the log says up to which place; it never goes back."""
    _, done_at = await _done(store)
    ((epoch, xid, last),) = await rows(store, "SELECT log_epoch, xid, id FROM event ORDER BY id DESC LIMIT 1")
    await _prune(store, done_at + 8 * DAY)
    place = "SELECT pruned_epoch, pruned_xid, pruned_id FROM log"
    assert await rows(store, place) == [(epoch, xid, last)]
    await change(store, f"UPDATE log SET pruned_epoch = {epoch + 1}")
    _, done_at = await _done(store)
    await _prune(store, done_at + 8 * DAY)
    assert await rows(store, place) == [(epoch + 1, xid, last)]


async def test_a_key_is_forgotten_after_seven_days_and_then_makes_a_new_message(store: Store) -> None:
    """Within seven days a repeat is a repeat; after them it is a new request, which the old message's end spares."""
    first = await store.accept(letter(request_id="r-1"))
    ((made_at,),) = await rows(store, "SELECT created_at FROM idempotency")
    await _prune(store, made_at + 7 * DAY - HOUR)
    assert (await store.accept(letter(request_id="r-1"))).replayed
    await _prune(store, made_at + 7 * DAY + HOUR)
    second = await store.accept(letter(request_id="r-1"))
    assert not second.replayed
    assert second.message.id != first.message.id
    await change(store, f"UPDATE message SET done_at = 1, done = TRUE WHERE id = '{first.message.id}'")
    await _prune(store, made_at + HOUR)
    assert (await store.accept(letter(request_id="r-1"))).message.id == second.message.id


async def test_what_is_not_done_is_kept_whatever_its_age(store: Store) -> None:
    """A message that still waits loses nothing but its key."""
    await store.accept(letter(request_id="r-1"))
    before = await everything(store)
    ((made_at,),) = await rows(store, "SELECT created_at FROM idempotency")
    await _prune(store, made_at + 30 * DAY)
    after = await everything(store)
    assert after.pop("idempotency") == []
    before.pop("idempotency")
    assert after == before


async def test_one_call_forgets_a_little(store: Store) -> None:
    """Not more than 500 messages in a call, so that nobody waits for it; repeated calls forget them all."""
    for _ in range(3):
        await accept_all(store, [letter() for _ in range(200)])
    await change(store, "UPDATE message SET done = TRUE, done_at = 1, erased = TRUE")
    assert await store.prune() == 500
    assert len(await rows(store, "SELECT id FROM message")) == 100
    assert await store.prune() == 100
    assert await store.prune() == 0
