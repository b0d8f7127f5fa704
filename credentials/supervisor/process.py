"""One run of the supervisor as the broker sees it: start it, talk to it, know when it is gone."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable

from credentials.supervisor.messages import (
    MAX_PACKET_BYTES,
    Begin,
    Garbled,
    Keep,
    Kept,
    Message,
    Ready,
    Refused,
    Release,
    decode,
    encode,
    make_pair,
)

START_SECONDS = 10.0
"""How long it may take to be ready; a machine may be busy."""
_ANSWER_SECONDS = 5.0
_END_SECONDS = 2.0


class SupervisorGone(Exception):
    """The supervisor is not there, or of no use; the text says why."""


class SupervisorProcess:
    """A running supervisor.

    Attributes:
        uid: Under which it runs; 0: in a namespace without its own user, it could not leave root's.
        heard: When it last said something, by the loop's clock.
    """

    def __init__(
        self,
        control: socket.socket,
        process: subprocess.Popen[bytes],
        on_message: Callable[[Message], None],
        on_gone: Callable[[SupervisorProcess], None],
    ) -> None:
        self.uid = -1
        self._control, self._process = control, process
        self._on_message, self._on_gone = on_message, on_gone
        self._loop = asyncio.get_running_loop()
        self.heard = self._loop.time()
        self._said: asyncio.Queue[Message] = asyncio.Queue()
        self._listening = self._loop.create_task(self._listen(), name="supervisor")
        self._gone = False

    @classmethod
    async def start(
        cls,
        begin: Begin,
        on_message: Callable[[Message], None],
        on_gone: Callable[[SupervisorProcess], None],
    ) -> SupervisorProcess:
        """Start it and have it ready for a token.

        Raises:
            SupervisorGone: It cannot be started, or cannot use what it was told.
        """
        ours, theirs = make_pair()
        ours.setblocking(False)
        with theirs:
            try:
                process = spawn(theirs)
            except OSError as error:
                ours.close()
                raise SupervisorGone(f"it cannot be started: {error.strerror}") from error
        made = cls(ours, process, on_message, on_gone)
        try:
            ready = await made._ask(begin, START_SECONDS)
        except BaseException:
            await made.kill()
            raise
        if isinstance(ready, Ready):
            made.uid = ready.uid
            return made
        await made.kill()
        raise SupervisorGone(ready.cause if isinstance(ready, Refused) else "it said something else")

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def is_gone(self) -> bool:
        """True once it is known to be gone."""
        return self._gone

    async def keep(self, token: Keep) -> None:
        """Hand a token over.

        Raises:
            SupervisorGone: It did not take it.
        """
        if not isinstance(await self._ask(token, _ANSWER_SECONDS), Kept):
            raise SupervisorGone("it did not take the token")

    def tell(self, message: Message) -> None:
        """Say something that is not answered; when it is gone, nobody hears it."""
        with contextlib.suppress(OSError):
            self._control.send(encode(message))

    async def release(self) -> None:
        """Let it end without touching the token."""
        self.tell(Release())
        await self._end()

    async def abandon(self) -> None:
        """Leave it the token to revoke; it ends by itself when it has, or after a period."""
        self._on_gone = _ignore
        self._listening.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._listening
        # Its parent sees it buried if it still lives by then, and waits for it in no case.
        threading.Thread(target=self._process.wait, name="supervisor-end", daemon=True).start()

    async def kill(self) -> None:
        """End it at once; the token stays as it is."""
        self._process.kill()
        await self._end()

    async def _end(self) -> None:
        self._on_gone = _ignore
        try:
            async with asyncio.timeout(_END_SECONDS):
                await asyncio.shield(self._listening)
        except TimeoutError:
            self._process.kill()
            await self._listening

    async def _ask(self, message: Message, seconds: float) -> Message:
        if self._gone:
            raise SupervisorGone("it is gone")
        while not self._said.empty():
            self._said.get_nowait()
        self.tell(message)
        answer = asyncio.ensure_future(self._said.get())
        try:
            done, _ = await asyncio.wait(
                (answer, self._listening), timeout=seconds, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            answer.cancel()
        if answer in done:
            return answer.result()
        raise SupervisorGone("it is gone" if done else f"it did not answer within {seconds:g} s")

    async def _listen(self) -> None:
        """Hear it until it is gone, and see it buried."""
        try:
            while packet := await self._loop.sock_recv(self._control, MAX_PACKET_BYTES):
                self.heard = self._loop.time()
                message = decode(packet)
                if isinstance(message, Ready | Refused | Kept):
                    self._said.put_nowait(message)
                else:
                    self._on_message(message)
        except (OSError, Garbled):
            self._process.kill()
        finally:
            self._control.close()
        await asyncio.to_thread(_bury, self._process)
        self._gone = True
        self._on_gone(self)


def spawn(control: socket.socket) -> subprocess.Popen[bytes]:
    """Start the program with an empty environment, in a session of its own, `control` as standard input.

    It inherits a descriptor of our own process, which no other process can have by chance, and our standard
    error, where it says what it did when we are gone.

    Raises:
        OSError: It cannot be started.
    """
    us = os.pidfd_open(os.getpid())
    try:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "credentials.supervisor", str(us)],
            stdin=control.fileno(),
            stdout=subprocess.DEVNULL,
            env={},
            cwd="/",
            start_new_session=True,
            pass_fds=(us,),
        )
    finally:
        os.close(us)


def _bury(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _ignore(_: SupervisorProcess) -> None:
    pass
