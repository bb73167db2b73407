"""The store as the other rooms see it."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence

import structlog

from server.model.accounts import ProviderType
from server.model.clock import Micros
from server.model.conclude import Decision
from server.model.decide import Refused
from server.model.enums import DueKind, MessageClass
from server.model.errors import Unavailable
from server.model.facts import Fact
from server.model.messages import Hold, NewMessage
from server.model.otp import Check, Checked
from server.model.outcomes import Report
from server.model.reporting import Reference
from server.model.work import NOTHING_BESIDE, Acceptance, Beside, Claim
from server.store.access import Access
from server.store.apply import Apply
from server.store.bootstrap import bootstrap
from server.store.claim import Claims
from server.store.configuration import Configuration
from server.store.database import Database
from server.store.dialect import DatabaseInUse
from server.store.flush import Flush
from server.store.keys import TenantKeys
from server.store.liveness import Liveness
from server.store.migrations import upgrade
from server.store.reading import Reading
from server.store.receipts import Receipts
from server.store.retention import Retention
from server.store.timing import Timing
from server.store.verify import Verify
from server.store.watch import Watching
from server.vault.vault import Vault

OPEN_AGAIN_SECONDS = 0.2

_log = structlog.get_logger("store")


class Store:
    """One database, open. `reading`, `watching`, `configuration` and `access` are its rooms for callers.

    Everything may raise Unavailable: the database is away, or its disk is full. The store comes back by itself.
    """

    def __init__(
        self, database: Database, url: str, boot_id: str, vault: Vault, provider_types: Mapping[str, ProviderType]
    ) -> None:
        self.boot_id = boot_id
        self.keys = TenantKeys(database, vault)
        self.reading = Reading(database, self.keys)
        self.watching = Watching(database, url)
        self.configuration = Configuration(database, self.keys, provider_types)
        self.access = Access(database, self.keys, self.configuration)
        self._database = database
        self._apply = Apply(database, self.keys)
        self._flush = Flush(database, self.keys, self._apply, boot_id)
        self._verify = Verify(database, self.keys, self._apply)
        self._receipts = Receipts(database, self._apply)
        self._claims = Claims(database, self.keys, boot_id)
        self._liveness = Liveness(database, boot_id, self._apply.apply)
        self._timing = Timing(database, self._apply.apply)
        self._retention = Retention(database)

    @property
    def engine_name(self) -> str:
        """`sqlite` or `postgres`."""
        return "postgres" if self._database.postgres else "sqlite"

    async def start(self) -> None:
        """Make the database ready for this release and this process; called by `open_store`."""
        await upgrade(self._database)
        await self._database.read(self.keys.refuse_foreign)
        await self._database.open_log()
        await self._liveness.beat()
        if not self._database.postgres:
            await self._liveness.sweep()
        await self.configuration.refresh()
        await self.watching.start()

    async def close(self) -> None:
        """Answer who waits, end the watchers, say good-bye to the other workers, and close."""
        await self._flush.close()
        await self._verify.close()
        await self._receipts.close()
        await self._apply.close()
        await self.watching.close()
        await self.access.close()
        try:
            await self._liveness.leave()
        except Unavailable:
            _log.info("closed without the database")
        await self._database.close()

    async def bootstrap(self, show: Callable[[str], None]) -> bool:
        """On an empty database make the first tenant, client and operator key; whether it was empty.

        `show` gets the key's secret before it is committed, on a thread of the store's.
        """
        return await self.configuration.change(bootstrap(self.access, show))

    async def accept(self, new: NewMessage) -> Acceptance:
        """Make the message durable, once for its key; await it under `asyncio.shield`.

        Its content is sealed, its indexes are filled in. Raises AlreadyExists (REQUEST_ID_REUSED, metadata
        `tracking_id`) where the key belongs to another request, Exhausted (OTP_COOLDOWN, QUOTA_EXHAUSTED) where a
        limit refuses a code, Unavailable: repeat with the same key.
        """
        return await self._flush.accept(new)

    async def verify(self, check: Check) -> Checked:
        """What a check of a code came to, durable and once for its key; await it under `asyncio.shield`.

        Raises AlreadyExists (REQUEST_ID_REUSED) where the key belongs to another check, Exhausted (QUOTA_EXHAUSTED),
        Unavailable: repeat with the same key.
        """
        return await self._verify.verify(check)

    def offer(self, message_class: MessageClass, free: int) -> None:
        """Say for how many freshly accepted messages of a class this process has room; replaces the last offer."""
        self._flush.offers.offer(message_class, free)

    @property
    def on_assigned(self) -> Callable[[Claim], None] | None:
        """Called on the event loop for each message that acceptance gave to this process, once it is durable."""
        return self._flush.on_assigned

    @on_assigned.setter
    def on_assigned(self, call: Callable[[Claim], None] | None) -> None:
        self._flush.on_assigned = call

    async def claim(
        self, message_class: MessageClass, kinds: frozenset[DueKind], limit: int, *, alone: bool = False
    ) -> list[Claim]:
        """Hold up to `limit` messages that are due, in equal shares for the tenants that have any.

        `alone`: at most one, of those whose claims died twice before a hand-off; they are never among the others.
        A claim's content is None only where it has been erased; what does not open is not claimed.
        """
        return await self._claims.claim(message_class, kinds, limit, alone=alone)

    async def next_due(self, message_class: MessageClass, kinds: frozenset[DueKind]) -> Micros | None:
        """How long until `claim` may find something, without what is claimed alone: 0 for now, None for nothing."""
        return await self._claims.next_due(message_class, kinds)

    async def apply(self, message_id: str, fact: Fact, beside: Beside = NOTHING_BESIDE) -> Decision | Refused:
        """What the fact made of the message, durable; the facts of one message are applied in the order of the calls.

        Raises Unavailable: then it may or may not have been applied.
        """
        return await self._apply.apply(message_id, fact, beside)

    async def receive(
        self, account_uid: str, report: Report, message_id: str = "", attempt: int = 0
    ) -> Decision | Refused | None:
        """What a provider's report made of its message, durable; None where no attempt is known to be meant: it waits.

        `message_id` and `attempt` are what the URL names that was given to the provider. Raises Unavailable: the report
        may or may not have been applied, and bears repeating.
        """
        return await self._receipts.receive(account_uid, report, Reference(message_id, attempt))

    async def sweep_receipts(self) -> int:
        """Join a few of the receipts that wait with attempts that are known by now; how many moved a message."""
        return await self._receipts.sweep()

    async def release(self, claims: Sequence[Claim]) -> None:
        """Give back what was claimed and not begun."""
        await self._claims.release(claims)

    async def held(self) -> list[tuple[str, Hold]]:
        """Everything that this process holds, whether it knows of it or the answer to its claim was lost."""
        return await self._claims.held()

    async def beat(self) -> None:
        """Tell the other workers that this one lives: every second."""
        await self._liveness.beat()

    @property
    def beating(self) -> float:
        """When the last beat that is committed was begun, by `time.monotonic()`."""
        return self._liveness.beating

    async def sweep(self) -> int:
        """Free what dead workers held, every second; how many messages that were."""
        return await self._liveness.sweep()

    async def keep_time(self) -> int:
        """Notice, every second, where the database's clock was set back; how many messages were timed anew for it."""
        return await self._timing.keep()

    async def prune(self, now: Micros | None = None) -> int:
        """Forget a little of what is past its retention; how many rows. More than 0: there may be more."""
        return await self._retention.prune(now)


async def open_store(
    url: str,
    *,
    boot_id: str,
    vault: Vault,
    provider_types: Mapping[str, ProviderType],
    wait_seconds: float = 0.0,
) -> Store:
    """Open the database, bring it to this release's schema, and free what this process's former self held.

    `wait_seconds`: how long to try while the database is away or another process holds it. Raises DatabaseInUse,
    UnsafeDatabase (also where the vault opens none of the tenants' keys), Unavailable.
    """
    deadline = time.monotonic() + wait_seconds
    while True:
        try:
            return await _open(url, boot_id, vault, provider_types)
        except (DatabaseInUse, Unavailable):
            if time.monotonic() >= deadline:
                raise
        await asyncio.sleep(OPEN_AGAIN_SECONDS)


async def _open(url: str, boot_id: str, vault: Vault, provider_types: Mapping[str, ProviderType]) -> Store:
    database = Database.open(url)
    try:
        await database.write(database.dialect.refuse_unsafe)
        store = Store(database, url, boot_id, vault, provider_types)
        await store.start()
    except BaseException:
        await database.close()
        raise
    return store
