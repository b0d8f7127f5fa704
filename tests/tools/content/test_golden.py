"""What comes out of honest content, as it is; and that cleaning twice is cleaning once."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tools.content.html_text import clean_html
from tools.content.kinds import ContentInvalid, Kind
from tools.content.markdown_text import clean_markdown
from tools.content.text import clean_text

LISTED = frozenset(("https://docs.example",))
HTML_PARTS = st.sampled_from(
    ["<p>", "</p>", "<b>", "<div hidden>", "</div>", "&lt;", "&gt;", "&amp;", "&", "&amp;lt;", "<", "<!--",
     "-->", "a", "b c", "\n", " ", "<script>", "</script>", "<table>", "<td>", "<pre>", "&#60;", "&nbsp;",
     "lt;", "<svg>", "<plaintext>", "<![CDATA[", "]]>", "/", "<br>", "<li>", "&notit;",
     "&amp", '="', ">", "<template>"]
)  # fmt: skip
MARKDOWN_PARTS = st.sampled_from(
    ["*", "**", "_", "~~", "`", "```\n", "\n", "\n\n", "    ", "- ", "1. ", "> ", "# ", "[", "](", ")", "![",
     "&lt;", "http://a.b", "<http://a.b>", "https://docs.example/x", "<span hidden>", "</span>", "<div>", "&",
     "|---|\n", "| a |\n", "---\n", "===\n", "\\", "a", "b c", "[x]: http://y\n", "[^1]: n\n", "  \n",
     "<!-- c -->", "&#42;"]
)  # fmt: skip


@pytest.mark.parametrize("text", ["if a<b && c>d", "Tom <tom@x.org>", "List<String>", "a & b; c", "\ttab\n"])
def test_keeps_text_byte_for_byte(text: str) -> None:
    assert clean_text(text) == (text, {})


@pytest.mark.parametrize(
    ("page", "text"),
    [
        ("<h1>Title</h1><p>One.</p><p>Two.</p>", "Title\n\nOne.\n\nTwo."),
        ("<ul><li>a<li>b</ul>c", "a\nb\n\nc"),
        ("<table><tr><th>a<th>b<tr><td>1<td>2</table>", "a b\n1 2"),
        ("a<br>b<br><br>c", "a\nb\nc"),
        ("<p>a <b>b</b>\n c</p>", "a b\nc"),
        ("<p>AT&amp;T &copy; 1 &lt; 2 &gt; 0", "AT&T © 1 < 2 > 0"),
        ("<code>List&lt;String&gt;</code>", "List< String>"),
        ("<code>&amp;lt;</code>", "& lt;"),
        ("x &amp;copy; y &amp;nbsp y", "x & copy; y & nbsp y"),
        ("<a href=/x>docs</a> <img alt=logo src=x> end", "docs end"),
        ("<details open><summary>s</summary>b</details>", "s\nb"),
        ("<details><summary>s</summary>b</details>", "s"),
        ("<div style='background:#000;color:#fff'>light on dark</div>", "light on dark"),
        ("<div style='width:50%;overflow:hidden;left:50%;margin-left:-300px'>box</div>", "box"),
        ("<div style='transform:translate(-50%,-50%) rotate(90deg);opacity:.8'>box</div>", "box"),
        ("<style>@media print{p{display:none}} p:hover{opacity:0} .z{display:none}</style><p>seen", "seen"),
        ("<style>@media (max-width:600px){p{display:none}}</style><p>wide", "wide"),
        (
            "<style>@keyframes f{from{opacity:0}to{opacity:1}} p{animation:f 1s}</style><p>fades in",
            "fades in",
        ),
        ("<h1 style='color:transparent;background:linear-gradient(red,blue);background-clip:text'>x", "x"),
        ("plain text", "plain text"),
        ("", ""),
    ],
)
def test_reads_a_page_as_people_do(page: str, text: str) -> None:
    assert clean_html(page).text == text


@pytest.mark.parametrize(
    ("document", "written"),
    [
        ("# T\n\nOne *two* **three**.", "# T\n\nOne *two* **three**."),
        ("- a\n- b\n\n1. x\n2. y", "- a\n- b\n\n1. x\n2. y"),
        ("```python\nif a<b: pass\n```", "```python\nif a<b: pass\n```"),
        ("    code", "```\ncode\n```"),
        ("T\n=\n\n> q\n> r", "# T\n\n> q\n> r"),
        ("| a | b |\n|--:|---|\n| 1 | x |", "| a | b |\n| --: | --- |\n| 1 | x |"),
        ("if a<b && c>d, snake_case, 3 * 4", "if a\\<b && c>d, snake_case, 3 \\* 4"),
        ("[docs](https://docs.example/a?b=1 'x')", "[docs](https://docs.example/a?b=1)"),
        ("<https://docs.example/a> https://docs.example/b", "<https://docs.example/a> https://docs.example/b"),
        ("[docs](https://x.example/a) https://x.example", "docs https: //x.example"),
        ("a\\\nb", "a\\\nb"),
        ("a <b>b</b> &amp; c", "a b & c"),
        ("- a\n\n  b\n\n- c", "- a\n\n  b\n\n- c"),
        ("", ""),
    ],
)  # fmt: skip
def test_writes_a_document_as_it_was(document: str, written: str) -> None:
    assert clean_markdown(document, LISTED).text == written


def test_counts_what_it_took_out_of_a_page() -> None:
    page = (
        "<p hidden>a</p><p hidden>b</p><script>c</script><!-- d -->e\u202e<a href=x title=y onclick=z>f</a>"
    )

    assert clean_html(page).removed == {
        Kind.HIDDEN: 2, Kind.SCRIPT: 2, Kind.COMMENT: 1, Kind.BIDIRECTIONAL: 1, Kind.LINK_TARGET: 1,
        Kind.ATTRIBUTE_TEXT: 1,
    }  # fmt: skip


def test_says_that_a_linked_sheet_was_not_read() -> None:
    assert clean_html("<link rel=stylesheet href=x>a").removed[Kind.STYLE_NOT_READ] == 1


@settings(deadline=None)
@given(st.lists(HTML_PARTS, max_size=14))
def test_changes_no_page_the_second_time(parts: list[str]) -> None:
    text = clean_html("".join(parts)).text

    assert clean_html(text) == (text, {})
    assert clean_text(text) == (text, {})


@settings(deadline=None)
@given(st.lists(MARKDOWN_PARTS, max_size=14))
def test_changes_no_document_the_second_time(parts: list[str]) -> None:
    try:
        text = clean_markdown("".join(parts), LISTED).text
    except ContentInvalid:
        return  # refused as a whole, which is as stable

    assert clean_markdown(text, LISTED).text == text
