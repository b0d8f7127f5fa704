"""Four kinds of target, each a server process on loopback that counts what it applied, outside the broker.

    dedupes   a key that it knows gets the first answer again, and nothing more happens
    probed    applies whatever it is sent; can be asked whether a key was applied
    blind     applies whatever it is sent; answers no question
    late      a transaction that commits late: when the connection is cut before its commit, it commits three
              seconds later all the same; can be asked, and knows only what is committed

One line of JSON a question, one a reply. Every write works for a while before it is applied, as a real one
does. Beside what it applied, a target keeps everything that it was sent: the counter reads both.

    python -m tests.chaos.targets KIND PORT_FILE
"""

from __future__ import annotations

import asyncio
import json
import random
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from credentials import child_process
from credentials.child_process import HOST, Launch, attempts

ROOT = Path(__file__).parents[2]
KINDS = ("dedupes", "probed", "blind", "late")
GREETING = b"EHLO "  # the way out passes on what begins as its kind does
LATE_SECONDS = 3.0
WORK_SECONDS = {
    "dedupes": (0.002, 0.02),
    "probed": (0.002, 0.02),
    "blind": (0.002, 0.02),
    "late": (0.01, 0.08),
}


class Target:
    """What one target applied, and what it was asked to apply."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.effects: list[dict[str, Any]] = []
        self.sent = 0
        self.pending = 0
        self._number_of: dict[str, int] = {}

    def apply(self, write: dict[str, Any]) -> int:
        """Apply a write once more; returns the number of the effect under its key."""
        if self.kind == "dedupes" and write["key"] in self._number_of:
            return self._number_of[write["key"]]
        self.effects.append(write)
        self._number_of.setdefault(write["key"], len(self.effects))
        return len(self.effects)

    def find(self, key: str) -> int:
        """The number of the effect under a key; 0 when there is none."""
        return self._number_of.get(key, 0)


class Server:
    """Speaks for a target."""

    def __init__(self, target: Target) -> None:
        self._target = target

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection's questions until it ends."""
        try:
            while line := await reader.readline():
                answer = await self._answer(json.loads(line.removeprefix(GREETING)), reader)
                writer.write(json.dumps(answer).encode() + b"\n")
                await writer.drain()
        except OSError:
            pass  # whoever asked was killed
        finally:
            writer.close()

    async def _answer(self, question: dict[str, Any], reader: asyncio.StreamReader) -> dict[str, Any]:
        target = self._target
        if question["op"] == "write":
            return {"number": await self._write(question, reader)}
        if question["op"] == "probe" and target.kind in ("probed", "late"):
            return {"number": target.find(question["key"])}
        if question["op"] == "count":
            return {"effects": target.effects, "sent": target.sent, "pending": target.pending}
        return {"error": f"{target.kind} does not answer that"}

    async def _write(self, write: dict[str, Any], reader: asyncio.StreamReader) -> int:
        target = self._target
        target.sent += 1
        target.pending += 1
        try:
            work = asyncio.create_task(asyncio.sleep(random.uniform(*WORK_SECONDS[target.kind])))
            if target.kind == "late" and await self._was_cut(work, reader):
                await asyncio.sleep(LATE_SECONDS)
            await work
            return target.apply(write)
        finally:
            target.pending -= 1

    @staticmethod
    async def _was_cut(work: asyncio.Task[None], reader: asyncio.StreamReader) -> bool:
        """Wait for the work to end; True when the connection ended first."""
        cut = asyncio.create_task(reader.read(1))
        await asyncio.wait((work, cut), return_when=asyncio.FIRST_COMPLETED)
        in_time = work.done()
        cut.cancel()
        await asyncio.gather(cut, return_exceptions=True)
        return not in_time


async def serve(kind: str, port_file: Path) -> None:
    """Listen on a free port and write it down."""
    server = await asyncio.start_server(Server(Target(kind)).serve, HOST, 0, backlog=512)
    port = server.sockets[0].getsockname()[1]
    port_file.with_suffix(".new").write_text(str(port))
    port_file.with_suffix(".new").rename(port_file)
    await server.serve_forever()


@dataclass(frozen=True)
class Counter:
    """Where a target listens, and the way to read its counts.

    Attributes:
        kind: Its kind, which is also its name.
    """

    kind: str
    port: int

    async def count(self) -> dict[str, Any]:
        """Read all effects, how many writes were sent, and how many are still at work."""
        reader, writer = await asyncio.open_connection(HOST, self.port, limit=1 << 28)
        writer.write(b'{"op": "count"}\n')
        counted: dict[str, Any] = json.loads(await reader.readline())
        writer.close()
        return counted


@contextmanager
def start_targets(folder: Path) -> Iterator[dict[str, Counter]]:
    """Hold one process a kind."""
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        files = {kind: folder / f"{kind}.port" for kind in KINDS}
        for kind, port_file in files.items():
            command = (sys.executable, "-m", "tests.chaos.targets", kind, str(port_file))
            process = child_process.start(Launch(command, ROOT, folder / f"{kind}.log"))
            stack.callback(child_process.stop, process, signal.SIGKILL)
        yield {kind: Counter(kind, _read_port(port_file)) for kind, port_file in files.items()}


def _read_port(port_file: Path) -> int:
    for _ in attempts(10.0):
        if port_file.exists():
            return int(port_file.read_text())
    raise RuntimeError(f"a target did not start; see {port_file.with_suffix('.log')}")


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], Path(sys.argv[2])))
