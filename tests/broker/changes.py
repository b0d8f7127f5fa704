"""Every way to change a message a little: one value, one presence, at any depth."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from operator import attrgetter
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from tests.broker.spellings import MAX_DEPTH, Source, entry_fields, is_map

Edit = Callable[[Any], object]
Step = Callable[[Any], Any]


def changes(source: Source, message: Message) -> Iterator[Message]:
    """Yield copies that each differ in one value or one presence, for every field at every depth."""
    for edit in _edits(source, message):
        changed = type(message)()
        changed.CopyFrom(message)
        edit(changed)
        yield changed


def _edits(source: Source, message: Any, reach: Step = lambda root: root) -> Iterator[Edit]:
    for item in message.DESCRIPTOR.fields:
        for edit in _field_edits(source, message, item):
            yield partial(_apply, reach, edit)
        for step, inner in _inner_messages(message, item):
            yield from _edits(source, inner, partial(_apply, reach, step))


def _apply(reach: Step, edit: Step, root: Any) -> Any:
    return edit(reach(root))


def _inner_messages(message: Any, item: FieldDescriptor) -> Iterator[tuple[Step, Any]]:
    """Yield every message that a field holds, with the way to it."""
    held = getattr(message, item.name)
    if is_map(item):
        if entry_fields(item)[1].message_type is not None:
            for key in held:
                yield partial(_item_of, item.name, key), held[key]
    elif item.message_type is not None and item.is_repeated:
        for index, inner in enumerate(held):
            yield partial(_item_of, item.name, index), inner
    elif item.message_type is not None and message.HasField(item.name):
        yield attrgetter(item.name), held


def _item_of(name: str, key: Any, message: Any) -> Any:
    return getattr(message, name)[key]


def _field_edits(source: Source, message: Any, item: FieldDescriptor) -> Iterator[Edit]:
    """Yield the ways to change one field and nothing in it."""
    held = getattr(message, item.name)
    if is_map(item):
        yield from _map_edits(source, held, item)
    elif item.is_repeated:
        yield from _list_edits(source, held, item)
    elif item.has_presence and message.HasField(item.name):
        yield lambda there: there.ClearField(item.name)
    elif item.message_type is not None:
        yield lambda there: getattr(there, item.name).SetInParent()
    elif item.has_presence:
        yield lambda there: setattr(there, item.name, item.default_value)
    if item.message_type is None and not item.is_repeated:
        other = source.other_value(item, held)
        yield lambda there: setattr(there, item.name, other)


def _list_edits(source: Source, held: Any, item: FieldDescriptor) -> Iterator[Edit]:
    yield partial(_append, source, item)
    if held:
        yield lambda there: getattr(there, item.name).pop()
    if held and item.message_type is None:
        yield partial(_set_entry, item.name, 0, source.other_value(item, held[0]))


def _append(source: Source, item: FieldDescriptor, there: Any) -> None:
    source.append(there, item, MAX_DEPTH)


def _map_edits(source: Source, held: Any, item: FieldDescriptor) -> Iterator[Edit]:
    key, value = entry_fields(item)
    new = next((name for name in (source.value(key) for _ in range(20)) if name not in held), None)
    if new is not None:
        yield lambda there: source.put_entry(there, item, new, MAX_DEPTH)
    for name in held:
        yield partial(_delete, item.name, name)
        if value.message_type is None:
            yield partial(_set_entry, item.name, name, source.other_value(value, held[name]))


def _delete(field_name: str, name: Any, there: Any) -> None:
    del getattr(there, field_name)[name]


def _set_entry(field_name: str, name: Any, value: Any, there: Any) -> None:
    getattr(there, field_name)[name] = value
