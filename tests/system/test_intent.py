"""A hand-off is on record before it leaves, as whoever finds it after a crash must know of it."""

from tests.gateway import Gateway
from tests.ledger import SEND
from tests.proof.dump import read_dump
from tests.scripted_upstream import Recorded, Say, ScriptedUpstream

MESSAGES = 5


async def test_the_intent_is_stored_before_the_provider_reads_the_text(
    gateway: Gateway, upstream: ScriptedUpstream, database_url: str
) -> None:
    """The moment that a text has been read, another connection finds its attempt in the database."""
    known: list[bool] = []

    def reply(request: Recorded) -> Say:
        if request.call == SEND:
            attempts = [a for mine in read_dump(database_url).attempts.values() for a in mine]
            known.append(request.form["localid"] in {str(attempt.provider_key) for attempt in attempts})
        return upstream.honest(request)

    upstream.always(reply)
    await gateway.configure_kavenegar(upstream.base_url)
    for tracking_id in await gateway.send_all({"text": f"text {n}"} for n in range(MESSAGES)):
        await gateway.reach(tracking_id, "DELIVERED")
    assert known == [True] * MESSAGES
