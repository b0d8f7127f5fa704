"""Which declarations of CSS hide the element that they are for.

A declaration that hides counts, whatever overrides it: a cascade that is worked out a little differently from
the browser's would let hidden text through. So a little too much is cut, and the report says so. Colours are
the exception, and apart (`paint`).

| hides | with |
|---|---|
| it is not drawn | display, visibility, content-visibility, opacity, filter, mask, blend mode, backface |
| it has no size | font-size, zoom, scale, grid tracks; width, height, maxima, line-height with overflow |
| it is elsewhere | text-indent, position, margins, padding, translations of hundreds of pixels, offset-path |
| it is cut off | clip, clip-path |
| it is drawn as something else, or below everything | text-security, letter-spacing, rotations, z-index |
| it is read in another order | unicode-bidi: bidi-override |
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tools.content.lengths import WINDOW_PIXELS, is_ident, measure, measure_all, significant
from tools.content.shapes_cut import is_clipped, is_masked, is_moved_away, is_turned_away
from tools.content.variables import Variables, expand

_FAINT = 0.05
_TINY_PIXELS, _LOW_PIXELS = 2.0, 6.0
_OFFSET_PIXELS, _MARGIN_PIXELS, _FAR_PIXELS = -100.0, -500.0, 3000.0
_SLOW_SECONDS = 20.0
_PREFIXES = ("-webkit-", "-moz-", "-ms-", "-o-")


@dataclass(slots=True)
class Style:
    """What declarations mean for one element.

    Attributes:
        is_hidden: One of them hides it.
        animations: Names of keyframes.
        is_slow: Its animations stand still, or take long: each of their frames counts, not only the last.
    """

    is_hidden: bool = False
    animations: set[str] = field(default_factory=set)
    is_slow: bool = False


def read_style(declarations: Sequence[Any], variables: Variables) -> Style:
    """Read declarations, as tinycss2 gives them, for what they hide."""
    style, seen = Style(), _Box()
    for declaration in declarations:
        if declaration.type != "declaration" or declaration.name.startswith("--"):
            continue
        name = _strip_prefix(declaration.lower_name)
        if name not in _READ:
            continue
        for value in expand(declaration.value, variables):
            if words := significant(value):
                _read(name, words, style, seen)
    style.is_hidden = style.is_hidden or seen.hides
    return style


@dataclass(slots=True)
class _Box:
    """What hides only together with something else."""

    is_small: bool = False
    is_cut: bool = False
    is_fixed: bool = False
    is_out: bool = False

    @property
    def hides(self) -> bool:
        return (self.is_small and self.is_cut) or (self.is_fixed and self.is_out)


def _strip_prefix(name: str) -> str:
    for prefix in _PREFIXES:
        if name.startswith(prefix):
            return name.removeprefix(prefix)
    return name


def _read(name: str, value: list[Any], style: Style, seen: _Box) -> None:
    if name in _HIDES:
        style.is_hidden = style.is_hidden or _HIDES[name](value)
    if name in _SIZES:
        seen.is_small = seen.is_small or any(size <= _LOW_PIXELS for size in measure_all(value[:1]))
    elif name == "line-height":
        seen.is_small = (
            seen.is_small or _is_faint(value) or _is_tiny([t for t in value if t.type != "number"])
        )
    elif name.startswith("overflow") or name == "contain":
        seen.is_cut = seen.is_cut or any(not is_ident(piece, "visible", "none") for piece in value)
    elif name.startswith("animation"):
        _read_animation(value, style)
    elif name == "position":
        seen.is_fixed = seen.is_fixed or is_ident(value[0], "fixed")
    elif name in _EDGES:
        seen.is_out = seen.is_out or any(size >= WINDOW_PIXELS for size in measure_all(value))


def _read_animation(value: list[Any], style: Style) -> None:
    for piece in value:
        if piece.type in ("ident", "string"):
            style.animations.add(piece.value)
            style.is_slow = style.is_slow or is_ident(piece, "paused")
        elif piece.type == "dimension":
            seconds = piece.value / (1000.0 if piece.lower_unit == "ms" else 1.0)
            style.is_slow = style.is_slow or seconds >= _SLOW_SECONDS


def _says(*words: str) -> Callable[[list[Any]], bool]:
    """Tell of a value whether it is one of these words, or a function's, of which that cannot be told."""
    return lambda value: any(is_ident(piece, *words) or piece.type == "function" for piece in value)


def _is_faint(value: list[Any]) -> bool:
    return _is_at_most(value, _FAINT, 1.0)


def _is_tiny(value: list[Any]) -> bool:
    return _is_at_most(value, _TINY_PIXELS, 16.0)


def _is_at_most(value: list[Any], most: float, base: float) -> bool:
    """Tell whether a size is no more; one that a function gives which is not known counts as nothing."""
    size = measure(value[0], base) if value else None
    return size <= most if size is not None else bool(value) and value[0].type == "function"


def _is_apart(value: list[Any]) -> bool:
    """Tell whether letters are drawn over each other, or far from each other."""
    return any(size <= -5 or size >= 500 for size in measure_all(value[:1]))


def _has_no_tracks(value: list[Any]) -> bool:
    sizes = [0.0 if piece.type == "dimension" and piece.value == 0 else 1.0 for piece in value]
    return not any(sizes)


def _is_indented(value: list[Any]) -> bool:
    return any(size <= _OFFSET_PIXELS or size >= 0.8 * WINDOW_PIXELS for size in measure_all(value))


def _ends_outside(value: list[Any]) -> bool:
    """Tell whether right or bottom puts the other side beyond the upper left, where nobody can scroll."""
    return any(size >= WINDOW_PIXELS or size <= -_FAR_PIXELS / 2 for size in measure_all(value))


def _is_inset(value: list[Any]) -> bool:
    sides = (value * 4)[:4] if len(value) != 3 else [*value, value[1]]
    return _OFFSET(value) or (len(value) <= 4 and _ends_outside(sides[1:3]))


def _is_font_tiny(value: list[Any]) -> bool:
    """Read `font: italic 700 0/1 serif`: the size stands before the line's height; a weight is no length."""
    for piece in value:
        if piece == "/":
            return False
        size = measure(piece, 16.0)
        if size is not None and size <= _TINY_PIXELS and (piece.type != "number" or size == 0):
            return True
    return False


def _is_filtered(value: list[Any]) -> bool:
    for piece in value:
        if piece.type != "function":
            continue
        sizes = list(measure_all(piece.arguments, 1.0))
        if piece.lower_name in ("opacity", "contrast", "alpha") and sizes and sizes[0] <= _FAINT:
            return True
        if piece.lower_name == "blur" and sizes and sizes[0] >= 8:
            return True
        # Black text becomes white.
        if piece.lower_name == "invert" and (not sizes or sizes[0] >= 0.8):
            return True
    return any(piece.type == "url" for piece in value)


def _is_offset(least: float) -> Callable[[list[Any]], bool]:
    return lambda value: any(size <= least or size >= _FAR_PIXELS for size in measure_all(value))


_OFFSET, _MARGIN = _is_offset(_OFFSET_PIXELS), _is_offset(_MARGIN_PIXELS)
_SIZES = frozenset(
    f"{bound}{side}" for bound in ("", "max-") for side in ("width", "height", "inline-size", "block-size")
)
_HIDES: dict[str, Callable[[list[Any]], bool]] = {
    "display": _says("none", "table-column", "table-column-group"),
    "visibility": _says("hidden", "collapse"),
    "content-visibility": _says("hidden"),
    "text-security": _says("disc", "circle", "square"),
    "mix-blend-mode": _says(
        "screen", "lighten", "color-dodge", "plus-lighter", "soft-light", "overlay", "hue", "saturation",
        "color",
    ),
    "offset-path": _says("url"),
    "offset": _says("url"),
    "mask": is_masked,
    "mask-image": is_masked,
    "mask-size": _is_tiny,
    "font-size-adjust": _is_faint,
    "letter-spacing": _is_apart,
    "word-spacing": lambda value: any(abs(size) >= 1000 for size in measure_all(value)),
    "z-index": lambda value: any(size < 0 for size in measure_all(value)),
    "rotate": lambda value: is_turned_away("rotate", value),
    **dict.fromkeys(("grid-template", "grid-template-rows", "grid-template-columns"), _has_no_tracks),
    "opacity": _is_faint,
    "filter": _is_filtered,
    "font-size": _is_tiny,
    "font": _is_font_tiny,
    "zoom": _is_faint,
    "scale": lambda value: any(abs(size) <= _FAINT for size in measure_all(value, 1.0)),
    "text-indent": _is_indented,
    "clip": is_clipped,
    "clip-path": is_clipped,
    "transform": is_moved_away,
    "translate": lambda value: any(abs(size) >= 1000 for size in measure_all(value)),
    "unicode-bidi": lambda value: is_ident(value[0], "bidi-override", "isolate-override"),
    **dict.fromkeys(
        ("left", "top", "inset-inline", "inset-block", "inset-inline-start", "inset-block-start"), _OFFSET),
    **dict.fromkeys(
        ("right", "bottom", "inset-inline-end", "inset-block-end"),
        lambda value: _OFFSET(value) or _ends_outside(value)),
    "inset": _is_inset,
    **dict.fromkeys(
        ("padding", "padding-top", "padding-block", "padding-block-start", "border", "border-top"),
        lambda value: any(size >= _FAR_PIXELS for size in measure_all(value))),
    **dict.fromkeys(
        ("padding-left", "padding-right", "padding-inline", "padding-inline-start", "border-left",
         "border-inline-start", "border-left-width"),
        lambda value: any(size >= 0.9 * WINDOW_PIXELS for size in measure_all(value))),
    **dict.fromkeys(
        ("margin", "margin-left", "margin-right", "margin-top", "margin-bottom", "margin-inline",
         "margin-block", "margin-inline-start", "margin-inline-end", "margin-block-start",
         "margin-block-end"), _MARGIN),
}  # fmt: skip
_EDGES = frozenset(("left", "right", "top", "bottom", "inset"))
# All that is looked at; most declarations of a sheet are about something else.
_READ = frozenset(_HIDES) | _SIZES | _EDGES | {
    "line-height", "overflow", "overflow-x", "overflow-y", "overflow-inline", "overflow-block", "contain",
    "position", "animation", "animation-name", "animation-duration", "animation-delay",
    "animation-play-state",
}  # fmt: skip
