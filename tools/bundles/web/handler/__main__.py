"""Serve one call of web.v1.Web, then end.

Run by the sandbox's init as `python3 -m handler` in the bundle's folder.
"""

from __future__ import annotations

from web.v1 import web_pb2

from toolcrib.handler import Handler

from .documents import fetch_json, fetch_markdown, fetch_page, fetch_text

handler = Handler()
handler.tool("web.v1.Web/FetchPage", web_pb2.FetchPageRequest)(fetch_page)
handler.tool("web.v1.Web/FetchText", web_pb2.FetchTextRequest)(fetch_text)
handler.tool("web.v1.Web/FetchMarkdown", web_pb2.FetchMarkdownRequest)(fetch_markdown)
handler.tool("web.v1.Web/FetchJson", web_pb2.FetchJsonRequest)(fetch_json)

if __name__ == "__main__":
    handler.run()
