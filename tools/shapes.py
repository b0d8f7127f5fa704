"""Shapes: a message type prepared once, so that a call only walks it.

`walk` is the one way through a message: checks, destinations, amounts and cleaning are loops over it.
Paths are those that violations name: "payments[3].amount.minor_units", `notes["a"]`.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message

from tools.descriptors import find_messages
from tools.roles import Roles, read_roles


class Kind(enum.Enum):
    """What a field's value is, as far as checks and views differ."""

    STRING = "string"
    BYTES = "bytes"
    BOOL = "bool"
    INT = "int"
    FLOAT = "float"
    ENUM = "enum"
    MESSAGE = "message"


UNSIGNED_64 = (FieldDescriptor.TYPE_UINT64, FieldDescriptor.TYPE_FIXED64)
RANGED_TYPES = ("google.protobuf.Timestamp", "google.protobuf.Duration")
"""Messages whose values have a range that their fields do not say."""

_KINDS = {
    FieldDescriptor.CPPTYPE_STRING: Kind.STRING,
    FieldDescriptor.CPPTYPE_BOOL: Kind.BOOL,
    FieldDescriptor.CPPTYPE_INT32: Kind.INT,
    FieldDescriptor.CPPTYPE_INT64: Kind.INT,
    FieldDescriptor.CPPTYPE_UINT32: Kind.INT,
    FieldDescriptor.CPPTYPE_UINT64: Kind.INT,
    FieldDescriptor.CPPTYPE_FLOAT: Kind.FLOAT,
    FieldDescriptor.CPPTYPE_DOUBLE: Kind.FLOAT,
    FieldDescriptor.CPPTYPE_ENUM: Kind.ENUM,
    FieldDescriptor.CPPTYPE_MESSAGE: Kind.MESSAGE,
}


class Concern(enum.Enum):
    """Why a message is walked: what cannot matter to it is not visited."""

    CHECKS = "checks"
    DESTINATIONS = "destinations"
    AMOUNTS = "amounts"
    UNTRUSTED = "untrusted"
    ALL = "all"


@dataclass(slots=True, eq=False)
class MessageShape:
    """A message type: its fields by name, whether it can hold itself, and what each concern visits."""

    descriptor: Descriptor
    recursive: bool
    fields: dict[str, FieldShape] = field(default_factory=dict)
    visits: dict[Concern, frozenset[str]] = field(default_factory=dict)

    @property
    def full_name(self) -> str:
        """The type's name with its package."""
        return self.descriptor.full_name


@dataclass(frozen=True, slots=True, eq=False)
class FieldShape:
    """A field. For a map, `kind` and `message` are those of the values, and `key` is the key's field.

    Attributes:
        values: The descriptor of the values: for a map its entry's, otherwise the field's own.
        presence: True where unset differs from the default (messages, `optional`, oneof members).
    """

    descriptor: FieldDescriptor
    values: FieldDescriptor
    name: str
    kind: Kind
    repeated: bool
    presence: bool
    roles: Roles
    message: MessageShape | None = None
    key: FieldShape | None = None

    @property
    def is_map(self) -> bool:
        """True for a map field."""
        return self.key is not None

    @property
    def enum(self) -> EnumDescriptor:
        """The type of an enum field's values."""
        assert self.values.enum_type is not None, "asked of enum fields only"
        return self.values.enum_type


class Place(NamedTuple):
    """One value met on the walk: a scalar, an element of a list or map, or a message."""

    path: str
    field: FieldShape
    value: Any
    depth: int


def build_shape(descriptor: Descriptor, known: dict[str, MessageShape]) -> MessageShape:
    """Prepare a message type and all that it can hold; `known` is shared by the types of one pool."""
    new = {name: each for name, each in find_messages(descriptor).items() if name not in known}
    known.update((name, MessageShape(each, is_recursive(each))) for name, each in new.items())
    for name, each in new.items():
        known[name].fields.update((item.name, _build_field(item, known)) for item in each.fields)
    for concern, matters in _MATTERS.items():
        mattering = _find_mattering(known, matters)
        for shape in known.values():
            items = shape.fields.values()
            shape.visits[concern] = frozenset(i.name for i in items if matters(i) or _holds(i, mattering))
    return known[descriptor.full_name]


def is_recursive(descriptor: Descriptor) -> bool:
    """Tell whether a message type can hold a message of its own type, at any depth."""
    seen: set[str] = set()
    waiting = [descriptor]
    while waiting:
        for item in waiting.pop().fields:
            inner = item.message_type
            if inner is None or inner.full_name in seen:
                continue
            if inner.full_name == descriptor.full_name:
                return True
            seen.add(inner.full_name)
            waiting.append(inner)
    return False


def walk(
    message: Message, shape: MessageShape, concern: Concern, path: str = "", depth: int = 1
) -> Iterator[Place]:
    """Yield the set values of `message` that can matter to `concern`, parents before what they hold."""
    visited = shape.visits[concern]
    if not visited:
        return
    for descriptor, value in message.ListFields():
        if descriptor.name not in visited:
            continue
        item = shape.fields[descriptor.name]
        for where, inner in spread(item, value, f"{path}.{item.name}" if path else item.name):
            yield Place(where, item, inner, depth)
            if item.message is not None and item.message.visits[concern]:
                yield from walk(inner, item.message, concern, where, depth + 1)


def spread(item: FieldShape, value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield the one value of a field, or each of a list or map, with its path."""
    if item.is_map:
        for key in sorted(value):
            yield f"{path}[{quote_key(item, key)}]", value[key]
    elif item.repeated:
        for index, inner in enumerate(value):
            yield f"{path}[{index}]", inner
    else:
        yield path, value


def quote_key(item: FieldShape, key: object) -> str:
    """Write a map's key for a path; keys of a secret map are secret too."""
    return "…" if item.roles.secret else json.dumps(key)


def _needs_check(item: FieldShape) -> bool:
    if item.kind in (Kind.ENUM, Kind.FLOAT) or item.roles.amount:
        return True
    if item.kind is Kind.INT:
        return item.values.type in UNSIGNED_64
    return item.message is not None and (item.message.recursive or item.message.full_name in RANGED_TYPES)


_MATTERS: dict[Concern, Callable[[FieldShape], bool]] = {
    Concern.CHECKS: _needs_check,
    Concern.DESTINATIONS: lambda item: item.roles.destination,
    Concern.AMOUNTS: lambda item: item.roles.amount,
    Concern.UNTRUSTED: lambda item: item.roles.untrusted,
    Concern.ALL: lambda _item: True,
}


def _find_mattering(known: dict[str, MessageShape], matters: Callable[[FieldShape], bool]) -> set[str]:
    """Find the types of which a field matters, or that hold such a type at any depth."""
    holders: dict[str, list[str]] = {}
    waiting: list[str] = []
    for name, shape in known.items():
        for item in shape.fields.values():
            if item.message is not None:
                holders.setdefault(item.message.full_name, []).append(name)
            if matters(item):
                waiting.append(name)
    found: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting.extend(holders.get(name, ()))
    return found


def _holds(item: FieldShape, types: set[str]) -> bool:
    return item.message is not None and item.message.full_name in types


def _build_field(item: FieldDescriptor, known: dict[str, MessageShape]) -> FieldShape:
    roles = read_roles(item)
    entry = item.message_type
    if entry is not None and entry.GetOptions().map_entry:
        value = _build_field(entry.fields_by_name["value"], known)
        key = _build_field(entry.fields_by_name["key"], known)
        return FieldShape(item, value.values, item.name, value.kind, True, False, roles, value.message, key)
    kind = Kind.BYTES if item.type == FieldDescriptor.TYPE_BYTES else _KINDS[item.cpp_type]
    inner = None if entry is None else known[entry.full_name]
    return FieldShape(item, item, item.name, kind, item.is_repeated, item.has_presence, roles, inner)
