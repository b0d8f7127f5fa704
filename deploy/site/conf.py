"""How Sphinx makes the site out of docs/: `make docs` writes it to .toolcrib/site."""

from __future__ import annotations

import re
from typing import Any

project = "Toolcrib"
project_copyright = "Toolcrib's authors, Apache License 2.0"
extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
html_theme = "furo"
html_title = "Toolcrib"
html_show_sphinx = False
html_copy_source = False
myst_heading_anchors = 4
# Pages that no list names are reached from other pages.
suppress_warnings = ["toc.not_included", "misc.highlighting_failure", "myst.header"]

# What the side bar lists, by role; each page once.
CONTENTS = {
    "For those who build agents": (
        *("clients", "adapters/pydantic-ai", "adapters/langchain", "adapters/openai-agents"),
        *("adapters/google-adk", "adapters/mcp", "identity"),
    ),
    "For those who write tools": (
        *("ten-minutes", "authors", "contracts", "check", "handler", "http_rules"),
        *("frames", "content", "images"),
    ),
    "Tools that come with it": (
        *("tools/shop", "tools/git", "tools/web", "tools/files", "tools/notes", "tools/shell"),
        *("tools/github", "tools/crm", "tools/s3"),
    ),
    "For security teams": (
        *(
            "security",
            "path",
            "grants",
            "labels",
            "credentials",
            "engines/database",
            "engines/database_static",
        ),
        *("engines/kv", "engines/ldap", "engines/oauth2", "engines/pki", "engines/ssh", "engines/transit"),
        *("review", "vault", "rotation", "brake", "egress", "egress_http", "runtimes"),
    ),
    "For those who run it": ("operating", "cli", "state", "pool", "guarantees"),
    "Reference": ("reference/README", "adr/README"),
}


def name_files(_app: Any, page: str, source: list[str]) -> None:
    """Name a file of the repository instead of linking to it, as the site has only docs/; add the side bar.

    Args:
        page: Its name, without ending.
        source: One string, the page's text; changed in place.
    """
    if page == "index":
        source[0] += "".join(_list(caption, pages) for caption, pages in CONTENTS.items())
    depth = page.count("/")
    pattern = re.compile(rf"\[(?P<text>[^\]]+)\]\((?:\.\./){{{depth + 1}}}(?P<path>[^.][^)\s]*)\)")
    source[0] = pattern.sub(lambda link: _name(link["text"], link["path"]), source[0])


def _list(caption: str, pages: tuple[str, ...]) -> str:
    return "\n```{toctree}\n:caption: " + caption + "\n:hidden:\n\n" + "\n".join(pages) + "\n```\n"


def _name(text: str, path: str) -> str:
    path = path.partition("#")[0].rstrip("/")
    return f"`{path}`" if text.strip("`") in (path, path.rpartition("/")[2]) else f"{text} (`{path}`)"


def setup(app: Any) -> None:
    """Tell Sphinx of it."""
    app.connect("source-read", name_files)
