"""Undoes escapes of URLs, JSON and HTML in somebody else's bytes, and says where everything came from.

Escapes are undone a level at a time, all kinds in one pass from left to right, so that one within another
comes undone on the next level. The passes are the regular expression engine's, and none of its escapes is
longer than eleven bytes: the time is linear in the length of the text, whatever stands in it.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html.entities import html5
from itertools import compress

from credentials.spellings import UNSEEN_ASCII

MAX_LEVELS = 3
MAX_GROWTH = 12
"""So many bytes at most may be waited for, for each that they stand for."""

_NOT_ASCII = b"\x80"
"""Stands for what no secret holds."""
_NAMED = {
    name.removesuffix(";"): text.encode()
    for name, text in html5.items()
    if name.endswith(";") and len(text) == 1 and "!" <= text <= "~" and len(name) < 10
}
_NAMES = "|".join(sorted(_NAMED))
_ESCAPE = re.compile(
    (
        r"(%[0-9a-fA-F]{2}"
        r"|\\(?:u(?:[0-9a-fA-F]{4}|\{0{0,4}[0-9a-fA-F]{1,2}\})|x[0-9a-fA-F]{2}|[\\\"'/bfnrtv])"
        rf"|&(?:#(?:[xX]0{{0,4}}[0-9a-fA-F]{{1,2}}|0{{0,4}}[0-9]{{1,3}});?|(?:{_NAMES});))"
    ).encode()
)
# Upper case and the other alphabet of base64 are written like the usual ones, and what nobody sees goes.
_FOLDED = bytes(ord(chr(byte).lower()) if byte < 0x80 else byte for byte in range(0x100)).translate(
    bytes.maketrans(b"-_", b"+/")
)
_IS_SEEN = bytes(byte not in UNSEEN_ASCII for byte in range(0x100))


def fold(text: bytes) -> bytes:
    """Write a text so that a secret is found in any case, either base64, and with gaps that nobody sees."""
    return text.translate(_FOLDED, UNSEEN_ASCII)


class _Meanings(dict[bytes, bytes]):
    """What escapes stand for; odd ones are worked out each time, so that nobody fills memory with them."""

    def __missing__(self, escape: bytes) -> bytes:
        return _decode(escape)


@dataclass(frozen=True, slots=True)
class Level:
    """A text with its escapes undone so many times.

    Attributes:
        text: What it says then.
        pieces: What the level before said: what is no escape and what is one, by turns; empty at the first.
    """

    text: bytes
    pieces: Sequence[bytes] = ()


def unescape(text: bytes) -> Iterator[Level]:
    """Give a text as it is, and with its escapes undone up to `MAX_LEVELS` times."""
    yield Level(text)
    for _ in range(MAX_LEVELS):
        pieces = _ESCAPE.split(text)
        if len(pieces) == 1:
            return
        decoded = pieces.copy()
        decoded[1::2] = map(_MEANINGS.__getitem__, pieces[1::2])
        text = b"".join(decoded)
        yield Level(text, pieces)


@dataclass(frozen=True, slots=True)
class Traced:
    """A folded text, and where in the first level the part begins and ends that each byte came from."""

    text: bytes
    starts: Sequence[int]
    ends: Sequence[int]

    def origin(self, first: int, behind: int) -> tuple[int, int]:
        """Say which part the bytes from `first` up to `behind` came from."""
        return self.starts[first], self.ends[behind - 1]


def trace(levels: Sequence[Level]) -> Traced:
    """Fold the last of the levels, which come from the first one on, and keep where everything came from."""
    length = len(levels[0].text)
    starts, ends = array("L", range(length)), array("L", range(1, length + 1))
    for level in levels[1:]:
        starts, ends = _trace_level(level, starts, ends)
    text = levels[-1].text
    seen = text.translate(_IS_SEEN)
    return Traced(fold(text), array("L", compress(starts, seen)), array("L", compress(ends, seen)))


def _trace_level(level: Level, starts: array[int], ends: array[int]) -> tuple[array[int], array[int]]:
    new_starts, new_ends = array("L"), array("L")
    at = 0
    for number, piece in enumerate(level.pieces):
        behind = at + len(piece)
        if number % 2 == 0:
            new_starts.extend(starts[at:behind])
            new_ends.extend(ends[at:behind])
        else:
            length = len(_MEANINGS[piece])
            new_starts.extend([starts[at]] * length)
            new_ends.extend([ends[behind - 1]] * length)
        at = behind
    return new_starts, new_ends


def _decode(escape: bytes) -> bytes:
    if escape[:1] == b"%":
        return bytes([int(escape[1:], 16)])
    kind, digits = escape[1:2], escape[2:].strip(b"{;}")
    if escape[:1] == b"&":
        if kind != b"#":
            return _NAMED[escape[1:-1].decode()]
        code = int(digits[1:], 16) if digits[:1] in b"xX" else int(digits)
        return bytes([code]) if code < 0x80 else _NOT_ASCII
    if kind in b"ux":
        code = int(digits, 16)
        return bytes([code]) if code < 0x80 else _NOT_ASCII
    return b"" if kind in b"bfnrtv" else kind


def _spell_all() -> Iterator[bytes]:
    """Give the usual escapes of everything in ASCII."""
    for code in range(0x80):
        for digits in {f"{code:02x}", f"{code:02X}"}:
            yield from (text.encode() for text in (f"%{digits}", f"\\u00{digits}", f"\\x{digits}"))
            yield f"&#x{digits};".encode()
        yield f"&#{code};".encode()
    yield from (f"&{name};".encode() for name in _NAMED)
    yield from (rb"\%c" % sign for sign in b"\\\"'/bfnrtv")


_MEANINGS = _Meanings({escape: _decode(escape) for escape in _spell_all()})
