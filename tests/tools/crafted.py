"""Descriptor sets put together by hand, message by message: what no protoc would write."""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2

from toolcrib.v1 import options_pb2

Set = descriptor_pb2.FileDescriptorSet
File = descriptor_pb2.FileDescriptorProto
Message = descriptor_pb2.DescriptorProto
Field = descriptor_pb2.FieldDescriptorProto

NAME = "test/v1/things.proto"
RULES = 1159
"""The number of (buf.validate.field) and (buf.validate.message)."""


def build_set() -> Set:
    """Build a set that is fit to be registered: a service of one READ."""
    files = Set()
    file = files.file.add(name=NAME, package="test.v1", syntax="proto3")
    file.dependency.extend(["toolcrib/v1/options.proto", "buf/validate/validate.proto"])
    for name in ("Request", "Response"):
        message = file.message_type.add(name=name)
        add_field(message, "text")
    service = file.service.add(name="Things")
    add_method(service, "Do")
    return files


def add_field(message: Message, name: str, number: int = 0, **values: Any) -> Field:
    """Add a field; a string unless it is said otherwise."""
    values = {"type": Field.TYPE_STRING, "label": Field.LABEL_OPTIONAL} | values
    return message.field.add(name=name, number=number or len(message.field) + 1, **values)


def add_held(message: Message, name: str, type_name: str, **values: Any) -> Field:
    """Add a field that holds a message."""
    return add_field(message, name, type=Field.TYPE_MESSAGE, type_name=type_name, **values)


def add_method(service: descriptor_pb2.ServiceDescriptorProto, name: str, **values: Any) -> None:
    """Add a READ."""
    types = {"input_type": ".test.v1.Request", "output_type": ".test.v1.Response"}
    method = service.method.add(name=name, **(types | values))
    tool = tool_of(method)
    tool.effect, tool.scope = options_pb2.READ, "things.do"


def tool_of(method: descriptor_pb2.MethodDescriptorProto) -> Any:
    """Return a method's (toolcrib.v1.tool), to change it."""
    extension: Any = options_pb2.tool
    return method.options.Extensions[extension]


def add_map(message: Message, name: str, key: int = Field.TYPE_STRING, **value: Any) -> None:
    """Add a map and its entry."""
    entry = message.nested_type.add(name=f"{name.capitalize()}Entry")
    entry.options.map_entry = True
    add_field(entry, "key", 1, type=key)
    add_field(entry, "value", 2, **value)
    type_name = f".test.v1.{message.name}.{entry.name}"
    add_held(message, name, type_name, label=Field.LABEL_REPEATED)


def add_file(files: Set, name: str, package: str, *imports: str) -> File:
    """Add a file with nothing in it."""
    file = files.file.add(name=name, package=package, syntax="proto3")
    file.dependency.extend(imports)
    return file


def encode(number: int, value: bytes | int) -> bytes:
    """Encode one field by hand."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def set_string_rule(field: Field, number: int, value: bytes | int) -> None:
    """Set a rule of (buf.validate.field).string by its number."""
    field.options.MergeFromString(encode(RULES, encode(14, encode(number, value))))


def set_cel(field: Field, expression: str, message: str = "no") -> None:
    """Set a rule in CEL: its id, message and expression."""
    rule = encode(1, b"rule") + encode(2, message.encode()) + encode(3, expression.encode())
    field.options.MergeFromString(encode(RULES, encode(23, rule)))


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])
