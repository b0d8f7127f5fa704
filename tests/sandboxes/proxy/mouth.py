"""Asks a running proxy as clients do: connections that are kept, one for each way in."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field

from sandboxes.egress.messages import Done
from sandboxes.proxy.access import HttpTarget
from sandboxes.proxy.control import Declare
from sandboxes.proxy.entries import TargetEntry
from sandboxes.proxy.process import ProxyChild
from tests.sandboxes.proxy.doors import PATIENCE_SECONDS, Doors, read_request
from tests.sandboxes.proxy.scenarios import Asked
from tools.http_rules import Check

Pairs = list[tuple[str, str]]
Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer each request with its own head, as a target."""
    while raw := await read_request(reader):
        head = b"" if raw.startswith(b"HEAD ") else raw
        name = b"x-heard: " + raw.split(b"\r\n")[0] + b"\r\n"
        writer.write(b"HTTP/1.1 200 OK\r\n%sContent-Length: %d\r\n\r\n%s" % (name, len(raw), head))
        await writer.drain()


@dataclass
class Said:
    """What the proxy said.

    Attributes:
        check: Which check refused; "ALLOWED" where the target was asked.
        path: What the target was asked for.
        heard: Names of the headers that it got.
        same: Pairs of (explained, said) that mean the same.
    """

    check: str
    path: str = ""
    heard: set[str] = field(default_factory=set)
    same: Pairs = field(default_factory=list)


class Mouth:
    """The connections of one call."""

    def __init__(self, doors: Doors) -> None:
        self._doors, self._open = doors, dict[str, Ends]()

    async def __aenter__(self) -> Mouth:
        return self

    async def __aexit__(self, *error: object) -> None:
        for _, writer in self._open.values():
            writer.transport.abort()

    @staticmethod
    async def declare(child: ProxyChild, targets: Iterable[HttpTarget]) -> None:
        """Tell the proxy of targets."""
        for target in targets:
            await child.ask(Declare(child.next_number(), TargetEntry.write(target)), Done)

    async def ask(self, asked: Asked) -> Said | None:
        """Send a request the way that its URL leads; None where no client could send it."""
        scheme, _, rest = asked.url.partition("://")
        authority = rest.partition("/")[0].partition("?")[0].partition("#")[0]
        if not authority or not authority.isascii() or " " in authority:
            return None
        if scheme == "https":
            return await self._ask_https(asked, authority)
        return await self._send("", asked, asked.url, authority)

    async def _ask_https(self, asked: Asked, authority: str) -> Said | None:
        """Ask at the target's own door; at the forward one, with CONNECT, whether there is a target."""
        rest = asked.url.partition("://")[2][len(authority) :]
        if authority == "secure.example":
            return await self._send("secure", asked, rest, authority) if rest.startswith("/") else None
        named = authority if ":" in authority.rpartition("]")[2] else f"{authority}:443"
        said = await self._connect(named)
        if said.check == "ALLOWED" and authority != "hidden.example":
            return None
        # A CONNECT has no path: what is wrong with it is not seen there.
        said.same += [("URL", "REQUEST"), ("URL", "TARGET")]
        return said

    async def _connect(self, named: str) -> Said:
        reader, writer = await self._doors.connect()
        try:
            writer.write(f"CONNECT {named} HTTP/1.1\r\nHost: {named}\r\n\r\n".encode())
            async with asyncio.timeout(PATIENCE_SECONDS):
                return _read(await reader.readuntil(b"\r\n\r\n"), b"")
        finally:
            writer.transport.abort()

    async def _send(self, door: str, asked: Asked, target: str, authority: str) -> Said:
        lines = [f"{asked.method} {target} HTTP/1.1", f"Host: {authority}"]
        lines += [f"{name}: {value}" for name, value in asked.headers]
        reader, writer = await self._take(door)
        writer.write("\r\n".join([*lines, "", ""]).encode())
        async with asyncio.timeout(PATIENCE_SECONDS):
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
            body = b"" if asked.method == "HEAD" else await reader.readexactly(length)
        if b"connection: close" in head.lower():
            writer.transport.abort()
            del self._open[door]
        said = _read(head, body)
        if not asked.url.isascii():  # then it is no request line at all
            said.same.append(("URL", "REQUEST"))
        return said

    async def _take(self, door: str) -> Ends:
        if door not in self._open or self._open[door][0].at_eof():
            self._open[door] = await self._doors.connect(door)
        return self._open[door]


def _read(head: bytes, body: bytes) -> Said:
    lines = head.decode("latin-1").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines[1:] if ": " in line)
    check = headers.get("toolcrib-egress", "ALLOWED").upper()
    heard = {
        line.partition(":")[0].lower() for line in body.decode("latin-1").split("\r\n")[1:] if ":" in line
    }
    first = next((line.partition(": ")[2] for line in lines if line.lower().startswith("x-heard: ")), "")
    path = first.split(" ")[1] if first else ""
    # Behind https nothing listens: who was let pass got as far as the connection.
    passed = check in ("ALLOWED", "CONNECT")
    same = [(name, name) for name in Check]
    return Said("ALLOWED" if passed else check, path, heard if path else set(), [*same])
