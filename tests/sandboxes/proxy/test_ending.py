"""Connections that the proxy ends while the client does not: they are counted until they are closed."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import socket
import struct
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sandboxes.proxy.access import HttpAccess, HttpTarget
from tests.sandboxes.proxy.doors import (
    OK,
    PATIENCE_SECONDS,
    Doors,
    Serve,
    answering,
    opening,
    permit,
    proxying,
    running,
    serving,
)
from tests.sandboxes.proxy.loopback import client_hello, listening, trusting
from tests.sandboxes.proxy.test_connect import AUTHORITY, CONNECT, GET, opened

AT_ONCE = 16
API = permit("GET /a", target="api")
BAD = b"bad\r\n\r\n"
CLOSE = b"GET /a HTTP/1.1\r\nHost: other.example\r\nConnection: close\r\n\r\n"
STRANGE = b"GET /a HTTP/1.1\r\nHost: other.example\r\n\r\n"
LONG = b"x" * 400_000
"""More than the kernel takes for a client that does not read."""
LONGER = b"x" * 900_000
"""More than that and a stream of asyncio take; what is left is not too much for the proxy."""


def answer_with(body: bytes) -> Serve:
    return answering(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))


def is_open(client: socket.socket) -> bool:
    """Read what is there; tell whether it ends with it."""
    client.setblocking(False)
    try:
        while client.recv(65_536):
            pass
    except BlockingIOError:
        return True
    except ConnectionError:
        pass
    return False


def ask_in_tls(path: Path, raw: bytes, wanted: bytes) -> socket.socket:
    """Ask through a tunnel; from the words on that are wanted nothing is read or said. Closed: refused."""
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(PATIENCE_SECONDS)
    client.connect(str(path))
    told = b""
    with contextlib.suppress(ConnectionError):
        client.sendall(CONNECT)
        told = client.recv(4_096)
    if not told.startswith(b"HTTP/1.1 200 "):
        client.close()
        return client
    with trusting(AUTHORITY).wrap_socket(client, server_hostname="api.example") as inside:
        inside.sendall(raw)
        said = b""
        while wanted not in said:
            said += inside.recv(1)
        return socket.socket(fileno=inside.detach())


class Clients(list[socket.socket]):
    """Clients that stay, whatever the proxy does."""

    async def add(self, doors: Doors, raw: bytes = BAD, wanted: bytes = b"HTTP/1.1 400 ") -> None:
        client = await asyncio.to_thread(ask_in_tls, doors.path(), raw, wanted)
        if client.fileno() >= 0:
            self.append(client)

    @property
    def open(self) -> int:
        return sum(map(is_open, self))


@contextmanager
def staying() -> Iterator[Clients]:
    clients = Clients()
    try:
        yield clients
    finally:
        for client in clients:
            client.close()


async def test_has_no_more_connections_than_are_counted_where_clients_do_not_end_tls() -> None:
    async with opened(API) as (_, doors):
        with staying() as clients:
            for _ in range(AT_ONCE + 8):
                await clients.add(doors)
                assert clients.open <= AT_ONCE
            assert len(clients) >= AT_ONCE


async def test_counts_none_for_long_whose_client_does_not_end_tls() -> None:
    async with opened(API) as (_, doors):
        with staying() as clients:
            for _ in range(AT_ONCE):
                await clients.add(doors)
            async with asyncio.timeout(PATIENCE_SECONDS):
                while clients.open:
                    await asyncio.sleep(0.05)
            await clients.add(doors)
            assert len(clients) == AT_ONCE + 1


async def test_turns_none_away_where_clients_end_tls() -> None:
    async with opened(API) as (_, doors):
        for _ in range(2 * AT_ONCE):
            with staying() as clients:
                await clients.add(doors)
                assert len(clients) == 1


async def test_closes_connections_with_the_call_whose_clients_do_not_end_tls() -> None:
    async with opened(API) as (_, doors):
        with staying() as clients:
            for _ in range(3):
                await clients.add(doors)
            await doors.close()
            assert clients.open == 0


async def test_closes_connections_with_the_call_whose_clients_read_nothing_in_tls() -> None:
    async with opened(API, answer_with(LONG)) as (_, doors):
        with staying() as clients:
            await clients.add(doors, GET, b"HTTP/1.1 200 ")
            await doors.record()
            await doors.close()
            assert clients.open == 0


async def test_closes_connections_with_the_call_that_open_no_tls() -> None:
    async with opened(API) as (_, doors):
        with staying() as clients, socket.socket(socket.AF_UNIX) as client:
            client.connect(str(doors.path()))
            client.sendall(CONNECT)
            await asyncio.to_thread(client.recv, 4_096)
            clients.append(client)
            await doors.close()
            assert clients.open == 0


async def test_gives_a_slow_client_its_whole_answer_in_tls() -> None:
    async with opened(API, answer_with(LONGER)) as (_, doors):
        reader, writer = await doors.connect()
        writer.write(CONNECT)
        await reader.readuntil(b"\r\n\r\n")
        await writer.start_tls(trusting(AUTHORITY), server_hostname="api.example")
        writer.write(GET)
        assert b"HTTP/1.1 200 " in await reader.readuntil(b"\r\n\r\n")
        await doors.record()
        await asyncio.sleep(2.5)  # longer than it may take over the end of TLS
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert await reader.read() == LONGER
        writer.transport.abort()


def count_unread(client: socket.socket) -> int:
    """Give how many bytes came that were not read."""
    found: int = struct.unpack("i", fcntl.ioctl(client, termios.FIONREAD, bytes(4)))[0]
    return found


async def fill(client: socket.socket) -> int:
    """Ask until no further answer fits into what the kernel keeps; give how many did."""
    count = unread = 0
    with contextlib.suppress(TimeoutError):
        while True:
            client.sendall(STRANGE)
            async with asyncio.timeout(2):
                while count_unread(client) == unread:
                    await asyncio.sleep(0.001)
            count, unread = count + 1, count_unread(client)
    return count


async def test_closes_a_connection_whose_client_takes_no_refusal() -> None:
    async with serving(answering(OK)) as target, proxying(target) as doors:
        with socket.socket(socket.AF_UNIX) as first, socket.socket(socket.AF_UNIX) as client:
            first.connect(str(doors.path("pages")))
            count = await fill(first)
            client.connect(str(doors.path("pages")))
            client.sendall(STRANGE * count + CLOSE)
            with pytest.raises(ConnectionError):
                async with asyncio.timeout(PATIENCE_SECONDS):
                    while True:
                        client.send(b"x", socket.MSG_DONTWAIT)
                        await asyncio.sleep(0.1)


async def test_closes_a_connection_with_the_call_whose_client_takes_no_answer() -> None:
    async with serving(answering(OK)) as target, proxying(target) as doors:
        with staying() as clients, socket.socket(socket.AF_UNIX) as client:
            client.connect(str(doors.path("pages")))
            await fill(client)
            clients.append(client)
            await doors.close()
            assert clients.open == 0


async def test_carries_to_its_end_what_a_slow_client_takes_of_an_opaque_target() -> None:
    async def tell(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65_536)
        writer.write(LONG)

    async with listening(tell) as server:
        target = HttpTarget("api", "127.0.0.1", server.port, ("https://api.example",))
        async with running(target) as child, opening(child, HttpAccess("api", (), opaque=True)) as doors:
            reader, writer = await doors.connect()
            writer.write(CONNECT)
            await reader.readuntil(b"\r\n\r\n")
            writer.write(client_hello("api.example"))
            writer.write_eof()
            said = 0
            async with asyncio.timeout(PATIENCE_SECONDS):
                while piece := await reader.read(4_096):
                    said += len(piece)
                    await asyncio.sleep(0.005)
            assert said == len(LONG)
            writer.transport.abort()
