"""Which text has the colour of what is behind it.

Unlike other ways of hiding this needs the whole cascade: a button's white text and its blue ground are often
in two rules. So colours, grounds and the variables in them are worked out as a browser does, from the root
down. Rules of which it cannot be told whether they apply are left out once and kept once; text that is not to
be seen in one of the two is cut.

What is behind text is unknown, and the text stays, where that is a picture or a linked style sheet may say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tools.content.colours import (
    BLACK,
    FAINT,
    WHITE,
    Colour,
    blend,
    is_same_colour,
    list_colours,
    read_colour,
    read_old_colour,
)
from tools.content.kinds import ContentInvalid, Problem
from tools.content.lengths import Tokens, is_ident, significant
from tools.content.variables import holds_variable, is_variable, read_reference, with_arguments

PAINTED = frozenset(
    ("all", "color", "-webkit-text-fill-color", "background", "background-color", "background-image",
     "background-clip", "-webkit-background-clip")
)  # fmt: skip
_LINK: Colour = (0.0, 0.0, 0.93, 1.0)
_BUTTON: Colour = (0.94, 0.94, 0.94, 1.0)
# What browsers give these, where the page says nothing: text and ground.
_OWN = {
    "mark": (BLACK, (1.0, 1.0, 0.0, 1.0)), "button": (BLACK, _BUTTON), "textarea": (BLACK, WHITE),
    "dialog": (BLACK, WHITE),
}  # fmt: skip
_INHERIT = ("inherit", "unset", "revert", "revert-layer")
_OPAQUE = 0.5
_MAX_OPEN, _MAX_PIECES = 24, 4_096


@dataclass(frozen=True, slots=True)
class Paint:
    """The colours at one element.

    Attributes:
        colour: Of text.
        fill: Of its letters, where that is another one.
        grounds: What may be behind text; None where it cannot be told.
        letters: What see-through letters are filled with: nothing; None where it cannot be told.
        link: Of links, where nothing else is said.
        variables: Custom properties, their own variables put in.
    """

    colour: Colour = BLACK
    fill: Colour | None = None
    grounds: tuple[Colour, ...] | None = (WHITE,)
    letters: tuple[Colour, ...] | None = ()
    link: Colour = _LINK
    variables: Mapping[str, Tokens] = field(default_factory=dict)

    @property
    def hides_text(self) -> bool:
        """Whether text is not to be seen here."""
        drawn = self.fill or self.colour
        if drawn[3] <= FAINT:
            if self.letters is None or (self.letters and self.grounds is None):
                return False
            return all(is_same_colour(one, ground) for one in self.letters for ground in self.grounds or ())
        return any(is_same_colour(blend(drawn, ground), ground) for ground in self.grounds or ())


def paint_element(
    tag: str, attributes: Mapping[str, Any], declarations: Sequence[Any], above: Paint, *, is_told: bool
) -> Paint:
    """Work out the colours of an element.

    Args:
        tag: Its name.
        attributes: Those of HTML.
        declarations: Of CSS, the strongest last.
        above: Of the element that it is in.
        is_told: Whether all sheets are known that could give it a ground.
    """
    if not declarations and not attributes and tag not in _OWN:
        return above
    ground = above.grounds if is_told or not attributes.keys() & {"class", "id"} else None
    paint, own = _read_html(tag, attributes, replace(above, grounds=ground))
    if not declarations:
        return _lay(paint, own)
    paint = replace(paint, variables=_put_in(declarations, above.variables))
    for declaration in declarations:
        name = declaration.lower_name
        value = substitute(declaration.value, paint.variables.get) if name in PAINTED else None
        if value is not None and (words := significant(value)):
            paint, own = _READ[name](words, paint, own, above)
    return _lay(paint, own)


@dataclass(frozen=True, slots=True)
class _Ground:
    """An element's own ground: a colour (None: as its text), what pictures have in them, its form."""

    colour: Colour | None = (0.0, 0.0, 0.0, 0.0)
    stops: tuple[Colour, ...] = ()
    has_picture: bool = False
    is_clipped: bool = False


def _read_html(tag: str, attributes: Mapping[str, Any], paint: Paint) -> tuple[Paint, _Ground]:
    colour, back = _OWN.get(tag, (None, None))
    if tag == "a" and "href" in attributes:
        colour = paint.link
    if tag == "body":
        paint = replace(paint, link=read_old_colour(attributes.get("link")) or paint.link)
    said = attributes.get("text") if tag == "body" else attributes.get("color")
    colour = read_old_colour(said) or colour
    back = read_old_colour(attributes.get("bgcolor")) or back
    own = _Ground(back or (0.0, 0.0, 0.0, 0.0), has_picture=bool(attributes.get("background")))
    return replace(paint, colour=colour or paint.colour), own


def _lay(paint: Paint, own: _Ground) -> Paint:
    """Lay an element's ground over what is behind it."""
    colour = own.colour if own.colour is not None else paint.colour
    if own.is_clipped:  # the ground is drawn in the letters' form
        stops = own.stops or ((colour,) if colour[3] > FAINT else ())
        return replace(paint, letters=None if own.has_picture else stops)
    base = (colour,) if colour[3] >= _OPAQUE else paint.grounds
    if own.has_picture:
        return replace(paint, grounds=base if colour[3] >= _OPAQUE else None)
    solid = tuple(stop for stop in own.stops if stop[3] >= _OPAQUE)
    if solid:
        base = solid if len(solid) == len(own.stops) or base is None else (*solid, *base)
    return replace(paint, grounds=base)


_Read = Callable[[list[Any], Paint, _Ground, Paint], tuple[Paint, _Ground]]


def _read_all(words: list[Any], paint: Paint, _: _Ground, above: Paint) -> tuple[Paint, _Ground]:
    colour = BLACK if is_ident(words[0], "initial") else above.colour
    return replace(paint, colour=colour, fill=above.fill), _Ground()


def _read_text_colour(words: list[Any], paint: Paint, own: _Ground, above: Paint) -> tuple[Paint, _Ground]:
    if is_ident(words[0], *_INHERIT, "currentcolor"):
        return replace(paint, colour=above.colour), own
    colour = BLACK if is_ident(words[0], "initial") else read_colour(words[0])
    return (paint if colour is None else replace(paint, colour=colour)), own


def _read_fill(words: list[Any], paint: Paint, own: _Ground, above: Paint) -> tuple[Paint, _Ground]:
    if is_ident(words[0], *_INHERIT):
        return replace(paint, fill=above.fill), own
    if is_ident(words[0], "initial", "currentcolor"):
        return replace(paint, fill=None), own
    return replace(paint, fill=read_colour(words[0]) or paint.fill), own


def _read_ground(words: list[Any], paint: Paint, own: _Ground, above: Paint) -> tuple[Paint, _Ground]:
    """Read the shorthand, which takes back all that was said before."""
    own = _read_image(words, paint, _Ground(), above)[1]
    own = _read_ground_colour([word for word in words if word.type != "url"], paint, own, above)[1]
    return paint, replace(own, is_clipped=any(is_ident(word, "text") for word in words))


def _read_ground_colour(words: list[Any], paint: Paint, own: _Ground, above: Paint) -> tuple[Paint, _Ground]:
    if is_ident(words[0] if words else None, "inherit"):
        return paint, replace(own, colour=(above.grounds or (WHITE,))[0])
    for word in words:
        colour = read_colour(word)
        if colour is not None or is_ident(word, "currentcolor"):
            own = replace(own, colour=colour)
    if len(words) == 1 and is_ident(words[0], "initial", "unset", "revert", "none"):
        own = replace(own, colour=(0.0, 0.0, 0.0, 0.0))
    return paint, own


def _read_image(words: list[Any], paint: Paint, own: _Ground, _: Paint) -> tuple[Paint, _Ground]:
    stops: list[Colour] = []
    has_picture = False
    for word in words:
        if word.type == "function" and word.lower_name.endswith("gradient"):
            stops += list_colours(word.arguments)
        elif word.type == "url" or (word.type == "function" and read_colour(word) is None):
            has_picture = True
    return paint, replace(own, stops=tuple(stops), has_picture=has_picture)


def _read_clip(words: list[Any], paint: Paint, own: _Ground, _: Paint) -> tuple[Paint, _Ground]:
    return paint, replace(own, is_clipped=any(is_ident(word, "text") for word in words))


_READ: Mapping[str, _Read] = {
    "all": _read_all,
    "color": _read_text_colour,
    "-webkit-text-fill-color": _read_fill,
    "background": _read_ground,
    "background-color": _read_ground_colour,
    "background-image": _read_image,
    "background-clip": _read_clip,
    "-webkit-background-clip": _read_clip,
}


def _put_in(declarations: Sequence[Any], above: Mapping[str, Tokens]) -> Mapping[str, Tokens]:
    """Give the variables of an element: what is declared here, others put in, beside the inherited."""
    declared = {one.name: one.value for one in declarations if one.name.startswith("--")}
    if not declared:
        return above
    known: dict[str, Tokens | None] = {}

    def find(name: str) -> Tokens | None:
        if name not in declared:
            return above.get(name)
        if name not in known:
            known[name] = None  # a ring of variables is none
            known[name] = substitute(declared[name], find)
        return known[name]

    return {**above, **{name: value for name in declared if (value := find(name)) is not None}}


def substitute(value: Tokens, find: Callable[[str], Tokens | None], depth: int = 0) -> Tokens | None:
    """Put variables in; None where one is missing.

    Raises:
        ContentInvalid: It is too much to be read.
    """
    pieces: list[Any] = []
    for piece in value:
        if not is_variable(piece) and not holds_variable(piece):
            pieces.append(piece)
            continue
        if depth >= _MAX_OPEN or len(pieces) > _MAX_PIECES:
            raise ContentInvalid(Problem.TOO_MUCH_STYLE)
        put = _substitute_one(piece, find, depth + 1)
        if put is None:
            return None
        pieces.extend(put)
    return pieces


def _substitute_one(piece: Any, find: Callable[[str], Tokens | None], depth: int) -> Tokens | None:
    if not is_variable(piece):
        arguments = substitute(piece.arguments, find, depth)
        return None if arguments is None else [with_arguments(piece, arguments)]
    name, fallback = read_reference(piece)
    found = find(name)
    if found is not None or fallback is None:
        return found
    return substitute(fallback, find, depth)
