"""Where in a bundle's files a violation stands: file, line and column, both from 1.

What registration names (an element of a descriptor, a field of the manifest) is looked up in protoc's source
info, and in YAML's marks. What cannot be found is placed at what it would be a part of.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import yaml
from google.protobuf import descriptor_pb2
from google.protobuf.message import Message

from tools.comments import Path, index_comments
from tools.descriptors import TRUSTED_FILES
from tools.elements import Element, walk_file
from tools.manifest_yaml import compose_manifest

Span = tuple[int, int]
"""Line and column, from 0."""

_FILE_PARTS: Mapping[str, Path] = {"package": (2,), "syntax": (12,)}
_EXTENSIONS = {"options": 283041917, "rules": 1159}
"""Numbers of our options and of buf.validate's."""
_OPTIONS_NUMBERS: Mapping[type[Message], int] = {
    descriptor_pb2.DescriptorProto: 7,
    descriptor_pb2.FieldDescriptorProto: 8,
    descriptor_pb2.OneofDescriptorProto: 2,
    descriptor_pb2.EnumDescriptorProto: 3,
    descriptor_pb2.EnumValueDescriptorProto: 3,
    descriptor_pb2.ServiceDescriptorProto: 3,
    descriptor_pb2.MethodDescriptorProto: 4,
}
"""Field numbers of `options`."""


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A file of the bundle; line and column are 0 where they are not known."""

    file: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return ":".join(str(part) for part in (self.file, self.line, self.column) if part)


class ProtoPlaces:
    """The elements of a descriptor set by name, and where they stand."""

    def __init__(self, descriptor_set: bytes) -> None:
        """Index a set that protoc compiled."""
        self._spans: dict[str, dict[Path, Span]] = {}
        self._comments: dict[str, dict[Path, str]] = {}
        self._elements: dict[str, tuple[str, Element]] = {}
        for file in descriptor_pb2.FileDescriptorSet.FromString(descriptor_set).file:
            if file.name not in TRUSTED_FILES:
                self._spans[file.name] = _index_spans(file)
                self._comments[file.name] = index_comments(file)
                for element in walk_file(file):
                    self._elements.setdefault(element.name, (file.name, element))

    @property
    def first(self) -> str:
        """The bundle's first file; empty where it has none."""
        return next((f"proto/{name}" for name in self._spans), "")

    def find(self, name: str, part: str = "") -> Place | None:
        """Find an element or a file; None where the set has none of the name.

        Args:
            name: For example "shop.v1.Order.total", "shop.v1.Orders/LookupOrder", "shop/v1/orders.proto".
            part: What of it: "options", "rules", "type", "comment", "package", "syntax"; empty for itself.
        """
        if name in self._spans:
            return self._place(name, _FILE_PARTS.get(part, ()))
        if name not in self._elements:
            return None
        file, element = self._elements[name]
        if part == "comment":
            return self._place_comment(file, element.path)
        wanted = (*element.path, *_name_part(element, part))
        return self._place(file, wanted if self._holds(file, wanted) else element.path)

    def _holds(self, file: str, wanted: Path) -> bool:
        return any(path[: len(wanted)] == wanted for path in self._spans[file])

    def _place(self, file: str, wanted: Path) -> Place:
        spans = [span for path, span in self._spans[file].items() if path[: len(wanted)] == wanted]
        line, column = min(spans) if wanted and spans else (0, 0)
        return Place(f"proto/{file}", line + 1, column + 1)

    def _place_comment(self, file: str, path: Path) -> Place:
        """Place the first line of a comment: it ends above its element, line by line."""
        place = self._place(file, path)
        lines = self._comments[file].get(path, "").count("\n")
        return Place(place.file, max(place.line - lines, 1), place.column)


class ManifestPlaces:
    """The fields of tool.yaml and where they stand."""

    def __init__(self, text: str, file: str = "tool.yaml") -> None:
        """Index a manifest; text that is no YAML has no places but the file."""
        self._root, self._file = compose_manifest(text), file

    def find(self, path: str) -> Place:
        """Find a field by its path, for example "tools.shop.v1.Orders/LookupOrder.targets".

        A field that is not there is placed at what it would stand in.
        """
        node, place, rest = self._root, Place(self._file), path
        while rest:
            key, value, rest = _descend(node, rest)
            if key is None:
                return place
            place = Place(self._file, key.start_mark.line + 1, key.start_mark.column + 1)
            node = value
        return place


def _descend(node: yaml.Node | None, path: str) -> tuple[yaml.Node | None, yaml.Node | None, str]:
    """Find the member of a node that a path begins with; keys may hold dots, so the longest one counts."""
    members: list[tuple[str, yaml.Node, yaml.Node]] = []
    if isinstance(node, yaml.MappingNode):
        members = [(str(key.value), key, value) for key, value in node.value]
    elif isinstance(node, yaml.SequenceNode):
        members = [(str(index), item, item) for index, item in enumerate(node.value)]
    fitting = [each for each in members if path == each[0] or path.startswith(f"{each[0]}.")]
    if not fitting:
        return None, None, ""
    name, key, value = max(fitting, key=lambda each: len(each[0]))
    return key, value, path[len(name) + 1 :]


def _index_spans(file: descriptor_pb2.FileDescriptorProto) -> dict[Path, Span]:
    locations = file.source_code_info.location
    return {tuple(each.path): (each.span[0], each.span[1]) for each in locations if len(each.span) > 1}


def _name_part(element: Element, part: str) -> Path:
    """Say where in an element's descriptor a part of it stands."""
    if part == "type" and isinstance(element.proto, descriptor_pb2.FieldDescriptorProto):
        return (6,) if element.proto.type_name else (5,)
    if part in _EXTENSIONS:
        return (_OPTIONS_NUMBERS[type(element.proto)], _EXTENSIONS[part])
    return ()
