"""Cleaning of untrusted plain text: what people cannot see is removed, what they see stays byte for byte.

Removed: control characters but newline and tab, bidirectional controls, zero-width and other format
characters, tag characters, variation selectors, fillers that are drawn as nothing. `if a<b` and
`Tom <tom@x.org>` stay as they are: text is not markup.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterator

from google.protobuf.message import Message

from tools.shapes import Concern, FieldShape, MessageShape, spread

_KEPT = frozenset("\n\t")
_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_LINES = frozenset("\u2028\u2029")
_CATEGORIES = {"Cc": "control", "Cf": "invisible", "Cs": "surrogate"}

_TAGS = ("\U000e0000", "\U000e007f")
_INVISIBLE = (
    ("\u034f", "\u034f"),
    ("\u115f", "\u1160"),
    ("\u17b4", "\u17b5"),
    ("\u180b", "\u180f"),
    ("\u2065", "\u2065"),
    ("\u3164", "\u3164"),
    ("\ufe00", "\ufe0f"),
    ("\uffa0", "\uffa0"),
    ("\ufff0", "\ufff8"),
    ("\U000e0080", "\U000e0fff"),
)
"""Ranges of Unicode's Default_Ignorable_Code_Point whose general category does not tell it."""


def clean_message(message: Message, shape: MessageShape, path: str = "") -> Iterator[str]:
    """Clean the untrusted fields of a message in place.

    Yields:
        A line for each field that lost something, for example "order.customer.note: 2 bidirectional, 1 tag".
    """
    for descriptor, value in message.ListFields():
        if descriptor.name not in shape.visits[Concern.UNTRUSTED]:
            continue
        item = shape.fields[descriptor.name]
        where = f"{path}.{item.name}" if path else item.name
        if item.roles.untrusted:
            removed = _clean_field(message, item)
            if removed:
                yield f"{where}: {', '.join(f'{count} {kind}' for kind, count in sorted(removed.items()))}"
        elif item.message is not None:
            for inner_path, inner in spread(item, value, where):
                yield from clean_message(inner, item.message, inner_path)


def clean_text(text: str) -> tuple[str, Counter[str]]:
    """Remove invisible characters.

    Returns:
        The text, and how many characters of each kind were removed; empty when none.
    """
    removed: Counter[str] = Counter()
    if text.isascii() and text.isprintable():
        return text, removed
    kept = []
    for character in text:
        kind = _classify(character)
        if kind:
            removed[kind] += 1
        else:
            kept.append(character)
    return "".join(kept), removed


def _clean_field(message: Message, item: FieldShape) -> Counter[str]:
    value = getattr(message, item.name)
    if not item.repeated:
        text, removed = clean_text(value)
        if removed:
            setattr(message, item.name, text)
        return removed
    total: Counter[str] = Counter()
    for index, element in enumerate(value):
        value[index], removed = clean_text(element)
        total += removed
    return total


def _classify(character: str) -> str:
    """Name the kind of a character that is removed; empty for one that stays."""
    if character in _KEPT:
        return ""
    if character in _BIDI:
        return "bidirectional"
    if character in _LINES:
        return "control"
    if _TAGS[0] <= character <= _TAGS[1]:
        return "tag"
    if any(first <= character <= last for first, last in _INVISIBLE):
        return "invisible"
    return _CATEGORIES.get(unicodedata.category(character), "")
