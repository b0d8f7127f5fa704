r"""Patterns of a contract (RE2) said in the dialect of JSON Schema (ECMA-262), where both mean the same.

What RE2 takes as ASCII (`\d`, `\w`, `\s`) or as anything but a newline (`.`) is spelled out, so that a
validator of any language accepts at least what the contract accepts.
"""

from __future__ import annotations

import re
from collections.abc import Callable

_BYTE = "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_LABEL = "[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
FORMAT_PATTERNS = {
    "email": f"^[a-zA-Z0-9.!#$%&'*+/=?^_`{{|}}~-]+@{_LABEL}([.]{_LABEL})*$",
    "uuid": "^[0-9a-fA-F]{8}-([0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}$",
    "tuuid": "^[0-9a-fA-F]{32}$",
    "ulid": "^[0-7][0-9A-HJKMNP-TV-Za-hjkmnp-tv-z]{25}$",
    "ipv4": f"^({_BYTE}[.]){{3}}{_BYTE}$",
    "protobuf_fqn": "^[A-Za-z_][A-Za-z_0-9]*([.][A-Za-z_][A-Za-z_0-9]*)*$",
    "protobuf_dot_fqn": "^([.][A-Za-z_][A-Za-z_0-9]*)+$",
}
"""The formats of buf.validate that a pattern says exactly (buf/validate/validate.proto, StringRules)."""
_SETS = {"d": "0-9", "w": "0-9A-Za-z_", "s": r"\t\n\f\r "}
_KEPT_ESCAPES = frozenset("nrtfv")
_SYNTAX = frozenset(r"\^$.|?*+()[]{}/")
_REPEAT = re.compile(r"\{[0-9]+(?:,[0-9]*)?\}")
_HEX = re.compile(r"x[0-9A-Fa-f]{2}")
_LONG_HEX = re.compile(r"x\{([0-9A-Fa-f]{1,6})\}")


class _NotPortable(Exception):
    """The pattern uses something that ECMA-262 lacks or means otherwise."""


def quote(text: str) -> str:
    """Write a literal text as a pattern."""
    return "".join(f"\\{character}" if character in _SYNTAX else character for character in text)


def translate_pattern(pattern: str) -> str | None:
    """Translate an RE2 pattern that compiles; None where ECMA-262 cannot say the same."""
    out: list[str] = []
    position = 0
    try:
        while position < len(pattern):
            read = _READERS.get(pattern[position], _read_literal)
            piece, position = read(pattern, position)
            out.append(piece)
    except _NotPortable:
        return None
    return "".join(out)


def _read_literal(pattern: str, at: int) -> tuple[str, int]:
    return pattern[at], at + 1


def _read_any(_pattern: str, at: int) -> tuple[str, int]:
    return r"[^\n]", at + 1


def _read_stray(pattern: str, at: int) -> tuple[str, int]:
    return f"\\{pattern[at]}", at + 1


def _read_group(pattern: str, at: int) -> tuple[str, int]:
    if pattern.startswith("(?", at) and not pattern.startswith("(?:", at):
        raise _NotPortable
    return "(", at + 1


def _read_brace(pattern: str, at: int) -> tuple[str, int]:
    repeat = _REPEAT.match(pattern, at)
    return (repeat.group(), repeat.end()) if repeat else (r"\{", at + 1)


def _read_escape(pattern: str, at: int) -> tuple[str, int]:
    character = pattern[at + 1]
    if character in _SETS:
        return f"[{_SETS[character]}]", at + 2
    if character.lower() in _SETS:
        return f"[^{_SETS[character.lower()]}]", at + 2
    return _read_plain_escape(pattern, at)


def _read_plain_escape(pattern: str, at: int) -> tuple[str, int]:
    character = pattern[at + 1]
    code = _HEX.match(pattern, at + 1)
    if code:
        return f"\\{code.group()}", code.end()
    long_code = _LONG_HEX.match(pattern, at + 1)
    if long_code:
        return _write_code_point(int(long_code[1], 16)), long_code.end()
    if character in _KEPT_ESCAPES:
        return f"\\{character}", at + 2
    if character.isascii() and character.isalnum():
        raise _NotPortable
    return (quote(character), at + 2)


def _write_code_point(number: int) -> str:
    """Write a character as itself: validators differ in how they escape those beyond 16 bits."""
    if number < 0x80:
        return f"\\x{number:02x}"
    if 0xD800 <= number < 0xE000:
        raise _NotPortable  # half of a pair is no character
    return chr(number)


def _read_class(pattern: str, at: int) -> tuple[str, int]:
    start = at + 2 if pattern.startswith("[^", at) else at + 1
    out, position = [pattern[at:start]], start
    while pattern[position] != "]" or position == start:
        piece, position = _read_class_member(pattern, position, start)
        out.append(piece)
    return "".join(out) + "]", position + 1


def _read_class_member(pattern: str, at: int, start: int) -> tuple[str, int]:
    character = pattern[at]
    if pattern.startswith(("[:", "&&", "--", "~~"), at) or (character == "]" and at == start):
        raise _NotPortable
    if character == "\\":
        escaped = pattern[at + 1]
        if escaped in _SETS:
            return _SETS[escaped], at + 2
        if escaped.lower() in _SETS:
            raise _NotPortable
        return (r"\-", at + 2) if escaped == "-" else _read_plain_escape(pattern, at)
    return (r"\[", at + 1) if character == "[" else (character, at + 1)


_READERS: dict[str, Callable[[str, int], tuple[str, int]]] = {
    ".": _read_any,
    "(": _read_group,
    "{": _read_brace,
    "[": _read_class,
    "\\": _read_escape,
    "}": _read_stray,
    "]": _read_stray,
}
