"""An answer of Vault is read whole, in however many pieces it comes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable

import pytest

from credentials.child_process import HOST
from credentials.errors import Cause
from credentials.transport import (
    MAX_ANSWER_BYTES,
    AsyncTransport,
    HvacTransport,
    Peer,
    Transport,
    VaultFault,
)

ANSWER = {"data": {"value": "x" * 1000}}


class Piecemeal:
    """A server that answers in two pieces with a pause between them."""

    def __init__(self) -> None:
        self.body = json.dumps(ANSWER).encode()
        self.port = 0

    async def serve(self) -> asyncio.Server:
        """Listen."""
        server = await asyncio.start_server(self._answer, HOST, 0)
        self.port = server.sockets[0].getsockname()[1]
        return server

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(self.body)}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode() + self.body[:100])
        await writer.drain()
        await asyncio.sleep(0.1)
        writer.write(self.body[100:])
        writer.close()


@pytest.fixture
async def piecemeal() -> AsyncIterator[Piecemeal]:
    server = Piecemeal()
    async with await server.serve():
        yield server


@pytest.mark.parametrize("kind", [AsyncTransport, HvacTransport])
async def test_reads_an_answer_that_comes_in_pieces(piecemeal, kind: Callable[[Peer], Transport]) -> None:
    transport = kind(Peer(f"http://{HOST}:{piecemeal.port}"))
    assert await transport.ask("get", "x", None) == ANSWER
    await transport.close()


async def test_refuses_an_answer_without_end(piecemeal) -> None:
    piecemeal.body = bytes(MAX_ANSWER_BYTES + 1)
    transport = AsyncTransport(Peer(f"http://{HOST}:{piecemeal.port}"))
    with pytest.raises(VaultFault, match="is larger than") as caught:
        await transport.ask("get", "x", None)
    await transport.close()
    assert caught.value.cause is Cause.INVALID
