"""The elements of a file's descriptor, each with its full name and its place in SourceCodeInfo.

A walk over the descriptor's own messages, so it works on sets that no pool takes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from google.protobuf import descriptor_pb2

from tools.comments import ENUM, FIELD, MEMBER, MESSAGE, NESTED_ENUM, NESTED_MESSAGE, ONEOF, SERVICE, Path


class Element(NamedTuple):
    """A service, method, message, field, oneof, enum or enum value.

    Attributes:
        name: With the package, for example "shop.v1.Order.total"; a method is "shop.v1.Orders/LookupOrder".
        path: As SourceCodeInfo.Location.path says it.
        proto: Its descriptor.
    """

    name: str
    path: Path
    proto: Any


def walk_file(file: descriptor_pb2.FileDescriptorProto) -> Iterator[Element]:
    """Yield every element of a file, parents before what they hold."""
    scope = f"{file.package}." if file.package else ""
    for index, service in enumerate(file.service):
        here: Path = (SERVICE, index)
        yield Element(f"{scope}{service.name}", here, service)
        for number, method in enumerate(service.method):
            yield Element(f"{scope}{service.name}/{method.name}", (*here, MEMBER, number), method)
    yield from _walk_messages(file.message_type, scope, (MESSAGE,))
    yield from _walk_enums(file.enum_type, scope, (ENUM,))


def flatten(messages: Iterable[descriptor_pb2.DescriptorProto]) -> Iterator[descriptor_pb2.DescriptorProto]:
    """Yield messages with those that are nested in them."""
    for message in messages:
        yield message
        yield from flatten(message.nested_type)


def _walk_messages(
    messages: Iterable[descriptor_pb2.DescriptorProto], scope: str, path: Path
) -> Iterator[Element]:
    for index, message in enumerate(messages):
        name, here = f"{scope}{message.name}", (*path, index)
        yield Element(name, here, message)
        parts: tuple[tuple[int, Iterable[Any]], ...] = ((FIELD, message.field), (ONEOF, message.oneof_decl))
        for part, members in parts:
            for number, member in enumerate(members):
                yield Element(f"{name}.{member.name}", (*here, part, number), member)
        yield from _walk_enums(message.enum_type, f"{name}.", (*here, NESTED_ENUM))
        yield from _walk_messages(message.nested_type, f"{name}.", (*here, NESTED_MESSAGE))


def _walk_enums(
    enums: Iterable[descriptor_pb2.EnumDescriptorProto], scope: str, path: Path
) -> Iterator[Element]:
    for index, enum in enumerate(enums):
        yield Element(f"{scope}{enum.name}", (*path, index), enum)
        for number, value in enumerate(enum.value):
            yield Element(f"{scope}{enum.name}.{value.name}", (*path, index, MEMBER, number), value)
