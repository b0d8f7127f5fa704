"""The standard streams of an MCP server, in a process of their own."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from typing import Any

import pytest
from pydantic import TypeAdapter

from toolcrib.mcp.stdio import Lines, Wire

NOISY = """
import asyncio, os, subprocess, sys
from toolcrib.mcp.stdio import take_standard_streams

async def serve():
    async with take_standard_streams() as (lines, wire):
        async for line in lines:
            print("a library's greeting", flush=True)
            os.write(1, b"another's, past Python\\n")
            subprocess.run(["echo", "a child's"], check=True)
            assert sys.stdin.read() == "", "nobody else gets the host's words"
            await wire.write(f"said {line}\\n")
    print("stdout is itself again", flush=True)

asyncio.run(serve())
"""


def run(program: str, given: bytes) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-P", "-c", program]
    return subprocess.run(command, input=given, capture_output=True, timeout=60, check=False)


def test_lets_nothing_but_the_protocol_out() -> None:
    ended = run(NOISY, b"one\ntwo\n")
    assert ended.stdout == b"said one\nsaid two\nstdout is itself again\n", ended.stderr
    assert ended.stderr.count(b"a library's greeting") == 2
    assert ended.stderr.count(b"another's, past Python") == 2
    assert ended.stderr.count(b"a child's") == 2


def test_control_without_taking_the_streams_noise_is_protocol() -> None:
    kept = "async with take_standard_streams() as (lines, wire)"
    loud = NOISY.replace(kept, "for lines, wire in [(Lines(Wire(0)), Wire(1))]").replace(
        "import take_standard_streams", "import Lines, Wire"
    )
    assert b"a library's greeting" in run(loud.replace("sys.stdin.read()", "''"), b"one\n").stdout


async def read_lines(*pieces: bytes, max_line_bytes: int = 10) -> list[str]:
    """Feed a pipe in pieces, and read it as lines."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)

    async def feed() -> None:
        for piece in pieces:
            os.write(writing, piece)
            await asyncio.sleep(0.01)
        os.close(writing)

    feeding = asyncio.create_task(feed())
    found = [line async for line in Lines(Wire(reading), max_line_bytes)]
    await feeding
    os.close(reading)
    return found


async def test_joins_a_line_that_comes_in_pieces() -> None:
    assert await read_lines(b"on", b"e\ntw", b"o\nthree\n") == ["one", "two", "three"]


async def test_drops_a_line_over_the_limit_and_goes_on() -> None:
    assert await read_lines(b"x" * 11 + b"\nnext\n") == ["next"]
    assert await read_lines(b"x" * 11, b"y" * 30, b"z\nnext\n") == ["next"]


async def test_keeps_a_line_at_the_limit() -> None:
    assert await read_lines(b"x" * 10 + b"\n") == ["x" * 10]


async def test_leaves_out_what_has_no_end() -> None:
    assert await read_lines(b"one\ntw") == ["one"]


async def test_replaces_what_is_no_text() -> None:
    assert await read_lines(b"\xff\n") == ["\ufffd"]


@pytest.mark.parametrize(
    ("escaped", "read"),
    [
        (r"\ud800", "\ufffd"),
        (r"\uDFFFx", "\ufffdx"),
        (r"\ud83d\ude00", "\U0001f600"),
        (r"\ude00\ud83d\ude00\ud83d", "\ufffd\U0001f600\ufffd"),
        (r"\\ud800", r"\ud800"),
        (r"\\\ud800", "\\\ufffd"),
        (r"\u00e9\n", "\u00e9\n"),
    ],
)
async def test_replaces_half_a_character(escaped: str, read: str) -> None:
    """The SDK drops such a line without an answer, and the host waits."""
    (line,) = await read_lines(f'{{"a": "{escaped}"}}\n'.encode(), max_line_bytes=99)
    assert jsonrpc_reads(line) == {"a": read}


def jsonrpc_reads(line: str) -> Any:
    """Read JSON as the SDK does."""
    return TypeAdapter(Any).validate_json(line)


async def test_writes_more_than_a_pipe_holds() -> None:
    reading, writing = os.pipe()
    for descriptor in (reading, writing):
        os.set_blocking(descriptor, False)
    task = asyncio.create_task(Wire(writing).write("x" * 1_000_000))
    got = b""
    while len(got) < 1_000_000:
        got += await Wire(reading).read()
    await task
    os.close(reading)
    os.close(writing)
    assert got == b"x" * 1_000_000


async def test_can_be_cancelled_while_it_waits() -> None:
    """A thread that waits in `read` could not be called back: the server would outlive SIGTERM."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    task = asyncio.create_task(Wire(reading).read())
    await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()
    os.close(reading)
    os.close(writing)
