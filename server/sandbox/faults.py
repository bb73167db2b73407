"""Faults on command: what an account answers instead of doing what it is asked."""

from aiohttp import web

OK = "ok"
HTTP_503 = "http_503"
DISCONNECT = "disconnect"
WORDS = (OK, HTTP_503, DISCONNECT)
"""What every account may be told to answer, beside the codes of its provider."""


class Vanish(Exception):
    """The connection is closed without an answer."""


def code_to_answer(answer: str) -> int | None:
    """The provider's code that an account is told to answer; None where it shall do its work.

    Raises for the faults that are the same with every provider: Vanish, or a 503 of some gateway on the way.
    """
    match answer:
        case "ok":
            return None
        case "http_503":
            raise web.HTTPServiceUnavailable(text="<html>unavailable</html>")
        case "disconnect":
            raise Vanish
        case code:
            return int(code)


def vanish(request: web.Request) -> web.StreamResponse:
    """Resets the connection; the response that aiohttp wants goes nowhere."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()
