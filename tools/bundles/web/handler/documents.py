"""One function for each kind of document; the broker cleans what each gives, by the kind of its field."""

from __future__ import annotations

import html
import re
from typing import TYPE_CHECKING

from web.v1 import web_pb2

from toolcrib.handler import Failure

from .site import fetch

if TYPE_CHECKING:
    from toolcrib.handler import Context

_TITLE = re.compile(r"<title[^<>]{0,200}>([^<]{0,2000})</title", re.IGNORECASE)
_HEAD_CHARACTERS, _MOST_TITLE = 65_536, 300


def fetch_page(request: web_pb2.FetchPageRequest, context: Context) -> web_pb2.FetchPageResponse:
    """Get an HTML page with its title."""
    document = fetch(context, request.url, ("text/html", "application/xhtml+xml"))
    found = _TITLE.search(document.text, 0, _HEAD_CHARACTERS)
    title = " ".join(html.unescape(found[1]).split()) if found else ""
    return web_pb2.FetchPageResponse(answer=document.answer, title=title[:_MOST_TITLE], body=document.text)


def fetch_text(request: web_pb2.FetchTextRequest, context: Context) -> web_pb2.FetchTextResponse:
    """Get plain text."""
    document = fetch(context, request.url, ("text/plain",))
    return web_pb2.FetchTextResponse(answer=document.answer, body=document.text)


def fetch_markdown(request: web_pb2.FetchMarkdownRequest, context: Context) -> web_pb2.FetchMarkdownResponse:
    """Get Markdown; servers often call it plain text."""
    document = fetch(context, request.url, ("text/markdown", "text/plain"))
    return web_pb2.FetchMarkdownResponse(answer=document.answer, body=document.text)


def fetch_json(request: web_pb2.FetchJsonRequest, context: Context) -> web_pb2.FetchJsonResponse:
    """Get one JSON value; half of one is none.

    Raises:
        Failure: DOCUMENT_TOO_LARGE, or what `fetch` raises.
    """
    document = fetch(context, request.url, ("application/json",))
    if document.answer.is_cut:
        raise Failure("DOCUMENT_TOO_LARGE", "The document is larger than 256 KiB; half of it means nothing.")
    return web_pb2.FetchJsonResponse(answer=document.answer, body=document.text.strip() or "null")
