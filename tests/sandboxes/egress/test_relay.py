"""The byte relay, through the real child: both ways, both halves, bounded."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from pathlib import Path

import pytest

from sandboxes.egress.addresses import EgressLimits, TargetAddress
from sandboxes.egress.process import Egress, EgressProcess
from sandboxes.egress.records import Outcome
from tests.sandboxes.egress.conftest import OPENINGS, UID, Start, connect, listening, open_way_out


async def test_carries_bytes_both_ways(egress: Egress) -> None:
    reader, writer = await connect(egress)
    writer.write(b"hello")
    assert await reader.readexactly(5) == b"hello"
    writer.close()


async def test_carries_much_without_a_change(egress: Egress) -> None:
    sent = os.urandom(8 * 1024 * 1024)
    reader, writer = await connect(egress)
    writer.write(sent)
    writer.write_eof()
    assert await reader.read(-1) == sent + b"end"
    writer.close()


async def test_passes_the_end_of_one_half_on_and_keeps_the_other(egress: Egress) -> None:
    reader, writer = await connect(egress)
    writer.write_eof()
    assert await reader.read(-1) == b"end"
    writer.close()


async def test_passes_the_targets_end_on_and_still_takes_bytes(start: Start) -> None:
    heard: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def speak_first(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write_eof()
        heard.set_result(await reader.read(-1))

    async with listening("orders-db", speak_first) as target:
        process = await start(target)
        async with open_way_out(process, "call-1", UID, ["orders-db"]) as egress:
            reader, writer = await connect(egress)
            assert await reader.read(-1) == b""
            writer.write(b"late")
            writer.close()
            assert await heard == b"late"


async def test_records_what_went_each_way(process: EgressProcess, orders_db: TargetAddress) -> None:
    async with open_way_out(process, "call-1", UID, ["orders-db"]) as egress:
        reader, writer = await connect(egress)
        writer.write(b"four")
        writer.write_eof()
        await reader.read(-1)
        writer.close()
    (record,) = egress.connections
    assert (record.target, record.bytes_up, record.bytes_down) == ("orders-db", 12, 7)
    assert record.outcome is Outcome.ENDED
    assert record.address == f"127.0.0.1:{orders_db.port}"
    assert record.opened <= record.closed


async def test_stops_reading_a_target_that_nobody_listens_to(start: Start) -> None:
    sent = 0

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        while True:
            writer.write(bytes(65_536))
            await writer.drain()
            sent += 65_536

    async with listening("orders-db", flood) as target:
        process = await start(target)
        async with open_way_out(process, "call-1", UID, ["orders-db"]) as egress:
            client = socket.socket(socket.AF_UNIX)
            client.connect(str(egress.socket_dir / "orders-db" / ".s.PGSQL.5432"))
            client.sendall(OPENINGS["postgresql"])
            before = -1
            while before != sent:
                before = sent
                await asyncio.sleep(0.2)
            assert 0 < sent < 32 * 1024 * 1024
            assert process.pid is not None and _resident_bytes(process.pid) < 64 * 1024 * 1024
            client.close()


async def test_records_a_target_that_does_not_accept(start: Start) -> None:
    async with listening("orders-db") as target:
        pass
    process = await start(target)
    async with open_way_out(process, "call-1", UID, ["orders-db"]) as egress:
        reader, writer = await connect(egress)
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)
        writer.close()
    (record,) = egress.connections
    assert record.outcome is Outcome.CONNECT_FAILED
    assert f"127.0.0.1:{target.port} cannot be reached" in record.detail


async def test_ends_a_connection_over_the_limit_and_records_it(
    start: Start, orders_db: TargetAddress
) -> None:
    process = await start(orders_db, limits=EgressLimits(connections_at_once=1))
    async with open_way_out(process, "call-1", UID, ["orders-db"]) as egress:
        first, second = await connect(egress), await connect(egress)
        with contextlib.suppress(ConnectionResetError):  # what it said was not read
            assert await second[0].read(-1) == b""
        first[1].write(b"still here")
        assert await first[0].readexactly(10) == b"still here"
        first[1].close()
        second[1].close()
    assert sorted(record.outcome for record in egress.connections) == ["aborted", "over_limit"]


async def test_stops_listening_after_the_last_connection_of_a_call(
    start: Start, orders_db: TargetAddress
) -> None:
    process = await start(orders_db, limits=EgressLimits(connections_in_all=2))
    async with open_way_out(process, "call-1", UID, ["orders-db"]) as egress:
        for _ in range(2):
            reader, writer = await connect(egress)
            writer.write_eof()
            assert await reader.read(-1) == b"end"
            writer.close()
        with pytest.raises(ConnectionRefusedError):
            await connect(egress)
    assert len(egress.connections) == 2


async def test_resets_the_target_when_the_sandbox_dies_with_unread_bytes(start: Start) -> None:
    ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"x" * 100)
        try:
            await reader.read(-1)
            ended.set_result("end")
        except ConnectionResetError:
            ended.set_result("reset")

    async with listening("orders-db", greet) as target:
        process = await start(target)
        async with open_way_out(process, "call-1", UID, ["orders-db"]) as egress:
            client = socket.socket(socket.AF_UNIX)
            client.connect(str(egress.socket_dir / "orders-db" / ".s.PGSQL.5432"))
            client.sendall(OPENINGS["postgresql"])
            await asyncio.to_thread(client.recv, 1)
            client.close()
            assert await ended == "reset"


def _resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
