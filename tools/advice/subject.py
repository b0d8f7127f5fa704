"""What advice is about: a bundle's parts, and the walks that advisors share."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor

from tools.contract import ToolTerms
from tools.descriptors import find_messages
from tools.manifest import Manifest
from tools.registration import Registered

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """A bundle's parts.

    Attributes:
        registered: Its descriptors; None where they break a rule.
        manifest: None where it breaks a rule.
        files: The handler's, by relative path.
    """

    registered: Registered | None
    manifest: Manifest | None
    files: Mapping[str, bytes] = field(default_factory=dict)

    def methods(self) -> Iterator[tuple[ToolTerms, MethodDescriptor]]:
        """Yield each method with what its option says."""
        if self.registered is not None:
            yield from self.registered.tools.values()

    def request_fields(self) -> Iterator[FieldDescriptor]:
        """Yield each field of each message that a request can hold, once."""
        yield from _list_fields([method.input_type for _, method in self.methods()])

    def response_fields(self) -> Iterator[FieldDescriptor]:
        """Yield each field of each message that a response can hold, once."""
        yield from _list_fields([method.output_type for _, method in self.methods()])


def list_fields(root: Descriptor) -> Iterator[FieldDescriptor]:
    """Yield each field of each message that `root` can hold, once; not those of google.protobuf and maps."""
    yield from _list_fields([root])


def split_words(name: str) -> list[str]:
    """Split a name into lower-case words: "reply_toURL" is reply, to, url."""
    return [word.lower() for word in _WORD.findall(name)]


def find_entry(item: FieldDescriptor) -> Descriptor | None:
    """Return the type of a map's entries; None for a field that is no map."""
    entry = item.message_type
    return entry if entry is not None and entry.GetOptions().map_entry else None


def is_map(item: FieldDescriptor) -> bool:
    """Tell whether a field is a map."""
    return find_entry(item) is not None


def owner(item: FieldDescriptor) -> Descriptor:
    """Return the message type that a field is of."""
    assert item.containing_type is not None, "only extensions are of none"
    return item.containing_type


def holds_text(item: FieldDescriptor) -> bool:
    """Tell whether a field is a string, a list of strings, or a map with strings as values."""
    entry = find_entry(item)
    item = item if entry is None else entry.fields_by_name["value"]
    return item.type == FieldDescriptor.TYPE_STRING


def _list_fields(roots: list[Descriptor]) -> Iterator[FieldDescriptor]:
    found: dict[str, Descriptor] = {}
    for root in roots:
        found.update(find_messages(root))
    for message in found.values():
        if not message.GetOptions().map_entry and not message.full_name.startswith("google.protobuf."):
            yield from message.fields
