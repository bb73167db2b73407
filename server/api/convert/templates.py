"""Templates: checked, turned into what is kept, and shown again."""

from collections.abc import Sequence

from angarium.v1 import template_service_pb2 as wire
from angarium.v1.message_pb2 import LocalizedResource

from server.api.convert.checks import CAPTION_CHARS_MAX, ID_CHARS_MAX, Checks
from server.api.convert.messages import TEXT_CHARS_MAX
from server.api.convert.times import timestamp
from server.api.convert.words import CHANNELS, CLASSES
from server.model.templates import (
    NAME,
    BadTemplate,
    KeptTemplate,
    ProviderTemplate,
    Resource,
    Template,
    TemplateChange,
    TemplateContent,
    Variant,
    param_names,
    params_of,
)

PARTS_MAX = 100
"""So many variants, templates of providers, captions and intents a template has at most of each."""
PARAMS_MAX = 64
SUBJECT_CHARS_MAX = 255
HTML_BYTES_MAX = 64 * 1024
PROVIDER_CHARS_MAX = 63
CLEARABLE = frozenset(
    {"caption", "text", "variants", "provider_templates", "resources", "message_class", "intents"},
)
_SAYING = ("text", "variants", "provider_templates")
_NOTHING_TO_SAY = "is required where there are no variants and no provider_templates"


def template_key(checks: Checks, field: str, key: str) -> str:
    """The key of a template."""
    return checks.intent(field, key)


def new_template(given: wire.Template) -> TemplateContent:
    """The content of a template to make. Raises Invalid with every bad field."""
    checks = Checks()
    template_key(checks, "template.key", given.key)
    content = TemplateContent(
        name=checks.line("template.name", given.name, CAPTION_CHARS_MAX) or given.key,
        caption=checks.line("template.caption", given.caption, CAPTION_CHARS_MAX),
        text=_text(checks, "template.text", given.text),
        is_active=given.is_active if given.HasField("is_active") else True,
        priority=given.priority,
        variants=_variants(checks, "template.variants", given.variants),
        provider_templates=_provider_templates(checks, "template.provider_templates", given.provider_templates),
        resources=_resources(checks, "template.resources", given.resources),
        message_class=checks.word("template.message_class", CLASSES, given.message_class),
        intents=_intents(checks, "template.intents", given.intents),
    )
    _check_whole(checks, "template.text", content)
    checks.settle()
    return content


def template_change(request: wire.UpdateTemplateRequest, before: Template | None) -> TemplateChange:
    """What a request changes. Raises Invalid with every bad field; what comes of it is judged by `check_content`.

    `before`: the template as this process knows it, which may be a second old; None where it knows none.
    """
    checks = Checks()
    template_key(checks, "key", request.key)
    checks.line("etag", request.etag, ID_CHARS_MAX)
    variants = _variants(checks, "variants", request.variants)
    bound = _provider_templates(checks, "provider_templates", request.provider_templates)
    resources = _resources(checks, "resources", request.resources)
    caption = checks.line("caption", request.caption, CAPTION_CHARS_MAX)
    change = TemplateChange(
        name=_name(checks, request),
        caption=caption if request.HasField("caption") else None,
        text=_text(checks, "text", request.text) if request.HasField("text") else None,
        is_active=request.is_active if request.HasField("is_active") else None,
        priority=request.priority if request.HasField("priority") else None,
        variants=variants or None,
        provider_templates=bound or None,
        resources=resources or None,
        message_class=checks.word("message_class", CLASSES, request.message_class),
        intents=_intents(checks, "intents", request.intents) or None,
        clear=_cleared(checks, request.clear),
    )
    if checks.failed and before is not None:
        _check_left(checks, change, before)
    checks.settle()
    return change


def check_content(content: TemplateContent) -> None:
    """Whether a changed template still says something. Raises Invalid."""
    checks = Checks()
    _check_whole(checks, "text", content)
    checks.settle()


def template(kept: KeptTemplate) -> wire.Template:
    """A template as its tenant sees it."""
    content = kept.content
    return wire.Template(
        key=kept.key,
        name=content.name,
        caption=content.caption,
        text=content.text,
        is_active=content.is_active,
        priority=content.priority,
        variants=map(_variant, content.variants),
        provider_templates=map(_provider_template, content.provider_templates),
        resources=[LocalizedResource(key=r.key, locale=r.locale, value=r.value) for r in content.resources],
        message_class=CLASSES.number(content.message_class),
        param_names=param_names(kept.template),
        revision=kept.revision,
        etag=str(kept.revision),
        create_time=timestamp(kept.created_at),
        update_time=timestamp(kept.updated_at),
        intents=content.intents,
    )


def check_text(checks: Checks, field: str, text: str, chars_max: int) -> str:
    """A text with parameters that can be filled in."""
    checks.text(field, text, chars_max)
    if len(text) > chars_max:
        return text
    try:
        params_of(text)
    except BadTemplate as bad:
        checks.fail(field, str(bad))
    return text


def _variant(variant: Variant) -> wire.TemplateVariant:
    return wire.TemplateVariant(
        locale=variant.locale,
        channel=CHANNELS.number(variant.channel),
        text=variant.text,
        subject=variant.subject,
        html=variant.html,
    )


def _provider_template(bound: ProviderTemplate) -> wire.ProviderTemplate:
    return wire.ProviderTemplate(
        provider=bound.provider, template_name=bound.template_name, params=bound.params, locale=bound.locale
    )


def _check_whole(checks: Checks, field: str, content: TemplateContent) -> None:
    if not (content.text or content.variants or content.provider_templates):
        checks.fail(field, _NOTHING_TO_SAY)


def _check_left(checks: Checks, change: TemplateChange, before: Template) -> None:
    """Whether a change leaves something to say; of use beside other bad fields, where the change is not made."""
    for name in _SAYING:
        kept = () if name in change.clear else getattr(before, name)
        if kept if (given := getattr(change, name)) is None else given:
            return
    checks.fail("text", _NOTHING_TO_SAY)


def _name(checks: Checks, request: wire.UpdateTemplateRequest) -> str | None:
    if not request.HasField("name"):
        return None
    return checks.line("name", request.name, CAPTION_CHARS_MAX) or request.key


def _text(checks: Checks, field: str, text: str) -> str:
    if text and not text.strip():
        checks.fail(field, "is blank")
    return check_text(checks, field, text, TEXT_CHARS_MAX) if text else ""


def _variants(checks: Checks, field: str, given: Sequence[wire.TemplateVariant]) -> tuple[Variant, ...]:
    if not checks.count(field, given, PARTS_MAX):
        return ()
    variants = tuple(_checked_variant(checks, f"{field}[{n}]", each) for n, each in enumerate(given))
    _check_once(checks, field, [(v.locale.lower(), v.channel) for v in variants], "the language and channel")
    return variants


def _checked_variant(checks: Checks, field: str, given: wire.TemplateVariant) -> Variant:
    if not given.text.strip():
        checks.fail(f"{field}.text", "is required")
    else:
        check_text(checks, f"{field}.text", given.text, TEXT_CHARS_MAX)
    checks.line(f"{field}.subject", given.subject, SUBJECT_CHARS_MAX)
    if given.subject and len(given.subject) <= SUBJECT_CHARS_MAX:
        check_text(checks, f"{field}.subject", given.subject, SUBJECT_CHARS_MAX)
    if len(given.html.encode()) > HTML_BYTES_MAX:
        checks.fail(f"{field}.html", f"has more than {HTML_BYTES_MAX} bytes")
    elif given.html:
        check_text(checks, f"{field}.html", given.html, HTML_BYTES_MAX)
    return Variant(
        locale=checks.locale(f"{field}.locale", given.locale),
        channel=checks.word(f"{field}.channel", CHANNELS, given.channel),
        text=given.text,
        subject=given.subject,
        html=given.html,
    )


def _provider_templates(
    checks: Checks, field: str, given: Sequence[wire.ProviderTemplate]
) -> tuple[ProviderTemplate, ...]:
    if not checks.count(field, given, PARTS_MAX):
        return ()
    bound = tuple(_checked_bound(checks, f"{field}[{n}]", each) for n, each in enumerate(given))
    _check_once(checks, field, [(b.provider, b.locale.lower()) for b in bound], "the provider and language")
    return bound


def _checked_bound(checks: Checks, field: str, given: wire.ProviderTemplate) -> ProviderTemplate:
    if checks.count(f"{field}.params", given.params, PARAMS_MAX):
        for theirs, ours in given.params.items():
            checks.line(f"{field}.params", theirs, ID_CHARS_MAX, required=True)
            if not NAME.fullmatch(ours):
                checks.fail(f"{field}.params", f"holds {ours[:20]!r}; names are 1–64 of A-Z a-z 0-9 _")
    return ProviderTemplate(
        provider=checks.line(f"{field}.provider", given.provider, PROVIDER_CHARS_MAX, required=True),
        template_name=checks.line(f"{field}.template_name", given.template_name, ID_CHARS_MAX, required=True),
        params=dict(sorted(given.params.items())),
        locale=checks.locale(f"{field}.locale", given.locale),
    )


def _check_once(checks: Checks, field: str, places: Sequence[object], of_what: str) -> None:
    for number, place in enumerate(places):
        if place in places[:number]:
            checks.fail(f"{field}[{number}]", f"has {of_what} of an earlier one")


def _resources(checks: Checks, field: str, given: Sequence[LocalizedResource]) -> tuple[Resource, ...]:
    if not checks.count(field, given, PARTS_MAX):
        return ()
    return tuple(
        Resource(
            key=checks.line(f"{field}[{number}].key", resource.key, ID_CHARS_MAX, required=True),
            locale=checks.locale(f"{field}[{number}].locale", resource.locale),
            value=checks.text(f"{field}[{number}].value", resource.value, TEXT_CHARS_MAX),
        )
        for number, resource in enumerate(given)
    )


def _intents(checks: Checks, field: str, given: Sequence[str]) -> tuple[str, ...]:
    if not checks.count(field, given, PARTS_MAX):
        return ()
    for number, intent in enumerate(given):
        checks.intent(f"{field}[{number}]", intent)
    return tuple(dict.fromkeys(given))


def _cleared(checks: Checks, names: Sequence[str]) -> frozenset[str]:
    checks.count("clear", names, PARTS_MAX)
    if not CLEARABLE.issuperset(names):
        checks.fail("clear", f"can hold {', '.join(sorted(CLEARABLE))}")
    return CLEARABLE.intersection(names)
