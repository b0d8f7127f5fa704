"""One end of a connection, as heads and bodies are read from it and written to it, with bounded buffers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

import h11

from sandboxes.proxy.heads import END, MAX_HEAD_BYTES, HeadInvalid, find_lone

PIECE_BYTES = 65_536
"""What is read at once."""
_OVERHEAD = 8
"""A body in chunks of one byte takes six times its size; one with long chunk extensions is refused."""


class WireLost(Exception):
    """The other side is gone. Each end has its own kind, so that it is known which."""


class ClientLost(WireLost):
    """The sandbox's end."""


class TargetLost(WireLost):
    """The target's end."""


class BodyInvalid(Exception):
    """A body's framing is broken, or it ended too early."""


class BodyTooLong(Exception):
    """A body is longer than it may be."""


class Wire:
    """One end.

    Attributes:
        taken_bytes: How much was read from it, without what was pushed back.
    """

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, lost: type[WireLost]
    ) -> None:
        self.reader, self.writer = reader, writer
        self.taken_bytes = 0
        self._lost = lost
        self._held = b""
        # Nothing is kept back: uvloop then writes at once, not when the loop comes round, and what the other
        # end does not take holds the writer.
        writer.transport.set_write_buffer_limits(high=0)

    @property
    def has_unread(self) -> bool:
        """Whether something came that was not asked for yet, the end included."""
        # asyncio has no public way to ask this of a reader.
        return bool(self._held or getattr(self.reader, "_buffer", b"")) or self.reader.at_eof()

    async def read(self) -> bytes:
        """Read what comes next; empty at the end.

        Raises:
            WireLost: It is gone.
        """
        if self._held:
            held, self._held = self._held, b""
            self.taken_bytes += len(held)
            return held
        try:
            data = await self.reader.read(PIECE_BYTES)
        except OSError as error:  # TLS errors are such, too
            raise self._lost from error
        self.taken_bytes += len(data)
        return data

    def take(self, most_bytes: int) -> bytes:
        """Give what came already and was pushed back, as far as it is there."""
        held, self._held = self._held[:most_bytes], self._held[most_bytes:]
        self.taken_bytes += len(held)
        return held

    def push_back(self, data: bytes) -> None:
        """Give back what belongs to the next message."""
        self._held = data + self._held
        self.taken_bytes -= len(data)

    async def read_head(self, on_part: Callable[[], None] = lambda: None) -> bytes | None:
        """Read up to an empty line.

        Args:
            on_part: Called when its first bytes are there, and more have to be waited for.

        Returns:
            The head with its empty line; None where the other side ended before it said anything.

        Raises:
            HeadInvalid: It cannot become a head, or ended in its middle.
            WireLost: The other side is gone.
        """
        raw = await self.read()
        if not raw:
            return None
        end = raw.find(END)
        if end < 0:
            on_part()
            raw, end = await self._read_on(raw)
        if end + len(END) > MAX_HEAD_BYTES:
            raise HeadInvalid(f"the head is longer than {MAX_HEAD_BYTES} bytes")
        if len(raw) > end + len(END):
            self.push_back(raw[end + len(END) :])
        return raw[: end + len(END)]

    async def _read_on(self, first: bytes) -> tuple[bytes, int]:
        raw, checked, end = bytearray(first), 0, -1
        while end < 0:
            if len(raw) > MAX_HEAD_BYTES:
                raise HeadInvalid(f"the head is longer than {MAX_HEAD_BYTES} bytes")
            if find_lone(raw[max(0, checked - 1) :]):
                raise HeadInvalid("a line does not end as lines do (CR LF)")
            checked = len(raw)
            more = await self.read()
            if not more:
                raise HeadInvalid("it ended in the middle of the head")
            raw += more
            end = raw.find(END, max(0, checked - 3))
        return bytes(raw), end

    def write(self, data: bytes) -> None:
        """Write, unsent or not; `drain` holds the writer back."""
        if not self.writer.transport.is_closing():
            self.writer.write(data)

    async def drain(self) -> None:
        """Wait until not too much is unsent.

        Raises:
            WireLost: It is gone.
        """
        try:
            await self.writer.drain()
        except OSError as error:
            raise self._lost from error

    def close(self) -> None:
        """Send what is unsent, then close."""
        self.writer.close()

    def abort(self) -> None:
        """Drop what is unsent and close."""
        self.writer.transport.abort()


class BodyReader(Protocol):
    """The body of one message, held to a number of bytes."""

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

    def __init__(self, length: int, wire: Wire, most_bytes: int) -> None:
        self._left, self._wire = length, wire
        self._is_too_long = length > most_bytes

    @property
    def is_over(self) -> bool:
        """See `BodyReader`."""
        return self._left == 0 and not self._wire.has_unread

    def take(self) -> bytes | None:
        """See `BodyReader`."""
        if self._left == 0:
            return b""
        if self._is_too_long:
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


class ParsedBody:
    """A body in h11's framing."""

    def __init__(self, parser: h11.Connection, wire: Wire, most_bytes: int) -> None:
        self._body_bytes = 0
        self._parser, self._wire, self._most_bytes = parser, wire, most_bytes
        self._raw_left = most_bytes * _OVERHEAD + PIECE_BYTES * 2
        self._done = False

    @property
    def is_over(self) -> bool:
        """See `BodyReader`."""
        return self._done and not self._parser.trailing_data[0] and self._parser.their_state is h11.DONE

    def take(self) -> bytes | None:
        """See `BodyReader`."""
        if self._done:
            return b""
        try:
            event = self._parser.next_event()
        except h11.RemoteProtocolError as error:
            raise BodyInvalid from error
        if isinstance(event, h11.Data):
            self._body_bytes += len(event.data)
            if self._body_bytes > self._most_bytes:
                raise BodyTooLong
            return bytes(event.data)
        if isinstance(event, h11.EndOfMessage):  # trailers end here
            self._done = True
            return b""
        return None

    async def read(self) -> bytes:
        """See `BodyReader`."""
        while (piece := self.take()) is None:
            data = await self._wire.read()
            self._raw_left -= len(data)
            if self._raw_left < 0:
                raise BodyTooLong
            self._feed(data)
        return piece

    def _feed(self, data: bytes) -> None:
        try:
            self._parser.receive_data(data)
        except (h11.RemoteProtocolError, RuntimeError) as error:
            raise BodyInvalid from error
