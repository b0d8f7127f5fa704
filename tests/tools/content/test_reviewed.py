"""A reviewer's ways of hiding text, one a line of hidden/*.txt, and honest pages that lose nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tools.content.vectors import EVIL, VISIBLE
from tools.content.html_text import clean_html, read_markup, strip_tags

HERE = Path(__file__).parent


def list_pages() -> Iterator[str]:
    """Make a page of each line: of a style, of a sheet, of an element."""
    seen = f"<p>{VISIBLE}</p>"
    for style in read_lines("styles"):
        quoted = style.replace("&", "&amp;").replace('"', "&quot;")
        yield f'{seen}<div style="{quoted}">{EVIL}</div>'
    for sheet in read_lines("sheets"):
        yield f"<style>{sheet}</style>{seen}<div class=x id=y>{EVIL}</div>"
    for element in read_lines("elements"):
        yield seen + element.replace("{0}", EVIL)


def read_lines(name: str) -> list[str]:
    return (HERE / "hidden" / f"{name}.txt").read_text().splitlines()


PAGES = list(list_pages())


def test_has_them_all() -> None:
    assert len(set(PAGES)) == len(PAGES) >= 600


@pytest.mark.parametrize("page", PAGES, ids=range(len(PAGES)))
def test_takes_what_nobody_sees_out_of_a_page(page: str) -> None:
    text = clean_html(page).text

    assert EVIL not in text
    assert VISIBLE in text
    assert clean_html(text) == (text, {})


def test_would_let_most_of_it_through_without_the_cut() -> None:
    assert sum(EVIL in read_markup(strip_tags(page)) for page in PAGES) >= 480


@pytest.mark.parametrize("name", ["bootstrap", "layers"])
def test_keeps_all_that_people_see_of_an_honest_page(name: str) -> None:
    page = (HERE / "honest" / f"{name}.html").read_text()
    shown = [word for word in read_markup(strip_tags(page)).split() if word.startswith("SHOWN")]

    text = clean_html(page).text

    assert len(shown) >= 7
    assert [word for word in shown if word not in text] == []
    assert "UNSEEN" in page
    assert "UNSEEN" not in text


@pytest.mark.parametrize(
    ("style", "markup"),
    [
        ("p{color:white}", "<p style='color:#000'>seen"),
        ("p{color:white} div p{color:#222}", "<div><p>seen</div>"),
        ("p{color:#222!important}", "<p style='color:white'>seen"),
        ("@layer a{#y{color:white}} p{color:#222}", "<p id=y>seen"),
        (
            "@media (prefers-color-scheme:dark){body{background:#111}}",
            "<p style='color:#111'>seen",
        ),
        (
            ":root{--t:#111;--g:#fff} .d{--t:#eee;--g:#111} p{color:var(--t);background:var(--g)}",
            "<p>seen",
        ),
        (".dark{background:#111} .dark p{color:#fff}", "<div class=dark><p>seen</div>"),
        ("p{background:#fff;color:#fff} p{background:#036}", "<p>seen"),
        (".x:is(:hover,:focus-visible){opacity:0}", "<p class=x>seen"),
        ("@starting-style{p{opacity:0}}", "<p>seen"),
        ("@keyframes k{from{opacity:0}to{opacity:1}} p{animation:k .6s ease both}", "<p>seen"),
        ("@font-face{font-family:a;src:url(x)} @page{margin:0}", "<p>seen"),
        ("@scope (.card){:scope{display:none}}", "<p>seen"),
        ("body{color:#fff} main{background:#000}", "<main>seen</main>"),
    ],
)
def test_keeps_text_whose_colour_differs_from_what_is_behind_it(style: str, markup: str) -> None:
    assert clean_html(f"<style>{style}</style>{markup}").text == "seen"


def test_keeps_white_text_where_a_linked_sheet_may_say_what_is_behind_it() -> None:
    page = "<link rel=stylesheet href=a.css><p class=x style='color:#fff'>seen"

    assert clean_html(page).text == "seen"
