"""Colours of CSS and of old HTML, read as what is drawn."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from tinycss2 import ast
from tinycss2.color5 import parse_color

from tools.content.lengths import Tokens, measure, significant, split_commas

Colour = tuple[float, float, float, float]
"""Red, green, blue and opacity, each from 0 to 1."""

WHITE: Colour = (1.0, 1.0, 1.0, 1.0)
BLACK: Colour = (0.0, 0.0, 0.0, 1.0)
FAINT = 0.05
_NEAR = 0.1
_MAX_DEPTH = 8
_SYSTEM = {
    **dict.fromkeys(("canvas", "field", "window"), WHITE),
    **dict.fromkeys(("canvastext", "fieldtext", "buttontext", "windowtext", "text"), BLACK),
    "buttonface": (0.94, 0.94, 0.94, 1.0),
}
# CSS Color 4, sections 10.8 and 17: XYZ of D65 and of D50 to linear sRGB.
_FROM_D65 = ((3.2410, -1.5374, -0.4986), (-0.9692, 1.8760, 0.0416), (0.0556, -0.2040, 1.0570))
_FROM_D50 = ((3.1342, -1.6172, -0.4907), (-0.9788, 1.9161, 0.0335), (0.0720, -0.2290, 1.4053))


def read_colour(piece: Any, depth: int = 0) -> Colour | None:
    """Read a colour; None where it is none that can be told."""
    if piece.type not in ("ident", "hash", "function") or depth > _MAX_DEPTH:
        return None
    if isinstance(piece, ast.IdentToken) and piece.lower_value in _SYSTEM:
        return _SYSTEM[piece.lower_value]
    if piece.type == "function":
        found = _read_function(piece, depth)
        if found is not None:
            return found
    try:
        colour = parse_color(piece)
        return None if colour is None or isinstance(colour, str) else _draw(colour)
    except (NotImplementedError, ValueError, TypeError, AttributeError, IndexError):
        return None


def _read_function(piece: Any, depth: int) -> Colour | None:
    """Read what the library does not: mixtures, colours made of others, calculations."""
    arguments = significant(piece.arguments)
    if piece.lower_name == "color-mix":
        return _mix([significant(part) for part in split_commas(arguments)][1:], depth)
    if arguments and arguments[0].type == "ident" and arguments[0].lower_value == "from":
        base = read_colour(arguments[1], depth + 1) if len(arguments) > 1 else None
        return base and (*base[:3], base[3] * _read_alpha(arguments))
    if piece.lower_name in ("rgb", "rgba") and any(one.type == "function" for one in arguments):
        parts = [one for one in arguments if one not in (",", "/")]
        known = [size for one in parts if (size := measure(one, 255.0)) is not None]
        if len(known) == len(parts) >= 3:
            alpha = measure(parts[3], 1.0) if len(parts) > 3 else 1.0
            return (known[0] / 255, known[1] / 255, known[2] / 255, 1.0 if alpha is None else alpha)
    return None


def _read_alpha(arguments: Sequence[Any]) -> float:
    """Read what stands behind the last slash; 1 where there is nothing that can be told."""
    if len(arguments) < 2 or arguments[-2] != "/":
        return 1.0
    alpha = measure(arguments[-1], 1.0)
    return 1.0 if alpha is None else alpha


def _mix(parts: Sequence[Sequence[Any]], depth: int) -> Colour | None:
    """Mix two colours; in which space does not matter for what is far from each other."""
    mixed: list[tuple[Colour, float | None]] = []
    for part in parts:
        colours = [colour for one in part if (colour := read_colour(one, depth + 1)) is not None]
        shares = [float(one.value) / 100 for one in part if one.type == "percentage"]
        if len(colours) == 1:
            mixed.append((colours[0], shares[0] if shares else None))
    if len(mixed) != 2:
        return None
    (one, share), (other, rest) = mixed
    if share is None:
        share = 0.5 if rest is None else 1 - rest
    rest = 1 - share if rest is None else rest
    total = (share + rest) or 1.0
    weight, alpha = share / total, one[3] * share / total + other[3] * rest / total
    ink = [
        (a * one[3] * weight + b * other[3] * (1 - weight)) / (alpha or 1.0)
        for a, b in zip(one[:3], other[:3], strict=True)
    ]
    return (ink[0], ink[1], ink[2], alpha * min(share + rest, 1.0))


def _draw(colour: Any) -> Colour:
    """Convert to sRGB."""
    if colour.space in ("hsl", "hwb"):
        colour = colour.to("srgb")
    alpha = float(colour.alpha)
    if colour.space in ("lab", "lch"):
        return _light(_multiply(_FROM_D50, colour.to("xyz-d50").coordinates), alpha)
    if colour.space in ("oklab", "oklch"):
        return _light(_multiply(_FROM_D65, colour.to("xyz-d65").coordinates), alpha)
    values = [float(value or 0.0) for value in colour.coordinates]
    if colour.space.startswith("xyz"):
        return _light(_multiply(_FROM_D50 if "d50" in colour.space else _FROM_D65, values), alpha)
    if colour.space == "srgb-linear":
        return _light(values, alpha)
    return (values[0], values[1], values[2], alpha)  # wider ones are drawn much like sRGB


def _multiply(matrix: Sequence[Sequence[float]], values: Sequence[float]) -> list[float]:
    return [sum(a * b for a, b in zip(row, values, strict=True)) for row in matrix]


def _light(linear: Sequence[float], alpha: float) -> Colour:
    red, green, blue = (
        12.92 * max(one, 0.0) if one <= 0.0031308 else 1.055 * min(one, 1.0) ** (1 / 2.4) - 0.055
        for one in linear
    )
    return (red, green, blue, alpha)


def is_same_colour(one: Colour, other: Colour) -> bool:
    """Tell whether text of one colour is not to be seen on the other."""
    return all(abs(a - b) <= _NEAR for a, b in zip(one[:3], other[:3], strict=True))


def blend(colour: Colour, ground: Colour) -> Colour:
    """Lay a colour over an opaque one."""
    red, green, blue = (
        a * colour[3] + b * (1 - colour[3]) for a, b in zip(colour[:3], ground[:3], strict=True)
    )
    return (red, green, blue, 1.0)


def read_old_colour(text: str | None) -> Colour | None:
    """Read the colour of an attribute of old HTML (HTML, section 2.3.5.1: legacy colour values)."""
    words = (text or "").strip(" \t\n\f\r").lower()
    if not words or words == "transparent":
        return None
    named = read_colour(ast.IdentToken(0, 0, words)) if words.isalpha() else None
    if named is not None:
        return named
    if re.fullmatch("#[0-9a-f]{3}", words):
        words = "".join(one * 2 for one in words[1:])
    digits = re.sub("[^0-9a-f]", "0", words[:128].removeprefix("#")) or "0"
    digits += "0" * (-len(digits) % 3)
    third = len(digits) // 3
    parts = [digits[at : at + third][-8:] for at in range(0, 3 * third, third)]
    while len(parts[0]) > 2 and all(part[0] == "0" for part in parts):
        parts = [part[1:] for part in parts]
    red, green, blue = (int(part[:2], 16) / (255 if len(part) > 1 else 15) for part in parts)
    return (red, green, blue, 1.0)


def list_colours(pieces: Tokens) -> list[Colour]:
    """List the colours in the arguments of a gradient."""
    return [colour for one in significant(pieces) if (colour := read_colour(one)) is not None]
