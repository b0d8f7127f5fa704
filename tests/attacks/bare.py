"""A handler taken at its word: a bare process, with nobody between it and who reads its frames.

The controls of attacks on the conversation: what a hostile bundle says comes through as it is, whenever it
says it, as often as it likes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import struct
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from sandboxes.conversation import frame_bytes
from toolcrib.handler.v1 import handler_pb2

_LENGTH = struct.Struct(">I")
# Puts the frames where init would put them.
_PLACE = """
import os, sys
frames, answers = (os.dup(int(each)) for each in sys.argv[1:3])
frames, answers = os.dup2(frames, 20), os.dup2(answers, 21)
os.dup2(frames, 3), os.dup2(answers, 4)
os.closerange(5, 64)
exec(sys.argv[3])
"""


@dataclass(frozen=True)
class Said:
    """What it said.

    Attributes:
        before: Its frames before it got a call, as they came.
        after: Its frames after that.
        taken: Whether it took the whole call.
    """

    before: list[handler_pb2.HandlerFrame]
    after: list[handler_pb2.HandlerFrame]
    taken: bool


async def listen(source: str, start: handler_pb2.Start, seconds: float = 1.5) -> Said:
    """Start a handler, give it a call, and take down what it says for so long before and after."""
    async with _handler(source) as (reader, writer):
        before = await _take_down(reader, seconds)
        data = frame_bytes(handler_pb2.BrokerFrame(start=start))
        taken = await asyncio.to_thread(_give, writer, data)
        return Said(before, await _take_down(reader, seconds), taken)


@asynccontextmanager
async def _handler(source: str) -> AsyncIterator[tuple[int, int]]:
    """A process with our ends of its frames: to read from, and to write to."""
    frames, answers = os.pipe(), os.pipe()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-c", _PLACE, str(frames[0]), str(answers[1]), source),
        pass_fds=(frames[0], answers[1]),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        env={"PYTHONPATH": str(Path(handler_pb2.__file__).parents[3]), "PATH": os.environ["PATH"]},
    )
    os.close(frames[0])
    os.close(answers[1])
    os.set_blocking(answers[0], False)
    os.set_blocking(frames[1], False)
    try:
        yield answers[0], frames[1]
    finally:
        os.close(answers[0])
        os.close(frames[1])
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def _give(writer: int, data: bytes) -> bool:
    """Write without waiting: what does not fit into the pipe is not taken."""
    try:
        return os.write(writer, data) == len(data)
    except OSError:
        return False


async def _take_down(reader: int, seconds: float) -> list[handler_pb2.HandlerFrame]:
    """Read for so long; whole frames only, what is none counts as an empty one."""
    data = b""
    until = asyncio.get_running_loop().time() + seconds
    while asyncio.get_running_loop().time() < until:
        try:
            while piece := os.read(reader, 1 << 20):
                data += piece
        except BlockingIOError:
            pass
        await asyncio.sleep(0.05)
    return _frames(data)


def _frames(data: bytes) -> list[handler_pb2.HandlerFrame]:
    found = []
    while len(data) >= _LENGTH.size:
        (length,) = _LENGTH.unpack_from(data)
        body, data = data[4 : 4 + length], data[4 + length :]
        try:
            found.append(handler_pb2.HandlerFrame.FromString(body))
        except ValueError:  # protobuf's DecodeError
            found.append(handler_pb2.HandlerFrame())
    return found
