"""ProviderService: configure accounts, list them and their types, try one."""

from collections.abc import Mapping

from angarium.v1 import provider_service_pb2 as wire
from angarium.v1.provider_service_pb2_grpc import ProviderServiceServicer

from server.api.caller import current_call
from server.api.convert import providers as convert
from server.api.convert.checks import CAPTION_CHARS_MAX, ID_CHARS_MAX, Checks
from server.api.convert.words import CHANNELS
from server.api.ordering import ordering_of
from server.api.pages import fitting, listing_of
from server.api.tokens import page_token, read_page_token
from server.api.trial import Trial
from server.model.accounts import ProviderType
from server.providers.roster import Roster
from server.store.accounts import no_such_type
from server.store.store import Store


class Providers(ProviderServiceServicer):
    """Only TestProvider calls a provider."""

    def __init__(self, store: Store, roster: Roster, *, allow_private_upstreams: bool) -> None:
        self._configuration = store.configuration
        self._types: Mapping[str, ProviderType] = roster.types()
        self._trial = Trial(store, roster)
        self._allow_private = allow_private_upstreams

    async def ConfigureProvider(
        self, request: wire.ConfigureProviderRequest, context: object
    ) -> wire.ConfigureProviderResponse:
        call = current_call()
        accounts = self._configuration.snapshot.accounts.get(call.tenant_id, ())
        there = next((account.type for account in accounts if account.name == request.name), "")
        change = convert.provider_change(request, self._types, there, allow_private=self._allow_private)
        if change.type is None:
            await self._configuration.provider(call.tenant_id, request.name)
        row, created = await self._configuration.configure_provider(
            call.tenant_id,
            request.name or request.type,
            change,
            client_id=call.caller.client_id,
            etag=request.etag,
            check=lambda account: convert.check_account(account, self._types),
            validate_only=request.validate_only,
        )
        return wire.ConfigureProviderResponse(provider=convert.provider(row, self._types), created=created)

    async def GetProvider(self, request: wire.GetProviderRequest, context: object) -> wire.GetProviderResponse:
        row = await self._configuration.provider(current_call().tenant_id, _named(request.name))
        return wire.GetProviderResponse(provider=convert.provider(row, self._types))

    async def DeleteProvider(self, request: wire.DeleteProviderRequest, context: object) -> wire.DeleteProviderResponse:
        checks = Checks()
        name = convert.provider_name(checks, request.name)
        checks.line("etag", request.etag, ID_CHARS_MAX)
        checks.settle()
        row = await self._configuration.delete_provider(current_call().tenant_id, name, request.etag, request.force)
        return wire.DeleteProviderResponse(provider=convert.provider(row, self._types))

    async def ListProviderTypes(
        self, request: wire.ListProviderTypesRequest, context: object
    ) -> wire.ListProviderTypesResponse:
        checks = Checks()
        channel = checks.word("channel", CHANNELS, request.channel)
        checks.settle()
        kinds = [kind for _, kind in sorted(self._types.items()) if channel is None or channel in kind.channels]
        return wire.ListProviderTypesResponse(provider_types=map(convert.provider_type, kinds))

    async def DescribeProviderType(
        self, request: wire.DescribeProviderTypeRequest, context: object
    ) -> wire.DescribeProviderTypeResponse:
        checks = Checks()
        checks.line("type", request.type, ID_CHARS_MAX, required=True)
        checks.settle()
        kind = self._types.get(request.type)
        if kind is None:
            raise no_such_type(request.type)
        return wire.DescribeProviderTypeResponse(provider_type=convert.provider_type(kind))

    async def ListProviders(self, request: wire.ListProvidersRequest, context: object) -> wire.ListProvidersResponse:
        call = current_call()
        checks = Checks()
        size = checks.page_size(request.page_size)
        ordering = ordering_of(checks, request.order_by)
        checks.word("channel", CHANNELS, request.channel)
        checks.line("caption", request.caption, CAPTION_CHARS_MAX)
        checks.settle()
        listing = listing_of("ListProviders", request)
        after = read_page_token(call.vault, listing, request.page_token)
        rows = await self._configuration.list_providers(call.tenant_id)
        entries = [convert.provider(row, self._types) for row in rows]
        if request.include_unconfigured:
            there = {row.type for row in rows}
            missing = (kind for name, kind in self._types.items() if name not in there)
            entries += [convert.unconfigured(kind, call.tenant_id) for kind in missing]
        found = ordering.page([entry for entry in entries if _wanted(request, entry)], after)
        shown = fitting(found[:size])
        token = page_token(call.vault, listing, ordering.marks(shown[-1])) if len(found) > len(shown) else ""
        return wire.ListProvidersResponse(providers=shown, next_page_token=token)

    async def TestProvider(self, request: wire.TestProviderRequest, context: object) -> wire.TestProviderResponse:
        return await self._trial.run(request, current_call())


def _named(name: str) -> str:
    checks = Checks()
    convert.provider_name(checks, name)
    checks.settle()
    return name


def _wanted(request: wire.ListProvidersRequest, entry: wire.Provider) -> bool:
    return (
        (not request.channel or request.channel in entry.channels)
        and request.type in ("", entry.type)
        and request.name in ("", entry.name)
        and request.caption.casefold() in entry.caption.casefold()
        and (not request.HasField("is_active") or request.is_active == entry.is_active)
    )
