"""Descriptor sets damaged on purpose: by what their messages are (fields, options, lists), and by bytes.

A case is a number: the same seed and number give the same bytes, so that a failure can be repeated.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass, GetMessageClassesForFiles

from tools.descriptors import TRUSTED_FILES, load_trusted_pool

Place = tuple[Message, Any]
"""A message, and a field of its type."""

TEXTS = (
    "",
    "a",
    "_",
    "0",
    ".",
    "..",
    "../../etc/passwd",
    "/etc/passwd.proto",
    "a\0b",
    "a\nb",
    "é",
    "\u202e",
    "\U000e0041",
    "x" * 200,
    "X" * 5000,
    "google.protobuf.Any",
    ".google.protobuf.Any",
    ".google.protobuf.Struct",
    ".google.protobuf.FileDescriptorSet",
    ".google.protobuf.Timestamp",
    ".buf.validate.FieldRules",
    "toolcrib.v1",
    "proto2",
    "proto3",
    "editions",
    "google/protobuf/any.proto",
    "google/protobuf/descriptor.proto",
    "google/protobuf/duration.proto",
    "toolcrib/v1/options.proto",
    "buf/validate/validate.proto",
    "^(a+)+$",
    "(?=a)",
    "(a)\\1",
    "((a{1,100}){1,100}){1,100}",
    "[[:alpha:]]",
    "\\p{Greek}",
    "(?i)[^\\W]",
    "[",
    "(",
    "a{1001}",
    "^[^]a]$",
    "\\Q",
    "\\",
    "(?P<a>b)",
    "a" * 2000,
    "(" * 500,
    "[" * 900,
    "this",
    "this.size() < 3",
    "this.all(x, x > 0)",
    "true",
    "'a' + 'b'",
    "this.b.c.d",
    "1/0 == 1",
    "this == this ? '' : 'no'",
    "this.all(a, this.all(b, this.all(c, true)))",
    "size(this) > 99999999999999999999",
    "duration('1s')",
    "[" * 200 + "]" * 200,
    "-1",
    "1e999",
    "nan",
    "9" * 400,
    "true",
    "idempotency_key",
    "minor_units",
    "currency",
    "<!-- x -->",
    "https://a@b:1/",
)
NUMBERS = (
    0,
    1,
    -1,
    2,
    7,
    18,
    19000,
    1159,
    283041917,
    536870911,
    536870912,
    2**31 - 1,
    -(2**31),
    2**63 - 1,
    -(2**63),
    999,
)
DROPPED_SOURCE_INFO = 0.95


class Mutator:
    """Makes cases of a seed."""

    def __init__(self, seed: int, originals: Sequence[bytes]) -> None:
        self._seed = seed
        self._originals = originals
        pool = load_trusted_pool()
        GetMessageClassesForFiles(TRUSTED_FILES, pool)
        # The pool knows our options and buf.validate's, so they are mutated as the messages that they are.
        self._set = GetMessageClass(pool.FindMessageTypeByName("google.protobuf.FileDescriptorSet"))

    def make(self, number: int) -> bytes:
        """Make the bytes of one case."""
        rng = random.Random(f"{self._seed}:{number}")
        data = rng.choice(self._originals)
        if rng.random() < 0.8:
            files = self._decode(data)
            donor = self._decode(rng.choice(self._originals))
            for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 5, 8))):
                mutate_message(files, donor, rng)
            data = files.SerializePartialToString()
        if rng.random() < 0.15:
            data = mutate_bytes(data, rng)
        return data

    def _decode(self, data: bytes) -> Message:
        """Decode the bundle's own files; copies of trusted ones are seldom of interest."""
        files: Any = self._set.FromString(data)
        own = [file for file in files.file if file.name not in TRUSTED_FILES]
        del files.file[:]
        files.file.extend(own)
        return files


def mutate_message(files: Message, donor: Message, rng: random.Random) -> None:
    """Change one place of a set; what protobuf itself does not take is left as it was."""
    places = list(_list_places(files, rng))
    message, field = rng.choice(places)
    change = rng.choice(_CHANGES)
    try:
        change(message, field, donor, rng)
    except (ValueError, TypeError, DecodeError, OverflowError):
        return


def mutate_bytes(data: bytes, rng: random.Random) -> bytes:
    """Change, cut, repeat or insert bytes."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        at = rng.randrange(len(changed) + 1)
        kind = rng.randrange(5)
        if kind == 0:
            changed[at : at + 1] = bytes([rng.randrange(256)])
        elif kind == 1:
            del changed[at : at + rng.choice((1, 2, 8, 64, 4096))]
        elif kind == 2:
            changed[at:at] = rng.randbytes(rng.choice((1, 2, 8)))
        elif kind == 3:
            changed[at:at] = changed[at : at + rng.choice((4, 64, 512))]
        else:
            changed[at : at + 1] = bytes([changed[at] ^ 1 << rng.randrange(8)]) if at < len(changed) else b""
    return bytes(changed)


def fill_message(message: Message, rng: random.Random, depth: int = 0) -> None:
    """Give fields of a message random values, for requests to an accepted contract."""
    for field in message.DESCRIPTOR.fields:
        if rng.random() < 0.5 or depth > 4:
            continue
        try:
            _fill_field(message, field, rng, depth)
        except (ValueError, TypeError, AttributeError):
            continue


def _fill_field(message: Message, field: Any, rng: random.Random, depth: int) -> None:
    entry = field.message_type
    if entry is not None and entry.GetOptions().map_entry:
        value = entry.fields_by_name["value"]
        pairs = getattr(message, field.name)
        key = _make_value(entry.fields_by_name["key"], rng)
        if value.message_type is not None:
            fill_message(pairs[key], rng, depth + 1)
        else:
            pairs[key] = _make_value(value, rng)
    elif entry is not None:
        inner = getattr(message, field.name)
        inner = inner.add() if field.is_repeated else inner
        inner.SetInParent()
        fill_message(inner, rng, depth + 1)
    elif field.is_repeated:
        getattr(message, field.name).append(_make_value(field, rng))
    else:
        setattr(message, field.name, _make_value(field, rng))


def _make_value(field: Any, rng: random.Random) -> object:
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        text = rng.choice(TEXTS)
        return text.encode() if field.type == FieldDescriptor.TYPE_BYTES else text
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return rng.random() < 0.5
    if field.cpp_type in (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE):
        return rng.choice((0.0, -1.5, 1e30, float("inf"), float("nan")))
    if field.enum_type is not None and rng.random() < 0.8:
        return rng.choice([value.number for value in field.enum_type.values])
    return rng.choice(NUMBERS)


def _list_places(message: Message, rng: random.Random) -> Iterator[Place]:
    """Yield every field of every message that is set, and some that are not."""
    for field in message.DESCRIPTOR.fields:
        if field.name == "source_code_info" and rng.random() < DROPPED_SOURCE_INFO:
            continue
        yield message, field
    for field, value in message.ListFields():
        if field.is_extension:
            yield message, field
        if field.message_type is None or field.message_type.GetOptions().map_entry:
            continue
        if field.name == "source_code_info" and rng.random() < DROPPED_SOURCE_INFO:
            continue
        for inner in value if field.is_repeated else (value,):
            yield from _list_places(inner, rng)


def _read(message: Message, field: Any):
    return message.Extensions[field] if field.is_extension else getattr(message, field.name)


def _change_value(message: Message, field: Any, donor: Message, rng: random.Random) -> None:
    if field.message_type is not None:
        _add(message, field, donor, rng)
    elif field.is_repeated:
        values = _read(message, field)
        value = _make_value(field, rng)
        if values and rng.random() < 0.7:
            values[rng.randrange(len(values))] = value
        else:
            values.append(value)
    elif not field.is_extension:
        setattr(message, field.name, _make_value(field, rng))


def _copy_text(message: Message, field: Any, donor: Message, rng: random.Random) -> None:
    """Give a string the value of another string of the donor: names, types and patterns that there are."""
    texts = [
        value
        for inner, each in _list_places(donor, rng)
        if each.type == FieldDescriptor.TYPE_STRING and not each.is_repeated and (value := _read(inner, each))
    ]
    if field.type == FieldDescriptor.TYPE_STRING and not field.is_repeated and texts:
        setattr(message, field.name, rng.choice(texts))


def _clear(message: Message, field: Any, _donor: Message, rng: random.Random) -> None:
    if field.is_repeated and len(_read(message, field)):
        values = _read(message, field)
        del values[rng.randrange(len(values))]
    elif not field.is_extension:
        message.ClearField(field.name)


def _repeat(message: Message, field: Any, _donor: Message, rng: random.Random) -> None:
    if field.is_repeated and len(_read(message, field)):
        values = _read(message, field)
        chosen = rng.choice(list(values))
        for _ in range(rng.choice((1, 1, 1, 3, 40))):
            values.extend([chosen])


def _shuffle(message: Message, field: Any, _donor: Message, rng: random.Random) -> None:
    if field.is_repeated:
        values = list(_read(message, field))
        copies = [
            type(value).FromString(value.SerializePartialToString())
            for value in values
            if isinstance(value, Message)
        ]
        mixed = copies or values
        rng.shuffle(mixed)
        message.ClearField(field.name)
        _read(message, field).extend(mixed)


def _add(message: Message, field: Any, _donor: Message, rng: random.Random) -> None:
    if field.message_type is None:
        return
    inner = _read(message, field)
    inner = inner.add() if field.is_repeated else inner
    inner.SetInParent()
    fill_message(inner, rng, rng.choice((2, 3, 4)))


def _splice(message: Message, field: Any, donor: Message, rng: random.Random) -> None:
    """Put a message of the same type from elsewhere there."""
    if field.message_type is None:
        return
    found = [
        value
        for inner, each in _list_places(donor, rng)
        if each.message_type is not None and each.message_type.full_name == field.message_type.full_name
        for value in (_read(inner, each) if each.is_repeated else (_read(inner, each),))
    ]
    if not found:
        return
    target = _read(message, field)
    target = target.add() if field.is_repeated else target
    target.MergeFromString(rng.choice(found).SerializePartialToString())


def _add_unknown(message: Message, _field: Any, _donor: Message, rng: random.Random) -> None:
    """Add a field that nobody knows, or one with the wrong wire type."""
    tag = rng.choice((1, 8, 50001, 1159, 283041917)) << 3 | rng.choice((0, 2, 5))
    encoded = bytearray()
    while tag > 0x7F:
        encoded.append(tag & 0x7F | 0x80)
        tag >>= 7
    encoded.append(tag)
    message.MergeFromString(
        bytes(encoded) + rng.choice((b"\x01", b"\x00", b"\x02\x08\x01", b"\x01\x00\x00\x00"))
    )


Change = Callable[[Message, Any, Message, random.Random], None]
_CHANGES: tuple[Change, ...] = (
    _change_value, _change_value, _change_value, _copy_text, _clear, _clear, _repeat, _shuffle, _add, _splice,
    _splice, _add_unknown,
)  # fmt: skip
