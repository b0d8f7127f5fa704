"""Plain HTTP/1.1 to a target, through its unix socket: one request, one answer, capped in size and time.

    from toolcrib.handler.http_target import HttpRequest, send

    answer = send(context.targets["pages"], HttpRequest("GET", "/index.html", "pages.example"), 10.0)

Rules:
1. No redirect is followed: a server must not choose what is asked next.
2. Only what is sent as it is gets read (`identity`): a small answer cannot unpack to a large one.
3. At most `most_bytes` of the body are read, chunked or not, and a multiple of it of all that the server
   sends; the whole exchange ends when its time is over, however slowly the server drips.
4. A refusal of the way out, which has the header `toolcrib-egress`, is no answer of the target: it is raised.
5. A path or a header with a line end, a control character or a space is refused before anything is sent, so
   that no value can become a header or a second request.

It is not imported by `toolcrib.handler`: `http.client` costs a start some 20 ms that only its users pay.
"""

from __future__ import annotations

import http.client
import re
from collections.abc import Mapping
from contextlib import closing
from typing import NamedTuple

from toolcrib.handler.context import Target
from toolcrib.handler.target_socket import TargetSocket

MOST_BYTES = 1024 * 1024
"""How much of a body is read unless a request says otherwise."""
_HEAD_BYTES = 1024 * 1024
_WRAPPING = 6
"""A body in chunks of one byte takes six times its size."""

_REFUSAL_HEADER = "toolcrib-egress"
_PATH = re.compile(r"/[!-~]*")
_HOST = re.compile(r"[A-Za-z0-9.-]{1,253}(:[0-9]{1,5})?")
_HEADER_VALUE = re.compile(r"[ -~]*")


class HttpRequest(NamedTuple):
    """What is asked.

    Attributes:
        method: For example "GET".
        path: With its query, percent-encoded; begins with "/".
        host: For the header Host.
        headers: More headers; Host, Connection, Accept-Encoding and the body's length are set here.
        body: None: the request has none.
        most_bytes: How much of the answer's body is read.
    """

    method: str
    path: str
    host: str
    headers: Mapping[str, str] = {}
    body: bytes | None = None
    most_bytes: int = MOST_BYTES


class HttpAnswer(NamedTuple):
    """What the server said.

    Attributes:
        status: 200 to 599.
        headers: Names in lower case; of a name that stands twice, the first. Somebody else's words.
        body: At most `most_bytes` of it.
        is_cut: There was more.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    is_cut: bool


class HttpFailed(Exception):
    """There is no answer; the text is ours, without anything of the server's.

    Attributes:
        was_sent: The request may have reached the server.
    """

    def __init__(self, text: str, was_sent: bool) -> None:
        super().__init__(text)
        self.was_sent = was_sent


class _Connection(http.client.HTTPConnection):
    """An HTTP connection over a socket that is connected already."""

    def __init__(self, connected: TargetSocket) -> None:
        super().__init__("localhost")
        self.sock = connected


def send(target: Target, request: HttpRequest, seconds: float) -> HttpAnswer:
    """Send one request and read its answer.

    Args:
        target: Of kind "http".
        request: What is asked.
        seconds: For all of it.

    Raises:
        ValueError: Path, host or a header cannot be sent.
        HttpFailed: No connection, no answer in time, or none that can be read.
    """
    _check(request)
    allowance = _HEAD_BYTES + _WRAPPING * request.most_bytes
    try:
        connected = TargetSocket(target.socket_path, seconds, allowance)
    except OSError as error:
        raise HttpFailed("the target cannot be reached", was_sent=False) from error
    with connected, closing(_Connection(connected)) as connection:
        try:
            answer = _exchange(connection, request)
        except (OSError, http.client.HTTPException, ValueError) as error:
            text = "the target gave no answer that can be read, or not in time"
            raise HttpFailed(text, was_sent=True) from error
    if refused := answer.headers.get(_REFUSAL_HEADER):
        # What a rule refuses reaches no target; from 500 on the target may have got it.
        text = f"the way out did not let that pass ({refused[:20]})"
        raise HttpFailed(text, was_sent=answer.status >= 500)
    return answer


def _exchange(connection: _Connection, request: HttpRequest) -> HttpAnswer:
    headers = {**request.headers, "Host": request.host, "Connection": "close", "Accept-Encoding": "identity"}
    connection.request(request.method, request.path, body=request.body, headers=headers)
    with connection.getresponse() as response:
        return _read(response, request.most_bytes)


def _read(response: http.client.HTTPResponse, most_bytes: int) -> HttpAnswer:
    if not 200 <= response.status <= 599:
        raise http.client.UnknownProtocol("a status that ends no exchange")
    found: dict[str, str] = {}
    for name, value in response.getheaders():
        found.setdefault(name.lower(), value)
    if found.get("content-encoding", "identity").strip().lower() != "identity":
        raise http.client.UnknownTransferEncoding("the body is packed though identity was asked for")
    body = response.read(most_bytes + 1)
    is_cut = len(body) > most_bytes
    if not is_cut and response.length:
        raise http.client.IncompleteRead(body)
    return HttpAnswer(response.status, found, body[:most_bytes], is_cut)


def _check(request: HttpRequest) -> None:
    """Refuse what could become more than the one request that it is.

    Raises:
        ValueError: Says what.
    """
    if not _PATH.fullmatch(request.path):
        raise ValueError("path: begins with '/' and holds no space, line end or control character")
    if not _HOST.fullmatch(request.host):
        raise ValueError("host: a name, or a name and a port")
    for name, value in request.headers.items():
        if not _HEADER_VALUE.fullmatch(value):
            raise ValueError(f"header {name}: its value holds more than printable ASCII")
