"""Provider accounts as they are configured, what a type of provider needs and can do, and what is handed off to it."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from server.model.clock import Micros
from server.model.enums import Channel, MessageClass
from server.model.messages import Follow
from server.model.outcomes import Outcome


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting or secret of a provider type, with what a form needs to ask for it."""

    name: str
    label: str
    help: str = ""
    required: bool = False
    """An account cannot send without it; where `unless` names a setting, one of the two will do."""
    secret: bool = False
    rules: tuple[str, ...] = ()
    """`min:8`, `max:120`, `phone`, `url`, `one_of:a|b`, `matches:[a-z]+`: checked when an account is configured."""
    default: str = ""
    choices: tuple[str, ...] = ()
    control: str = "text"
    unless: str = ""
    """The setting that makes this required one needless."""


@dataclass(frozen=True, slots=True)
class ProviderType:
    """A kind of upstream: how it is configured and what it can do."""

    type: str
    caption: str
    channels: tuple[Channel, ...]
    settings: tuple[Setting, ...] = ()
    follow: Follow = Follow()
    capabilities: tuple[str, ...] = ()
    documentation_url: str = ""
    default_base_url: str = ""
    in_process: bool = False
    """Nothing leaves the process: allowed to a SANDBOX tenant as it is."""

    @property
    def requires_setup(self) -> bool:
        """Whether an account needs a setting that has no default."""
        return bool(self.missing(()))

    def missing(self, there: Collection[str]) -> list[str]:
        """The settings that an account lacks which has values for those `there`."""
        return [
            setting.name
            for setting in self.settings
            if setting.required and not setting.default and not {setting.name, setting.unless} & set(there)
        ]


@dataclass(frozen=True, slots=True)
class Account:
    """One tenant's account with an upstream, at one version of its configuration. Secrets are plain: never log it."""

    tenant_id: str
    uid: str
    name: str
    type: str
    channels: tuple[Channel, ...]
    version: int = 1
    configured: bool = True
    is_active: bool = True
    priority: int = 0
    base_url: str = ""
    timeout_seconds: float = 8.0
    settings: Mapping[str, str] = field(default_factory=dict[str, str])
    secrets: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    follow: Follow = Follow()
    in_process: bool = False
    default_base_url: str = ""

    @property
    def safe_for_sandbox(self) -> bool:
        """Whether a SANDBOX tenant may use it: nothing of it reaches the provider's own address."""
        return self.in_process or (bool(self.base_url) and _host(self.base_url) != _host(self.default_base_url))


def _host(url: str) -> str:
    return (urlsplit(url).hostname or "").rstrip(".")


@dataclass(frozen=True, slots=True)
class HandOff:
    """One message to one destination, ready for a provider. `valid_micros` is what is left of its life."""

    tracking_id: str
    attempt: int
    channel: Channel
    message_class: MessageClass
    destination: str = field(repr=False)
    text: str = field(repr=False)
    sender: str
    provider_key: int
    valid_micros: Micros
    timeout_seconds: float
    reference: str = ""
    locale: str = ""
    """BCP 47, for what has to know it, as a voice does; "" where nobody said."""
    template: str = ""
    """The provider's own name of the template that says it, with `params` in its words; "": `text` as it stands."""
    params: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    application_key: str = ""
    """Which of the account's applications sends it, where it has several; "": its own."""
    report_to: str = field(default="", repr=False)
    """Where the provider shall post its receipts of this very attempt; "": nowhere, it is polled."""
    leave_by: float = math.inf
    """By time.monotonic(): its first byte leaves by then or never."""


@dataclass(frozen=True, slots=True)
class Sought:
    """A hand-off whose answer was lost, as a look-up describes it to the provider. Times in µs UTC."""

    provider_key: int
    channel: Channel
    destination: str = field(repr=False)
    text: str = field(repr=False)
    started_at: Micros
    deadline: Micros


@dataclass(frozen=True, slots=True)
class Check:
    """What the check of an account came to; `balance` with its unit, where the provider tells it."""

    outcome: Outcome
    balance: str = ""
