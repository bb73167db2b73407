"""Facts that must not get lost: stated again until the store has taken them."""

import asyncio

import structlog

from server.model.conclude import Decision
from server.model.decide import Refused
from server.model.errors import Unavailable
from server.model.facts import Fact
from server.model.work import NOTHING_BESIDE, Beside
from server.store.store import Store

FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 2.0

_log = structlog.get_logger("dispatch")


async def insist(store: Store, message_id: str, fact: Fact, beside: Beside = NOTHING_BESIDE) -> Decision | Refused:
    """Apply a fact, and again while the store cannot be reached.

    Every fact bears repeating: where the first try was committed after all, the second is refused or changes nothing.
    """
    pause = FIRST_PAUSE_SECONDS
    while True:
        try:
            return await store.apply(message_id, fact, beside)
        except Unavailable as error:
            _log.warning("fact_not_kept_yet", tracking_id=message_id, fact=type(fact).__name__, reason=error.reason)
        await asyncio.sleep(pause)
        pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
