"""One request of the sandbox and the answer to it, as bytes on its connection.

Heads are read and written in sandboxes/proxy/heads.py, bodies are read in sandboxes/proxy/bodies.py. Here is
what holds them together: how an answer's body is written, and what becomes of the connection.
"""

from __future__ import annotations

from sandboxes.proxy.bodies import BodyReader, read_asked_body
from sandboxes.proxy.heads import RequestHead, says_close, write_answer
from sandboxes.proxy.wire import Wire

RawHeaders = list[tuple[bytes, bytes]]

_GO_ON = b"HTTP/1.1 100 Continue\r\n\r\n"
WITHOUT_BODY = frozenset({204, 304})


class BodyMiscounted(Exception):
    """What is to be written is longer or shorter than was said before."""


class BodyWriter:
    """Frames a body: `length` bytes, or in chunks, or up to the connection's end."""

    def __init__(self, length: int | None, chunked: bool) -> None:
        self._left, self._chunked = length, chunked

    def write(self, data: bytes) -> bytes:
        """Frame a piece.

        Raises:
            BodyMiscounted: It is more than was said.
        """
        if self._left is not None:
            self._left -= len(data)
            if self._left < 0:
                raise BodyMiscounted
        return b"%x\r\n%b\r\n" % (len(data), data) if self._chunked and data else data

    def finish(self) -> bytes:
        """Frame the end.

        Raises:
            BodyMiscounted: There was less than was said.
        """
        if self._left:
            raise BodyMiscounted
        return b"0\r\n\r\n" if self._chunked else b""


class Turn:
    """One request and the answer to it.

    Attributes:
        body: Reads the request's body; None where there is none.
    """

    def __init__(self) -> None:
        self.body: BodyReader | None = None
        self._head: RequestHead | None = None
        self._writer: BodyWriter | None = None
        self._expects = False
        self._closes, self._is_answered = True, False

    def take(self, head: RequestHead, client: Wire) -> None:
        """Take the request's head."""
        self._closes = head.minor == 0 or says_close(head.headers)
        if head.has_body:
            self.body, self._expects = read_asked_body(head.framing, client), head.expects
        self._head = head

    @property
    def request_is_read(self) -> bool:
        """Whether the request was read to its end."""
        return self._head is not None and (self.body is None or self.body.is_read)

    @property
    def waits(self) -> bool:
        """Whether the client waits for a word before it sends its body."""
        return self._expects and self._writer is None and self.body is not None and not self.body.has_begun

    def go_on(self) -> bytes:
        """Tell the client to send its body."""
        self._expects = False
        return _GO_ON

    def begin(self, status: int, headers: RawHeaders, length: int | None) -> bytes:
        """Write the answer's head.

        Args:
            status: Three digits, no interim one.
            headers: Without any that says how long the body is, or what becomes of the connection.
            length: Of the body; None: not known. Where there can be no body, what a GET would have had.

        Raises:
            HeadInvalid: It cannot be written.
        """
        has_body = status not in WITHOUT_BODY and not (self._head and self._head.method == "HEAD")
        chunked = has_body and length is None and self._head is not None and self._head.minor == 1
        self._closes = self._closes or (has_body and length is None and not chunked)
        if length is not None and status not in WITHOUT_BODY:
            headers = [*headers, (b"content-length", b"%d" % length)]
        if chunked:
            headers = [*headers, (b"transfer-encoding", b"chunked")]
        if self._closes:
            headers = [*headers, (b"connection", b"close")]
        data = write_answer(status, headers)
        self._writer = BodyWriter(length if has_body else 0, chunked)
        return data

    def end_connection(self) -> None:
        """Have the answer say that it is the last one of its connection."""
        self._closes = True

    def write(self, data: bytes) -> bytes:
        """Write a piece of the answer's body; raises as `BodyWriter.write`."""
        assert self._writer is not None
        return self._writer.write(data)

    def finish(self) -> bytes:
        """Write the answer's end; raises as `BodyWriter.finish`."""
        assert self._writer is not None
        data = self._writer.finish()
        self._is_answered = True
        return data

    def may_go_on(self) -> bool:
        """Tell whether the connection can have another request."""
        return not self._closes and self._is_answered and self.request_is_read
