"""Who is alive: the dead lose what they held, the living keep it, and a pause of the watcher kills nobody."""

import asyncio

from hypothesis import given, strategies as st

from server.model.conclude import Decision
from server.model.enums import DueKind, MessageClass
from server.model.facts import Settled
from server.model.outcomes import Accepted
from server.store.liveness import DEAD_AFTER_SECONDS, Sightings
from server.store.store import Store
from tests.store.conftest import OpenAt, OpenStore
from tests.store.letters import accept_all, change, letter, rows, started, until

SEND = frozenset({DueKind.SEND})
CLASS = MessageClass.TRANSACTIONAL


async def abandon(store: Store) -> None:
    """End a process as kill -9 does: its connections are gone, its claims and its row stay."""
    await store.watching.close()
    await store._database.close()


async def test_what_a_dead_worker_held_is_taken_up_again(store: Store, another: OpenStore) -> None:
    """Within seconds (on SQLite at the start) what was not begun is due again, and what was is UNCONFIRMED."""
    await accept_all(store, [letter() for _ in range(4)])
    claims = await store.claim(CLASS, SEND, 4)
    begun = claims[:2]
    for claim in begun:
        await store.apply(claim.case.message.id, started(claim))
    await abandon(store)
    heir = await another()

    async def freed() -> bool:
        await heir.sweep()
        return not await rows(heir, "SELECT worker FROM due WHERE worker <> ''")

    await until(freed, seconds=12)
    states = dict(await rows(heir, "SELECT id, state FROM message"))
    assert {states[claim.case.message.id] for claim in begun} == {"UNCONFIRMED"}
    again = await heir.claim(CLASS, SEND, 9)
    assert {claim.case.message.id for claim in again} == {claim.case.message.id for claim in claims[2:]}
    assert [row for row in await rows(heir, "SELECT boot_id FROM worker") if row[0] == store.boot_id] == []
    kinds = await rows(heir, f"SELECT kind FROM event WHERE message_id = '{begun[0].case.message.id}' ORDER BY seq")
    assert kinds == [("STATE",), ("ATTEMPT_STARTED",), ("ATTEMPT_ENDED",)]


async def test_the_living_keep_what_they_hold(store: Store, another: OpenStore) -> None:
    """A worker that beats is left alone, however long it holds a message."""
    other = await another() if store.engine_name == "postgres" else store
    await store.accept(letter())
    held = await store.claim(CLASS, SEND, 1)
    for _ in range(int(DEAD_AFTER_SECONDS / 0.5) + 3):
        await store.beat()
        assert await other.sweep() == 0
        await asyncio.sleep(0.5 if other is not store else 0)
    assert await store.held() == [(held[0].case.message.id, held[0].hold)]


async def test_a_late_answer_of_a_worker_that_was_given_up_is_kept(
    on_postgres: Store, postgres_url: str, open_at: OpenAt
) -> None:
    """Proof that the provider took the message counts, whoever brings it."""
    await on_postgres.accept(letter())
    (claim,) = await on_postgres.claim(CLASS, SEND, 1)
    id_ = claim.case.message.id
    await on_postgres.apply(id_, started(claim))
    other = await open_at(postgres_url)

    async def given_up() -> bool:
        return await other.sweep() == 1

    await until(given_up, seconds=12)
    assert await rows(other, "SELECT state FROM message") == [("UNCONFIRMED",)]
    late = await on_postgres.apply(id_, Settled(claim.hold, 1, Accepted("p-1")))
    assert isinstance(late, Decision)
    assert await rows(other, "SELECT state FROM message") == [("SENT",)]


async def test_a_hold_without_a_worker_is_found(store: Store) -> None:
    """What is held by a worker that has no row (it was swept while it claimed) is freed too."""
    await store.accept(letter())
    await store.claim(CLASS, SEND, 1)
    await change(store, "UPDATE due SET worker = 'nobody'")

    async def freed() -> bool:
        return await store.sweep() == 1

    await until(freed, seconds=12)
    assert len(await store.claim(CLASS, SEND, 1)) == 1


async def test_a_beat_is_a_committed_counter(store: Store) -> None:
    """Each beat raises the counter of this worker's row; a worker whose row is gone is known again by its next beat."""
    before = store.beating
    await store.beat()
    assert store.beating > before
    mine = f"SELECT beat FROM worker WHERE boot_id = '{store.boot_id}'"
    assert await rows(store, mine) == [(2,)]
    await change(store, "DELETE FROM worker")
    await store.beat()
    assert await rows(store, mine) == [(1,)]


async def test_a_store_that_closes_says_good_bye(store: Store, another: OpenStore) -> None:
    """A worker that ended in order is nobody to be found dead."""
    await store.close()
    heir = await another()
    assert await rows(heir, "SELECT boot_id FROM worker") == [(heir.boot_id,)]


def test_a_watcher_that_was_blind_declares_nobody_dead() -> None:
    """After a pause of the watcher itself, the same beats have to be seen anew for the whole time."""
    sightings = Sightings()
    for second in range(4):
        assert sightings.look({"w": 7}, float(second)) == []
    assert sightings.look({"w": 7}, 60.0) == []
    assert [sightings.look({"w": 7}, 60.0 + second) for second in (1, 2, 3)] == [[], [], []]
    assert sightings.look({"w": 7}, 64.0) == ["w"]


@given(st.lists(st.tuples(st.floats(0.1, 5.0), st.integers(0, 3)), min_size=1, max_size=40))
def test_only_a_beat_that_stood_still_under_steady_looking_is_dead(looks: list[tuple[float, int]]) -> None:
    """Whatever the pauses and beats: dead means one beat, seen at least twice a 2.5 s, for 4 s."""
    sightings, now, steady_since, last = Sightings(), 100.0, 100.0, None
    for pause, beat in looks:
        now += pause
        if pause > 2.5 or beat != last:
            steady_since = now
        last = beat
        dead = sightings.look({"w": beat}, now)
        assert (dead == ["w"]) == (now - steady_since >= DEAD_AFTER_SECONDS)
