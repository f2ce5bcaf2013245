"""What the text of a URL and the addresses of its host may be; ``test_outbound.py`` has the exchanges."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence

import pytest

from fluxfarm.errors import ForbiddenUrl, UnreachableUrl
from fluxfarm.outbound import Outlet, fetch, is_public, parse_url, system_resolver

HOST = "pictures.example"

PUBLIC = """
1.1.1.1 8.8.8.8 93.184.216.34 172.15.0.1 172.32.0.1 192.167.1.1 11.0.0.1 100.63.0.1 100.128.0.1
169.253.1.1 223.255.255.1 192.0.1.1 198.17.0.1 198.20.0.1 2606:4700:4700::1111 2001:4860:4860::8888
2a00:1450:4001::1 2400:cb00::1 64:ff9b::808:808
""".split()  # noqa: SIM905 - a table of so many reads better so

INSIDE = """
0.0.0.0 0.1.2.3 10.0.0.1 100.64.0.1 100.64.1.1 100.100.100.200 127.0.0.1 127.255.255.255 168.63.129.16 169.254.0.1
169.254.169.254 172.16.0.1 172.31.255.255 192.0.0.1 192.0.0.8 192.0.0.192 192.0.2.1 192.88.99.1 192.168.0.1 198.18.0.1
198.19.255.255 198.51.100.1 203.0.113.1 224.0.0.1 239.255.255.255 240.0.0.1 255.255.255.255
:: ::1 ::127.0.0.1 ::8.8.8.8 ::ffff:127.0.0.1 ::ffff:169.254.169.254 ::ffff:8.8.8.8 ::ffff:0:7f00:1 64:ff9b::7f00:1
64:ff9b::a9fe:a9fe 64:ff9b::a00:1 64:ff9b:1::808:808 100::1 2001::1 2001:0:4136:e378:8000:63bf:3fff:fdd2 2001:db8::1
2001:20::1 2002:7f00:1:: 2002:808:808:: 2620:4f:8000::1 3fff::1 5f00::1 4000::1 fc00::1 fd00:ec2::254 fd20:ce::254
fe80::1 fe80::1%eth0 fec0::1 ff02::1 ff0e::1
""".split()  # noqa: SIM905 - a table of so many reads better so


@pytest.mark.parametrize("text", PUBLIC)
def test_public_addresses(text: str) -> None:
    assert is_public(ipaddress.ip_address(text))


@pytest.mark.parametrize("text", INSIDE)
def test_addresses_that_may_lead_inside(text: str) -> None:
    assert not is_public(ipaddress.ip_address(text))


@pytest.mark.parametrize("text", INSIDE)
def test_a_name_that_leads_inside_is_forbidden_and_the_address_is_not_told(text: str) -> None:
    with pytest.raises(ForbiddenUrl) as caught:
        fetch(f"https://{HOST}/a.png", limit_bytes=9, deadline_seconds=2, resolver=lambda *_: ["8.8.8.8", text])
    assert text not in caught.value.message
    assert HOST in caught.value.message


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "2130706433", "0x7f.1", "0x7f000001", "017700000001", "127.1", "0", "0.0.0.0", "[::]", "[::1]",
        "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[64:ff9b::7f00:1]", "localhost", "localhost.", "LOCALHOST",
        "a.localhost", "127.0.0.1.", "①②⑦.⓪.⓪.①", "127。0。0。1", "%31%32%37.0.0.1", "metadata.google.internal",
        "printer.local", "[fe80::1%25eth0]", "example.com.", "example..com", "-a.example", "1.1", "a b.example",
        "x" * 64 + ".example", ".".join(["x" * 60] * 5), "xn--", "xn--0.example", "redis", "a.1",
    ],
)  # fmt: skip
def test_odd_and_inside_hosts_are_forbidden_before_a_name_is_asked(host: str) -> None:
    def never(*_: object) -> Sequence[str]:
        raise AssertionError

    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        port = server.getsockname()[1]
        with pytest.raises(ForbiddenUrl):
            fetch(
                f"http://{host}:{port}/",
                limit_bytes=9,
                deadline_seconds=2,
                allow_http=True,
                allowed_ports={port},
                resolver=never,
            )
        with pytest.raises(BlockingIOError):
            server.accept()


@pytest.mark.parametrize("host", ["bücher.example", "BÜCHER.example", "a_b.example", "a.b.c.example"])
def test_other_names_are_asked_for(host: str) -> None:
    asked: list[str] = []

    def resolver(name: str, _port: int) -> Sequence[str]:
        asked.append(name)
        return []

    with pytest.raises(UnreachableUrl, match="does not resolve"):
        fetch(f"https://{host}/", limit_bytes=9, deadline_seconds=2, resolver=resolver)
    assert asked == [host.lower().replace("bücher", "xn--bcher-kva")]


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("ftp://pictures.example/", "start with https://"),
        ("http://pictures.example/", "start with https://"),
        ("//pictures.example/", "start with https://"),
        ("file:///etc/passwd", "not a URL with a host"),
        ("https:///a", "not a URL with a host"),
        ("", "not a URL with a host"),
        ("pictures.example", "not a URL with a host"),
        ("https://pictures.example:8443/", "port 8443; the farm opens 443 only"),
        ("https://pictures.example:0/", "port 0"),
        ("https://pictures.example:99999/", "port 99999"),
        ("https://pictures.example/\n", "not a URL with a host"),
        ("https://pictures.example/\ud800", "not a URL with a host"),
        ("https://pictures.example/" + "a" * 5000, "at most 4,096"),
    ],
)
def test_other_urls_are_forbidden(url: str, why: str) -> None:
    with pytest.raises(ForbiddenUrl, match=why):
        fetch(url, limit_bytes=9, deadline_seconds=2, resolver=lambda *_: ["8.8.8.8"])


def test_plain_http_is_for_port_80_only() -> None:
    for url in ("http://pictures.example:443/", "https://pictures.example:80/"):
        with pytest.raises(ForbiddenUrl, match="names port"):
            fetch(url, limit_bytes=9, deadline_seconds=2, allow_http=True)
    Outlet(9, 2, allow_http=True).check(parse_url("http://pictures.example/a"))


@pytest.mark.parametrize("login", ["user:hunter2@", "hunter2@", ":hunter2@", "a\\@hunter2@"])
def test_a_login_is_forbidden_and_not_repeated(login: str) -> None:
    with pytest.raises(ForbiddenUrl, match="user name or a password") as caught:
        fetch(f"https://{login}{HOST}/", limit_bytes=9, deadline_seconds=2)
    assert "hunter2" not in caught.value.message


def test_the_resolver_of_the_machine_knows_loopback() -> None:
    assert "127.0.0.1" in system_resolver("127.0.0.1", 443)
