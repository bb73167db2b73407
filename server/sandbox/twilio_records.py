"""What the sandbox upstream took as Twilio: messages and calls, how they are shown, and the receipts they post."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from server.model.clock import Micros, micros
from server.model.magic import Fate
from server.model.segments import segments_of
from server.sandbox.ledger import Ledger, Recent
from server.sandbox.receipts import Receipt, Tally
from server.sandbox.twilio_wire import EVENTS, VERSION, Calling, Texting, rfc2822

MESSAGES_MAX = 20_000
CALLS_MAX = 20_000
SERVICE_NUMBER = "+15005550006"
"""Who sends where a messaging service picks the sender."""
UNREACHABLE = 30003
UNREACHABLE_TEXT = "Unreachable destination handset"

_MESSAGE_ENDS = {Fate.UNDELIVERED: "undelivered", Fate.NO_RECEIPT: "sent"}
_CALL_ENDS = {Fate.UNDELIVERED: "no-answer", Fate.NO_RECEIPT: "in-progress"}


class Record(Protocol):
    """A message or a call."""

    @property
    def sid(self) -> str: ...
    @property
    def at(self) -> Micros: ...
    @property
    def fate(self) -> Fate: ...
    @property
    def to(self) -> str: ...
    @property
    def sender(self) -> str: ...

    def shown(self, status: str) -> Mapping[str, object]:
        """The resource with all documented fields, as it is in this state."""
        ...

    @property
    def first_status(self) -> str:
        """The state that the answer to its making tells."""
        ...

    def status(self, now: Micros, settle: Micros) -> str:
        """The state that it is in at `now`."""
        ...

    def receipts(self, settle_seconds: float) -> Sequence[Receipt]:
        """What it posts to its callback."""
        ...


@dataclass(frozen=True, slots=True)
class Message:
    """One text."""

    sid: str
    account_sid: str
    asked: Texting
    fate: Fate
    at: Micros

    @property
    def to(self) -> str:
        return self.asked.to

    @property
    def sender(self) -> str:
        return self.asked.sender or SERVICE_NUMBER

    @property
    def first_status(self) -> str:
        return "accepted" if self.asked.service_sid else "queued"

    def status(self, now: Micros, settle: Micros) -> str:
        """Sent at once; its end comes with the settle time."""
        return _MESSAGE_ENDS.get(self.fate, "delivered") if now - self.at >= settle else "sent"

    def shown(self, status: str) -> Mapping[str, object]:
        waits = status == self.first_status
        failed = status == "undelivered"
        uri = f"/{VERSION}/Accounts/{self.account_sid}/Messages/{self.sid}"
        return {
            "sid": self.sid,
            "account_sid": self.account_sid,
            "api_version": VERSION,
            "body": self.asked.body,
            "date_created": rfc2822(self.at),
            "date_sent": None if waits else rfc2822(self.at),
            "date_updated": rfc2822(self.at),
            "direction": "outbound-api",
            "error_code": UNREACHABLE if failed else None,
            "error_message": UNREACHABLE_TEXT if failed else None,
            "from": (self.asked.sender or None) if waits else self.sender,
            "messaging_service_sid": self.asked.service_sid or None,
            "num_media": "0",
            "num_segments": str(segments_of(self.asked.body)),
            "price": None,
            "price_unit": "USD",
            "status": status,
            "subresource_uris": {"media": f"{uri}/Media.json"},
            "to": self.asked.to,
            "uri": f"{uri}.json",
        }

    def receipts(self, settle_seconds: float) -> Sequence[Receipt]:
        """`sent` at once, then the end; out of order the other way round."""
        sent, end = Receipt(0.0, self._posted("sent")), _MESSAGE_ENDS.get(self.fate, "delivered")
        if end == "sent":
            return [sent]
        last = Receipt(settle_seconds, self._posted(end))
        return [last, sent] if self.fate == Fate.OUT_OF_ORDER else [sent, last]

    def _posted(self, status: str) -> Mapping[str, str]:
        fields = {
            "MessageSid": self.sid,
            "SmsSid": self.sid,
            "MessageStatus": status,
            "SmsStatus": status,
            "To": self.to,
            "From": self.sender,
            "AccountSid": self.account_sid,
            "ApiVersion": VERSION,
        }
        if self.asked.service_sid:
            fields["MessagingServiceSid"] = self.asked.service_sid
        if status == "undelivered":
            fields["ErrorCode"] = str(UNREACHABLE)
        return fields


@dataclass(frozen=True, slots=True)
class Call:
    """One call."""

    sid: str
    account_sid: str
    asked: Calling
    fate: Fate
    at: Micros

    @property
    def to(self) -> str:
        return self.asked.to

    @property
    def sender(self) -> str:
        return self.asked.sender

    @property
    def first_status(self) -> str:
        return "queued"

    def status(self, now: Micros, settle: Micros) -> str:
        """It rings at once, and is answered at once where it is answered at all; its end comes with the settle time."""
        if now - self.at >= settle:
            return _CALL_ENDS.get(self.fate, "completed")
        return "ringing" if self.fate == Fate.UNDELIVERED else "in-progress"

    def shown(self, status: str) -> Mapping[str, object]:
        waits = status == self.first_status
        ended = status in ("completed", "no-answer")
        uri = f"/{VERSION}/Accounts/{self.account_sid}/Calls/{self.sid}"
        return {
            "sid": self.sid,
            "account_sid": self.account_sid,
            "answered_by": None,
            "api_version": VERSION,
            "caller_name": None,
            "date_created": rfc2822(self.at),
            "date_updated": rfc2822(self.at),
            "direction": "outbound-api",
            "duration": _seconds_of(status) if ended else None,
            "end_time": rfc2822(self.at) if ended else None,
            "forwarded_from": None,
            "from": self.asked.sender,
            "from_formatted": self.asked.sender,
            "group_sid": None,
            "parent_call_sid": None,
            "phone_number_sid": None,
            "price": None,
            "price_unit": "USD",
            "queue_time": "0",
            "start_time": None if waits else rfc2822(self.at),
            "status": status,
            "subresource_uris": {"events": f"{uri}/Events.json"},
            "to": self.asked.to,
            "to_formatted": self.asked.to,
            "trunk_sid": None,
            "uri": f"{uri}.json",
        }

    def receipts(self, settle_seconds: float) -> Sequence[Receipt]:
        """Those that were asked for, as they happen; out of order the end first."""
        end = _CALL_ENDS.get(self.fate, "completed")
        steps = {"initiated": "initiated", "ringing": "ringing", "answered": "in-progress", "completed": end}
        if self.fate == Fate.UNDELIVERED:
            del steps["answered"]
        if self.fate == Fate.NO_RECEIPT:
            del steps["completed"]
        told = [event for event in EVENTS if event in steps and event in self.asked.events]
        posts = [
            Receipt(settle_seconds, self._posted(steps[event], number, settle_seconds))
            if event == "completed"
            else Receipt(0.0, self._posted(steps[event], number, 0.0))
            for number, event in enumerate(told)
        ]
        return posts[-1:] + posts[:-1] if self.fate == Fate.OUT_OF_ORDER else posts

    def _posted(self, status: str, number: int, after_seconds: float) -> Mapping[str, str]:
        fields = {
            "CallSid": self.sid,
            "CallStatus": status,
            "To": self.to,
            "From": self.sender,
            "Direction": "outbound-api",
            "AccountSid": self.account_sid,
            "ApiVersion": VERSION,
            "Timestamp": rfc2822(self.at + micros(after_seconds)),
            "SequenceNumber": str(number),
        }
        if status in ("completed", "no-answer"):
            fields["CallDuration"] = _seconds_of(status)
        return fields


@dataclass(slots=True)
class TwilioLedger(Ledger):
    """One account: its last 20,000 messages, with their texts, its last 20,000 calls, and what its receipts came to."""

    messages: Recent[str, Message] = field(default_factory=lambda: Recent(MESSAGES_MAX))
    voice: Recent[str, Call] = field(default_factory=lambda: Recent(CALLS_MAX))
    tally: Tally = field(default_factory=Tally)

    def counts(self) -> Mapping[str, int]:
        """How many messages and calls it has, and what became of its receipts."""
        return {
            "taken": len(self.messages) + len(self.voice),
            "receipts_taken": self.tally.taken,
            "receipts_given_up": self.tally.given_up,
        }


def new_sid(prefix: str) -> str:
    """`SM` or `CA` and 32 hexadecimal digits."""
    return prefix + secrets.token_hex(16)


def _seconds_of(status: str) -> str:
    return "1" if status == "completed" else "0"
