"""Descriptors written as `.proto` text (proto3), so that any language's protoc can read a client view.

The text compiles to the same descriptors, comments above elements included; formatting is ours. Options are
the standard ones of descriptor.proto: a client view has no others.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from tools.comments import (
    ENUM,
    FIELD,
    MEMBER,
    MESSAGE,
    NESTED_ENUM,
    NESTED_MESSAGE,
    ONEOF,
    SERVICE,
    Path,
    index_comments,
)

_Field = descriptor_pb2.FieldDescriptorProto
_Message = descriptor_pb2.DescriptorProto

_SYNTAX_PLACE, _PACKAGE_PLACE = (12,), (2,)


def print_file(file: descriptor_pb2.FileDescriptorProto) -> str:
    """Write one proto3 file."""
    return "\n".join(_Printer(file).print_file()) + "\n"


class _Printer:
    """Writes one file; holds its comments."""

    def __init__(self, file: descriptor_pb2.FileDescriptorProto) -> None:
        self._file, self._comments = file, index_comments(file)

    def print_file(self) -> Iterator[str]:
        file = self._file
        yield from self._comment(_SYNTAX_PLACE, "")
        yield f'syntax = "{file.syntax or "proto2"}";'
        yield ""
        yield from self._comment(_PACKAGE_PLACE, "")
        yield f"package {file.package};"
        if file.dependency:
            yield ""
        for index, name in enumerate(file.dependency):
            public = "public " if index in file.public_dependency else ""
            yield f"import {public}{json.dumps(name)};"
        yield from (f"option {text};" for text in _list_options(file.options))
        for index, service in enumerate(file.service):
            yield from self._service(service, (SERVICE, index))
        for index, message in enumerate(file.message_type):
            yield from self._message(message, (MESSAGE, index), "")
        for index, enum in enumerate(file.enum_type):
            yield from self._enum(enum, (ENUM, index), "")

    def _comment(self, path: Path, indent: str) -> Iterator[str]:
        text = self._comments.get(path)
        if text:
            yield from (f"{indent}//{line}" for line in text.rstrip("\n").replace("\r", "").split("\n"))

    def _service(self, service: descriptor_pb2.ServiceDescriptorProto, path: Path) -> Iterator[str]:
        yield ""
        yield from self._comment(path, "")
        yield f"service {service.name} {{"
        yield from (f"  option {text};" for text in _list_options(service.options))
        for index, method in enumerate(service.method):
            yield from self._comment((*path, MEMBER, index), "  ")
            streams = [
                "stream " if flag else "" for flag in (method.client_streaming, method.server_streaming)
            ]
            head = f"  rpc {method.name}({streams[0]}{method.input_type})"
            options = " ".join(f"option {text};" for text in _list_options(method.options))
            yield f"{head} returns ({streams[1]}{method.output_type})" + (
                f" {{ {options} }}" if options else ";"
            )
        yield "}"

    def _message(self, message: _Message, path: Path, indent: str) -> Iterator[str]:
        inner = f"{indent}  "
        yield ""
        yield from self._comment(path, indent)
        yield f"{indent}message {message.name} {{"
        yield from (f"{inner}option {text};" for text in _list_options(message.options))
        yield from _list_reserved(message, inner)
        # A map adds its entry where it stands: what was nested before the first map is written before it.
        entries = [index for index, nested in enumerate(message.nested_type) if nested.options.map_entry]
        split = entries[0] if entries else 0
        yield from self._nested(message, path, inner, range(split))
        yield from self._fields(message, path, inner)
        yield from self._nested(message, path, inner, range(split, len(message.nested_type)))
        for index, enum in enumerate(message.enum_type):
            yield from self._enum(enum, (*path, NESTED_ENUM, index), inner)
        yield f"{indent}}}"

    def _nested(self, message: _Message, path: Path, indent: str, indexes: range) -> Iterator[str]:
        for index in indexes:
            if not message.nested_type[index].options.map_entry:
                yield from self._message(message.nested_type[index], (*path, NESTED_MESSAGE, index), indent)

    def _fields(self, message: _Message, path: Path, indent: str) -> Iterator[str]:
        entries = {nested.name: nested for nested in message.nested_type if nested.options.map_entry}
        opened: set[int] = set()
        for index, field in enumerate(message.field):
            if not _is_in_oneof(field):
                yield from self._field(field, (*path, FIELD, index), indent, entries)
            elif field.oneof_index not in opened:
                opened.add(field.oneof_index)
                yield from self._oneof(message, path, indent, field.oneof_index)

    def _oneof(self, message: _Message, path: Path, indent: str, number: int) -> Iterator[str]:
        oneof = message.oneof_decl[number]
        yield from self._comment((*path, ONEOF, number), indent)
        yield f"{indent}oneof {oneof.name} {{"
        for index, field in enumerate(message.field):
            if _is_in_oneof(field) and field.oneof_index == number:
                yield from self._field(field, (*path, FIELD, index), f"{indent}  ", {})
        yield f"{indent}}}"

    def _field(self, field: _Field, path: Path, indent: str, entries: dict[str, _Message]) -> Iterator[str]:
        yield from self._comment(path, indent)
        options = list(_list_options(field.options))
        if field.json_name and field.json_name != _derive_json_name(field.name):
            options.insert(0, f"json_name = {json.dumps(field.json_name)}")
        tail = f" [{', '.join(options)}]" if options else ""
        yield f"{indent}{_name_type(field, entries)} {field.name} = {field.number}{tail};"

    def _enum(self, enum: descriptor_pb2.EnumDescriptorProto, path: Path, indent: str) -> Iterator[str]:
        yield ""
        yield from self._comment(path, indent)
        yield f"{indent}enum {enum.name} {{"
        yield from (f"{indent}  option {text};" for text in _list_options(enum.options))
        yield from _list_reserved(enum, f"{indent}  ")
        for index, value in enumerate(enum.value):
            yield from self._comment((*path, MEMBER, index), f"{indent}  ")
            options = ", ".join(_list_options(value.options))
            yield f"{indent}  {value.name} = {value.number}{f' [{options}]' if options else ''};"
        yield f"{indent}}}"


def _is_in_oneof(field: _Field) -> bool:
    return field.HasField("oneof_index") and not field.proto3_optional


def _name_type(field: _Field, entries: dict[str, _Message]) -> str:
    entry = entries.get(field.type_name.rpartition(".")[2])
    if entry is not None and field.label == _Field.LABEL_REPEATED:
        key, value = entry.field
        return f"map<{_name_type(key, {})}, {_name_type(value, {})}>"
    name = field.type_name or _Field.Type.Name(field.type).removeprefix("TYPE_").lower()
    if field.label == _Field.LABEL_REPEATED:
        return f"repeated {name}"
    return f"optional {name}" if field.proto3_optional else name


def _derive_json_name(name: str) -> str:
    """Derive the JSON name as protoc does."""
    first, *rest = name.split("_")
    return first + "".join(part[:1].upper() + part[1:] for part in rest)


def _list_reserved(element: _Message | descriptor_pb2.EnumDescriptorProto, indent: str) -> Iterator[str]:
    # A message's range excludes its end, an enum's includes it.
    last = 1 if isinstance(element, _Message) else 0
    for numbers in element.reserved_range:
        yield f"{indent}reserved {numbers.start} to {numbers.end - last};"
    for name in element.reserved_name:
        yield f"{indent}reserved {json.dumps(name)};"


def _list_options(options: Message) -> Iterator[str]:
    """Write the standard options that are set, as `name = value`."""
    for field, value in options.ListFields():
        if field.is_extension or field.message_type is not None or field.name == "map_entry":
            continue
        values: Sequence[object] = value if field.is_repeated else (value,)
        yield from (f"{field.name} = {_format(field, inner)}" for inner in values)


def _format(field: FieldDescriptor, value: object) -> str:
    if field.enum_type is not None:
        return str(field.enum_type.values_by_number[value].name)  # type: ignore[index]
    return json.dumps(value) if not isinstance(value, bytes) else json.dumps(value.decode("latin-1"))
