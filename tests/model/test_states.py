"""Every fact in every state, as two tables."""

from collections.abc import Callable

import pytest

from server.model.clock import HOUR, MINUTE, SECOND, Micros
from server.model.conclude import Decision
from server.model.decide import Refused
from server.model.enums import (
    Channel,
    FailureReason,
    ReceiptKind,
    State,
    Stop,
)
from server.model.facts import (
    ClockSetBack,
    Fact,
    Followed,
    LookedUp,
    Postponed,
    Receipted,
    Settled,
    Started,
    Stopped,
    Unplannable,
    WorkerLost,
)
from server.model.failures import Failure
from server.model.messages import Behind, Follow, Hold
from server.model.outcomes import (
    Accepted,
    Found,
    NeverRegistered,
    NoAnswer,
    Outcome,
    Receipt,
    Refusal,
    ambiguous,
    rejected,
    unavailable,
)
from server.model.states import MAY_BECOME, may_become
from tests.model import history
from tests.model.history import START, History, message_of, opening_of

FOLLOWED = Follow(polls=True, looks_up=True)
DELIVERED = Receipt(ReceiptKind.DELIVERED)
UNDELIVERED = Receipt(ReceiptKind.UNDELIVERED, Failure(FailureReason.RECIPIENT_UNREACHABLE, "Switched off.", "7"))
OTHER = Receipt(ReceiptKind.OTHER)


def accepted(state: State = State.ACCEPTED) -> History:
    life = History(message_of(state=state))
    life.claim()
    return life


def in_flight() -> History:
    life = History(message_of())
    life.begin(opening_of(follow=FOLLOWED))
    return life


def settled(outcome: Outcome) -> History:
    life = in_flight()
    life.tell(Settled(life.hold, 1, outcome))
    return life


def claimed(life: History) -> History:
    life.claim()
    return life


def told(life: History, fact: Fact) -> History:
    assert isinstance(life.tell(fact), Decision)
    return life


def later(life: History, span: Micros) -> History:
    life.now += span
    return life


def followed(life: History) -> History:
    return told(life, Followed(life.claim()))


def patient() -> History:
    """Taken; if no receipt comes within 50 s, the next step goes."""
    life = History(message_of())
    life.begin(opening_of(follow=FOLLOWED, patience=50 * SECOND, behind=Behind(1, 1, 1)))
    return told(life, Settled(life.hold, 1, Accepted("p1")))


def overdue() -> History:
    """Those 50 s are over."""
    return followed(later(patient(), MINUTE))


def next_step() -> History:
    """And the next step is in flight."""
    life = overdue()
    life.begin(opening_of("b", step=2, channel=Channel.EMAIL, follow=FOLLOWED, deadline=START + HOUR))
    return life


SCENES: dict[str, Callable[[], History]] = {
    "accepted": accepted,
    "scheduled": lambda: accepted(State.SCHEDULED),
    "in_flight": in_flight,
    "retry": lambda: claimed(settled(unavailable())),
    "sent": lambda: claimed(settled(Accepted("p1"))),
    "unconfirmed": lambda: claimed(settled(ambiguous())),
    "sent.": lambda: followed(later(settled(Accepted("p1")), 73 * HOUR)),
    "unconfirmed.": lambda: followed(later(settled(ambiguous()), 73 * HOUR)),
    "delivered": lambda: told(settled(Accepted("p1")), Receipted(1, DELIVERED)),
    "undelivered": lambda: told(settled(Accepted("p1")), Receipted(1, UNDELIVERED)),
    "failed": lambda: settled(rejected(Refusal.RECIPIENT)),
    "expired": lambda: told(later(accepted(), HOUR), Stopped(Stop.EXPIRED)),
    "canceled": lambda: told(accepted(), Stopped(Stop.CANCELED)),
    "patient": lambda: claimed(patient()),
    "overdue": lambda: claimed(overdue()),
    "next_step": next_step,
}

FACTS: dict[str, Callable[[Hold], Fact]] = {
    "started": lambda hold: Started(hold, (opening_of("b", deadline=START + HOUR),)),
    "accepted": lambda hold: Settled(Hold("w", 1), 1, Accepted("p1")),
    "unavailable": lambda hold: Settled(Hold("w", 1), 1, unavailable()),
    "rejected": lambda hold: Settled(Hold("w", 1), 1, rejected(Refusal.RECIPIENT)),
    "ambiguous": lambda hold: Settled(Hold("w", 1), 1, ambiguous()),
    "worker_lost": WorkerLost,
    "found": lambda hold: LookedUp(hold, 1, Found("p1")),
    "never": lambda hold: LookedUp(hold, 1, NeverRegistered()),
    "no_answer": lambda hold: LookedUp(hold, 1, NoAnswer()),
    "delivered": lambda hold: Receipted(1, DELIVERED),
    "undelivered": lambda hold: Receipted(1, UNDELIVERED),
    "other": lambda hold: Receipted(1, OTHER),
    "followed": Followed,
    "postponed": lambda hold: Postponed(hold, START + MINUTE),
    "cancel": lambda hold: Stopped(Stop.CANCELED),
    "expired": lambda hold: Stopped(Stop.EXPIRED),
    "verified": lambda hold: Stopped(Stop.VERIFIED),
    "unplannable": lambda hold: Unplannable(hold, FailureReason.NO_ROUTE),
    "set_back": lambda hold: ClockSetBack(),
}

# STATE:due or STATE. (done); -why: refused, nothing changes.
OPEN = """
             accepted       scheduled       in_flight            retry           sent                unconfirmed
started      SENDING:send   SENDING:send    SENDING:send         SENDING:send    -stale              -stale
accepted     -unknown       -unknown        SENT:poll            -stale          -stale              SENT:poll
unavailable  -unknown       -unknown        SENDING:send         -stale          -stale              -stale
rejected     -unknown       -unknown        FAILED.              -stale          -stale              -stale
ambiguous    -unknown       -unknown        UNCONFIRMED:look_up  -stale          -stale              -stale
worker_lost  ACCEPTED:send  SCHEDULED:send  UNCONFIRMED:look_up  SENDING:send    SENT:poll           UNCONFIRMED:look_up
found        -unknown       -unknown        -same                -same           -same               SENT:poll
never        -unknown       -unknown        -same                -same           -same               -same
no_answer    -unknown       -unknown        -same                -same           -same               -same
delivered    -unknown       -unknown        DELIVERED.           DELIVERED.      DELIVERED.          DELIVERED.
undelivered  -unknown       -unknown        SENDING:send         SENDING:send    UNDELIVERED.        UNDELIVERED.
other        -unknown       -unknown        SENDING:send         -same           -same               SENT:poll
followed     -stale         -stale          -stale               -stale          SENT:poll           UNCONFIRMED:look_up
postponed    ACCEPTED:send  SCHEDULED:send  -stale               SENDING:send    -stale              -stale
cancel       CANCELED.      CANCELED.       SENDING:send         CANCELED.       -nothing_to_cancel  UNCONFIRMED:look_up
expired      -same          -same           -same                -same           -same               -same
verified     CANCELED.      CANCELED.       DELIVERED.           CANCELED.       DELIVERED.          DELIVERED.
unplannable  FAILED.        FAILED.         -stale               FAILED.         -stale              -stale
set_back     -same          -same           -same                -same           -same               -same
"""
ENDED = """
             sent.       unconfirmed.  delivered   undelivered  failed    expired    canceled
started      -stale      -stale        -final      -final       -final    -final     -final
accepted     -stale      UNCONFIRMED.  -stale      -stale       -stale    -unknown   -unknown
unavailable  -stale      -stale        -stale      -stale       -stale    -unknown   -unknown
rejected     -stale      -stale        -stale      -stale       -stale    -unknown   -unknown
ambiguous    -stale      -stale        -stale      -stale       -stale    -unknown   -unknown
worker_lost  -stale      -stale        -stale      -stale       -stale    -stale     -stale
found        -same       UNCONFIRMED.  -same       -same        -same     -unknown   -unknown
never        -same       UNCONFIRMED.  -same       -same        -same     -unknown   -unknown
no_answer    -same       -same         -same       -same        -same     -unknown   -unknown
delivered    DELIVERED.  DELIVERED.    -same       DELIVERED.   FAILED.   -unknown   -unknown
undelivered  SENT.       UNCONFIRMED.  -same       -same        FAILED.   -unknown   -unknown
other        -same       UNCONFIRMED.  -same       -same        -same     -unknown   -unknown
followed     -stale      -stale        -stale      -stale       -stale    -stale     -stale
postponed    -stale      -stale        -stale      -stale       -stale    -stale     -stale
cancel       -final      -final        -final      -final       -final    -final     -final
expired      -final      -final        -final      -final       -final    -final     -final
verified     -final      -final        -final      -final       -final    -final     -final
unplannable  -stale      -stale        -stale      -stale       -stale    -stale     -stale
set_back     -same       -same         -same       -same        -same     -same      -same
"""
# A step that waits for its receipt before the next one goes.
WAITING = """
             patient       overdue       next_step
started      -stale        SENT:poll     SENDING:send
accepted     -stale        -stale        -stale
unavailable  -stale        -stale        -stale
rejected     -stale        -stale        -stale
ambiguous    -stale        -stale        -stale
worker_lost  SENT:poll     SENDING:send  SENT:look_up
found        -same         -same         -same
never        -same         -same         -same
no_answer    -same         -same         -same
delivered    DELIVERED.    DELIVERED.    DELIVERED.
undelivered  SENDING:send  SENDING:send  SENDING:send
other        -same         -same         -same
followed     SENT:poll     -stale        -stale
postponed    -stale        SENDING:send  -stale
cancel       SENT:poll     SENT:poll     SENDING:send
expired      -same         -same         -same
verified     DELIVERED.    DELIVERED.    DELIVERED.
unplannable  -stale        SENT:poll     -stale
set_back     -same         -same         -same
"""


def cells(table: str) -> list[tuple[str, str, str]]:
    scenes, *rows = [line.split() for line in table.strip().splitlines()]
    return [(scene, row[0], cell) for row in rows for scene, cell in zip(scenes, row[1:], strict=True)]


@pytest.mark.parametrize(("scene", "fact", "expected"), [*cells(OPEN), *cells(ENDED), *cells(WAITING)])
def test_every_fact_in_every_state(scene: str, fact: str, expected: str) -> None:
    """What a fact makes of a message is as the design's tables say, and each of the 304 pairs is in them."""
    life = SCENES[scene]()
    before, events = life.case, len(life.events)
    decision = life.tell(FACTS[fact](life.hold if life.held else Hold("boot-1", 1)))
    assert _spoken(decision, life) == expected
    if isinstance(decision, Refused):
        assert life.case == before
    if before.message.done and life.message.state == before.message.state:
        assert len(life.events) == events, "after the end only the correction is told"


def _spoken(decision: Decision | Refused, life: History) -> str:
    if isinstance(decision, Refused):
        return f"-{decision.why.lower()}"
    return f"{life.message.state}." if life.message.done else f"{life.message.state}:{life.message.due.kind.lower()}"  # pyright: ignore[reportOptionalMemberAccess] - not done


def test_an_intent_that_is_told_twice_opens_nothing_more() -> None:
    """Told again because the answer to its commit was lost, an intent names the attempts that it had opened."""
    life = in_flight()
    begun, events = life.attempts, len(life.events)
    decision = life.tell(FACTS["started"](life.hold))
    assert isinstance(decision, Decision)
    assert (decision.attempts, life.attempts, len(life.events)) == (begun, begun, events)


def test_the_tables_are_complete() -> None:
    """Every scene meets every fact."""
    assert {(scene, fact) for scene, fact, _ in (*cells(OPEN), *cells(ENDED), *cells(WAITING))} == {
        (scene, fact) for scene in SCENES for fact in FACTS
    }


@pytest.mark.parametrize("old", State)
@pytest.mark.parametrize("new", State)
def test_the_state_table_is_the_designs(old: State, new: State) -> None:
    """`may_become` allows what the design's table allows, and to stay."""
    assert may_become(old, new) == (old == new or new in history.MAY_BECOME[old])
    assert MAY_BECOME.keys() == set(State)
