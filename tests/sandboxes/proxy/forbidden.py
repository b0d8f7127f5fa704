"""Forms in which a forbidden address can be asked for, and where each of them leads in the lab."""

# ruff: noqa: RUF001 - letters and digits that look like others are the point
from __future__ import annotations

ALLOWED_NAME, ALLOWED_ADDRESS = "allowed.lab", "93.184.216.34"
"""The one target that is declared and public."""
UNREACHABLE = "9.9.9.9"
"""Public, too, but not in the lab: a client that has several addresses goes on to the next one."""

FORBIDDEN_IPV4 = {
    "private 10/8": "10.1.2.3",
    "private 172.16/12": "172.16.0.1",
    "private 192.168/16": "192.168.1.1",
    "shared": "100.64.0.1",
    "metadata": "169.254.169.254",
    "assignments": "192.0.0.8",
    "documentation 1": "192.0.2.1",
    "documentation 2": "198.51.100.1",
    "documentation 3": "203.0.113.1",
    "6to4 relay": "192.88.99.1",
    "AS112": "192.175.48.1",
    "benchmarking": "198.18.0.1",
    "reserved": "240.0.0.1",
}
FORBIDDEN_IPV6 = {
    "unique local fc": "fc00::1",
    "unique local fd": "fd00:ec2::254",
    "site-local": "fec0::1",
    "NAT64 of loopback": "64:ff9b::7f00:1",
    "NAT64 of private": "64:ff9b::a01:203",
    "NAT64 of public": "64:ff9b::808:808",
    "local NAT64": "64:ff9b:1::a01:203",
    "6to4 of loopback": "2002:7f00:1::1",
    "6to4 of public": "2002:808:808::1",
    "Teredo": "2001::1",
    "ISATAP of private": "2606:4700::5efe:a01:203",
    "translated": "::ffff:0:7f00:1",
    "compatible": "::a01:203",
    "documentation": "2001:db8::1",
    "documentation 2": "3fff::1",
    "discard-only": "100::1",
    "segment routing": "5f00::1",
    "not given out": "4000::1",
}
LINK_LOCAL = "fe80::7"
OWN_ADDRESSES = (ALLOWED_ADDRESS, *FORBIDDEN_IPV4.values(), *FORBIDDEN_IPV6.values(), LINK_LOCAL)
"""What the lab's loopback has, beside 127.0.0.0/8 and ::1."""

RESOLVED: dict[str, list[str]] = {
    **{f"IPv4 {name}": [address] for name, address in FORBIDDEN_IPV4.items()},
    **{f"IPv6 {name}": [address] for name, address in FORBIDDEN_IPV6.items()},
    "loopback": ["127.0.0.1"],
    "loopback, its last": ["127.255.255.254"],
    "this host": ["0.0.0.0"],
    "IPv6 loopback": ["::1"],
    "IPv6 unspecified": ["::"],
    "mapped loopback": ["::ffff:127.0.0.1"],
    "mapped private": ["::ffff:10.1.2.3"],
    "mapped metadata": ["::ffff:169.254.169.254"],
    "public, then private": [UNREACHABLE, "10.1.2.3"],
    "private, then public": ["10.1.2.3", UNREACHABLE],
    "public IPv4, private IPv6": [UNREACHABLE, "fd00:ec2::254"],
}
"""What a declared name may turn out to stand for, at a name server that an attacker has."""

ASKED: dict[str, str] = {
    "loopback": "http://127.0.0.1/",
    "loopback, its last": "http://127.255.255.254/",
    "two parts": "http://127.1/",
    "three parts": "http://127.0.1/",
    "decimal": "http://2130706433/",
    "hex": "http://0x7f000001/",
    "hex in capitals": "http://0X7F000001/",
    "hex parts": "http://0x7f.0x0.0x0.0x1/",
    "hex and short": "http://0x7f.1/",
    "octal part": "http://0177.0.0.1/",
    "octal": "http://017700000001/",
    "octal, hex, decimal": "http://0177.0x0.0.1/",
    "octal zeros": "http://127.00.00.01/",
    "zero": "http://0/",
    "this host": "http://0.0.0.0/",
    "hex zero": "http://0x0/",
    "localhost": "http://localhost/",
    "localhost in capitals": "http://LOCALHOST/",
    "localhost with a dot": "http://localhost./",
    "address with a dot": "http://127.0.0.1./",
    "percent in a name": "http://lo%63alhost/",
    "percent digits": "http://%31%32%37.0.0.1/",
    "percent dots": "http://127%2e0%2e0%2e1/",
    "user": "http://user@127.0.0.1/",
    "user and password": "http://user:password@127.0.0.1/",
    "allowed name as user": "http://allowed.lab@127.0.0.1/",
    "allowed name and port as user": "http://allowed.lab:80@127.0.0.1/",
    "allowed URL as user": "http://http%3A%2F%2Fallowed.lab@127.0.0.1/",
    "empty user": "http://@127.0.0.1/",
    "allowed name in the fragment": "http://127.0.0.1#@allowed.lab/",
    "allowed name in the query": "http://127.0.0.1?@allowed.lab/",
    "allowed name in the path": "http://127.0.0.1/@allowed.lab/",
    "another port": "http://127.0.0.1:8080/",
    "another port of the allowed name": "http://allowed.lab:8080/",
    "port with zeros": "http://127.0.0.1:00080/",
    "wide digits": "http://１２７.0.0.1/",
    "circled digits": "http://①②⑦.⓪.⓪.①/",
    "wide dots": "http://127。0。0。1/",
    "wide letters": "http://ｌｏｃａｌｈｏｓｔ/",
    "circled letter": "http://ⓛocalhost/",
    "soft hyphen": "http://local\u00adhost/",
    "name that stands for private": "http://private.lab/",
    "alias of private": "http://alias.lab/",
    "international name": "http://xn--bcher-kva.lab/",
    "decimal private": "http://167838211/",
    "hex private": "http://0xa010203/",
    "octal private": "http://012.1.2.3/",
    "short private": "http://10.66051/",
    "decimal metadata": "http://2852039166/",
    "hex metadata": "http://0xa9fea9fe/",
    "octal metadata": "http://0251.0376.0251.0376/",
    "mixed metadata": "http://0xa9.254.0251.254/",
    "short metadata": "http://169.254.43518/",
    "short 192.168": "http://192.168.257/",
    "IPv6 loopback": "http://[::1]/",
    "IPv6 loopback in full": "http://[0000:0000:0000:0000:0000:0000:0000:0001]/",
    "IPv6 unspecified": "http://[::]/",
    "mapped": "http://[::ffff:127.0.0.1]/",
    "mapped in hex": "http://[::ffff:7f00:1]/",
    "mapped in full": "http://[0:0:0:0:0:ffff:127.0.0.1]/",
    "mapped private": "http://[::ffff:10.1.2.3]/",
    "mapped metadata": "http://[::FFFF:A9FE:A9FE]/",
    "zone": "http://[fe80::7%25lo]/",
    "zone, bare": "http://[fe80::7%lo]/",
    "zone by number": "http://[fe80::7%251]/",
    "user before brackets": "http://allowed.lab@[::1]/",
    **{f"IPv4 {name}": f"http://{address}/" for name, address in FORBIDDEN_IPV4.items()},
    **{f"IPv6 {name}": f"http://[{address}]/" for name, address in FORBIDDEN_IPV6.items()},
}
"""URLs that a tool may ask for. A client without a proxy connects for each to what is forbidden."""

REDIRECTED = (
    "loopback", "decimal", "hex", "octal part", "localhost", "allowed name as user", "mapped", "zone",
    "decimal metadata", "IPv4 metadata", "IPv6 NAT64 of loopback", "name that stands for private",
)  # fmt: skip
"""To these of `ASKED` the allowed target redirects."""


def name_of(form: str) -> str:
    """Name the target of a form of `RESOLVED`, as the lab's name server and the operator have it."""
    return "".join(letter if letter.isalnum() else "-" for letter in form.lower()) + "-form"
