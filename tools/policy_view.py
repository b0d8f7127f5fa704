"""The policy view: what Cedar sees of a request, and its schema.

| field | in the view |
|---|---|
| string, bool | the same |
| integers | Long; parse refuses what does not fit |
| enum | String, the value's name |
| message | Record; absent when unset |
| list | Set |
| `optional`, oneof member | absent when unset |
| float, bytes, map, recursive message, `secret` field | not visible: listed by `find_hidden` |

A field without presence is always there, so a policy need not ask `has` before it compares.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from google.protobuf.message import Message

from tools.shapes import FieldShape, Kind, MessageShape

_TYPES = {Kind.STRING: "String", Kind.ENUM: "String", Kind.BOOL: "Boolean", Kind.INT: "Long"}


def view_message(message: Message, shape: MessageShape) -> dict[str, object]:
    """Make the record that policies see of a checked message."""
    view: dict[str, object] = {}
    for item in _visible(shape):
        if item.presence and not message.HasField(item.name):
            continue
        value = getattr(message, item.name)
        if item.repeated:
            view[item.name] = [_view_value(inner, item) for inner in value]
        else:
            view[item.name] = _view_value(value, item)
    return view


def build_policy_schema(shape: MessageShape) -> dict[str, object]:
    """Build the record type of the view, in Cedar's JSON schema form."""
    attributes: dict[str, object] = {}
    for item in _visible(shape):
        inner = _build_type(item)
        typed: dict[str, object] = {"type": "Set", "element": inner} if item.repeated else inner
        attributes[item.name] = {**typed, "required": not item.presence}
    return {"type": "Record", "attributes": attributes}


def find_hidden(shape: MessageShape, path: str = "") -> Iterator[str]:
    """Yield the paths of fields that policies cannot see."""
    for item in shape.fields.values():
        where = f"{path}.{item.name}" if path else item.name
        if not _is_visible(item):
            yield where
        elif item.message is not None:
            yield from find_hidden(item.message, where)


def _visible(shape: MessageShape) -> Iterator[FieldShape]:
    return (item for item in shape.fields.values() if _is_visible(item))


def _is_visible(item: FieldShape) -> bool:
    if item.roles.secret or item.is_map:
        return False
    if item.message is not None:
        return not item.message.recursive
    return item.kind in _TYPES


def _view_value(value: Any, item: FieldShape) -> object:
    if item.message is not None:
        return view_message(value, item.message)
    if item.kind is Kind.ENUM:
        return item.enum.values_by_number[value].name
    return value


def _build_type(item: FieldShape) -> dict[str, object]:
    if item.message is not None:
        return build_policy_schema(item.message)
    return {"type": _TYPES[item.kind]}
