"""What cleaning says of itself: the formats, what was removed, and why content was refused."""

from __future__ import annotations

import enum
from collections import Counter
from typing import NamedTuple


class Format(enum.IntEnum):
    """The format of an untrusted string; the numbers are those of toolcrib.v1.Content."""

    TEXT = 1
    HTML = 2
    MARKDOWN = 3
    JSON = 4


class Kind(enum.StrEnum):
    """What is removed, in the words of the report."""

    CONTROL = "control"
    BIDIRECTIONAL = "bidirectional"
    INVISIBLE = "invisible"
    TAG = "tag"
    PRIVATE = "private use"
    SURROGATE = "surrogate"
    HIDDEN = "hidden"
    SCRIPT = "script"
    STYLE = "style"
    STYLE_NOT_READ = "style not read"
    COMMENT = "comment"
    EMBEDDED = "embedded"
    METADATA = "metadata"
    ATTRIBUTE_TEXT = "attribute text"
    LINK_TARGET = "link target"
    IMAGE = "image"
    MARKUP = "html"
    DEFINITION = "definition"
    FOOTNOTE = "footnote"
    FRONT_MATTER = "front matter"
    INFO = "code info"


Removed = Counter[Kind]
"""How many of each kind were removed; empty when none."""


class Cleaned(NamedTuple):
    """Cleaned content, and what was removed from it."""

    text: str
    removed: Removed


class Problem(enum.StrEnum):
    """Why content is refused, as an error says it."""

    TOO_LONG = "is longer than its format may be"
    TOO_MANY_TAGS = "has too many tags"
    TOO_DEEP = "nests too deep"
    TOO_MANY_MARKS = "has too many of the characters < > &"
    TOO_MUCH_STYLE = "has more style rules than can be checked"
    TOO_SLOW = "cannot be cleaned in time"
    UNSTABLE = "has markup that reads differently each time"
    NOT_JSON = "is no JSON value"
    JSON_KEY = "is JSON with a key that stands twice"
    JSON_NUMBER = "is JSON with a number that is out of range"
    JSON_SURROGATE = "is JSON with half of a character"
    BROKEN = "could not be cleaned"


class ContentInvalid(Exception):
    """Content that is refused; nothing of it is told."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.value)
        self.problem = problem
