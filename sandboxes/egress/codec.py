"""Messages as JSON objects, read strictly: exact keys, exact types, ranges. Broker and children share it.

A message is a frozen dataclass that checks itself in `__post_init__`: what could not be read is not written
either. `NESTED` names its fields that hold entries of their own: an object, or a list of them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any, TypeVar

MAX_COUNT = 2**53
TEXT = re.compile(r"[ -~]{0,1000}")
_MAX_ENTRIES = 1_000

M = TypeVar("M")


class ControlError(Exception):
    """The other side said something that is no message."""


def check_whole(value: object, name: str, low: int, high: int) -> int:
    """Take a whole number within a range.

    Raises:
        ControlError: It is none; True is none either.
    """
    if type(value) is not int or not low <= value <= high:
        raise ControlError(f"{name}: {str(value)[:80]!r} is no whole number within {low}-{high}")
    return value


def check_flag(value: object, name: str) -> bool:
    """Take True or False.

    Raises:
        ControlError: It is neither.
    """
    if type(value) is not bool:
        raise ControlError(f"{name}: is neither true nor false")
    return value


def check_text(value: object, name: str, pattern: re.Pattern[str]) -> str:
    """Take a text that matches a pattern as a whole.

    Raises:
        ControlError: It does not.
    """
    if type(value) is not str or not pattern.fullmatch(value):
        raise ControlError(f"{name}: {str(value)[:80]!r} does not match {pattern.pattern}")
    return value


def check_list(value: object, name: str, most: int) -> list[Any]:
    """Take a list of at most so many.

    Raises:
        ControlError: It is none, or longer.
    """
    if type(value) is not list or len(value) > most:
        raise ControlError(f"{name}: is no list of at most {most}")
    return value


def check_distinct(names: list[str], name: str) -> None:
    """Refuse a list that names one twice.

    Raises:
        ControlError: It does.
    """
    if len(set(names)) != len(names):
        raise ControlError(f"{name}: names one twice")


def printable(text: str) -> str:
    """Make any text fit for a message."""
    return text.encode("ascii", "backslashreplace").decode().replace("\n", " | ")[:500].strip()


def read_time(micros: int) -> datetime:
    """Read microseconds since 1970.

    Raises:
        ControlError: They are out of range.
    """
    try:
        return datetime.fromtimestamp(micros / 1_000_000, UTC)
    except (OverflowError, ValueError) as error:
        raise ControlError(f"time: {micros} is out of range") from error


def read_object(body: bytes) -> dict[str, Any]:
    """Read one JSON object, in which no key stands twice.

    Raises:
        ControlError: It is none.
    """
    try:
        document = json.loads(body, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise ControlError(f"is no JSON: {error}") from error
    if type(document) is not dict:
        raise ControlError("is no JSON object")
    return document


def read_message(body: bytes, kinds: Mapping[str, type[M]]) -> M:
    """Read one message of the kinds that may come, by its `op`.

    Raises:
        ControlError: It is none of them.
    """
    document = read_object(body)
    op = document.pop("op", None)
    if type(op) is not str or op not in kinds:
        raise ControlError(f"op: {str(op)[:80]!r} is not one of {sorted(kinds)}")
    return build(kinds[op], document)


def build(kind: type[M], document: object) -> M:
    """Build a message, or an entry of one, of exactly its fields.

    Raises:
        ControlError: There are others, or one does not check.
    """
    names = {item.name for item in fields(kind)}  # type: ignore[arg-type]
    if type(document) is not dict or set(document) != names:
        raise ControlError(f"{kind.__name__}: wants exactly {sorted(names)}")
    nested: Mapping[str, type[Any]] = getattr(kind, "NESTED", {})
    for name, entry in nested.items():
        document[name] = _build_nested(entry, document[name], name)
    return kind(**document)


def _build_nested(entry: type[Any], value: object, name: str) -> Any:
    if value is None:
        return None  # the message's own check says whether it may be missing
    if type(value) is dict:
        return build(entry, value)
    return [build(entry, item) for item in check_list(value, name, _MAX_ENTRIES)]


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({name for name, _ in pairs}) != len(pairs):
        raise ControlError("a key stands twice")
    return dict(pairs)
