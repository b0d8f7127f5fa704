"""Overwrites what the event loop keeps of the bytes that were read last.

uvloop reads plain connections into one buffer for all, which it keeps. What a target repeated of a secret
stays there until as much is read again.
"""

from __future__ import annotations

import asyncio
import socket

_BUFFER_BYTES = 256_000
"""uvloop's UV_STREAM_RECV_BUF_SIZE."""


async def wash_reads() -> None:
    """Read as much as fits into the buffer at once, from ourselves.

    Raises:
        OSError: There are no descriptors, or no memory for it.
    """
    loop = asyncio.get_running_loop()
    gone = loop.create_future()
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * _BUFFER_BYTES)
        theirs.setblocking(False)
        theirs.send(bytes(_BUFFER_BYTES))
    transport, _ = await loop.create_connection(lambda: _Sink(gone), sock=ours)
    try:
        await gone
    finally:
        transport.abort()


class _Sink(asyncio.Protocol):
    def __init__(self, gone: asyncio.Future[None]) -> None:
        self._gone = gone

    def connection_lost(self, error: Exception | None) -> None:
        if not self._gone.done():
            self._gone.set_result(None)
