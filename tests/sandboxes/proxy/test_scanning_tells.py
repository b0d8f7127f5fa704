"""What a tool sees of the scan tells nothing of a secret, although it chooses the text that is scanned."""

from __future__ import annotations

import asyncio
import base64
import gzip
from collections.abc import Callable, Iterator, Sequence

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from credentials.injection import Form, Injection
from sandboxes.proxy.scanning import Scanner
from sandboxes.proxy.unescaping import fold
from tests.sandboxes.proxy.doors import Serve, permit, proxying, read_request, serving

SECRET = "gHp_8RZaQ1xk7Vd3"
WAYS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "hex": lambda secret: secret.encode().hex(),
    "base64": lambda secret: base64.b64encode(secret.encode()).decode(),
    "reversed": lambda secret: secret[::-1],
    "escaped": lambda secret: "".join(f"\\u{ord(sign):04x}" for sign in secret),
    "escaped twice": lambda secret: "".join(f"%25{ord(sign):02X}" for sign in secret),
}
SIZES = st.lists(st.integers(1, 3_000), min_size=1, max_size=6)


class HoldingByPrefix(Scanner):
    """The control: it keeps back what may be the beginning of something that it searches for."""

    def feed(self, data: bytes) -> bytes:
        text, _ = self._take_held()
        text += data
        begun = (
            size
            for size in range(min(len(text), 80), 0, -1)
            if any(needle.text.startswith(fold(text[-size:])) for needle in self._needles)
        )
        until = len(text) - next(begun, 0)
        self._hold(text[until:])
        return text[:until]


def make_bearer(secret: str) -> Injection:
    return Injection("orders", Form.BEARER, {"token": secret})


def write_pieces(begun: str, sizes: Sequence[int]) -> list[bytes]:
    """Write pieces that end in the beginning of something."""
    return [begun[: size - 1].rjust(size, "|").encode() for size in sizes]


def measure(scanner: Scanner, pieces: Sequence[bytes]) -> list[int]:
    """Say how much is passed on for each piece, and at the end."""
    sizes = [len(scanner.feed(piece)) for piece in pieces]
    return [*sizes, len(scanner.finish())]


@pytest.mark.parametrize("way", WAYS)
@given(secret=st.text("aAb01_/+. %\\&#;", min_size=4, max_size=60), part=st.floats(0, 0.49), sizes=SIZES)
def test_passes_on_as_much_whatever_a_piece_ends_in(way: str, secret: str, part: float, sizes: list[int]):
    spelled = WAYS[way](secret)
    begun = spelled[: int(len(spelled) * part)]
    one, other = write_pieces(begun, sizes), write_pieces("", sizes)
    scanners = [Scanner(make_bearer(secret)) for _ in range(2)]
    seen = [measure(scanners[0], one), measure(scanners[1], other)]
    assume(not scanners[0].found)
    assert seen[0] == seen[1]


@pytest.mark.parametrize("way", ["plain", "hex", "base64", "reversed"])
def test_notices_one_that_keeps_back_what_begins_like_it(way: str):
    begun, sizes = WAYS[way](SECRET)[:1], [3_000, 3_000]
    one, other = write_pieces(begun, sizes), write_pieces("", sizes)
    scanners = [HoldingByPrefix(make_bearer(SECRET)) for _ in range(2)]
    assert measure(scanners[0], one) != measure(scanners[1], other)


@given(count=st.integers(0, 40), cuts=st.lists(st.integers(0, 2_000), max_size=6))
def test_reads_backslashes_in_pairs_wherever_they_are_cut(count: int, cuts: list[int]):
    scanner = Scanner(make_bearer(SECRET))
    answer = b"\\" * (1_000 + 2 * count) + WAYS["escaped"](SECRET).encode() + b"|" * 1_000
    ends = [*sorted(cuts), len(answer)]
    clean = b"".join(scanner.feed(answer[start:end]) for start, end in zip([0, *ends], ends, strict=False))
    assert clean + scanner.finish() == b"\\" * (1_000 + 2 * count) + b"[redacted]" + b"|" * 1_000


def repeating(sign: str) -> Serve:
    """Answer with a text that a tool put there; packed, so that it comes at once."""
    body = gzip.compress(sign.encode() * 200_000)
    head = f"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: {len(body)}\r\n\r\n".encode()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(head + body)
        await writer.drain()
        await read_request(reader)

    return serve


def list_chunks(answer: bytes) -> Iterator[int]:
    rest = answer.partition(b"\r\n\r\n")[2]
    while rest:
        line, _, rest = rest.partition(b"\r\n")
        yield int(line, 16)
        rest = rest[int(line, 16) + 2 :]


async def see_chunks(sign: str) -> list[int]:
    """Say in which chunks a tool gets a body of one character."""
    async with serving(repeating(sign)) as target:
        async with proxying(target, permit(injection=make_bearer(SECRET))) as doors:
            request = b"GET /a HTTP/1.1\r\nhost: pages.example\r\nconnection: close\r\n\r\n"
            return list(list_chunks(await doors.say(request, "pages")))


async def test_sends_the_same_chunks_whether_or_not_a_text_begins_like_the_secret():
    seen = [await see_chunks(sign) for sign in ("q", SECRET[0], WAYS["hex"](SECRET)[0])]
    assert sum(seen[0]) == 200_000 and len(seen[0]) > 3
    assert seen[0] == seen[1] == seen[2]
