"""The marks that cleaned Markdown has between the letters of its text, and the text without them."""

from __future__ import annotations

import re

_ESCAPE = re.compile(r"\\([!-/:-@\[-`{-~])")
_PARTED = re.compile(r"(?<=:) (?=//)|(?<=\bwww) (?=\.)", re.IGNORECASE)


def strip_marks(text: str) -> str:
    """Give text without escapes, and its addresses as they were."""
    return _PARTED.sub("", _ESCAPE.sub(r"\1", text))
