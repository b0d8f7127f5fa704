"""How many bytes a response can have at most, where its rules say it."""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from tools.advice.subject import is_map
from tools.rules import read_rules
from tools.shapes import is_recursive

TAG_BYTES = 2
NUMBER_BYTES = 10
"""The longest varint, and more than a double."""
LENGTH_BYTES = 5
UTF8_BYTES = 4


def measure_response(message: Descriptor) -> int | None:
    """Count the bytes that a message has at most; None where nothing bounds it."""
    if is_recursive(message):
        return None
    total = 0
    for item in message.fields:
        rules = read_rules(item)
        count = _count_items(item, rules)
        size = _measure_value(item, rules)
        if count is None or size is None:
            return None
        total += count * (TAG_BYTES + size)
    return total


def _count_items(item: FieldDescriptor, rules: Any) -> int | None:
    if not item.is_repeated:
        return 1
    if is_map(item) or rules is None or not rules.repeated.HasField("max_items"):
        return None
    return int(rules.repeated.max_items)


def _measure_value(item: FieldDescriptor, rules: Any) -> int | None:
    if item.message_type is not None:
        inner = measure_response(item.message_type)
        return None if inner is None else inner + LENGTH_BYTES
    if item.type not in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES):
        return NUMBER_BYTES
    if rules is not None and item.is_repeated:
        rules = rules.repeated.items
    kind = "string" if item.type == FieldDescriptor.TYPE_STRING else "bytes"
    bound = getattr(rules, kind) if rules is not None else None
    if bound is None or not bound.HasField("max_len"):
        return None
    return int(bound.max_len) * (UTF8_BYTES if kind == "string" else 1) + LENGTH_BYTES
