"""Which addresses may be connected to, and how a host may be written."""

# ruff: noqa: RUF001 - letters and digits that look like others are what is refused
from __future__ import annotations

import ipaddress
import socket

import pytest

from sandboxes.proxy.access import HttpTarget
from sandboxes.proxy.addresses import (
    _SPECIAL_IPV4,
    _SPECIAL_IPV6,
    check_address,
    check_host,
    check_networks,
)

EVERYTHING = ("0.0.0.0/0", "::/0")
PUBLIC = (
    "1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0",
    "126.255.255.255", "128.0.0.1", "169.253.255.255", "172.15.255.255", "172.32.0.0",
    "191.255.255.255", "192.0.1.0", "192.167.255.255", "192.169.0.0", "198.17.255.255", "198.20.0.0",
    "223.255.255.255", "2001:200::1", "2606:4700:4700::1111", "2a00:1450:4001:81b::200e",
    "2620:4f:8001::1", "2003::1", "3ffe::1",
)  # fmt: skip
CARRIERS = {
    "mapped": "::ffff:{0}.{1}.{2}.{3}",
    "translated": "::ffff:0:{0}.{1}.{2}.{3}",
    "compatible": "::{0}.{1}.{2}.{3}",
    "NAT64": "64:ff9b::{0}.{1}.{2}.{3}",
    "local NAT64 /96": "64:ff9b:1::{0}.{1}.{2}.{3}",
    "local NAT64 /48": "64:ff9b:1:{0:02x}{1:02x}:{2:04x}:{3:02x}00::",
    "6to4": "2002:{0:02x}{1:02x}:{2:02x}{3:02x}::1",
    "Teredo client": "2001:0:0808:0808:0:0:{4:02x}{5:02x}:{6:02x}{7:02x}",
    "Teredo server": "2001:0:{0:02x}{1:02x}:{2:02x}{3:02x}::f7f7:f7f7",
    "ISATAP": "2606:4700::5efe:{0}.{1}.{2}.{3}",
}
ODD_HOSTS = (
    "2130706433", "0x7f000001", "0X7F000001", "017700000001", "127.1", "127.0.1", "0177.0.0.1",
    "0x7f.0.0.1", "127.0.0.01", "127.0.0.1.", "localhost.", "example.com.", "[::1]", "[127.0.0.1]",
    "::1%lo", "fe80::1%eth0", "fe80::1%25eth0", "user@127.0.0.1", "a:b@example.com",
    "example.com@127.0.0.1", "127.0.0.1#example.com", "example.com/", "example.com\\.evil",
    "%31%32%37.0.0.1", "127%2e0.0.1", "ｅxample.com", "１２７.0.0.1", "①②⑦.0.0.1", "127。0。0。1",
    "bücher.example", "exa mple.com", " 127.0.0.1", "127.0.0.1 ", "127.0.0.1\n", "", ".", "..", "a..b",
    ".example.com", "-a.example", "a-.example", "a" * 64 + ".example", "a." * 127 + "example",
    "1.2.3.4.5", "256.1.1.1", "1.2.3", "0x", "foo.0x1f", "foo.123", "0.0.0.0", "::", "255.255.255.255",
    "224.0.0.1", "ff02::1", "::ffff:127.0.0.1", "::ffff:7f00:1", "0:0:0:0:0:0:0:1", "2001:DB8:0:0::1",
    "::127.0.0.1.", "example.com:80", "127.0.0.1:80", "\u202e1.0.0.721", "a\x00b", "local\u00adhost",
    "٤.example", "ⓛocalhost", "xn--\u00e4",
)  # fmt: skip
HOSTS = (
    "example.com", "api.github.com", "localhost", "orders_db", "a", "xn--bcher-kva.example",
    "EXAMPLE.com", "127.0.0.1", "10.1.2.3", "::1", "2606:4700::1111", "1password.example",
    "3com.example", "0xabc.example", "a-b.c-d", "::7f00:1",
)  # fmt: skip


def target(host: str = "api.example", *networks: str) -> HttpTarget:
    return HttpTarget("api", host, 443, ("https://api.example",), networks=networks)


def in_disguise(form: str, inner: str) -> str:
    """Write an IPv4 address as an IPv6 address that carries it."""
    octets = ipaddress.IPv4Address(inner).packed
    return CARRIERS[form].format(*octets, *(octet ^ 0xFF for octet in octets))


@pytest.mark.parametrize("network", [network for network, _ in (*_SPECIAL_IPV4, *_SPECIAL_IPV6)])
def test_refuses_first_and_last_address_of_each_special_range(network: str) -> None:
    for address in (ipaddress.ip_network(network)[0], ipaddress.ip_network(network)[-1]):
        assert check_address(str(address), target()) is not None
        assert check_address(str(address), target("api.example", *EVERYTHING)) is None


@pytest.mark.parametrize("address", PUBLIC)
def test_allows_public_unicast(address: str) -> None:
    assert check_address(address, target()) is None


@pytest.mark.parametrize(
    "address", ["1::1", "4000::1", "8000::", "fbff::1", "fe00::1", "64:ff9b:2::1", "0:1::"]
)
def test_refuses_what_is_not_given_out(address: str) -> None:
    assert "no public unicast" in str(check_address(address, target()))


@pytest.mark.parametrize("form", CARRIERS)
def test_judges_the_address_inside_as_well(form: str) -> None:
    carrier = str(ipaddress.IPv6Network((in_disguise(form, "8.8.8.8"), 16), strict=False))
    outer_declared = target("api.example", carrier)
    assert check_address(in_disguise(form, "8.8.8.8"), outer_declared) is None
    for inner in ("127.0.0.1", "10.0.0.1", "169.254.169.254"):
        assert inner in str(check_address(in_disguise(form, inner), outer_declared))
        assert check_address(in_disguise(form, inner), target("api.example", *EVERYTHING)) is None


@pytest.mark.parametrize("form", [form for form in CARRIERS if form != "ISATAP"])
def test_refuses_a_carrier_even_of_a_public_address(form: str) -> None:
    assert check_address(in_disguise(form, "8.8.8.8"), target()) is not None


def test_differs_from_the_librarys_own_judgement_only_by_being_stricter() -> None:
    for network in (*_SPECIAL_IPV4, *_SPECIAL_IPV6):
        address = ipaddress.ip_network(network[0])[1 if "/128" not in network[0] else 0]
        assert not (address.is_global is False and check_address(str(address), target()) is None)


def test_allows_the_literal_that_is_declared_and_no_other() -> None:
    assert check_address("10.1.2.3", target("10.1.2.3")) is None
    assert check_address("10.1.2.4", target("10.1.2.3")) is not None
    assert check_address("::1", target("127.0.0.1")) is not None


def test_allows_declared_networks_and_no_other() -> None:
    declared = target("api.example", "10.1.0.0/16", "fd00:1::/32")
    assert check_address("10.1.255.1", declared) is None
    assert check_address("fd00:1::7", declared) is None
    assert check_address("10.2.0.1", declared) is not None
    assert check_address("::ffff:10.1.0.1", declared) is not None


@pytest.mark.parametrize("address", ["fe80::1%eth0", "::1%1", "127.0.0.1%lo"])
def test_refuses_zones_whatever_is_declared(address: str) -> None:
    assert "zone" in str(check_address(address, target("api.example", *EVERYTHING)))


@pytest.mark.parametrize("address", ["", "api.example", "127.1", "0x7f000001", "1.2.3.4/32"])
def test_refuses_what_it_cannot_judge(address: str) -> None:
    assert check_address(address, target("api.example", *EVERYTHING)) is not None


def test_refuses_all_when_the_networks_cannot_be_read() -> None:
    assert "cannot be judged" in str(check_address("8.8.8.8", target("api.example", "10.0.0.1/8")))


@pytest.mark.parametrize("host", ODD_HOSTS)
def test_refuses_hosts_in_odd_spellings(host: str) -> None:
    assert check_host(host) is not None


@pytest.mark.parametrize("host", HOSTS)
def test_takes_names_and_addresses_in_their_usual_form(host: str) -> None:
    assert check_host(host) is None


@pytest.mark.parametrize(
    "host", ["2130706433", "0x7f000001", "017700000001", "127.1", "0177.0.0.1", "0x7f.0.0.1"]
)
def test_spellings_that_it_refuses_are_loopback_to_the_resolver(host: str) -> None:
    """The control: this is what they would reach."""
    assert socket.getaddrinfo(host, 80, type=socket.SOCK_STREAM)[0][4][0] == "127.0.0.1"


def test_tells_what_to_write() -> None:
    assert "write 127.0.0.1" in str(check_host("::ffff:127.0.0.1"))
    assert "write ::1" in str(check_host("0:0:0:0:0:0:0:1"))


@pytest.mark.parametrize(
    "network", ["10.0.0.1/8", "10.0.0.0/33", "fe80::%1/64", "all", "", "10.0.0.0/8 ", "10.0.0.0"]
)
def test_refuses_networks_that_are_none(network: str) -> None:
    assert repr(network) in str(check_networks(["10.0.0.0/8", network]))


def test_allows_ipv6_loopback_where_it_is_declared_and_only_there() -> None:
    assert check_address("::1", target("api.example", "::1/128")) is None
    assert check_address("::1", target("api.example", "127.0.0.0/8")) is not None
    assert check_address("::127.0.0.1", target("api.example", "::/96")) is not None


def test_takes_networks() -> None:
    assert check_networks(["10.0.0.0/8", "fd00::/8", "192.168.1.7/32", "fc00::/7", "64:ff9b::/96"]) is None


@pytest.mark.parametrize("network", ["0.0.0.0/0", "0.0.0.0/1", "126.0.0.0/7", "::/0", "::/6"])
def test_refuses_networks_that_declare_everything(network: str) -> None:
    assert "too wide" in str(check_networks([network]))
