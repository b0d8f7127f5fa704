"""Which rules of a page's sheets are for which of its elements."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from selectolax.lexbor import LexborHTMLParser, LexborNode, SelectolaxError

from tools.content.kinds import ContentInvalid, Problem
from tools.content.media import Met
from tools.content.selectors import loosen
from tools.content.sheets import MAX_COLOUR_SELECTORS, MAX_SELECTORS, Key, Sheet

MAX_SEARCHES = 20_000_000
"""Selectors times tags."""
MAX_MATCHES = 400_000
_INLINE = 1 << 22
_CLASS = re.compile(r'\[class~="([^"\\]*)" i\]')


@dataclass(frozen=True, slots=True)
class Matches:
    """Declarations for elements, by their ids in memory."""

    found: dict[int, list[tuple[Key, Any]]]

    def order(self, element: int, inline: Sequence[Any]) -> list[Any]:
        """List what is declared for an element, the strongest last."""
        found = self.found.get(element)
        if not found:
            return sorted(inline, key=lambda one: bool(one.important)) if len(inline) > 1 else list(inline)
        own = [(_make_key(one, _INLINE, (0, 0, 0), at), one) for at, one in enumerate(inline)]
        return [one for _, one in sorted([*found, *own], key=lambda pair: pair[0])]


def _make_key(declaration: Any, layer: int, weight: tuple[int, int, int], order: int) -> Key:
    # Of important declarations those of the first layer win; but style attributes stay above all.
    important = int(declaration.important)
    return important, -layer if important and layer != _INLINE else layer, weight, order


class Search:
    """Finds elements by selectors."""

    def __init__(self, tree: LexborHTMLParser, marks: int) -> None:
        self._tree, self._marks = tree, marks
        self._classes = frozenset(
            word for node in tree.css("[class]") for word in (node.attributes["class"] or "").lower().split()
        )

    def keep_possible(self, selectors: Iterable[str], most: int) -> list[str]:
        """Leave out what names a class that no element has.

        Raises:
            ContentInvalid: There are more left than can be searched for.
        """
        kept = [one for one in dict.fromkeys(selectors) if self._is_possible(one)]
        if len(kept) > most or len(kept) * self._marks > MAX_SEARCHES:
            raise ContentInvalid(Problem.TOO_MUCH_STYLE)
        return kept

    def _is_possible(self, selector: str) -> bool:
        if "(" in selector:
            return True
        return all(name.lower() in self._classes for name in _CLASS.findall(selector))

    def find(self, selector: str) -> list[LexborNode]:
        """Find elements; of a selector that cannot be read, by the classes and ids that it ends with."""
        for text in (selector, loosen(selector)):
            try:
                return self._tree.css(text) if text else []
            except SelectolaxError:
                continue
        return []


def find_hidden(tree: LexborHTMLParser, sheet: Sheet, marks: int) -> set[int]:
    """Find the elements that sheets hide.

    Raises:
        ContentInvalid: There are more rules than can be searched for.
    """
    search = Search(tree, marks)
    selectors = search.keep_possible(sheet.hiding_selectors(), MAX_SELECTORS)
    return {node.mem_id for selector in selectors for node in search.find(selector)}


def find_painting(tree: LexborHTMLParser, sheet: Sheet, marks: int) -> tuple[Matches, ...]:
    """Find what sheets say of colours: with the rules that may apply, and without them, where there are any.

    Raises:
        ContentInvalid: There are more rules than can be searched for.
    """
    search, rules = Search(tree, marks), list(sheet.painting_rules())
    possible = frozenset(
        search.keep_possible((one for rule in rules for one in rule.selectors), MAX_COLOUR_SELECTORS)
    )
    every: dict[int, list[tuple[Key, Any]]] = defaultdict(list)
    sure: dict[int, list[tuple[Key, Any]]] = defaultdict(list)
    known: dict[str, list[int]] = {}
    count = 0
    for order, rule in enumerate(rules):
        for selector, weight in zip(rule.selectors, rule.weights, strict=True):
            if selector not in possible:
                continue
            if selector not in known:
                known[selector] = [node.mem_id for node in search.find(selector)]
            count += len(known[selector]) * len(rule.declarations)
            if count > MAX_MATCHES:
                raise ContentInvalid(Problem.TOO_MUCH_STYLE)
            pairs = [(_make_key(one, rule.layer, weight, order), one) for one in rule.declarations]
            for element in known[selector]:
                every[element].extend(pairs)
                if rule.met is Met.YES:
                    sure[element].extend(pairs)
    is_sure = all(rule.met is Met.YES for rule in rules)
    return (Matches(every),) if is_sure else (Matches(every), Matches(sure))
