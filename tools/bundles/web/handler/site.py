"""One GET to a declared site.

Rules:
1. The host of the URL is one that the operator declared for the target; any other is refused here, and the
   egress process would not reach it either.
2. What the server says never stands in a message of ours: its words come back in untrusted fields only.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from web.v1 import web_pb2

from toolcrib.handler import Failure
from toolcrib.handler.http_target import HttpAnswer, HttpFailed, HttpRequest, send

if TYPE_CHECKING:
    from toolcrib.handler import Context

TARGET = "web-pages"
MOST_BODY_BYTES = 256 * 1024
# Kept back from the deadline, so that the answer still gets out.
_RESERVE_SECONDS = 1.0
_MOST_TYPE, _MOST_LOCATION = 100, 1000
_CHARSETS = {"utf-8", "us-ascii", "iso-8859-1", "windows-1252"}


class Document(NamedTuple):
    """What came back.

    Attributes:
        answer: For the response.
        text: The body; empty where the server gave none of a kind that was asked for.
    """

    answer: web_pb2.Answer
    text: str


def fetch(context: Context, url: str, media_types: Collection[str]) -> Document:
    """Get one document.

    Args:
        context: The call's context.
        url: As the contract lets it through.
        media_types: Kinds that the method reads, for example "text/html".

    Raises:
        Failure: SITE_UNKNOWN, PAGE_UNAVAILABLE or MEDIA_TYPE_OTHER.
    """
    target = context.targets[TARGET]
    parts = urlsplit(url)
    hosts = target.settings.get("hosts", "").split()
    if parts.netloc not in hosts:
        known = ", ".join(hosts) or "no site: the operator declared none"
        raise Failure("SITE_UNKNOWN", f"This tool reaches {known}; nothing was sent.")
    path = parts.path + (f"?{parts.query}" if parts.query else "")
    accept = {"Accept": ", ".join(media_types)}
    request = HttpRequest("GET", path, parts.netloc, accept, most_bytes=MOST_BODY_BYTES)
    try:
        answer = send(target, request, max(context.remaining_seconds - _RESERVE_SECONDS, 0.1))
    except HttpFailed as error:
        raise Failure("PAGE_UNAVAILABLE", f"The page is not to be had: {error}.", retryable=True) from error
    return _read(answer, media_types)


def _read(answer: HttpAnswer, media_types: Collection[str]) -> Document:
    media_type, _, parameters = answer.headers.get("content-type", "").partition(";")
    kind = media_type.strip().lower()
    found = web_pb2.Answer(
        status=answer.status,
        media_type=_clip(kind, _MOST_TYPE),
        location=_clip(answer.headers.get("location", ""), _MOST_LOCATION),
        is_cut=answer.is_cut,
    )
    if kind in media_types:
        return Document(found, _decode(answer.body, parameters))
    if 200 <= answer.status <= 299 and answer.body:
        readable = " or ".join(media_types)
        raise Failure("MEDIA_TYPE_OTHER", f"The server has no {readable} there; use another Fetch method.")
    return Document(found, "")


def _decode(body: bytes, parameters: str) -> str:
    """Read bytes as text; what is no text of its charset becomes a replacement character."""
    charset = "utf-8"
    for parameter in parameters.lower().split(";"):
        name, _, value = parameter.strip().partition("=")
        if name == "charset" and value.strip('"') in _CHARSETS:
            charset = value.strip('"')
    return body.decode(charset, "replace")


def _clip(text: str, most: int) -> str:
    """Take a header as text: `http.client` reads it as Latin-1."""
    return text[:most]
