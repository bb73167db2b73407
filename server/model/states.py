"""The state table of a message. Every change of state goes through `decide`, which this table judges."""

from server.model.enums import State, Status

FINAL = frozenset({State.DELIVERED, State.UNDELIVERED, State.FAILED, State.CANCELED, State.EXPIRED})

_UNSENT = frozenset({State.SENDING, State.CANCELED, State.EXPIRED, State.FAILED})

MAY_BECOME: dict[State, frozenset[State]] = {
    State.ACCEPTED: _UNSENT,
    State.SCHEDULED: _UNSENT,
    State.SENDING: frozenset({State.SENT, State.UNCONFIRMED}) | FINAL,
    State.SENT: frozenset({State.DELIVERED, State.UNDELIVERED, State.SENDING, State.UNCONFIRMED}),
    State.UNCONFIRMED: frozenset({State.SENDING, State.SENT}) | FINAL,
    State.DELIVERED: frozenset(),
    State.UNDELIVERED: frozenset({State.DELIVERED}),
    State.FAILED: frozenset(),
    State.CANCELED: frozenset(),
    State.EXPIRED: frozenset(),
}


def may_become(old: State, new: State) -> bool:
    """Whether the table allows the change; staying is always allowed."""
    return old == new or new in MAY_BECOME[old]


def status_of(state: State, *, done: bool, taken: bool) -> Status:
    """The coarse status. `taken`: an attempt was accepted by a provider and nothing has gone wrong with it since."""
    match state:
        case State.DELIVERED | State.SENT:
            return Status.SENT
        case State.UNDELIVERED | State.FAILED | State.CANCELED | State.EXPIRED:
            return Status.FAILED
        case State.UNCONFIRMED:
            return Status.SENT if done else Status.PENDING
        case State.ACCEPTED | State.SCHEDULED | State.SENDING:
            return Status.SENT if taken else Status.PENDING
