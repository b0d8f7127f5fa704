"""Clipping, masks and transforms of CSS that leave nothing of an element to be seen."""

from __future__ import annotations

import math
from typing import Any

from tools.content.colours import list_colours
from tools.content.lengths import Tokens, is_ident, measure, measure_all, split_arguments

_FAINT = 0.05
_AWAY_PIXELS = 1000.0
_SMALL_PIXELS = 2.0
_EDGEWISE = 0.18
"""The cosine of 80 degrees, a little rounded."""


def is_clipped(value: list[Any]) -> bool:
    """Tell whether `clip` or `clip-path` leaves nothing; of a form that cannot be told, that it does."""
    for piece in value:
        if piece.type == "url":
            return True
        if piece.type == "function":
            form = _FORMS.get(piece.lower_name)
            return True if form is None else form(piece.arguments)
    return False


def _is_rect_empty(arguments: Tokens) -> bool:
    """Read rect(top, right, bottom, left), whose corners all count from the upper left."""
    sizes = [0.0 if is_ident(part[0], "auto") else measure(part[0]) for part in split_arguments(arguments)]
    if any(is_ident(part[0], "auto") for part in split_arguments(arguments)):
        return all(size is not None and abs(size) <= _SMALL_PIXELS for size in sizes[1:3])
    known = [size for size in sizes if size is not None]
    if len(known) < 4:
        return all(abs(size) <= _SMALL_PIXELS for size in known)
    top, right, bottom, left = known[:4]
    return min(bottom - max(top, 0), right - max(left, 0)) <= _SMALL_PIXELS


def _is_inset_empty(arguments: Tokens) -> bool:
    """Read inset(), with percentages of the element and pixels of an element of 100."""
    sides: list[float] = []
    for part in split_arguments(arguments):
        if is_ident(part[0], "round"):
            break
        sides.append(measure(part[0], 100.0) or 0.0)
    if not sides:
        return False
    top, right, bottom, left = (sides * 4)[:4] if len(sides) != 3 else (*sides, sides[1])
    return top + bottom >= 95 or left + right >= 95


def _is_round_empty(arguments: Tokens) -> bool:
    """Read circle() and ellipse(): their radii stand before `at`."""
    radii: list[float] = []
    centre: list[float] | None = None
    for part in split_arguments(arguments):
        size = measure(part[0], 100.0)
        if is_ident(part[0], "at"):
            centre = []
        elif centre is not None:
            centre.append(50.0 if size is None else size)
        else:
            radii.append(100.0 if size is None else size)
    radius = max(radii, default=50.0)
    is_away = any(at + radius <= _SMALL_PIXELS or at - radius >= _AWAY_PIXELS for at in centre or ())
    return is_away or any(radius <= _SMALL_PIXELS for radius in radii)


def _is_polygon_empty(arguments: Tokens) -> bool:
    sizes = list(measure_all([piece for piece in arguments if piece != ","], 100.0))
    across, down = sizes[::2], sizes[1::2]
    if not across or not down or max(across) <= 0 or max(down) <= 0:
        return True
    return max(across) - min(across) <= _SMALL_PIXELS or max(down) - min(down) <= _SMALL_PIXELS


_FORMS = {
    "rect": _is_rect_empty,
    "inset": _is_inset_empty,
    "circle": _is_round_empty,
    "ellipse": _is_round_empty,
    "polygon": _is_polygon_empty,
}


def is_moved_away(value: list[Any]) -> bool:
    """Tell whether `transform` makes an element nothing, or puts it outside of the window."""
    return any(piece.type == "function" and _is_gone(piece) for piece in value)


def _is_gone(piece: Any) -> bool:
    name, arguments = piece.lower_name, [one for one in piece.arguments if one != ","]
    if name.startswith("translate"):
        return any(abs(size) >= _AWAY_PIXELS for size in measure_all(arguments))
    sizes = list(measure_all(arguments, 1.0))
    if name == "matrix" and len(sizes) == 6:
        a, b, c, d, across, down = sizes
        return abs(a * d - b * c) <= _FAINT**2 or max(abs(across), abs(down)) >= _AWAY_PIXELS
    if name.startswith("scale"):
        return any(abs(size) <= _FAINT for size in sizes)
    if name in ("skew", "skewx", "skewy"):
        return any(80 <= abs(size) % 180 <= 100 for size in sizes)
    if name.startswith("rotate"):
        return is_turned_away(name, arguments)
    return bool(name == "matrix3d")  # rare in honest pages, and not worth working out


def is_turned_away(name: str, arguments: list[Any]) -> bool:
    """Tell whether a rotation shows an element's edge or back: `rotateX(90deg)`, `rotate: y 180deg`.

    Args:
        name: Of the function, or "rotate" for the property.
        arguments: Its own.
    """
    axes = {piece.lower_value for piece in arguments if piece.type == "ident"}
    sizes = list(measure_all([piece for piece in arguments if piece != ","], 1.0))
    if len(sizes) == 4 and (sizes[0] or sizes[1]):  # about a vector that is not the line of sight
        axes.add("x")
    if not (axes & {"x", "y"} or name in ("rotatex", "rotatey")) or not sizes:
        return False
    return math.cos(math.radians(sizes[-1])) <= _EDGEWISE


def is_masked(value: list[Any]) -> bool:
    """Tell whether a mask may leave nothing: a picture, a see-through gradient, one by brightness."""
    for piece in value:
        if piece.type == "url" or is_ident(piece, "luminance"):
            return True
        if piece.type == "function":
            colours = list_colours(piece.arguments)
            if not colours or all(colour[3] <= _FAINT for colour in colours):
                return True
    return False
