"""Provider accounts and types: what may be asked of them, and how they are shown."""

import json
import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from angarium.v1 import provider_service_pb2 as wire
from angarium.v1.message_pb2 import LocalizedResource

from server.api.convert.checks import CAPTION_CHARS_MAX, ID_CHARS_MAX, Checks
from server.api.convert.times import duration, timestamp
from server.api.convert.words import CHANNELS
from server.model.accounts import Account, ProviderType, Setting
from server.model.clock import SECOND
from server.model.configuration import ProviderChange
from server.model.configuration_tables import ProviderAccount
from server.model.phones import BadPhone, to_e164
from server.providers.guard import check_base_url
from server.store.accounts import no_such_type

NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}")
VALUES_MAX, VALUE_CHARS_MAX = 64, 4_096
RESOURCES_MAX, RESOURCE_CHARS_MAX = 100, 1_600
TIMEOUT_SECONDS = (1, 60)
CLEARABLE = frozenset({"base_url", "timeout", "priority", "caption", "resources", "settings", "secrets"})
_URL_SCHEMES = ("http", "https")


def provider_name(checks: Checks, name: str) -> str:
    """The name of an account."""
    if not name:
        checks.fail("name", "is required")
    elif not NAME.fullmatch(name):
        checks.fail("name", "must be 1–63 of a-z 0-9 _ . - and begin with a letter or a digit")
    return name


def provider_change(
    request: wire.ConfigureProviderRequest, types: Mapping[str, ProviderType], there: str, *, allow_private: bool
) -> ProviderChange:
    """What a request changes. Raises Invalid with every bad field, NotFound for a type that nobody knows.

    `there`: the type of the account of this name, "" where there is none. The account that comes of the change is
    judged once more by `check_account`.
    """
    checks = Checks()
    kind = types.get(checks.line("type", request.type, ID_CHARS_MAX) or there)
    # A type that nobody knows is no name either; that there is no such type helps more.
    if request.name or not request.type or kind:
        provider_name(checks, request.name or request.type)
    _check_base_url(checks, request.base_url, allow_private=allow_private)
    settings = checks.entries("settings", request.settings, VALUES_MAX, VALUE_CHARS_MAX)
    change = ProviderChange(
        type=request.type or None,
        caption=checks.line("caption", request.caption, CAPTION_CHARS_MAX) if request.HasField("caption") else None,
        is_active=request.is_active if request.HasField("is_active") else None,
        priority=request.priority if request.HasField("priority") else None,
        base_url=request.base_url if request.HasField("base_url") else None,
        timeout_micros=_timeout(checks, request),
        settings={name: value for name, value in settings.items() if value},
        secrets={name: value for name, value in _secrets(checks, request).items() if value},
        resources=_resources_text(checks, request),
        clear=_cleared(checks, request) | {f"settings.{name}" for name, value in settings.items() if not value},
    )
    checks.line("etag", request.etag, ID_CHARS_MAX)
    if kind:
        _check_settings(checks, kind, change.settings, change.secrets)
    checks.settle()
    if request.type and not kind:
        raise no_such_type(request.type)
    return change


def _check_base_url(checks: Checks, url: str, *, allow_private: bool) -> None:
    wrong = check_base_url(url, allow_private) if url else None
    if wrong is not None:
        checks.fail("base_url", wrong)


def check_account(account: Account, types: Mapping[str, ProviderType]) -> None:
    """Judge an account's settings and secrets by its type's rules. Raises Invalid with every bad one."""
    checks = Checks()
    _check_settings(checks, types[account.type], account.settings, account.secrets)
    checks.settle()


def _check_settings(
    checks: Checks, kind: ProviderType, settings: Mapping[str, str], secrets: Mapping[str, str]
) -> None:
    known = {setting.name: setting for setting in kind.settings}
    for field, values, secret in (("settings", settings, False), ("secrets", secrets, True)):
        for name, value in values.items():
            setting = known.get(name)
            if setting is None:
                checks.fail(f"{field}.{name}", f"is no setting of the type {kind.type}")
            elif setting.secret != secret:
                checks.fail(f"{field}.{name}", f"belongs in {'secrets' if setting.secret else 'settings'}")
            else:
                _check_value(checks, f"{field}.{name}", setting, value)


def _check_value(checks: Checks, field: str, setting: Setting, value: str) -> None:
    if setting.choices and value not in setting.choices:
        checks.fail(field, f"must be one of {', '.join(setting.choices)}")
    for rule in setting.rules:
        wrong = _broken(rule, value)
        if wrong:
            checks.fail(field, wrong)


def _broken(rule: str, value: str) -> str:
    """What a value lacks to fulfil a rule; empty when it does."""
    name, _, argument = rule.partition(":")
    match name:
        case "min":
            return f"has fewer than {argument} characters" if len(value) < int(argument) else ""
        case "max":
            return f"has more than {argument} characters" if len(value) > int(argument) else ""
        case "integer":
            return "" if re.fullmatch(r"-?[0-9]{1,18}", value) else "is no whole number"
        case "url":
            return "" if urlsplit(value).scheme in _URL_SCHEMES and urlsplit(value).hostname else "is no http(s) URL"
        case "phone":
            return _no_phone(value)
        case "matches":
            return "" if re.fullmatch(argument, value) else f"does not match {argument}"
        case "one_of":
            return "" if value in argument.split("|") else f"must be one of {argument.replace('|', ', ')}"
        case _:
            raise ValueError(f"a provider type has a rule that nobody knows: {rule}")


def _no_phone(value: str) -> str:
    try:
        to_e164(value, "", voice=True)
    except BadPhone as bad:
        return str(bad)
    return ""


def _secrets(checks: Checks, request: wire.ConfigureProviderRequest) -> dict[str, str]:
    """An empty secret is more likely a form that was left blank than a wish to lose it."""
    secrets = checks.entries("secrets", request.secrets, VALUES_MAX, VALUE_CHARS_MAX)
    for name, value in secrets.items():
        if not value:
            checks.fail(f"secrets.{name}", f"is empty; leave it out to keep it, or clear secrets.{name}")
    return secrets


def _timeout(checks: Checks, request: wire.ConfigureProviderRequest) -> int | None:
    if not request.HasField("timeout"):
        return None
    span = checks.span("timeout", request.timeout)
    least, most = TIMEOUT_SECONDS
    if span is not None and not least * SECOND <= span <= most * SECOND:
        checks.fail("timeout", f"must be {least}–{most} s")
    return span


def _cleared(checks: Checks, request: wire.ConfigureProviderRequest) -> frozenset[str]:
    checks.count("clear", request.clear, VALUES_MAX)
    for name in request.clear:
        part, _, key = name.partition(".")
        if name not in CLEARABLE and not (part in ("settings", "secrets") and 0 < len(key) <= ID_CHARS_MAX):
            checks.fail("clear", f"can hold {', '.join(sorted(CLEARABLE))}, settings.<key> and secrets.<key>")
    return frozenset(request.clear)


def _resources_text(checks: Checks, request: wire.ConfigureProviderRequest) -> str | None:
    if not request.resources:
        return None
    checks.count("resources", request.resources, RESOURCES_MAX)
    resources = [
        {
            "key": checks.line(f"resources[{number}].key", resource.key, ID_CHARS_MAX, required=True),
            "locale": checks.locale(f"resources[{number}].locale", resource.locale),
            "value": checks.text(f"resources[{number}].value", resource.value, RESOURCE_CHARS_MAX),
        }
        for number, resource in enumerate(request.resources)
    ]
    return json.dumps(resources)


def provider(row: ProviderAccount, types: Mapping[str, ProviderType]) -> wire.Provider:
    """An account as its tenant sees it: of its secrets only that they are there."""
    kind = types.get(row.type)
    settings: dict[str, str] = json.loads(row.settings)
    marks: dict[str, dict[str, str | int]] = json.loads(row.secret_marks)
    return wire.Provider(
        name=row.name,
        uid=row.uid,
        type=row.type,
        caption=row.caption,
        resources=[LocalizedResource(**resource) for resource in json.loads(row.resources)],
        channels=[CHANNELS.number(channel) for channel in kind.channels] if kind else [],
        configured=kind is not None and not kind.missing(settings.keys() | marks.keys()),
        requires_setup=kind is not None and kind.requires_setup,
        is_active=row.is_active,
        base_url=row.base_url,
        timeout=duration(row.timeout_micros) if row.timeout_micros else None,
        priority=row.priority,
        settings=settings,
        secrets=[_secret(name, mark) for name, mark in sorted(marks.items())],
        tenant_id=row.tenant_id,
        client_id=row.client_id,
        create_time=timestamp(row.created_at),
        update_time=timestamp(row.updated_at),
        etag=str(row.revision),
    )


def unconfigured(kind: ProviderType, tenant_id: str) -> wire.Provider:
    """A type of which the tenant has no account, as if it had one that lacks everything."""
    return wire.Provider(
        name=kind.type,
        type=kind.type,
        caption=kind.caption,
        channels=[CHANNELS.number(channel) for channel in kind.channels],
        requires_setup=kind.requires_setup,
        is_active=False,
        tenant_id=tenant_id,
    )


def provider_type(kind: ProviderType) -> wire.ProviderType:
    """A type with all that a form needs to configure an account of it."""
    return wire.ProviderType(
        type=kind.type,
        caption=kind.caption,
        channels=[CHANNELS.number(channel) for channel in kind.channels],
        requires_setup=kind.requires_setup,
        settings=[_setting(setting) for setting in kind.settings],
        capabilities=kind.capabilities,
        documentation_url=kind.documentation_url,
    )


def _setting(setting: Setting) -> wire.Setting:
    return wire.Setting(
        name=setting.name,
        label=setting.label,
        help=setting.help,
        required=setting.required and not setting.unless,
        secret=setting.secret,
        rules=[*setting.rules, *([f"required_without:{setting.unless}"] if setting.unless else ())],
        default_value=setting.default,
        choices=setting.choices,
        control="password" if setting.secret and setting.control == "text" else setting.control,
    )


def _secret(name: str, mark: Mapping[str, str | int]) -> wire.SecretStatus:
    return wire.SecretStatus(
        name=name,
        last_four=str(mark["last_four"]),
        fingerprint=str(mark["fingerprint"]),
        update_time=timestamp(int(mark["updated_at"])),
        version=int(mark["version"]),
    )
