"""JSON: one strict reading, and one spelling of what was read.

Two parsers that disagree on a document let an attacker show one value to a check and another one to the
agent. So what they disagree on is refused: keys that stand twice, NaN and Infinity, numbers that lose digits
or overflow, halves of characters, text behind the value. Keys and strings are cleaned as TEXT; two keys that
become one by it are refused, too.
"""

from __future__ import annotations

import json
from typing import Any, NoReturn

from tools.content.kinds import Cleaned, ContentInvalid, Problem, Removed
from tools.content.text import clean_text

MAX_CHARACTERS = 1024 * 1024
MAX_DEPTH = 64
MAX_DIGITS = 40
"""Of one number, with sign, point and exponent."""
MAX_INTEGER = (1 << 64) - 1
"""The most that any integer of a program holds, which is an unsigned one of 64 bits."""


class _Number(str):
    """A number as it was written: what is read as a float would be written differently."""

    __slots__ = ()


def clean_json(text: str) -> Cleaned:
    """Read a value strictly, clean its keys and strings, and write it compactly, its keys in their order.

    Raises:
        ContentInvalid: It is no JSON, or more than one parser would agree on.
    """
    if not text:
        return Cleaned("", Removed())
    if len(text) > MAX_CHARACTERS:
        raise ContentInvalid(Problem.TOO_LONG)
    try:
        value = json.loads(
            text,
            object_pairs_hook=_read_object,
            parse_int=_read_integer,
            parse_float=_read_float,
            parse_constant=_refuse_constant,
        )
    except RecursionError as error:
        raise ContentInvalid(Problem.TOO_DEEP) from error
    except ValueError as error:
        raise ContentInvalid(Problem.NOT_JSON) from error
    removed = Removed()
    return Cleaned(_write(value, removed, 1), removed)


def _read_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ContentInvalid(Problem.JSON_KEY)
    return found


def _read_integer(digits: str) -> _Number:
    if len(digits) > MAX_DIGITS or abs(int(digits)) > MAX_INTEGER:
        raise ContentInvalid(Problem.JSON_NUMBER)
    return _Number(digits)


def _read_float(digits: str) -> _Number:
    if len(digits) > MAX_DIGITS or abs(float(digits)) == float("inf"):
        raise ContentInvalid(Problem.JSON_NUMBER)
    return _Number(digits)


def _refuse_constant(_: str) -> NoReturn:
    raise ContentInvalid(Problem.JSON_NUMBER)


def _write(value: Any, removed: Removed, depth: int) -> str:
    if depth > MAX_DEPTH:
        raise ContentInvalid(Problem.TOO_DEEP)
    if isinstance(value, _Number):
        return str(value)
    if isinstance(value, str):
        return _write_string(value, removed)
    if isinstance(value, dict):
        return _write_object(value, removed, depth)
    if isinstance(value, list):
        return "[" + ",".join(_write(item, removed, depth + 1) for item in value) + "]"
    return json.dumps(value)  # true, false, null


def _write_object(value: dict[str, Any], removed: Removed, depth: int) -> str:
    parts: dict[str, str] = {}
    for key, item in value.items():
        name = _write_string(key, removed)
        if name in parts:
            raise ContentInvalid(Problem.JSON_KEY)
        parts[name] = _write(item, removed, depth + 1)
    return "{" + ",".join(f"{name}:{item}" for name, item in parts.items()) + "}"


def _write_string(text: str, removed: Removed) -> str:
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise ContentInvalid(Problem.JSON_SURROGATE)
    cleaned = clean_text(text)
    removed.update(cleaned.removed)
    return json.dumps(cleaned.text, ensure_ascii=False)
