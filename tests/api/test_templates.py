"""TemplateService, by real stubs, on both engines."""

from typing import Any

import pytest
from angarium.v1 import routing_service_pb2 as routing, template_service_pb2 as wire
from angarium.v1.access_service_pb2 import UpdateTenantRequest
from angarium.v1.message_pb2 import (
    CHANNEL_EMAIL,
    CHANNEL_SMS,
    CHANNEL_VOICE,
    MESSAGE_CLASS_OTP,
    LocalizedResource,
)
from grpc import StatusCode

from tests.api.edge import UNKNOWN, Edge, letter, refused

Variant = wire.TemplateVariant
Bound = wire.ProviderTemplate


def template(**fields: Any) -> wire.Template:
    """A template that is taken as it is; fields replace what it has."""
    return wire.Template(**{"key": "login", "text": "Code %token% of %shop%", **fields})


async def make(edge: Edge, **fields: Any) -> wire.Template:
    asked = wire.CreateTemplateRequest(template=template(**fields))
    return (await edge.operator.templates.CreateTemplate(asked)).template


async def keys(edge: Edge, **fields: Any) -> list[str]:
    listed = await edge.operator.templates.ListTemplates(wire.ListTemplatesRequest(**fields))
    return [each.key for each in listed.templates]


WHOLE: dict[str, Any] = {
    "name": "Login",
    "caption": "Ingresso",
    "priority": 3,
    "variants": [
        Variant(locale="fa", channel=CHANNEL_SMS, text="کد %CODE%"),
        Variant(channel=CHANNEL_EMAIL, text="%CODE%", subject="%subject%", html="<b>%html%</b> 100%%"),
    ],
    "provider_templates": [
        Bound(provider="kavenegar", template_name="login", params={"token2": "shop2", "token": "CODE"}, locale="fa")
    ],
    "resources": [LocalizedResource(key="caption", locale="fa", value="ورود")],
    "message_class": MESSAGE_CLASS_OTP,
    "intents": ["LOGIN", "OTP"],
}


async def test_a_template_is_shown_as_it_was_given(edge: Edge) -> None:
    """With what it names, its revision, etag and times; the same again answers the same, another content is refused."""
    asked = template(**WHOLE)
    made = await make(edge, **WHOLE)
    assert list(made.param_names) == ["CODE", "html", "shop", "shop2", "subject"]
    assert (made.revision, made.is_active, made.create_time) == (1, True, made.update_time)
    for field in ("param_names", "revision", "etag", "create_time", "update_time", "is_active"):
        made.ClearField(field)
    assert made == asked
    again = await make(edge, **WHOLE)
    shown = await edge.operator.templates.GetTemplate(wire.GetTemplateRequest(key="login"))
    assert again == shown.template
    refusal = await refused(edge.operator.templates.CreateTemplate(wire.CreateTemplateRequest(template=template())))
    assert (refusal.code, refusal.reason) == (StatusCode.ALREADY_EXISTS, "RESOURCE_EXISTS")
    assert refusal.told == {"resource": "template", "name": "login"}


async def test_a_template_is_named_after_its_key(edge: Edge) -> None:
    """Where it is given no name, or is given an empty one again."""
    assert (await make(edge)).name == "login"
    named = wire.UpdateTemplateRequest(key="login", name="Login")
    assert (await edge.operator.templates.UpdateTemplate(named)).template.name == "Login"
    unnamed = wire.UpdateTemplateRequest(key="login", name="")
    assert (await edge.operator.templates.UpdateTemplate(unnamed)).template.name == "login"


async def test_a_change_is_merged_and_makes_a_revision(edge: Edge) -> None:
    """What is unset is kept, a list replaces the whole, `clear` goes first; what changes nothing makes no revision."""
    operator = edge.operator.templates
    made = await make(edge, **WHOLE)
    asked = wire.UpdateTemplateRequest(
        key="login",
        etag=made.etag,
        text="New %CODE%",
        is_active=False,
        priority=0,
        intents=["PAID"],
        clear=["variants", "message_class", "intents", "caption", "resources", "provider_templates"],
    )
    changed = (await operator.UpdateTemplate(asked)).template
    assert (changed.revision, changed.text, changed.is_active, changed.priority) == (2, "New %CODE%", False, 0)
    assert (list(changed.variants), changed.message_class, list(changed.intents)) == ([], 0, ["PAID"])
    assert (changed.caption, list(changed.resources), list(changed.provider_templates)) == ("", [], [])
    assert (changed.name, changed.create_time) == ("Login", made.create_time)
    assert changed.etag != made.etag
    same = (await operator.UpdateTemplate(wire.UpdateTemplateRequest(key="login", text="New %CODE%"))).template
    assert same == changed
    first = await operator.GetTemplate(wire.GetTemplateRequest(key="login", revision=1))
    assert first.template == made
    late = wire.UpdateTemplateRequest(key="login", text="x", etag=made.etag)
    refusal = await refused(operator.UpdateTemplate(late))
    assert (refusal.code, refusal.reason) == (StatusCode.FAILED_PRECONDITION, "ETAG_MISMATCH")


async def test_a_template_keeps_something_to_say(edge: Edge) -> None:
    """Its text may go where a variant or a provider's template is left, and not as the last of them."""
    operator = edge.operator.templates
    await make(edge, variants=[Variant(locale="fa", text="کد")])
    await operator.UpdateTemplate(wire.UpdateTemplateRequest(key="login", clear=["text"]))
    refusal = await refused(operator.UpdateTemplate(wire.UpdateTemplateRequest(key="login", clear=["variants"])))
    assert (refusal.code, refusal.fields) == (StatusCode.INVALID_ARGUMENT, ("text",))
    worse = wire.UpdateTemplateRequest(key="login", clear=["variants"], caption="\n")
    assert set((await refused(operator.UpdateTemplate(worse))).fields) == {"text", "caption"}
    swapped = wire.UpdateTemplateRequest(key="login", clear=["variants"], text="Code")
    assert (await operator.UpdateTemplate(swapped)).template.text == "Code"


async def test_what_there_is_not_is_not_found(edge: Edge) -> None:
    """Whatever the RPC; nor is another tenant's template, nor a revision that never was, nor one that was deleted."""
    await edge.tenant("mall")
    stranger = await edge.key("read", "configure", tenant_id="mall")
    await make(edge)
    calls = [
        stranger.templates.GetTemplate(wire.GetTemplateRequest(key="login")),
        stranger.templates.UpdateTemplate(wire.UpdateTemplateRequest(key="login", text="x")),
        stranger.templates.DeleteTemplate(wire.DeleteTemplateRequest(key="login")),
        stranger.templates.PreviewTemplate(wire.PreviewTemplateRequest(key="login")),
        edge.operator.templates.GetTemplate(wire.GetTemplateRequest(key="login", revision=2)),
    ]
    for call in calls:
        refusal = await refused(call)
        assert (refusal.code, refusal.told) == (StatusCode.NOT_FOUND, {"resource": "template"})
    assert not (await stranger.templates.ListTemplates(wire.ListTemplatesRequest())).templates
    await edge.operator.templates.DeleteTemplate(wire.DeleteTemplateRequest(key="login"))
    for revision in (0, 1):
        gone = edge.operator.templates.GetTemplate(wire.GetTemplateRequest(key="login", revision=revision))
        assert (await refused(gone)).code == StatusCode.NOT_FOUND
    assert (await make(edge)).revision == 2


async def test_a_template_in_use_is_not_deleted(edge: Edge) -> None:
    """RESOURCE_IN_USE tells of the rules that name it, then of the messages that wait."""
    operator = edge.operator
    await make(edge, text="Paid.", intents=["ORDER_PAID"])
    rule = routing.RoutingRule(name="orders", steps=[routing.RouteStep(template_key="login")])
    await operator.routing.SetRoutingRules(routing.SetRoutingRulesRequest(rules=[rule]))
    await operator.notifications.Send(letter(text=None))
    asked = wire.DeleteTemplateRequest(key="login")
    refusal = await refused(operator.templates.DeleteTemplate(asked))
    assert (refusal.code, refusal.reason) == (StatusCode.FAILED_PRECONDITION, "RESOURCE_IN_USE")
    assert refusal.told == {"resource": "template", "rules": "orders"}
    await operator.routing.DeleteRoutingRules(routing.DeleteRoutingRulesRequest(names=["orders"]))
    refusal = await refused(operator.templates.DeleteTemplate(asked))
    assert refusal.told == {"resource": "template", "messages": "1"}


async def test_templates_have_their_scopes(edge: Edge) -> None:
    """Who may read may look and try; to change anything needs `configure`."""
    await make(edge)
    reader = (await edge.key("read")).templates
    await reader.GetTemplate(wire.GetTemplateRequest(key="login"))
    await reader.ListTemplates(wire.ListTemplatesRequest())
    await reader.PreviewTemplate(wire.PreviewTemplateRequest(key="login"))
    for call in (
        reader.CreateTemplate(wire.CreateTemplateRequest(template=template())),
        reader.UpdateTemplate(wire.UpdateTemplateRequest(key="login", text="x")),
        reader.DeleteTemplate(wire.DeleteTemplateRequest(key="login")),
    ):
        refusal = await refused(call)
        assert (refusal.code, refusal.told) == (StatusCode.PERMISSION_DENIED, {"scope": "configure"})


LONG = "x" * 1_601
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no key": ({"key": ""}, "template.key"),
    "a key with spaces": ({"key": "a b"}, "template.key"),
    "a long key": ({"key": "k" * 121}, "template.key"),
    "a long name": ({"name": "n" * 256}, "template.name"),
    "a caption of two lines": ({"caption": "a\nb"}, "template.caption"),
    "no text": ({"text": ""}, "template.text"),
    "a blank text": ({"text": " "}, "template.text"),
    "a long text": ({"text": LONG}, "template.text"),
    "a text with NUL": ({"text": "a\x00"}, "template.text"),
    "a lone sign": ({"text": "100% sure"}, "template.text"),
    "an unknown class": ({"message_class": UNKNOWN}, "template.message_class"),
    "a bad intent": ({"intents": ["a b"]}, "template.intents[0]"),
    "too many intents": ({"intents": [str(n) for n in range(101)]}, "template.intents"),
    "a variant without a text": ({"variants": [Variant(locale="fa")]}, "template.variants[0].text"),
    "a variant in no language": ({"variants": [Variant(locale="fa__IR", text="x")]}, "template.variants[0].locale"),
    "a variant for no channel": ({"variants": [Variant(channel=UNKNOWN, text="x")]}, "template.variants[0].channel"),
    "a subject of two lines": ({"variants": [Variant(subject="a\nb", text="x")]}, "template.variants[0].subject"),
    "a subject with a lone sign": ({"variants": [Variant(subject="5%", text="x")]}, "template.variants[0].subject"),
    "HTML with a lone sign": ({"variants": [Variant(html="5%;", text="x")]}, "template.variants[0].html"),
    "too much HTML": ({"variants": [Variant(html="س" * 40_000, text="x")]}, "template.variants[0].html"),
    "one variant twice": (
        {"variants": [Variant(locale="fa-IR", text="x"), Variant(locale="FA_IR", text="y")]},
        "template.variants[1]",
    ),
    "too many variants": ({"variants": [Variant(text="x")] * 101}, "template.variants"),
    "no provider": ({"provider_templates": [Bound(template_name="x")]}, "template.provider_templates[0].provider"),
    "no name there": ({"provider_templates": [Bound(provider="p")]}, "template.provider_templates[0].template_name"),
    "a bad parameter": (
        {"provider_templates": [Bound(provider="p", template_name="x", params={"token": "a b"})]},
        "template.provider_templates[0].params",
    ),
    "one binding twice": (
        {"provider_templates": [Bound(provider="p", template_name="x"), Bound(provider="p", template_name="y")]},
        "template.provider_templates[1]",
    ),
    "a resource without a key": ({"resources": [LocalizedResource(value="x")]}, "template.resources[0].key"),
    "a long resource": ({"resources": [LocalizedResource(key="k", value=LONG)]}, "template.resources[0].value"),
}


@pytest.mark.parametrize("row", BAD)
async def test_fields_of_a_template(sqlite_edge: Edge, row: str) -> None:
    """INVALID_ARGUMENT, and the field by its path."""
    fields, field = BAD[row]
    asked = wire.CreateTemplateRequest(template=template(**fields))
    refusal = await refused(sqlite_edge.operator.templates.CreateTemplate(asked))
    assert (refusal.code, refusal.reason) == (StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    assert refusal.fields == (field,)


async def test_every_bad_field_of_a_change_is_told(sqlite_edge: Edge) -> None:
    """All at once; a lone percent sign by its place."""
    asked = wire.UpdateTemplateRequest(
        key="", text="5% off", caption="\n", variants=[Variant()], clear=["text", "name"], message_class=UNKNOWN
    )
    refusal = await refused(sqlite_edge.operator.templates.UpdateTemplate(asked))
    assert set(refusal.fields) == {"key", "text", "caption", "variants[0].text", "clear", "message_class"}
    assert "character 2 " in refusal.descriptions[refusal.fields.index("text")]


async def test_lists_are_filtered_ordered_and_paged(edge: Edge) -> None:
    """By priority and key unless told; each template once over the pages; a token fits its list alone."""
    for key, priority, fields in (
        ("c", 1, {"caption": "Größe"}),
        ("a", 2, {"name": "Z"}),
        ("b", 1, {"is_active": False}),
        ("d", 0, {"caption": "GRÖSSE XL"}),
    ):
        await make(edge, key=key, priority=priority, **fields)
    await edge.operator.templates.UpdateTemplate(wire.UpdateTemplateRequest(key="c", text="later"))
    assert await keys(edge) == ["d", "b", "c", "a"]
    assert await keys(edge, order_by="priority desc") == ["a", "c", "b", "d"]
    assert await keys(edge, order_by="key") == ["a", "b", "c", "d"]
    assert await keys(edge, order_by="name desc") == ["d", "c", "b", "a"]
    assert await keys(edge, order_by="create_time") == ["c", "a", "b", "d"]
    assert await keys(edge, order_by="update_time desc") == ["c", "d", "b", "a"]
    assert await keys(edge, is_active=False) == ["b"]
    assert await keys(edge, name="Z") == ["a"]
    assert await keys(edge, caption="grösse") == ["d", "c"]
    first = await edge.operator.templates.ListTemplates(wire.ListTemplatesRequest(page_size=3))
    rest = wire.ListTemplatesRequest(page_size=3, page_token=first.next_page_token)
    second = await edge.operator.templates.ListTemplates(rest)
    assert [each.key for each in (*first.templates, *second.templates)] == ["d", "b", "c", "a"]
    assert (len(second.templates), second.next_page_token) == (1, "")
    other = wire.ListTemplatesRequest(order_by="key", page_token=first.next_page_token)
    assert (await refused(edge.operator.templates.ListTemplates(other))).reason == "PAGE_TOKEN_INVALID"
    unknown = wire.ListTemplatesRequest(order_by="text")
    assert (await refused(edge.operator.templates.ListTemplates(unknown))).fields == ("order_by",)


async def preview(edge: Edge, **fields: Any) -> wire.PreviewTemplateResponse:
    return await edge.operator.templates.PreviewTemplate(wire.PreviewTemplateRequest(**fields))


async def test_a_preview_shows_what_would_be_said(edge: Edge) -> None:
    """By language and channel, active or not, with the parts it takes, what is missing and what is too much."""
    await edge.operator.access.UpdateTenant(UpdateTenantRequest(default_locale="fa"))
    await make(edge, **WHOLE, is_active=False)
    shown = await preview(edge, key="login", params={"token": "1234", "html": "&", "extra": "x", "also": "x"})
    assert (shown.text, shown.encoding, shown.segments) == ("کد 1234", "UCS-2", 1)
    assert list(shown.missing_params) == ["shop", "shop2", "subject"]
    assert list(shown.unused_params) == ["also", "extra"]
    mail = await preview(edge, key="login", locale="de", channel=CHANNEL_EMAIL, params={"CODE": "1", "subject": "a\nb"})
    assert (mail.text, mail.subject, mail.encoding) == ("1", "a b", "GSM-7")
    spoken = await preview(edge, key="login", channel=CHANNEL_VOICE, params={"CODE": "12"})
    assert (spoken.text, spoken.subject) == ("Code 1, 2 of %shop%", "")
    bound = await preview(edge, key="login", provider="kavenegar", params={"CODE": "1"})
    assert list(bound.missing_params) == ["shop2"]


async def test_a_preview_of_a_text(edge: Edge) -> None:
    """Nothing is evaluated, nothing is read again, and what is missing is left as it stands."""
    shown = await preview(edge, text="%a% %b% 100%% %c%", params={"a": "%b%", "b": "{{7*7}}"})
    assert (shown.text, list(shown.missing_params)) == ("%b% {{7*7}} 100% %c%", ["c"])
    assert (await preview(edge, text="%a%", params={"a": "x" * 161})).segments == 2


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, {"key", "text"}),
        ({"key": "a", "text": "b"}, {"key", "text"}),
        ({"key": "a b"}, {"key"}),
        ({"text": "5%"}, {"text"}),
        ({"text": "x", "locale": "fa__IR", "channel": UNKNOWN}, {"locale", "channel"}),
        ({"text": "x", "params": {"a b": "x"}}, {"params"}),
        ({"text": "x", "params": {"a": "\x00"}}, {"params.a"}),
    ],
)
async def test_fields_of_a_preview(sqlite_edge: Edge, fields: dict[str, Any], expected: set[str]) -> None:
    """INVALID_ARGUMENT with every bad field."""
    refusal = await refused(preview(sqlite_edge, **fields))
    assert (refusal.code, set(refusal.fields)) == (StatusCode.INVALID_ARGUMENT, expected)
