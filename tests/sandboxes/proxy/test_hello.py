"""The first message of a TLS client: what passes, and what does not."""

from __future__ import annotations

import asyncio
import random
import struct

import pytest

from sandboxes.proxy.hello import LIMIT_BYTES, Hello, HelloRefused, parse_hello, read_hello
from tests.sandboxes.proxy.loopback import client_hello

HELLO = client_hello("api.example", ("h2", "http/1.1"))


def feed(*pieces: bytes, end: bool = True) -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    for piece in pieces:
        reader.feed_data(piece)
    if end:
        reader.feed_eof()
    return reader


def with_extension(raw: bytes, kind: int, content: bytes) -> bytes:
    """Add an extension to the end of a ClientHello."""
    added = struct.pack("!HH", kind, len(content)) + content
    body = bytearray(raw[9:])
    place = 2 + 32
    for width in (1, 2, 1):
        place += width + int.from_bytes(body[place : place + width], "big")
    length = int.from_bytes(body[place : place + 2], "big") + len(added)
    body[place : place + 2] = length.to_bytes(2, "big")
    return framed(bytes(body) + added)


def framed(body: bytes) -> bytes:
    message = b"\x01" + len(body).to_bytes(3, "big") + body
    return b"\x16\x03\x01" + len(message).to_bytes(2, "big") + message


def server_name(*names: bytes) -> bytes:
    entries = b"".join(b"\x00" + struct.pack("!H", len(name)) + name for name in names)
    return struct.pack("!H", len(entries)) + entries


def in_two_records(raw: bytes, at: int) -> bytes:
    message = raw[5:]
    return b"".join(
        b"\x16\x03\x01" + len(part).to_bytes(2, "big") + part for part in (message[:at], message[at:])
    )


async def test_reads_the_name_and_the_offered_protocols() -> None:
    hello = await read_hello(feed(HELLO, b"more"))
    assert hello == Hello(HELLO, "api.example", ("h2", "http/1.1"), is_encrypted=False)
    assert hello.check_name("API.example") is None


async def test_leaves_what_comes_after_it() -> None:
    reader = feed(HELLO, b"early data")
    await read_hello(reader)
    assert await reader.read() == b"early data"


def test_refuses_another_name_and_none() -> None:
    assert "another host" in str(parse_hello(HELLO).check_name("other.example"))
    assert "names no host" in str(parse_hello(client_hello(None)).check_name("api.example"))
    assert parse_hello(client_hello("127.0.0.1")).check_name("127.0.0.1") is not None


def test_sees_an_encrypted_inner_hello_and_holds_the_outer_name() -> None:
    hello = parse_hello(with_extension(HELLO, 0xFE0D, b"\x00" * 40))
    assert hello.is_encrypted
    assert hello.check_name("api.example") is None
    assert hello.check_name("inner.example") is not None


NAMELESS = client_hello(None)
RUBBISH = {
    "plain text": b"GET / HTTP/1.1\r\nHost: api.example\r\n\r\n",
    "SSL 2": b"\x80\x2e\x01\x00\x02" + b"\x00" * 60,
    "an alert": b"\x15\x03\x01\x00\x02\x02\x28",
    "application data": b"\x17\x03\x03\x00\x05hello",
    "an empty record": b"\x16\x03\x01\x00\x00" + HELLO,
    "two records": in_two_records(HELLO, 100),
    "two records, one byte first": in_two_records(HELLO, 1),
    "two records, cut in the name": in_two_records(HELLO, HELLO.index(b"api.example") + 3 - 5),
    "two messages in a record": b"\x16\x03\x01" + (2 * len(HELLO[5:])).to_bytes(2, "big") + 2 * HELLO[5:],
    "a server's hello": HELLO[:5] + b"\x02" + HELLO[6:],
    "a longer record than TLS has": b"\x16\x03\x01\xff\xff" + HELLO[5:] + b"\x00" * 65_535,
    "cut short": HELLO[:-1],
    "nothing": b"",
    "two SNI extensions": with_extension(HELLO, 0, server_name(b"other.example")),
    "two names in one SNI": with_extension(NAMELESS, 0, server_name(b"api.example", b"other.example")),
    "an SNI of another type": with_extension(NAMELESS, 0, b"\x00\x06\x01\x00\x03abc"),
    "an empty name": with_extension(NAMELESS, 0, server_name(b"")),
    "a name with a zero": with_extension(NAMELESS, 0, server_name(b"api.example\x00.other.example")),
    "a name that is not ASCII": with_extension(NAMELESS, 0, server_name(b"b\xfccher.example")),
    "a length that lies": HELLO[:6] + (len(HELLO) - 8).to_bytes(3, "big") + HELLO[9:],
    "bytes after the extensions": framed(HELLO[9:] + b"\x00"),
    "random bytes in its frame": framed(random.Random(7).randbytes(400)),
}


@pytest.mark.parametrize("name", RUBBISH)
async def test_refuses_rubbish(name: str) -> None:
    with pytest.raises(HelloRefused):
        await read_hello(feed(RUBBISH[name]))


async def test_refuses_one_that_is_longer_than_its_limit() -> None:
    padded = with_extension(HELLO, 0x1234, b"\x00" * 4_000)
    assert (await read_hello(feed(padded))).server_name == "api.example"
    with pytest.raises(HelloRefused, match="more than 2000 bytes"):
        await read_hello(feed(padded), limit=2_000)


async def test_refuses_one_that_comes_too_slowly() -> None:
    reader = feed(HELLO[:200], end=False)
    with pytest.raises(HelloRefused, match="no ClientHello came"):
        await read_hello(reader, LIMIT_BYTES, 0.05)


def test_never_fails_otherwise_on_broken_ones() -> None:
    chance = random.Random(11)
    passed = 0
    for _ in range(3_000):
        raw = bytearray(HELLO)
        for _ in range(chance.randint(1, 4)):
            raw[chance.randrange(5, len(raw))] = chance.randrange(256)
        try:
            passed += parse_hello(bytes(raw)).check_name("api.example") is None
        except HelloRefused:
            continue
    assert passed  # its random numbers may be any
