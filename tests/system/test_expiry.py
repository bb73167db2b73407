"""Nothing is handed off after its time, wherever on its way the time ends; by real sockets, on both engines."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from google.protobuf.duration_pb2 import Duration
from sqlalchemy import event

from tests.gateway import Gateway, eventually, outcomes, reason_of, state_of
from tests.scripted_upstream import Say, ScriptedUpstream

SEND = "sms/send"
ENDED = ("EXPIRED", "SENT", "DELIVERED")
LATE_SECONDS = 0.5
"""Far more than lies between the reading of the database's clock and the process's counting on from it."""
LATER = Say(429, b"", {"Retry-After": "60"})
"""The provider asks for a longer pause than the message lives."""


@contextmanager
def held_intent(gateway: Gateway) -> Iterator[tuple[threading.Event, threading.Event]]:
    """The commit that holds the first intent stops: the first event is set once it stands, the second lets it go on."""
    engine = gateway.application.store._database._writer_engine
    begun, reached, gate = threading.Event(), threading.Event(), threading.Event()

    def look(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if statement.startswith("INSERT INTO attempt"):
            begun.set()

    def stand(_: object) -> None:
        if begun.is_set():
            reached.set()
            gate.wait(20)

    # They stay for the life of the engine: once the gate is open, they are nothing.
    event.listen(engine, "before_cursor_execute", look)
    event.listen(engine, "commit", stand)
    try:
        yield reached, gate
    finally:
        gate.set()


async def test_nothing_leaves_whose_time_ended_while_its_intent_was_committed(
    gateway: Gateway, upstream: ScriptedUpstream
) -> None:
    """The commit of the intent takes until the message's time is over: no call is made, and it ends EXPIRED."""
    await gateway.configure_kavenegar(upstream.base_url)
    with held_intent(gateway) as (reached, gate):
        tracking_id = await gateway.send(ttl=Duration(seconds=1))
        expires_at = (await gateway.status(tracking_id)).notification.expire_time.ToMicroseconds() / 1e6
        await eventually(reached.is_set)
        assert time.time() < expires_at, "the intent came too late to be held"
        await eventually(lambda: time.time() > expires_at + LATE_SECONDS)
        gate.set()
        found = await gateway.until(tracking_id, lambda status: state_of(status) in ENDED)
    assert upstream.calls(SEND) == []
    assert (state_of(found), reason_of(found)) == ("EXPIRED", "EXPIRED")
    assert outcomes(found) == [("kavenegar", "UNAVAILABLE")]
    assert found.attempts[0].failure.provider_code == "EXPIRED"


async def test_what_no_provider_may_take_ends_when_its_time_is_over(
    gateway: Gateway, upstream: ScriptedUpstream
) -> None:
    """While its only account is closed it waits, and at its time it is EXPIRED: nobody has to try for that."""
    await gateway.configure_kavenegar(upstream.base_url)
    upstream.always(LATER)
    tracking_id = await gateway.send(ttl=Duration(seconds=2))
    found = await gateway.until(tracking_id, lambda status: state_of(status) in ENDED, 8)
    assert (state_of(found), reason_of(found)) == ("EXPIRED", "EXPIRED")
    assert outcomes(found) == [("kavenegar", "RATE_LIMITED")]
    assert len(upstream.calls(SEND)) == 1
