"""Where a provider posts its receipts: the URL that is given to it, and what it says when it comes back."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import urlencode

from server.model.accounts import Account

RECEIPTS_PATH = "/receipts/{account_uid}/{token}"
MESSAGE, ATTEMPT = "m", "n"
"""The names of the tracking id and of the attempt's number in the query."""

ReportTo = Callable[[Account, str, int], str]
"""The URL for the receipts of an attempt, by account, tracking id and number; "": they are polled."""

_TRACKING_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_NUMBER = re.compile(r"[1-9][0-9]{0,5}")


@dataclass(frozen=True, slots=True)
class Reference:
    """The attempt that a receipt's URL was made for; an empty one names none."""

    message_id: str = ""
    number: int = 0


def nowhere(account: Account, message_id: str, number: int) -> str:  # noqa: ARG001 - a ReportTo
    """Receipts are polled."""
    return ""


def report_url(public_url: str, account_uid: str, token: str, reference: Reference) -> str:
    """The URL for the receipts of one attempt. `public_url` may end in a slash or in a path of a proxy's."""
    path = RECEIPTS_PATH.format(account_uid=account_uid, token=token)
    query = urlencode({MESSAGE: reference.message_id, ATTEMPT: reference.number})
    return f"{public_url.rstrip('/')}{path}?{query}"


def reference_of(query: Mapping[str, str]) -> Reference:
    """The attempt that a URL's query names; an empty reference where it names none as `report_url` does."""
    message_id, number = query.get(MESSAGE, ""), query.get(ATTEMPT, "")
    if not _TRACKING_ID.fullmatch(message_id) or not _NUMBER.fullmatch(number):
        return Reference()
    return Reference(message_id, int(number))
