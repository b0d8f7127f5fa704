"""The values that a message holds, one by one, and how each is taken out: what sanitize searches for secrets.

Values come in the order of the fields' numbers, at any depth: strings, bytes, numbers as text, keys of maps
before what they lead to. Only strings and bytes can be taken out: a number that holds a secret cannot say
that it does. A list of numbers is one value.

A hostile result has a value for every few bytes. So values are made one by one, only their texts are kept
while they are searched, and each step is linear in their number.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from broker.redaction import NOTHING, REDACTED, Found, Redaction

_NUMBERS = frozenset(
    {
        FieldDescriptor.CPPTYPE_INT32,
        FieldDescriptor.CPPTYPE_INT64,
        FieldDescriptor.CPPTYPE_UINT32,
        FieldDescriptor.CPPTYPE_UINT64,
        FieldDescriptor.CPPTYPE_FLOAT,
        FieldDescriptor.CPPTYPE_DOUBLE,
    }
)


# Beyond this a double is written by its own digits; all of it would be up to 309, made of 8 bytes.
_LONGEST_WHOLE = 1e24
_MANY = 100
"""Values are not looked for one by one where more of them than this hold a secret."""


class HoldsSecret(Exception):
    """A secret cannot be taken out of a message.

    Attributes:
        found: Names of the credentials.
    """

    def __init__(self, found: Found) -> None:
        super().__init__("a secret cannot be taken out of the message")
        self.found = found


@dataclass(slots=True, repr=False, eq=False)
class HeldValue:
    """One value of a message. Not frozen: there are many, and that costs.

    Attributes:
        field: The field that it is in, or the key or the value of a map's entry.
        content: Text, or bytes; numbers as text.
        holder: The message, list or map that holds it.
        place: Name, index or key in the holder.
        is_key: True for a map's key; then the holder is the map.
        is_number: True where the content is a number.
    """

    field: FieldDescriptor
    content: str | bytes
    holder: Any
    place: Any
    is_key: bool
    is_number: bool

    @property
    def text(self) -> str:
        """The content as text."""
        return self.content if isinstance(self.content, str) else self.content.decode(errors="replace")

    def find(self, redaction: Redaction) -> Found:
        """Name the credentials whose secrets this value alone holds."""
        if isinstance(self.content, bytes):
            return redaction.find_bytes(self.content)
        return redaction.find(self.content)

    def replace(self) -> None:
        """Put what says that there was a secret in the place of a value that is no key."""
        new = REDACTED if isinstance(self.content, str) else REDACTED.encode()
        if isinstance(self.holder, Message):
            setattr(self.holder, self.place, new)
        else:
            self.holder[self.place] = new


def redact_message(message: Message, redaction: Redaction) -> Found:
    """Take every secret out of a message, in place.

    A value that holds one is replaced. What is found only across values, or in very many, is met by replacing
    all strings and bytes.

    Returns:
        The credentials whose secrets were found.

    Raises:
        HoldsSecret: It still holds one.
    """
    found = find_across(list_values(message), redaction)
    if not found:
        return NOTHING
    take_out(_find_guilty(list(list_values(message)), redaction))
    if find_across(list_values(message), redaction):
        take_out(list(list_values(message)))
        if find_across(list_values(message), redaction):
            raise HoldsSecret(found)
    return found


def list_values(message: Message) -> Iterator[HeldValue]:
    """Yield every value that is set."""
    for field, value in message.ListFields():
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            yield from _list_map(field, value)
        elif field.is_repeated and field.cpp_type in _NUMBERS:
            text = "".join(map(_write_number, value))
            yield HeldValue(field, text, message, field.name, is_key=False, is_number=True)
        elif field.is_repeated:
            for index, inner in enumerate(value):
                yield from _list_one(field, inner, value, index)
        else:
            yield from _list_one(field, value, message, field.name)


def find_across(values: Iterable[HeldValue], redaction: Redaction) -> Found:
    """Name the credentials whose secrets values hold alone, or together in several orders.

    One after the other, with and without a gap (an escape ends with its field, or goes on in the next one),
    without numbers, and field by field: the same field of each element of a list, the values of a map.
    """
    columns: dict[FieldDescriptor, list[str]] = {}
    texts: list[str] = []
    words: list[str] = []
    raw: list[bytes] = []
    for value in values:
        text = value.text
        columns.setdefault(value.field, []).append(text)
        texts.append(text)
        if not value.is_number:
            words.append(text)
        if isinstance(value.content, bytes):
            raw.append(value.content)
    joined = {
        "\n".join(texts),
        "".join(texts),
        "".join(words),
        "\n".join("".join(column) for column in columns.values()),
    }
    return redaction.find_bytes(b"".join(raw)).union(*(redaction.find(text) for text in joined))


def _find_guilty(values: list[HeldValue], redaction: Redaction) -> list[HeldValue]:
    """Find the values that hold a secret alone, by halves; all of them where very many do."""
    guilty: list[HeldValue] = []
    waiting = [values]
    while waiting and len(guilty) < _MANY:
        group = waiting.pop()
        text = "\n".join(value.text for value in group)
        raw = b"".join(value.content for value in group if isinstance(value.content, bytes))
        if not (redaction.find(text) or redaction.find_bytes(raw)):
            continue
        if len(group) > 1:
            middle = len(group) // 2
            waiting += (group[middle:], group[:middle])
        elif group[0].find(redaction):
            guilty += group
    return values if waiting else guilty


def _list_map(field: FieldDescriptor, entries: Any) -> Iterator[HeldValue]:
    assert field.message_type is not None, "a map is a list of entries"
    key_field, value_field = (field.message_type.fields_by_name[name] for name in ("key", "value"))
    for key in sorted(entries):
        yield HeldValue(key_field, str(key), entries, key, is_key=True, is_number=not isinstance(key, str))
        yield from _list_one(value_field, entries[key], entries, key)


def _list_one(field: FieldDescriptor, value: Any, holder: Any, place: Any) -> Iterator[HeldValue]:
    if field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE:
        yield from list_values(value)
    elif field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        yield HeldValue(field, value, holder, place, is_key=False, is_number=False)
    elif field.cpp_type in _NUMBERS:
        yield HeldValue(field, _write_number(value), holder, place, is_key=False, is_number=True)


def _write_number(value: float) -> str:
    if not isinstance(value, float):
        return str(value)
    if abs(value) < _LONGEST_WHOLE:
        return str(int(value)) if value.is_integer() else str(value)
    return str(value).replace(".", "")


def take_out(values: Sequence[HeldValue]) -> None:
    """Replace values; keys last and inner ones first, because a new key gets a copy of what it leads to.

    A number stays as it is.
    """
    words = [value for value in values if not value.is_number]
    for value in words:
        if not value.is_key:
            value.replace()
    names: Counter[int] = Counter()  # how many new names were tried, by map
    for value in reversed(words):
        if value.is_key:
            name = id(value.holder)
            names[name] = _rename(value.holder, value.place, names[name])


def _rename(entries: Any, key: str, number: int) -> int:
    """Give an entry another key, with the next number that is free; return it."""
    number += 1
    while (new := REDACTED if number == 1 else f"{REDACTED} {number}") in entries:
        number += 1
    held = entries[key]
    if isinstance(held, Message):
        entries[new].CopyFrom(held)
    else:
        entries[new] = held
    del entries[key]
    return number
