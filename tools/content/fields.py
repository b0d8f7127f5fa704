"""The untrusted strings of a message: found, and put back cleaned.

Paths are those of fields and not of values: "notes[].body", and not `notes["…"].body`. A map's key is the
tool's own text and belongs in no report.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from google.protobuf.message import Message

from tools.content.kinds import Cleaned, Format, Removed
from tools.shapes import Concern, FieldShape, MessageShape, spread

MAX_LINES = 64
MAX_PATH_CHARACTERS = 200


class Piece(NamedTuple):
    """One untrusted string.

    Attributes:
        path: Its field, for example "order.customer.note".
        holder: The message that it stands in.
        place: Its place in a repeated field; None in a field of one value.
    """

    path: str
    form: Format
    text: str
    holder: Message
    name: str
    place: int | None = None


def find_pieces(message: Message, shape: MessageShape, path: str = "") -> Iterator[Piece]:
    """Find the untrusted strings of a message that are set, at any depth."""
    for descriptor, value in message.ListFields():
        if descriptor.name not in shape.visits[Concern.UNTRUSTED]:
            continue
        item = shape.fields[descriptor.name]
        where = f"{path}.{item.name}" if path else item.name
        where = f"{where}[]" if item.repeated else where
        if item.roles.untrusted:
            yield from _list_strings(message, item, where)
        elif item.message is not None:
            for _, inner in spread(item, value, where):
                yield from find_pieces(inner, item.message, where)


def _list_strings(message: Message, item: FieldShape, path: str) -> Iterator[Piece]:
    form = Format(item.roles.content)
    value = getattr(message, item.name)
    if not item.repeated:
        yield Piece(path, form, value, message, item.name)
        return
    for index, text in enumerate(value):
        yield Piece(path, form, text, message, item.name, index)


def put_back(pieces: Sequence[Piece], cleaned: Sequence[Cleaned]) -> tuple[str, ...]:
    """Put cleaned strings in their places.

    Returns:
        The report, a line for each field that lost something: "page.body: 3 hidden, 2 bidirectional".
    """
    totals: dict[str, Removed] = {}
    for piece, (text, removed) in zip(pieces, cleaned, strict=True):
        if text != piece.text:
            if piece.place is None:
                setattr(piece.holder, piece.name, text)
            else:
                getattr(piece.holder, piece.name)[piece.place] = text
        if +removed:
            totals.setdefault(piece.path, Removed()).update(removed)
    lines = [_write_line(path, removed) for path, removed in totals.items()]
    more = len(lines) - MAX_LINES
    return (*lines[:MAX_LINES], *([f"and {more} more fields"] if more > 0 else []))


def shorten_path(path: str) -> str:
    """Shorten a path that a message which holds itself has made long."""
    return path if len(path) <= MAX_PATH_CHARACTERS else f"{path[: MAX_PATH_CHARACTERS - 1]}…"


def _write_line(path: str, removed: Removed) -> str:
    counts = (f"{count} {kind}" for kind, count in sorted(removed.items()) if count > 0)
    return f"{shorten_path(path)}: {', '.join(counts)}"
