"""One run of the egress process as the broker sees it: start it, ask it, know when it is gone."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from sandboxes.egress.control import (
    ANSWERS,
    Answer,
    CloseCall,
    Closed,
    Configure,
    ControlError,
    Done,
    OpenCall,
    Refused,
    Request,
    decode,
    encode,
    read_body,
)
from sandboxes.nests import Nest, Nests

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
A = TypeVar("A", Done, Closed)

ANSWER_SECONDS = 5.0
"""How long an answer may take. A child that is later than this is killed: what it does is not known."""

_END_SECONDS = 2.0
_STARTER = ThreadPoolExecutor(1, thread_name_prefix="egress-starter")
_LAST_WORDS_BYTES = 2_000


class ChildGone(Exception):
    """The egress process is not there any more, or was killed because it did not answer."""


class ChildRefused(Exception):
    """The egress process said no; nothing is left of the attempt."""


class Child:
    """A running egress process. `gone` is set once it has been killed and waited for.

    Attributes:
        nests: Where it can make sockets, once it is configured.
    """

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        streams: Streams,
        nests: Nests,
        on_gone: Callable[[Child], None],
    ) -> None:
        self.nests = nests
        self.gone = asyncio.Event()
        self.reason = ""
        self._on_gone = on_gone
        self._numbers = itertools.count()
        self._waiting: dict[int, asyncio.Future[Answer]] = {}
        self._last_words = b""
        self._process = process
        self._reader, self._writer = streams
        assert process.stderr is not None
        self._stderr = process.stderr.fileno()
        os.set_blocking(self._stderr, False)
        asyncio.get_running_loop().add_reader(self._stderr, self._hear)
        self._listening = asyncio.create_task(self._listen())

    @classmethod
    async def launch(cls, nests: Nests, on_gone: Callable[[Child], None]) -> Child:
        """Start it; `on_gone` is called once, when it is gone, for whatever reason."""
        ours, theirs = socket.socketpair()
        with theirs:
            streams = await asyncio.open_connection(sock=ours)
            try:
                return cls(spawn(theirs), streams, nests, on_gone)
            except BaseException:
                streams[1].close()
                await streams[1].wait_closed()
                raise

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    async def configure(self, rules: Configure) -> None:
        """Tell it where to work and what may be reached.

        Raises:
            ChildRefused: The folder cannot be used.
            ChildGone: It is not there any more.
        """
        await self._ask(rules, Done)

    async def open_call(self, call: str, nest: Nest, targets: list[str]) -> None:
        """Have the sockets of a call made in a nest.

        Raises:
            ChildRefused: They cannot be made.
            ChildGone: It is not there any more.
        """
        await self._ask(OpenCall(self.next_number(), call, nest.name, nest.uid, targets), Done)

    async def close_call(self, call: str) -> Closed:
        """Have everything ended that a call has.

        Raises:
            ChildGone: It is not there any more, and so is everything that it had open.
        """
        return await self._ask(CloseCall(self.next_number(), call), Closed)

    def next_number(self) -> int:
        """Number a request."""
        return next(self._numbers)

    async def end(self) -> None:
        """Let it remove what it made and wait for it; kill it when that takes too long."""
        self._writer.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_END_SECONDS):
                await self.gone.wait()
        await self.kill("it was ended")

    async def kill(self, reason: str) -> None:
        """Kill it if it lives, and wait until nothing of it is left."""
        self.reason = self.reason or reason
        if not self.gone.is_set():
            self._process.kill()
            await self.gone.wait()

    async def _ask(self, request: Request, kind: type[A]) -> A:
        if self.gone.is_set() or self._listening.done():
            raise ChildGone(self.reason)
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting[request.seq] = answer
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                self._writer.write(encode(request))
                said = await answer
        except TimeoutError as error:
            await self.kill(f"no answer to {request.op} within {ANSWER_SECONDS:g} s")
            raise ChildGone(self.reason) from error
        finally:
            self._waiting.pop(request.seq, None)
        if isinstance(said, Refused):
            raise ChildRefused(said.message)
        if not isinstance(said, kind):
            await self.kill(f"it answered {request.op} with {said.op}")
            raise ChildGone(self.reason)
        return said

    async def _listen(self) -> None:
        """Hand out answers until it is gone; then kill, wait and tell."""
        try:
            while (body := await read_body(self._reader)) is not None:
                answer = decode(body, ANSWERS)
                waiting = self._waiting.pop(answer.seq, None)
                if waiting is not None and not waiting.done():
                    waiting.set_result(answer)
        except ControlError as error:
            self.reason = self.reason or f"it said something that is no answer: {error}"
        finally:
            await self._bury()

    async def _bury(self) -> None:
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()
        try:
            code = await asyncio.to_thread(self._process.wait, _END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = await asyncio.to_thread(self._process.wait)
        self._hear()
        asyncio.get_running_loop().remove_reader(self._stderr)
        assert self._process.stderr is not None
        self._process.stderr.close()
        words = self._last_words.decode(errors="replace").strip()
        self.reason = self.reason or f"it ended with code {code}{': ' + words if words else ''}"
        self.gone.set()
        self.nests.lose()
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(ChildGone(self.reason))
        self._on_gone(self)

    def _hear(self) -> None:
        """Keep the end of what it writes to its standard error."""
        with contextlib.suppress(BlockingIOError):
            words = os.read(self._stderr, 65_536)
            self._last_words = (self._last_words + words)[-_LAST_WORDS_BYTES:]
            if not words:
                asyncio.get_running_loop().remove_reader(self._stderr)


def spawn(control: socket.socket) -> subprocess.Popen[bytes]:
    """Start the program with an empty environment, in a session of its own, `control` as standard input.

    The kernel ends it when the thread that started it ends. So one thread starts all, and lives as long as
    the broker's process, whichever thread the broker's event loop runs on.
    """
    return _STARTER.submit(_spawn, control).result()


def _spawn(control: socket.socket) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "sandboxes.egress"],
        stdin=control.fileno(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={},
        cwd="/",
        start_new_session=True,
    )
