"""Messages and calls as Twilio lists them, and which entry of a list is a hand-off whose answer was lost."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date
from email.utils import parsedate_to_datetime
from urllib.parse import urlencode

from server.model.accounts import Sought
from server.model.clock import SECOND, Micros, moment
from server.model.enums import Channel
from server.model.outcomes import Found, LookUp, NoAnswer, Receipt
from server.providers.answers import json_object, objects_in
from server.providers.twilio_codes import CALL_STATUSES, MESSAGE_STATUSES

ENTRIES_MAX = 32
"""Of one list; as many fit into the longest answer that is read."""
CLOCKS_DIFFER: Micros = 2 * SECOND
_SENT_BY_US = "outbound-api"


@dataclass(frozen=True, slots=True, eq=False)
class Resource:
    """A kind of thing that Twilio makes for us: its name in paths, the shape of its ids, and its statuses."""

    name: str
    sid: re.Pattern[str]
    statuses: Mapping[str, Receipt]
    day: str
    """The filter of its list by the day, in UTC, on which it went out."""

    @property
    def key(self) -> str:
        """Under which a list holds its entries."""
        return self.name.lower()


MESSAGES = Resource("Messages", re.compile(r"(?:SM|MM)[0-9a-fA-F]{32}"), MESSAGE_STATUSES, "DateSent")
CALLS = Resource("Calls", re.compile(r"CA[0-9a-fA-F]{32}"), CALL_STATUSES, "StartTime")


@dataclass(frozen=True, slots=True)
class Listing:
    """What went to one number on one day."""

    resource: Resource
    to: str
    day: date

    @property
    def path(self) -> str:
        """Below the account, with the query."""
        asked = {"To": self.to, self.resource.day: self.day.isoformat(), "PageSize": str(ENTRIES_MAX)}
        return f"{self.resource.name}.json?{urlencode(asked)}"


Entry = Mapping[str, object]


def resource_for(channel: Channel) -> Resource:
    """What a message of this channel becomes."""
    return CALLS if channel == Channel.VOICE else MESSAGES


def resource_of(sid: str) -> Resource | None:
    """What bears such an id; None for what is none."""
    return next((resource for resource in (MESSAGES, CALLS) if resource.sid.fullmatch(sid)), None)


def listings_for(sought: Sought) -> list[Listing]:
    """The lists that would hold it: of two days around midnight."""
    ends = (sought.started_at - CLOCKS_DIFFER, sought.deadline + CLOCKS_DIFFER)
    days = sorted({moment(end).date() for end in ends})
    return [Listing(resource_for(sought.channel), sought.destination, day) for day in days]


def entries_in(listing: Listing, body: bytes) -> list[Entry] | None:
    """The entries of a list; None where it is not readable, or goes on with another page."""
    page = json_object(body)
    if page is None or page.get("next_page_uri") or not isinstance(page.get(listing.resource.key), list):
        return None
    return objects_in(page[listing.resource.key])


def found_in(lists: Mapping[Listing, Sequence[Entry] | None], sought: Sequence[Sought]) -> Sequence[LookUp]:
    """What the lists tell of each: found where one entry alone could be it, and could be nothing else that is sought.

    A list never proves that something was not taken: it may lag behind.
    """
    told = [[lists.get(listing) for listing in listings_for(one)] for one in sought]
    fits = [_fitting(entries, one) for entries, one in zip(told, sought, strict=True)]
    claims = Counter(sid for sids in fits for sid in sids)
    whole = (None not in entries for entries in told)
    return [_sole(sids, claims) if all_told else NoAnswer() for sids, all_told in zip(fits, whole, strict=True)]


def _fitting(told: Sequence[Sequence[Entry] | None], sought: Sought) -> set[str]:
    """The ids of all that could be it, of an entry in two lists once."""
    return {sid for entries in told if entries for sid in _matching(entries, sought)}


def _sole(sids: set[str], claims: Mapping[str, int]) -> LookUp:
    (sid, *others) = sids or ("",)
    return Found(sid) if sid and not others and claims[sid] == 1 else NoAnswer()


def _matching(entries: Sequence[Entry], sought: Sought) -> Iterator[str]:
    """The ids of what may be it. A call tells nothing of what was said."""
    resource = resource_for(sought.channel)
    wanted = {"to": sought.destination, "direction": _SENT_BY_US}
    if resource is MESSAGES:
        wanted["body"] = sought.text
    for entry in entries:
        sid = entry.get("sid")
        alike = all(entry.get(name) == value for name, value in wanted.items())
        if alike and isinstance(sid, str) and resource.sid.fullmatch(sid) and _in_time(entry, sought):
            yield sid


def _in_time(entry: Entry, sought: Sought) -> bool:
    created = _micros(entry.get("date_created"))
    return created is not None and sought.started_at - CLOCKS_DIFFER <= created <= sought.deadline + CLOCKS_DIFFER


def _micros(value: object) -> Micros | None:
    """A time as Twilio spells it, to the second."""
    try:
        spelled = parsedate_to_datetime(value) if isinstance(value, str) else None
        return int(spelled.replace(tzinfo=spelled.tzinfo or UTC).timestamp()) * SECOND if spelled else None
    except (ValueError, TypeError, OverflowError):
        return None
