"""The bytes between broker and init, both ways, over one socket.

It is read by asyncio itself, so that a tool that floods its output costs no thread, and it can be closed at
any moment.

    StreamBroken         what came is not from init
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from typing import cast

from sandboxes.container_init import PIECE
from sandboxes.outcome import SandboxError

MAX_PIECE_BYTES = 128 * 1024
"""Init makes pieces of at most half of that."""

_MOST_UNREAD = 256 * 1024
_PIECE_COST = 128
"""Bytes of memory that a piece takes beside its own: a log of single letters must not fill ours."""

Piece = tuple[int, bytes]


class StreamBroken(SandboxError):
    """What came is not from init."""


class Pieces:
    """Init's stdout as it is written."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def __call__(self, data: bytes) -> list[Piece]:
        """Take bytes; give the pieces that are complete now."""
        self._buffer += data
        found, place, size = [], 0, len(self._buffer)
        while size - place >= PIECE.size:
            channel, length = PIECE.unpack_from(self._buffer, place)
            if length > MAX_PIECE_BYTES:
                raise StreamBroken("what came is not from init")
            end = place + PIECE.size + length
            if end > size:
                break
            found.append((channel, bytes(self._buffer[place + PIECE.size : end])))
            place = end
        del self._buffer[:place]
        return found


class Stream(asyncio.Protocol):
    """One sandbox's stdin and stdout."""

    def __init__(self) -> None:
        self._unpack = Pieces()
        self._transport: asyncio.Transport | None = None
        self._unread: deque[Piece] = deque()
        self._unread_bytes = 0
        self._ended = False
        self._fault: StreamBroken | None = None
        self._reader: asyncio.Future[None] | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._paused = False

    @classmethod
    async def over(cls, connected: socket.socket) -> Stream:
        """Use our end of a connection whose other end is init's stdin and stdout."""
        stream = cls()
        await asyncio.get_running_loop().create_unix_connection(lambda: stream, sock=connected)
        return stream

    async def send(self, data: bytes) -> None:
        """Write to init's stdin; returns when it is on its way.

        Raises:
            OSError: The stream is gone.
        """
        if self._transport is None or self._transport.is_closing():
            raise ConnectionResetError("the stream is closed")
        self._transport.write(data)
        if not self._writable.is_set():
            await self._writable.wait()

    def push(self, data: bytes) -> None:
        """Write to init's stdin without waiting until it is taken; lost when the stream is gone."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    async def read(self) -> Piece | None:
        """Read the next piece: its channel and its bytes; None at the end.

        Raises:
            StreamBroken: What came is no piece of init's.
        """
        while not self._unread:
            if self._fault is not None:
                raise self._fault
            if self._ended:
                return None
            self._reader = asyncio.get_running_loop().create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        piece = self._unread.popleft()
        self._unread_bytes -= len(piece[1]) + _PIECE_COST
        if self._paused and self._unread_bytes < _MOST_UNREAD // 2:
            self._resume()
        return piece

    @property
    def is_open(self) -> bool:
        """Whether the other end has not closed it yet, as far as is known."""
        return not self._ended and self._fault is None

    def peek(self) -> list[int]:
        """List the channels of the pieces that have come and were not read yet."""
        return [channel for channel, _ in self._unread]

    def close(self) -> None:
        """Let go at once, without waiting for what is still on its way."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        self._take_pieces(data)

    def eof_received(self) -> bool:
        """Called by the loop: the other end will write no more."""
        self._end()
        return False

    def connection_lost(self, _exc: Exception | None) -> None:
        """Called by the loop."""
        self._writable.set()
        self._end()

    def pause_writing(self) -> None:
        """Called by the loop."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """Called by the loop."""
        self._writable.set()

    def _take_pieces(self, data: bytes) -> None:
        try:
            pieces = self._unpack(data)
        except StreamBroken as fault:
            self._fault = fault
            self.close()
            self._wake()
            return
        if not pieces:
            return
        self._unread.extend(pieces)
        self._unread_bytes += sum(len(body) + _PIECE_COST for _, body in pieces)
        if self._unread_bytes > _MOST_UNREAD and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()
        self._wake()

    def _resume(self) -> None:
        self._paused = False
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def _end(self) -> None:
        self._ended = True
        self._wake()

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)
