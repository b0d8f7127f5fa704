"""Texts that a pattern matches, made from its parse tree; with a fixed seed always the same ones."""

from __future__ import annotations

import random
import re
import string
from importlib import import_module
from typing import Any

# The parser of Python's own patterns; it has no public name.
codes: Any = import_module("re._constants")
parser: Any = import_module("re._parser")
_MOST = 4
_ANY = string.ascii_letters + string.digits + " -_é"
_CATEGORIES = {
    codes.CATEGORY_DIGIT: string.digits,
    codes.CATEGORY_WORD: string.ascii_letters + string.digits + "_",
    codes.CATEGORY_SPACE: " \t\n\f\r",
}


def make_text(pattern: str, choose: random.Random) -> str:
    """Make a text for a pattern; without an anchor some more may stand around it."""
    python_form = re.sub(r"\\x\{([0-9A-Fa-f]+)\}", lambda code: f"\\U{int(code[1], 16):08x}", pattern)
    return _make(parser.parse(python_form), choose)


def _make(tree: Any, choose: random.Random) -> str:
    return "".join(_make_one(code, value, choose) for code, value in tree)


def _make_one(code: Any, value: Any, choose: random.Random) -> str:
    if code is codes.LITERAL:
        return chr(value)
    if code in (codes.MAX_REPEAT, codes.MIN_REPEAT):
        least, most, inner = value
        many = choose.randint(least, max(least, min(most, least + _MOST)))
        return "".join(_make(inner, choose) for _ in range(many))
    if code in (codes.SUBPATTERN, codes.BRANCH):
        return _make(value[3] if code is codes.SUBPATTERN else choose.choice(value[1]), choose)
    if code is codes.IN:
        return _make_member(value, choose)
    taken = chr(value) if code is codes.NOT_LITERAL else ""
    return "" if code is codes.AT else choose.choice(_ANY.replace(taken, "") if taken else _ANY)


def _make_member(members: Any, choose: random.Random) -> str:
    if members[0][0] is codes.NEGATE:
        taken = {c for member in members[1:] for c in _list_member(member)}
        return choose.choice([c for c in _ANY if c not in taken] or ["~"])
    return choose.choice([c for member in members for c in _list_member(member)])


def _list_member(member: Any) -> str:
    code, value = member
    if code is codes.LITERAL:
        return chr(value)
    if code is codes.RANGE:
        return "".join(map(chr, range(value[0], min(value[1], value[0] + 200) + 1)))
    return _CATEGORIES.get(value, _ANY)
