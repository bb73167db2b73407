"""Configuration: an immutable snapshot that this process goes by, and every change of accounts, rules and templates.

A change raises `config_version` in its transaction and is in this process's snapshot before it is answered. Other
processes look at the version each second.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TypeVar

import structlog
from sqlalchemy import Connection, text

from server.model.accounts import Account, ProviderType
from server.model.clock import Micros
from server.model.configuration import Credential, ProviderChange, Snapshot
from server.model.configuration_tables import ProviderAccount, RoutingRule
from server.model.errors import not_found
from server.model.templates import NO_TEMPLATES, KeptTemplate, Template, TemplateChange, TemplateContent
from server.store import templates
from server.store.accounts import Configuring, configure, find_account, list_accounts, remove
from server.store.database import Database
from server.store.keys import TenantKeys
from server.store.rules import RuleChange, read_rules
from server.store.snapshot import read_credential, read_snapshot, read_version

ABSENT_SECONDS = 1.0
"""For so long a key that is not in force is not looked for again."""
ABSENT_MAX = 10_000

T = TypeVar("T")

_log = structlog.get_logger("store")


class Configuration:
    """The snapshot and its changes.

    `on_snapshot` is called on the event loop with every new snapshot; what raises is called again at the next look.
    """

    def __init__(self, database: Database, keys: TenantKeys, provider_types: Mapping[str, ProviderType]) -> None:
        self.snapshot = Snapshot()
        self.on_snapshot: list[Callable[[Snapshot], None]] = []
        self._database = database
        self._keys = keys
        self._types = provider_types
        self._looked_up: dict[str, tuple[float, Credential | None]] = {}
        self._pinned = templates.Pinned()
        self._looking = asyncio.Lock()
        self._reading = asyncio.Lock()
        self._log_epoch = 0
        self._untold: list[Callable[[Snapshot], None]] = []

    async def refresh(self) -> None:
        """Read the whole configuration anew."""
        async with self._reading:
            await self._read()

    async def refresh_if_changed(self) -> None:
        """Read the configuration anew where its version is not the snapshot's, or the database's history another."""
        if not await self._is_other():
            self._tell()
            return
        async with self._reading:
            if await self._is_other():
                await self._read()

    async def _is_other(self) -> bool:
        # After a restore the version may be any, and may be reached a second time with other contents.
        version = await self._database.read(read_version)
        return version != self.snapshot.version or self._database.log_epoch != self._log_epoch

    async def _read(self) -> None:
        """One reading at a time: the one that ends last has begun last, and what it found counts."""
        epoch = self._database.log_epoch

        def read(connection: Connection) -> Snapshot:
            return read_snapshot(connection, self._keys, self._types, self._database.now(connection))

        self.snapshot = await self._database.read(read)
        if epoch != self._log_epoch:
            self._pinned.clear()
        self._log_epoch = epoch
        self._untold = list(self.on_snapshot)
        self._tell()

    def _tell(self) -> None:
        untold, self._untold = self._untold, []
        for call in untold:
            try:
                call(self.snapshot)
            except Exception:  # noqa: BLE001 - one that fails keeps the snapshot from nobody else
                _log.exception("a new configuration is not in force everywhere")
                self._untold.append(call)

    async def change(self, job: Callable[[Connection, Micros], T], *, validate_only: bool = False) -> T:
        """Run a configuring job in one transaction, which calls `raise_version` if it changes anything; then refresh.

        `validate_only`: nothing is kept, but all that would be refused is.
        """
        rehearsed: list[T] = []

        def run(connection: Connection) -> T:
            result = job(connection, self._database.now(connection))
            if validate_only:
                rehearsed.append(result)
                raise _RehearsedError
            return result

        try:
            result = await self._database.write(run)
        except _RehearsedError:
            return rehearsed[-1]
        await self.refresh_if_changed()
        return result

    async def credential(self, key_id: str) -> Credential | None:
        """The key of this id: from the snapshot, which holds those in force, else by a look into the database.

        None where there is none. What was found so, or not found, holds for a second.
        """
        if self._is_known(key_id):
            return self._known(key_id)
        async with self._looking:  # strangers with made-up keys wait for each other, and not all readers for them
            if self._is_known(key_id):
                return self._known(key_id)
            found = await self._database.read(lambda c: read_credential(c, key_id))
            if found is not None:
                await self.refresh_if_changed()
            self._note_looked_up(key_id, found)
        return self.snapshot.credentials.get(key_id, found)

    async def provider(self, tenant_id: str, name: str) -> ProviderAccount:
        """The tenant's account of this name. Raises NotFound."""
        row = await self._database.read(lambda c: find_account(c, tenant_id, name))
        if row is None:
            raise not_found("provider", name)
        return row

    async def list_providers(self, tenant_id: str) -> list[ProviderAccount]:
        """All accounts of the tenant, by name."""
        return await self._database.read(lambda c: list_accounts(c, tenant_id))

    async def configure_provider(
        self,
        tenant_id: str,
        name: str,
        change: ProviderChange,
        *,
        client_id: str,
        etag: str = "",
        check: Callable[[Account], None],
        validate_only: bool = False,
    ) -> tuple[ProviderAccount, bool]:
        """Merge a change into the tenant's account, or make one of it; the row, and whether it was created.

        `check` gets the merged account, its secrets opened, inside the transaction, and raises Invalid. Raises also
        Precondition(ETAG_MISMATCH), AlreadyExists(RESOURCE_EXISTS) where the name has another type.
        """
        vault = await self._keys.ready(tenant_id)
        wanted = Configuring(tenant_id, name, change, client_id, etag)

        def job(connection: Connection, now: Micros) -> tuple[ProviderAccount, bool]:
            row, created, changed = configure(
                connection, self._database.dialect, vault, self._types, wanted, check, now
            )
            if changed:
                raise_version(connection)
            return row, created

        return await self.change(job, validate_only=validate_only)

    async def delete_provider(self, tenant_id: str, name: str, etag: str = "", force: bool = False) -> ProviderAccount:  # noqa: FBT001, FBT002 - the contract's fields in their order
        """Delete the tenant's account; as it was. Raises NotFound, Precondition (ETAG_MISMATCH, RESOURCE_IN_USE)."""

        def job(connection: Connection, _: Micros) -> ProviderAccount:
            row = remove(connection, tenant_id, name, etag, force=force)
            raise_version(connection)
            return row

        return await self.change(job)

    async def rules(
        self, tenant_id: str, names: Collection[str] = (), intent: str = ""
    ) -> tuple[list[RoutingRule], str]:
        """The tenant's rules in the order in which they are tried, of these names, serving an intent; the revision."""
        return await self._database.read(lambda c: read_rules(c, tenant_id, names, intent))

    async def set_rules(
        self,
        tenant_id: str,
        rows: Sequence[RoutingRule],
        *,
        replace_all: bool = False,
        revision: str = "",
        validate_only: bool = False,
    ) -> tuple[list[RoutingRule], str]:
        """Make these rules be, and no others with `replace_all`; as they are kept, and the revision.

        `revision`: the expected one. Raises Precondition(ETAG_MISMATCH), Invalid for more than 200 rules.
        """
        return await self._change_rules(
            tenant_id, revision, lambda c: c.set(rows, replace_all=replace_all), validate_only=validate_only
        )

    async def delete_rules(
        self, tenant_id: str, names: Collection[str], revision: str = ""
    ) -> tuple[list[RoutingRule], str]:
        """Delete these rules, all or none; as they were, and the revision. Raises NotFound, Precondition."""
        return await self._change_rules(tenant_id, revision, lambda c: c.delete(names))

    async def _change_rules(
        self, tenant_id: str, revision: str, apply: Callable[[RuleChange], T], *, validate_only: bool = False
    ) -> tuple[T, str]:
        def job(connection: Connection, now: Micros) -> tuple[T, str]:
            change = RuleChange(connection, self._database.dialect, tenant_id, revision, now)
            rows = apply(change)
            if change.changed:
                raise_version(connection)
            return rows, str(change.revision)

        return await self.change(job, validate_only=validate_only)

    async def template(self, tenant_id: str, key: str, revision: int = 0) -> KeptTemplate:
        """The tenant's template as it is, or as it was at a revision. Raises NotFound."""
        kept = await self._database.read(lambda c: templates.find_template(c, tenant_id, key, revision))
        if kept is None:
            raise not_found("template", key)
        return kept

    async def list_templates(self, tenant_id: str) -> list[KeptTemplate]:
        """All templates of the tenant, by key."""
        return await self._database.read(lambda c: templates.list_templates(c, tenant_id))

    async def pinned(self, tenant_id: str, key: str, revision: int) -> Template | None:
        """What a message says that was accepted with this revision, whatever the template is now; None: never was."""
        latest = self.snapshot.templates.get(tenant_id, NO_TEMPLATES).get(key)
        if latest is not None and latest.revision == revision:
            return latest
        known = self._pinned.get(tenant_id, key, revision)
        if known is not None:
            return known
        found = await self._database.read(lambda c: templates.read_revision(c, tenant_id, key, revision))
        if found is not None:
            self._pinned.keep(tenant_id, found)
        return found

    async def create_template(self, tenant_id: str, key: str, content: TemplateContent) -> KeptTemplate:
        """Make a template; the same again is answered as it is kept. Raises AlreadyExists(RESOURCE_EXISTS)."""
        return await self._change_template(
            lambda c, now: templates.create(c, self._database.dialect, tenant_id, key, content, now)
        )

    async def update_template(
        self, tenant_id: str, key: str, change: TemplateChange, *, etag: str, check: Callable[[TemplateContent], None]
    ) -> KeptTemplate:
        """Merge a change into the tenant's template; `check` gets the merged content, and raises Invalid.

        Raises also NotFound, Precondition(ETAG_MISMATCH).
        """
        return await self._change_template(lambda c, now: templates.change(c, tenant_id, key, change, etag, check, now))

    async def delete_template(self, tenant_id: str, key: str, etag: str = "") -> KeptTemplate:
        """Delete the template; as it was. Raises NotFound, Precondition (ETAG_MISMATCH, RESOURCE_IN_USE)."""
        return await self._change_template(lambda c, now: (templates.remove(c, tenant_id, key, etag, now), True))

    async def _change_template(self, apply: Callable[[Connection, Micros], tuple[KeptTemplate, bool]]) -> KeptTemplate:
        def job(connection: Connection, now: Micros) -> KeptTemplate:
            kept, changed = apply(connection, now)
            if changed:
                raise_version(connection)
            return kept

        return await self.change(job)

    def _is_known(self, key_id: str) -> bool:
        return key_id in self.snapshot.credentials or time.monotonic() < self._looked_up.get(key_id, (0.0, None))[0]

    def _known(self, key_id: str) -> Credential | None:
        found = self.snapshot.credentials.get(key_id)
        return found or self._looked_up.get(key_id, (0.0, None))[1]

    def _note_looked_up(self, key_id: str, found: Credential | None) -> None:
        now = time.monotonic()
        if key_id in self.snapshot.credentials:
            return  # once it is revoked, no older look may speak for it
        if len(self._looked_up) >= ABSENT_MAX:
            self._looked_up = {known: look for known, look in self._looked_up.items() if look[0] > now}
        if len(self._looked_up) < ABSENT_MAX:
            self._looked_up[key_id] = (now + ABSENT_SECONDS, found)


def raise_version(connection: Connection) -> None:
    """Tell every process that the configuration has changed, once this transaction is committed."""
    connection.execute(text("UPDATE config_version SET version = version + 1"))


class _RehearsedError(Exception):
    """Ends a transaction of which nothing is to be kept."""
