"""TemplateService: what messages say, kept under keys."""

from angarium.v1 import template_service_pb2 as wire
from angarium.v1.template_service_pb2_grpc import TemplateServiceServicer

from server.api.caller import Call, current_call
from server.api.convert import templates as convert
from server.api.convert.checks import CAPTION_CHARS_MAX, ID_CHARS_MAX, Checks
from server.api.convert.messages import TEXT_CHARS_MAX, check_params
from server.api.convert.words import CHANNELS
from server.api.ordering import template_ordering_of
from server.api.pages import fitting, listing_of
from server.api.tokens import page_token, read_page_token
from server.model.enums import Channel
from server.model.segments import encoding_of, segments_of
from server.model.templates import (
    NO_TEMPLATES,
    Template,
    Wording,
    bound_to,
    locales_of,
    missing_params,
    unbound_params,
    unused_params,
    variant_for,
    wording_of,
)
from server.store.store import Store


class Templates(TemplateServiceServicer):
    """Templates are configuration: what a message makes of one is told by the model's `worded`."""

    def __init__(self, store: Store) -> None:
        self._configuration = store.configuration

    async def CreateTemplate(self, request: wire.CreateTemplateRequest, context: object) -> wire.CreateTemplateResponse:
        content = convert.new_template(request.template)
        kept = await self._configuration.create_template(current_call().tenant_id, request.template.key, content)
        return wire.CreateTemplateResponse(template=convert.template(kept))

    async def GetTemplate(self, request: wire.GetTemplateRequest, context: object) -> wire.GetTemplateResponse:
        checks = Checks()
        key = convert.template_key(checks, "key", request.key)
        if request.revision < 0:
            checks.fail("revision", "is negative")
        checks.settle()
        kept = await self._configuration.template(current_call().tenant_id, key, request.revision)
        return wire.GetTemplateResponse(template=convert.template(kept))

    async def ListTemplates(self, request: wire.ListTemplatesRequest, context: object) -> wire.ListTemplatesResponse:
        call = current_call()
        checks = Checks()
        size = checks.page_size(request.page_size)
        ordering = template_ordering_of(checks, request.order_by)
        checks.line("name", request.name, CAPTION_CHARS_MAX)
        checks.line("caption", request.caption, CAPTION_CHARS_MAX)
        checks.settle()
        listing = listing_of("ListTemplates", request)
        after = read_page_token(call.vault, listing, request.page_token)
        kept = await self._configuration.list_templates(call.tenant_id)
        wanted = [entry for entry in map(convert.template, kept) if _wanted(request, entry)]
        found = ordering.page(wanted, after)
        shown = fitting(found[:size])
        token = page_token(call.vault, listing, ordering.marks(shown[-1])) if len(found) > len(shown) else ""
        return wire.ListTemplatesResponse(templates=shown, next_page_token=token)

    async def UpdateTemplate(self, request: wire.UpdateTemplateRequest, context: object) -> wire.UpdateTemplateResponse:
        tenant_id = current_call().tenant_id
        before = self._configuration.snapshot.templates.get(tenant_id, NO_TEMPLATES).get(request.key)
        change = convert.template_change(request, before)
        kept = await self._configuration.update_template(
            tenant_id, request.key, change, etag=request.etag, check=convert.check_content
        )
        return wire.UpdateTemplateResponse(template=convert.template(kept))

    async def DeleteTemplate(self, request: wire.DeleteTemplateRequest, context: object) -> wire.DeleteTemplateResponse:
        checks = Checks()
        key = convert.template_key(checks, "key", request.key)
        checks.line("etag", request.etag, ID_CHARS_MAX)
        checks.settle()
        kept = await self._configuration.delete_template(current_call().tenant_id, key, request.etag)
        return wire.DeleteTemplateResponse(template=convert.template(kept))

    async def PreviewTemplate(
        self, request: wire.PreviewTemplateRequest, context: object
    ) -> wire.PreviewTemplateResponse:
        call = current_call()
        checks = Checks()
        checks.exactly_one({"key": bool(request.key), "text": bool(request.text)})
        if request.key:
            convert.template_key(checks, "key", request.key)
        if request.text:
            convert.check_text(checks, "text", request.text, TEXT_CHARS_MAX)
        params = check_params(checks, request.params)
        locale = checks.locale("locale", request.locale)
        channel = checks.word("channel", CHANNELS, request.channel) or Channel.SMS
        checks.line("provider", request.provider, convert.PROVIDER_CHARS_MAX)
        checks.settle()
        template = await self._shown(call, request)
        locales = locales_of(locale, call.tenant.default_locale)
        bound = bound_to(template, request.provider, locales)
        variant = variant_for(template, channel, locales)
        wording = wording_of(variant, params, channel) if variant else Wording("")
        return wire.PreviewTemplateResponse(
            text=wording.text,
            subject=wording.subject,
            segments=segments_of(wording.text),
            encoding=encoding_of(wording.text),
            missing_params=unbound_params(bound, params) if bound else missing_params(template, params),
            unused_params=unused_params(template, params),
        )

    async def _shown(self, call: Call, request: wire.PreviewTemplateRequest) -> Template:
        if request.text:
            return Template("", 0, request.text)
        return (await self._configuration.template(call.tenant_id, request.key)).template


def _wanted(request: wire.ListTemplatesRequest, entry: wire.Template) -> bool:
    return (
        (not request.HasField("is_active") or request.is_active == entry.is_active)
        and request.name in ("", entry.name)
        and request.caption.casefold() in entry.caption.casefold()
    )
