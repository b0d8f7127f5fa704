"""One end of a connection, as heads and pieces are read from it and written to it, with bounded buffers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from sandboxes.proxy.heads import END, MAX_HEAD_BYTES, HeadInvalid, find_lone

PIECE_BYTES = 65_536
"""What is read at once."""


class WireLost(Exception):
    """The other side is gone. Each end has its own kind, so that it is known which."""


class ClientLost(WireLost):
    """The sandbox's end."""


class TargetLost(WireLost):
    """The target's end."""


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

    @property
    def has_unsent(self) -> bool:
        """Whether something was written that the other end did not take yet."""
        return self.writer.transport.get_write_buffer_size() > 0

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
