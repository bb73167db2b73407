"""Which scope each RPC needs: one table, and no RPC is served without an entry."""

from collections.abc import Iterable, Mapping

from google.protobuf.descriptor import ServiceDescriptor

from server.model.enums import Scope

_NOTIFICATIONS = "/angarium.v1.NotificationService/"
_PROVIDERS = "/angarium.v1.ProviderService/"
_ROUTING = "/angarium.v1.RoutingService/"
_ACCESS = "/angarium.v1.AccessService/"
_SANDBOX = "/angarium.v1.SandboxService/"
_OTP = "/angarium.v1.OtpService/"
_TEMPLATES = "/angarium.v1.TemplateService/"

SCOPES: Mapping[str, Scope | None] = {
    _NOTIFICATIONS + "Send": Scope.SEND,
    _NOTIFICATIONS + "SendAndWatch": Scope.SEND,
    _NOTIFICATIONS + "GetStatus": Scope.READ,
    _NOTIFICATIONS + "WatchStatus": Scope.READ,
    _NOTIFICATIONS + "ListNotifications": Scope.READ,
    _NOTIFICATIONS + "Cancel": Scope.SEND,
    _PROVIDERS + "ConfigureProvider": Scope.CONFIGURE,
    _PROVIDERS + "GetProvider": Scope.READ,
    _PROVIDERS + "DeleteProvider": Scope.CONFIGURE,
    _PROVIDERS + "ListProviderTypes": Scope.READ,
    _PROVIDERS + "DescribeProviderType": Scope.READ,
    _PROVIDERS + "ListProviders": Scope.READ,
    _PROVIDERS + "TestProvider": Scope.CONFIGURE,
    _ROUTING + "SetRoutingRules": Scope.CONFIGURE,
    _ROUTING + "GetRoutingRules": Scope.READ,
    _ROUTING + "DeleteRoutingRules": Scope.CONFIGURE,
    _ROUTING + "ExplainRoute": Scope.READ,
    _ACCESS + "WhoAmI": None,
    _ACCESS + "CreateTenant": Scope.ACCESS,
    _ACCESS + "ListTenants": Scope.ACCESS,
    _ACCESS + "UpdateTenant": Scope.ACCESS,
    _ACCESS + "CreateClient": Scope.ACCESS,
    _ACCESS + "ListClients": Scope.ACCESS,
    _ACCESS + "UpdateClient": Scope.ACCESS,
    _ACCESS + "CreateApiKey": Scope.ACCESS,
    _ACCESS + "ListApiKeys": Scope.ACCESS,
    _ACCESS + "RevokeApiKey": Scope.ACCESS,
    _SANDBOX + "PeekOutbox": Scope.SANDBOX,
    _OTP + "OtpSend": Scope.OTP,
    _OTP + "OtpVerify": Scope.OTP,
    _TEMPLATES + "CreateTemplate": Scope.CONFIGURE,
    _TEMPLATES + "GetTemplate": Scope.READ,
    _TEMPLATES + "ListTemplates": Scope.READ,
    _TEMPLATES + "UpdateTemplate": Scope.CONFIGURE,
    _TEMPLATES + "DeleteTemplate": Scope.CONFIGURE,
    _TEMPLATES + "PreviewTemplate": Scope.READ,
}
"""By the method's full path. None: every key that is valid."""

MAKES_ITS_TENANT = frozenset({_ACCESS + "CreateTenant"})
"""RPCs whose `tenant_id` names a tenant that need not exist yet."""


class UnlistedRpc(Exception):
    """An RPC has no entry in the table, or an entry has no RPC: the server is not built."""


def require_complete(services: Iterable[ServiceDescriptor]) -> None:
    """Raise UnlistedRpc unless the table lists exactly the RPCs of these services."""
    served = {f"/{service.full_name}/{method.name}" for service in services for method in service.methods}
    differing = sorted(served ^ SCOPES.keys())
    if differing:
        raise UnlistedRpc(f"server/api/scopes.py and the contract differ in: {', '.join(differing)}")
