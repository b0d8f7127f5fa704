"""Characters that people do not see, in what an author wrote: a reviewer reads one text, a model another."""

from __future__ import annotations

import re

from tools.content.text import clean_text

_UNUSUAL = re.compile(r"[^\x20-\x7e\n\t]")


def name_unseen(text: str) -> str:
    """Count what a text holds and nobody sees, for example "2 bidirectional, 1 tag"; empty for nothing."""
    if not _UNUSUAL.search(text):
        return ""
    removed = clean_text(text.replace("\r\n", "\n")).removed
    return ", ".join(f"{count} {kind}" for kind, count in sorted(removed.items()))
