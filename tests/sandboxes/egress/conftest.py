"""A running egress process, and targets on loopback that it may reach."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from sandboxes.egress.addresses import CONTAINER_DIR, EgressLimits, TargetAddress
from sandboxes.egress.process import Egress, EgressProcess

UID = 123_456
OPENINGS = {
    "postgresql": bytes.fromhex("00000008 04d2162f"),  # SSLRequest
    "smtp": b"EHLO x\r\n",
    "ldap": bytes.fromhex("300c 020101 6007 020103 0400 8000"),  # anonymous bind
    "ssh": b"SSH-2.0-x\r\n",
    "tls": bytes.fromhex("16 0301 0200 01 0001fc 0303"),  # a ClientHello's head
}
"""What a client says first, by the kind of its target; a test's target takes it before anything else."""
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Say what is heard; at the end of it, say "end" and close."""
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()
    writer.write(b"end")
    writer.close()


@asynccontextmanager
async def listening(
    name: str, serve: Serve = echo, kind: str = "postgresql", *, takes_opening: bool = True
) -> AsyncIterator[TargetAddress]:
    """A target on a free loopback port; it takes what a client says first before it serves."""

    async def guarded(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if takes_opening:
                await reader.readexactly(len(OPENINGS[kind]))
            await serve(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(guarded, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        yield TargetAddress(name, kind, "127.0.0.1", port, {"database": "shop"})


@asynccontextmanager
async def running(
    run_dir: Path, *targets: TargetAddress, limits: EgressLimits | None = None
) -> AsyncIterator[EgressProcess]:
    """An egress process for targets; stopped at the end, which must leave nothing."""
    process = EgressProcess({target.name: target for target in targets}, limits or EgressLimits())
    try:
        await process.start(run_dir)
        yield process
    finally:
        await process.stop()
    assert list(run_dir.iterdir()) == []


@asynccontextmanager
async def open_way_out(
    process: EgressProcess, call_id: str, uid: int, targets: Iterable[str]
) -> AsyncIterator[Egress]:
    """A call's way out, in a nest that is made for it and removed after it."""
    with process.nest(uid) as nest:
        async with process.open(call_id, nest, targets) as egress:
            yield egress


def socket_path(egress: Egress, target: str = "orders-db") -> Path:
    """Where the host has it; the last two parts are those that the container sees."""
    inside = Path(egress.handler_targets()[target].socket_path)
    return egress.socket_dir / inside.relative_to(CONTAINER_DIR)


async def connect(egress: Egress, target: str = "orders-db", kind: str = "postgresql") -> Streams:
    """Connect as a client of that kind does."""
    reader, writer = await asyncio.open_unix_connection(socket_path(egress, target))
    writer.write(OPENINGS[kind])
    return reader, writer


@pytest.fixture
def run_dir() -> Iterator[Path]:
    """A folder with a short name: tests connect by whole paths."""
    with tempfile.TemporaryDirectory(prefix="tc-") as folder:
        yield Path(folder)


Start = Callable[..., Awaitable[EgressProcess]]


@pytest.fixture
async def start(run_dir: Path) -> AsyncIterator[Start]:
    """Starts egress processes, which end with the test."""
    async with AsyncExitStack() as stack:

        async def begin(*targets: TargetAddress, limits: EgressLimits | None = None) -> EgressProcess:
            return await stack.enter_async_context(running(run_dir, *targets, limits=limits))

        yield begin


@pytest.fixture
async def orders_db() -> AsyncIterator[TargetAddress]:
    async with listening("orders-db") as target:
        yield target


@pytest.fixture
async def process(start: Start, orders_db: TargetAddress) -> EgressProcess:
    return await start(orders_db)


@pytest.fixture
async def egress(process: EgressProcess) -> AsyncIterator[Egress]:
    async with open_way_out(process, "call-1", UID, ["orders-db"]) as opened:
        yield opened
