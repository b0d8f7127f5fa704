"""The broker's side of a worker: one process, started when it is needed, one job at a time."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys

from tools.content.kinds import Cleaned, Problem
from tools.content.worker.frames import (
    LENGTH,
    MAX_HEAD_BYTES,
    Garbled,
    Job,
    Rejected,
    body_size,
    decode_done,
    encode_job,
)

START_SECONDS = 60.0
"""How long it may take to be ready; a machine may be busy."""
CLEAN_SECONDS = 5.0
"""How much of a processor's time one job may take; the worker's own kernel timer ends it then."""
_WALL_FACTOR = 8.0
"""How much longer it may take on a clock, where other processes have the processor."""
_READY_BYTES = 5
_GROWTH, _SPARE_BYTES = 6, 64 * 1024
"""Cleaned content is at most so many times as long as it was: escapes in Markdown and JSON."""

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class WorkerBroken(Exception):
    """The worker did not do a job: it died, was too slow, or cannot be started. It was replaced.

    Attributes:
        problem: What became of the job.
    """

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.value)
        self.problem = problem


class Worker:
    """One worker process, kept from job to job and replaced when it breaks.

    Attributes:
        starts: How often one was started.
    """

    def __init__(self, clean_seconds: float = CLEAN_SECONDS) -> None:
        self.starts = 0
        self._clean_seconds = clean_seconds
        self._turn = asyncio.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._streams: Streams | None = None

    @property
    def pid(self) -> int | None:
        """The process's id; None while there is none."""
        return self._process.pid if self._process else None

    async def clean(self, job: Job) -> list[Cleaned]:
        """Clean strings, when it is this job's turn.

        Raises:
            Rejected: One of them was refused.
            WorkerBroken: The job was not done.
        """
        request = encode_job(job)
        async with self._turn:
            try:
                reader, writer = await self._find_streams()
                async with asyncio.timeout(self._clean_seconds * _WALL_FACTOR):
                    writer.write(request)
                    await writer.drain()
                    return await _read_answer(reader, job, len(request))
            except Rejected:
                raise
            except TimeoutError as error:
                await self._end()
                raise WorkerBroken(Problem.TOO_SLOW) from error
            except (OSError, EOFError, Garbled) as error:
                code = await self._end()
                raise WorkerBroken(Problem.TOO_SLOW if code == -signal.SIGPROF else Problem.BROKEN) from error
            except BaseException:  # the call was cancelled: what it waits for is nobody's any more
                await self._end()
                raise

    async def close(self) -> None:
        """End it."""
        await self._end()

    async def _find_streams(self) -> Streams:
        if self._process is not None and self._process.poll() is not None:
            await self._end()
        if self._streams is None:
            self._streams = await self._start()
        return self._streams

    async def _start(self) -> Streams:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = await asyncio.to_thread(spawn, theirs, self._clean_seconds)
        self.starts += 1
        self._streams = streams = await asyncio.open_connection(sock=ours)
        async with asyncio.timeout(START_SECONDS):
            await streams[0].readexactly(_READY_BYTES)
        return streams

    async def _end(self) -> int:
        """Kill it and see it buried; nothing can be left of it, because it holds nothing.

        Returns:
            What it ended with: minus a signal's number; 0 where there was none.
        """
        streams, self._streams = self._streams, None
        process, self._process = self._process, None
        if streams is not None:
            streams[1].close()
            with contextlib.suppress(OSError):
                await streams[1].wait_closed()
        if process is None:
            return 0
        process.kill()
        return await asyncio.to_thread(process.wait)


async def _read_answer(reader: asyncio.StreamReader, job: Job, sent: int) -> list[Cleaned]:
    (length,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
    if length > MAX_HEAD_BYTES:
        raise Garbled("its head is too long")
    head = await reader.readexactly(length)
    body = await reader.readexactly(body_size(head, _GROWTH * sent + _SPARE_BYTES))
    return decode_done(head, body, len(job.items))


def spawn(control: socket.socket, seconds: float) -> subprocess.Popen[bytes]:
    """Start the program with an empty environment, in a session of its own, `control` as standard input."""
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "tools.content.worker", str(seconds)],
        stdin=control.fileno(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={},
        cwd=os.sep,
        start_new_session=True,
    )
