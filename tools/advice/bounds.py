"""Advice on bounds: what a request may hold without a limit, an agent can be talked into sending."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from google.protobuf.descriptor import FieldDescriptor

from tools.advice.subject import Subject, find_entry, is_map
from tools.errors import Violation, breach
from tools.roles import read_probe_role
from tools.rules import read_rules

_KNOWN_FORMS = (
    "uuid",
    "tuuid",
    "ulid",
    "email",
    "hostname",
    "ip",
    "ipv4",
    "ipv6",
    "address",
    "host_and_port",
)
"""Rules of strings whose form has a largest length."""
_RANGES = (
    *(("string", f"min_{unit}", f"max_{unit}") for unit in ("len", "bytes")),
    ("bytes", "min_len", "max_len"),
    ("repeated", "min_items", "max_items"),
    ("map", "min_pairs", "max_pairs"),
)
"""Kinds of rules with a least and a largest size. Of numbers, a floor above the ceiling means "outside"."""
_LENGTHS = ("const", "len", "max_len", "len_bytes", "max_bytes", "in")
_BYTE_BOUNDS = ("const", "len", "max_len", "in", "ip", "ipv4", "ipv6", "uuid")
_NUMBERS = {
    getattr(FieldDescriptor, f"TYPE_{name.upper()}"): name
    for name in (
        "int32", "int64", "uint32", "uint64", "sint32", "sint64",
        "fixed32", "fixed64", "sfixed32", "sfixed64", "float", "double",
    )
}  # fmt: skip
_UNSIGNED = ("uint32", "uint64", "fixed32", "fixed64")


def find_unbounded_strings(subject: Subject) -> Iterator[Violation]:
    """Yield strings without a largest length."""
    for item, value, rules in _list_values(subject):
        if value.type == FieldDescriptor.TYPE_STRING and not _bounds_string(rules):
            yield breach("STRING_UNBOUNDED", item.full_name, f"is a string without a bound{_inside(item)}")


def find_loose_patterns(subject: Subject) -> Iterator[Violation]:
    """Yield patterns that anything may surround."""
    for item, _, rules in _list_values(subject):
        if rules is not None and rules.string.pattern and not _is_anchored(rules.string.pattern):
            problem = f"has the pattern {rules.string.pattern!r}, which does not reach from ^ to $"
            yield breach("PATTERN_UNANCHORED", item.full_name, problem)


def find_unbounded_numbers(subject: Subject) -> Iterator[Violation]:
    """Yield numbers without a lower or an upper bound."""
    for item, value, rules in _list_values(subject):
        kind = _NUMBERS.get(value.type)
        if kind is not None and not _bounds_number(kind, rules):
            yield breach(
                "NUMBER_UNBOUNDED", item.full_name, f"is a number without both bounds{_inside(item)}"
            )


def find_unbounded_bytes(subject: Subject) -> Iterator[Violation]:
    """Yield bytes without a largest length."""
    for item, value, rules in _list_values(subject):
        if value.type == FieldDescriptor.TYPE_BYTES and not _has_any(rules, "bytes", _BYTE_BOUNDS):
            yield breach("BYTES_UNBOUNDED", item.full_name, f"are bytes without a bound{_inside(item)}")


def find_unbounded_lists(subject: Subject) -> Iterator[Violation]:
    """Yield lists without a largest number of items."""
    for item in subject.request_fields():
        rules = read_rules(item)
        if item.is_repeated and not is_map(item) and not _has_any(rules, "repeated", ("max_items",)):
            yield breach("LIST_UNBOUNDED", item.full_name, "is a list without a bound")


def find_unbounded_maps(subject: Subject) -> Iterator[Violation]:
    """Yield maps without a largest number of pairs."""
    for item in subject.request_fields():
        if is_map(item) and not _has_any(read_rules(item), "map", ("max_pairs",)):
            yield breach("MAP_UNBOUNDED", item.full_name, "is a map without a bound")


def find_contradictions(subject: Subject) -> Iterator[Violation]:
    """Yield fields whose least size is above their largest: no value can satisfy them."""
    for item in subject.request_fields():
        rules = read_rules(item)
        inner = (rules.repeated.items, rules.map.keys, rules.map.values) if rules is not None else ()
        if any(_contradicts(each) for each in (rules, *inner)):
            problem = "has a least size above its largest, so no value is ever taken"
            yield breach("RULE_IMPOSSIBLE", item.full_name, problem)


def _contradicts(rules: Any) -> bool:
    return rules is not None and any(
        _has_any(rules, kind, (largest,))
        and getattr(getattr(rules, kind), least) > getattr(getattr(rules, kind), largest)
        for kind, least, largest in _RANGES
    )


def _list_values(subject: Subject) -> Iterator[tuple[FieldDescriptor, FieldDescriptor, Any]]:
    """Yield (field, the field that its values are of, their rules): of a map its keys and its values."""
    for item in subject.request_fields():
        rules = read_rules(item)
        if _has_cel(rules) or read_probe_role(item):
            continue  # a rule in CEL may bound anything; a probe's key is the broker's
        entry = find_entry(item)
        if entry is not None:
            for part, name in (("key", "keys"), ("value", "values")):
                inner = None if rules is None else getattr(rules.map, name)
                if not _has_cel(inner):
                    yield item, entry.fields_by_name[part], inner
        elif item.is_repeated:
            inner = None if rules is None else rules.repeated.items
            if not _has_cel(inner):
                yield item, item, inner
        else:
            yield item, item, rules


def _has_cel(rules: Any) -> bool:
    return rules is not None and bool(rules.cel or rules.cel_expression)


def _bounds_string(rules: Any) -> bool:
    if rules is None:
        return False
    return _has_any(rules, "string", (*_LENGTHS, *_KNOWN_FORMS)) or _is_anchored(rules.string.pattern)


def _is_anchored(pattern: str) -> bool:
    return pattern.startswith(("^", r"\A")) and pattern.endswith(("$", r"\z"))


def _bounds_number(kind: str, rules: Any) -> bool:
    if _has_any(rules, kind, ("const", "in")):
        return True
    has_floor = kind in _UNSIGNED or _has_any(rules, kind, ("gt", "gte"))
    return has_floor and _has_any(rules, kind, ("lt", "lte"))


def _has_any(rules: Any, kind: str, names: tuple[str, ...]) -> bool:
    if rules is None or not rules.HasField(kind):
        return False
    return bool({field.name for field, _ in getattr(rules, kind).ListFields()} & set(names))


def _inside(item: FieldDescriptor) -> str:
    if is_map(item):
        return " in a map's keys or values"
    return " in a list" if item.is_repeated else ""
