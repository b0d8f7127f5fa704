"""The shop's handler as its sandbox would run it, on a real PostgreSQL, but without a container."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import struct
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from google.protobuf import json_format

import toolcrib
from credentials.dev_postgres import DevPostgres
from toolcrib.handler.v1 import handler_pb2

SHOP = Path(__file__).parents[3] / "tools" / "bundles" / "shop"
SERVICE = "shop.v1.Orders"
LOGINS = {"orders_read": "read", "orders_draft": "draft", "orders_refund": "refund"}
PASSWORD = secrets.token_hex(8)
LOADED = b"\0\0\0\2" + handler_pb2.HandlerFrame(loaded=handler_pb2.Loaded()).SerializeToString()
# The init's part: the frames on 3 and 4, no stdin, the program's stdout is its log.
AS_INIT = ("/bin/sh", "-c", 'exec "$@" 3<&0 4>&1 0</dev/null 1>&2', "init")


@dataclass
class Relay:
    """The egress of a test: a unix socket folder, and the bytes at which it loses the connection.

    What a client sends with `cut_at` still reaches the server; the server's answer never comes back.
    """

    socket_dir: Path
    port: int
    cut_at: bytes = b"\0never\0"
    connections: set[asyncio.Task[None]] = field(default_factory=set)

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections.add(asyncio.create_task(self._relay(reader, writer)))

    async def close(self) -> None:
        for connection in self.connections:
            connection.cancel()
        await asyncio.gather(*self.connections, return_exceptions=True)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.port)
        down = asyncio.create_task(self._pump(up_reader, writer))
        try:
            while data := await reader.read(65536):
                cut = self.cut_at in data
                if cut:
                    down.cancel()
                    await asyncio.gather(down, return_exceptions=True)
                up_writer.write(data)
                await up_writer.drain()
                if cut:
                    await up_reader.read(1)
                    break
        finally:
            down.cancel()
            await asyncio.gather(down, return_exceptions=True)
            for each in (up_writer, writer):
                each.close()
                with contextlib.suppress(OSError):
                    await each.wait_closed()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()


@dataclass(frozen=True)
class Shop:
    """The handler, its messages and its database."""

    folder: Path
    messages: Mapping[str, Any]
    relay: Relay
    postgres: DevPostgres

    async def run(
        self, name: str, request: Mapping[str, Any], key: str = "key", remaining_seconds: float = 5
    ) -> handler_pb2.HandlerFrame:
        """Serve one call in a process of its own; the last frame it wrote."""
        frame = handler_pb2.BrokerFrame(start=self._start(name, request, key, remaining_seconds))
        body = frame.SerializeToString()
        process = await asyncio.create_subprocess_exec(
            *(*AS_INIT, sys.executable, "-m", "handler"),
            cwd=self.folder,
            env={"PYTHONPATH": str(Path(toolcrib.__file__).parent.parent)},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        output, _ = await process.communicate(struct.pack(">I", len(body)) + body)
        assert output.startswith(LOADED)
        (length,) = struct.unpack(">I", output[len(LOADED) :][:4])
        last = output[len(LOADED) + 4 :]
        assert length == len(last)
        return handler_pb2.HandlerFrame.FromString(last)

    async def ask(self, name: str, request: Mapping[str, Any], key: str = "key") -> dict[str, Any]:
        """Serve one call that goes well; its response as a dictionary."""
        frame = await self.run(name, request, key)
        assert frame.HasField("result"), frame
        response = self.messages[f"shop.v1.{name}Response"].FromString(frame.result.response)
        return json_format.MessageToDict(response)

    async def fail(
        self, name: str, request: Mapping[str, Any], key: str = "key", remaining_seconds: float = 5
    ) -> handler_pb2.Failure:
        """Serve one call that does not go well."""
        frame = await self.run(name, request, key, remaining_seconds)
        assert frame.HasField("failure"), frame
        return frame.failure

    def scalar(self, sql: str) -> str:
        """Ask the database as its owner."""
        return self.postgres.query(sql)[0][0]

    def _start(
        self, name: str, request: Mapping[str, Any], key: str, remaining_seconds: float
    ) -> handler_pb2.Start:
        message = json_format.ParseDict(dict(request), self.messages[f"shop.v1.{name}Request"]())
        start = handler_pb2.Start(
            protocol_version=1, method=f"{SERVICE}/{name}", request=message.SerializeToString()
        )
        start.context.idempotency_key = key
        start.context.remaining_millis = int(remaining_seconds * 1000)
        for credential, role in LOGINS.items():
            login = start.credentials[credential].username_password
            login.username, login.password = f"shop-orders-{role}", PASSWORD
        target = start.targets["orders-db"]
        target.socket_dir = str(self.relay.socket_dir)
        target.settings["database"] = self.postgres.database
        return start


@contextlib.asynccontextmanager
async def open_relay(folder: Path, port: int) -> AsyncIterator[Relay]:
    """Listen in a folder as PostgreSQL would, and relay to the real one."""
    relay = Relay(folder, port)
    server = await asyncio.start_unix_server(relay.accept, folder / ".s.PGSQL.5432")
    try:
        yield relay
    finally:
        server.close()
        await relay.close()
