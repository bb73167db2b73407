"""What may be set from outside, by ANGARIUM_… variables. With nothing set: SQLite in ./data, loopback."""

from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

SQLITE = "sqlite:///"
PORT_MAX = 65535


class Settings(BaseSettings):
    """Read once at start, never changed. All else is data, changed by RPC, or a named constant beside its use."""

    model_config = SettingsConfigDict(env_prefix="ANGARIUM_", frozen=True, extra="forbid")

    database_url: str = Field(
        default="sqlite:///data/angarium.db",
        description="sqlite:///PATH for one process, or postgresql://USER@HOST/NAME for any number of replicas.",
    )
    listen: str = Field(default="127.0.0.1:50051", description="HOST:PORT of the gRPC server; port 0 picks a free one.")
    http_listen: str = Field(
        default="", description="HOST:PORT of the HTTP server, for receipts and /healthz. Unset: there is none."
    )
    public_url: str = Field(
        default="",
        description="What providers reach the HTTP server by, as in https://notify.example.com; a path is the proxy's "
        "to take off. Unset: receipts are polled.",
    )
    master_key: SecretStr = Field(
        default=SecretStr(""),
        description="Ring of master keys, `id:base64[,id:base64…]`, the first one wraps. Unset on SQLite: made in the "
        "database's folder. Required on Postgres.",
    )
    allow_private_upstreams: bool = Field(
        default=False,
        description="Allow provider base URLs with http or private addresses, as the sandbox upstream has.",
    )
    drain_seconds: float = Field(
        default=10.0, ge=0, le=300, description="How long a stop waits for what is on its way."
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    @field_validator("database_url")
    @classmethod
    def _known_engine(cls, url: str) -> str:
        if url.startswith(("postgresql://", "postgresql+psycopg://")) or url.removeprefix(SQLITE) not in ("", url):
            return url
        raise ValueError("must be sqlite:///PATH or postgresql://USER@HOST/NAME")

    @field_validator("http_listen")
    @classmethod
    def _host_and_port(cls, listen: str) -> str:
        host, _, port = listen.rpartition(":")
        if not listen or (host and port.isascii() and port.isdigit() and int(port) <= PORT_MAX):
            return listen
        raise ValueError("must be HOST:PORT")

    @field_validator("public_url")
    @classmethod
    def _public(cls, url: str, info: ValidationInfo) -> str:
        if not url:
            return url
        if not _is_plain_url(url):
            raise ValueError("must be an http or https URL without user, query and fragment")
        if not info.data.get("http_listen"):
            raise ValueError("needs ANGARIUM_HTTP_LISTEN: receipts come by HTTP")
        return url

    @property
    def data_folder(self) -> Path | None:
        """The folder of the SQLite database, where its keys live too; None on Postgres."""
        if not self.database_url.startswith(SQLITE):
            return None
        return Path(self.database_url.removeprefix(SQLITE)).parent


def _is_plain_url(url: str) -> bool:
    """Whether paths can be put behind it. Raises ValueError where it is no URL at all."""
    parsed = urlsplit(url)
    parts = (parsed.scheme in ("http", "https"), parsed.hostname, parsed.port != 0, url.isascii(), url.isprintable())
    return all(parts) and not any(mark in url for mark in "?#@ ")
