"""Bodies in chunks: one form, read in linear time however they are cut, and never otherwise than by h11."""

from __future__ import annotations

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandboxes.proxy.chunks import ANSWERED_CHUNK, ASKED_CHUNK, ChunkReader, ChunksInvalid
from sandboxes.proxy.heads import ANSWERED_LINE, ASKED_LINE

HEAD = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
SPACES = b" " * 60_000
HELLO = {
    "an ordinary one": b"5\r\nhello\r\n0\r\n\r\n",
    "several": b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
    "zeros before": b"000000000000005\r\nhello\r\n000\r\n\r\n",
    "an extension": b'5;a=b;c=\t"d"\r\nhello\r\n0;e\r\n\r\n',
    "the longest line": b"5;" + b"a" * 252 + b"\r\nhello\r\n0\r\n\r\n",
    "trailers": b"5\r\nhello\r\n0\r\nA: b\r\nc:\r\n\r\n",
    "a hundred trailers": b"5\r\nhello\r\n0\r\n" + b"a:\r\n" * 100 + b"\r\n",
    "the longest trailer": b"5\r\nhello\r\n0\r\na:" + b" " * 8_186 + b"\r\n\r\n",
    "something behind": b"5\r\nhello\r\n0\r\n\r\nGET / HTTP/1.1\r\n",
}
BROKEN = {
    "no size": b"\r\n",
    "an extension alone": b";a\r\n",
    "a size of 16 digits": b"0000000000000005\r\nhello\r\n0\r\n\r\n",
    "a sign": b"+5\r\nhello\r\n0\r\n\r\n",
    "a prefix": b"0x5\r\nhello\r\n0\r\n\r\n",
    "a space before the size": b" 5\r\nhello\r\n0\r\n\r\n",
    "a space behind the size": b"5 \r\nhello\r\n0\r\n\r\n",
    "a bare LF behind the size": b"5\nhello\r\n0\r\n\r\n",
    "a bare LF in an extension": b"5;a\n\r\nhello\r\n0\r\n\r\n",
    "a bare CR in an extension": b"5;a\rb\r\nhello\r\n0\r\n\r\n",
    "a NUL in an extension": b"5;\x00\r\nhello\r\n0\r\n\r\n",
    "bytes beyond ASCII in an extension": b"5;\xe9\r\nhello\r\n0\r\n\r\n",
    "a line that is too long": b"5;" + b"a" * 253 + b"\r\nhello\r\n0\r\n\r\n",
    "a line without end": b"5;" + SPACES,
    "spaces and a bare LF": b"1;" + SPACES + b"\n",
    "too little": b"6\r\nhello\r\n0\r\n\r\n",
    "too much": b"4\r\nhello\r\n0\r\n\r\n",
    "a bare LF behind the data": b"5\r\nhello\n0\r\n\r\n",
    "a bare CR behind the data": b"5\r\nhello\r0\r\n\r\n",
    "a bare LF behind the trailers": b"5\r\nhello\r\n0\r\n\n",
    "a NUL in a trailer": b"0\r\na:" + SPACES + b"\x00\r\n\r\n",
    "a VT in a trailer": b"0\r\na:" + SPACES + b"\x0b\r\n\r\n",
    "a folded trailer": b"0\r\na: b\r\n c\r\n\r\n",
    "a space before a colon": b"0\r\na : b\r\n\r\n",
    "a trailer without a name": b"0\r\n: b\r\n\r\n",
    "a trailer without a colon": b"0\r\na\r\n\r\n",
    "a bare CR in a trailer": b"0\r\na: b\rc: d\r\n\r\n",
    "too many trailers": b"0\r\n" + b"a:\r\n" * 101 + b"\r\n",
    "trailers that are too long": b"0\r\n" + b"a:" + b" " * 4_092 + b"\r\na:" + b" " * 4_092 + b"\r\n\r\n",
    "trailers without end": b"0\r\n" + b"a:\r\n" * 16_000,
}  # fmt: skip
CUTS = [1, 2, 3, 255, 256, 257, 65_536]


class Counted(bytes):
    """Counts how many bytes of it are looked at."""

    looked = 0

    def find(self, sub: bytes, start: int, end: int) -> int:  # type: ignore[override]
        found = super().find(sub, start, end)
        Counted.looked += (found if found >= 0 else min(end, len(self))) - start
        return found

    def __getitem__(self, key: slice) -> bytes:  # type: ignore[override]
        part = super().__getitem__(key)
        Counted.looked += len(part)
        return part


def read(raw: bytes, most: int, reader: ChunkReader | None = None) -> tuple[bytes, bool, bytes]:
    """Read in pieces; give the body, whether it is over, and what came behind it."""
    reader, body = reader or ChunkReader(ASKED_CHUNK, ASKED_LINE), b""
    for at in range(0, len(raw), most):
        reader.feed(Counted(raw[at : at + most]))
        while piece := reader.take():
            body += piece
        if reader.is_over:
            return body, True, reader.take_rest() + raw[at + most :]
    return body, False, b""


def ask_h11(raw: bytes) -> tuple[bytes, bool, bytes]:
    """Do the same with h11.

    Raises:
        h11.RemoteProtocolError: It does not take it.
    """
    other, body = h11.Connection(h11.SERVER), b""
    other.receive_data(HEAD + raw)
    assert isinstance(other.next_event(), h11.Request)
    while isinstance(event := other.next_event(), h11.Data):
        body += bytes(event.data)
    return body, isinstance(event, h11.EndOfMessage), other.trailing_data[0]


@pytest.mark.parametrize("most", CUTS)
@pytest.mark.parametrize("raw", HELLO.values(), ids=HELLO.keys())
def test_reads_a_body_as_h11_does_however_it_is_cut(raw: bytes, most: int) -> None:
    body, is_over, rest = read(raw, most)
    assert (body, is_over) == (b"hello", True)
    assert (body, is_over, rest) == ask_h11(raw)


@pytest.mark.parametrize("most", CUTS)
@pytest.mark.parametrize("raw", BROKEN.values(), ids=BROKEN.keys())
def test_refuses_a_body_that_can_be_read_in_two_ways(raw: bytes, most: int) -> None:
    reader = ChunkReader(ASKED_CHUNK, ASKED_LINE)
    with pytest.raises(ChunksInvalid):
        read(raw, most, reader)
    with pytest.raises(ChunksInvalid):  # and goes on with no part of it
        reader.take()


@pytest.mark.parametrize("most", CUTS)
@pytest.mark.parametrize("raw", HELLO.values(), ids=HELLO.keys())
def test_waits_for_the_rest_wherever_a_body_is_cut_off(raw: bytes, most: int) -> None:
    end = len(raw) - len(read(raw, most)[2])
    for length in range(max(0, end - 300), end):
        assert not read(raw[:length], most)[1]


def test_takes_more_in_an_answers_trailers_than_in_a_requests() -> None:
    raw = b"0\r\na: b\tc\xe9\r\n\r\n"
    assert read(raw, 1, ChunkReader(ANSWERED_CHUNK, ANSWERED_LINE)) == (b"", True, b"")
    with pytest.raises(ChunksInvalid):
        read(raw, 1, ChunkReader(ASKED_CHUNK, ASKED_LINE))


@pytest.mark.parametrize("raw", [b"5 \r\nhello\r\n0   \r\n\r\n", b"5\t ;a\r\nhello\r\n0\r\n\r\n"])
def test_takes_an_answers_sizes_that_are_filled_up(raw: bytes) -> None:
    assert read(raw, 1, ChunkReader(ANSWERED_CHUNK, ANSWERED_LINE)) == (b"hello", True, b"")
    with pytest.raises(ChunksInvalid):
        read(raw, 1, ChunkReader(ASKED_CHUNK, ASKED_LINE))


SIGNS = [
    b"0",
    b"1",
    b"2",
    b"a",
    b"A",
    b"\r\n",
    b"\r\n",
    b"\n",
    b"\r",
    b" ",
    b"\t",
    b";",
    b":",
    b"\x00",
    b"\xe9",
]
LINES = [b"2\r\nhi\r\n", b"1;a\r\nx\r\n", b"0\r\n", b"0\r\n\r\n", b"a: b\r\n", b"a:\r\n"]
PARTS = st.sampled_from([*SIGNS, *LINES])


@settings(deadline=None)
@given(st.lists(PARTS, max_size=12).map(b"".join), st.sampled_from(CUTS))
def test_reads_no_body_otherwise_than_h11(raw: bytes, most: int) -> None:
    try:
        found = read(raw, most)
    except ChunksInvalid:
        with pytest.raises(ChunksInvalid):
            read(raw, len(raw))
        return
    assert found == read(raw, len(raw) or 1)
    other = ask_h11(raw)
    assert found[:2] == other[:2]
    assert not found[1] or found[2] == other[2]


LONG = {
    "a body in one chunk": b"20000\r\n" + b"x" * 131_072 + b"\r\n0\r\n\r\n",
    "chunks of one byte": b"1\r\nx\r\n" * 20_000 + b"0\r\n\r\n",
    "long extensions": (b"1;" + b"a" * 240 + b"\r\nx\r\n") * 500 + b"0\r\n\r\n",
    "long trailers": b"0\r\n" + (b"a:" + b" " * 70 + b"\r\n") * 100 + b"\r\n",
}


@pytest.mark.parametrize("most", [1, 7, 1_000, 65_536])
@pytest.mark.parametrize("raw", LONG.values(), ids=LONG.keys())
def test_looks_at_each_byte_twice_at_most(raw: bytes, most: int) -> None:
    Counted.looked = 0
    assert read(raw, most)[1]
    assert Counted.looked <= 2 * len(raw)


@pytest.mark.parametrize("most", [1, 7, 1_000, 65_536])
def test_looks_no_further_than_a_line_may_be_long(most: int) -> None:
    Counted.looked = 0
    with pytest.raises(ChunksInvalid):
        read(BROKEN["a line without end"], most)
    assert Counted.looked <= 2 * 256


def test_gives_many_small_chunks_by_and_by() -> None:
    reader = ChunkReader(ASKED_CHUNK, ASKED_LINE)
    reader.feed(b"1\r\nx\r\n" * 10_000)
    piece = reader.take()
    assert piece and len(piece) <= 64
