"""Templates as rows: one that is found by its key, and all its revisions, which are never changed.

A deleted template keeps its row and its revisions: made again it goes on from the last of them, and messages that were
accepted with one say what they were to say.
"""

import json
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from typing import Any

from sqlalchemy import Connection, RowMapping, Select, and_, false, func, insert, select, update
from sqlmodel import col

from server.model.clock import Micros
from server.model.configuration_tables import RoutingRule, TemplateRevision, TemplateRow
from server.model.enums import Channel, MessageClass
from server.model.errors import AlreadyExists, Precondition, Reason, invalid_field, not_found
from server.model.tables import DueRow, MessageRow
from server.model.templates import (
    KeptTemplate,
    ProviderTemplate,
    Resource,
    Template,
    TemplateChange,
    TemplateContent,
    Variant,
)
from server.store.accounts import etag_mismatch
from server.store.dialect import Dialect, columns
from server.store.rows import dump

TEMPLATES_MAX = 1_000
"""Of a tenant."""
COUNTED_MAX = 100
"""So many messages that say a template are counted at most."""
PINNED_MAX = 256
"""So many earlier revisions are kept at hand."""

_TEMPLATE = columns("template")
_DEFAULTS = TemplateContent()
_SET = ("name", "caption", "text", "is_active", "priority")
_REPLACED = ("variants", "provider_templates", "resources", "message_class", "intents")


def find_template(
    connection: Connection, tenant_id: str, key: str, revision: int = 0, *, lock: bool = False
) -> KeptTemplate | None:
    """The tenant's template of this key as it is, or as it was at a revision; None also where it was deleted."""
    row = _find_row(connection, tenant_id, key, lock=lock)
    if row is None or row.is_deleted:
        return None
    return _kept(connection, row, revision or row.revision)


def list_templates(connection: Connection, tenant_id: str) -> list[KeptTemplate]:
    """All templates of a tenant as they are, by key."""
    query = _latest().where(col(TemplateRow.tenant_id) == tenant_id).order_by(col(TemplateRow.key))
    return [_kept_of(row) for row in connection.execute(query).mappings()]


def read_templates(connection: Connection) -> Iterator[tuple[str, Template]]:
    """Every tenant's templates as they are, each with its tenant."""
    for row in connection.execute(_latest()).mappings():
        yield row["tenant_id"], _kept_of(row).template


def read_revision(connection: Connection, tenant_id: str, key: str, revision: int) -> Template | None:
    """A template as it was at a revision, though it may be deleted now."""
    row = _find_row(connection, tenant_id, key)
    kept = _kept(connection, row, revision) if row is not None else None
    return kept.template if kept is not None else None


def create(
    connection: Connection, dialect: Dialect, tenant_id: str, key: str, content: TemplateContent, now: Micros
) -> tuple[KeptTemplate, bool]:
    """Make a template; as it is kept, and whether it is new. One that was deleted goes on from its last revision.

    The same again is answered as it is kept. Raises AlreadyExists(RESOURCE_EXISTS) for another content.
    """
    fresh = TemplateRow(tenant_id=tenant_id, key=key, revision=0, is_deleted=True)
    values = fresh.model_dump()
    dialect.insert_new(connection, _TEMPLATE, [tuple(values[name] for name in _TEMPLATE.names)], "key")
    row = TemplateRow(**connection.execute(_this(tenant_id, key).with_for_update()).mappings().one())
    if row.is_deleted:
        _require_room(connection, tenant_id)
        return _write(connection, row, content, now, created_at=now), True
    kept = _kept(connection, row, row.revision)
    if kept is None or kept.content != content:
        told = {"resource": "template", "name": key}
        raise AlreadyExists(Reason.RESOURCE_EXISTS, f"There is another template {key!r}.", told)
    return kept, False


def _require_room(connection: Connection, tenant_id: str) -> None:
    """Every replica holds all templates in memory."""
    there = select(func.count()).where(col(TemplateRow.tenant_id) == tenant_id, col(TemplateRow.is_deleted).is_(False))
    if connection.execute(there).scalar_one() >= TEMPLATES_MAX:
        raise invalid_field("template", f"A tenant has no more than {TEMPLATES_MAX:,} templates.")


def change(
    connection: Connection,
    tenant_id: str,
    key: str,
    wanted: TemplateChange,
    etag: str,
    check: Callable[[TemplateContent], None],
    now: Micros,
) -> tuple[KeptTemplate, bool]:
    """Merge a change into a template; as it is kept, and whether anything changed, which makes a new revision.

    Raises NotFound, Precondition(ETAG_MISMATCH), and whatever `check` raises of the merged content.
    """
    row = _find_row(connection, tenant_id, key, lock=True)
    kept = _kept(connection, row, row.revision) if row is not None and not row.is_deleted else None
    if row is None or kept is None:
        raise not_found("template", key)
    if etag and etag != str(row.revision):
        raise etag_mismatch("template", key)
    content = _merged(kept.content, wanted)
    check(content)
    if content == kept.content:
        return kept, False
    return _write(connection, row, content, now, created_at=row.created_at), True


def remove(connection: Connection, tenant_id: str, key: str, etag: str, now: Micros) -> KeptTemplate:
    """Delete a template; as it was. Raises NotFound; Precondition: ETAG_MISMATCH, RESOURCE_IN_USE with who uses it."""
    kept = find_template(connection, tenant_id, key, lock=True)
    if kept is None:
        raise not_found("template", key)
    if etag and etag != str(kept.revision):
        raise etag_mismatch("template", key)
    rules = _rules_naming(connection, tenant_id, key)
    if rules:
        raise _in_use(f"Rules name the template {key!r}. Change them first.", "rules", ",".join(rules))
    messages = _messages_with(connection, tenant_id, key)
    if messages:
        raise _in_use(f"Messages with the template {key!r} are not done yet.", "messages", str(messages))
    gone = update(TemplateRow).where(col(TemplateRow.tenant_id) == tenant_id, col(TemplateRow.key) == key)
    connection.execute(gone.values(is_deleted=True, updated_at=now))
    return kept


class Pinned:
    """The earlier revisions that were read last, at most 256: what messages that wait still say."""

    def __init__(self) -> None:
        self._found: OrderedDict[tuple[str, str, int], Template] = OrderedDict()

    def get(self, tenant_id: str, key: str, revision: int) -> Template | None:
        """The revision, if it is at hand."""
        found = self._found.get((tenant_id, key, revision))
        if found is not None:
            self._found.move_to_end((tenant_id, key, revision))
        return found

    def keep(self, tenant_id: str, template: Template) -> None:
        """Have it at hand; the one that was longest not asked for makes room."""
        self._found[tenant_id, template.key, template.revision] = template
        if len(self._found) > PINNED_MAX:
            self._found.popitem(last=False)

    def clear(self) -> None:
        """Forget all: the database's history is another."""
        self._found.clear()


def _latest() -> Select[TemplateRow, str]:
    """Templates that are not deleted, each with its latest content."""
    of_row = and_(
        col(TemplateRevision.tenant_id) == col(TemplateRow.tenant_id),
        col(TemplateRevision.key) == col(TemplateRow.key),
        col(TemplateRevision.revision) == col(TemplateRow.revision),
    )
    joined = select(TemplateRow, col(TemplateRevision.content)).join(TemplateRevision, of_row)
    return joined.where(col(TemplateRow.is_deleted) == false())


def _find_row(connection: Connection, tenant_id: str, key: str, *, lock: bool = False) -> TemplateRow | None:
    query = _this(tenant_id, key)
    row = connection.execute(query.with_for_update() if lock else query).mappings().one_or_none()
    return TemplateRow(**row) if row is not None else None


def _this(tenant_id: str, key: str) -> Select[TemplateRow]:
    return select(TemplateRow).where(col(TemplateRow.tenant_id) == tenant_id, col(TemplateRow.key) == key)


def _kept(connection: Connection, row: TemplateRow, revision: int) -> KeptTemplate | None:
    query = select(TemplateRevision).where(
        col(TemplateRevision.tenant_id) == row.tenant_id,
        col(TemplateRevision.key) == row.key,
        col(TemplateRevision.revision) == revision,
    )
    found = connection.execute(query).mappings().one_or_none()
    if found is None:
        return None
    return KeptTemplate(row.key, revision, _content(found["content"]), row.created_at, found["created_at"])


def _kept_of(row: RowMapping) -> KeptTemplate:
    return KeptTemplate(row["key"], row["revision"], _content(row["content"]), row["created_at"], row["updated_at"])


def _write(
    connection: Connection, row: TemplateRow, content: TemplateContent, now: Micros, *, created_at: Micros
) -> KeptTemplate:
    """Keep the content as the template's next revision."""
    revision = row.revision + 1
    this = (col(TemplateRow.tenant_id) == row.tenant_id, col(TemplateRow.key) == row.key)
    moved = {"is_deleted": False, "revision": revision, "created_at": created_at, "updated_at": now}
    connection.execute(update(TemplateRow).where(*this).values(**moved))
    text = dump({**asdict(content), "message_class": content.message_class or ""})
    kept = TemplateRevision(tenant_id=row.tenant_id, key=row.key, revision=revision, content=text, created_at=now)
    connection.execute(insert(TemplateRevision).values(**kept.model_dump()))
    return KeptTemplate(row.key, revision, content, created_at, now)


def _content(text: str) -> TemplateContent:
    """What was kept; what a newer release keeps beside it is passed over."""
    said: dict[str, Any] = json.loads(text)
    message_class = said["message_class"]
    return TemplateContent(
        name=said["name"],
        caption=said["caption"],
        text=said["text"],
        is_active=said["is_active"],
        priority=said["priority"],
        variants=tuple(_variant(each) for each in said["variants"]),
        provider_templates=tuple(_provider_template(each) for each in said["provider_templates"]),
        resources=tuple(Resource(each["key"], each["locale"], each["value"]) for each in said["resources"]),
        message_class=MessageClass(message_class) if message_class else None,
        intents=tuple(said["intents"]),
    )


def _variant(said: Mapping[str, Any]) -> Variant:
    channel = Channel(said["channel"]) if said["channel"] else None
    return Variant(said["locale"], channel, said["text"], said["subject"], said["html"])


def _provider_template(said: Mapping[str, Any]) -> ProviderTemplate:
    return ProviderTemplate(said["provider"], said["template_name"], said["params"], said["locale"])


def _merged(content: TemplateContent, wanted: TemplateChange) -> TemplateContent:
    """What is cleared goes first, so that a change may clear a field and set it anew."""
    cleared = {name: getattr(_DEFAULTS, name) for name in wanted.clear}
    given = {name: value for name in (*_SET, *_REPLACED) if (value := getattr(wanted, name)) is not None}
    values: dict[str, Any] = {**cleared, **given}
    return replace(content, **values)


def _rules_naming(connection: Connection, tenant_id: str, key: str) -> list[str]:
    query = select(col(RoutingRule.name), col(RoutingRule.steps)).where(col(RoutingRule.tenant_id) == tenant_id)
    rules = connection.execute(query.order_by(col(RoutingRule.name)))
    return [name for name, steps in rules if any(step.get("template_key") == key for step in json.loads(steps))]


def _messages_with(connection: Connection, tenant_id: str, key: str) -> int:
    """How many messages that are not done were accepted with the template, as far as COUNTED_MAX.

    Each of them has something due. All writes wait while it counts.
    """
    query = select(col(DueRow.message_id)).join(MessageRow, col(MessageRow.id) == col(DueRow.message_id))
    wanted = (col(DueRow.tenant_id) == tenant_id, col(MessageRow.template_key) == key)
    found = query.where(*wanted).limit(COUNTED_MAX).subquery()
    return connection.execute(select(func.count()).select_from(found)).scalar_one()


def _in_use(message: str, by: str, whom: str) -> Precondition:
    return Precondition(Reason.RESOURCE_IN_USE, message, {"resource": "template", by: whom})
