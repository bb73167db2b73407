"""Where a watcher stands in the log, and what it wants to see of it."""

from dataclasses import dataclass

from server.model.clock import Micros
from server.model.enums import Channel, MessageClass, State
from server.model.messages import Event


@dataclass(frozen=True, slots=True)
class MessageCursor:
    """A place in one message's log: after event `seq` of time `at`. Another time there: the history was restored."""

    message_id: str
    seq: int
    at: Micros


@dataclass(frozen=True, slots=True, order=True)
class LogCursor:
    """A place in the tenant-wide log: after (log_epoch, xid, id). `xid` is 0 on SQLite."""

    log_epoch: int
    xid: int
    id: int


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Nothing has happened for a while, and the watcher is still heard."""


@dataclass(frozen=True, slots=True)
class Filter:
    """AND of fields, OR in a list; empty: no condition. `phone_index` is the keyed hash of an E.164 number."""

    states: frozenset[State] = frozenset()
    intents: frozenset[str] = frozenset()
    tags: frozenset[str] = frozenset()
    tracking_ids: frozenset[str] = frozenset()
    reference: str = ""
    client_id: str = ""
    phone_index: str = ""
    channel: Channel | None = None
    provider: str = ""
    message_class: MessageClass | None = None
    created_min: Micros = 0
    created_max: Micros = 0

    def matches(self, event: Event) -> bool:
        """Whether an event is of a message that the filter wants, judged by what the event says."""
        return (
            (not self.states or event.state in self.states)
            and (not self.intents or event.intent in self.intents)
            and (not self.tags or not self.tags.isdisjoint(event.tags))
            and (not self.tracking_ids or event.message_id in self.tracking_ids)
            and self.reference in ("", event.reference)
            and self.client_id in ("", event.client_id)
            and self.phone_index in ("", event.phone_index)
            and self.channel in (None, event.channel)
            and self.provider in ("", event.provider)
            and self.message_class in (None, event.message_class)
            and self.created_min <= event.created_at
            and (not self.created_max or event.created_at < self.created_max)
        )
