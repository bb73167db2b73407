"""Faults of the edges: what callers are told, what is logged, and where calls go."""

from tests.mutants.mutant import Change, Mutant

_TRANSPORT = "server/providers/transport.py"

MUTANTS = (
    Mutant(
        "M13",
        "A fault of ours tells nothing: the exception's text reaches the caller.",
        (Change("server/api/interceptor.py", "return internal(trace_id)", 'return internal(f"{trace_id} {error}")'),),
        ("tests/api/test_interceptor.py::test_a_bug_tells_nothing",),
    ),
    Mutant(
        "M15a",
        "Nothing secret is logged: the URL of a call that had no answer.",
        (Change(_TRANSPORT, '_log.info("no answer", host=host,', '_log.info("no answer", host=host, path=call.path,'),),
        ("tests/providers/test_kavenegar.py::test_nothing_secret_is_logged",),
    ),
    Mutant(
        "M15b",
        "Nothing secret is logged: the HTTP libraries log as they like.",
        (Change(_TRANSPORT, "logging.getLogger(name).setLevel(logging.CRITICAL + 1)", "logging.getLogger(name)"),),
        ("tests/providers/test_transport.py::test_the_libraries_say_nothing",),
    ),
    Mutant(
        "M14d",
        "Nothing stale is sent: nobody looks at the clock where the bytes leave.",
        (Change(_TRANSPORT, "        if time.monotonic() > self.leave_by:", "        if self.leave_by < 0:"),),
        ("tests/providers/test_transport.py::test_what_may_not_leave_any_more_does_not",),
    ),
    Mutant(
        "M18",
        "Calls go where they were checked to go: a redirect is followed.",
        (
            Change(
                _TRANSPORT,
                "response = await self._http.handle_async_request(_request(call))",
                "client = httpx.AsyncClient(transport=self._http, follow_redirects=True)\n"
                "        response = await client.send(_request(call), stream=True)",
            ),
        ),
        ("tests/providers/test_transport.py::test_redirects_are_answers",),
    ),
    Mutant(
        "M26a",
        "A receipt is the provider's or none: nobody looks at its signature.",
        (
            Change(
                "server/providers/twilio_signature.py",
                "return any(hmac.compare_digest(given, own) for own in signatures)",
                "return bool(given or signatures)",
            ),
        ),
        ("tests/providers/test_twilio_reports.py::test_what_is_not_signed_is_refused",),
    ),
    Mutant(
        "M26b",
        "Receipts come by the account's own URL: any token will do.",
        (
            Change(
                "server/hooks/receipts.py",
                'return hmac.compare_digest(token.encode(errors="replace"), expected.encode()) and uid in self._tokens',
                "return bool(token or expected) and uid in self._tokens",
            ),
        ),
        ("tests/hooks/test_receipts.py::test_a_url_of_nobody_is_not_found",),
    ),
)
