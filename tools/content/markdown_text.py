"""MARKDOWN: the same document, written anew from what may stay of it.

What is not written: images (fetching one sends what its address holds), targets of links to places that are
not listed, titles of links, definitions, footnotes, front matter, raw HTML with all that it holds, the words
behind a code block's language. Text that raw HTML around it hides is cut, as the browser's parser sees it:
every piece of text is marked, the whole is read as the page that it would become, and what is not to be seen
there is not written. Addresses in plain text of unlisted hosts get a space behind their scheme, so that no
viewer makes links of them.

What is written is parsed and written again until nothing changes; so cleaning it once more changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.token import Token
from markdown_it.tree import SyntaxTreeNode

from tools.content.kinds import Cleaned, ContentInvalid, Kind, Problem, Removed
from tools.content.markdown_writer import Writer
from tools.content.pages import cut_hidden
from tools.content.text import clean_text

MAX_CHARACTERS = 128 * 1024
_ROUNDS = 4
_FRONT_MATTER = re.compile(r"\A(---|\+\+\+)[ \t]*\n(?:.*\n)*?(?:\1|\.\.\.)[ \t]*(?:\n|\Z)")
_FOOTNOTE = re.compile(r"\[\^[^\]\n]{1,200}\]:")
_HTML = ("html_block", "html_inline")
_MARKED = ("text", "code_inline", "fence", "code_block")


def clean_markdown(source: str, allowed_origins: Collection[str] = ()) -> Cleaned:
    """Write a document anew without what an agent must not get.

    Args:
        source: The document.
        allowed_origins: To which links keep their targets: "https://host", in lower case, with a port that is
            not the usual one.

    Raises:
        ContentInvalid: It is over one of the bounds.
    """
    if len(source) > MAX_CHARACTERS:
        raise ContentInvalid(Problem.TOO_LONG)
    text, removed = clean_text(source)
    origins = frozenset(allowed_origins)
    for with_emphasis in (True, False):
        for _ in range(_ROUNDS):
            written = _write_anew(text, origins, removed, with_emphasis=with_emphasis)
            if written == text:
                return Cleaned(text, +removed)
            text = written
    raise ContentInvalid(Problem.UNSTABLE)


def make_parser() -> MarkdownIt:
    """Make a parser of CommonMark with tables and struck text, which takes every address for one."""
    parser = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    # Those that it would not take stay text here, and may be links elsewhere.
    parser.validateLink = lambda url: True  # type: ignore[method-assign]
    return parser


_PARSER = make_parser()


def _write_anew(text: str, origins: frozenset[str], removed: Removed, *, with_emphasis: bool) -> str:
    text, count = _FRONT_MATTER.subn("", text)
    removed[Kind.FRONT_MATTER] += count
    env: dict[str, Any] = {}
    tokens = _PARSER.parse(text, env)
    removed[Kind.DEFINITION] += len(env.get("references", ())) + len(env.get("duplicate_refs", ()))
    hidden = _find_hidden(tokens, env, text)
    removed[Kind.HIDDEN] += len(hidden)
    writer = Writer(origins, hidden, removed, with_emphasis=with_emphasis)
    kept = _drop_footnotes(tokens, removed, _list_note_ends(env), text.split("\n"))
    root = SyntaxTreeNode(kept)
    return writer.write(root).strip("\n")


def _list_note_ends(env: dict[str, Any]) -> set[int]:
    """List the lines behind footnotes of one word, which CommonMark reads as definitions."""
    references = env.get("references", {})
    return {entry["map"][1] for label, entry in references.items() if label.startswith("^")}


def _drop_footnotes(
    tokens: list[Token], removed: Removed, note_ends: set[int], lines: list[str]
) -> list[Token]:
    """Drop footnotes, which nobody sees where nothing refers to them, with the indented text behind one."""
    kept: list[Token] = []
    dropping = 0
    for at, token in enumerate(tokens):
        if token.type == "code_block" and token.map and _ends_blank(token.map[0], note_ends, lines):
            continue
        if token.type == "paragraph_open" and _FOOTNOTE.match(tokens[at + 1].content):
            removed[Kind.FOOTNOTE] += 1
            dropping = 1
        elif dropping == 2 and token.type != "code_block":
            dropping = 0
        if not dropping:
            kept.append(token)
        elif token.type == "paragraph_close":
            dropping = 2
    return kept


def _ends_blank(line: int, ends: set[int], lines: list[str]) -> bool:
    """Tell whether only blank lines are between a line and one of those ends."""
    while line not in ends and line > 0 and not lines[line - 1].strip():
        line -= 1
    return line in ends


def _find_hidden(tokens: list[Token], env: dict[str, Any], text: str) -> set[int]:
    """Find the pieces of text, by id of their tokens, that raw HTML hides."""
    every = list(_flatten(tokens))
    if not any(token.type in _HTML for token in every):
        return set()
    mark = "q"
    while mark in text:  # what stands in the document is no mark of ours
        mark += "qx"
    marked = [token for token in every if token.type in _MARKED and token.content]
    contents = [token.content for token in marked]
    try:
        for number, token in enumerate(marked):
            token.content = f"{mark}{number}z"
        page = _PARSER.renderer.render(tokens, _PARSER.options, env)
    finally:
        for token, content in zip(marked, contents, strict=True):
            token.content = content
    tree, _ = cut_hidden(page)
    seen = tree.body.text(deep=True) if tree.body is not None else ""
    left = {int(number) for number in re.findall(f"{mark}([0-9]+)z", seen)}
    return {id(token) for number, token in enumerate(marked) if number not in left}


def _flatten(tokens: list[Token]) -> Iterator[Token]:
    for token in tokens:
        yield token
        if token.children and token.type != "image":
            yield from _flatten(token.children)
