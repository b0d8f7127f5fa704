"""Which addresses the proxy may connect to, and how a host may be written.

Public unicast addresses may be connected to. Everything else needs the operator's word for that very target:
its `host` is that literal, or one of its `networks` has it. Rules:
1. The table below is the project's own: `ipaddress.is_global` differs between Python versions, and lets some
   of these ranges pass.
2. An IPv6 address that carries an IPv4 address is judged by both: each needs to be public or declared.
3. A zone id ("%eth0") is never accepted: it names an interface of this machine.
4. A host is written in one way only. "2130706433", "0x7f.1", "127.1" and "127.0.0.1." are all loopback to a
   resolver, and no host here.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from sandboxes.proxy.access import HttpTarget

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_SPECIAL_IPV4: tuple[tuple[str, str], ...] = (
    # https://www.iana.org/assignments/iana-ipv4-special-registry (2025-10)
    ("0.0.0.0/8", "this network"),  # RFC 791; Linux connects 0.0.0.0 to loopback
    ("10.0.0.0/8", "private use"),  # RFC 1918
    ("100.64.0.0/10", "shared address space"),  # RFC 6598; clouds keep metadata there, too
    ("127.0.0.0/8", "loopback"),  # RFC 1122
    ("169.254.0.0/16", "link-local"),  # RFC 3927; cloud metadata
    ("172.16.0.0/12", "private use"),  # RFC 1918
    ("192.0.0.0/24", "IETF protocol assignments"),  # RFC 6890
    ("192.0.2.0/24", "documentation"),  # RFC 5737
    ("192.31.196.0/24", "AS112"),  # RFC 7535
    ("192.52.193.0/24", "AMT"),  # RFC 7450
    ("192.88.99.0/24", "6to4 relay"),  # RFC 7526
    ("192.168.0.0/16", "private use"),  # RFC 1918
    ("192.175.48.0/24", "AS112"),  # RFC 7534
    ("198.18.0.0/15", "benchmarking"),  # RFC 2544
    ("198.51.100.0/24", "documentation"),  # RFC 5737
    ("203.0.113.0/24", "documentation"),  # RFC 5737
    # https://www.iana.org/assignments/ipv4-address-space
    ("224.0.0.0/4", "multicast"),  # RFC 5771
    ("240.0.0.0/4", "reserved or broadcast"),  # RFC 1112, RFC 8190
)
_SPECIAL_IPV6: tuple[tuple[str, str], ...] = (
    # https://www.iana.org/assignments/iana-ipv6-special-registry (2025-10)
    ("::/128", "unspecified"),  # RFC 4291; Linux connects it to loopback
    ("::1/128", "loopback"),  # RFC 4291
    ("::ffff:0:0/96", "IPv4-mapped"),  # RFC 4291
    ("::ffff:0:0:0/96", "IPv4-translated"),  # RFC 2765
    ("::/96", "IPv4-compatible"),  # RFC 4291, deprecated
    ("64:ff9b::/96", "NAT64"),  # RFC 6052
    ("64:ff9b:1::/48", "local NAT64"),  # RFC 8215
    ("100::/64", "discard-only"),  # RFC 6666
    ("100:0:0:1::/64", "dummy prefix"),  # RFC 9780
    ("2001::/32", "Teredo"),  # RFC 4380
    ("2001::/23", "IETF protocol assignments"),  # RFC 2928: benchmarking, ORCHID, AMT and others
    ("2001:db8::/32", "documentation"),  # RFC 3849
    ("2002::/16", "6to4"),  # RFC 3056
    ("2620:4f:8000::/48", "AS112"),  # RFC 7534
    ("3fff::/20", "documentation"),  # RFC 9637
    ("5f00::/16", "segment routing"),  # RFC 9602
    ("fc00::/7", "unique local"),  # RFC 4193
    ("fe80::/10", "link-local"),  # RFC 4291
    ("fec0::/10", "site-local"),  # RFC 3879, deprecated
    ("ff00::/8", "multicast"),  # RFC 4291
)
_IPV4 = tuple((IPv4Network(network), name) for network, name in _SPECIAL_IPV4)
_IPV6 = tuple((IPv6Network(network), name) for network, name in _SPECIAL_IPV6)
# https://www.iana.org/assignments/ipv6-address-space: the only block that is given out.
_GLOBAL_UNICAST = IPv6Network("2000::/3")
_MAPPED, _TRANSLATED = IPv6Network("::ffff:0:0/96"), IPv6Network("::ffff:0:0:0/96")
_COMPATIBLE, _NAT64 = IPv6Network("::/96"), IPv6Network("64:ff9b::/96")
_LOCAL_NAT64, _TEREDO = IPv6Network("64:ff9b:1::/48"), IPv6Network("2001::/32")
_SIX_TO_FOUR = IPv6Network("2002::/16")
_WIDEST = {4: 8, 6: 7}
"""Prefixes as short as those of 10.0.0.0/8 and fc00::/7, the largest private networks that there are."""
_LAST_FOUR = (12, 13, 14, 15)
# RFC 6052, 2.2: where the IPv4 address stands, by the prefix's length (48, 56, 64, 96); byte 8 is skipped.
_LOCAL_NAT64_PLACES = ((6, 7, 9, 10), (7, 9, 10, 11), (9, 10, 11, 12), _LAST_FOUR)
_ISATAP_MARKS = (b"\x00\x00\x5e\xfe", b"\x02\x00\x5e\xfe")  # RFC 5214, 6.1

_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?", re.IGNORECASE)
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*", re.IGNORECASE)
"""A last label that inet_aton(3) takes for a number (so does the URL standard's "ends in a number")."""


def check_address(address: str, target: HttpTarget) -> str | None:
    """Judge one address that the target's host was resolved to.

    Args:
        address: As the resolver gave it, for example "10.0.0.7" or "fe80::1%eth0".
        target: Whose host it is.

    Returns:
        None when it may be connected to, otherwise why not, with the remedy.
    """
    if "%" in address:
        return f"{address[:60]} has a zone id; those are never connected to"
    try:
        asked = ipaddress.ip_address(address)
        networks = _read_networks(target.networks)
    except ValueError as error:
        return f"it cannot be judged: {error}"
    if asked == _literal(target.host):
        return None
    for one in (asked, *_carried(asked)):
        purpose = _special_purpose(one)
        if purpose and not any(one in network for network in networks):
            return f"{_named(asked, one)} is {purpose}; if that is meant, declare it in the target's networks"
    return None


def check_host(host: str) -> str | None:
    """Judge how a host is written: a name in ASCII, or an address in its one usual form.

    Args:
        host: Without port, brackets or user.

    Returns:
        None when it may be declared and asked for, otherwise what to write.
    """
    literal = _literal(host)
    if literal is not None:
        return _check_literal(literal, host)
    if "%" in host or ":" in host or "[" in host:
        return f"{host[:80]!r} is no host: write a name, or an address without brackets and zone id"
    labels = host.split(".")
    if not host.isascii() or len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        return f"{host[:80]!r} is no host name: use a-z, 0-9, - and . (xn-- for others), no dot at its end"
    if _NUMBER.fullmatch(labels[-1]):
        return f"{host[:80]!r} would be read as an address: write it in full, as in 192.0.2.1"
    return None


def is_literal(host: str) -> bool:
    """Whether a host is an address, and no name that has to be looked up."""
    return _literal(host) is not None


def check_networks(networks: Sequence[str]) -> str | None:
    """Judge a target's networks as they are declared.

    Returns:
        None when each is one, otherwise which is not and what to write.
    """
    for network in networks:
        try:
            if "%" in network or "/" not in network:
                raise ValueError("it has a zone id, or no /LENGTH")
            read = ipaddress.ip_network(network)
        except ValueError as error:
            return f"{network!r} is no network as in 10.1.0.0/16: {error}"
        if read.prefixlen < _WIDEST[read.version]:
            return f"{network!r} is too wide: nothing would be refused; name the networks that are meant"
    return None


@functools.lru_cache(maxsize=256)
def _read_networks(networks: tuple[str, ...]) -> tuple[Network, ...]:
    return tuple(ipaddress.ip_network(network) for network in networks)


def _literal(host: str) -> Address | None:
    if "%" in host:
        return None
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _check_literal(literal: Address, host: str) -> str | None:
    if literal.is_unspecified or literal.is_multicast or literal == IPv4Address("255.255.255.255"):
        return f"{host} is no single host: write the target's own address"
    if isinstance(literal, IPv6Address) and literal.ipv4_mapped is not None:
        return f"{host} is an IPv4 address in disguise: write {literal.ipv4_mapped}"
    if str(literal) != host.lower():
        return f"{host} has a shorter form: write {literal}"
    return None


def _special_purpose(address: Address) -> str | None:
    """Name the special purpose of an address; None where it is public unicast."""
    if isinstance(address, IPv4Address):
        return next((purpose for network, purpose in _IPV4 if address in network), None)
    named = next((purpose for network, purpose in _IPV6 if address in network), None)
    return named or (None if address in _GLOBAL_UNICAST else "no public unicast")


def _carried(address: Address) -> Iterator[IPv4Address]:
    """List the IPv4 addresses that an IPv6 address stands for, or may stand for."""
    if isinstance(address, IPv4Address) or address.is_loopback or address.is_unspecified:
        return  # "::1" and "::" look as if they carried 0.0.0.1 and 0.0.0.0 (RFC 4291, 2.5.5.1)
    octets = address.packed
    if octets[8:12] in _ISATAP_MARKS:
        yield _pick(octets, _LAST_FOUR)
    if address in _TEREDO:  # RFC 4380, 4: the server, and the client with its bits turned
        yield _pick(octets, (4, 5, 6, 7))
        yield _pick(bytes(octet ^ 0xFF for octet in octets), _LAST_FOUR)
    elif address in _SIX_TO_FOUR:
        yield _pick(octets, (2, 3, 4, 5))
    elif address in _LOCAL_NAT64:
        places = (_pick(octets, place) for place in _LOCAL_NAT64_PLACES)
        # Which length its network uses is not known. The places that it does not use are mostly zero.
        yield from (inner for inner in places if inner.packed[0] != 0)
    elif any(address in network for network in (_MAPPED, _TRANSLATED, _COMPATIBLE, _NAT64)):
        yield _pick(octets, _LAST_FOUR)


def _pick(octets: bytes, places: Sequence[int]) -> IPv4Address:
    return IPv4Address(bytes(octets[place] for place in places))


def _named(asked: Address, judged: Address) -> str:
    return str(asked) if asked == judged else f"{judged} in {asked}"
