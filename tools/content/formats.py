"""Cleans one string by its format."""

from __future__ import annotations

from collections.abc import Collection

from tools.content.json_text import clean_json
from tools.content.kinds import Cleaned, ContentInvalid, Format, Problem
from tools.content.text import clean_text

LIGHT_JSON_CHARACTERS = 16 * 1024


def clean_content(form: Format, text: str, allowed_origins: Collection[str] = ()) -> Cleaned:
    """Clean a string here and now. The broker does it with TEXT and short JSON only (`is_light`).

    Args:
        form: What the string is.
        text: The string.
        allowed_origins: To which links in Markdown keep their targets.

    Raises:
        ContentInvalid: It is over a bound of its format, or not of it.
    """
    try:
        return _clean(form, text, allowed_origins)
    except (RecursionError, MemoryError) as error:
        raise ContentInvalid(Problem.TOO_DEEP) from error


def is_light(form: Format, text: str) -> bool:
    """Tell whether a string may be cleaned in the broker's own process: no large parser meets it."""
    return form is Format.TEXT or (form is Format.JSON and len(text) <= LIGHT_JSON_CHARACTERS)


def _clean(form: Format, text: str, allowed_origins: Collection[str]) -> Cleaned:
    # The parsers are loaded where they are used: the broker's process never needs those of HTML and Markdown.
    if form is Format.HTML:
        from tools.content.html_text import clean_html  # noqa: PLC0415

        return clean_html(text)
    if form is Format.MARKDOWN:
        from tools.content.markdown_text import clean_markdown  # noqa: PLC0415

        return clean_markdown(text, allowed_origins)
    return clean_json(text) if form is Format.JSON else clean_text(text)
