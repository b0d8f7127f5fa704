"""Splits a file of Cedar policies into statements and knows the line of each.

Rules:
1. The engine tells no line numbers, so the split is done here: Cedar has `//` comments, `"…"` strings with
   backslash escapes, and one `;` at the end of each policy.
2. What the engine cannot stand is refused before it sees it: its parser overflows the stack, and so ends the
   process, at some hundred brackets or a thousand chained operators (measured with cedarpy 4.12.2).
3. Characters that a reviewer cannot see (control, bidirectional, zero-width) are refused.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left
from dataclasses import dataclass

from broker.policy.findings import finding
from tools.errors import Violation

MAX_BRACKET_DEPTH = 30
MAX_CHAINED = 400

_BLANK = re.compile(r"(?:\s|//[^\n]*)*")
_AFTER_SCOPE = re.compile(r"when\b|unless\b|;")
_TOKEN = re.compile(
    r"""
      (?P<comment>//[^\n]*)
    | (?P<string>"(?:[^"\\]|\\.)*")
    | (?P<unclosed>")
    | (?P<end>;)
    | (?P<open>[(\[{])
    | (?P<close>[)\]}])
    | (?P<chain>&&|\|\||[.!*+-]|\b(?:if|has)\b)
    """,
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Statement:
    """One policy's text, from its first annotation to its semicolon.

    Attributes:
        file: Name of the file.
        line: Where it begins, counted from 1.
        text: Without the comments above it.
    """

    file: str
    line: int
    text: str

    @property
    def place(self) -> str:
        """Where it is, as "file:line"."""
        return f"{self.file}:{self.line}"

    @property
    def conditions(self) -> str:
        """Its `when` and `unless` clauses as they stand there; empty where it has none."""
        depth = 0
        for token in _TOKEN.finditer(self.text):
            depth += {"open": 1, "close": -1}.get(str(token.lastgroup), 0)
            if token.lastgroup == "close" and depth == 0:
                rest = self.text[_skip_blank(self.text, token.end()) :]
                if _AFTER_SCOPE.match(rest):
                    return rest.rstrip("; \n\t\r")
        return ""

    def place_of(self, word: str) -> str:
        """Where a word of the statement is, or the statement itself when that is not certain."""
        before, found, after = self.text.partition(word)
        if not found or word in after:
            return self.place
        return f"{self.file}:{self.line + before.count(chr(10))}"


@dataclass(slots=True)
class _Shape:
    """How deep and long the statement in hand is."""

    depth: int = 0
    deepest: int = 0
    chained: int = 0

    def take(self, kind: str) -> None:
        self.depth += {"open": 1, "close": -1}.get(kind, 0)
        self.deepest = max(self.deepest, self.depth)
        self.chained += kind == "chain"

    @property
    def trouble(self) -> str:
        if self.deepest > MAX_BRACKET_DEPTH:
            return f"brackets are nested more than {MAX_BRACKET_DEPTH} deep; write several policies instead"
        if self.chained > MAX_CHAINED:
            return f"more than {MAX_CHAINED} operators in one policy; write several policies instead"
        return ""


def split_statements(file: str, text: str) -> tuple[list[Statement], list[Violation]]:
    """Split a file's text; what cannot be handed to the engine comes back as violations."""
    violations = _find_invisible(file, text)
    statements: list[Statement] = []
    newlines = [newline.start() for newline in re.finditer("\n", text)]
    start, shape = _skip_blank(text, 0), _Shape()
    for token in _TOKEN.finditer(text, start):
        kind = str(token.lastgroup)
        if kind == "unclosed":
            place = f"{file}:{_line_at(newlines, token.start())}"
            return statements, [
                *violations,
                finding(place, 'a string begins here and is not closed; add the ")'),
            ]
        shape.take(kind)
        if kind == "end":
            statement = Statement(file, _line_at(newlines, start), text[start : token.end()])
            if shape.trouble:
                violations.append(finding(statement.place, shape.trouble))
            else:
                statements.append(statement)
            start, shape = _skip_blank(text, token.end()), _Shape()
    if start < len(text):
        place = f"{file}:{_line_at(newlines, start)}"
        violations.append(finding(place, 'the policy that begins here does not end; add the ";"'))
    return statements, violations


def _find_invisible(file: str, text: str) -> list[Violation]:
    violations = []
    for number, line in enumerate(text.split("\n"), start=1):
        hidden = {c for c in line if c not in "\t\r" and unicodedata.category(c) in {"Cc", "Cf", "Zl", "Zp"}}
        if hidden:
            names = ", ".join(sorted(f"U+{ord(c):04X}" for c in hidden))
            violations.append(
                finding(f"{file}:{number}", f"has characters that nobody can see ({names}); remove them")
            )
    return violations


def _skip_blank(text: str, position: int) -> int:
    blank = _BLANK.match(text, position)
    return blank.end() if blank else position


def _line_at(newlines: list[int], position: int) -> int:
    return bisect_left(newlines, position) + 1
