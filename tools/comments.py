"""Comments of a descriptor set: what an author wrote above an element, for people and for models."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from google.protobuf import descriptor_pb2

Path = tuple[int, ...]
"""Where an element stands in its file, as SourceCodeInfo.Location.path says it."""

_File = descriptor_pb2.FileDescriptorProto

MESSAGE, ENUM, SERVICE = 4, 5, 6
"""Field numbers of FileDescriptorProto."""
FIELD, NESTED_MESSAGE, NESTED_ENUM, ONEOF = 2, 3, 4, 8
"""Field numbers of DescriptorProto."""
MEMBER = 2
"""Field number of a service's methods and of an enum's values."""

_NESTING: dict[str, dict[int, str]] = {
    "file": {MESSAGE: "message", ENUM: "enum", SERVICE: "service"},
    "message": {FIELD: "field", NESTED_MESSAGE: "message", NESTED_ENUM: "enum", ONEOF: "oneof"},
    "enum": {MEMBER: "value"},
    "service": {MEMBER: "method"},
}
_OPTIONS = {"file": 8, "message": 7, "field": 8, "oneof": 2, "enum": 3, "value": 3, "service": 3, "method": 4}
"""Field number of the options of each kind of element."""

MAX_COMMENT_CHARACTERS = 2_000


def index_comments(file: _File) -> dict[Path, str]:
    """Read the comment above each element, by its place; as it was written."""
    return {
        tuple(location.path): location.leading_comments
        for location in file.source_code_info.location
        if location.leading_comments
    }


def read_comments(file: _File) -> Iterator[tuple[str, str]]:
    """Yield (full name, comment as one line) of messages, fields and methods."""
    comments = index_comments(file)
    for name, path in _list_elements(file):
        text = " ".join(comments.get(path, "").split())
        if text:
            yield name, text[:MAX_COMMENT_CHARACTERS]


def is_option_place(path: Sequence[int]) -> bool:
    """Tell whether a place is an element's options, or inside of them."""
    kind, rest = "file", list(path)
    while rest:
        if rest[0] == _OPTIONS[kind]:
            return True
        inner = _NESTING.get(kind, {}).get(rest[0])
        if inner is None:
            return False
        kind, rest = inner, rest[2:]
    return False


def _list_elements(file: _File) -> Iterator[tuple[str, Path]]:
    for index, service in enumerate(file.service):
        for number, method in enumerate(service.method):
            yield f"{file.package}.{service.name}.{method.name}", (SERVICE, index, MEMBER, number)
    yield from _list_messages(file.message_type, file.package, (MESSAGE,))


def _list_messages(
    messages: Sequence[descriptor_pb2.DescriptorProto], scope: str, path: Path
) -> Iterator[tuple[str, Path]]:
    for index, message in enumerate(messages):
        name, here = f"{scope}.{message.name}", (*path, index)
        yield name, here
        for number, field in enumerate(message.field):
            yield f"{name}.{field.name}", (*here, FIELD, number)
        yield from _list_messages(message.nested_type, name, (*here, NESTED_MESSAGE))
