"""MCP over stdin and stdout, one JSON-RPC message a line.

1. Only the protocol leaves on stdout. While the server runs, descriptor 1 is stderr: what a library prints by
   mistake does not break the host's parser, and cannot pass for a message.
2. The server ends when stdin closes, and on a signal: reads and writes are the event loop's own. A thread
   that waits in `read` could not be called back.
3. A line over the limit is dropped, not gathered; stderr says so.
4. Half a character is replaced, as a byte that is no UTF-8 is: a host's JSON may hold half of a model's
   emoji, and the SDK would drop the whole call without an answer.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

MAX_LINE_BYTES = 4 * 1024 * 1024
CHUNK_BYTES = 65_536

logger = logging.getLogger(__name__)
_DROPPED = "a message of more than %d bytes was dropped, and has no answer"
# A JSON text's escapes: a pair of surrogates, half of one, or anything else behind a backslash.
_HEX = "[0-9a-fA-F]{2}"
_ESCAPE = re.compile(rf"(\\u[dD][89abAB]{_HEX}\\u[dD][c-fC-F]{_HEX})|(\\u[dD][89a-fA-F]{_HEX})|\\.")


class Wire:
    """A descriptor that is read and written without blocking; a regular file never blocks."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    async def read(self) -> bytes:
        """Wait for some bytes; none: the end."""
        while True:
            try:
                return os.read(self._descriptor, CHUNK_BYTES)
            except BlockingIOError:
                loop = asyncio.get_running_loop()
                await self._until_ready(loop.add_reader, loop.remove_reader)

    async def write(self, text: str) -> None:
        """Write all of it."""
        rest = memoryview(text.encode())
        while rest:
            try:
                rest = rest[os.write(self._descriptor, rest) :]
            except BlockingIOError:
                loop = asyncio.get_running_loop()
                await self._until_ready(loop.add_writer, loop.remove_writer)

    async def flush(self) -> None:
        """Nothing is kept back."""

    async def _until_ready(self, watch: Callable[..., Any], unwatch: Callable[[int], Any]) -> None:
        ready = asyncio.Event()
        watch(self._descriptor, ready.set)
        try:
            await ready.wait()
        finally:
            unwatch(self._descriptor)


class Lines:
    """The lines of a wire, as text."""

    def __init__(self, wire: Wire, max_line_bytes: int = MAX_LINE_BYTES) -> None:
        self._wire, self._max = wire, max_line_bytes

    async def __aiter__(self) -> AsyncIterator[str]:
        """Give each line that is whole and within the limit."""
        held, dropping = b"", False
        while chunk := await self._wire.read():
            *whole, held = (held + chunk).split(b"\n")
            for line in whole:
                if not dropping and len(line) <= self._max:
                    yield _make_whole(line.decode("utf-8", "replace"))
                elif not dropping:
                    logger.warning(_DROPPED, self._max)
                dropping = False
            if len(held) > self._max:
                if not dropping:
                    logger.warning(_DROPPED, self._max)
                held, dropping = b"", True


def _make_whole(line: str) -> str:
    """Replace what is half a character in a JSON text."""
    if "\\ud" not in line and "\\uD" not in line:
        return line
    return _ESCAPE.sub(lambda found: "\\ufffd" if found[2] else found[0], line)


@asynccontextmanager
async def take_standard_streams() -> AsyncIterator[tuple[Lines, Wire]]:
    """Take stdin and stdout away from everything else in this process, and give them back at the end."""
    ours = {0: os.dup(0), 1: os.dup(1)}
    blocking = {descriptor: os.get_blocking(descriptor) for descriptor in ours.values()}
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    os.close(nothing)
    for descriptor in ours.values():
        os.set_blocking(descriptor, False)
    try:
        yield Lines(Wire(ours[0])), Wire(ours[1])
    finally:
        for standard, descriptor in ours.items():
            os.set_blocking(descriptor, blocking[descriptor])
            os.dup2(descriptor, standard)
            os.close(descriptor)
