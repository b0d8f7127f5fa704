"""The stream from init: bounded while nobody reads it, and whole when somebody does."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator

import pytest

from sandboxes.container_init import EXIT, EXIT_NOT_STARTED, FRAMES, LOG, PIECE
from sandboxes.conversation import frame_bytes
from sandboxes.exchange import Exchange
from sandboxes.outcome import OutcomeKind, SandboxSpec, refuse_to_sign
from sandboxes.stream import Stream
from sandboxes.watched_process import wait_for_end
from tests.parts.engine import TestLimits
from toolcrib.handler.v1 import handler_pb2


@pytest.fixture
async def both() -> AsyncIterator[tuple[Stream, socket.socket]]:
    """A stream, and init's end of it."""
    ours, theirs = socket.socketpair()
    stream = await Stream.over(ours)
    yield stream, theirs
    stream.close()
    theirs.close()
    await asyncio.sleep(0)


@pytest.mark.parametrize("size", [1, 2, 60_000])
async def test_keeps_little_while_nobody_reads(both: tuple[Stream, socket.socket], size: int) -> None:
    """A handler that logs single letters while it waits for its call fills nobody's memory."""
    stream, theirs = both
    theirs.setblocking(False)
    piece = PIECE.pack(LOG, size) + bytes(size)
    with contextlib.suppress(BlockingIOError):
        while theirs.send(piece * (1 + 8192 // len(piece))):
            await asyncio.sleep(0)
    assert len(stream.peek()) * (size + 100) < 1_000_000


async def test_gives_everything_once_somebody_reads(both: tuple[Stream, socket.socket]) -> None:
    stream, theirs = both
    flood = (PIECE.pack(LOG, 2) + b"ab") * 50_000
    sending = asyncio.create_task(asyncio.to_thread(theirs.sendall, flood))
    for _ in range(50_000):
        assert await stream.read() == (LOG, b"ab")
    await sending


async def test_lets_others_run_while_frames_flood(both: tuple[Stream, socket.socket]) -> None:
    stream, theirs = both
    spec = SandboxSpec("", (), TestLimits(output_kib=1024), None, 1)
    progress = frame_bytes(handler_pb2.HandlerFrame(progress=handler_pb2.Progress())) * 100
    result = frame_bytes(handler_pb2.HandlerFrame(result=handler_pb2.Result()))
    for frames in (*[progress] * 50, result):
        theirs.sendall(PIECE.pack(FRAMES, len(frames)) + frames)
    await asyncio.sleep(0.1)
    assert len(stream.peek()) == 51
    exchange = Exchange(stream, spec, _say_nothing)
    call, turns = asyncio.create_task(exchange.run(handler_pb2.Start(), 10, refuse_to_sign)), 0
    while not call.done():
        await asyncio.sleep(0)
        turns += 1
    assert (await call).kind is OutcomeKind.RESULT
    assert turns > 50


async def test_says_why_a_sandbox_ended_before_its_call(both: tuple[Stream, socket.socket]) -> None:
    stream, theirs = both
    spec = SandboxSpec("", (), TestLimits(), None, 1)
    for channel, said in ((LOG, b"no such program"), (EXIT, bytes([EXIT_NOT_STARTED]))):
        theirs.sendall(PIECE.pack(channel, len(said)) + said)
    theirs.close()
    await asyncio.sleep(0.1)
    outcome = await Exchange(stream, spec, _say_nothing).run(handler_pb2.Start(), 10, refuse_to_sign)
    assert "could not be started" in outcome.detail
    assert outcome.log == "no such program"


async def _say_nothing() -> str:
    return ""


async def test_tells_two_who_wait_for_the_same_end() -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    held = os.pidfd_open(process.pid)
    waits = [asyncio.create_task(wait_for_end(held, 30)) for _ in range(2)]
    await asyncio.sleep(0.05)
    os.close(held)  # by whoever was told first
    process.send_signal(signal.SIGKILL)
    async with asyncio.timeout(10):
        assert await asyncio.gather(*waits) == [True, True]
    process.communicate()
