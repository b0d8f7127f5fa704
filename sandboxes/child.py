"""A child process that serves calls, as the broker sees it: start it, ask it, know when it is gone.

The egress process and the HTTP proxy are such children. What differs is the program, what is said, and how
that travels (`Channel`). Each request is numbered and has exactly one answer; a child that says something
else, or nothing in time, is killed: what it does is not known.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType
from typing import Protocol, TypeVar

from sandboxes.egress.codec import ControlError

ANSWER_SECONDS = 5.0
"""How long an answer may take."""

_PF_EXITING = 0x4  # linux/sched.h
_END_SECONDS = 2.0
_STARTER = ThreadPoolExecutor(1, thread_name_prefix="child-starter")
_LAST_WORDS_BYTES = 2_000
_NO_ENVIRONMENT: Mapping[str, str] = MappingProxyType({})

A = TypeVar("A")


class ChildGone(Exception):
    """The child is not there any more, or was killed because it did not answer."""


class ChildRefused(Exception):
    """The child said no; nothing is left of the attempt."""


class Request(Protocol):
    """What can be asked."""

    @property
    def op(self) -> str:
        """What is to be done."""

    @property
    def seq(self) -> int:
        """Its number; the answer has the same."""


class Channel(Protocol):
    """The broker's end of what it says with a child."""

    async def send(self, message: Request, descriptors: Sequence[int] = ()) -> None:
        """Send a request, with open descriptors beside it.

        Raises:
            ControlError: It cannot be sent: it is too long.
            OSError: Nobody takes it any more.
        """

    async def receive(self) -> object | None:
        """Wait for what comes next; None when the other side is gone.

        Raises:
            ControlError: What came is no message.
        """

    async def close(self) -> None:
        """Close this end: for the child, that is the end."""


def is_ending(pid: int) -> bool:
    """Tell whether a process ends, or is not there any more (field 9 of proc(5)'s stat)."""
    try:
        flags = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[6]
    except (OSError, IndexError):
        return True
    return bool(int(flags) & _PF_EXITING)


class Child:
    """A running child. `gone` is set once it has been killed and waited for.

    Attributes:
        reason: Why it is gone.
    """

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        channel: Channel,
        on_gone: Callable[[Child], None],
        on_event: Callable[[object], None] | None = None,
    ) -> None:
        """Listen to a process that was started.

        Args:
            process: Its standard error is a pipe.
            channel: What it and we hold of it.
            on_gone: Called once, when it is gone, for whatever reason.
            on_event: Told what comes and is no answer.
        """
        self.gone = asyncio.Event()
        self.reason = ""
        self._on_gone, self._on_event = on_gone, on_event
        self._numbers = itertools.count()
        self._waiting: dict[int, asyncio.Future[object]] = {}
        self._last_words = b""
        self._process, self._channel = process, channel
        assert process.stderr is not None
        self._stderr = process.stderr.fileno()
        os.set_blocking(self._stderr, False)
        asyncio.get_running_loop().add_reader(self._stderr, self._hear)
        self._listening = asyncio.create_task(self._listen())

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        """Whether the process is ending or has ended, perhaps before `gone` is set.

        The kernel says of a process that it is ending before it closes its connections: whoever saw one of
        those break by its end sees this.
        """
        return self.gone.is_set() or is_ending(self.pid)

    def next_number(self) -> int:
        """Number a request."""
        return next(self._numbers)

    async def ask(self, request: Request, kind: type[A], descriptors: Sequence[int] = ()) -> A:
        """Ask, and wait for an answer of one kind.

        Raises:
            ChildRefused: It says no, or the request cannot be sent.
            ChildGone: It is not there any more.
        """
        if self.gone.is_set() or self._listening.done():
            raise ChildGone(self.reason)
        answer: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self._waiting[request.seq] = answer
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await self._send(request, descriptors)
                said = await answer
        except TimeoutError as error:
            await self.kill(f"no answer to {request.op} within {ANSWER_SECONDS:g} s")
            raise ChildGone(self.reason) from error
        finally:
            self._waiting.pop(request.seq, None)
        if isinstance(said, kind):
            return said
        if getattr(said, "op", "") == "refused":
            raise ChildRefused(str(getattr(said, "message", "")))
        await self.kill(f"it answered {request.op} with {getattr(said, 'op', said)}")
        raise ChildGone(self.reason)

    async def end(self) -> None:
        """Let it remove what it made and wait for it; kill it when that takes too long."""
        await self._channel.close()
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

    def lose(self) -> None:
        """Take back what only lives with it. It is gone, and nobody has been told yet."""

    async def _send(self, request: Request, descriptors: Sequence[int]) -> None:
        try:
            await self._channel.send(request, descriptors)
        except ControlError as error:
            raise ChildRefused(str(error)) from error
        except OSError as error:
            await self.kill(f"it takes nothing any more: {error.strerror}")
            raise ChildGone(self.reason) from error

    async def _listen(self) -> None:
        """Hand out answers until it is gone; then kill, wait and tell."""
        try:
            while (said := await self._channel.receive()) is not None:
                self._hand_out(said)
        except ControlError as error:
            self.reason = self.reason or f"it said something that is no answer: {error}"
        finally:
            await self._bury()

    def _hand_out(self, said: object) -> None:
        number = getattr(said, "seq", None)
        if number is None:
            if self._on_event is not None:
                self._on_event(said)
            return
        waiting = self._waiting.pop(number, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(said)

    async def _bury(self) -> None:
        await self._channel.close()
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
        self.lose()
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


def spawn(
    program: str,
    control: socket.socket,
    arguments: Sequence[str] = (),
    environment: Mapping[str, str] = _NO_ENVIRONMENT,
) -> subprocess.Popen[bytes]:
    """Start a module with nothing of our environment, in a session of its own, `control` as standard input.

    The kernel ends it when the thread that started it ends. So one thread starts all, and lives as long as
    the broker's process, whichever thread the broker's event loop runs on.
    """
    return _STARTER.submit(_spawn, [program, *arguments], control, environment).result()


def _spawn(
    words: Sequence[str], control: socket.socket, environment: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-P", "-m", *words],
        stdin=control.fileno(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=environment,
        cwd="/",
        start_new_session=True,
    )
