"""Pages: the tree of an HTML document, without the parts that nobody sees who opens it.

Cut: what a style hides (`hiding`, `sheets`), what HTML itself does not show (`hidden`, closed details and
dialogs, templates, lists of choices), what stands in for what a browser shows (fallbacks, noscript), scripts,
styles, the head, drawings and formulas, comments. An element whose style is longer than can be read is cut.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import tinycss2
from selectolax.lexbor import LexborHTMLParser, LexborNode

from tools.content.colours import WHITE
from tools.content.hiding import Style, read_style
from tools.content.kinds import ContentInvalid, Kind, Problem, Removed
from tools.content.matches import Matches, find_hidden, find_painting
from tools.content.paint import Paint, paint_element
from tools.content.sheets import MAX_CHARACTERS as MAX_SHEET_CHARACTERS
from tools.content.sheets import Sheet
from tools.content.variables import collect_variables

MAX_CHARACTERS = 1024 * 1024
MAX_TAGS = 50_000
MAX_DEPTH = 500
"""Of elements that were opened and not closed; the tree's parser takes a time that is quadratic in it."""
MAX_STYLE_CHARACTERS = 4_096
MAX_ALL_STYLES_CHARACTERS = 128 * 1024
"""Of style attributes that differ; elements behind so many are cut like one whose style is too long."""

_TAG = re.compile(r"<(/?)([a-zA-Z][^\s/>]*)")
# Their end tags may be left out, or they have none.
_CLOSED_ANYWAY = frozenset(
    ("p", "li", "td", "th", "tr", "dt", "dd", "option", "optgroup", "thead", "tbody", "tfoot", "colgroup",
     "rt", "rp", "br", "hr", "img", "input", "meta", "link", "area", "base", "col", "embed", "source",
     "track", "wbr", "param", "html", "head", "body")
)  # fmt: skip
_CUT = {
    **dict.fromkeys(("script",), Kind.SCRIPT),
    **dict.fromkeys(("style",), Kind.STYLE),
    **dict.fromkeys(("title", "meta", "link", "base"), Kind.METADATA),
    **dict.fromkeys(
        ("object", "embed", "iframe", "frame", "frameset", "noframes", "noembed", "applet", "svg", "math",
         "canvas", "video", "audio", "picture", "map", "param", "portal", "fencedframe"), Kind.EMBEDDED),
    **dict.fromkeys(
        ("template", "noscript", "datalist", "select", "option", "optgroup", "rp", "meter", "progress",
         "xmp", "plaintext", "listing", "bdo"), Kind.HIDDEN),
}  # fmt: skip
_ATTRIBUTE_TEXTS = ("alt", "title", "aria-label", "aria-description", "placeholder", "summary")


@dataclass(slots=True)
class _Cutting:
    """What is known while a tree is walked."""

    sheet: Sheet
    hidden: set[int]
    painting: tuple[Matches, ...]
    is_told: bool
    hosts: frozenset[int]
    removed: Removed = field(default_factory=Removed)
    doomed: list[LexborNode] = field(default_factory=list)
    styles: dict[str, tuple[Style, tuple[Any, ...]]] = field(default_factory=dict)
    style_characters: int = 0


def check_size(html: str, max_tags: int = MAX_TAGS) -> None:
    """See that a document may be parsed.

    Raises:
        ContentInvalid: It is too long, has too many tags, or nests too deep.
    """
    if len(html) > MAX_CHARACTERS:
        raise ContentInvalid(Problem.TOO_LONG)
    depth = 0
    for count, tag in enumerate(_TAG.finditer(html)):
        if count >= max_tags:
            raise ContentInvalid(Problem.TOO_MANY_TAGS)
        if tag[2].lower() not in _CLOSED_ANYWAY:
            depth = max(depth + (-1 if tag[1] else 1), 0)
        if depth > MAX_DEPTH:
            raise ContentInvalid(Problem.TOO_DEEP)


def cut_hidden(html: str) -> tuple[LexborHTMLParser, Removed]:
    """Parse a document and cut what nobody sees.

    Raises:
        ContentInvalid: It is over one of the bounds.
    """
    check_size(html)
    tree = LexborHTMLParser(html)
    sheet, has_linked = _read_sheets(tree)
    _collect_inline(tree, sheet)
    marks = html.count("<")
    cutting = _Cutting(
        sheet,
        find_hidden(tree, sheet, marks),
        find_painting(tree, sheet, marks),
        not has_linked,
        _list_hosts(tree),
    )
    if has_linked:
        cutting.removed[Kind.STYLE_NOT_READ] += 1
    for node, paints in _walk(tree.root, cutting):
        kind = _find_kind(node, paints, cutting)
        if kind is not None:
            cutting.removed[kind] += 1
            cutting.doomed.append(node)
    for node in cutting.doomed:
        if node.parent is None or node.parent.is_document_node:
            return LexborHTMLParser(""), cutting.removed  # all of it
        node.decompose()
    return tree, cutting.removed


def _read_sheets(tree: LexborHTMLParser) -> tuple[Sheet, bool]:
    """Read the sheets in a page, and those that its links hold in their very address."""
    texts = [node.text(deep=True) for node in tree.css("style")]
    links = [link.attributes for link in tree.css("link[rel]")]
    addresses = [
        (link.get("href") or "").strip() for link in links if "stylesheet" in (link.get("rel") or "").lower()
    ]
    for text in texts:
        addresses += _list_imports(text)
    inside = [_read_address(address) for address in addresses]
    texts += [text for text in inside if text]
    if sum(map(len, texts)) > MAX_SHEET_CHARACTERS:
        raise ContentInvalid(Problem.TOO_MUCH_STYLE)
    sheet = Sheet()
    for text in texts:
        sheet.add(text)
    return sheet, any(text is None for text in inside)


def _list_imports(text: str) -> Iterator[str]:
    if "import" not in text.lower() and "\\" not in text:
        return
    for rule in tinycss2.parse_stylesheet(text, skip_comments=True, skip_whitespace=True):
        if rule.type == "at-rule" and rule.lower_at_keyword == "import":
            for piece in rule.prelude:
                if piece.type in ("string", "url"):
                    yield piece.value
                    break


def _read_address(address: str) -> str | None:
    """Read a sheet out of a `data:` address; None for one that would have to be fetched."""
    scheme, _, rest = address.partition(":")
    if scheme.lower() != "data":
        return None
    head, _, body = rest.partition(",")
    if not head.lower().rstrip().endswith(";base64"):
        return unquote(body)
    try:
        return b64decode(unquote(body)).decode(errors="replace")
    except ValueError:
        return ""


def _collect_inline(tree: LexborHTMLParser, sheet: Sheet) -> None:
    """Add the variables that style attributes set."""
    for node in tree.css('[style*="--"]'):
        text = node.attributes.get("style") or ""
        if len(text) <= MAX_STYLE_CHARACTERS:
            collect_variables(tinycss2.parse_blocks_contents(text), sheet.variables)


def _walk(root: LexborNode | None, cutting: _Cutting) -> Iterator[tuple[LexborNode, tuple[Paint, ...]]]:
    """Yield each node with the colours in force, parents first; what is doomed is not entered."""
    canvas = Paint(grounds=(WHITE,) if cutting.is_told else None)
    waiting = [(root, (canvas,) * len(cutting.painting))] if root is not None else []
    while waiting:
        node, paints = waiting.pop()
        doomed = len(cutting.doomed)
        if node.is_element_node:
            paints = _paint(node, paints, cutting)
        yield node, paints
        if len(cutting.doomed) > doomed or not node.is_element_node:
            continue
        child = node.last_child
        while child is not None:
            waiting.append((child, paints))
            child = child.prev


def _paint(node: LexborNode, above: tuple[Paint, ...], cutting: _Cutting) -> tuple[Paint, ...]:
    attributes = node.attributes
    read = _read_inline(attributes.get("style") or "", cutting)
    inline = read[1] if read else ()
    return tuple(
        paint_element(
            node.tag or "", attributes, matches.order(node.mem_id, inline), paint, is_told=cutting.is_told
        )
        for matches, paint in zip(cutting.painting, above, strict=True)
    )


def _find_kind(node: LexborNode, paints: tuple[Paint, ...], cutting: _Cutting) -> Kind | None:
    """Tell why a node is cut; None for one that stays."""
    if node.parent is not None and node.parent.mem_id in cutting.hosts:
        return Kind.HIDDEN
    if node.is_text_node:
        is_hidden = _is_in_closed(node) or any(paint.hides_text for paint in paints)
        return Kind.HIDDEN if is_hidden and (node.text_content or "").strip() else None
    if not node.is_element_node:
        return None if node.is_document_node else Kind.COMMENT
    tag = (node.tag or "").lower()
    if tag in _CUT:
        return _CUT[tag]
    attributes = node.attributes
    if node.mem_id in cutting.hidden or _is_hidden_by_html(node, tag, attributes):
        return Kind.HIDDEN
    _count_attributes(tag, attributes, cutting.removed)
    return Kind.HIDDEN if _is_hidden_by_style(attributes, cutting) else None


def _is_hidden_by_html(node: LexborNode, tag: str, attributes: dict[str, Any]) -> bool:
    if "hidden" in attributes or (attributes.get("aria-hidden") or "").strip().lower() == "true":
        return True
    if "popover" in attributes or (tag == "dialog" and "open" not in attributes):
        return True
    if tag == "marquee" and any(_is_nothing(attributes.get(side)) for side in ("width", "height")):
        return True
    return _is_in_closed(node) and not (tag == "summary" and _is_first_summary(node))


def _is_nothing(size: str | None) -> bool:
    found = re.match(r"\s*([0-9]+)", size or "")
    return found is not None and int(found[1][:9]) <= 2


def _list_hosts(tree: LexborHTMLParser) -> frozenset[int]:
    """List the elements that show a shadow tree in place of what they hold; neither of the two is read."""
    shadows = tree.css("template[shadowrootmode]")
    return frozenset(one.parent.mem_id for one in shadows if one.parent is not None)


def _is_in_closed(node: LexborNode) -> bool:
    parent = node.parent
    return parent is not None and parent.tag == "details" and "open" not in parent.attributes


def _is_first_summary(node: LexborNode) -> bool:
    before = node.prev
    while before is not None:
        if before.tag == "summary":
            return False
        before = before.prev
    return True


def _count_attributes(tag: str, attributes: dict[str, Any], removed: Removed) -> None:
    """Count what is lost with a tag that is stripped."""
    if not attributes:
        return
    removed[Kind.ATTRIBUTE_TEXT] += sum(1 for name in _ATTRIBUTE_TEXTS if attributes.get(name))
    removed[Kind.SCRIPT] += sum(1 for name in attributes if name.startswith("on"))
    if tag in ("a", "area") and attributes.get("href"):
        removed[Kind.LINK_TARGET] += 1
    if tag == "img":
        removed[Kind.IMAGE] += 1


def _is_hidden_by_style(attributes: dict[str, Any], cutting: _Cutting) -> bool:
    read = _read_inline(attributes.get("style") or "", cutting)
    return read is None or read[0].is_hidden or cutting.sheet.is_hidden_by_frames(read[0])


def _read_inline(text: str, cutting: _Cutting) -> tuple[Style, tuple[Any, ...]] | None:
    """Read a style attribute, with its declarations; None where there is too much of it."""
    if not text:
        return Style(), ()
    if text not in cutting.styles:
        cutting.style_characters += len(text)
        if len(text) > MAX_STYLE_CHARACTERS or cutting.style_characters > MAX_ALL_STYLES_CHARACTERS:
            return None
        declarations = tinycss2.parse_blocks_contents(text, skip_comments=True, skip_whitespace=True)
        kept = tuple(one for one in declarations if one.type == "declaration")
        cutting.styles[text] = read_style(kept, cutting.sheet.variables), kept
    return cutting.styles[text]
