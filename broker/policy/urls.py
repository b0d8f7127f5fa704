"""Reads URLs for the registry of destinations: only those that every parser reads alike.

A URL that is compared by a part of it must mean to the tool what it means here. So there is one form, a
subset of RFC 3986, and what is outside it is no match, never repaired:

    scheme://host[:port]/path[?query][#fragment]

1. Printable ASCII without space, quotes, backslash and the like: no tab or line break that a parser drops, no
   letter that looks like another one (a name beyond ASCII is listed in its xn-- form).
2. http or https and the host in lower case; no user and password, no empty label, no dot at the end.
3. A slash ends the host: in `https://good.example?@bad.example` parsers disagree where it ends.
4. A port without zeros in front; the scheme's own port is another origin than none.
5. In the path no segment `.` or `..`, written out or as %2e, nor with parameters (`..;a`); no encoded slash,
   backslash or NUL, and none of these encoded twice.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_ORIGIN = rf"https?://{_LABEL}(?:\.{_LABEL})*(?::[1-9][0-9]{{0,4}})?"
_CHARACTER = r"(?:[A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2})"
_URL = re.compile(
    rf"(?P<origin>{_ORIGIN})(?P<path>/{_CHARACTER}*)"
    rf"(?:\?(?:{_CHARACTER}|[?/])*)?(?:\#(?:{_CHARACTER}|[?/])*)?",
    re.ASCII,
)
_DOTS = re.compile(r"/(?:\.|%2e){1,2}(?=[/;]|%3b|\Z)", re.IGNORECASE)
_HIDDEN = re.compile(r"%(?:2f|5c|00|25(?:2e|2f|5c|00|25))", re.IGNORECASE)
MAX_CHARACTERS = 2048


@dataclass(frozen=True, slots=True)
class Url:
    """A URL that every parser reads alike.

    Attributes:
        origin: For example "https://docs.example:8443".
        path: Begins with a slash; without query and fragment.
    """

    origin: str
    path: str


def read_url(text: str) -> Url | None:
    """Read a URL; None where it is none of the one form."""
    found = _URL.fullmatch(text) if len(text) <= MAX_CHARACTERS else None
    if found is None or _DOTS.search(found["path"]) or _HIDDEN.search(found["path"]):
        return None
    return Url(found["origin"], found["path"])
