"""Selectors of CSS as the search in a page's tree takes them, and how much they weigh.

Where it does not know a part of one, that part is left out, so that it finds more and not less. What applies
only while somebody points at an element does not apply to a page that is read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from tools.content.lengths import Tokens

Weight = tuple[int, int, int]

_MOMENTARY = frozenset(
    ("hover", "focus", "focus-visible", "focus-within", "active", "target", "visited", "fullscreen",
     "host", "host-context", "modal", "popover-open", "user-invalid", "autofill")
)  # fmt: skip
# Parts of an element that are text of the page; others are not.
_TEXT_PARTS = frozenset(("first-line", "first-letter", "details-content", "slotted", "part"))
_OLD_PARTS = frozenset(("before", "after", "first-line", "first-letter"))
# What the search knows and decides by the tree alone.
_KNOWN = frozenset(
    ("root", "empty", "first-child", "last-child", "only-child", "first-of-type", "last-of-type",
     "only-of-type", "nth-child", "nth-last-child", "nth-of-type", "nth-last-of-type", "not",
     "has", "any-link", "link", "disabled", "enabled", "checked", "required", "optional", "read-only",
     "read-write")
)  # fmt: skip
_EITHER = frozenset(("is", "where", "matches", "any"))
_MAX_CHARACTERS = 2_000
_SIMPLE = re.compile(r'\[(?:class~|id)="(?:[^"\\]|\\.)*" i\]')


class Above(NamedTuple):
    """The rule in which another one is nested, or the roots of a scope."""

    selectors: tuple[str, ...] = ()
    weight: Weight = (0, 0, 0)
    is_scope: bool = False


NOTHING = Above()


def split_selectors(prelude: Tokens) -> Iterator[Tokens]:
    """Split a list of selectors at its commas."""
    part: list[Any] = []
    for piece in prelude:
        if piece == ",":
            yield part
            part = []
        elif piece.type != "comment":
            part.append(piece)
    yield part


def write_selector(pieces: Tokens, above: Above = NOTHING) -> str:
    """Write a selector for the search; empty for one that matches no element of a page that is read.

    Class names and ids are compared without case, as a page without a document type has it.

    Args:
        pieces: The selector.
        above: The rule in which it is nested.
    """
    parts: list[str] = []
    at, items = 0, list(pieces)
    while at < len(items):
        piece, behind = items[at], items[at + 1] if at + 1 < len(items) else None
        if piece == ":":
            written, used = _write_colon(items[at + 1 : at + 3], above)
            if written is None:
                return ""
            parts.append(written or _fill(parts))
            at += used
        elif piece == "." and behind is not None and behind.type == "ident":
            parts.append(f'[class~="{_quote(behind.value)}" i]')
            at += 2
        else:
            parts.append(_write_other(piece, above))
            at += 1
    return _join(parts, above, has_parent=any(piece == "&" for piece in items))


def loosen(selector: str) -> str:
    """Give the classes and ids at the end of a selector, for a search that could not read all of it."""
    last = re.split(r"[\s>+~]+(?![^\[]*\])", selector.strip())[-1]
    return "".join(_SIMPLE.findall(last))


def _write_colon(behind: list[Any], above: Above) -> tuple[str | None, int]:
    """Write what stands behind a colon.

    Returns:
        What is searched for, None where nothing can be found; how many pieces that was.
    """
    if not behind:
        return None, 1
    is_part = behind[0] == ":"
    if is_part and len(behind) < 2:
        return None, 2
    piece = behind[1] if is_part else behind[0]
    name = _name(piece)
    if is_part or name in _OLD_PARTS:
        return ("" if name in _TEXT_PARTS else None), 3 if is_part else 2
    return (None if name in _MOMENTARY else _write_pseudo(piece, name, above)), 2


def _fill(parts: list[str]) -> str:
    """Put any element where nothing is left of one."""
    text = "".join(parts)
    return "*" if not text or text[-1] in " \t\n>+~" else ""


def _join(parts: list[str], above: Above, *, has_parent: bool) -> str:
    text = "".join(parts).strip()
    if above.selectors and text and not has_parent and not above.is_scope:
        text = f":is({','.join(above.selectors)}) {text}"
    return text if len(text) <= _MAX_CHARACTERS else "*"


def _write_other(piece: Any, above: Above) -> str:
    if piece == "&":
        return f":is({','.join(above.selectors)})" if above.selectors else ":root"
    if piece.type == "hash":
        return f'[id="{_quote(piece.value)}" i]'
    if piece.type == "[] block":
        return re.sub(r"^\[\s*\*?\|(?!=)", "[", str(piece.serialize()))
    return str(piece.serialize())


def _write_pseudo(piece: Any, name: str, above: Above) -> str | None:
    """Write a condition; what the search does not know becomes nothing, which finds more."""
    if name.removeprefix("-webkit-").removeprefix("-moz-") in _EITHER and piece.type == "function":
        found = [
            one for part in split_selectors(piece.arguments) if (one := write_selector(part, _nest(above)))
        ]
        return f":is({','.join(found)})" if found else None
    if name == "scope":
        return f":is({','.join(above.selectors)})" if above.is_scope and above.selectors else ""
    if name == "root":
        return "html"
    if name not in _KNOWN or (piece.type == "function" and _mentions_other(piece.arguments)):
        return ""
    return f":{piece.serialize()}"


def _nest(above: Above) -> Above:
    """Within brackets no parent is added."""
    return above._replace(is_scope=True)


def _mentions_other(pieces: Tokens) -> bool:
    """Tell whether a selector within another one has a part that the search does not decide."""
    items = list(pieces)
    for at, piece in enumerate(items):
        behind = items[at + 1] if at + 1 < len(items) else None
        if piece == ":" and (behind is None or _name(behind) not in _KNOWN):
            return True
        if piece in ("&", "|") or (piece.type == "ident" and piece.lower_value == "of"):
            return True
        if piece.type == "function" and _mentions_other(piece.arguments):
            return True
    return False


def weigh_selector(pieces: Tokens, above: Above = NOTHING) -> Weight:
    """Work out how much a selector weighs: ids, classes, names (Selectors 4, section 17)."""
    ids, classes, names = 0, 0, 0
    items = [piece for piece in pieces if piece.type not in ("whitespace", "comment")]
    for before, piece in zip([None, *items], items, strict=False):
        more = _weigh_piece(before, piece, above)
        ids, classes, names = ids + more[0], classes + more[1], names + more[2]
    if above.selectors and not above.is_scope and not any(piece == "&" for piece in items):
        ids, classes, names = ids + above.weight[0], classes + above.weight[1], names + above.weight[2]
    return ids, classes, names


def _weigh_piece(before: Any, piece: Any, above: Above) -> Weight:
    if piece == "&":
        return above.weight
    if piece.type == "hash":
        return 1, 0, 0
    if piece.type == "[] block" or (piece.type == "ident" and before is not None and before in (".", ":")):
        return 0, 1, 0
    if piece.type == "function":
        if _name(piece) in ("is", "not", "has", "matches", "any"):
            return max(weigh_selector(part) for part in split_selectors(piece.arguments))
        return (0, 0, 0) if _name(piece) == "where" else (0, 1, 0)
    return (0, 0, 1) if piece.type == "ident" else (0, 0, 0)


def _name(piece: Any) -> str:
    return str(getattr(piece, "lower_value", "") or getattr(piece, "lower_name", ""))


def _quote(text: str) -> str:
    return "".join(f"\\{ord(one):x} " if one in '"\\\n\r\f' else one for one in text)
