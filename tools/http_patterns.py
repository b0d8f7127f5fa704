r"""Patterns of a rule's path, query and headers, and how they become regular expressions.

| type | stands for |
|---|---|
| segment | one path segment, `{name}`: letters, digits, `-._~`, escapes that hide nothing; at most 1,024 |
| slug | letters, digits, `-._`, the first a letter or digit; at most 100 |
| int | up to 18 digits, perhaps with a minus |
| hex | up to 128 hexadecimal digits |
| uuid | a UUID with its dashes |
| text | anything; in query and headers only |
| rest | one or more segments, also with `!$&'()*+,=:@`; the last of a path only |
| `a\|b` | one of these words |

A segment is what could be one of a path in query and headers, too: no "..", no escaped slash.
No expression takes long: a part in braces with something beside it is bounded, so is what stands beside it,
and what was matched of a path up to a slash is not tried again (there is but one way to match it).
"""

from __future__ import annotations

import re
from functools import lru_cache

from tools.http_urls import is_plain_path

MAX_BESIDE = 64
"""Characters before, or after, a part in braces."""
MAX_SEGMENT = 1024
"""Characters that a segment stands for; an escape is one."""

_PIECE = rf"(?:[A-Za-z0-9._~-]|%[0-9A-Fa-f]{{2}}){{1,{MAX_SEGMENT}}}"
_REST = r"(?:[A-Za-z0-9._~!$&'()*+,=:@-]|%[0-9A-Fa-f]{2})+"
TYPES = {
    "segment": _PIECE,
    "slug": r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}",
    "int": r"-?[0-9]{1,18}",
    "hex": r"[0-9a-fA-F]{1,128}",
    "uuid": r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}",
    "rest": rf"{_REST}(?:/{_REST})*",
}
"""What each type is, as a regular expression over the raw text."""
QUERY_TEXT = r"(?:[A-Za-z0-9._~!$'()*+,=:@/?-]|%[0-9A-Fa-f]{2})*"
HEADER_TEXT = r"[\t\x20-\x7e\x80-\xff]*"
_WORDS = {
    place: re.compile(rf"{word}(?:\|{word})+", re.ASCII)
    for place, word in (
        ("path", r"[A-Za-z0-9._~-]+"),
        ("query", r"[A-Za-z0-9._~-]+"),
        ("header", r"[A-Za-z0-9._~/+-]+"),
    )
}
_HOLE = re.compile(r"\{([^{}]*)\}")
_NAMED = re.compile(r"(?P<name>[a-z][a-z0-9_]{0,62})(?::(?P<kind>.*))?", re.ASCII)
_LITERALS = {
    "path": re.compile(r"(?:[A-Za-z0-9._~!$&'()*+=:@-]|%[0-9A-F]{2})*", re.ASCII),
    "query": re.compile(r"(?:[A-Za-z0-9._~!$'()*+:@/-]|%[0-9A-F]{2})*", re.ASCII),
    "header": re.compile(r"[\x20-\x7e]*", re.ASCII),
}
_KNOWN = "segment, slug, int, hex, uuid, text, rest or words as in a|b"


class PatternInvalid(ValueError):
    """A pattern means nothing; the text says what to write."""


@lru_cache(maxsize=4096)
def compile_path(path: str) -> re.Pattern[str]:
    """Make the expression of a path template.

    Raises:
        PatternInvalid: The template is none.
    """
    if not path.startswith("/"):
        raise PatternInvalid('the path must begin with "/"')
    segments = path[1:].split("/")
    if "" in segments[:-1]:
        raise PatternInvalid('the path has "//": write one slash')
    names: list[str] = []
    last = len(segments) - (2 if segments[-1] == "" else 1)
    parts = [_compile_segment(text, names, index == last) for index, text in enumerate(segments)]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise PatternInvalid(f"the name {twice[0]} stands twice in the path: give each part its own")
    if not is_plain_path(_HOLE.sub("x", path)):
        raise PatternInvalid("the path can never be asked for: no dots alone, no escapes that hide something")
    return re.compile("/" + "/".join(parts), re.ASCII)


def _compile_segment(text: str, names: list[str], last: bool) -> str:
    before, hole, after = _split(text, "path")
    if hole is None:
        return re.escape(before)
    named = _NAMED.fullmatch(hole)
    if named is None:
        raise PatternInvalid(f"{{{hole}}} is no part of a path: write {{name}} or {{name:type}}")
    if named["kind"] is None and named["name"] in {*TYPES, "text"}:
        raise PatternInvalid(f"{{{hole}}} is a type without a name: write {{name:{hole}}}")
    names.append(named["name"])
    kind = "segment" if named["kind"] is None else named["kind"]
    if kind == "text":
        raise PatternInvalid("the type text is for query and headers: write segment, or rest at the end")
    if kind == "rest" and (before or after or not last):
        raise PatternInvalid(f"{{{hole}}} must be the last of the path, with nothing beside it")
    if kind == "rest":
        return _expression(kind, "path")
    return rf"(?>{re.escape(before)}{_expression(kind, 'path')}{re.escape(after)}(?=/|\Z))"


@lru_cache(maxsize=4096)
def compile_value(pattern: str, place: str) -> re.Pattern[str]:
    """Make the expression of a value's pattern.

    Args:
        pattern: For example "{int}", "open", "v{int}" or "{asc|desc}".
        place: "query" or "header".

    Raises:
        PatternInvalid: The pattern is none.
    """
    before, hole, after = _split(pattern, place)
    if hole is None:
        return re.compile(re.escape(before))
    named = _NAMED.fullmatch(hole)
    if named is not None and named["kind"] is not None:
        raise PatternInvalid(f"{{{hole}}} names itself twice: write {{{named['kind']}}}")
    if hole in ("rest", "") or (hole == "text" and (before or after)):
        raise PatternInvalid(f"{{{hole}}} cannot stand there: write {{text}} alone, {{int}} or another type")
    expression = rf"{re.escape(before)}{_expression(hole, place)}{re.escape(after)}"
    return re.compile(expression, re.ASCII)


def fits_value(pattern: str, place: str, value: str) -> bool:
    """Tell whether a value of the query or of a header is as its pattern says; a segment hides no path."""
    found = compile_value(pattern, place).fullmatch(value)
    if found is None:
        return False
    piece = found.groupdict().get("piece")
    return piece is None or is_plain_path(f"/{piece}")


def _split(text: str, place: str) -> tuple[str, str | None, str]:
    """Return what stands before the one hole, the hole without its braces, and what stands after it."""
    found = _HOLE.findall(text)
    if len(found) > 1:
        raise PatternInvalid(f'"{text}" has two parts in braces: one is possible between two slashes')
    before, _, after = text.partition(f"{{{found[0]}}}") if found else (text, "", "")
    for literal in (before, after):
        if not _LITERALS[place].fullmatch(literal):
            raise PatternInvalid(f'"{text}" has characters that cannot stand there{_hint(literal)}')
        if found and len(literal) > MAX_BESIDE:
            remedy = f"write {MAX_BESIDE} at most on each side of the braces"
            raise PatternInvalid(f"{{{found[0]}}} has {len(literal)} characters beside it: {remedy}")
    return before, found[0] if found else None, after


def _hint(literal: str) -> str:
    if "{" in literal or "}" in literal:
        return ": a brace is not closed"
    return ": write them as %XX, with capital letters, as the client sends them"


def _expression(kind: str, place: str) -> str:
    if "|" in kind:
        if not _WORDS[place].fullmatch(kind):
            raise PatternInvalid(f"{{{kind}}}: write words of letters, digits and -._~ with | between them")
        return "(?:" + "|".join(re.escape(word) for word in kind.split("|")) + ")"
    if kind == "text":
        return f"(?:{QUERY_TEXT if place == 'query' else HEADER_TEXT})"
    if kind not in TYPES:
        raise PatternInvalid(f'"{kind}" is no type: known are {_KNOWN}')
    group = "?P<piece>" if kind == "segment" and place != "path" else "?:"
    return f"({group}{TYPES[kind]})"
