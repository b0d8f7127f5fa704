"""The form of a bundle's descriptor set: what is checked before protobuf is asked to link the files.

1. Small enough to look at: bytes, files, messages, fields, methods, enum values, places.
2. File names stay inside a folder; names are names; nothing imported is missing; reserved packages (toolcrib,
   grpc, google, buf) belong to their owners; the package ends in its major version.
3. proto3, no extensions of its own, no unknown or uninterpreted options, none that change the wire.
4. No text has characters that people do not see: comments and messages of rules go into a model's prompt.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from typing import Any

from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message

from tools.descriptors import TRUSTED_FILES, find_unknown_numbers, reparse_options
from tools.elements import Element, flatten, walk_file
from tools.errors import BundleInvalid, Violation, breach
from tools.unseen import name_unseen

MAX_SET_BYTES = 4 * 1024 * 1024
MAX_FILES = 100
MAX_MESSAGES = 300
MAX_FIELDS = 3_000
MAX_METHODS = 100
MAX_ENUM_VALUES = 3_000
MAX_PLACES = 100_000
"""Entries of source info; a file of 1,000 lines has about 10,000."""
MAX_NAME_CHARACTERS = 128

RESERVED_PACKAGES = ("toolcrib", "grpc", "google", "buf")
SET = "descriptor set"
HARMLESS = frozenset({"INVISIBLE_CHARACTERS", "ENUM_ALIAS", "PACKAGE_NAME", "OPTION_UNKNOWN", "JSON_NAME"})
"""Faults with which the set can be linked all the same, so that those of its meaning come with them."""

_FILE_NAME = re.compile(r"(?:[A-Za-z0-9_][A-Za-z0-9_-]*/)*[A-Za-z0-9_][A-Za-z0-9_-]*\.proto")
"""No part begins with "-": who exports the file would hand protoc an option."""
_PACKAGE = re.compile(r"[a-z][a-z0-9_]*(?:\.[a-z][a-z0-9_]*)*\.v[1-9][0-9]*(?:(?:alpha|beta)[1-9][0-9]*)?")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_JSON_NAME = re.compile(r"[A-Za-z0-9_@$][A-Za-z0-9_@$.:-]*")

_File = descriptor_pb2.FileDescriptorProto
_Field = descriptor_pb2.FieldDescriptorProto


def decode_set(descriptor_set: bytes) -> list[_File]:
    """Decode a set's files, or refuse what is no set.

    Raises:
        BundleInvalid: It is too large, or no FileDescriptorSet.
    """
    if len(descriptor_set) > MAX_SET_BYTES:
        raise BundleInvalid([breach("SET_TOO_LARGE", SET, f"is larger than {MAX_SET_BYTES} bytes")])
    try:
        return list(descriptor_pb2.FileDescriptorSet.FromString(descriptor_set).file)
    except DecodeError as error:
        problem = breach("SET_UNREADABLE", SET, "is no google.protobuf.FileDescriptorSet")
        raise BundleInvalid([problem]) from error


def name_methods(descriptor_set: bytes) -> set[str]:
    """Name the methods of a set that may be broken; none where it cannot be decoded."""
    try:
        files = decode_set(descriptor_set)
    except BundleInvalid:
        return set()
    own = [file for file in files if file.name not in TRUSTED_FILES and is_text(file)]
    methods = (file_element for file in own for file_element in walk_file(file))
    return {each.name for each in methods if isinstance(each.proto, descriptor_pb2.MethodDescriptorProto)}


def check_sizes(files: list[_File]) -> Iterator[Violation]:
    """Yield what makes the set too large to look at; comes before everything that walks it."""
    if not files:
        yield breach("SET_EMPTY", SET, "holds no file of the bundle")
    messages = [message for file in files for message in flatten(file.message_type)]
    counts = {
        f"{MAX_FILES} files": len(files) > MAX_FILES,
        f"{MAX_MESSAGES} messages": len(messages) > MAX_MESSAGES,
        f"{MAX_FIELDS} fields": sum(len(message.field) for message in messages) > MAX_FIELDS,
        f"{MAX_METHODS} methods: split the bundle": _count(files, _count_methods) > MAX_METHODS,
        f"{MAX_ENUM_VALUES} enum values": _count(files, _count_values) > MAX_ENUM_VALUES,
        f"{MAX_PLACES} entries of source info": _count(files, _count_places) > MAX_PLACES,
    }
    for what, is_over in counts.items():
        if is_over:
            yield breach("SET_TOO_LARGE", SET, f"has more than {what}")


def check_form(files: list[_File]) -> Iterator[Violation]:
    """Yield what is wrong with the files by themselves, and with how they import each other."""
    for file in files:
        yield from _check_file(file)
        yield from _check_syntax(file)
    yield from _check_imports(files)


def order_files(files: list[_File]) -> list[_File]:
    """Order files so that each follows its imports.

    Raises:
        BundleInvalid: Files import each other in a circle.
    """
    waiting = {file.name: file for file in files}
    ordered: list[_File] = []
    while waiting:
        ready = [f for f in waiting.values() if not any(name in waiting for name in f.dependency)]
        if not ready:
            raise BundleInvalid(
                [breach("IMPORT_CIRCLE", name, "imports itself in a circle") for name in sorted(waiting)]
            )
        for file in ready:
            ordered.append(waiting.pop(file.name))
    return ordered


def is_text(message: Message) -> bool:
    """Tell whether every string is one: descriptors are proto2, which hands broken ones out as bytes."""
    for field, value in message.ListFields():
        values = value if field.is_repeated else (value,)
        if field.type == FieldDescriptor.TYPE_STRING and any(isinstance(item, bytes) for item in values):
            return False
        if field.message_type is not None and not all(is_text(item) for item in values):
            return False
    return True


def _count(files: list[_File], counter: Callable[[_File], int]) -> int:
    return sum(counter(file) for file in files)


def _count_methods(file: _File) -> int:
    return sum(len(service.method) for service in file.service)


def _count_values(file: _File) -> int:
    inner = (enum for message in flatten(file.message_type) for enum in message.enum_type)
    return sum(len(enum.value) for enum in itertools.chain(file.enum_type, inner))


def _count_places(file: _File) -> int:
    return len(file.source_code_info.location)


def _say_where(file: _File) -> str:
    """Name a file in a violation, whatever its name holds."""
    return file.name if _FILE_NAME.fullmatch(file.name) else repr(file.name)[:MAX_NAME_CHARACTERS]


def _check_file(file: _File) -> Iterator[Violation]:
    where = _say_where(file)
    if not _FILE_NAME.fullmatch(file.name):
        yield breach(
            "FILE_NAME",
            where,
            "must be a relative path of letters, digits, - and _ that ends in .proto",
        )
    if (
        file.package.partition(".")[0] in RESERVED_PACKAGES
        or file.name.partition("/")[0] in RESERVED_PACKAGES
    ):
        reserved = ", ".join(RESERVED_PACKAGES)
        yield breach(
            "PACKAGE_RESERVED",
            where,
            f"belongs to a reserved package ({reserved})",
            "choose another name",
        )
    elif not _PACKAGE.fullmatch(file.package):
        package = repr(file.package[:MAX_NAME_CHARACTERS])
        remedy = 'for example "shop.v1": the package is the major version'
        problem = f"package {package} must be lower case and end in a version, {remedy}"
        yield breach("PACKAGE_NAME", where, problem)


def _check_imports(files: list[_File]) -> Iterator[Violation]:
    names = [file.name for file in files]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield breach("FILE_TWICE", name or SET, "is in the set twice")
    known = {*names, *TRUSTED_FILES}
    for file in files:
        where = _say_where(file)
        for missing in file.dependency:
            if missing not in known:
                problem = f"imports {missing[:MAX_NAME_CHARACTERS]}, which is not in the set"
                yield breach("IMPORT_MISSING", where, problem, "compile with its imports")
        if {field.name for field, _ in file.ListFields()} & {"weak_dependency", "option_dependency"}:
            yield breach("IMPORT_KIND", where, "has an import that may be missing", "import plainly")
        if any(not 0 <= index < len(file.dependency) for index in file.public_dependency):
            yield breach("IMPORT_KIND", where, "has a public import that it does not have", "remove it")


def _check_syntax(file: _File) -> Iterator[Violation]:
    where = _say_where(file)
    if file.syntax != "proto3" or file.HasField("edition"):
        found = "editions" if file.HasField("edition") else file.syntax or "proto2"
        yield breach("SYNTAX", where, f"has syntax {found!r}", 'write `syntax = "proto3"`')
    if file.extension:
        yield breach("EXTENSION", where, "declares extensions", "tools have none")
    yield from _check_options(where, file.options)
    for element in walk_file(file):
        misnamed = list(_check_name(element))
        yield from misnamed
        if misnamed:
            continue  # nothing else is said of it, lest its name be shown as it is
        yield from _check_options(element.name, element.proto.options)
        check = _CHECKS.get(type(element.proto))
        if check is not None:
            yield from check(element.name, element.proto)
    yield from _check_comments(file)


def _is_shown(name: str) -> bool:
    return all(_NAME.fullmatch(part) for part in re.split(r"[./]", name))


def _check_name(element: Element) -> Iterator[Violation]:
    name = element.proto.name
    if not _NAME.fullmatch(name) or len(name) > MAX_NAME_CHARACTERS:
        yield breach(
            "NAME", repr(element.name)[:200], "is no name of at most 128 letters, digits and _", "rename it"
        )


def _check_options(name: str, options: Message) -> Iterator[Violation]:
    set_fields = {field.name for field, _ in options.ListFields()}
    if "uninterpreted_option" in set_fields:
        yield breach("OPTION_UNREAD", name, "has an option that protoc did not read", "compile with protoc")
        return  # such an option may lack what its own type requires, and cannot be written again
    if "features" in set_fields:
        yield breach("SYNTAX", name, "sets features of editions", "remove them")
    try:
        known = reparse_options(options)
    except DecodeError:
        yield breach(
            "OPTION_UNREADABLE",
            name,
            "has options that cannot be read",
            "compile with the option files of this version",
        )
        return
    if not is_text(known):
        yield breach("NOT_TEXT", name, "has an option with a text that is not UTF-8")
        return
    for unknown in find_unknown_numbers(known):
        yield breach(
            "OPTION_UNKNOWN", name, f"has an option that the broker does not know ({unknown})", "remove it"
        )
    yield from _check_seen(name, _list_texts(known), "an option")


def _list_texts(message: Message) -> Iterator[str]:
    """Yield every string of a message, at any depth."""
    for field, value in message.ListFields():
        values = value if field.is_repeated else (value,)
        if field.type == FieldDescriptor.TYPE_STRING:
            yield from values
        elif field.message_type is not None and not field.message_type.GetOptions().map_entry:
            for inner in values:
                yield from _list_texts(inner)


def _check_comments(file: _File) -> Iterator[Violation]:
    """Check every comment: those above elements become descriptions, the others are what reviewers read."""
    names = {element.path: element.name for element in walk_file(file)}
    for location in file.source_code_info.location:
        texts = (
            location.leading_comments,
            location.trailing_comments,
            *location.leading_detached_comments,
        )
        name = names.get(tuple(location.path), "")
        yield from _check_seen(name if _is_shown(name) else _say_where(file), texts, "a comment")


def _check_seen(name: str, texts: Any, what: str) -> Iterator[Violation]:
    for text in texts:
        found = name_unseen(text)
        if found:
            problem = f"has {what} with characters that nobody sees ({found})"
            yield breach("INVISIBLE_CHARACTERS", name, problem, "remove them")


def _check_message(name: str, message: descriptor_pb2.DescriptorProto) -> Iterator[Violation]:
    if message.options.map_entry and not _is_entry(message):
        yield breach("MAP_FORGED", name, "is marked as a map's entry but is none", "write map<K, V>")
    if message.options.message_set_wire_format:
        yield breach("WIRE_OPTION", name, "sets message_set_wire_format", "remove it")
    if message.extension or message.extension_range:
        yield breach("EXTENSION", name, "declares extensions", "tools have none")
    count = len(message.oneof_decl)
    for field in message.field:
        if field.HasField("oneof_index") and not 0 <= field.oneof_index < count:
            yield breach("ONEOF", f"{name}.{field.name}", "is in a oneof that is not there", "remove it")


def _is_entry(message: descriptor_pb2.DescriptorProto) -> bool:
    fields = [(field.name, field.number, field.label) for field in message.field]
    optional = _Field.LABEL_OPTIONAL
    parts = (message.nested_type, message.enum_type, message.oneof_decl)
    return fields == [("key", 1, optional), ("value", 2, optional)] and not any(parts)


def _check_field(name: str, field: _Field) -> Iterator[Violation]:
    if not (field.HasField("type") and field.HasField("label")):
        yield breach("FIELD_TYPE", name, "does not say its type and label", "compile with protoc")
    if field.proto3_optional and not field.HasField("oneof_index"):
        yield breach("ONEOF", name, "is optional without a oneof of its own", "compile with protoc")
    yield from _check_field_kind(name, field)


def _check_field_kind(name: str, field: _Field) -> Iterator[Violation]:
    if field.type == _Field.TYPE_GROUP:
        yield breach("GROUP", name, "is a group", "use a message")
    if field.label == _Field.LABEL_REQUIRED:
        yield breach("REQUIRED", name, "is required on the wire", "use (buf.validate.field).required")
    if field.HasField("default_value"):
        yield breach("DEFAULT", name, "has a default value, which proto3 has not", "remove it")
    if field.HasField("extendee"):
        yield breach("EXTENSION", name, "extends another message", "tools have no extensions")
    if field.json_name and not _JSON_NAME.fullmatch(field.json_name):
        yield breach("JSON_NAME", name, "has a JSON name with odd characters", "use letters, digits and _")
    options = field.options
    for option in ("lazy", "unverified_lazy", "weak"):
        if getattr(options, option):
            yield breach("WIRE_OPTION", name, f"sets {option}, which puts checks off", "remove it")


def _check_enum(name: str, enum: descriptor_pb2.EnumDescriptorProto) -> Iterator[Violation]:
    numbers = [value.number for value in enum.value]
    if len(set(numbers)) != len(numbers) or enum.options.allow_alias:
        yield breach("ENUM_ALIAS", name, "has two names for one number", "keep one: policies see one")


_CHECKS: dict[type[Message], Callable[[str, Any], Iterator[Violation]]] = {
    descriptor_pb2.DescriptorProto: _check_message,
    descriptor_pb2.FieldDescriptorProto: _check_field,
    descriptor_pb2.EnumDescriptorProto: _check_enum,
}
