"""The target of the egress benchmark: it answers every request with the same kilobyte, and does nothing else.

It prints a line of JSON: its ports, plain and one with TLS for each host that it was given, and the
certificate that verifies them. It serves until its standard input ends.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import cast

import uvloop

from sandboxes.proxy.authority import Leaves, make_authority

BODY = json.dumps({"items": ["x" * 10] * 70}).encode()
_ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (
    len(BODY),
    BODY,
)
_END = b"\r\n\r\n"


class Web(asyncio.Protocol):
    """Answers heads; requests have no bodies here."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._held = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's have no common base

    def data_received(self, data: bytes) -> None:
        """Answer as many requests as came."""
        *heads, self._held = (self._held + data).split(_END)
        assert self._transport is not None
        self._transport.write(_ANSWER * len(heads))


async def serve(hosts: list[str]) -> None:
    """Serve until standard input ends."""
    loop, authority = asyncio.get_running_loop(), make_authority()
    leaves = Leaves(authority)
    ports = {}
    for host in ("", *hosts):
        context = leaves.context(host) if host else None
        server = await loop.create_server(Web, "127.0.0.1", 0, ssl=context)
        ports[host] = server.sockets[0].getsockname()[1]
    print(json.dumps({"ports": ports, "ca_pem": authority.certificate_pem}), flush=True)
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1:]))
