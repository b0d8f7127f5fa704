"""The body of a request or an answer as it is read: of a length, in chunks, or up to its connection's end."""

from __future__ import annotations

from typing import Protocol

from sandboxes.proxy.chunks import ANSWERED_CHUNK, ASKED_CHUNK, ChunkReader, ChunksInvalid
from sandboxes.proxy.heads import ANSWERED_LINE, ASKED_LINE, Framing
from sandboxes.proxy.wire import PIECE_BYTES, Wire

_OVERHEAD = 8
"""A body in chunks of one byte takes six times its size; one with long chunk extensions is refused."""


class BodyInvalid(Exception):
    """A body's framing is broken, or it ended too early."""


class BodyTooLong(Exception):
    """A body is longer than it may be."""


class BodyReader(Protocol):
    """The body of one message, held to a number of bytes.

    Attributes:
        most_bytes: How many it may have; None: it is not known yet, or does not matter any more.
    """

    most_bytes: int | None

    @property
    def has_begun(self) -> bool:
        """Whether any of it was read."""

    @property
    def is_read(self) -> bool:
        """Whether all of it was read."""

    @property
    def is_over(self) -> bool:
        """Whether it is complete, and nothing came behind it."""

    def take(self) -> bytes | None:
        """Take a piece that has come already; None: one has to be waited for. Empty: the body is complete.

        Raises:
            BodyInvalid: Its framing is broken.
            BodyTooLong: It has more bytes than it may.
        """

    async def read(self) -> bytes:
        """Read a piece; empty when the body is complete.

        Raises:
            BodyInvalid: Its framing is broken, or it ended too early.
            BodyTooLong: It has more bytes than it may.
            WireLost: The other side is gone.
        """


class MeasuredBody:
    """A body whose length was said."""

    def __init__(self, length: int, wire: Wire, most_bytes: int | None) -> None:
        self.most_bytes = most_bytes
        self._length = self._left = length
        self._wire = wire

    @property
    def has_begun(self) -> bool:
        """See `BodyReader`."""
        return self._left < self._length

    @property
    def is_read(self) -> bool:
        """See `BodyReader`."""
        return self._left == 0

    @property
    def is_over(self) -> bool:
        """See `BodyReader`."""
        return self.is_read and not self._wire.has_unread

    def take(self) -> bytes | None:
        """See `BodyReader`."""
        if self._left == 0:
            return b""
        if self.most_bytes is not None and self._length > self.most_bytes:
            raise BodyTooLong
        piece = self._wire.take(self._left)
        self._left -= len(piece)
        return piece or None

    async def read(self) -> bytes:
        """See `BodyReader`."""
        piece = self.take()
        if piece is None:
            data = await self._wire.read()
            if not data:
                raise BodyInvalid
            piece, more = data[: self._left], data[self._left :]
            if more:
                self._wire.push_back(more)
            self._left -= len(piece)
        return piece


class ChunkedBody:
    """A body in chunks; trailers are dropped."""

    def __init__(self, reader: ChunkReader, wire: Wire, most_bytes: int | None) -> None:
        self.most_bytes = most_bytes
        self._reader, self._wire = reader, wire
        self._body_bytes = self._raw_bytes = 0

    @property
    def has_begun(self) -> bool:
        """See `BodyReader`."""
        return self._raw_bytes > 0

    @property
    def is_read(self) -> bool:
        """See `BodyReader`."""
        return self._reader.is_over

    @property
    def is_over(self) -> bool:
        """See `BodyReader`."""
        return self.is_read and not self._wire.has_unread

    def take(self) -> bytes | None:
        """See `BodyReader`."""
        if self._reader.is_over:
            return b""
        try:
            piece = self._reader.take()
        except ChunksInvalid as error:
            raise BodyInvalid from error
        if self._reader.is_over and (rest := self._reader.take_rest()):
            self._wire.push_back(rest)
        self._body_bytes += len(piece or b"")
        if self.most_bytes is not None and self._body_bytes > self.most_bytes:
            raise BodyTooLong
        return piece

    async def read(self) -> bytes:
        """See `BodyReader`."""
        while (piece := self.take()) is None:
            data = await self._wire.read()
            if not data:
                raise BodyInvalid
            self._raw_bytes += len(data)
            self._reader.feed(data)
            if (
                self.most_bytes is not None
                and self._raw_bytes > self.most_bytes * _OVERHEAD + PIECE_BYTES * 2
            ):
                raise BodyTooLong
        return piece


class EndlessBody:
    """A body that ends with its connection."""

    is_over = False

    def __init__(self, wire: Wire, most_bytes: int | None) -> None:
        self.most_bytes = most_bytes
        self._wire = wire
        self._body_bytes = 0
        self._is_read = False

    @property
    def has_begun(self) -> bool:
        """See `BodyReader`."""
        return self._is_read or self._body_bytes > 0

    @property
    def is_read(self) -> bool:
        """See `BodyReader`."""
        return self._is_read

    def take(self) -> bytes | None:
        """See `BodyReader`."""
        return b"" if self._is_read else None

    async def read(self) -> bytes:
        """See `BodyReader`."""
        piece = b"" if self._is_read else await self._wire.read()
        self._is_read = not piece
        self._body_bytes += len(piece)
        if self.most_bytes is not None and self._body_bytes > self.most_bytes:
            raise BodyTooLong
        return piece


def read_asked_body(framing: Framing, wire: Wire) -> BodyReader:
    """Give what reads a request's body, whose limit is not known yet."""
    if framing.chunked:
        return ChunkedBody(ChunkReader(ASKED_CHUNK, ASKED_LINE), wire, None)
    return MeasuredBody(framing.length or 0, wire, None)


def read_answered_body(framing: Framing, wire: Wire, most_bytes: int) -> BodyReader:
    """Give what reads an answer's body."""
    if framing.length is not None:
        return MeasuredBody(framing.length, wire, most_bytes)
    if framing.chunked:
        return ChunkedBody(ChunkReader(ANSWERED_CHUNK, ANSWERED_LINE), wire, most_bytes)
    return EndlessBody(wire, most_bytes)
