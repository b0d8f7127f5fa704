"""One request of the sandbox and the answer to it, as bytes on its connection.

Heads are read and written in sandboxes/proxy/heads.py. Here is what comes between: how long bodies are. A
request's body is read by h11, which has the head, too, then: both have to understand it. Where none follows
there is nothing that two parsers could take for different lengths.
"""

from __future__ import annotations

import h11

from sandboxes.proxy.heads import HeadInvalid, RequestHead, says_close, write_answer

RawHeaders = list[tuple[bytes, bytes]]

EVENT_BYTES = 64 * 1024
"""What h11 keeps of a message that is not complete: more than any head, and more than any chunk's header."""
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
        parser: Reads the request's body; None where there is none.
    """

    def __init__(self) -> None:
        self.parser: h11.Connection | None = None
        self._head: RequestHead | None = None
        self._body: BodyWriter | None = None
        self._closes, self._is_answered = True, False

    def take(self, head: RequestHead, raw: bytes) -> None:
        """Take the request's head.

        Raises:
            HeadInvalid: A body follows, and h11 does not understand the head.
        """
        self._closes = head.minor == 0 or says_close(head.headers)
        if head.has_body:
            self.parser = read_again(h11.Connection(h11.SERVER, max_incomplete_event_size=EVENT_BYTES), raw)
        self._head = head

    @property
    def request_is_read(self) -> bool:
        """Whether the request was read to its end."""
        if self._head is None:
            return False
        return self.parser is None or self.parser.their_state in {h11.DONE, h11.MUST_CLOSE, h11.CLOSED}

    @property
    def waits(self) -> bool:
        """Whether the client waits for a word before it sends its body."""
        return (
            self.parser is not None and self._body is None and self.parser.they_are_waiting_for_100_continue
        )

    def go_on(self) -> bytes:
        """Tell the client to send its body."""
        assert self.parser is not None
        self.parser.send(h11.InformationalResponse(status_code=100, headers=[]))
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
        self._body = BodyWriter(length if has_body else 0, chunked)
        return data

    def end_connection(self) -> None:
        """Have the answer say that it is the last one of its connection."""
        self._closes = True

    def write(self, data: bytes) -> bytes:
        """Write a piece of the answer's body; raises as `BodyWriter.write`."""
        assert self._body is not None
        return self._body.write(data)

    def finish(self) -> bytes:
        """Write the answer's end; raises as `BodyWriter.finish`."""
        assert self._body is not None
        data = self._body.finish()
        self._is_answered = True
        return data

    def may_go_on(self) -> bool:
        """Tell whether the connection can have another request."""
        if self._closes or not self._is_answered or not self.request_is_read:
            return False
        return self.parser is None or not self.parser.trailing_data[1]

    @property
    def rest(self) -> bytes:
        """What came behind the request's body."""
        return b"" if self.parser is None else bytes(self.parser.trailing_data[0])


def read_again(parser: h11.Connection, raw: bytes) -> h11.Connection:
    """Have h11 read a head that was read here; it then reads the body.

    Raises:
        HeadInvalid: It does not understand it.
    """
    try:
        parser.receive_data(raw)
        event = parser.next_event()
    except h11.RemoteProtocolError as error:
        raise HeadInvalid("the head is of no form that every parser reads alike") from error
    if not isinstance(event, h11.Request | h11.Response):
        raise HeadInvalid("the head is of no form that every parser reads alike")
    return parser
