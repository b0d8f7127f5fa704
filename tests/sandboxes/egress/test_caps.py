"""What ends a connection that is not what it should be, is too much, or takes too long."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from sandboxes.egress.addresses import EgressLimits
from sandboxes.egress.process import Egress
from sandboxes.egress.records import ConnectionRecord, Outcome
from tests.sandboxes.egress.conftest import (
    OPENINGS,
    UID,
    Start,
    Streams,
    listening,
    open_way_out,
    socket_path,
)

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
KINDS = sorted(OPENINGS)


@dataclass
class Ear:
    """A target that greets and listens."""

    greeting: bytes = b""
    heard: bytearray = field(default_factory=bytearray)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            writer.write(self.greeting)
            while data := await reader.read(65_536):
                self.heard += data
        finally:
            self.ended.set()


@asynccontextmanager
async def reaching(
    start: Start, ear: Ear, kind: str = "smtp", limits: EgressLimits | None = None
) -> AsyncIterator[Egress]:
    """A call's way out to a target that hears everything from the first byte on."""
    async with listening("t", ear.serve, kind, takes_opening=False) as target:
        process = await start(target, limits=limits)
        async with open_way_out(process, "call-1", UID, ["t"]) as egress:
            yield egress
            await ear.ended.wait()


async def connect(egress: Egress) -> Streams:
    return await asyncio.open_unix_connection(socket_path(egress, "t"))


async def read_end(streams: Streams) -> bytes:
    """Read until the connection is over, however it ends."""
    said = b""
    try:
        while data := await streams[0].read(65_536):
            said += data
    except ConnectionError:
        pass
    streams[1].close()
    return said


def only(egress: Egress) -> ConnectionRecord:
    (record,) = egress.connections
    return record


@pytest.mark.parametrize("kind", KINDS)
async def test_passes_nothing_on_that_is_not_spoken_at_the_target(start: Start, kind: str) -> None:
    ear = Ear()
    async with reaching(start, ear, kind) as egress:
        streams = await connect(egress)
        streams[1].write(GET)
        assert await read_end(streams) == b""
    record = only(egress)
    assert (bytes(ear.heard), record.outcome, record.bytes_up) == (b"", Outcome.PROTOCOL_REFUSED, 0)
    assert record.detail.endswith(f"of kind {kind}")


@pytest.mark.parametrize("kind", KINDS)
async def test_passes_everything_on_after_a_right_beginning_in_pieces(start: Start, kind: str) -> None:
    ear, said = Ear(), OPENINGS[kind] + GET
    async with reaching(start, ear, kind) as egress:
        streams = await connect(egress)
        for byte in said:
            streams[1].write(bytes([byte]))
            await streams[1].drain()
            await asyncio.sleep(0)
        streams[1].write_eof()
        await ear.ended.wait()
        streams[1].close()
    assert (bytes(ear.heard), only(egress).bytes_up) == (said, len(said))


async def test_passes_nothing_on_of_a_beginning_that_breaks_off(start: Start) -> None:
    ear = Ear()
    async with reaching(start, ear) as egress:
        streams = await connect(egress)
        streams[1].write(b"EHL")
        streams[1].write_eof()
        await read_end(streams)
    assert (bytes(ear.heard), only(egress).outcome) == (b"", Outcome.PROTOCOL_REFUSED)


async def test_lets_the_server_speak_first(start: Start) -> None:
    async with reaching(start, Ear(b"220 ready\r\n")) as egress:
        streams = await connect(egress)
        assert await streams[0].readline() == b"220 ready\r\n"
        streams[1].close()
    assert only(egress).bytes_down == 11


async def test_tells_a_refused_protocol_from_a_target_that_hung_up(start: Start) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with listening("t", hang_up, "smtp", takes_opening=False) as target:
        process = await start(target)
        async with open_way_out(process, "call-1", UID, ["t"]) as egress:
            assert await read_end(await connect(egress)) == b""
    assert only(egress).outcome is Outcome.ENDED


@pytest.mark.parametrize(("limit", "outcome"), [(100, Outcome.CUT), (1_000_000, Outcome.ENDED)])
async def test_carries_no_more_up_than_its_limit(start: Start, limit: int, outcome: Outcome) -> None:
    ear = Ear()
    async with reaching(start, ear, limits=EgressLimits(max_bytes_up=limit)) as egress:
        streams = await connect(egress)
        streams[1].write(OPENINGS["smtp"] + bytes(500_000))
        if outcome is Outcome.ENDED:
            streams[1].write_eof()
            await ear.ended.wait()
        else:
            await read_end(streams)
        streams[1].close()
    record = only(egress)
    assert (record.outcome, len(ear.heard) <= limit, record.bytes_up <= limit) == (outcome, True, True)
    assert record.detail == ("the sandbox sent more than 100 bytes" if outcome is Outcome.CUT else "")


@pytest.mark.parametrize(("limit", "outcome"), [(100_000, Outcome.CUT), (500_000, Outcome.ENDED)])
async def test_carries_no_more_down_than_its_limit(start: Start, limit: int, outcome: Outcome) -> None:
    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(bytes(500_000))
        await writer.drain()

    async with listening("t", flood, "smtp", takes_opening=False) as target:
        process = await start(target, limits=EgressLimits(max_bytes_down=limit))
        async with open_way_out(process, "call-1", UID, ["t"]) as egress:
            said = await read_end(await connect(egress))
    record = only(egress)
    assert (record.outcome, len(said) <= limit, record.bytes_down <= limit) == (outcome, True, True)
    assert len(said) == 500_000 or outcome is Outcome.CUT


@pytest.mark.parametrize(
    ("limits", "why"),
    [
        (EgressLimits(connection_seconds=1, idle_seconds=60), "it was open for 1 s"),
        (EgressLimits(connection_seconds=60, idle_seconds=1), "neither end said anything for 1 s"),
    ],
)
async def test_ends_what_takes_too_long(start: Start, limits: EgressLimits, why: str) -> None:
    async with reaching(start, Ear(), limits=limits) as egress:
        assert await read_end(await connect(egress)) == b""
    assert (only(egress).outcome, only(egress).detail) == (Outcome.TIMED_OUT, why)


async def test_counts_silence_from_the_last_word(start: Start) -> None:
    limits = EgressLimits(idle_seconds=2)
    ear = Ear()
    async with reaching(start, ear, limits=limits) as egress:
        streams = await connect(egress)
        for _ in range(24):  # longer than the silence that ends it
            streams[1].write(b"NOOP\r\n")
            await asyncio.sleep(0.1)
        streams[1].write_eof()
        await ear.ended.wait()
        streams[1].close()
    assert (only(egress).outcome, len(ear.heard)) == (Outcome.ENDED, 24 * 6)


@pytest.mark.parametrize(("in_all", "carried"), [(4, 4), (12, 12)])
async def test_carries_no_connection_beyond_the_last_that_came_with_it(
    start: Start, in_all: int, carried: int
) -> None:
    """A socket that stops listening has accepted what waited; of that nothing would be on record."""
    ear = Ear()
    async with listening("t", ear.serve, "smtp", takes_opening=False) as target:
        process = await start(target, limits=EgressLimits(connections_in_all=in_all))
        async with open_way_out(process, "call-1", UID, ["t"]) as egress:
            assert process.pid is not None
            os.kill(process.pid, signal.SIGSTOP)
            clients = [socket.socket(socket.AF_UNIX) for _ in range(12)]
            for client in clients:
                client.connect(str(socket_path(egress, "t")))
                client.sendall(b"NOOP\r\n")
                client.shutdown(socket.SHUT_WR)
            os.kill(process.pid, signal.SIGCONT)
            for client in clients:
                await read_end(await asyncio.open_unix_connection(sock=client))
    assert [record.outcome for record in egress.connections] == [Outcome.ENDED] * carried
    assert len(ear.heard) == carried * len(b"NOOP\r\n")
