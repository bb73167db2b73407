"""What providers post about messages that they took: told from what anybody may post, applied, then answered.

The URL holds a token that nobody can guess; beyond that each provider proves its calls in its own way. A provider
repeats what is not answered with a 2xx, and gives up at a 4xx, so those are for what will never be a receipt.
"""

import asyncio
import hmac
import time
from collections.abc import Mapping, Sequence
from http import HTTPStatus

import structlog
from aiohttp import web

from server.model.configuration import Snapshot
from server.model.errors import Unavailable
from server.model.outcomes import Report
from server.model.reporting import Reference, reference_of
from server.providers.provider import Provider
from server.providers.roster import Roster
from server.store.store import Store
from server.vault.vault import Unopenable

AT_ONCE_MAX = 64
REQUEST_SECONDS = 10.0
RETRY_AFTER_SECONDS = 1
ID_CHARS_MAX = 200
LOOK_AGAIN_SECONDS = 1.0
"""So often at most the configuration is read anew for a URL that is not known: another process may have made it."""
NOBODYS = "0" * 32

_log = structlog.get_logger("hooks")


class Receipts:
    """Takes what is posted to the accounts' URLs. `public_url` is what those begin with."""

    def __init__(self, store: Store, roster: Roster, public_url: str) -> None:
        self._store = store
        self._roster = roster
        self._public_url = public_url.rstrip("/")
        self._tokens: dict[str, str] = {}
        self._under_way = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._looking = asyncio.Lock()
        self._looked_at = -LOOK_AGAIN_SECONDS

    def follow(self, snapshot: Snapshot) -> None:
        """Know the accounts of this configuration, and no others."""
        tokens: dict[str, str] = {}
        for account in (account for accounts in snapshot.accounts.values() for account in accounts):
            token = self._tokens.get(account.uid) or self._token(account.tenant_id, account.uid)
            if token:
                tokens[account.uid] = token
        self._tokens = tokens

    async def take(self, request: web.Request) -> web.StreamResponse:
        """Answers one call; 204 once everything that it reports is durable."""
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                provider = await self._provider(request.match_info["account_uid"], request.match_info["token"])
                if provider is None:
                    return web.Response(status=HTTPStatus.NOT_FOUND)
                return await self._admit(request, provider)
        except (TimeoutError, Unavailable):
            return _later()

    async def finish(self, seconds: float) -> None:
        """Wait for the calls under way, so long at most."""
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            _log.warning("receipts are given up", calls=self._under_way)

    async def _provider(self, uid: str, token: str) -> Provider | None:
        """Whose URL this is. An account that is not there and a wrong token are one thing, and take as long."""
        if not self._is_known(uid, token):
            await self._look_again()
        return self._roster.provider(uid) if self._is_known(uid, token) else None

    def _is_known(self, uid: str, token: str) -> bool:
        expected = self._tokens.get(uid, NOBODYS)
        return hmac.compare_digest(token.encode(errors="replace"), expected.encode()) and uid in self._tokens

    async def _look_again(self) -> None:
        async with self._looking:  # strangers with made-up URLs wait for each other
            if time.monotonic() >= self._looked_at + LOOK_AGAIN_SECONDS:
                await self._store.configuration.refresh_if_changed()
                self._looked_at = time.monotonic()

    def _token(self, tenant_id: str, uid: str) -> str:
        try:
            return self._store.keys.known(tenant_id).receipt_token(uid)
        except Unopenable:
            return ""

    async def _admit(self, request: web.Request, provider: Provider) -> web.StreamResponse:
        """One of a few at a time; the others come again."""
        if self._under_way >= AT_ONCE_MAX:
            return _later()
        self._under_way += 1
        self._idle.clear()
        try:
            return await self._answer(request, provider)
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._idle.set()

    async def _answer(self, request: web.Request, provider: Provider) -> web.StreamResponse:
        uid, body = request.match_info["account_uid"], await request.read()
        headers: Mapping[str, str] = {name.lower(): value for name, value in request.headers.items()}
        # As we gave it out: neither the Host header nor what a proxy made of the scheme counts.
        reports = provider.reports(self._public_url + request.raw_path, headers, body)
        if reports is None:
            _log.warning("a receipt was not proved to be one", account=uid)
            return web.Response(status=HTTPStatus.FORBIDDEN)
        await self._apply(uid, [report for report in reports if _is_usable(report)], reference_of(request.query))
        return web.Response(status=HTTPStatus.NO_CONTENT)

    async def _apply(self, uid: str, reports: Sequence[Report], reference: Reference) -> None:
        """Apply all of them. A reference is that of one message: it says nothing of a whole list of them."""
        if len({report.provider_message_id for report in reports}) > 1:
            reference = Reference()
        receive, of = self._store.receive, (reference.message_id, reference.number)
        await asyncio.gather(*(receive(uid, report, *of) for report in reports))


def _is_usable(report: Report) -> bool:
    return len(report.provider_message_id) <= ID_CHARS_MAX and report.provider_message_id.isprintable()


def _later() -> web.Response:
    return web.Response(status=HTTPStatus.SERVICE_UNAVAILABLE, headers={"Retry-After": str(RETRY_AFTER_SECONDS)})
