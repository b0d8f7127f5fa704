"""What hostile sandboxes and targets send: the proxy's memory stays flat, and another call is answered."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import itertools
import re
import socket
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from sandboxes.egress.records import Outcome
from sandboxes.proxy.access import HttpCaps
from tests.sandboxes.proxy.doors import (
    OK,
    PATIENCE_SECONDS,
    Doors,
    Serve,
    answering,
    opening,
    permit,
    read_all,
    read_request,
    running,
    serving,
)
from tests.sandboxes.proxy.test_heads import SMUGGLING

HOST = b"Host: pages.example\r\n"
GET = b"GET /a HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n"
POST = b"POST /a HTTP/1.1\r\n" + HOST
ANY = ("GET /{path:rest}?*", "POST /{path:rest}")
GROWTH_KIB = 24 * 1024
"""How much more the process may ever hold: buffers of its connections, and what malloc keeps."""
FLOOD = b"x" * 65_536
GIGABYTES_10 = 10 * 1024**3


def most_memory_kib(pid: int) -> int:
    """Read the most memory that a process ever held."""
    found = re.search(r"VmHWM:\s+([0-9]+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1])


async def listen_only(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Take everything and say nothing."""
    while await reader.read(65_536):
        pass


class Siege:
    """A call that rubbish comes from, and another one of the same process."""

    def __init__(self, doors: Doors, neighbour: Doors, heard: list[bytearray]) -> None:
        self.doors, self.neighbour, self.heard = doors, neighbour, heard
        self.before_kib = most_memory_kib(doors.pid)

    async def check(self) -> None:
        """The other call is answered, the memory is flat, and no connection failed as none should."""
        child = self.doors.child
        assert (await self.neighbour.say(GET.replace(b"pages", b"blog"), "blog")).startswith(b"HTTP/1.1 200")
        assert most_memory_kib(child.pid) - self.before_kib < GROWTH_KIB
        assert not child.has_ended
        assert child._last_words == b""


@asynccontextmanager
async def besieged(
    serve: Serve | None = None, caps: HttpCaps | None = None, at_once: int = 16, in_all: int = 256
) -> AsyncIterator[Siege]:
    """Hold both calls; what they do first is not counted as growth."""
    access = permit(*ANY, caps=caps or HttpCaps())
    async with serving(serve or answering(OK)) as target, serving(answering(OK), "blog") as blog:
        async with running(target.declare(), blog.declare(), connections=(at_once, in_all)) as child:
            async with (
                opening(child, access) as doors,
                opening(child, permit(target="blog"), name="c2") as neighbour,
            ):
                await neighbour.say(GET.replace(b"pages", b"blog"), "blog")
                await doors.say(GET.replace(b"GET", b"PUT"), "pages")
                siege = Siege(doors, neighbour, target.heard)
                yield siege
                await siege.check()


async def flood(doors: Doors, start: bytes, piece: bytes = FLOOD, most_bytes: int = GIGABYTES_10) -> int:
    """Send without end; give how much was taken before the connection ended."""
    reader, writer = await doors.connect("pages")
    sent = 0
    with contextlib.suppress(ConnectionError):
        async with asyncio.timeout(PATIENCE_SECONDS):
            writer.write(start)
            while sent < most_bytes and not reader.at_eof():
                writer.write(piece)
                await writer.drain()
                sent += len(piece)
    writer.transport.abort()
    return sent


async def test_a_relay_of_bytes_lets_each_form_through_to_the_target() -> None:
    async with serving(listen_only) as target:
        for raw in SMUGGLING.values():
            _, writer = await asyncio.open_connection("127.0.0.1", target.port)
            writer.write(raw)
            await writer.drain()
            writer.close()
        async with asyncio.timeout(PATIENCE_SECONDS):
            while {bytes(one) for one in target.heard} != set(SMUGGLING.values()):
                await asyncio.sleep(0.005)


async def test_lets_no_smuggled_request_through_to_the_target() -> None:
    second = b"DELETE /all HTTP/1.1\r\n" + HOST + b"\r\n"
    async with besieged() as siege:
        for raw in SMUGGLING.values():
            answer = await siege.doors.say(raw + second, "pages")
            assert re.findall(rb"HTTP/1.1 ([0-9]{3})", answer) == [b"400"], raw
        assert siege.heard == []


async def test_hides_no_second_request_in_a_body() -> None:
    second = b"DELETE /all HTTP/1.1\r\n" + HOST + b"\r\n"
    chunks = b"Transfer-Encoding: chunked\r\n\r\n"
    broken = [
        b"5\r\nhello" + second,
        b"5\nhello\n0\n\n" + second,
        b"-5\r\n" + second,
        b"0x5\r\nhello\r\n0\r\n\r\n",
    ]
    broken += [b"5;\x00\r\nhell", b"100000000000000000000\r\n" + second, b" 5\r\nhello\r\n0\r\n\r\n" + second]
    async with besieged() as siege:
        for body in broken:
            reader, writer = await siege.doors.connect("pages")
            writer.write(POST + chunks + body)
            writer.write_eof()
            assert b"200 OK" not in await read_all(reader)
            writer.close()
        assert not any(b"DELETE /all HTTP/1.1\r\nhost" in one for one in siege.heard)


@pytest.mark.parametrize("piece", [b"a: " + b"b" * 1_000 + b"\r\n", FLOOD], ids=["headers", "one"])
async def test_ends_a_head_without_end(piece: bytes) -> None:
    async with besieged() as siege:
        sent = await flood(siege.doors, b"GET /a HTTP/1.1\r\n" + HOST, piece)
        assert sent < 4 * 1024 * 1024
        assert siege.heard == []


async def test_refuses_a_body_of_10_gigabytes_by_its_length() -> None:
    async with besieged() as siege:
        sent = await flood(siege.doors, POST + b"Content-Length: %d\r\n\r\n" % GIGABYTES_10)
        assert sent < 16 * 1024 * 1024
        assert siege.heard == []


async def test_cuts_a_body_of_10_gigabytes_in_chunks() -> None:
    async with besieged(listen_only, HttpCaps(request_bytes=4 * 1024**2)) as siege:
        piece = b"10000\r\n" + FLOOD + b"\r\n"
        sent = await flood(siege.doors, POST + b"Transfer-Encoding: chunked\r\n\r\n", piece)
        assert sent < 64 * 1024**2
        assert sum(len(one) for one in siege.heard) < 5 * 1024**2


@pytest.mark.parametrize(
    "start",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % GIGABYTES_10,
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: ",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;a=",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: ",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffff\r\n",
        b"",
    ],
)
async def test_cuts_an_answer_of_10_gigabytes(start: bytes) -> None:
    sent = 0

    async def flood_back(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await read_request(reader)
        writer.write(start)
        while sent < GIGABYTES_10:
            writer.write(FLOOD)
            await writer.drain()
            sent += len(FLOOD)

    async with besieged(flood_back, HttpCaps(response_bytes=8 * 1024**2)) as siege:
        answer = await siege.doors.say(GET, "pages")
        assert len(answer) <= 9 * 1024**2
        assert sent < 64 * 1024**2


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
async def test_cuts_a_bomb(coding: str) -> None:
    zeros = b"\0" * (256 * 1024**2)
    bomb = gzip.compress(zeros, 9) if coding == "gzip" else zlib.compress(zeros, 9)
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: {coding}\r\nContent-Length: {len(bomb)}\r\n\r\n"
    async with besieged(answering(head.encode() + bomb)) as siege:
        answer = await siege.doors.say(GET, "pages")
        assert len(answer) < HttpCaps().response_bytes + 100_000
        assert (await siege.doors.record(2)).outcome is Outcome.CUT


async def test_holds_the_target_back_while_the_sandbox_does_not_read() -> None:
    sent = 0

    async def flood_back(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(FLOOD)
            await writer.drain()
            sent += len(FLOOD)

    async with besieged(flood_back, HttpCaps(response_bytes=GIGABYTES_10, seconds=60)) as siege:
        _, writer = await siege.doors.connect("pages")
        writer.write(GET)
        was = -1
        while sent != was or not sent:
            was = sent
            await asyncio.sleep(0.3)
        assert sent < 64 * 1024**2
        writer.transport.abort()


def occupy(path: Path, stack: contextlib.ExitStack, first: bytes) -> None:
    """Connect a thousand times and say half of something."""
    for _ in range(1_000):
        one = stack.enter_context(socket.socket(socket.AF_UNIX))
        with contextlib.suppress(ConnectionError):
            one.connect(str(path))
            one.sendall(first)


@pytest.mark.parametrize("first", [b"", b"GET /a HTTP/1.1\r\nHost: pages"], ids=["nothing", "half a head"])
@pytest.mark.parametrize(("at_once", "in_all"), [(16, 256), (1_000, 10_000)])
async def test_holds_a_thousand_connections_that_are_half_open(
    first: bytes, at_once: int, in_all: int
) -> None:
    async with besieged(at_once=at_once, in_all=in_all) as siege:
        with contextlib.ExitStack() as stack:
            await asyncio.to_thread(occupy, siege.doors.path("pages"), stack, first)
            await siege.check()
        assert siege.heard == []


async def test_answers_while_another_connection_drips_byte_by_byte() -> None:
    async with besieged() as siege:
        _, writer = await siege.doors.connect("pages")
        for byte in GET[:40]:
            writer.write(bytes([byte]))
            await siege.check()
        writer.transport.abort()


async def test_answers_a_request_whose_sender_closed_its_half() -> None:
    async with besieged() as siege:
        reader, writer = await siege.doors.connect("pages")
        writer.write(GET)
        writer.write_eof()
        assert b"200 OK" in await read_all(reader)
        writer.close()


async def test_turns_away_connections_that_are_too_many() -> None:
    async with besieged(at_once=2) as siege:
        asked = [asyncio.create_task(siege.doors.say(b"", "pages")) for _ in range(5)]
        for told in itertools.islice(asyncio.as_completed(asked), 3):
            assert b"toolcrib-egress: LIMIT\r\n" in await told
        for one in asked:
            one.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
