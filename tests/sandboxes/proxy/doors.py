"""A real proxy process with an open call, targets on loopback, and clients that say any bytes."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from sandboxes.egress.messages import CloseCall, Done
from sandboxes.egress.records import ConnectionRecord
from sandboxes.proxy.access import HttpAccess, HttpCaps, HttpTarget
from sandboxes.proxy.authority import Authority
from sandboxes.proxy.control import Closed, Configure, Declare, OpenCall
from sandboxes.proxy.entries import AccessEntry, DoorEntry, TargetEntry
from sandboxes.proxy.process import ProxyChild
from tools.http_rules import parse_rule

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
PATIENCE_SECONDS = 60.0
"""For what must come; a busy machine may take long over it."""


@dataclass
class Target:
    """A server on loopback.

    Attributes:
        heard: What came, by connection.
    """

    name: str = "pages"
    port: int = 0
    heard: list[bytearray] = field(default_factory=list)

    @property
    def connections(self) -> int:
        return len(self.heard)

    @property
    def bytes_heard(self) -> bytes:
        return b"".join(bytes(one) for one in self.heard)

    @property
    def origin(self) -> str:
        return f"http://pages.example:{self.port}" if self.name == "pages" else f"http://{self.name}.example"

    def declare(self, **more: object) -> HttpTarget:
        values: dict[str, object] = {"origins": (f"http://{self.name}.example",), **more}
        return HttpTarget(self.name, "127.0.0.1", self.port, **values)  # type: ignore[arg-type]


def answering(*answers: bytes) -> Serve:
    """Answer each request of a connection with the next of these, the last one for ever."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = 0
        while await read_request(reader):
            writer.write(answers[min(number, len(answers) - 1)])
            await writer.drain()
            number += 1

    return serve


async def read_request(reader: asyncio.StreamReader) -> bytes:
    """Read one request by its lengths; empty at the end."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        lower = head.lower()
        if b"transfer-encoding: chunked" in lower:
            return head + await reader.readuntil(b"0\r\n\r\n")
        if b"content-length: " in lower:
            length = int(lower.partition(b"content-length: ")[2].partition(b"\r\n")[0])
            return head + await reader.readexactly(length)
        return head
    except (asyncio.IncompleteReadError, ConnectionError):
        return b""


class _Heard(asyncio.StreamReader):
    def __init__(self, heard: bytearray) -> None:
        super().__init__()
        self._heard = heard

    def feed_data(self, data: bytes) -> None:  # type: ignore[override]
        self._heard += data
        super().feed_data(data)


@asynccontextmanager
async def serving(serve: Serve, name: str = "pages") -> AsyncIterator[Target]:
    """Hold a target that hears everything that is said to it."""
    target, tasks = Target(name), set()

    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await serve(reader, writer)
        writer.close()

    def accept() -> asyncio.StreamReaderProtocol:
        heard = bytearray()
        target.heard.append(heard)
        return asyncio.StreamReaderProtocol(
            _Heard(heard), lambda reader, writer: tasks.add(asyncio.ensure_future(run(reader, writer)))
        )

    server = await asyncio.get_running_loop().create_server(accept, "127.0.0.1", 0)
    async with server:
        target.port = server.sockets[0].getsockname()[1]
        yield target
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def permit(*rules: str, target: str = "pages", caps: HttpCaps | None = None, **more: object) -> HttpAccess:
    """Let a call do something at a target."""
    allow = tuple(parse_rule(rule) for rule in rules or ("GET /{path:rest}?*",))
    return HttpAccess(target, allow, caps=caps or HttpCaps(), **more)  # type: ignore[arg-type]


@dataclass
class Doors:
    """An open call.

    Attributes:
        records: What was told of it.
    """

    folder: Path
    child: ProxyChild
    name: str
    records: list[ConnectionRecord] = field(default_factory=list)

    @property
    def pid(self) -> int:
        return self.child.pid

    def path(self, target: str = "") -> Path:
        """Where a door is: the forward one, or a target's."""
        return self.folder / f"{self.name}-{target or 'forward'}"

    async def connect(self, target: str = "") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_unix_connection(self.path(target))

    async def say(self, raw: bytes, target: str = "") -> bytes:
        """Say something, and give all that comes back until the end."""
        reader, writer = await self.connect(target)
        try:
            writer.write(raw)
            with contextlib.suppress(ConnectionError):
                async with asyncio.timeout(PATIENCE_SECONDS):
                    return await read_all(reader)
            return b""
        finally:
            writer.transport.abort()

    async def close(self) -> Closed:
        return await self.child.ask(CloseCall(self.child.next_number(), self.name), Closed)

    async def record(self, count: int = 1) -> ConnectionRecord:
        """Wait for so many records; they come after their answers. Give the last."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while len(self.records) < count:
                await asyncio.sleep(0.005)
        return self.records[-1]


async def read_all(reader: asyncio.StreamReader) -> bytes:
    """Read up to the end, also one by a reset."""
    parts = []
    with contextlib.suppress(ConnectionError):
        while part := await reader.read(65_536):
            parts.append(part)
    return b"".join(parts)


@asynccontextmanager
async def running(
    *targets: HttpTarget, connections: tuple[int, int] = (16, 256)
) -> AsyncIterator[ProxyChild]:
    """Hold a proxy process that knows targets."""
    child = await ProxyChild.launch(lambda _: None)
    try:
        await child.ask(Configure(child.next_number(), *connections, 5), Done)
        for target in targets:
            await child.ask(Declare(child.next_number(), TargetEntry.write(target)), Done)
        yield child
    finally:
        await child.end()


@asynccontextmanager
async def opening(
    child: ProxyChild, *accesses: HttpAccess, name: str = "c1", authority: Authority | None = None
) -> AsyncIterator[Doors]:
    """Hold a call's doors: the forward one, and one for each target."""
    with tempfile.TemporaryDirectory(prefix="tc-") as folder:
        doors = Doors(Path(folder), child, name)
        places = ["", *(access.target for access in accesses)]
        sockets = [_listen(doors.path(place)) for place in places]
        child.listeners[name] = doors.records.append
        request = OpenCall(
            seq=child.next_number(),
            call=name,
            doors=[DoorEntry(place) for place in places],
            accesses=[AccessEntry.write(access) for access in accesses],
            ca_certificate_pem=authority.certificate_pem if authority else "",
            ca_key_pem=authority.key_pem if authority else "",
            milliseconds=600_000,
        )
        try:
            await child.ask(request, Done, [one.fileno() for one in sockets])
        finally:
            for one in sockets:
                one.close()
        yield doors
        if not child.has_ended:
            await doors.close()


@asynccontextmanager
async def proxying(
    target: Target, access: HttpAccess | None = None, more: Sequence[HttpAccess] = (), **declared: object
) -> AsyncIterator[Doors]:
    """Hold a call with one target, in a process of its own."""
    async with running(target.declare(**declared)) as child:
        async with opening(child, access or permit(), *more) as doors:
            yield doors


def _listen(path: Path) -> socket.socket:
    door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    door.bind(str(path))
    door.listen(1024)
    return door
