"""The relay beside init, run as an ordinary process between a port and a socket of the test's own."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from sandboxes import container_relay as relay

_FOLDER = Path(relay.__file__).parent
_START = (
    "import sys; sys.path.insert(0, sys.argv[1]); import container_relay as relay;"
    "relay.DOOR = sys.argv[2]; relay.serve(int(sys.argv[3]))"
)
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
SECONDS = 20


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()
    writer.close()


@asynccontextmanager
async def running(door: Path) -> AsyncIterator[tuple[int, subprocess.Popen[bytes]]]:
    """Give the port of a relay that leads to a socket."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        number, port = listener.fileno(), listener.getsockname()[1]
        command = [sys.executable, "-I", "-S", "-c", _START, str(_FOLDER), str(door), str(number)]
        process = subprocess.Popen(command, pass_fds=(number,))
    try:
        async with asyncio.timeout(SECONDS):
            yield port, process
    finally:
        process.kill()
        process.wait()


@asynccontextmanager
async def relayed(tmp_path: Path, serve: Serve = echo) -> AsyncIterator[int]:
    """Give the port of a relay whose door is served."""
    door = tmp_path / "s"
    accepted: list[asyncio.StreamWriter] = []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.append(writer)
        with suppress(ConnectionError):
            await serve(reader, writer)

    server = await asyncio.start_unix_server(accept, door, backlog=relay.MOST_LINKS)
    try:
        async with running(door) as (port, _):
            yield port
    finally:
        server.close()
        for writer in accepted:
            writer.transport.abort()


async def connect(port: int) -> Streams:
    return await asyncio.open_connection("127.0.0.1", port)


async def test_carries_bytes_both_ways(tmp_path: Path) -> None:
    async with relayed(tmp_path) as port:
        reader, writer = await connect(port)
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"
        writer.close()


async def test_passes_the_end_of_one_half_on_and_the_answer_back(tmp_path: Path) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = await reader.read(-1)
        writer.write(b"heard " + asked)
        writer.close()

    async with relayed(tmp_path, answer) as port:
        reader, writer = await connect(port)
        writer.write(b"all of it")
        writer.write_eof()
        assert await reader.read(-1) == b"heard all of it"
        writer.close()


async def test_carries_more_than_it_holds(tmp_path: Path) -> None:
    data = os.urandom(3 << 20)
    async with relayed(tmp_path) as port:
        reader, writer = await connect(port)
        writer.write(data)
        assert await reader.readexactly(len(data)) == data
        writer.close()


async def test_serves_as_many_at_once_as_it_may_and_the_next_when_one_ends(tmp_path: Path) -> None:
    async with relayed(tmp_path) as port:
        links = [await connect(port) for _ in range(relay.MOST_LINKS)]
        for reader, writer in links:
            writer.write(b"x")
            assert await reader.readexactly(1) == b"x"
        last_reader, last_writer = await connect(port)
        last_writer.write(b"y")
        links[0][1].close()
        assert await last_reader.readexactly(1) == b"y"
        for _, writer in (*links[1:], (last_reader, last_writer)):
            writer.close()


async def test_resets_what_finds_no_door(tmp_path: Path) -> None:
    async with running(tmp_path / "missing") as (port, _):
        reader, writer = await connect(port)
        with pytest.raises(ConnectionError):
            await reader.read(1)
        writer.close()


async def test_resets_the_client_when_the_door_breaks(tmp_path: Path) -> None:
    async def drop(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()  # with the request unread: a reset, for a unix socket

    async with relayed(tmp_path, drop) as port:
        reader, writer = await connect(port)
        writer.write(b"x" * 100_000)
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)
        writer.close()


async def test_goes_on_when_a_client_resets(tmp_path: Path) -> None:
    async with relayed(tmp_path) as port:
        for _ in range(2 * relay.MOST_LINKS):
            _, writer = await connect(port)
            writer.write(b"x")
            writer.transport.abort()
        reader, writer = await connect(port)
        writer.write(b"still here")
        assert await reader.readexactly(10) == b"still here"
        writer.close()


async def test_does_not_read_while_nobody_takes_it(tmp_path: Path) -> None:
    async def ignore(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.pause_reading()  # type: ignore[attr-defined]

    async with relayed(tmp_path, ignore) as port:
        ours = socket.create_connection(("127.0.0.1", port))
        ours.setblocking(False)
        taken = 0
        for _ in range(100):
            try:
                taken += ours.send(b"x" * 65_536)
            except BlockingIOError:
                await asyncio.sleep(0.01)
        assert taken < 32 << 20  # what the kernel's buffers hold, and one chunk
        ours.close()


async def test_keeps_no_descriptor_of_who_started_it(tmp_path: Path) -> None:
    async with running(tmp_path / "missing") as (port, process):
        reader, writer = await connect(port)
        with pytest.raises(ConnectionError):
            await reader.read(1)  # it serves: everything is taken over
        while _held_by(process.pid) != {"3"}:
            await asyncio.sleep(0.01)
        writer.close()


def _held_by(pid: int) -> set[str]:
    """List a process's descriptors, but for those that are empty."""
    found = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            if str(link.readlink()) != "/dev/null":
                found.add(link.name)
    return found


async def test_dies_with_who_started_it(tmp_path: Path) -> None:
    program = (
        "import os, socket, sys; door = socket.create_server(('127.0.0.1', 0)); pid = os.fork()\n"
        "if pid: print(pid, flush=True); input()\n"
        f"sys.path.insert(0, {str(_FOLDER)!r}); import container_relay; container_relay.serve(door.fileno())"
    )
    parent = subprocess.Popen(
        [sys.executable, "-I", "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert parent.stdout is not None
    child = os.pidfd_open(int(parent.stdout.readline()))
    await asyncio.sleep(0.3)
    parent.send_signal(signal.SIGKILL)
    parent.communicate()  # closes its pipes and waits for it
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(child, ended.set)
    await asyncio.wait_for(ended.wait(), SECONDS)
    asyncio.get_running_loop().remove_reader(child)
    os.close(child)
