"""Values of CSS as far as hiding needs them: lengths in pixels, and what is worked out of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from tinycss2 import ast

Tokens = Sequence[Any]

WINDOW_PIXELS = 1280.0
"""How wide the window is in which a page is read."""
# Pixels of one unit (CSS Values 4); relative ones for text of 16 px in that window.
_PIXELS = {
    "px": 1.0, "pt": 4 / 3, "pc": 16.0, "in": 96.0, "cm": 37.8, "mm": 3.78, "q": 0.94,
    "em": 16.0, "rem": 16.0, "ex": 8.0, "ch": 8.0, "lh": 20.0, "rlh": 20.0, "cap": 12.0, "ic": 16.0,
}  # fmt: skip
_VIEWPORT_UNITS = ("vw", "vh", "vi", "vb", "vmin", "vmax")
_DEGREES = {"deg": 1.0, "grad": 0.9, "rad": 180 / math.pi, "turn": 360.0}
_CONSTANTS = {"pi": math.pi, "e": math.e, "infinity": math.inf, "-infinity": -math.inf}
_MAX_DEPTH = 16


def significant(pieces: Tokens) -> list[Any]:
    """Leave white space and comments out."""
    return [piece for piece in pieces if piece.type not in ("whitespace", "comment")]


def split_arguments(pieces: Tokens) -> list[list[Any]]:
    """Split at commas, or at white space where there are none."""
    parts: list[list[Any]] = [[]]
    has_commas = any(piece == "," for piece in pieces)
    for piece in significant(pieces):
        if piece == "," or (not has_commas and parts[-1]):
            parts.append([])
        if piece != ",":
            parts[-1].append(piece)
    return [part for part in parts if part]


def measure(piece: Any, base: float = WINDOW_PIXELS, depth: int = 0) -> float | None:
    """Read a number, length, percentage of `base`, angle in degrees, or a calculation of them.

    Returns:
        None where it is none of them.
    """
    if piece.type == "number":
        return float(piece.value)
    if piece.type == "percentage":
        return float(piece.value) / 100 * base
    if piece.type == "dimension":
        return float(piece.value) * _find_unit(piece.lower_unit)
    if piece.type == "ident" and depth:  # within a calculation
        return _CONSTANTS.get(piece.lower_value)
    if piece.type in ("function", "() block") and depth < _MAX_DEPTH:
        return _calculate(piece, base, depth + 1)
    return None


def measure_all(pieces: Tokens, base: float = WINDOW_PIXELS) -> Iterator[float]:
    """Measure what can be measured of a value."""
    for piece in significant(pieces):
        size = measure(piece, base)
        if size is not None:
            yield size


def _find_unit(unit: str) -> float:
    if unit.endswith(_VIEWPORT_UNITS):
        return WINDOW_PIXELS / 100
    return _PIXELS.get(unit) or _DEGREES.get(unit) or 16.0


def _calculate(piece: Any, base: float, depth: int) -> float | None:
    if piece.type == "() block":
        return _sum(piece.content, base, depth)
    name = piece.lower_name
    if name in ("calc", "-webkit-calc", "-moz-calc"):
        return _sum(piece.arguments, base, depth)
    work = _FUNCTIONS.get(name)
    if work is None:
        return None
    parts = [part for part in split_commas(piece.arguments) if not (name == "round" and _is_word(part))]
    sizes = [_sum(part, base, depth) for part in parts]
    known = [size for size in sizes if size is not None]
    if not known or (len(known) < len(sizes) and name not in ("min", "max", "clamp")):
        return None
    try:
        return float(work(*known))
    except (TypeError, ValueError, ArithmeticError):
        return None


def _is_word(part: Tokens) -> bool:
    return all(is_ident(piece, "nearest", "up", "down", "to-zero") for piece in significant(part))


def _clamp(least: float, *rest: float) -> float:
    return max(least, min(rest)) if rest else least


def _in_radians(angle: float) -> float:
    # A number is in radians, an angle came in degrees: both of nothing are nothing.
    return math.radians(angle) if abs(angle) > 2 * math.pi else angle


def _snap(size: float, step: float = 1.0) -> float:
    return round(size / step) * step


# CSS Values 4, section 10.
_FUNCTIONS: Mapping[str, Callable[..., float]] = {
    "min": lambda *sizes: min(sizes), "max": lambda *sizes: max(sizes), "clamp": _clamp,
    "abs": abs, "round": _snap,
    "sign": lambda size: (size > 0) - (size < 0),
    "mod": lambda size, step: size % step, "rem": math.fmod,
    "sin": lambda angle: math.sin(_in_radians(angle)), "cos": lambda angle: math.cos(_in_radians(angle)),
    "tan": lambda angle: math.tan(_in_radians(angle)), "pow": pow, "sqrt": math.sqrt, "hypot": math.hypot,
    "exp": math.exp, "log": math.log,
}  # fmt: skip


def split_commas(pieces: Tokens) -> list[list[Any]]:
    """Split at commas."""
    parts: list[list[Any]] = [[]]
    for piece in pieces:
        if piece == ",":
            parts.append([])
        else:
            parts[-1].append(piece)
    return parts


def _sum(pieces: Tokens, base: float, depth: int) -> float | None:
    """Work out a sum of products; what is no number makes all of it unknown."""
    total, product, sign, operator = 0.0, None, 1.0, "*"
    for piece in significant(pieces):
        if piece.type == "literal" and piece.value in "+-":
            total += sign * (product or 0.0)
            product, sign, operator = None, 1.0 if piece.value == "+" else -1.0, "*"
        elif piece.type == "literal" and piece.value in "*/":
            operator = piece.value
        else:
            size = measure(piece, base, depth)
            if size is None:
                return None
            product = size if product is None else _multiply(product, size, operator)
    return total + sign * (product or 0.0)


def _multiply(first: float, second: float, operator: str) -> float:
    if operator == "*":
        return first * second
    return first / second if second else math.inf


def is_ident(piece: Any, *names: str) -> bool:
    """Tell whether a piece is one of these words."""
    return isinstance(piece, ast.IdentToken) and piece.lower_value in names
