"""Connections after a CONNECT: TLS opened on them, or bytes carried blindly."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from sandboxes.proxy.authority import Leaves, make_authority
from sandboxes.proxy.tunnel import (
    Carried,
    Ending,
    TlsRefused,
    TunnelCaps,
    carry_blind,
    open_tls,
)
from tests.sandboxes.proxy.loopback import Streams, on_uvloop, pair, trusting

MIB = 1024 * 1024
WIDE = TunnelCaps(64 * MIB, 64 * MIB, 30)


class Tunnel:
    """A tunnel between two ends that a test holds."""

    def __init__(
        self, client: Streams, target: Streams, task: asyncio.Task[Carried], carried: Carried
    ) -> None:
        self.client, self.target, self.task, self.carried = client, target, task, carried


@asynccontextmanager
async def tunnel(caps: TunnelCaps = WIDE) -> AsyncIterator[Tunnel]:
    carried = Carried()
    async with pair() as (client, inside), pair() as (outside, target):
        task = asyncio.create_task(carry_blind(inside, outside, caps, carried))
        try:
            yield Tunnel(client, target, task, carried)
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


@on_uvloop
async def test_carries_both_ways_and_counts() -> None:
    async with tunnel() as way:
        way.client[1].write(b"ping")
        assert await way.target[0].readexactly(4) == b"ping"
        way.target[1].write(b"answer")
        assert await way.client[0].readexactly(6) == b"answer"
        way.client[1].write_eof()
        way.target[1].write_eof()
        assert await way.task == Carried(4, 6, Ending.ENDED)


@on_uvloop
async def test_goes_on_one_way_when_the_other_has_ended() -> None:
    async with tunnel() as way:
        way.client[1].write(b"question")
        way.client[1].write_eof()
        assert await way.target[0].read() == b"question"
        way.target[1].write(b"late answer")
        way.target[1].write_eof()
        assert await way.client[0].read() == b"late answer"
        assert (await way.task).ending is Ending.ENDED


@pytest.mark.parametrize("caps", [TunnelCaps(1_000, MIB, 30), TunnelCaps(MIB, 1_000, 30)])
@on_uvloop
async def test_cuts_at_its_cap_of_bytes(caps: TunnelCaps) -> None:
    async with tunnel(caps) as way:
        sender = way.client if caps.up_bytes == 1_000 else way.target
        receiver = way.target if caps.up_bytes == 1_000 else way.client
        sender[1].write(b"x" * 1_000)
        assert await receiver[0].readexactly(1_000) == b"x" * 1_000
        sender[1].write(b"x")
        carried = await way.task
        assert carried.ending is Ending.CUT
        assert carried.up_bytes + carried.down_bytes == 1_000
        with pytest.raises(ConnectionResetError):
            await receiver[0].read()


@on_uvloop
async def test_ends_at_its_cap_of_time() -> None:
    async with tunnel(TunnelCaps(MIB, MIB, 0.05)) as way:
        assert (await way.task).ending is Ending.TIMED_OUT
        with pytest.raises(ConnectionResetError):
            await way.client[0].read()


@on_uvloop
async def test_ends_when_one_end_is_reset() -> None:
    async with tunnel() as way:
        way.client[1].write(b"x")
        await way.target[0].readexactly(1)
        way.target[1].transport.abort()
        way.client[1].write(b"x" * MIB)
        assert (await way.task).ending in {Ending.LOST, Ending.ENDED}


@on_uvloop
async def test_reads_no_more_than_the_other_end_takes() -> None:
    async with tunnel() as way:
        way.client[1].transport.set_write_buffer_limits(high=0)
        sent = 0
        with contextlib.suppress(TimeoutError):
            while sent < 64 * MIB:
                way.client[1].write(b"x" * MIB)
                sent += MIB
                await asyncio.wait_for(way.client[1].drain(), 0.3)
        assert sent < 64 * MIB  # what fits into the buffers of four sockets, and a few pieces
        way.client[1].write_eof()
        assert len(await way.target[0].read()) == sent


@on_uvloop
async def test_resets_both_ends_when_it_is_cancelled() -> None:
    async with tunnel() as way:
        way.client[1].write(b"x")
        await way.target[0].readexactly(1)
        way.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await way.task
        assert way.carried == Carried(1, 0, Ending.LOST)
        with pytest.raises(ConnectionResetError):
            await way.client[0].read()


@pytest.fixture
def door(tmp_path: Path) -> Path:
    return tmp_path / "s"


@asynccontextmanager
async def answering_connect(
    door: Path, context: ssl.SSLContext, seconds: float = 30
) -> AsyncIterator[list[object]]:
    """Serve a CONNECT on a unix socket as the proxy does: answer, open TLS, echo what is inside."""
    seen: list[object] = []
    done = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        try:
            await open_tls(writer, context, seconds)
            while data := await reader.read(4_096):
                writer.write(data)
                await writer.drain()
        except (TlsRefused, OSError) as error:
            seen.append(error)
        writer.transport.abort()
        done.set()

    server = await asyncio.start_unix_server(serve, door)
    async with server:
        yield seen
        async with asyncio.timeout(30):
            await done.wait()


async def connect(door: Path) -> Streams:
    reader, writer = await asyncio.open_unix_connection(door)
    writer.write(b"CONNECT api.example:443 HTTP/1.1\r\n\r\n")
    await reader.readuntil(b"\r\n\r\n")
    return reader, writer


@on_uvloop
async def test_opens_tls_and_carries_what_is_inside(door: Path) -> None:
    authority = make_authority()
    async with answering_connect(door, Leaves(authority).context("api.example")) as seen:
        reader, writer = await connect(door)
        await writer.start_tls(trusting(authority), server_hostname="api.example")
        sent = b"0123456789abcdef" * 64 * 1024
        sending = asyncio.create_task(write_all(writer, sent))
        assert await reader.readexactly(len(sent)) == sent
        await sending
        writer.transport.abort()
    assert seen == [] or isinstance(seen[0], OSError)


async def write_all(writer: asyncio.StreamWriter, content: bytes) -> None:
    writer.write(content)
    await writer.drain()


@pytest.mark.parametrize(
    "rubbish",
    [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x00\x05hello", b"\x80\x2e\x01" * 30, b"\x16\x03\x01\xff\xff"],
    ids=["plain text", "no hello", "SSL 2", "a record too long"],
)
@on_uvloop
async def test_refuses_what_is_no_tls(door: Path, rubbish: bytes) -> None:
    async with answering_connect(door, Leaves(make_authority()).context("api.example")) as seen:
        reader, writer = await connect(door)
        writer.write(rubbish)
        writer.write_eof()
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()
    assert isinstance(seen[0], TlsRefused)


@on_uvloop
async def test_refuses_tls_that_is_not_opened_in_time(door: Path) -> None:
    async with answering_connect(door, Leaves(make_authority()).context("api.example"), 0.05) as seen:
        reader, writer = await connect(door)
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()
    assert "not opened within" in str(seen[0])
