"""Writes the tree of a Markdown document as Markdown, with only what may stay."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Sequence

from markdown_it.tree import SyntaxTreeNode

from tools.content.kinds import Kind, Removed
from tools.content.text import clean_text

Node = SyntaxTreeNode

# What begins something wherever it stands; a character reference is looked at apart.
_ALWAYS = re.compile(r"[\\`*\[\]]|~(?=~)|(?<=~)~|<(?=[A-Za-z/!?])|(?<![^\W_])_|_(?![^\W_])")
_REFERENCE = re.compile(r"&(?=(#?[A-Za-z0-9]{1,40};))")
_LINE_START = re.compile(r"^([-+=#>:|~]|\d{1,9}(?=[.)]))", re.MULTILINE)
_ADDRESS = re.compile(
    r"\b([A-Za-z][A-Za-z0-9+.-]{0,20}:)(//)([A-Za-z0-9.-]*(?::[0-9]+)?)|\b(www)(\.)", re.IGNORECASE
)
_TARGET = re.compile(
    r"(https?)://([a-z0-9](?:[a-z0-9.-]*[a-z0-9])?)(?::([0-9]{1,5}))?((?:[/?#][A-Za-z0-9\-._~:/?#@!$&'*+,;=%]*)?)",
    re.IGNORECASE,
)
_LANGUAGE = re.compile(r"[A-Za-z0-9+#._-]{1,20}")
_PORTS = {"http": "80", "https": "443"}
_BLANKS = " \t\n"


class Writer:
    """Writes one document; counts what it leaves out."""

    def __init__(
        self, origins: frozenset[str], hidden: set[int], removed: Removed, *, with_emphasis: bool
    ) -> None:
        self._origins, self._hidden, self._removed = origins, hidden, removed
        self._with_emphasis = with_emphasis
        self._in_table = False
        self._blocks: dict[str, Callable[[Node], str]] = {
            "paragraph": self._write_paragraph,
            "heading": self._write_heading,
            "blockquote": self._write_quote,
            "bullet_list": self._write_list,
            "ordered_list": self._write_list,
            "fence": self._write_code,
            "code_block": self._write_code,
            "hr": lambda _: "***",
            "table": self._write_table,
            "html_block": self._drop_html,
        }
        self._spans: dict[str, Callable[[Node], str]] = {
            "text": self._write_text,
            "softbreak": lambda _: "\n",
            "hardbreak": lambda _: "\\\n",
            "code_inline": self._write_code_span,
            "em": lambda node: self._emphasise(node, "*"),
            "strong": lambda node: self._emphasise(node, "**"),
            "s": lambda node: self._emphasise(node, "~~"),
            "link": self._write_link,
            "image": self._drop_image,
            "html_inline": self._drop_html,
        }

    def write(self, root: Node) -> str:
        """Write a document."""
        return self._write_blocks(root.children, "\n\n")

    def _write_blocks(self, nodes: Sequence[Node], between: str) -> str:
        written = (self._blocks[node.type](node) for node in nodes)
        return between.join(block for block in written if block)

    def _write_paragraph(self, node: Node) -> str:
        lines = (line.strip(_BLANKS) for line in self._write_inline(node).split("\n"))
        text = "\n".join(line for line in lines if line not in ("", "\\"))
        if text.endswith("\\") and not text.endswith("\\\\"):
            text = text[:-1].rstrip(_BLANKS)  # a break of which the next line is gone
        return _LINE_START.sub(_escape_start, text)

    def _write_heading(self, node: Node) -> str:
        text = " ".join(self._write_inline(node).replace("\\\n", "\n").split())
        if text.endswith("#"):
            text = text[:-1] + "\\#"
        return f"{'#' * int(node.tag[1])} {text}" if text else ""

    def _write_quote(self, node: Node) -> str:
        inside = self._write_blocks(node.children, "\n\n")
        return "\n".join(f"> {line}".rstrip() for line in inside.split("\n")) if inside else ""

    def _write_list(self, node: Node) -> str:
        is_tight = all(
            inner.hidden for item in node.children for inner in item.children if inner.type == "paragraph"
        )
        number = int(node.attrs.get("start", 1)) if node.type == "ordered_list" else None
        items: list[str] = []
        for item in node.children:
            mark = item.markup if number is None else f"{number}{item.markup}"
            number = None if number is None else min(number + 1, 999_999_999)
            inside = self._write_blocks(item.children, "\n" if is_tight else "\n\n")
            pad = " " * (len(mark) + 1)
            lines = inside.split("\n")
            items.append(
                "\n".join([f"{mark} {lines[0]}".rstrip(), *(f"{pad}{line}".rstrip() for line in lines[1:])])
            )
        return ("\n" if is_tight else "\n\n").join(items)

    def _write_code(self, node: Node) -> str:
        if self._is_hidden(node):
            return ""
        content = self._clean(node.content).rstrip("\n")
        longest = max((len(run) for run in re.findall(r"`+", content)), default=0)
        fence = "`" * max(longest + 1, 3)
        words = node.info.split() if node.type == "fence" else []
        language = words[0] if words and _LANGUAGE.fullmatch(words[0]) else ""
        self._removed[Kind.INFO] += len(words) > (1 if language else 0)
        return f"{fence}{language}\n{content}\n{fence}"

    def _write_table(self, node: Node) -> str:
        self._in_table = True
        rows = [
            [self._write_cell(cell) for cell in row.children]
            for part in node.children
            for row in part.children
        ]
        self._in_table = False
        heads = node.children[0].children[0].children
        aligned = [str(head.attrs.get("style", "")).partition(":")[2] for head in heads]
        rule = [_RULES.get(align, "---") for align in aligned]
        return "\n".join(f"| {' | '.join(row)} |" for row in [rows[0], rule, *rows[1:]])

    def _write_cell(self, cell: Node) -> str:
        return " ".join(self._write_inline(cell).replace("\\\n", " ").split())

    def _drop_html(self, node: Node) -> str:
        kind = Kind.COMMENT if node.content.lstrip().startswith("<!--") else Kind.MARKUP
        self._removed[kind] += 1
        return ""

    def _drop_image(self, _: Node) -> str:
        self._removed[Kind.IMAGE] += 1
        return ""

    def _write_inline(self, node: Node) -> str:
        return "".join(self._write_span(inner) for holder in node.children for inner in holder.children)

    def _write_span(self, node: Node) -> str:
        write = self._spans.get(node.type)
        return "" if write is None or self._is_hidden(node) else write(node)

    def _write_children(self, node: Node) -> str:
        return "".join(self._write_span(inner) for inner in node.children)

    def _is_hidden(self, node: Node) -> bool:
        return node.token is not None and id(node.token) in self._hidden

    def _clean(self, text: str) -> str:
        """Clean what a character reference was read as."""
        cleaned = clean_text(text)
        self._removed.update(cleaned.removed)
        return cleaned.text

    def _write_text(self, node: Node) -> str:
        text = _ADDRESS.sub(self._part_address, self._clean(node.content))
        text = _ALWAYS.sub(r"\\\g<0>", text)
        text = _REFERENCE.sub(
            lambda found: "\\&" if html.unescape("&" + found[1]) != "&" + found[1] else "&", text
        )
        return text.replace("|", "\\|") if self._in_table else text

    def _part_address(self, found: re.Match[str]) -> str:
        if found[4]:
            return f"{found[4]} ."
        if f"{found[1]}{found[2]}{found[3]}".lower() in self._origins:
            return found[0]
        self._removed[Kind.LINK_TARGET] += 1
        return f"{found[1]} {found[2]}{found[3]}"

    def _write_code_span(self, node: Node) -> str:
        content = self._clean(node.content)
        if not content.strip():
            return ""
        runs = {len(run) for run in re.findall(r"`+", content)}
        ticks = "`" * next(length for length in range(1, len(runs) + 2) if length not in runs)
        pad = " " if content[0] == "`" or content[-1] == "`" or content[0] == content[-1] == " " else ""
        text = f"{ticks}{pad}{content}{pad}{ticks}"
        return text.replace("|", "\\|") if self._in_table else text

    def _emphasise(self, node: Node, mark: str) -> str:
        inside = self._write_children(node)
        body = inside.strip(_BLANKS)
        if not self._with_emphasis or not body:
            return inside
        front, back = (
            inside[: len(inside) - len(inside.lstrip(_BLANKS))],
            inside[len(inside.rstrip(_BLANKS)) :],
        )
        return f"{front}{mark}{body}{mark}{back}"

    def _write_link(self, node: Node) -> str:
        target = self._allow(str(node.attrs.get("href", "")))
        text = self._write_children(node)
        if target is None:
            self._removed[Kind.LINK_TARGET] += 1
            return text
        self._removed[Kind.ATTRIBUTE_TEXT] += 1 if node.attrs.get("title") else 0
        if node.markup == "autolink":
            return f"<{target}>"
        return f"[{text}]({target.replace('&', '&amp;')})" if text.strip() else ""

    def _allow(self, target: str) -> str | None:
        """Give a link's target as it is written; None for one that is not listed, or not plain."""
        found = _TARGET.fullmatch(target)
        if found is None:
            return None
        scheme, host, port, rest = found[1].lower(), found[2].lower(), found[3], found[4]
        if port == _PORTS[scheme]:
            port = None
        origin = f"{scheme}://{host}:{port}" if port else f"{scheme}://{host}"
        return f"{origin}{rest}" if origin in self._origins else None


_RULES = {"left": ":--", "right": "--:", "center": ":-:"}


def _escape_start(found: re.Match[str]) -> str:
    """Keep a line's beginning from being that of a list, heading, quote, rule or table."""
    return f"{found[0]}\\" if found[0].isdigit() else f"\\{found[0]}"
