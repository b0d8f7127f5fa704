"""TEXT: what people cannot see is removed, what they see stays byte for byte.

`if a<b` and `Tom <tom@x.org>` stay as they are: text is not markup. What is removed, by kind:

| kind | which |
|---|---|
| control | C0 but newline and tab, DEL, C1, line and paragraph separator; also the CR of a CR LF |
| bidirectional | marks, embeddings, overrides, isolates: what is read is not what is drawn |
| tag | U+E0000..E007F: ASCII that nobody sees |
| invisible | Default_Ignorable_Code_Point (zero-width, variation selectors, fillers, soft hyphen), other format characters, blanks that are no spaces, noncharacters |
| private use | what is drawn differs from font to font |
| surrogate | halves of characters |

Joined emoji lose the joiner: a family becomes its members, a red heart a plain one. Prefixed number signs of
Arabic, Syriac and Kaithi are format characters too, but drawn, and stay. So do unassigned code points, which
tomorrow's emoji are today.
"""  # noqa: E501 - a table

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from tools.content.kinds import Cleaned, Kind, Removed

_PIECE_CHARACTERS = 64 * 1024

# First and last code point, in hexadecimal; a test checks them against Unicode's own data, each code point.
_RANGES: Mapping[Kind, str] = {
    Kind.CONTROL: "0-8 B-1F 7F-9F 2028-2029",
    Kind.BIDIRECTIONAL: "61C 200E-200F 202A-202E 2066-2069",
    Kind.TAG: "E0000-E007F",
    Kind.INVISIBLE: (
        "AD 34F 115F-1160 17B4-17B5 180B-180F 200B-200D 2060-2065 206A-206F 2800 3164 FE00-FE0F FEFF FFA0 "
        "FFF0-FFFB 13430-1343F 16FE4 1BCA0-1BCA3 1D159 1D173-1D17A E0080-E0FFF FDD0-FDEF "
        + " ".join(f"{plane:X}FFFE-{plane:X}FFFF" for plane in range(1, 17))
        + " FFFE-FFFF"
    ),
    Kind.PRIVATE: "E000-F8FF F0000-FFFFD 100000-10FFFD",
    Kind.SURROGATE: "D800-DFFF",
}


def _compile(ranges: Iterable[str]) -> re.Pattern[str]:
    """Make one character class of ranges; it is searched in C, a bit a character."""
    pairs = (item.partition("-") for text in ranges for item in text.split())
    return re.compile("[" + "".join(f"\\U{a:0>8}-\\U{b or a:0>8}" for a, _, b in pairs) + "]+")


_ANY = _compile(_RANGES.values())
_EACH = {kind: _compile([ranges]) for kind, ranges in _RANGES.items()}


def clean_text(text: str) -> Cleaned:
    """Remove what is drawn as nothing; what comes out is a subsequence of what went in."""
    removed = Removed()
    if (text.isascii() and text.isprintable()) or _ANY.search(text) is None:
        return Cleaned(text, removed)
    # In pieces: a substitution keeps the interpreter from start to end.
    starts = range(0, len(text), _PIECE_CHARACTERS)
    kept = "".join(_clean_piece(text[start : start + _PIECE_CHARACTERS], removed) for start in starts)
    return Cleaned(kept, removed)


def _clean_piece(piece: str, removed: Removed) -> str:
    for kind, pattern in _EACH.items():
        kept = pattern.sub("", piece)
        if len(kept) < len(piece):
            removed[kind] += len(piece) - len(kept)
            piece = kept
    return piece
