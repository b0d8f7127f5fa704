"""Style sheets of a page: the selectors of what their rules hide, and the rules that colour it.

A sheet is read as a window of 1280 × 800 pixels on a screen shows it: rules for other media do not count, and
a condition that is not understood counts as met. Of an animation its last frame counts, of a slow one each.
Sheets that a page only links to are not fetched; the report says that there was one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import tinycss2

from tools.content.hiding import Style, read_style
from tools.content.kinds import ContentInvalid, Problem
from tools.content.lengths import Tokens, is_ident, significant
from tools.content.media import Met, match_window
from tools.content.paint import PAINTED
from tools.content.selectors import NOTHING, Above, split_selectors, weigh_selector, write_selector
from tools.content.variables import collect_variables

MAX_CHARACTERS = 512 * 1024
MAX_RULES = 20_000
MAX_SELECTORS = 500
MAX_COLOUR_SELECTORS = 2_000
_MAX_DEPTH = 8
# At-rules that hold no rules of the page as it is.
_APART = frozenset(
    ("font-face", "page", "property", "counter-style", "font-feature-values", "font-palette-values",
     "starting-style", "view-transition", "position-try", "color-profile", "viewport", "function", "mixin")
)  # fmt: skip
_UNLAYERED = 1 << 20
_OF_ANIMATION = 1 << 21

Key = tuple[int, int, tuple[int, int, int], int]
"""Where a declaration stands in the cascade: importance, layer, weight of its selector, order."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: its selectors, ready to be searched for, and its declarations.

    Attributes:
        weights: Of the selectors (Selectors 4, section 17).
        layer: Its rank; higher ones win.
        met: Whether its conditions are.
    """

    selectors: tuple[str, ...]
    weights: tuple[tuple[int, int, int], ...]
    declarations: tuple[Any, ...]
    layer: int
    met: Met


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a rule stands: in which rules, layer and conditions, and how deep."""

    above: Above = NOTHING
    layer: str = ""
    met: Met = Met.YES
    depth: int = 0


@dataclass(slots=True)
class Sheet:
    """The sheets of a page, read together."""

    rules: list[Rule] = field(default_factory=list)
    variables: dict[str, list[Tokens]] = field(default_factory=dict)
    frames: dict[str, list[tuple[bool, list[Any]]]] = field(default_factory=dict)
    _layers: dict[str, int] = field(default_factory=dict)
    _hiding: dict[tuple[str, bool], bool] = field(default_factory=dict)

    def add(self, text: str) -> None:
        """Read one sheet.

        Raises:
            ContentInvalid: There is more of it than can be checked.
        """
        # Browsers leave the marks of a comment in HTML out of a sheet.
        text = text.replace("<!--", "   ").replace("-->", "   ")
        for rule in tinycss2.parse_stylesheet(text, skip_comments=True, skip_whitespace=True):
            self._add_rule(rule, _Place())

    def hiding_selectors(self) -> list[str]:
        """List the selectors of what is hidden.

        Raises:
            ContentInvalid: There are more than can be searched for.
        """
        found: dict[str, None] = {}
        for rule in self.rules:
            style = read_style(rule.declarations, self.variables)
            if style.is_hidden or self.is_hidden_by_frames(style):
                found.update(dict.fromkeys(rule.selectors))
        return list(found)

    def is_hidden_by_frames(self, style: Style) -> bool:
        """Tell whether an animation hides an element: at its end, or at any time when it is slow."""
        return any(self._hides(name, style.is_slow) for name in style.animations)

    def _hides(self, name: str, is_slow: bool) -> bool:
        if (name, is_slow) not in self._hiding:
            frames = [frame for is_last, frame in self.frames.get(name, ()) if is_last or is_slow]
            self._hiding[name, is_slow] = any(read_style(one, self.variables).is_hidden for one in frames)
        return self._hiding[name, is_slow]

    def painting_rules(self) -> Iterator[Rule]:
        """List the rules that say something of colours, with the variables that are used for it."""
        used = self._list_used()
        for rule in self.rules:
            if rule.met is Met.OTHERWISE:
                continue
            kept = _pick(rule.declarations, used)
            if kept:
                yield replace(rule, declarations=kept)
            for name in read_style(rule.declarations, self.variables).animations if self.frames else ():
                for is_last, frame in self.frames.get(name, ()):
                    if is_last and (kept := _pick(frame, used)):
                        yield replace(rule, declarations=kept, layer=_OF_ANIMATION)

    def _list_used(self) -> frozenset[str]:
        painted = [one for rule in self.rules for one in rule.declarations if one.lower_name in PAINTED]
        used: set[str] = set()
        waiting: list[Tokens] = [one.value for one in painted]
        while waiting:
            for name in _list_names(waiting.pop()):
                if name not in used:
                    used.add(name)
                    waiting.extend(self.variables.get(name, ()))
        return frozenset(used)

    def _add_rule(self, rule: Any, place: _Place) -> None:
        if len(self.rules) > MAX_RULES or place.depth > _MAX_DEPTH:
            raise ContentInvalid(Problem.TOO_MUCH_STYLE)
        if rule.type == "qualified-rule":
            self._add_plain(rule, place)
        elif rule.type == "at-rule" and rule.content is not None:
            self._add_group(rule, place)
        elif rule.type == "at-rule" and rule.lower_at_keyword == "layer":
            for part in split_selectors(rule.prelude):
                self._rank(_join_layer(place.layer, part))

    def _add_plain(self, rule: Any, place: _Place) -> None:
        parts = list(split_selectors(rule.prelude))
        written = [(write_selector(part, place.above), weigh_selector(part, place.above)) for part in parts]
        kept = [(text, weight) for text, weight in written if text]
        if not kept:
            return
        content = _parse_block(rule.content)
        above = Above(tuple(text for text, _ in kept), max(weight for _, weight in kept))
        self._add_declarations(above, tuple(weight for _, weight in kept), content, place)
        for inner in _list_rules(content):
            self._add_rule(inner, replace(place, above=above, depth=place.depth + 1))

    def _add_declarations(
        self, above: Above, weights: tuple[tuple[int, int, int], ...], content: Sequence[Any], place: _Place
    ) -> None:
        declarations = tuple(item for item in content if item.type == "declaration")
        collect_variables(declarations, self.variables)
        layer = self._rank(place.layer) if place.layer else _UNLAYERED
        self.rules.append(Rule(above.selectors, weights, declarations, layer, place.met))

    def _rank(self, layer: str) -> int:
        return self._layers.setdefault(layer, len(self._layers))

    def _add_group(self, rule: Any, place: _Place) -> None:
        name = rule.lower_at_keyword
        if name.endswith("keyframes"):
            self._add_frames(rule)
            return
        if name == "property":
            self._add_property(rule)
        met = match_window(rule.prelude) if name == "media" else Met.YES if name == "layer" else Met.PERHAPS
        if name in _APART or met is Met.NO:
            return
        inside = replace(place, met=max(place.met, met), depth=place.depth + 1)
        if name == "layer":
            layer = _join_layer(place.layer, rule.prelude) or f"{place.layer}.({len(self.rules)})"
            inside = replace(inside, layer=layer)
        elif name == "scope":
            inside = replace(inside, above=_read_scope(rule.prelude, place.above))
        content = _parse_block(rule.content)
        above = inside.above
        if above.selectors and not above.is_scope:  # nested in a rule, it may hold declarations of that rule
            self._add_declarations(above, (above.weight,) * len(above.selectors), content, inside)
        for inner in _list_rules(content):
            self._add_rule(inner, inside)

    def _add_property(self, rule: Any) -> None:
        """Add what a registered variable is where nothing sets it."""
        name = next((piece.value for piece in significant(rule.prelude) if piece.type == "ident"), "")
        for item in _parse_block(rule.content):
            if item.type == "declaration" and item.lower_name == "initial-value":
                self.variables.setdefault(name, []).append(item.value)

    def _add_frames(self, rule: Any) -> None:
        names = [piece.value for piece in significant(rule.prelude) if piece.type in ("ident", "string")]
        for frame in _list_rules(_parse_block(rule.content)):
            if frame.type == "qualified-rule" and names:
                declarations = [one for one in _parse_block(frame.content) if one.type == "declaration"]
                collect_variables(declarations, self.variables)
                self.frames.setdefault(names[0], []).append((_is_last(frame.prelude), declarations))


def _pick(declarations: Sequence[Any], used: frozenset[str]) -> tuple[Any, ...]:
    return tuple(one for one in declarations if one.lower_name in PAINTED or one.name in used)


def _list_names(value: Tokens) -> Iterator[str]:
    """List the variables in a value, and in functions in it."""
    for piece in value:
        if piece.type == "function":
            yield from _list_names(piece.arguments)
        elif piece.type == "ident" and piece.value.startswith("--"):
            yield piece.value


def _join_layer(outer: str, prelude: Tokens) -> str:
    name = "".join(piece.serialize() for piece in significant(prelude))
    return f"{outer}.{name}" if outer and name else name


def _read_scope(prelude: Tokens, above: Above) -> Above:
    """Read `@scope (.card) to (.part)`: what it holds applies in .card; where that ends is not looked at."""
    block = next((piece for piece in prelude if piece.type == "() block"), None)
    if block is None:
        return above
    roots = (write_selector(part) for part in split_selectors(block.content))
    return Above(tuple(root for root in roots if root), is_scope=True)


def _parse_block(content: Tokens) -> list[Any]:
    parsed: list[Any] = tinycss2.parse_blocks_contents(content, skip_comments=True, skip_whitespace=True)
    return parsed


def _list_rules(content: Sequence[Any]) -> Iterator[Any]:
    return (item for item in content if item.type in ("qualified-rule", "at-rule"))


def _is_last(prelude: Tokens) -> bool:
    return any(
        is_ident(piece, "to") or (piece.type == "percentage" and piece.value >= 99) for piece in prelude
    )
