"""Routing rules as rows: a tenant's set has one revision, which every change raises."""

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update
from sqlmodel import col

from server.model.clock import Micros
from server.model.configuration_tables import RoutingRule, RuleSet
from server.model.enums import Channel, MessageClass, State, Strategy
from server.model.errors import Precondition, Reason, invalid_field, not_found
from server.model.routing import Match, Rule, Step
from server.store.dialect import Dialect, columns

RULES_MAX = 200

_RULE_SET = columns("rule_set")


def read_rules(
    connection: Connection, tenant_id: str, names: Collection[str] = (), intent: str = ""
) -> tuple[list[RoutingRule], str]:
    """The tenant's rules in the order in which they are tried, and the revision; of these names, serving an intent."""
    query = select(RoutingRule).where(col(RoutingRule.tenant_id) == tenant_id)
    if names:
        query = query.where(col(RoutingRule.name).in_(sorted(names)))
    ordered = query.order_by(col(RoutingRule.priority), col(RoutingRule.name))
    rows = [RoutingRule(**row) for row in connection.execute(ordered).mappings()]
    serving = [row for row in rows if not intent or row.intents == "[]" or intent in json.loads(row.intents)]
    of_tenant = col(RuleSet.tenant_id) == tenant_id
    revision = connection.execute(select(col(RuleSet.revision)).where(of_tenant)).scalar_one_or_none()
    return serving, str(revision or 0)


def rule_of(row: RoutingRule) -> Rule:
    """The rule in a row. What a row does not say has its default: older releases said less."""
    return Rule(
        name=row.name,
        intents=tuple(json.loads(row.intents)),
        steps=tuple(_step(step) for step in json.loads(row.steps)),
        is_active=row.is_active,
        priority=row.priority,
        match=_match(json.loads(row.match)),
    )


def _match(match: Mapping[str, Any]) -> Match:
    return Match(
        country_prefixes=tuple(match.get("country_prefixes", ())),
        operators=tuple(match.get("operators", ())),
        message_classes=tuple(MessageClass(name) for name in match.get("message_classes", ())),
        tags=tuple(match.get("tags", ())),
    )


def _step(step: Mapping[str, Any]) -> Step:
    channel = step.get("channel")
    return Step(
        channel=Channel(channel) if channel else None,
        providers=tuple(step.get("providers", ())),
        fallback=step.get("fallback", True),
        sender=step.get("sender", ""),
        strategy=Strategy(step.get("strategy", Strategy.ORDERED)),
        weights=step.get("weights", {}),
        wait_for=State(step.get("wait_for", State.SENT)),
        timeout=step.get("timeout", 0),
        application_key=step.get("application_key", ""),
        template_key=step.get("template_key", ""),
    )


class RuleChange:
    """A change of a tenant's rules in the caller's transaction; nobody else changes them until that ends."""

    def __init__(self, connection: Connection, dialect: Dialect, tenant_id: str, revision: str, now: Micros) -> None:
        """`revision`: the expected one, "" for any. Raises Precondition(ETAG_MISMATCH)."""
        self._connection = connection
        self._tenant_id = tenant_id
        self._now = now
        dialect.insert_new(connection, _RULE_SET, [(tenant_id, 0)], "tenant_id")
        of_tenant = col(RuleSet.tenant_id) == tenant_id
        locked = select(col(RuleSet.revision)).where(of_tenant).with_for_update()
        self.revision: int = connection.execute(locked).scalar_one()
        self.changed = False
        if revision and revision != str(self.revision):
            sentence = f"The routing rules have changed since; they are at revision {self.revision}. Read them again."
            raise Precondition(Reason.ETAG_MISMATCH, sentence, {"resource": "routing_rule"})

    def set(self, rows: Sequence[RoutingRule], *, replace_all: bool) -> list[RoutingRule]:
        """Make these rules be, and no others with `replace_all`; as they are kept. Raises Invalid."""
        before = {row.name: row for row in read_rules(self._connection, self._tenant_id)[0]}
        names = {row.name for row in rows}
        if len(names) < len(rows):
            raise invalid_field("rules", "must not name a rule twice")
        if len(names if replace_all else before.keys() | names) > RULES_MAX:
            raise invalid_field("rules", f"must not be more than {RULES_MAX} in all")
        kept = [self._set(before.get(row.name), row) for row in rows]
        if replace_all:
            self._delete(before.keys() - names)
        self._conclude()
        return kept

    def delete(self, names: Collection[str]) -> list[RoutingRule]:
        """Delete these rules; as they were. Raises NotFound for the first that there is not."""
        found, _ = read_rules(self._connection, self._tenant_id, names)
        missing = set(names) - {row.name for row in found}
        if missing:
            raise not_found("routing_rule", min(missing))
        self._delete(names)
        self._conclude()
        return found

    def _set(self, before: RoutingRule | None, wanted: RoutingRule) -> RoutingRule:
        told = wanted.model_dump(exclude={"tenant_id", "created_at", "updated_at"})
        if before is not None and told == before.model_dump(exclude={"tenant_id", "created_at", "updated_at"}):
            return before
        self.changed = True
        created_at = before.created_at if before else self._now
        row = RoutingRule(tenant_id=self._tenant_id, created_at=created_at, updated_at=self._now, **told)
        if before is None:
            self._connection.execute(insert(RoutingRule).values(**row.model_dump()))
        else:
            this = (col(RoutingRule.tenant_id) == self._tenant_id, col(RoutingRule.name) == row.name)
            self._connection.execute(update(RoutingRule).where(*this).values(**row.model_dump()))
        return row

    def _delete(self, names: Collection[str]) -> None:
        if names:
            self.changed = True
            these = (col(RoutingRule.tenant_id) == self._tenant_id, col(RoutingRule.name).in_(sorted(names)))
            self._connection.execute(delete(RoutingRule).where(*these))

    def _conclude(self) -> None:
        if self.changed:
            self.revision += 1
            this = col(RuleSet.tenant_id) == self._tenant_id
            self._connection.execute(update(RuleSet).where(this).values(revision=self.revision))
