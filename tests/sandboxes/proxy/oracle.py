"""Says what the proxy must do with a request, by code of its own: no regular expression, nothing of tools/.

It is naive on purpose: characters one by one, rules as the lists of parts that they were generated from.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, field

LETTERS = "abcdefghijklmnopqrstuvwxyz"
DIGITS = "0123456789"
PLAIN = LETTERS + LETTERS.upper() + DIGITS + "-._~"
HEX = DIGITS + "abcdefABCDEF"
ORDER = ["METHOD", "PATH", "QUERY", "HEADER"]
USUAL = [
    "accept", "accept-language", "cache-control", "content-encoding", "content-language",
    "content-type", "if-match", "if-modified-since", "if-none-match", "if-range",
    "if-unmodified-since", "pragma", "range", "user-agent",
]  # fmt: skip


@dataclass
class Part:
    """A segment or a value: a literal, or a hole of some type between two literals."""

    before: str
    kind: str = ""
    after: str = ""


@dataclass
class Rule:
    """A rule as it was generated; `query` None: any."""

    method: str
    path: list[Part]
    slash: bool = False
    query: dict[str, Part] | None = field(default_factory=dict)
    require: list[str] = field(default_factory=list)
    headers: dict[str, Part] = field(default_factory=dict)


@dataclass
class Place:
    """A target: what URLs begin with, and what may be asked there."""

    name: str
    scheme: str
    host: str
    port: int
    rules: list[Rule] = field(default_factory=list)
    opaque: bool = False
    narrowed: list[Rule] | None = None


def decide(
    places: list[Place], method: str, url: str, headers: list[tuple[str, str]]
) -> tuple[str, str, list[str]]:
    """Return the check that decides, the target, and the headers that are dropped."""
    scheme = "https" if url.startswith("https://") else "http" if url.startswith("http://") else ""
    if not scheme:
        return "URL", "", []
    rest = url[len(scheme) + 3 :]
    end = min([rest.find(sign) for sign in "/?#" if sign in rest] or [len(rest)])
    place = find_place(places, scheme, rest[:end])
    if isinstance(place, Place) and place.opaque and scheme == "https" and rest[end : end + 1] in ("/", ""):
        return ("ALLOWED" if place.narrowed is None else "GRANT"), place.name, []
    path, mark, query = rest[end:].partition("?")
    if place == "URL" or len(rest[end:]) > 8192 or not is_good_path(path) or not is_good_query(query):
        return "URL", "", []
    if not isinstance(place, Place):
        return "TARGET", "", []
    if place.opaque:
        return "OPAQUE", place.name, []
    return judge(place, method, path, query if mark else None, headers)


def find_place(places: list[Place], scheme: str, authority: str) -> Place | str:
    """Find the place of an authority, or say which check refuses it."""
    if authority == "[::1]":  # the one IPv6 host that is asked for; no place has it
        return "TARGET"
    host, colon, digits = authority.partition(":")
    if not is_good_host(host):
        return "URL"
    port = 443 if scheme == "https" else 80
    if colon:
        if not 1 <= len(digits) <= 5 or digits[0] == "0" or any(sign not in DIGITS for sign in digits):
            return "URL"
        port = int(digits)
        if port > 65535:
            return "URL"
    found = [place for place in places if (place.scheme, place.host, place.port) == (scheme, host, port)]
    return found[0] if len(found) == 1 else "TARGET"


def is_good_host(host: str) -> bool:
    for label in host.split("."):
        if not 1 <= len(label) <= 63 or label[0] == "-" or label[-1] == "-":
            return False
        if any(sign not in LETTERS + DIGITS + "-" for sign in label):
            return False
    return len(host) <= 253


def unescape(text: str) -> list[tuple[int, bool]] | None:
    """Return the bytes, each with whether it was escaped; None where an escape is broken, or not ASCII."""
    found, index = [], 0
    while index < len(text):
        if text[index] == "%":
            pair = text[index + 1 : index + 3]
            if len(pair) < 2 or pair[0] not in HEX or pair[1] not in HEX:
                return None
            found.append((int(pair, 16), True))
            index += 3
        elif ord(text[index]) > 126:
            return None
        else:
            found.append((ord(text[index]), False))
            index += 1
    return found


def read_text(found: list[tuple[int, bool]]) -> str | None:
    try:
        return bytes(byte for byte, _ in found).decode("utf-8")
    except UnicodeDecodeError:
        return None


def is_good_path(path: str) -> bool:
    found = unescape(path)
    if found is None or not path.startswith("/") or any(not is_good_byte(*each) for each in found):
        return False
    segments = path[1:].split("/")
    if "" in segments[:-1] or (path.endswith("//")):
        return False
    text = read_text(found)
    if text is None or hides_escape(found):
        return False
    for character in text:
        if ord(character) > 127 and set(unicodedata.normalize("NFKC", character)) & set("./\\%;?#"):
            return False
    return not any(has_dots_at_an_end(segment) for segment in text.split("/"))


def is_good_byte(byte: int, escaped: bool) -> bool:
    if escaped:
        return byte > 32 - 1 and byte != 127 and chr(byte) not in PLAIN + ";/\\"
    return chr(byte) in PLAIN + "!$&'()*+,=:@/"


def hides_escape(found: list[tuple[int, bool]]) -> bool:
    """Tell whether an escaped "%" begins what another decoding would take for an escape."""
    for index, (byte, escaped) in enumerate(found):
        follows = [chr(other) for other, _ in found[index + 1 : index + 3]]
        if escaped and byte == ord("%") and len(follows) == 2 and all(sign in HEX for sign in follows):
            return True
        if escaped and byte == ord("%") and follows[:1] in (["u"], ["U"]):
            return True
    return False


def has_dots_at_an_end(segment: str) -> bool:
    seen = "".join(sign for sign in segment if unicodedata.category(sign)[0] not in ("C", "M", "Z"))
    return seen == "." or seen[:2] == ".." or seen[-2:] == ".."


def is_good_query(query: str) -> bool:
    found = unescape(query)
    if found is None:
        return False
    if any(not escaped and chr(byte) not in PLAIN + "!$&'()*+,=:@/?" for byte, escaped in found):
        return False
    return read_text(found) is not None and (0, True) not in found


def judge(
    place: Place, method: str, path: str, query: str | None, headers: list[tuple[str, str]]
) -> tuple[str, str, list[str]]:
    furthest = "METHOD"
    for rule in place.rules:
        failed = fail(rule, method, path, query, headers)
        if failed == "":
            if place.narrowed is not None and all(
                fail(other, method, path, query, headers) for other in place.narrowed
            ):
                return "GRANT", place.name, []
            passing = [*USUAL, *rule.headers, "host", "connection"]
            return "ALLOWED", place.name, [name for name, _ in headers if name not in passing]
        furthest = max(furthest, failed, key=ORDER.index)
    return furthest, place.name, []


def fail(rule: Rule, method: str, path: str, query: str | None, headers: list[tuple[str, str]]) -> str:
    """Return the check that a request fails; empty when it passes."""
    if method != rule.method:
        return "METHOD"
    if not fits_path(rule, path):
        return "PATH"
    if not fits_query(rule, query):
        return "QUERY"
    for name, part in rule.headers.items():
        values = [value for other, value in headers if other == name]
        if len(values) > 1 or any(not fits(part, value, "header") for value in values):
            return "HEADER"
    return ""


def fits_path(rule: Rule, path: str) -> bool:
    segments = path[1:].split("/")
    if rule.slash:
        if segments[-1] != "" or len(segments) == 1:
            return False
        segments = segments[:-1]
    if rule.path and rule.path[-1].kind == "rest":
        head, tail = rule.path[:-1], segments[len(rule.path) - 1 :]
        if not tail or any(segment == "" for segment in tail):
            return False
        segments = segments[: len(head)]
    else:
        head = rule.path
    if not rule.path:
        return segments == [""]
    if len(segments) != len(head):
        return False
    return all(fits(part, segment, "path") for part, segment in zip(head, segments, strict=True))


def fits_query(rule: Rule, query: str | None) -> bool:
    if rule.query is None:
        return True
    seen = []
    for part in [] if query is None else query.split("&"):
        name, mark, value = part.partition("=")
        for escape in ("%5b", "%5B"):
            name = name.replace(escape, "[")
        for escape in ("%5d", "%5D"):
            name = name.replace(escape, "]")
        if name not in rule.query or name in seen:
            return False
        wanted = rule.query[name]
        if not mark and (wanted.kind or wanted.before):
            return False
        if mark and not fits(wanted, value, "query"):
            return False
        seen.append(name)
    return all(name in seen for name in rule.require)


def fits(part: Part, value: str, where: str) -> bool:
    if not part.kind:
        return value == part.before
    if len(value) < len(part.before) + len(part.after):
        return False
    if not value.startswith(part.before) or not value.endswith(part.after):
        return False
    inner = value[len(part.before) : len(value) - len(part.after)]
    return is_of(part.kind, inner, where)


def is_of(kind: str, value: str, where: str) -> bool:  # noqa: PLR0911 - one line a type
    if "|" in kind:
        return value in kind.split("|")
    if kind == "text":
        return where == "header" or all(sign in PLAIN + "!$'()*+,=:@/?%" for sign in value)
    if value == "":
        return False
    if kind == "segment":
        is_whole = where == "path" or is_good_path(f"/{value}")  # a path is looked at as a whole
        is_short = len(value) - 2 * value.count("%") <= 1024
        return is_whole and is_short and all(sign in PLAIN + "%" for sign in value)
    if kind == "slug":
        return (
            value[0] not in "-._~" and len(value) <= 100 and all(s in PLAIN.replace("~", "") for s in value)
        )
    if kind == "int":
        digits = value[1:] if value[0] == "-" else value
        return 1 <= len(digits) <= 18 and all(sign in DIGITS for sign in digits)
    if kind == "hex":
        return len(value) <= 128 and all(sign in HEX for sign in value)
    sizes = [len(group) for group in value.split("-")]
    return kind == "uuid" and sizes == [8, 4, 4, 4, 12] and all(sign in HEX + "-" for sign in value)
