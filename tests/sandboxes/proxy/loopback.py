"""Ends of connections on loopback for tests of the proxy's parts."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import uvloop

from sandboxes.proxy.authority import Authority, Leaves

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def on_uvloop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a test on the loop that the proxy has."""

    @functools.wraps(test)
    def run(*values: Any, **named: Any) -> None:
        uvloop.run(test(*values, **named))

    return run


class Listener:
    """A server that counts who connects.

    Attributes:
        connections: How often it was connected to.
    """

    def __init__(self) -> None:
        self.port = 0
        self.connections = 0


async def say_hello(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer anything with "hello"."""
    await reader.read(65_536)
    writer.write(b"hello")


@asynccontextmanager
async def listening(
    serve: Serve = say_hello, context: ssl.SSLContext | None = None, address: str = "127.0.0.1"
) -> AsyncIterator[Listener]:
    """Listen on a free port."""
    listener = Listener()
    serving: set[asyncio.Task[None]] = set()

    async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        listener.connections += 1
        try:
            with contextlib.suppress(OSError):
                await serve(reader, writer)
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        finally:
            writer.transport.abort()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(asyncio.create_task(count(reader, writer)))

    server = await asyncio.start_server(accept, address, 0, ssl=context)
    async with server:
        listener.port = server.sockets[0].getsockname()[1]
        try:
            yield listener
        finally:
            for task in serving:
                task.cancel()
            await asyncio.gather(*serving, return_exceptions=True)


@asynccontextmanager
async def pair() -> AsyncIterator[tuple[Streams, Streams]]:
    """Hold two ends of one TCP connection: who connected, and who accepted."""
    accepted: asyncio.Future[Streams] = asyncio.get_running_loop().create_future()
    ended = asyncio.Event()

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.set_result((reader, writer))
        await ended.wait()

    server = await asyncio.start_server(hold, "127.0.0.1", 0)
    async with server:
        near = await asyncio.open_connection("127.0.0.1", server.sockets[0].getsockname()[1])
        try:
            yield near, await accepted
        finally:
            ended.set()
            for writer in (near[1], accepted.result()[1]):
                writer.transport.abort()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()


def trusting(authority: Authority, alpn: tuple[str, ...] = ()) -> ssl.SSLContext:
    """Make a client's TLS context that trusts an authority alone, as strictly as OpenSSL can check."""
    context = ssl.create_default_context(cadata=authority.certificate_pem)
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context


def client_hello(name: str | None, alpn: tuple[str, ...] = ()) -> bytes:
    """Make the first bytes of a real TLS client."""
    context = ssl.create_default_context()
    context.check_hostname = False
    if alpn:
        context.set_alpn_protocols(list(alpn))
    outgoing = ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name).do_handshake()
    return outgoing.read()


def server_context(authority: Authority, host: str = "api.example") -> ssl.SSLContext:
    """Make a server's TLS context with a certificate of an authority."""
    return Leaves(authority).context(host)
