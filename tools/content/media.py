"""Whether a window of 1280 × 800 pixels on a screen meets the queries of `@media`."""

from __future__ import annotations

import enum
from typing import Any

from tools.content.lengths import Tokens, is_ident, measure, significant

_WINDOW = {"width": 1280.0, "height": 800.0}
_OTHER_MEDIA = ("print", "speech", "tty", "tv", "handheld", "projection")


class Met(enum.IntEnum):
    """Whether conditions are met; the greater of two stands for both."""

    YES = 0
    PERHAPS = 1
    OTHERWISE = 2
    """By windows that somebody set to other colours."""
    NO = 3


def match_window(prelude: Tokens) -> Met:
    """Tell whether one of the queries is met; one that is not worked out may be."""
    queries: list[list[Any]] = [[]]
    for piece in significant(prelude):
        if piece == ",":
            queries.append([])
        else:
            queries[-1].append(piece)
    return min(map(_match, queries))


def _match(query: list[Any]) -> Met:
    if any(is_ident(piece, "not", "or", "only") for piece in query):
        simple = query[1:] if query and is_ident(query[0], "only") else None
        return max(_match(simple), Met.YES) if simple else Met.PERHAPS
    if query and is_ident(query[0], *_OTHER_MEDIA):
        return Met.NO
    return max((_meet(piece.content) for piece in query if piece.type == "() block"), default=Met.YES)


def _meet(condition: Tokens) -> Met:
    """Work out `min-width: 600px` and its like."""
    pieces = significant(condition)
    if len(pieces) != 3 or pieces[0].type != "ident" or pieces[1] != ":":
        return Met.PERHAPS
    name = pieces[0].lower_value
    if name in ("prefers-color-scheme", "forced-colors", "prefers-contrast", "inverted-colors"):
        return Met.PERHAPS if is_ident(pieces[2], "light", "none", "no-preference") else Met.OTHERWISE
    bound, _, side = name.partition("-")
    size, actual = measure(pieces[2]), _WINDOW.get(side)
    if size is None or actual is None or bound not in ("min", "max"):
        return Met.PERHAPS
    return Met.YES if (actual >= size if bound == "min" else actual <= size) else Met.NO
