"""The floor of a warm sandbox: the same SDK handler in a bare process that is blocked on its frames.

No container, no init, no engine: what is left is the handler, two pipes and the wake-up of a process.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

from google.protobuf.message import Message

from toolcrib.handler.v1 import handler_pb2

# The one tool of these benchmarks: it answers with what it was given.
ECHO_HANDLER = b"""
from toolcrib.handler import Handler
from toolcrib.handler.v1 import handler_pb2

handler = Handler()

@handler.tool("bench.v1.Echo/Say", handler_pb2.Progress)
def say(request, context):
    return request

handler.run()
"""
METHOD = "bench.v1.Echo/Say"


def make_start() -> handler_pb2.Start:
    """The one request of these benchmarks."""
    request = handler_pb2.Progress(message="hello").SerializeToString()
    return handler_pb2.Start(protocol_version=1, method=METHOD, request=request)


class BareProcess:
    """A handler that has loaded and waits for its Start."""

    def __init__(self, folder: Path) -> None:
        program = folder / "handler.py"
        if not program.exists():
            program.write_bytes(ECHO_HANDLER)
        reads, self._writes = os.pipe()
        self._reads, writes = os.pipe()
        # A handler has its frames on 3 and 4: the child gets them under their own numbers and moves them.
        launch = (
            f"import os, runpy; a, b = os.dup2({reads}, 70), os.dup2({writes}, 71);"
            "os.dup2(a, 3); os.dup2(b, 4);"
            f"runpy.run_path({str(program)!r}, run_name='__main__')"
        )
        self._process = subprocess.Popen([sys.executable, "-c", launch], pass_fds=(reads, writes))
        os.close(reads)
        os.close(writes)

    async def warm_up(self) -> None:
        """Wait until it is loaded."""
        frame = await self._read()
        assert frame.HasField("loaded"), frame

    async def run(self, start: handler_pb2.Start) -> bytes:
        """Send the Start and wait for the result."""
        os.write(self._writes, _frame_bytes(handler_pb2.BrokerFrame(start=start)))
        return (await self._read()).result.response

    def end(self) -> None:
        """Reap it."""
        os.close(self._writes)
        os.close(self._reads)
        self._process.kill()
        self._process.wait()

    async def _read(self) -> handler_pb2.HandlerFrame:
        data = await self._read_some()
        while len(data) < 4 or len(data) < 4 + int.from_bytes(data[:4], "big"):
            data += await self._read_some()
        return handler_pb2.HandlerFrame.FromString(data[4:])

    async def _read_some(self) -> bytes:
        loop, ready = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self._reads, ready.set)
        try:
            await ready.wait()
        finally:
            loop.remove_reader(self._reads)
        return os.read(self._reads, 65_536)


def _frame_bytes(message: Message) -> bytes:
    body = message.SerializeToString()
    return len(body).to_bytes(4, "big") + body
