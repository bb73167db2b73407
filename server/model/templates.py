"""Templates: what a message says, by language, channel and provider; filled in with parameters, never evaluated."""

import re
from collections import ChainMap
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from html import escape
from types import MappingProxyType
from typing import cast

from server.model.clock import Micros
from server.model.enums import Channel, MessageClass, MessageKind
from server.model.errors import Precondition, Reason
from server.model.messages import CODE, TOKEN, Content, Message


@dataclass(frozen=True, slots=True)
class Variant:
    """A text for a language ("": every one), a channel (None: every one), or both."""

    locale: str
    channel: Channel | None
    text: str
    subject: str = ""
    html: str = ""


@dataclass(frozen=True, slots=True)
class ProviderTemplate:
    """A template that a provider keeps: its own name, and its parameters' names → ours. "" as locale: every one."""

    provider: str
    template_name: str
    params: Mapping[str, str]
    locale: str = ""


@dataclass(frozen=True, slots=True)
class Template:
    """A template at one revision."""

    key: str
    revision: int
    text: str = ""
    is_active: bool = True
    priority: int = 0
    variants: tuple[Variant, ...] = ()
    provider_templates: tuple[ProviderTemplate, ...] = ()
    message_class: MessageClass | None = None
    intents: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Resource:
    """A piece of text about a template in one language, for people who look after it."""

    key: str
    locale: str
    value: str


@dataclass(frozen=True, slots=True)
class TemplateContent:
    """All that a caller may set of a template; what a revision of it is."""

    name: str = ""
    caption: str = ""
    text: str = field(default="", repr=False)
    is_active: bool = True
    priority: int = 0
    variants: tuple[Variant, ...] = field(default=(), repr=False)
    provider_templates: tuple[ProviderTemplate, ...] = ()
    resources: tuple[Resource, ...] = ()
    message_class: MessageClass | None = None
    intents: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TemplateChange:
    """None: kept. `clear` names fields that go back to their default before the others are set."""

    name: str | None = None
    caption: str | None = None
    text: str | None = field(default=None, repr=False)
    is_active: bool | None = None
    priority: int | None = None
    variants: tuple[Variant, ...] | None = field(default=None, repr=False)
    provider_templates: tuple[ProviderTemplate, ...] | None = None
    resources: tuple[Resource, ...] | None = None
    message_class: MessageClass | None = None
    intents: tuple[str, ...] | None = None
    clear: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class KeptTemplate:
    """A template as it is kept, at one revision; `updated_at` is when that revision was made."""

    key: str
    revision: int
    content: TemplateContent
    created_at: Micros
    updated_at: Micros

    @property
    def template(self) -> Template:
        """What messages see of it."""
        content = self.content
        return Template(
            key=self.key,
            revision=self.revision,
            text=content.text,
            is_active=content.is_active,
            priority=content.priority,
            variants=content.variants,
            provider_templates=content.provider_templates,
            message_class=content.message_class,
            intents=content.intents,
        )


@dataclass(frozen=True, slots=True)
class Wording:
    """What one hand-off says: a text, or a template of the provider's own with parameters in its words."""

    text: str = field(repr=False)
    subject: str = field(default="", repr=False)
    html: str = field(default="", repr=False)
    template: str = ""
    params: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    locale: str = ""
    """The language that the text is in, where its variant says; "" where nobody does."""


NAME = re.compile(r"[A-Za-z0-9_]{1,64}")
"""What a parameter may be called."""
NO_TEMPLATES: Mapping[str, Template] = MappingProxyType({})

_PARAM = re.compile(r"%(?:%|([A-Za-z0-9_]{1,64})%)")
_BREAKS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


class BadTemplate(ValueError):
    """A text that holds a % which is neither a parameter nor doubled. Says where, to go on from a field's name."""


def one_name(name: str) -> str:
    """The one name of a parameter: `token` is CODE."""
    return CODE if name == TOKEN else name


@lru_cache(maxsize=512)
def params_of(text: str) -> frozenset[str]:
    """The parameters that a text names. Raises BadTemplate."""
    names: set[str] = set()
    at = text.find("%")
    while at >= 0:
        found = _PARAM.match(text, at)
        if found is None:
            raise BadTemplate(f"has a % at character {at + 1} that begins no parameter; a percent sign is %%")
        if found[1]:
            names.add(one_name(found[1]))
        at = text.find("%", found.end())
    return frozenset(names)


def fill(text: str, params: Mapping[str, str], *, as_html: bool = False) -> str:
    """The text with its parameters filled in; one that is missing stays as it is written. Values are not read again."""
    values = _values(params)

    def value(found: re.Match[str]) -> str:
        if found[1] is None:
            return "%"
        given = values.get(one_name(found[1]))
        if given is None:
            return found[0]
        return escape(given) if as_html else given

    return _PARAM.sub(value, text)


def param_names(template: Template) -> list[str]:
    """All that its texts and provider templates name, in alphabetical order."""
    texts = [template.text]
    for variant in template.variants:
        texts += (variant.text, variant.subject, variant.html)
    bound = {one_name(ours) for each in template.provider_templates for ours in each.params.values()}
    return sorted(bound.union(*map(params_of, texts)))


def missing_params(template: Template, given: Collection[str]) -> list[str]:
    """The parameters that the template names and nobody gave, in alphabetical order."""
    there = set(map(one_name, given))
    return [name for name in param_names(template) if name not in there]


def unbound_params(bound: ProviderTemplate, given: Collection[str]) -> list[str]:
    """The parameters that a provider's own template needs and nobody gave, in alphabetical order."""
    there = set(map(one_name, given))
    return sorted({one_name(ours) for ours in bound.params.values()} - there)


def unused_params(template: Template, given: Collection[str]) -> list[str]:
    """The parameters that were given and nothing in the template names, in alphabetical order."""
    named = set(param_names(template))
    return sorted(name for name in given if one_name(name) not in named)


def locales_of(wanted: str, default: str) -> tuple[str, ...]:
    """The languages to look for, in lower case: the person's tag, then it shortened, the default likewise, then ""."""
    return tuple(dict.fromkeys((*_shortened(wanted.lower()), *_shortened(default.lower()), "")))


def _shortened(tag: str) -> Iterator[str]:
    """A tag, and what is left of it each time that its last part is taken away; a single letter only opens a part."""
    while tag:
        yield tag
        tag = tag.rpartition("-")[0]
        if tag[-2:-1] == "-":
            tag = tag[:-2]


def chosen(templates: Iterable[Template], intent: str, message_class: MessageClass | None) -> Template | None:
    """What a message says that names neither a text nor a template: the first that serves its intent.

    `message_class` None: the message takes that of its template, and one of any class will do.
    """
    serving = (t for t in templates if t.is_active and intent in t.intents)
    return _first(t for t in serving if message_class is None or t.message_class in (None, message_class))


def chosen_for_code(templates: Iterable[Template], intent: str) -> Template | None:
    """What says a code where no template is named: the first of the class OTP that serves the intent, or any."""
    of_class = (t for t in templates if t.is_active and t.message_class == MessageClass.OTP)
    return _first(t for t in of_class if not t.intents or intent in t.intents)


def _first(templates: Iterable[Template]) -> Template | None:
    return min(templates, key=lambda template: (template.priority, template.key), default=None)


def require_usable(template: Template, message_class: MessageClass) -> None:
    """Raise Precondition (TEMPLATE_INACTIVE) unless messages of this class may be accepted with the template."""
    told = {"template_key": template.key}
    if not template.is_active:
        message = f"The template {template.key!r} is switched off."
        raise Precondition(Reason.TEMPLATE_INACTIVE, message, told)
    if template.message_class not in (None, message_class):
        message = f"The template {template.key!r} is for messages of the class {template.message_class}."
        raise Precondition(Reason.TEMPLATE_INACTIVE, message, told)


def beside(templates: Mapping[str, Template], own: Template | None) -> Mapping[str, Template]:
    """A tenant's templates by key, for the steps that name one, and under "" the message's own, at its revision."""
    return ChainMap({"": own} if own else {}, cast("dict[str, Template]", templates))


def worded_by_step(
    message: Message,
    content: Content,
    templates: Mapping[str, Template],
    template_key: str,
    channel: Channel,
    account: str,
    default_locale: str,
) -> Wording | None:
    """As `worded`, by the template that a step names, or the message's own under ""; None where the step's is gone."""
    template = templates.get(template_key)
    if template is None and template_key:
        return None
    return worded(message, content, template, channel, account, default_locale)


def worded(
    message: Message, content: Content, template: Template | None, channel: Channel, account: str, default_locale: str
) -> Wording | None:
    """What a hand-off by this account, named, says over this channel; None where it has no way to say it.

    `template` is the one that the step names, else the message's own; without one the content's own text says it. Of a
    code, nothing is sent that does not tell it.
    """
    if template is None:
        said = content.text and message.message_kind != MessageKind.PROVIDER_TEMPLATED
        return Wording(content.text) if said else None
    locales = locales_of(content.recipient.locale, default_locale)
    bound = None if message.message_kind == MessageKind.TEXT else bound_to(template, account, locales)
    if bound is None:
        return (
            None
            if message.message_kind == MessageKind.PROVIDER_TEMPLATED
            else _said(message, template, content, channel, locales)
        )
    values = _values(content.params)
    if unbound_params(bound, values) or not _tells_code(message, values, map(one_name, bound.params.values())):
        return None
    params = {theirs: values[one_name(ours)] for theirs, ours in bound.params.items()}
    said = _said(message, template, content, channel, locales) or Wording("")
    return replace(said, template=bound.template_name, params=params)


def bound_to(template: Template, account: str, locales: Sequence[str]) -> ProviderTemplate | None:
    """The template that this provider account keeps for ours, in the first of these languages that it has."""
    bound = {each.locale.lower(): each for each in template.provider_templates if each.provider == account}
    return next((bound[locale] for locale in locales if locale in bound), None)


def variant_for(template: Template, channel: Channel, locales: Sequence[str]) -> Variant | None:
    """The text for the first of these languages, for one language that of the channel first; the plain text last."""
    variants = {(each.locale.lower(), each.channel): each for each in template.variants}
    for place in ((locale, of) for locale in locales for of in (channel, None)):
        if place in variants:
            return variants[place]
    return Variant("", None, template.text) if template.text else None


def wording_of(variant: Variant, params: Mapping[str, str], channel: Channel) -> Wording:
    """A text, its subject and its HTML with the parameters filled in; a code is spoken one character at a time."""
    values = _values(params)
    if channel == Channel.VOICE and CODE in values:
        values[CODE] = ", ".join(values[CODE])
    # What a parameter holds could end the subject's line, and begin another header.
    subject = _BREAKS.sub(" ", fill(variant.subject, values))
    html = fill(variant.html, values, as_html=True)
    return Wording(fill(variant.text, values), subject, html, locale=variant.locale)


def _said(
    message: Message, template: Template, content: Content, channel: Channel, locales: Sequence[str]
) -> Wording | None:
    """In text; None where there is none for the channel, a parameter is missing, or nothing would be left to read."""
    variant, values = variant_for(template, channel, locales), _values(content.params)
    if variant is None or not _tells_code(message, values, params_of(variant.text)):
        return None
    needed = params_of(variant.text) | params_of(variant.subject) | params_of(variant.html)
    if not needed <= values.keys():
        return None
    wording = wording_of(variant, content.params, channel)
    return wording if wording.text.strip() else None


def _tells_code(message: Message, values: Collection[str], named: Iterable[str]) -> bool:
    """Whether what is said names the code, where there is one to tell."""
    return message.message_class != MessageClass.OTP or CODE not in values or CODE in set(named)


def _values(params: Mapping[str, str]) -> dict[str, str]:
    """The parameters, each under its one name."""
    values = {one_name(name): value for name, value in params.items()}
    return {**values, CODE: params[CODE]} if CODE in params else values
