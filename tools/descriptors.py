"""Descriptors: the option files that the broker trusts, and a private pool for each tool version.

Rules:
1. A bundle's copy of a trusted file (google/protobuf/*, buf/validate, toolcrib/v1/options) is never read:
   ours is put in its place, so that a bundle cannot redefine what an option means.
2. Each tool version has its own pool: two versions, or two tenants, may use the same names.
3. Options are read with the trusted definitions; what those do not know is a violation, not ignored.
"""

from __future__ import annotations

import functools
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import grpc_tools
from google.protobuf import descriptor_pb2, message_factory
from google.protobuf.descriptor import Descriptor, FileDescriptor, MethodDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet

import toolcrib

FileProtos = Mapping[str, descriptor_pb2.FileDescriptorProto]

OPTION_FILES = ("buf/validate/validate.proto", "toolcrib/v1/options.proto")
"""Files of options: a contract imports them, a client never sees them."""

GOOGLE_FILES = tuple(
    f"google/protobuf/{name}.proto"
    for name in ("any", "descriptor", "duration", "empty", "field_mask", "struct", "timestamp", "wrappers")
)
TRUSTED_FILES = GOOGLE_FILES + OPTION_FILES

_COMPILING = threading.Lock()
"""protoc runs inside this process, and bundles are loaded on several threads."""


def find_include_folders() -> tuple[Path, Path]:
    """Return the folders of our option protos and of google/protobuf, for protoc's include path."""
    ours = Path(toolcrib.__file__).resolve().parent.parent
    return ours, Path(grpc_tools.__file__).resolve().parent / "_proto"


@functools.cache
def load_trusted_files() -> FileProtos:
    """Compile the trusted files once per process, by name and in the order of their imports.

    Raises:
        RuntimeError: The installation lacks a file.
    """
    from grpc_tools import protoc  # noqa: PLC0415 - native and slow to load; once is enough

    with _COMPILING, tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "trusted.binpb"
        includes = [f"-I{path}" for path in find_include_folders()]
        if protoc.main(
            ["protoc", *includes, "--include_imports", f"--descriptor_set_out={out}", *TRUSTED_FILES]
        ):
            raise RuntimeError("the installation's own protos do not compile: install toolcrib again")
        files = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes())
    return {file.name: file for file in files.file}


@functools.cache
def load_trusted_pool() -> DescriptorPool:
    """Build the pool that knows the trusted files; options are read with its classes."""
    return build_pool(load_trusted_files().values())


def build_pool(files: Iterable[descriptor_pb2.FileDescriptorProto]) -> DescriptorPool:
    """Build a private pool of `files`, given in the order of their imports.

    Raises:
        TypeError: The files clash or do not fit together (protobuf's own message).
    """
    pool = DescriptorPool()
    for file in files:
        pool.Add(file)
    return pool


@functools.cache
def _find_options_class(full_name: str) -> type[Message]:
    pool = load_trusted_pool()
    names = list(load_trusted_files())
    message_factory.GetMessageClassesForFiles(names, pool)  # registers the extensions
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(full_name))


def read_options(options: Message, extension: str) -> Any:
    """Read one trusted extension of an element's options, or None where it is not set.

    Args:
        options: What `GetOptions()` gave, whatever pool it is of.
        extension: For example "buf.validate.field".
    """
    known = reparse_options(options)
    descriptor = load_trusted_pool().FindExtensionByName(extension)
    return known.Extensions[descriptor] if known.HasExtension(descriptor) else None  # type: ignore[index,arg-type]


def reparse_options(options: Message) -> Message:
    """Read options with the trusted definitions of every extension."""
    return _find_options_class(options.DESCRIPTOR.full_name).FromString(options.SerializeToString())


def list_unknown_numbers(message: Message) -> list[int]:
    """List the numbers of fields that a message holds and its type does not know; not of what is nested."""
    fields = UnknownFieldSet(message)
    return [fields[index].field_number for index in range(len(fields))]


def find_unknown_numbers(message: Message, path: str = "") -> Iterator[str]:
    """Yield where `message` holds fields that its definition does not know, as "path: field 7"."""
    for number in list_unknown_numbers(message):
        yield f"{path or message.DESCRIPTOR.name}: field {number}"
    for field, value in message.ListFields():
        if field.message_type is None or field.message_type.GetOptions().map_entry:
            continue
        where = f"{path}.{field.name}" if path else field.name
        for item in value if field.is_repeated else (value,):
            yield from find_unknown_numbers(item, where)


def find_messages(root: Descriptor) -> dict[str, Descriptor]:
    """Find every message type that `root` can hold, itself included, by full name."""
    found: dict[str, Descriptor] = {}
    waiting = [root]
    while waiting:
        message = waiting.pop()
        if message.full_name in found:
            continue
        found[message.full_name] = message
        waiting.extend(field.message_type for field in message.fields if field.message_type is not None)
    return found


def find_methods(file: FileDescriptor) -> Iterator[tuple[str, MethodDescriptor]]:
    """Yield each method of a file as ("shop.v1.Orders/LookupOrder", descriptor)."""
    for service in file.services_by_name.values():
        for method in service.methods:
            yield f"{service.full_name}/{method.name}", method
