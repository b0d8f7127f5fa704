r"""A body in chunks (RFC 9112, 7.1): read in one form, in time that is linear however it is cut.

What a hostile end sends is read on the loop that serves all calls, so nothing here looks at a byte twice
because more of them came, and nothing searches further than a line may be long:

1. A chunk's line is `SIZE` or `SIZE;EXTENSION` and CR LF, 256 bytes at most. SIZE has 1 to 15 hex digits; the
   extension is printable ASCII and tabs, and dropped. No space stands around the size, but behind that of an
   answer: some servers fill the line up, and what they say is framed anew.
2. Exactly CR LF stands behind a chunk's bytes.
3. Behind the last chunk come trailers, lines of the form that a head's have, 8 KiB and 100 lines of them at
   most, and an empty line. They are dropped.
"""

from __future__ import annotations

import enum
import re

_MOST_LINE_BYTES = 256
_MOST_TRAILER_BYTES = 8 * 1024
_MOST_TRAILERS = 100
_MOST_JOINED = 64
"""So many chunks are given as one piece at most: they may have one byte each, and every piece is work."""

ASKED_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,15})(?:;[\t\x20-\x7e]*)?\r\n")
ANSWERED_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,15})[\t ]*(?:;[\t\x20-\x7e]*)?\r\n")
_END = b"\r\n"


class ChunksInvalid(Exception):
    """They are of no form that every parser reads alike."""


class _At(enum.Enum):
    """What comes next; its value is how many bytes that has at most, where it is a line."""

    LINE = _MOST_LINE_BYTES
    DATA = 0
    DATA_END = len(_END)
    TRAILERS = _MOST_TRAILER_BYTES
    OVER = -1


class ChunkReader:
    """Reads one body; what comes is fed, what it holds is taken."""

    def __init__(self, line: re.Pattern[bytes], trailer: re.Pattern[bytes]) -> None:
        """Begin before the first chunk.

        Args:
            line: The form of a chunk's line, with its end; its first group is the size.
            trailer: The form of one trailer's line, with its end.
        """
        self._form, self._trailer = line, trailer
        self._data, self._next = b"", 0
        self._line = bytearray()
        self._at, self._room, self._left = _At.LINE, _MOST_LINE_BYTES, 0
        self._trailers = 0
        self._is_broken = False

    @property
    def is_over(self) -> bool:
        """Whether its last line was read."""
        return self._at is _At.OVER

    def feed(self, data: bytes) -> None:
        """Give it what came next; everything before has to have been taken."""
        assert self._next == len(self._data)
        self._data, self._next = data, 0

    def take(self) -> bytes | None:
        """Take bytes of the body; None: more has to be fed. Empty: it is over.

        Raises:
            ChunksInvalid: It is broken; so it stays.
        """
        if self._is_broken:
            raise ChunksInvalid
        pieces: list[bytes] = []
        while not self.is_over and len(pieces) < _MOST_JOINED and self._next < len(self._data):
            if self._at is _At.DATA:
                pieces.append(self._take_data())
            else:
                self._take_line()
        if pieces:
            return b"".join(pieces)
        return b"" if self.is_over else None

    def take_rest(self) -> bytes:
        """Take what came behind it, once it is over."""
        rest, self._data, self._next = self._data[self._next :], b"", 0
        return rest

    def _take_data(self) -> bytes:
        piece = self._data[self._next : self._next + self._left]
        self._next += len(piece)
        self._left -= len(piece)
        if not self._left:
            self._expect(_At.DATA_END)
        return piece

    def _take_line(self) -> None:
        """Take a line, or as much of it as there is."""
        most = self._next + self._room
        end = self._data.find(b"\n", self._next, most) + 1
        part = self._data[self._next : end or most]
        self._next += len(part)
        self._room -= len(part)
        self._line += part
        try:
            if end:
                self._read_line(bytes(self._line))
            elif not self._room:
                raise ChunksInvalid
        except ChunksInvalid:
            self._is_broken = True
            raise

    def _read_line(self, line: bytes) -> None:
        self._line.clear()
        if self._at is _At.LINE:
            self._read_size(line)
        elif self._at is _At.TRAILERS:
            self._read_trailer(line)
        elif line == _END:
            self._expect(_At.LINE)
        else:
            raise ChunksInvalid

    def _read_size(self, line: bytes) -> None:
        found = self._form.fullmatch(line)
        if found is None:
            raise ChunksInvalid
        self._left = int(found[1], 16)
        self._expect(_At.DATA if self._left else _At.TRAILERS)

    def _read_trailer(self, line: bytes) -> None:
        self._trailers += 1
        if line == _END:
            self._expect(_At.OVER)
        elif self._trailers > _MOST_TRAILERS or not self._room or not self._trailer.fullmatch(line):
            raise ChunksInvalid

    def _expect(self, at: _At) -> None:
        self._at, self._room = at, at.value
