"""Bodies that come packed although nothing packed was asked for: unpacked piece by piece, never at once."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

_PIECE_BYTES = 65_536
_GZIP, _ZLIB, _RAW = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS, -zlib.MAX_WBITS


class PackingRefused(Exception):
    """It is packed in a way that is not unpacked here, or is broken."""


class Unpacker:
    """Unpacks one body. What it gives comes in pieces of at most 64 KiB: who counts can stop a bomb."""

    def __init__(self, coding: str) -> None:
        """Prepare.

        Args:
            coding: The value of Content-Encoding.

        Raises:
            PackingRefused: It is not gzip, deflate or identity alone.
        """
        name = coding.strip().lower()
        if name not in {"", "identity", "gzip", "x-gzip", "deflate"}:
            raise PackingRefused
        self._is_plain = name in {"", "identity"}
        self._is_deflate = name == "deflate"
        self._inflater = zlib.decompressobj(_GZIP if "gzip" in name else _ZLIB)
        self._is_first, self._is_whole = True, False

    @property
    def is_plain(self) -> bool:
        """Whether there is nothing to unpack."""
        return self._is_plain

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Unpack a piece.

        Raises:
            PackingRefused: It is broken, or goes on after its end.
        """
        if self._is_plain:
            if data:
                yield data
            return
        if self._is_first and data:
            self._is_first = False
            # RFC 9110, 8.4.1.2: some send deflate without the zlib frame that belongs to it.
            if self._is_deflate and data[0] & 0x0F != 8:
                self._inflater = zlib.decompressobj(_RAW)
        yield from self._drain(data)

    def finish(self) -> None:
        """Say that the body is complete.

        Raises:
            PackingRefused: It is cut.
        """
        if not self._is_plain and not self._is_first and not self._inflater.eof:
            raise PackingRefused

    def _drain(self, data: bytes) -> Iterator[bytes]:
        while True:
            piece = self._unpack(data)
            data = self._inflater.unconsumed_tail
            if piece:
                yield piece
            if not data and len(piece) < _PIECE_BYTES:  # else zlib may hold more
                return

    def _unpack(self, data: bytes) -> bytes:
        if self._inflater.eof:
            if data:
                raise PackingRefused
            return b""
        try:
            piece = self._inflater.decompress(data, _PIECE_BYTES)
        except zlib.error as error:
            raise PackingRefused from error
        if self._inflater.unused_data:  # a second member: what it would add, no length had announced
            raise PackingRefused
        return piece
