"""Requests in JSON, right and nearly right, made from the descriptors and rules of a contract.

A value is chosen first, at the edges of its rules, and then spelled: strictly, plainly or in any way that a
contract takes. With a fixed seed always the same ones.
"""

from __future__ import annotations

import base64
import enum
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tests.tools.pattern_texts import make_text
from tools.json_values import MAX_FLOAT, WRAPPER_TYPES, find_integer_range
from tools.patterns import FORMAT_PATTERNS
from tools.rules import read_rules
from tools.shapes import FieldShape, Kind, MessageShape

_MAX_LEVELS = 3
_FAR = 600
_TEXTS = {
    "google.protobuf.Timestamp": [
        "2027-01-31T12:00:00Z", "2027-01-31T12:00:00.5+02:00", "1970-01-01T00:00:00Z", "2999-12-31T23:59:59Z",
    ],
    "google.protobuf.Duration": ["1.5s", "0s", "3600s", "-3s", "0.000000001s"],
    "google.protobuf.FieldMask": ["", "name", "name,address.city"],
}  # fmt: skip
_BAD_TEXTS = [
    "x",
    "2027-13-01T00:00:00Z",
    "2027-02-30T00:00:00Z",
    "999999999999s",
    "1",
    "a b",
    "0000-01-01T0:0:0Z",
]
_JUNK: list[Any] = [True, 1.5, "junk", [], {}, -1, "1", 10**30, "\n", [None], {"a": 1}]


class Spelling(enum.Enum):
    """How the values of a document are written."""

    STRICT = "strict"
    PLAIN = "plain"
    ANY = "any"


@dataclass(frozen=True)
class Text:
    """Bytes, before they are written as base64."""

    data: bytes


class Documents:
    """Makes documents of one message type."""

    def __init__(self, seed: int, spelling: Spelling) -> None:
        self._choose = random.Random(seed)
        self._spelling = spelling
        self._pools: dict[tuple[str, str], list[Any]] = {}
        self._rightness = 0.9

    def make(self, shape: MessageShape) -> dict[str, Any]:
        """Make one document; more fields of it are wrong now, fewer then."""
        self._rightness = self._choose.choice((1.0, 1.0, 0.97, 0.9, 0.7))
        return self._make_object(shape, 1)

    def _make_object(self, shape: MessageShape, level: int) -> dict[str, Any]:
        made: dict[str, Any] = {}
        taken: set[str] = set()
        for item in self._shuffle(shape):
            value = self._make_field(shape, item, level, taken)
            if value is not None or self._spelling is Spelling.STRICT or self._choose.random() < 0.1:
                made[self._name(item)] = value
        if self._is_wrong(0.2):
            made["surplus"] = 1
        return made

    def _shuffle(self, shape: MessageShape) -> list[FieldShape]:
        items = list(shape.fields.values())
        self._choose.shuffle(items)
        return items

    def _name(self, item: FieldShape) -> str:
        by_proto = self._spelling is Spelling.ANY and self._choose.random() < 0.3
        return item.name if by_proto else item.descriptor.json_name

    def _is_wrong(self, weight: float = 1.0) -> bool:
        return self._choose.random() < (1 - self._rightness) * weight

    def _make_field(self, shape: MessageShape, item: FieldShape, level: int, taken: set[str]) -> Any:
        oneof = item.descriptor.containing_oneof
        if oneof is not None and len(oneof.fields) > 1:
            if oneof.name in taken and not self._is_wrong():
                return None
            taken.add(oneof.name)
        if level > _MAX_LEVELS and item.message is not None and item.message.recursive:
            return None
        rules = read_rules(item.descriptor)
        needed = rules is not None and (rules.required or level == 1)
        if self._choose.random() < (0.05 if needed or rules is not None else 0.3):
            return None
        if self._is_wrong(0.3):
            return self._choose.choice(self._list_junk(item))
        return self._make_many(item, rules, level) if item.repeated else self._make_value(item, rules, level)

    def _list_junk(self, item: FieldShape) -> list[Any]:
        """List what a field cannot be; strictly spelled, a number is none of a wide integer."""
        if self._spelling is not Spelling.STRICT or item.kind in (Kind.STRING, Kind.BOOL):
            return _JUNK
        return ["junk!", [None], True] if item.message is None else ["junk!", 1]

    def _make_many(self, item: FieldShape, rules: Any, level: int) -> Any:
        if item.key is not None:
            limits, inner = (rules.map, rules.map.values) if rules is not None else (None, None)
            keys = rules.map.keys if rules is not None else None
            size = self._size(limits, "min_pairs", "max_pairs")
            pairs = [
                (self._key(self._make_value(item.key, keys, level)), self._make_value(item, inner, level + 1))
                for _ in range(size)
            ]
            return dict(pairs)
        limits, inner = (rules.repeated, rules.repeated.items) if rules is not None else (None, None)
        return [
            self._make_value(item, inner, level + 1)
            for _ in range(self._size(limits, "min_items", "max_items"))
        ]

    def _key(self, value: Any) -> str:
        return (
            {True: "true", False: "false"}.get(value, str(value)) if isinstance(value, bool) else str(value)
        )

    def _size(self, limits: Any, least: str, most: str) -> int:
        low = getattr(limits, least) if limits is not None else 0
        high = (getattr(limits, most) if limits is not None else 0) or low + 3
        if self._is_wrong():
            return self._choose.choice((max(0, low - 1), high + 1, 0))
        return self._choose.randint(low, max(low, min(high, low + 4)))

    def _make_value(self, item: FieldShape, rules: Any, level: int) -> Any:
        message = item.message
        if message is not None and message.full_name not in _TEXTS and message.full_name not in WRAPPER_TYPES:
            return self._make_object(message, level + 1)
        scalar = (
            message.fields["value"] if message is not None and message.full_name in WRAPPER_TYPES else item
        )
        value = self._choose.choice(self._pool(scalar, item, rules))
        return self._spell(scalar, value)

    def _pool(self, scalar: FieldShape, item: FieldShape, rules: Any) -> list[Any]:
        """Give values at the edges of a field's rules; wrong ones now and then."""
        kind = "wrong" if self._is_wrong() else "right"
        text = rules.SerializeToString(deterministic=True) if rules is not None else b""
        known = (f"{item.descriptor.full_name}:{text.hex()}", kind)
        if known not in self._pools:
            right, wrong = self._list_values(scalar, item, rules)
            self._pools[known] = (right if kind == "right" else wrong) or [None]
        return self._pools[known]

    def _list_values(self, scalar: FieldShape, item: FieldShape, rules: Any) -> tuple[list[Any], list[Any]]:
        name = rules.WhichOneof("type") if rules is not None else None
        typed = getattr(rules, name) if name else None
        if item.message is not None and item.message.full_name in _TEXTS:
            return _TEXTS[item.message.full_name], [*_BAD_TEXTS, *_TEXTS[item.message.full_name]]
        listers: dict[Kind, Callable[[FieldShape, Any], tuple[list[Any], list[Any]]]] = {
            Kind.STRING: self._list_strings,
            Kind.BYTES: self._list_bytes,
            Kind.BOOL: lambda _item, _typed: ([True, False], [True, False]),
            Kind.INT: self._list_integers,
            Kind.FLOAT: self._list_floats,
            Kind.ENUM: self._list_enums,
        }
        right, wrong = listers[scalar.kind](scalar, typed)
        if rules is not None and rules.ignore:
            wrong = [*wrong, _zero(scalar.kind)]
        return right, wrong

    def _list_strings(self, _item: FieldShape, typed: Any) -> tuple[list[Any], list[Any]]:
        if typed is None:
            return ["", "a", "some words", "Ünï ☃ 😀", "x" * 40, "\u202e", "a\nb"], ["\0", "y" * 2_000]
        if typed.const or getattr(typed, "in"):
            right = [typed.const, *getattr(typed, "in")] if typed.const else list(getattr(typed, "in"))
            return right, ["", "z", *(text + " " for text in right), *(text.upper() for text in right)]
        right = list(self._make_strings(typed))
        low, high = typed.min_len or typed.len, typed.max_len or typed.len
        wrong = [
            "",
            " ",
            "\n",
            *(letter * size for letter in "b😀Ä" for size in _list_sizes(low, high, outside=True)),
        ]
        wrong += [bad for text in right[:6] for bad in (text.swapcase(), text + "\n", text[1:])]
        return [text for text in right if _fits(text, typed)] or right, wrong

    def _make_strings(self, typed: Any) -> Iterator[str]:
        formats = [FORMAT_PATTERNS[name] for name in FORMAT_PATTERNS if getattr(typed, name, False)]
        patterns = [*([typed.pattern] if typed.pattern else []), *formats]
        for pattern in patterns:
            yield from (make_text(pattern, self._choose) for _ in range(60))
        low = typed.len or typed.min_len
        high = typed.len or typed.max_len or low + 8
        for size in _list_sizes(low, high):
            for letter in ("",) if patterns else ("a", "😀", "é"):
                body = letter * max(0, size - len(typed.prefix) - len(typed.suffix) - len(typed.contains))
                yield typed.prefix + body + typed.contains + typed.suffix

    def _list_bytes(self, _item: FieldShape, typed: Any) -> tuple[list[Any], list[Any]]:
        low = (typed.len or typed.min_len) if typed is not None else 0
        high = (typed.len or typed.max_len or low + 4) if typed is not None else 9
        every = bytes([*range(250, 256), *range(250)]) * 3
        right = [Text(every[:size]) for size in _list_sizes(low, high)]
        wrong = [Text(every[:size]) for size in _list_sizes(low, high, outside=True)]
        return right, [*wrong, "!!", "YQ=", "Y"]

    def _list_integers(self, item: FieldShape, typed: Any) -> tuple[list[Any], list[Any]]:
        least, greatest = find_integer_range(item.values)
        edges = {
            least,
            greatest,
            0,
            1,
            -1,
            least - 1,
            greatest + 1,
            10,
            99,
            100,
            2**31,
            -(2**31) - 1,
            2**53 + 1,
        }
        if typed is not None:
            named = [
                typed.const,
                typed.lt,
                typed.lte,
                typed.gt,
                typed.gte,
                *getattr(typed, "in"),
                *typed.not_in,
            ]
            edges |= {value + step for value in named for step in (-1, 0, 1)}
            edges |= {self._choose.randint(least, greatest), self._choose.randint(0, 1000)}
        right = [value for value in sorted(edges) if least <= value <= greatest and _is_within(value, typed)]
        return right, sorted(edges)

    def _list_floats(self, item: FieldShape, typed: Any) -> tuple[list[Any], list[Any]]:
        edges: set[float] = {0.0, 1.0, -1.0, 0.1, 1e300, -1e300, MAX_FLOAT, 3.5e38, 1e-50, 2.0**60}
        if typed is not None:
            for value in (typed.const, typed.lt, typed.lte, typed.gt, typed.gte, *getattr(typed, "in")):
                edges |= {value, math.nextafter(value, math.inf), math.nextafter(value, -math.inf)}
                edges |= {value + 1e-6, value - 1e-6, value + 1, value - 1}
        values = sorted(edges)
        return [value for value in values if _is_within(value, typed) and abs(value) <= MAX_FLOAT], values

    def _list_enums(self, item: FieldShape, typed: Any) -> tuple[list[Any], list[Any]]:
        every = [value.name for value in item.enum.values]
        if typed is None:
            return every, ["NOPE", *every]
        wanted = set(getattr(typed, "in")) or ({typed.const} if typed.HasField("const") else None)
        right = [
            value.name
            for value in item.enum.values
            if (wanted is None or value.number in wanted) and value.number not in typed.not_in
        ]
        return right, ["NOPE", *every]

    def _spell(self, item: FieldShape, value: Any) -> Any:
        if isinstance(value, Text):
            return self._spell_bytes(value.data)
        if item.kind is Kind.INT and isinstance(value, int):
            return self._spell_integer(item, value)
        if item.kind is Kind.ENUM and self._spelling is not Spelling.STRICT and self._choose.random() < 0.4:
            known = item.enum.values_by_name.get(value)
            return known.number if known is not None else 77
        if item.kind is Kind.FLOAT and self._spelling is Spelling.ANY and self._choose.random() < 0.3:
            return str(value)
        return value

    def _spell_bytes(self, data: bytes) -> str:
        text = base64.b64encode(data).decode()
        if self._spelling is Spelling.ANY and self._choose.random() < 0.6:
            text = text.replace("+", "-").replace("/", "_")
            text = text.rstrip("=") if self._choose.random() < 0.5 else text
        return text

    def _spell_integer(self, item: FieldShape, value: int) -> Any:
        if self._spelling is Spelling.STRICT:
            return str(value) if find_integer_range(item.values)[1] > 2**32 else value
        if self._spelling is Spelling.ANY:
            return self._choose.choice([value, str(value), float(value) if abs(value) < 2**53 else value])
        return value


def _list_sizes(low: int, high: int, *, outside: bool = False) -> list[int]:
    """List sizes at the edges of a range, or just outside; an edge that is far away is left out."""
    edges = {low - 1, high + 1, high + 2, high + 3} if outside else {low, low + 1, low + 2, high - 1, high}
    return [size for size in sorted(edges) if 0 <= size <= _FAR and (outside or low <= size <= high)]


def _zero(kind: Kind) -> Any:
    return {Kind.STRING: "", Kind.BYTES: Text(b""), Kind.BOOL: False, Kind.INT: 0, Kind.FLOAT: 0.0}.get(kind)


def _fits(text: str, typed: Any) -> bool:
    low, high = typed.len or typed.min_len, typed.len or typed.max_len or 1 << 30
    return low <= len(text) <= high


def _is_within(value: float, typed: Any) -> bool:
    """Tell whether a number satisfies an interval; others may be wrong, which is found out."""
    if typed is None:
        return True
    if typed.HasField("const") or getattr(typed, "in"):
        return value in ([typed.const] if typed.HasField("const") else getattr(typed, "in"))
    checks = {
        "gt": lambda bound: value > bound, "gte": lambda bound: value >= bound,
        "lt": lambda bound: value < bound, "lte": lambda bound: value <= bound,
    }  # fmt: skip
    return all(check(getattr(typed, name)) for name, check in checks.items() if typed.HasField(name))
