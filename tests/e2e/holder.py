"""A process that logs in at PostgreSQL with what it is given, and holds each session open. For tests only.

    python -m tests.e2e.holder SOCKET PORT DATABASE

It is neither broker nor sandbox: the death of those closes none of its sessions. One line of JSON a question,
one line an answer: {"username", "password"} opens a session; {} says how many of all still work.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncpg

from credentials.child_process import HOST
from credentials.dev_postgres import DevPostgres

ROOT = Path(__file__).parent.parent.parent
OPENING_AT_ONCE = 8


class Holder:
    """The process as a test sees it."""

    def __init__(self, socket_path: Path) -> None:
        self.socket_path = socket_path

    async def count(self) -> int:
        """Say how many of its sessions still work."""
        return int((await ask(self.socket_path, {}))["alive"])


async def ask(socket_path: Path, question: dict[str, str]) -> dict[str, Any]:
    """Ask the holder something."""
    reader, writer = await asyncio.open_unix_connection(str(socket_path))
    try:
        writer.write(json.dumps(question).encode() + b"\n")
        answer: dict[str, Any] = json.loads(await reader.readline())
        return answer
    finally:
        writer.close()
        await writer.wait_closed()


@contextmanager
def start_holder(folder: Path, postgres: DevPostgres) -> Iterator[Holder]:
    """Run one; its sessions end with it."""
    socket_path = folder / "holder.sock"
    command = [sys.executable, "-P", "-m", "tests.e2e.holder", str(socket_path)]
    command += [str(postgres.port), postgres.database]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=ROOT, env=environment) as process:
        late = time.monotonic() + 15
        while not socket_path.exists():
            assert time.monotonic() < late and process.poll() is None, "the holder does not start"
            time.sleep(0.02)
        try:
            yield Holder(socket_path)
        finally:
            process.kill()


async def serve(socket_path: str, port: int, database: str) -> None:
    """Hold sessions until killed."""
    sessions: list[asyncpg.Connection] = []
    opening = asyncio.Semaphore(OPENING_AT_ONCE)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        question = json.loads(await reader.readline())
        if question:
            async with opening:
                sessions.append(
                    await asyncpg.connect(
                        host=HOST,
                        port=port,
                        database=database,
                        user=question["username"],
                        password=question["password"],
                        ssl=False,
                        timeout=60,
                    )
                )
        alive = [session for session in sessions if await _works(session)] if not question else []
        writer.write(json.dumps({"alive": len(alive)}).encode() + b"\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_unix_server(answer, socket_path) as server:
        await server.serve_forever()


async def _works(session: asyncpg.Connection) -> bool:
    try:
        return bool(await session.fetchval("SELECT 1") == 1)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError):
        return False  # ended, perhaps just while it was asked


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
