"""RoutingService: the rules by which a message finds its providers."""

from angarium.v1 import routing_service_pb2 as wire
from angarium.v1.routing_service_pb2_grpc import RoutingServiceServicer

from server.api.caller import current_call
from server.api.convert import routing as convert
from server.api.convert.checks import ID_CHARS_MAX, Checks
from server.store.store import Store


class Routing(RoutingServiceServicer):
    """Rules are configuration: what they do is told by the model's `route_for`."""

    def __init__(self, store: Store) -> None:
        self._configuration = store.configuration

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
            warnings=convert.warnings(rows, accounts),
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
