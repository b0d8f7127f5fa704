"""A small packed answer may take seconds to search; every other connection gets its turns meanwhile."""

from __future__ import annotations

import asyncio
import gzip

from credentials.injection import Form, Injection
from tests.sandboxes.proxy.doors import OK, Serve, answering, opening, permit, read_request, running, serving

TOKEN = "".join(f"{number:x}." for number in range(1_000, 1_500))
SLOW = gzip.compress("".join(f"%25{byte:02X}" for byte in TOKEN.encode()).encode() * 150)
"""1.5 MB, of which each part is a long time's work: the token with every character escaped twice."""


def answering_slowly(answered: asyncio.Event) -> Serve:
    """Answer with what takes long to search, and say when that was sent."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        head = f"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: {len(SLOW)}\r\n\r\n"
        writer.write(head.encode() + SLOW)
        await writer.drain()
        answered.set()
        await read_request(reader)

    return serve


def write_request(host: str) -> bytes:
    return f"GET /a HTTP/1.1\r\nhost: {host}.example\r\nconnection: close\r\n\r\n".encode()


async def test_lets_others_through_while_a_long_answer_is_searched() -> None:
    answered = asyncio.Event()
    injection = Injection("crm", Form.BEARER, {"token": TOKEN})
    async with serving(answering_slowly(answered)) as slow, serving(answering(OK), "quick") as quick:
        accesses = (permit(injection=injection), permit(target="quick"))
        async with running(slow.declare(), quick.declare()) as child, opening(child, *accesses) as doors:
            long = asyncio.ensure_future(doors.say(write_request("pages"), "pages"))
            await answered.wait()
            assert (await doors.say(write_request("quick"), "quick")).startswith(b"HTTP/1.1 200 ")
            assert not long.done()
            assert b"[redacted]" in await long
