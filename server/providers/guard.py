"""Which addresses the gateway may connect to.

Addresses of upstreams come from operators and tenants, so only https on usual ports of globally reachable hosts is
allowed. A URL is judged by its spelling when it is configured and at each call. Names are resolved here, every answer
is judged, and the very address that a socket is made for is judged once more: a name that changes its mind between
the check and the connect gains nothing. `allow_private` also admits http, any port and private addresses, for
development.
"""

import ipaddress
import re
import socket
from typing import Any

from aiohttp.abc import AbstractResolver, ResolveResult

URL_CHARS_MAX = 512
PORTS = frozenset({443, 8443})
PORT_MAX = 65535
NAME_CHARS_MAX = 253

_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<authority>[^/?#\\]*)(?P<path>(?:/[A-Za-z0-9._~-]*)*)")
_AUTHORITY = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+)(?::(?P<port>[0-9]{1,5}))?")
_LABEL = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)")
_NUMERIC = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*")
_LOCAL_NAMES = ("localhost", "local", "internal", "lan", "home", "corp", "intranet", "arpa", "onion", "test", "invalid")
_WILDCARD_NAMES = ("nip.io", "sslip.io", "xip.io", "localtest.me", "lvh.me", "vcap.me", "lacolhost.com")
"""Public names that answer with whatever address their first labels spell, or with loopback."""

_GLOBAL_V6 = ipaddress.IPv6Network("2000::/3")
_TUNNELS = tuple(ipaddress.IPv6Network(net) for net in ("2002::/16", "2001::/32"))
_RELAYS = ipaddress.IPv4Network("192.88.99.0/24")

AddressInfo = tuple[int, int, int, str, tuple[Any, ...]]
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class AddressRefused(OSError):
    """The address is not one that the gateway connects to."""


def check_base_url(url: str, allow_private: bool) -> str | None:  # noqa: FBT001 - the one setting it depends on
    """A sentence that says what is wrong with the URL of an upstream, or None. Judges the spelling alone."""
    found = _URL.fullmatch(url) if len(url) <= URL_CHARS_MAX else None
    if found is None:
        return "It must be a plain URL such as https://api.example.com/path, without query, fragment or escapes."
    scheme = found["scheme"].lower()
    if scheme != "https" and not (allow_private and scheme == "http"):
        return "It must begin with https://."
    if ".." in found["path"]:
        return "Its path must not hold '..'."
    return _check_authority(found["authority"], allow_private=allow_private)


def _check_authority(authority: str, *, allow_private: bool) -> str | None:
    if "@" in authority:
        return "It must not hold a user name or a password."
    found = _AUTHORITY.fullmatch(authority)
    if found is None:
        return "Its host is not a name or an address."
    port = int(found["port"]) if found["port"] else 443
    if not 0 < port <= PORT_MAX or not (allow_private or port in PORTS):
        return "Its port must be 443 or 8443."
    return _check_host(found["host"], allow_private=allow_private)


def _check_host(host: str, *, allow_private: bool) -> str | None:
    if host.startswith("["):
        return _check_literal(host[1:-1], allow_private=allow_private)
    labels = host.split(".")
    if _NUMERIC.fullmatch(labels[-1]):
        return _check_literal(host, allow_private=allow_private)
    if len(host) > NAME_CHARS_MAX or not all(_LABEL.fullmatch(label) for label in labels):
        return "Its host is not a name or an address."
    return None if allow_private else _check_name(host.lower(), labels)


def _check_literal(host: str, *, allow_private: bool) -> str | None:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return "Its address must be spelled as four decimal numbers, or as IPv6 in brackets."
    return (
        None
        if allowed(address, allow_private=allow_private)
        else "Its address is not reachable from everywhere, so it is refused."
    )


def _check_name(host: str, labels: list[str]) -> str | None:
    if len(labels) == 1 or labels[-1].lower() in _LOCAL_NAMES:
        return "Its host is a name of a local network."
    if any(host == name or host.endswith("." + name) for name in _WILDCARD_NAMES):
        return "Its host is a name that can stand for any address."
    return None


def allowed(address: _Address, *, allow_private: bool) -> bool:
    """Whether the gateway may connect to an address."""
    if allow_private:
        return not (address.is_link_local or address.is_multicast or address.is_unspecified)
    if not address.is_global or address.is_multicast or address.is_reserved:
        return False
    if isinstance(address, ipaddress.IPv4Address):
        return address not in _RELAYS
    return address in _GLOBAL_V6 and not any(address in tunnel for tunnel in _TUNNELS)


def require_allowed(host: str, *, allow_private: bool) -> None:
    """Raises AddressRefused unless `host` is the plain spelling of an address that the gateway may connect to."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError as error:
        raise AddressRefused("not an address") from error
    if not allowed(address, allow_private=allow_private):
        raise AddressRefused("an address that is refused")


class GuardedResolver(AbstractResolver):
    """Resolves names, and refuses a name as a whole when any of its addresses is refused."""

    def __init__(self, inner: AbstractResolver, *, allow_private: bool) -> None:
        self._inner = inner
        self._allow_private = allow_private

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        answers = await self._inner.resolve(host, port, family)
        for answer in answers:
            require_allowed(answer["host"], allow_private=self._allow_private)
        return answers

    async def close(self) -> None:
        await self._inner.close()


def guarded_socket(info: AddressInfo, *, allow_private: bool) -> socket.socket:
    """The socket for one address, which is judged here for the last time. Raises AddressRefused."""
    family, kind, protocol, _, address = info
    require_allowed(str(address[0]), allow_private=allow_private)
    return socket.socket(family, kind, protocol)
