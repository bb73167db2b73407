"""C9: canaries, however they are spelled, are nowhere that callers, operators or the status log can see."""

import base64
import json
from collections.abc import Iterator
from urllib.parse import quote, quote_plus

from tests.proof.history import Canary, History
from tests.proof.violations import Violation


def check_leaks(history: History) -> Iterator[Violation]:
    """C9: no canary in a log, an error, an event or a row that is kept unsealed."""
    spelled = [(canary, spellings(canary)) for canary in history.canaries]
    for where, text in _places(history):
        lowered = text.lower()
        for canary, words in spelled:
            if any(word in lowered for word in words):
                yield Violation("C9", canary.name, f"seen in {where}")


def spellings(canary: Canary) -> set[str]:
    """The canary as it stands, in JSON, in a URL, as Python shows bytes, and in base64 at any offset; in lower case."""
    raw = canary.text.encode()
    shifted = {base64.b64encode(b"\0" * pad + raw).decode()[4:-4] for pad in range(3)}
    spelled = {
        canary.text,
        json.dumps(canary.text)[1:-1],
        quote(canary.text),
        quote_plus(canary.text),
        repr(raw)[2:-1],
        raw.hex(),
        *(word for word in shifted if len(word) > len(canary.text) // 2),
    }
    return {word.lower() for word in spelled}


def _places(history: History) -> Iterator[tuple[str, str]]:
    yield from ((f"the log of {name}", text) for name, text in history.logs.items())
    for op in history.ops:
        if op.error:
            yield f"an error of {op.method}", op.error
    for watch in history.watches:
        yield from ((f"an event told to {watch.name}", seen.whole) for seen in watch.seen)
    yield from (("a row of the database", row) for row in history.dump.plain)
