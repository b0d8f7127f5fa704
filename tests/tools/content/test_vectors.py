"""Hostile pages and documents: what nobody sees is gone, what everybody sees is there."""

from __future__ import annotations

import html

import pytest
from markdown_it import MarkdownIt

from tests.tools.content.vectors import HTML, MARKDOWN, VISIBLE, Vector
from tools.content.html_text import clean_html, read_markup, strip_tags
from tools.content.markdown_text import clean_markdown
from tools.content.pages import cut_hidden
from tools.content.text import clean_text

LISTED = frozenset(("https://listed.example",))


def test_has_enough_of_them() -> None:
    assert len(HTML) + len(MARKDOWN) >= 200
    assert len(set(HTML)) == len(HTML)


@pytest.mark.parametrize("vector", HTML, ids=range(len(HTML)))
def test_takes_what_nobody_sees_out_of_a_page(vector: Vector) -> None:
    text = clean_html(vector.source).text

    assert vector.gone not in text
    assert VISIBLE in text


@pytest.mark.parametrize("vector", HTML, ids=range(len(HTML)))
def test_changes_no_page_the_second_time(vector: Vector) -> None:
    text = clean_html(vector.source).text

    assert clean_html(text) == (text, {})
    assert clean_text(text) == (text, {})


@pytest.mark.parametrize("vector", MARKDOWN, ids=range(len(MARKDOWN)))
def test_takes_what_nobody_sees_out_of_a_document(vector: Vector) -> None:
    text = clean_markdown(vector.source, LISTED).text

    assert vector.gone not in text
    assert VISIBLE in text


@pytest.mark.parametrize("vector", MARKDOWN, ids=range(len(MARKDOWN)))
def test_changes_no_document_the_second_time(vector: Vector) -> None:
    text = clean_markdown(vector.source, LISTED).text

    assert clean_markdown(text, LISTED).text == text


# --- controls: the attacks work where a half of the stack is not there --------------------------------
def test_would_let_hidden_text_of_most_pages_through_without_the_cut() -> None:
    through = [v for v in HTML if v.gone in read_markup(strip_tags(v.source))]

    assert len(through) >= 180


def test_would_let_markup_of_every_page_through_without_the_strippers() -> None:
    trees = [cut_hidden(vector.source)[0] for vector in HTML]

    assert all("<p>" in (tree.body.html or "") for tree in trees if tree.body is not None)


def test_would_let_invisible_characters_through_without_the_last_step() -> None:
    through = [v for v in HTML if not v.gone.isascii() and v.gone in html.unescape(strip_tags(v.source))]

    assert len(through) >= 20


def test_would_let_most_documents_through_a_plain_renderer() -> None:
    renderer = MarkdownIt("commonmark")
    through = [v for v in MARKDOWN if v.gone in renderer.render(v.source)]

    assert len(through) >= 45
    assert all(v.gone in v.source for v in MARKDOWN[:60])
