"""RoutingService: the rules by which a message finds its providers, and why it takes its way."""

from collections.abc import Iterable, Mapping, Sequence

from angarium.v1 import routing_service_pb2 as wire
from angarium.v1.routing_service_pb2_grpc import RoutingServiceServicer

from server.api.caller import Call, current_call
from server.api.convert import explanation, routing as convert
from server.api.convert.checks import ID_CHARS_MAX, Checks
from server.model.errors import not_found
from server.model.messages import Case, Content, Message, NewMessage, Recipient
from server.model.plan import survey
from server.model.routing import Rule, asked_of, route_for
from server.model.templates import NO_TEMPLATES, Template, beside, chosen, missing_params
from server.providers.roster import Roster
from server.store.rules import rule_of
from server.store.store import Store


class Routing(RoutingServiceServicer):
    """Rules are configuration: what they do is told by the model's `route_for`, and by `survey` in every detail."""

    def __init__(self, store: Store, roster: Roster) -> None:
        self._configuration = store.configuration
        self._reading = store.reading
        self._roster = roster

    async def SetRoutingRules(
        self, request: wire.SetRoutingRulesRequest, context: object
    ) -> wire.SetRoutingRulesResponse:
        tenant_id = current_call().tenant_id
        kept, revision = await self._configuration.set_rules(
            tenant_id,
            convert.rule_rows(request, tenant_id),
            replace_all=request.replace_all,
            revision=request.revision,
            validate_only=request.validate_only,
        )
        others, _ = ([], "") if request.replace_all else await self._configuration.rules(tenant_id)
        rows = list(({row.name: row for row in others} | {row.name: row for row in kept}).values())
        accounts = self._configuration.snapshot.accounts.get(tenant_id, ())
        return wire.SetRoutingRulesResponse(
            rules=map(convert.rule, convert.in_order(rows)),
            revision=revision,
            warnings=convert.warnings(
                rows, accounts, current_call().tenant.mode, self._configuration.snapshot.templates.get(tenant_id, ())
            ),
        )

    async def GetRoutingRules(
        self, request: wire.GetRoutingRulesRequest, context: object
    ) -> wire.GetRoutingRulesResponse:
        checks = Checks()
        checks.intent("intent", request.intent, required=False)
        checks.settle()
        names = convert.rule_names(request.names, required=False)
        rows, revision = await self._configuration.rules(current_call().tenant_id, names, request.intent)
        return wire.GetRoutingRulesResponse(rules=map(convert.rule, convert.in_order(rows)), revision=revision)

    async def DeleteRoutingRules(
        self, request: wire.DeleteRoutingRulesRequest, context: object
    ) -> wire.DeleteRoutingRulesResponse:
        checks = Checks()
        checks.line("revision", request.revision, ID_CHARS_MAX)
        checks.settle()
        names = convert.rule_names(request.names, required=True)
        rows, revision = await self._configuration.delete_rules(current_call().tenant_id, names, request.revision)
        return wire.DeleteRoutingRulesResponse(rules=map(convert.rule, convert.in_order(rows)), revision=revision)

    async def ExplainRoute(self, request: wire.ExplainRouteRequest, context: object) -> wire.ExplainRouteResponse:
        call = current_call()
        now = await self._reading.now()
        checks = Checks()
        templates = self._configuration.snapshot.templates.get(call.tenant_id, NO_TEMPLATES)
        described = explanation.might_be_sent(checks, request, call, now, templates)
        drafts = convert.draft_rows(checks, request, call.tenant_id)
        checks.settle()
        snapshot = self._configuration.snapshot
        rules = _with_drafts(snapshot.rules.get(call.tenant_id, ()), map(rule_of, drafts))
        case, content = await self._case(request, call, described, rules)
        found = survey(
            case,
            content,
            route_for(rules, snapshot.accounts.get(call.tenant_id, ()), asked_of(case.message, content)),
            call.tenant.mode,
            self._roster.health(now),
            now,
            await self._templates(call, case.message, content),
            call.tenant.default_locale,
            revision=snapshot.revisions.get(call.tenant_id, "0"),
        )
        return wire.ExplainRouteResponse(explanation=explanation.route_explanation(found.explanation))

    async def _case(
        self, request: wire.ExplainRouteRequest, call: Call, described: NewMessage | None, rules: Sequence[Rule]
    ) -> tuple[Case, Content]:
        """The message that is asked about; of one whose content is gone nobody knows whom it was for."""
        if described is None:
            case, content = await self._reading.opened(call.tenant_id, request.tracking_id)
            return case, content or Content(Recipient())
        if request.scenario and not any(rule.name == request.scenario for rule in rules):
            raise not_found("routing_rule", request.scenario)
        return Case(described.message), described.content

    async def _templates(self, call: Call, message: Message, content: Content) -> Mapping[str, Template] | None:
        """What accounts would say the message with; None where it says nothing, so that they need not be able to."""
        templates = self._configuration.snapshot.templates.get(call.tenant_id, NO_TEMPLATES)
        if not message.template_key:
            own = None if content.text else chosen(templates.values(), message.intent, message.message_class)
            said = content.text or (own is not None and not missing_params(own, content.params))
            return beside(templates, own) if said else None
        own = templates.get(message.template_key)
        if message.template_revision:
            own = await self._configuration.pinned(call.tenant_id, message.template_key, message.template_revision)
        elif own is None:
            raise not_found("template", message.template_key)
        return beside(templates, own)


def _with_drafts(rules: Iterable[Rule], drafts: Iterable[Rule]) -> Sequence[Rule]:
    return tuple(({rule.name: rule for rule in rules} | {rule.name: rule for rule in drafts}).values())
