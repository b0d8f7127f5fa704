"""Reads what an HTTP request is for, as its request line and its Host header say it.

A URL that is compared by its parts must mean to the target what it means here. So there is one form, a subset
of RFC 3986, and what is outside it is refused, never repaired:

1. Printable ASCII without space, quotes, backslash, "#" and the like.
2. http or https and the host in lower case; no user and password, no empty label, no dot at the end. An IPv6
   address only as RFC 5952 writes it. A port without zeros in front; the scheme's own may be left out.
3. No path segment is empty, but the last may be; none has parameters (";", "%3B"); none is of dots alone, and
   none begins or ends with two of them, also not when what nobody sees beside them is left out ("..%20"). To
   servers that drop parameters "..%3B" is "..", to an nginx whose `alias` lacks a slash "/files.." is.
4. An escape stands for a character that could not stand there itself: no letter, no digit, none of "-._~;",
   no slash, backslash or control character, no "%" that begins another escape ("%252e", "%25u002e"). Escapes
   are UTF-8 (an overlong slash is none), and nothing that becomes one of these when normalised (U+FF0F).

It needs the standard library only: the proxy loads it.
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

MAX_URL_CHARACTERS = 8192
"""Of path and query together, as the target gets them."""

_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_AUTHORITY = re.compile(
    rf"(?P<host>{_LABEL}(?:\.{_LABEL})*|\[[0-9a-f:]{{2,39}}\])(?::(?P<port>[1-9][0-9]{{0,4}}))?", re.ASCII
)
_ABSOLUTE = re.compile(r"(?P<scheme>https?)://(?P<authority>[^/?#]*)(?P<rest>.*)", re.ASCII)
_SEGMENT = r"(?:[A-Za-z0-9._~!$&'()*+,=:@-]|%[0-9A-Fa-f]{2})"
_PATH = re.compile(rf"/|(?:/{_SEGMENT}+)+/?", re.ASCII)
_QUERY = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,=:@/?-]|%[0-9A-Fa-f]{2})*", re.ASCII)
_DOTS = re.compile(r"/\.(?=/|\Z)|/\.\.|\.\.(?=/|\Z)")
_TWICE = re.compile(r"%25(?:[0-9A-Fa-f]{2}|[Uu])")
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")
_NEVER_ESCAPED = frozenset(
    [*b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~;/\\", *range(0x20), 0x7F]
)
_STRUCTURE = frozenset("./\\%;?#")
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Authority:
    """A host with its port, as CONNECT names them. An IPv6 host stands without brackets."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Url:
    """What a request is for.

    Attributes:
        origin: In the form of `make_origin`, to be compared with a target's origins.
        scheme: "http" or "https".
        host: Lower case; an IPv6 address without brackets.
        port: The scheme's own where none was said.
        path: As it was sent, beginning with a slash.
        query: As it was sent; None where there is no "?".
    """

    origin: str
    scheme: str
    host: str
    port: int
    path: str
    query: str | None


def make_origin(scheme: str, host: str, port: int) -> str:
    """Write an origin in the one form in which origins are compared, "https://api.example:8443"."""
    name = f"[{host}]" if ":" in host else host
    return f"{scheme}://{name}" if _PORTS[scheme] == port else f"{scheme}://{name}:{port}"


def read_authority(text: str, default_port: int | None = None) -> Authority | None:
    """Read "HOST:PORT", the target of CONNECT, or a Host header where a default port is given.

    Returns:
        None where it is of no form that every parser reads alike.
    """
    found = _AUTHORITY.fullmatch(text) if len(text) <= MAX_URL_CHARACTERS else None
    if found is None:
        return None
    port = int(found["port"]) if found["port"] else default_port
    host = _read_host(found["host"])
    if host is None or port is None or port > 65_535:
        return None
    return Authority(host, port)


def _read_host(text: str) -> str | None:
    if not text.startswith("["):
        return text if len(text) <= 253 else None
    try:
        address = ipaddress.IPv6Address(text[1:-1])
    except ValueError:
        return None
    return address.compressed if address.compressed == text[1:-1] else None


def read_target(target: str, host: str | None = None, scheme: str = "http") -> Url | None:
    """Read a request's target: absolute ("http://a/b?c"), or in origin form ("/b?c") with its Host header.

    Args:
        target: As it stands in the request line; for CONNECT see `read_authority`.
        host: The Host header; needed for the origin form. Beside an absolute one it must say the same.
        scheme: What the connection speaks; for the origin form.

    Returns:
        None where it is not of the one form.
    """
    if target.startswith("/"):
        return None if host is None else _read_parts(scheme, host, target)
    found = _ABSOLUTE.fullmatch(target)
    if found is None:
        return None
    url = _read_parts(found["scheme"], found["authority"], found["rest"])
    if url is None or host is None:
        return url
    named = read_authority(host, _PORTS[url.scheme])
    return url if named == Authority(url.host, url.port) else None


def _read_parts(scheme: str, authority: str, rest: str) -> Url | None:
    named = read_authority(authority, _PORTS[scheme])
    path, mark, query = rest.partition("?")
    if (
        len(rest) > MAX_URL_CHARACTERS
        or named is None
        or not is_plain_path(path)
        or not is_plain_query(query)
    ):
        return None
    origin = make_origin(scheme, named.host, named.port)
    return Url(origin, scheme, named.host, named.port, path, query if mark else None)


def read_origin(text: str) -> str | None:
    """Read an origin, "https://api.example:8443" without anything after it, into its one form; or None."""
    url = read_target(f"{text}/") if text and not text.startswith("/") else None
    return url.origin if url is not None and url.path == "/" and url.query is None else None


def is_plain_path(path: str) -> bool:
    """Tell whether every parser reads a raw path alike: the rules 1, 3 and 4 of this module."""
    if len(path) > MAX_URL_CHARACTERS or not _PATH.fullmatch(path) or _DOTS.search(path):
        return False
    return "%" not in path or _hides_nothing(path)


def _hides_nothing(path: str) -> bool:
    if _TWICE.search(path) or any(int(code, 16) in _NEVER_ESCAPED for code in _ESCAPE.findall(path)):
        return False
    text = decode_text(path)
    if text is None:
        return False
    strange = "".join(character for character in text if not character.isascii())
    seen = "".join(character for character in text if unicodedata.category(character)[0] not in "CMZ")
    return _STRUCTURE.isdisjoint(unicodedata.normalize("NFKC", strange)) and not _DOTS.search(seen)


def is_plain_query(query: str) -> bool:
    """Tell whether a raw query has only characters that may stand there; no ";", which some take for "&"."""
    if len(query) > MAX_URL_CHARACTERS or not _QUERY.fullmatch(query):
        return False
    return decode_text(query) is not None


def decode_text(raw: str) -> str | None:
    """Undo escapes once; None where that is no UTF-8, or has a NUL."""
    try:
        text = unquote_to_bytes(raw).decode("utf-8")
    except UnicodeDecodeError:
        return None
    return None if "\x00" in text else text
