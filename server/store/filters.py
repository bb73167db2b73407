"""What a caller's filter means in SQL. `Filter.matches` says the same of an event that is already in memory."""

from collections.abc import Collection
from enum import StrEnum

from sqlalchemy import ColumnElement, Table, select

from server.model.tables import METADATA
from server.model.watching import Filter

_TAG = METADATA.tables["message_tag"]


def wanted_rows(table: Table, tenant_id: str, wanted: Filter) -> list[ColumnElement[bool]]:
    """The conditions on rows of `message` or of `event`: always the tenant, then what the filter asks for."""
    c = table.c
    message_id = c.message_id if "message_id" in c else c.id
    conditions: list[ColumnElement[bool]] = [c.tenant_id == tenant_id]
    for column, values in ((c.state, wanted.states), (c.intent, wanted.intents), (message_id, wanted.tracking_ids)):
        if values:
            conditions.append(column.in_(_texts(values)))
    for column, value in (
        (c.reference, wanted.reference),
        (c.client_id, wanted.client_id),
        (c.phone_index, wanted.phone_index),
        (c.channel, wanted.channel),
        (c.provider, wanted.provider),
        (c.message_class, wanted.message_class),
    ):
        if value:
            conditions.append(column == str(value))
    if wanted.tags:
        tagged = select(_TAG.c.message_id).where(_TAG.c.tenant_id == tenant_id, _TAG.c.tag.in_(_texts(wanted.tags)))
        conditions.append(message_id.in_(tagged))
    if wanted.created_min:
        conditions.append(c.created_at >= wanted.created_min)
    if wanted.created_max:
        conditions.append(c.created_at < wanted.created_max)
    return conditions


def _texts(values: Collection[str | StrEnum]) -> list[str]:
    return sorted(str(value) for value in values)
