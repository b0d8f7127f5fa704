"""HTML: a page as the text that a person reads who opens it.

`pages` cuts what is hidden; nh3, then bleach strip all tags but those that break a line. They are independent
of each other and of the parser that cut: what one of the three takes for text is text for the other two.

What comes out is text and no markup, and it stays text for whoever takes it for HTML by mistake: a `<` that
would begin a tag and a `&` that would begin a character reference are followed by a space (`List< String>`).
White space is that of HTML: runs are one space, or one line's end, or an empty line; so the indentation of
`<pre>` is lost. Targets of links, alternative texts, titles and all other attributes are dropped.
"""

from __future__ import annotations

import html
import re

import bleach
import nh3

from tools.content.kinds import Cleaned, ContentInvalid, Problem, Removed
from tools.content.pages import MAX_CHARACTERS, cut_hidden
from tools.content.text import clean_text

MAX_TEXT_CHARACTERS = 512 * 1024
MAX_MARKS = 20_000
"""Characters < > & in what is left of a page: 200,000 of them cost the second parser two seconds."""
MAX_BREAKS = 20_000

_BREAKS = frozenset(
    ("address", "article", "aside", "blockquote", "br", "caption", "center", "dd", "details", "dialog", "dir",
     "div", "dl", "dt", "fieldset", "figcaption", "figure", "footer", "form", "h1", "h2", "h3", "h4", "h5",
     "h6", "header", "hr", "legend", "li", "main", "menu", "nav", "ol", "p", "pre", "search", "section",
     "summary", "table", "tbody", "td", "tfoot", "th", "thead", "tr", "ul")
)  # fmt: skip
_EMPTY_LINE = frozenset(
    ("blockquote", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "ol", "p", "pre", "table", "ul")
)
_CELLS = frozenset(("td", "th"))
_LEFT_TAG = re.compile(r"</?([a-z][a-z0-9]*)\s*/?>")
_MARKUP = re.compile(r"[<&]")
_BLANKS = " \t\n\f\r"
_RUN = re.compile(r"[ \t\n\f\r]+")
_OPENING = re.compile(r"<(?=[A-Za-z/!?])")
_REFERENCE = re.compile(r"&(?=(#?[A-Za-z0-9]{1,40};?))")


def clean_html(page: str) -> Cleaned:
    """Turn a page into its visible text.

    Raises:
        ContentInvalid: It is over one of the bounds.
    """
    if len(page) > MAX_CHARACTERS:
        raise ContentInvalid(Problem.TOO_LONG)
    # First of all: `<scr\u200bipt>` is no tag to a parser, but one to whoever cleans behind it.
    page, removed = clean_text(page)
    if _MARKUP.search(page) is None:
        return Cleaned(_tidy(page), removed)
    visible, cut = _cut(page)
    removed.update({kind: count for kind, count in cut.items() if count})
    text, found = clean_text(read_markup(strip_tags(visible)))
    removed.update(found)
    return Cleaned(neutralise(_tidy(text)), removed)


def _cut(page: str) -> tuple[str, Removed]:
    tree, removed = cut_hidden(page)
    body = tree.body
    return (body.html or "" if body is not None else ""), removed


def strip_tags(markup: str) -> str:
    """Take out all tags but those that break a line, by two parsers.

    Raises:
        ContentInvalid: There is more than the second one can read in time.
    """
    if markup.count("&") + markup.count(">") > 2 * MAX_MARKS + 3 * MAX_BREAKS:
        raise ContentInvalid(Problem.TOO_MANY_MARKS)
    once = nh3.clean(markup, tags=set(_BREAKS), attributes={}, link_rel=None, strip_comments=True)
    if len(once) > MAX_TEXT_CHARACTERS:
        raise ContentInvalid(Problem.TOO_LONG)
    if once.count("&") > MAX_MARKS:
        raise ContentInvalid(Problem.TOO_MANY_MARKS)
    if once.count("<") > MAX_BREAKS:
        raise ContentInvalid(Problem.TOO_MANY_TAGS)
    return str(bleach.clean(once, tags=_BREAKS, attributes={}, strip=True, strip_comments=True))


def read_markup(markup: str) -> str:
    """Read stripped markup: its tags as spaces and ends of lines, its character references once."""
    pieces: list[str] = []
    done, pending = 0, -1
    for tag in _LEFT_TAG.finditer(markup):
        pending = _add_text(pieces, markup[done : tag.start()], pending)
        pending = max(pending, _weigh(tag[1]))
        done = tag.end()
    _add_text(pieces, markup[done:], pending)
    return "".join(pieces)


def _add_text(pieces: list[str], markup: str, pending: int) -> int:
    """Add text behind the widest of the breaks before it.

    Returns:
        The break that is still to come: `pending` where the text was blank.
    """
    text = html.unescape(markup)
    if pending >= 0:
        text = text.lstrip(_BLANKS)
        if not text:
            return pending
        pieces.append(("\n" * pending) or " ")
    pieces.append(text)
    return -1


def _weigh(tag: str) -> int:
    """Tell how many lines a tag ends; 0 for a cell of a table, which is set off by a space."""
    if tag in _CELLS:
        return 0
    return 2 if tag in _EMPTY_LINE else 1


def _shorten(run: re.Match[str]) -> str:
    return "\n" * min(run[0].count("\n"), 2) or " "


def _tidy(text: str) -> str:
    return _RUN.sub(_shorten, text).strip(_BLANKS)


def neutralise(text: str) -> str:
    """See that no text is markup to a reader of HTML."""
    text = _OPENING.sub("< ", text)
    return _REFERENCE.sub(lambda found: "& " if _is_reference(found[1]) else "&", text)


def _is_reference(name: str) -> bool:
    return html.unescape(f"&{name}") != f"&{name}"
