"""What proves that a call to a URL of ours comes from Twilio: an HMAC-SHA1 by the account's primary token."""

import base64
import hashlib
import hmac
import re
from collections.abc import Iterator, Mapping, Sequence
from urllib.parse import parse_qs

PORTS = {"https": "443", "http": "80"}
FIELDS_MAX = 200
DIGEST = "bodySHA256"
"""The argument of the URL that stands in for a body which is no form."""
_PORT = re.compile(r":[0-9]+$")


def signature(token: str, url: str, fields: Mapping[str, Sequence[str]]) -> str:
    """The signature of a call: of the URL and, for a form, of each name with each of its values."""
    signed = url + "".join(name + value for name in sorted(fields) for value in sorted(set(fields[name])))
    digest = hmac.digest(token.encode(), signed.encode(errors="replace"), "sha1")
    return base64.b64encode(digest).decode()


def is_signed(token: str, url: str, fields: Mapping[str, Sequence[str]], claimed: str) -> bool:
    """Whether a call bears its own signature, whether or not its port was spelled out."""
    given = claimed.encode(errors="replace")
    signatures = [signature(token, spelling, fields).encode() for spelling in _spellings(url)]
    return any(hmac.compare_digest(given, own) for own in signatures)


def is_whole(url: str, body: bytes) -> bool:
    """Whether the digest that a signed URL names is the body's."""
    named = parse_qs(_query(url)).get(DIGEST, [""])[-1]
    return hmac.compare_digest(named.lower().encode(errors="replace"), hashlib.sha256(body).hexdigest().encode())


def names_digest(url: str) -> bool:
    """Whether the body is no form, but proved by a digest in the URL."""
    return DIGEST in parse_qs(_query(url))


def form_fields(body: bytes) -> Mapping[str, Sequence[str]] | None:
    """The fields of a form, blank ones too; None for what has too many of them."""
    try:
        return parse_qs(
            body.decode(errors="replace"), keep_blank_values=True, errors="replace", max_num_fields=FIELDS_MAX
        )
    except ValueError:
        return None


def _query(url: str) -> str:
    return url.partition("#")[0].partition("?")[2]


def _spellings(url: str) -> Iterator[str]:
    """The URL without its fragment, with its port and without."""
    scheme, _, rest = url.partition("#")[0].partition("://")
    end = re.search(r"[/?]", rest)
    cut = end.start() if end else len(rest)
    host, path = _PORT.sub("", rest[:cut]), rest[cut:]
    yield f"{scheme}://{host}{path}"
    explicit = _PORT.search(rest[:cut])
    yield f"{scheme}://{host}{explicit[0] if explicit else ':' + PORTS.get(scheme.lower(), '443')}{path}"
