"""Languages as many systems write them, with an underscore: read as the tags that they mean, everywhere."""

from typing import Any

from angarium.v1 import provider_service_pb2 as providers, template_service_pb2 as templates
from angarium.v1.access_service_pb2 import CreateTenantRequest, UpdateTenantRequest
from angarium.v1.message_pb2 import MESSAGE_CLASS_OTP, LocalizedResource, Recipient
from angarium.v1.otp_service_pb2 import OtpSendRequest

from server.model.enums import DueKind, MessageClass
from tests.api.edge import Edge
from tests.api.test_templated_sends import by, make, said, send

PRIVET = templates.TemplateVariant(locale="ru_RU", text="Привет")


async def test_a_tenants_language(edge: Edge) -> None:
    """It comes back as a tag, from the call that makes the tenant and from the one that changes it."""
    access = edge.operator.access
    made = await access.CreateTenant(CreateTenantRequest(tenant_id="mall", default_locale="ru_RU"))
    changed = await access.UpdateTenant(UpdateTenantRequest(tenant_id="mall", default_locale="zh_Hant_TW"))
    assert (made.tenant.default_locale, changed.tenant.default_locale) == ("ru-RU", "zh-Hant-TW")


async def test_texts_for_people(edge: Edge) -> None:
    """Of a provider account."""
    caption = LocalizedResource(key="caption", locale="ru_RU", value="Линия")
    asked = providers.ConfigureProviderRequest(name="sandbox", resources=[caption])
    (shown,) = (await edge.operator.providers.ConfigureProvider(asked)).provider.resources
    assert (shown.key, shown.locale, shown.value) == ("caption", "ru-RU", "Линия")


async def test_the_parts_of_a_template(edge: Edge) -> None:
    """Captions, variants and templates of providers come back with tags, and a change of them too."""
    parts: dict[str, Any] = {
        "variants": [PRIVET],
        "provider_templates": [templates.ProviderTemplate(provider="p", template_name="t", locale="ru_RU")],
        "resources": [LocalizedResource(key="caption", locale="ru_RU", value="Вход")],
    }
    made = await make(edge, **parts)
    asked = templates.UpdateTemplateRequest(key="paid", **parts)
    changed = (await edge.operator.templates.UpdateTemplate(asked)).template
    assert changed == made
    for part in parts:
        assert [each.locale for each in getattr(made, part)] == ["ru-RU"]


async def test_a_recipient_is_spoken_to_in_its_language(edge: Edge) -> None:
    """Whichever of the two ways the template and the message write it, which are one request."""
    await make(edge, text="Hello", variants=[PRIVET])
    sent = [
        await send(edge, by(params={}, request_id="k", recipient=Recipient(phone="09120000111", locale=locale)))
        for locale in ("ru_RU", "ru-RU")
    ]
    assert sent[0].tracking_id == sent[1].tracking_id
    assert await said(edge) == "Привет"


async def test_a_preview_is_in_the_language_asked_for(edge: Edge) -> None:
    """Also in a longer form of it."""
    await make(edge, text="Hello", variants=[PRIVET])
    for locale in ("ru_RU", "ru_RU_x"):
        asked = templates.PreviewTemplateRequest(key="paid", locale=locale)
        assert (await edge.operator.templates.PreviewTemplate(asked)).text == "Привет"


async def test_a_code_is_said_in_the_language_asked_for(edge: Edge) -> None:
    """Its message keeps the tag."""
    await edge.operator.templates.CreateTemplate(
        templates.CreateTemplateRequest(
            template=templates.Template(key="login", text="%CODE%", message_class=MESSAGE_CLASS_OTP)
        )
    )
    await edge.operator.otp.OtpSend(OtpSendRequest(phone="09120000111", template_key="login", locale="ru_RU"))
    (claim,) = await edge.store.claim(MessageClass.OTP, frozenset({DueKind.SEND}), 10)
    assert claim.content is not None
    assert claim.content.recipient.locale == "ru-RU"
