"""Messages by chance, and every way to write one down.

Written without protobuf's own encoder, so that a mistake there cannot hide itself: `wire` and `json_text`
write a message's meaning in one of its many spellings.
"""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st

Draw = Callable[[st.SearchStrategy[Any]], Any]
F = FieldDescriptor
BOOLS = st.booleans()
MAX_DEPTH = 3

_FIXED = {F.TYPE_DOUBLE: "<d", F.TYPE_FLOAT: "<f", F.TYPE_FIXED64: "<Q", F.TYPE_FIXED32: "<I"}
_FIXED |= {F.TYPE_SFIXED32: "<i", F.TYPE_SFIXED64: "<q"}
_ZIGZAG = (F.TYPE_SINT32, F.TYPE_SINT64)
_UNPACKABLE = (F.TYPE_STRING, F.TYPE_BYTES, F.TYPE_MESSAGE)
_FLOAT32 = st.floats(width=32, allow_nan=False, allow_infinity=False)
_PLAIN: dict[int, st.SearchStrategy[Any]] = {
    F.CPPTYPE_STRING: st.text(max_size=6),
    F.CPPTYPE_BOOL: BOOLS,
    F.CPPTYPE_INT32: st.integers(-(2**31), 2**31 - 1) | st.integers(-2, 2),
    F.CPPTYPE_INT64: st.integers(-(2**63), 2**63 - 1) | st.integers(-2, 2),
    F.CPPTYPE_UINT32: st.integers(0, 2**32 - 1) | st.integers(0, 2),
    F.CPPTYPE_UINT64: st.integers(0, 2**63 - 1) | st.integers(0, 2),
    F.CPPTYPE_FLOAT: _FLOAT32 | st.just(0.0),
    F.CPPTYPE_DOUBLE: st.floats(allow_nan=False, allow_infinity=False) | st.just(0.0),
}


@dataclass(frozen=True)
class Source:
    """Where values come from.

    Attributes:
        values: By full field name, where a rule restricts them.
        required: Full names of fields that are always set.
    """

    draw: Draw
    values: Mapping[str, st.SearchStrategy[Any]] = field(default_factory=dict)
    required: frozenset[str] = frozenset()

    def value(self, item: FieldDescriptor) -> Any:
        """Draw a value of a field that is no message."""
        if item.full_name in self.values:
            return self.draw(self.values[item.full_name])
        if item.enum_type is not None:
            return self.draw(st.sampled_from([value.number for value in item.enum_type.values]))
        if item.type == F.TYPE_BYTES:
            return self.draw(st.binary(max_size=6))
        return self.draw(_PLAIN[item.cpp_type])

    def other_value(self, item: FieldDescriptor, old: Any) -> Any:
        """Draw another value than the one that is there."""
        return next(value for value in iter(lambda: self.value(item), None) if value != old)

    def message(self, descriptor: Descriptor, depth: int = 0) -> Any:
        """Draw a message."""
        made: Any = GetMessageClass(descriptor)()
        for oneof in descriptor.oneofs:
            if len(oneof.fields) > 1 and self.draw(BOOLS):
                self.put(made, self.draw(st.sampled_from(list(oneof.fields))), depth)
        for item in descriptor.fields:
            if in_oneof(item):
                continue
            ruled = item.full_name in self.required or item.full_name in self.values
            if ruled or (self.draw(BOOLS) and depth < MAX_DEPTH):
                self.put(made, item, depth)
        return made

    def put(self, message: Any, item: FieldDescriptor, depth: int = 0) -> None:
        """Set a field to something."""
        if is_map(item):
            for _ in range(self.draw(st.integers(0, 3))):
                self.put_entry(message, item, self.value(entry_fields(item)[0]), depth)
        elif item.is_repeated:
            for _ in range(self.draw(st.integers(0, 4))):
                self.append(message, item, depth)
        elif item.message_type is not None:
            getattr(message, item.name).CopyFrom(self.message(item.message_type, depth + 1))
            getattr(message, item.name).SetInParent()
        else:
            setattr(message, item.name, self.value(item))

    def append(self, message: Any, item: FieldDescriptor, depth: int = 0) -> None:
        """Add an element to a repeated field."""
        values = getattr(message, item.name)
        inner = item.message_type
        values.append(self.value(item) if inner is None else self.message(inner, depth + 1))

    def put_entry(self, message: Any, item: FieldDescriptor, key: Any, depth: int = 0) -> None:
        """Set one entry of a map."""
        entries, value = getattr(message, item.name), entry_fields(item)[1]
        if value.message_type is None:
            entries[key] = self.value(value)
        else:
            entries[key].CopyFrom(self.message(value.message_type, depth + 1))


def is_map(item: FieldDescriptor) -> bool:
    return item.message_type is not None and item.message_type.GetOptions().map_entry


def in_oneof(item: FieldDescriptor) -> bool:
    """Tell a member of a oneof that the author wrote from an `optional` field."""
    return item.containing_oneof is not None and len(item.containing_oneof.fields) > 1


def shares_oneof(one: FieldDescriptor, other: FieldDescriptor) -> bool:
    ours, theirs = one.containing_oneof, other.containing_oneof
    return ours is not None and theirs is not None and ours.name == theirs.name


def entry_fields(item: FieldDescriptor) -> tuple[FieldDescriptor, FieldDescriptor]:
    """Return the key and the value of a map's entries."""
    assert item.message_type is not None, "a map has entries"
    return item.message_type.fields_by_name["key"], item.message_type.fields_by_name["value"]


def is_set(message: Any, item: FieldDescriptor) -> bool:
    return message.HasField(item.name) if item.has_presence else bool(getattr(message, item.name))


# --- the wire ---
def wire(source: Source, message: Message) -> bytes:
    """Write a message in one of the many ways that mean the same."""
    return b"".join(_chunks(source, message))


def _chunks(source: Source, message: Any) -> list[bytes]:
    """Write the occurrences of all fields; those whose order has a meaning keep it."""
    lines: dict[str, list[bytes]] = {}
    for item in message.DESCRIPTOR.fields:
        line = item.containing_oneof.name if in_oneof(item) else item.name
        junk, real = _occurrences(source, message, item)
        lines[line] = [*junk, *lines.get(line, []), *real]
    left = [line for line in lines.values() if line]
    written = []
    while left:
        line = source.draw(st.sampled_from(left))
        written.append(line.pop(0))
        left = [line for line in left if line]
    return written


def _occurrences(source: Source, message: Any, item: FieldDescriptor) -> tuple[list[bytes], list[bytes]]:
    """Write one field: what is overridden by what follows, and what counts."""
    if is_map(item):
        return _map_occurrences(source, message, item)
    if item.is_repeated:
        return [], _repeated_occurrences(source, message, item)
    if item.message_type is not None:
        if not message.HasField(item.name):
            return [], []
        return [], _split(source, item, _chunks(source, getattr(message, item.name)))
    return _scalar_occurrences(source, message, item)


def _scalar_occurrences(
    source: Source, message: Any, item: FieldDescriptor
) -> tuple[list[bytes], list[bytes]]:
    value = getattr(message, item.name)
    if is_set(message, item) or str(value) == "-0.0":
        written = [_scalar(source, item, value)]
    elif in_oneof(item):
        taken = any(
            message.HasField(one.name) for one in message.DESCRIPTOR.fields if shares_oneof(one, item)
        )
        return ([_scalar(source, item, source.value(item))] if taken and source.draw(BOOLS) else []), []
    elif item.has_presence or not source.draw(BOOLS):
        return [], []
    else:
        written = [_scalar(source, item, value)]
    return [_scalar(source, item, source.value(item)) for _ in range(source.draw(st.integers(0, 2)))], written


def _split(source: Source, item: FieldDescriptor, chunks: list[bytes]) -> list[bytes]:
    """Write a message as several occurrences, which a reader merges."""
    cut = source.draw(st.integers(0, len(chunks)))
    parts = [chunks[:cut], chunks[cut:]] if source.draw(BOOLS) else [chunks]
    return [_field(source, item, 2, _sized(source, b"".join(part))) for part in parts]


def _repeated_occurrences(source: Source, message: Any, item: FieldDescriptor) -> list[bytes]:
    values = list(getattr(message, item.name))
    if item.type == F.TYPE_MESSAGE:
        return [_field(source, item, 2, _sized(source, wire(source, value))) for value in values]
    written: list[bytes] = []
    while values:
        size = source.draw(st.integers(1, len(values)))
        run, values = values[:size], values[size:]
        if item.type in _UNPACKABLE or source.draw(BOOLS):
            written += [_scalar(source, item, value) for value in run]
        else:
            packed = b"".join(_plain(source, item, value)[1] for value in run)
            written.append(_field(source, item, 2, _sized(source, packed)))
    if item.type not in _UNPACKABLE and source.draw(BOOLS):
        written.append(_field(source, item, 2, _sized(source, b"")))
    return written


def _map_occurrences(source: Source, message: Any, item: FieldDescriptor) -> tuple[list[bytes], list[bytes]]:
    key, value = entry_fields(item)
    junk, real = [], []
    for name, held in source.draw(st.permutations(list(getattr(message, item.name).items()))):
        if value.message_type is None and source.draw(BOOLS):
            junk.append(_entry(source, item, [_scalar(source, key, name)]))
        inner = _field(source, value, 2, _sized(source, wire(source, held))) if value.message_type else None
        parts = [_scalar(source, key, name), inner or _scalar(source, value, held)]
        real.append(_entry(source, item, source.draw(st.permutations(parts))))
    return junk, real


def _entry(source: Source, item: FieldDescriptor, parts: list[bytes]) -> bytes:
    return _field(source, item, 2, _sized(source, b"".join(parts)))


def _scalar(source: Source, item: FieldDescriptor, value: Any) -> bytes:
    kind, body = _plain(source, item, value)
    return _field(source, item, kind, body)


def _field(source: Source, item: FieldDescriptor, kind: int, body: bytes) -> bytes:
    return _varint(source, item.number << 3 | kind, longest=5) + body


def _sized(source: Source, body: bytes) -> bytes:
    return _varint(source, len(body), longest=5) + body


def _plain(source: Source, item: FieldDescriptor, value: Any) -> tuple[int, bytes]:
    if item.type in _FIXED:
        body = struct.pack(_FIXED[item.type], value)
        return (1 if len(body) == 8 else 5), body
    if item.type in _UNPACKABLE:
        return 2, _sized(source, value.encode() if isinstance(value, str) else value)
    number = (value << 1) ^ (value >> 63) if item.type in _ZIGZAG else int(value)
    return 0, _varint(source, number % 2**64)


def _varint(source: Source, number: int, longest: int = 10) -> bytes:
    """Write a number in seven-bit groups, with groups of zeros after it where there is room."""
    groups = [number & 127]
    while number := number >> 7:
        groups.append(number & 127)
    if len(groups) < longest and source.draw(BOOLS):
        groups += [0] * source.draw(st.integers(1, longest - len(groups)))
    return bytes(group | 128 for group in groups[:-1]) + bytes(groups[-1:])


# --- JSON ---
def json_text(source: Source, message: Any) -> str:
    """Write a message as JSON in one of the ways that the contract reads."""
    name = message.DESCRIPTOR.full_name
    if name == "google.protobuf.Timestamp":
        return f'"{message.ToJsonString()}"'
    if name == "google.protobuf.StringValue":
        return _json_string(source, message.value)
    members = []
    for item in message.DESCRIPTOR.fields:
        if is_set(message, item) or (not in_oneof(item) and not item.has_presence and source.draw(BOOLS)):
            members.append((item, _json_field(source, message, item)))
        elif source.draw(BOOLS):
            members.append((item, "null"))
    texts = [
        f'"{source.draw(st.sampled_from([item.name, item.json_name]))}"{_blank(source)}:{text}'
        for item, text in source.draw(st.permutations(members))
    ]
    return "{" + _blank(source) + f",{_blank(source)}".join(texts) + "}"


def _json_field(source: Source, message: Any, item: FieldDescriptor) -> str:
    value = getattr(message, item.name)
    if is_map(item):
        inner = entry_fields(item)[1]
        pairs = [
            f"{_json_key(name)}:{_json_value(source, inner, held)}"
            for name, held in source.draw(st.permutations(list(value.items())))
        ]
        return "{" + ",".join(pairs) + "}"
    if item.is_repeated:
        return "[" + ",".join(_json_value(source, item, one) for one in value) + "]"
    return _json_value(source, item, value)


def _json_value(source: Source, item: FieldDescriptor, value: Any) -> str:
    if item.message_type is not None:
        return json_text(source, value)
    if item.enum_type is not None:
        return source.draw(st.sampled_from([str(value), f'"{item.enum_type.values_by_number[value].name}"']))
    if isinstance(value, str):
        return _json_string(source, value)
    if isinstance(value, bytes):
        return f'"{_base64(source, value)}"'
    return str(source.draw(st.sampled_from(_json_numbers(value))))


def _json_numbers(value: Any) -> list[str]:
    if isinstance(value, bool):
        return ["true" if value else "false"]
    if isinstance(value, float):
        return [repr(value), f'"{value!r}"']
    forms = [str(value), f'"{value}"']
    return forms if abs(value) >= 2**53 else [*forms, f"{value}.0", f"{value}e0", f"{value * 10}e-1"]


def _json_key(name: Any) -> str:
    return json.dumps(str(name).lower() if isinstance(name, bool) else str(name))


def _json_string(source: Source, value: str) -> str:
    if source.draw(BOOLS) and value.isascii():
        return '"' + "".join(f"\\u{ord(letter):04x}" for letter in value) + '"'
    return json.dumps(value, ensure_ascii=source.draw(BOOLS))


def _base64(source: Source, value: bytes) -> str:
    encode = source.draw(st.sampled_from([base64.b64encode, base64.urlsafe_b64encode]))
    text = str(encode(value).decode())
    return text.rstrip("=") if source.draw(BOOLS) else text


def _blank(source: Source) -> str:
    return str(source.draw(st.sampled_from(["", " ", "\n\t"])))
