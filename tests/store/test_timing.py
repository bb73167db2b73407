"""When the database's clock is set back, what it had timed is due as soon as it was meant to be."""

from server.model.clock import HOUR, SECOND
from server.model.enums import DueKind, MessageClass
from server.store.store import Store
from tests.store.conftest import OpenStore
from tests.store.letters import accept_all, change, letter, rows

SEND = frozenset({DueKind.SEND})
CLASS = MessageClass.TRANSACTIONAL


async def as_if_an_hour_ahead(store: Store) -> None:
    """All that is stored looks as if it had been stored under a clock that was an hour ahead."""
    await change(store, f"UPDATE message SET created_at = created_at + {HOUR}, updated_at = updated_at + {HOUR}")
    await change(store, f"UPDATE due SET due_at = due_at + {HOUR}")


async def test_a_start_finds_what_a_wrong_clock_has_timed(store: Store, another: OpenStore) -> None:
    """It was accepted an hour ahead, while nobody runs the clock is set right: the next process takes it up at once."""
    await accept_all(store, [letter() for _ in range(3)])
    await as_if_an_hour_ahead(store)
    assert await store.claim(CLASS, SEND, 9) == []
    heir = store if store.engine_name == "sqlite" else await another()
    assert await heir.keep_time() == 3
    assert len(await heir.claim(CLASS, SEND, 9)) == 3
    assert await heir.keep_time() == 0


async def test_a_clock_that_goes_right_changes_nothing(store: Store) -> None:
    """What waits for its retry, or was only postponed, waits on."""
    await accept_all(store, [letter(schedule_at=0) for _ in range(3)])
    await change(store, f"UPDATE due SET due_at = due_at + {60 * SECOND}")
    before = await rows(store, "SELECT * FROM due ORDER BY message_id")
    assert [await store.keep_time() for _ in range(3)] == [0, 0, 0]
    assert await rows(store, "SELECT * FROM due ORDER BY message_id") == before
