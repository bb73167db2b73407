"""Which addresses the gateway connects to: by spelling, by resolution, and at the socket."""

import ipaddress
import socket
import sys
from collections.abc import Iterator

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from hypothesis import given, strategies as st

from server.providers.guard import AddressRefused, allowed, check_base_url, guarded_socket
from server.providers.transport import ADDRESS_REFUSED, NOT_SENT, Answer, Call, NotSent, Transport
from tests.scripted_upstream import ScriptedUpstream

GOOD = [
    "https://api.kavenegar.com",
    "https://api.kavenegar.com/",
    "https://api.kavenegar.com/prefix/v2",
    "HTTPS://API.Kavenegar.com:443",
    "https://api.example.com:8443",
    "https://xn--mgbh0fb.example.com",
    "https://1.1.1.1",
    "https://[2606:4700:4700::1111]:8443/x",
]
SOMETIMES = [
    "http://api.kavenegar.com",
    "http://127.0.0.1:8089",
    "https://127.0.0.1",
    "https://127.255.255.254",
    "https://10.0.0.8",
    "https://172.16.0.1",
    "https://192.168.1.1",
    "https://100.64.0.1",
    "https://198.18.0.1",
    "https://192.88.99.1",
    "https://240.0.0.1",
    "https://[::1]:8443",
    "https://[fd00::1]",
    "https://[fec0::1]",
    "https://[::ffff:127.0.0.1]",
    "https://[::ffff:8.8.8.8]",
    "https://[64:ff9b::7f00:1]",
    "https://[2002:7f00:1::]",
    "https://[2001:0:7f00:1::]",
    "https://[2001:db8::1]",
    "https://[::127.0.0.1]",
    "https://localhost",
    "https://api.localhost",
    "https://upstream",
    "https://printer.local",
    "https://metadata.google.internal",
    "https://127.0.0.1.nip.io",
    "https://10-0-0-1.sslip.io",
    "https://localtest.me",
    "https://api.kavenegar.com:80",
    "https://api.kavenegar.com:22",
    "https://api.kavenegar.com:65535",
]
NEVER = [
    "",
    "api.kavenegar.com",
    "//api.kavenegar.com",
    "https://",
    "https:///v1",
    "ftp://api.kavenegar.com",
    "file:///etc/passwd",
    "gopher://api.kavenegar.com",
    "javascript:alert(1)",
    "https://user@api.kavenegar.com",
    "https://user:password@api.kavenegar.com",
    "https://api.kavenegar.com@127.0.0.1",
    "https://1.1.1.1\\@127.0.0.1",
    "https://1.1.1.1#@127.0.0.1",
    "https://api.kavenegar.com?x=1",
    "https://api.kavenegar.com/#x",
    "https://api.kavenegar.com/../admin",
    "https://api.kavenegar.com/%2e%2e/admin",
    "https://api.kavenegar.com:0",
    "https://api.kavenegar.com:65536",
    "https://api.kavenegar.com:443:443",
    "https://api.kavenegar.com:٤٤٣",
    "https://api kavenegar.com",
    "https://api.kavenegar.com\r\nHost: x",
    " https://api.kavenegar.com",
    "https://api..kavenegar.com",
    "https://-api.kavenegar.com",
    "https://2130706433",
    "https://0x7f000001",
    "https://0x7f.0.0.1",
    "https://0177.0.0.1",
    "https://127.1",
    "https://127.0.0.01",
    "https://127.0.0.1.",
    "https://1.1.1.1.1",
    "https://256.1.1.1",
    "https://①②⑦.0.0.1",
    "https://ⓛocalhost.example.com",
    "https://[::1",
    "https://[fe80::1%25eth0]",
    "https://[fe80::1]",
    "https://[ff02::1]",
    "https://169.254.169.254",
    "https://169.254.169.254/latest/meta-data",
    "https://0.0.0.0",
    "https://[::]",
    "https://224.0.0.1",
    "https://" + "a" * 600 + ".com",
]


@pytest.mark.parametrize("url", GOOD)
def test_good_urls(url: str) -> None:
    """Plain https on usual ports of global hosts is accepted either way."""
    assert check_base_url(url, False) is None
    assert check_base_url(url, True) is None


@pytest.mark.parametrize("url", SOMETIMES)
def test_urls_for_development_only(url: str) -> None:
    """Without the permission, http, private addresses, local names and odd ports are refused with a sentence."""
    told = check_base_url(url, False)
    assert told is not None
    assert told.endswith(".")
    assert check_base_url(url, True) is None


@pytest.mark.parametrize("url", NEVER)
def test_urls_that_are_never_accepted(url: str) -> None:
    """User names, strange spellings, link-local addresses and everything that two parsers may read differently."""
    assert check_base_url(url, False) is not None
    assert check_base_url(url, True) is not None


@given(st.text(max_size=40))
def test_any_text_is_judged(text: str) -> None:
    """No spelling raises, and what is accepted under the strict rules is accepted under the loose ones."""
    for url in (text, "https://" + text):
        if check_base_url(url, False) is None:
            assert check_base_url(url, True) is None


@given(st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)))
def test_what_is_not_global_is_refused(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    """No private, multicast, reserved, mapped or tunnelled address is allowed, nor is a socket for it."""
    tunnelled = isinstance(address, ipaddress.IPv6Address) and (
        address.ipv4_mapped is not None or address.sixtofour is not None or address.teredo is not None
    )
    if allowed(address, allow_private=False):
        assert address.is_global
        assert not any((address.is_private, address.is_multicast, address.is_reserved, tunnelled))
    else:
        with pytest.raises(AddressRefused):
            guarded_socket((socket.AF_INET, socket.SOCK_STREAM, 0, "", (str(address), 443)), allow_private=False)


class Names(AbstractResolver):
    """A name service of the test's own: each question takes the next answer, the last one stays."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        addresses = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return [
            ResolveResult(hostname=host, host=address, port=port, family=socket.AF_INET, proto=0, flags=0)
            for address in addresses
        ]

    async def close(self) -> None:
        pass


connects: list[object] = []
watching = False


def _watch(event: str, args: tuple[object, ...]) -> None:
    if watching and event == "socket.connect":
        connects.append(args[1])


@pytest.fixture
def audited() -> Iterator[list[object]]:
    """Every address that any socket of this process connects to."""
    global watching  # noqa: PLW0603 - an audit hook can never be taken off
    if not getattr(sys, "_angarium_watch", False):
        sys.addaudithook(_watch)
        sys._angarium_watch = True  # type: ignore[attr-defined]
    connects.clear()
    watching = True
    yield connects
    watching = False


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        ["10.1.2.3"],
        ["169.254.169.254"],
        ["1.1.1.1", "127.0.0.1"],
        ["::1"],
        ["::ffff:127.0.0.1"],
        ["fe80::1"],
        ["0x7f.0.0.1"],
        ["localhost"],
    ],
)
async def test_a_name_with_any_private_address_is_refused(audited: list[object], addresses: list[str]) -> None:
    """One bad answer refuses the whole name, and no socket connects anywhere."""
    transport = Transport(resolver=Names(addresses))
    reply = await transport.exchange(Call("https://api.example.com", "/"), 2.0)
    await transport.aclose()
    assert reply == NotSent(ADDRESS_REFUSED)
    assert audited == []


async def test_the_socket_is_the_last_gate(upstream: ScriptedUpstream, audited: list[object]) -> None:
    """A resolver that no guard has seen cannot lead a socket to a private address."""
    transport = Transport(resolver=Names(["1.1.1.1"]))
    session = transport._open()
    connector = session.connector
    assert connector is not None
    connector._resolver = Names(["127.0.0.1"])  # type: ignore[attr-defined]
    transport._http.client = session
    reply = await transport.exchange(Call("https://api.example.com:8443", "/"), 2.0)
    await transport.aclose()
    assert reply == NotSent(ADDRESS_REFUSED)
    assert audited == []


async def test_a_url_that_is_refused_is_not_called(upstream: ScriptedUpstream) -> None:
    """An account that was configured under looser rules makes no call under strict ones."""
    transport = Transport()
    reply = await transport.exchange(Call(upstream.base_url, "/"), 2.0)
    await transport.aclose()
    assert reply == NotSent(ADDRESS_REFUSED)
    assert upstream.connections == 0


async def test_a_name_is_called_at_the_address_that_was_checked(upstream: ScriptedUpstream) -> None:
    """With private addresses allowed, the name keeps its place in the Host header."""
    transport = Transport(allow_private=True, resolver=Names(["127.0.0.1"]))
    reply = await transport.exchange(Call(f"http://api.example.com:{upstream.port}", "/v1/k/account/info.json"), 2.0)
    await transport.aclose()
    assert isinstance(reply, Answer)
    assert upstream.requests[0].headers["host"] == f"api.example.com:{upstream.port}"


async def test_link_local_is_refused_even_in_development(audited: list[object]) -> None:
    """The metadata service of a cloud is no upstream."""
    transport = Transport(allow_private=True, resolver=Names(["169.254.169.254"]))
    reply = await transport.exchange(Call("http://api.example.com", "/"), 2.0)
    await transport.aclose()
    assert reply == NotSent(ADDRESS_REFUSED)
    assert audited == []
    assert ADDRESS_REFUSED in NOT_SENT
