"""Chunks and trailers that a lenient parser takes seconds to refuse hold up nobody, whoever sends them."""

from __future__ import annotations

import asyncio

import pytest

from tests.sandboxes.proxy.doors import PATIENCE_SECONDS, answering, read_all
from tests.sandboxes.proxy.test_rubbish import HOST, POST, besieged

SIZE = 120 * 1024
SPACES = b" " * SIZE
SLOW = {
    "a trailer and a NUL": b"0\r\na:" + SPACES + b"\x00\r\n\r\n",
    "a trailer and a VT": b"0\r\na:" + SPACES + b"\x0b\r\n\r\n",
    "an extension and a bare LF": b"1;" + SPACES + b"\n\r\n",
    "many trailers": b"0\r\n" + b"a:\r\n" * (SIZE // 4) + b"\r\n",
}
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
REFUSED = b"POST http://nobody.example/ HTTP/1.1\r\nHost: nobody.example\r\n"
GET = b"GET /a HTTP/1.1\r\n" + HOST + b"\r\n"
CONNECTIONS = 4
SHORT = 60_000
"""With so much a piece of what is read at once holds all of it."""


def shorten(raw: bytes) -> bytes:
    return raw.replace(b" " * (SIZE - SHORT), b"", 1).replace(b"a:\r\n" * ((SIZE - SHORT) // 4), b"", 1)


async def send_beside(raw: bytes, door: str, code: bytes, answer: bytes = b"") -> None:
    """Send something over some connections; another call is answered meanwhile, and each gets a code."""
    async with besieged(answering(answer) if answer else None) as siege:
        ends = [await siege.doors.connect(door) for _ in range(CONNECTIONS)]
        for _, writer in ends:
            writer.write(raw)
        answers = [asyncio.create_task(read_all(reader)) for reader, _ in ends]
        await siege.check()
        async with asyncio.timeout(PATIENCE_SECONDS):
            for told in await asyncio.gather(*answers):
                assert told.startswith(b"HTTP/1.1 " + code)
        for _, writer in ends:
            writer.transport.abort()


@pytest.mark.parametrize("raw", SLOW.values(), ids=SLOW.keys())
async def test_answers_others_beside_a_refused_request(raw: bytes) -> None:
    for body in (raw, shorten(raw)):
        await send_beside(REFUSED + CHUNKED + body, "", b"403")


@pytest.mark.parametrize("raw", SLOW.values(), ids=SLOW.keys())
async def test_answers_others_beside_an_allowed_request(raw: bytes) -> None:
    for body in (raw, shorten(raw)):
        await send_beside(POST + CHUNKED + body, "pages", b"400")


@pytest.mark.parametrize("raw", SLOW.values(), ids=SLOW.keys())
async def test_answers_others_beside_an_answer(raw: bytes) -> None:
    for body in (raw, shorten(raw)):
        answer = b"HTTP/1.1 200 OK\r\n" + CHUNKED + body
        await send_beside(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"), "pages", b"502", answer)


@pytest.mark.parametrize("code", [b"403", b"200"])
async def test_goes_on_with_a_connection_whose_trailers_are_as_they_should_be(code: bytes) -> None:
    start, door = (REFUSED, "") if code == b"403" else (POST, "pages")
    body = b"2\r\nhi\r\n0\r\n" + b"a:\r\n" * 100 + b"\r\n"
    async with besieged() as siege:
        reader, writer = await siege.doors.connect(door)
        async with asyncio.timeout(PATIENCE_SECONDS):
            for _ in range(2):
                writer.write(start + CHUNKED + body)
                head = await reader.readuntil(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 " + code) and b"connection: close" not in head
                await reader.readexactly(int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0]))
        writer.transport.abort()
