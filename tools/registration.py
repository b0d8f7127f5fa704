"""The rules that a bundle's descriptor set must keep to be registered, each with its remedy.

1. Small enough to look at: bytes, files, messages, fields, methods.
2. File names stay inside a folder; files fit together; nothing imported is missing; reserved packages
   (toolcrib, grpc, google, buf) belong to their owners; the package ends in its major version.
3. proto3, no extensions of its own, no unknown options.
4. Methods are unary, name their effect and scope, and a write's probe is a READ of the same service that can
   be asked with the key alone and answers with what the write would have answered.
5. Messages are bounded: no Any, no Struct; not deeper than a call may be.
6. Roles stand where they mean something; rules compile in a linear engine.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import protovalidate
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError, Message

from toolcrib.v1 import options_pb2
from tools.comments import read_comments
from tools.contract import Effect, Reach, ToolTerms
from tools.descriptors import (
    OPTION_FILES,
    TRUSTED_FILES,
    build_pool,
    find_messages,
    find_methods,
    find_unknown_numbers,
    load_trusted_files,
    read_options,
    reparse_options,
)
from tools.errors import BundleInvalid, Violation
from tools.extents import find_endless_types
from tools.probes import check_probe, check_probe_request
from tools.roles import find_misplaced_roles
from tools.rules import compile_rules

MAX_SET_BYTES = 4 * 1024 * 1024
MAX_FILES = 100
MAX_MESSAGES = 300
MAX_FIELDS = 3_000
MAX_METHODS = 100

RESERVED_PACKAGES = ("toolcrib", "grpc", "google", "buf")

_FILE_NAME = re.compile(r"(?:[A-Za-z0-9_-]+/)*[A-Za-z0-9_-]+\.proto")
_PACKAGE = re.compile(r"[a-z][a-z0-9_]*(?:\.[a-z][a-z0-9_]*)*\.v[1-9][0-9]*(?:(?:alpha|beta)[1-9][0-9]*)?")
_SCOPE = re.compile(r"[a-z][a-z0-9_-]*(?:\.[a-z0-9_-]+){0,7}")
_UNBOUNDED = frozenset(f"google.protobuf.{name}" for name in ("Any", "Struct", "Value", "ListValue"))

_NOT_HELD = ("google/protobuf/descriptor.proto", *OPTION_FILES)

_File = descriptor_pb2.FileDescriptorProto


@dataclass(frozen=True, slots=True)
class Registered:
    """A descriptor set that keeps the rules.

    Attributes:
        files: The bundle's own files, in the order of their imports.
        pool: A pool of its own, with our copies of the trusted files.
    """

    files: tuple[_File, ...]
    pool: DescriptorPool
    validator: protovalidate.Validator
    tools: Mapping[str, tuple[ToolTerms, MethodDescriptor]]
    comments: Mapping[str, str]


def register_set(descriptor_set: bytes) -> Registered:
    """Check a bundle's descriptor set and build its pool.

    Raises:
        BundleInvalid: With every violation that could be found.
    """
    files = _decode(descriptor_set)
    own = [file for file in files if file.name not in TRUSTED_FILES]
    if not all(_is_text(file) for file in own):
        raise BundleInvalid([Violation("descriptor set", "holds a text that is not UTF-8")])
    _raise_any([*_check_sizes(own), *(v for file in own for v in _check_file(file)), *_check_imports(own)])
    ordered = _order(own)
    _raise_any([v for file in ordered for v in _check_syntax(file)])
    try:
        pool = build_pool([*load_trusted_files().values(), *ordered])
    except (TypeError, ValueError, KeyError) as error:
        raise BundleInvalid(
            [Violation("descriptor set", f"the files do not fit together: {error}")]
        ) from error
    return _check_meaning(ordered, pool)


def _check_meaning(files: list[_File], pool: DescriptorPool) -> Registered:
    """Check what the linked descriptors mean, and compile their rules."""
    validator = protovalidate.Validator()
    methods = {n: m for file in files for n, m in find_methods(pool.FindFileByName(file.name))}
    comments = {name: text for file in files for name, text in read_comments(file)}
    messages = _list_messages(files, pool)
    problems = [
        *(v for name, method in methods.items() for v in _check_method(name, method, methods)),
        *(v for message in messages for v in _check_message(message)),
        *find_endless_types(messages, [method.input_type for method in methods.values()]),
    ]
    if not methods:
        problems.append(Violation("descriptor set", "has no service: a tool is a method of one"))
    _raise_any(problems)
    _raise_any([v for message in messages for v in compile_rules(message, validator)])
    _raise_any(
        [
            violation
            for name, method in methods.items()
            if (probe := _find_probe(name, method, methods)) is not None
            for violation in check_probe_request(name, probe, validator)
        ]
    )
    tools = {name: (_read_terms(name, method, comments), method) for name, method in methods.items()}
    return Registered(tuple(files), pool, validator, tools, comments)


def _raise_any(violations: list[Violation]) -> None:
    if violations:
        raise BundleInvalid(violations)


def _decode(descriptor_set: bytes) -> list[_File]:
    if len(descriptor_set) > MAX_SET_BYTES:
        raise BundleInvalid([Violation("descriptor set", f"is larger than {MAX_SET_BYTES} bytes")])
    try:
        files = descriptor_pb2.FileDescriptorSet.FromString(descriptor_set).file
    except DecodeError as error:
        problem = Violation("descriptor set", "is no google.protobuf.FileDescriptorSet")
        raise BundleInvalid([problem]) from error
    return list(files)


def _is_text(message: Message) -> bool:
    """Tell whether every string is one: descriptors are proto2, which hands broken ones out as bytes."""
    for field, value in message.ListFields():
        values = value if field.is_repeated else (value,)
        if field.type == FieldDescriptor.TYPE_STRING and any(isinstance(item, bytes) for item in values):
            return False
        if field.message_type is not None and not all(_is_text(item) for item in values):
            return False
    return True


def _check_sizes(files: list[_File]) -> Iterator[Violation]:
    if not files:
        yield Violation("descriptor set", "holds no file of the bundle")
    if len(files) > MAX_FILES:
        yield Violation("descriptor set", f"has more than {MAX_FILES} files")
    messages = [message for file in files for message in _flatten(file.message_type)]
    if len(messages) > MAX_MESSAGES:
        yield Violation("descriptor set", f"has more than {MAX_MESSAGES} messages")
    if sum(len(message.field) for message in messages) > MAX_FIELDS:
        yield Violation("descriptor set", f"has more than {MAX_FIELDS} fields")
    if sum(len(service.method) for file in files for service in file.service) > MAX_METHODS:
        yield Violation("descriptor set", f"has more than {MAX_METHODS} methods: split the bundle")


def _flatten(messages: Iterable[descriptor_pb2.DescriptorProto]) -> Iterator[descriptor_pb2.DescriptorProto]:
    for message in messages:
        yield message
        yield from _flatten(message.nested_type)


def _check_file(file: _File) -> Iterator[Violation]:
    if not _FILE_NAME.fullmatch(file.name):
        yield Violation(
            repr(file.name), "must be a relative path of letters, digits, - and _ that ends in .proto"
        )
    if (
        file.package.partition(".")[0] in RESERVED_PACKAGES
        or file.name.partition("/")[0] in RESERVED_PACKAGES
    ):
        reserved = ", ".join(RESERVED_PACKAGES)
        yield Violation(file.name, f"belongs to a reserved package ({reserved}): choose another name")
    elif not _PACKAGE.fullmatch(file.package):
        remedy = 'for example "shop.v1": the package is the major version'
        yield Violation(
            file.name, f"package {file.package!r} must be lower case and end in a version, {remedy}"
        )


def _check_imports(files: list[_File]) -> Iterator[Violation]:
    names = [file.name for file in files]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield Violation(name, "is in the set twice")
    known = {*names, *TRUSTED_FILES}
    for file in files:
        for missing in file.dependency:
            if missing not in known:
                yield Violation(
                    file.name, f"imports {missing}, which is not in the set: compile with its imports"
                )


def _order(files: list[_File]) -> list[_File]:
    """Order files so that each follows its imports.

    Raises:
        BundleInvalid: Files import each other in a circle.
    """
    waiting = {file.name: file for file in files}
    ordered: list[_File] = []
    while waiting:
        ready = [f for f in waiting.values() if not any(name in waiting for name in f.dependency)]
        if not ready:
            raise BundleInvalid([Violation(name, "imports itself in a circle") for name in sorted(waiting)])
        for file in ready:
            ordered.append(waiting.pop(file.name))
    return ordered


def _check_syntax(file: _File) -> Iterator[Violation]:
    if file.syntax != "proto3":
        yield Violation(file.name, f'has syntax {file.syntax or "proto2"!r}: write `syntax = "proto3"`')
    for name, options in _list_options(file):
        yield from _check_options(name, options)
    if file.extension:
        yield Violation(file.name, "declares extensions: tools have none")
    for message in _flatten(file.message_type):
        yield from _check_message_form(f"{file.package}.{message.name}", message)


def _check_options(name: str, options: Message) -> Iterator[Violation]:
    try:
        known = reparse_options(options)
    except DecodeError:
        yield Violation(
            name, "has options that cannot be read: compile with the option files of this version"
        )
        return
    if not _is_text(known):
        yield Violation(name, "has an option with a text that is not UTF-8")
    for unknown in find_unknown_numbers(known):
        yield Violation(name, f"has an option that the broker does not know ({unknown}): remove it")


def _check_message_form(name: str, message: descriptor_pb2.DescriptorProto) -> Iterator[Violation]:
    if message.options.map_entry and [field.name for field in message.field] != ["key", "value"]:
        yield Violation(name, "is marked as a map's entry but is none")
    if message.extension or message.extension_range:
        yield Violation(name, "declares extensions: tools have none")
    for field in message.field:
        yield from _check_field_form(f"{name}.{field.name}", field)


def _check_field_form(name: str, field: descriptor_pb2.FieldDescriptorProto) -> Iterator[Violation]:
    if field.type == descriptor_pb2.FieldDescriptorProto.TYPE_GROUP:
        yield Violation(name, "is a group: use a message")
    if field.label == descriptor_pb2.FieldDescriptorProto.LABEL_REQUIRED:
        yield Violation(name, "is required on the wire: use (buf.validate.field).required")


def _list_options(file: _File) -> Iterator[tuple[str, Message]]:
    """Yield each element of a file with its options, by name."""
    yield file.name, file.options
    for service in file.service:
        yield service.name, service.options
        yield from ((f"{service.name}.{method.name}", method.options) for method in service.method)
    for message in _flatten(file.message_type):
        yield message.name, message.options
        for part in (message.field, message.oneof_decl, message.enum_type):
            yield from ((f"{message.name}.{item.name}", item.options) for item in part)
    enums = [*file.enum_type, *(e for m in _flatten(file.message_type) for e in m.enum_type)]
    for enum in enums:
        yield enum.name, enum.options
        yield from ((f"{enum.name}.{value.name}", value.options) for value in enum.value)


def _list_messages(files: list[_File], pool: DescriptorPool) -> list[Descriptor]:
    roots = [m for file in files for m in pool.FindFileByName(file.name).message_types_by_name.values()]
    found: dict[str, Descriptor] = {}
    for root in roots:
        found.update(find_messages(root))
    return [message for message in found.values() if not message.GetOptions().map_entry]


def _check_method(
    name: str, method: MethodDescriptor, known: Mapping[str, MethodDescriptor]
) -> Iterator[Violation]:
    if method.client_streaming or method.server_streaming:
        yield Violation(name, "streams: a tool is a unary method")
    option = _read_tool(method)
    if option is None:
        yield Violation(name, "has no (toolcrib.v1.tool) option: set effect and scope")
        return
    if not _is_named(options_pb2.Effect, option.effect):
        yield Violation(name, "has no effect: set READ, DRAFT or WRITE")
    if option.reach and not _is_named(options_pb2.Reach, option.reach):
        yield Violation(name, "has an unknown reach: set INTERNAL or OUTWARD")
    if not (len(option.scope) <= 64 and _SCOPE.fullmatch(option.scope)):
        yield Violation(name, 'has no scope of the form "orders.read": set one of at most 64 characters')
    if option.access:
        yield Violation(name, "sets access, which is for the broker's own services: remove it")
    yield from _check_resolution(name, method, option, known)


def _check_resolution(
    name: str,
    method: MethodDescriptor,
    option: options_pb2.ToolOptions,
    known: Mapping[str, MethodDescriptor],
) -> Iterator[Violation]:
    """Check what the contract says about a write in doubt."""
    if option.effect == options_pb2.READ:
        if option.probe:
            yield Violation(name, "is a READ and has nothing to probe: remove probe")
        if option.dedupes:
            yield Violation(name, "is a READ, which is never sent again: remove dedupes")
        return
    probe = _find_probe(name, method, known)
    target = _read_tool(probe) if probe is not None else None
    if not option.probe:
        return
    if probe is None or target is None:
        yield Violation(name, f"names the probe {option.probe}, which is no tool of the same service")
    elif target.effect != options_pb2.READ:
        yield Violation(name, f"names the probe {probe.name}, which is not a READ")
    else:
        yield from check_probe(name, method, probe)


def _find_probe(
    name: str, method: MethodDescriptor, known: Mapping[str, MethodDescriptor]
) -> MethodDescriptor | None:
    option = _read_tool(method)
    if option is None or not option.probe:
        return None
    return known.get(f"{name.partition('/')[0]}/{option.probe}")


def _is_named(enum: type, number: int) -> bool:
    return number != 0 and number in enum.DESCRIPTOR.values_by_number  # type: ignore[attr-defined]


def _check_message(message: Descriptor) -> Iterator[Violation]:
    if message.full_name.startswith("google.protobuf."):
        return
    for field in message.fields:
        inner = _find_held_type(field)
        if inner is not None and (inner.full_name in _UNBOUNDED or inner.file.name in _NOT_HELD):
            yield Violation(
                field.full_name, f"is a {inner.full_name}, which has no contract: write a message"
            )
        for problem in find_misplaced_roles(field):
            yield Violation(field.full_name, problem)


def _find_held_type(field: FieldDescriptor) -> Descriptor | None:
    """Return the message type that a field holds; for a map that of its values."""
    inner = field.message_type
    if inner is not None and inner.GetOptions().map_entry:
        return inner.fields_by_name["value"].message_type
    return inner


def _read_tool(method: MethodDescriptor) -> options_pb2.ToolOptions | None:
    option = read_options(method.GetOptions(), "toolcrib.v1.tool")
    return None if option is None else options_pb2.ToolOptions.FromString(option.SerializeToString())


def _read_terms(name: str, method: MethodDescriptor, comments: Mapping[str, str]) -> ToolTerms:
    option = _read_tool(method)
    assert option is not None, "checked before"
    reach = option.reach or options_pb2.INTERNAL
    return ToolTerms(
        method=name,
        description=comments.get(method.full_name, ""),
        effect=Effect(options_pb2.Effect.Name(option.effect)),
        reach=Reach(options_pb2.Reach.Name(reach)),
        scope=option.scope,
        probe=f"{name.partition('/')[0]}/{option.probe}" if option.probe else "",
        dedupes=option.dedupes,
    )
