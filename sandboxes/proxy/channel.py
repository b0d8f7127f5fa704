"""The socket between broker and HTTP proxy: packets, with descriptors beside them, without blocking a loop.

Both sides use it. A packet that was cut ends the conversation; of descriptors that this process has no room
for comes none.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import os
import socket
from collections import deque
from collections.abc import Sequence

from sandboxes.egress.codec import ControlError
from sandboxes.proxy.control import MAX_MESSAGE_BYTES, MAX_TARGETS

_MAX_FDS = MAX_TARGETS + 1
_CMSG_BYTES = socket.CMSG_SPACE(_MAX_FDS * array.array("i").itemsize)
_CUT = socket.MSG_TRUNC | socket.MSG_CTRUNC
_SEND_BUFFER_BYTES = 512 * 1024


def make_pair() -> tuple[socket.socket, socket.socket]:
    """Make the two ends."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


class Channel:
    """One end. It owns its socket.

    Packets go out in the order in which they were given; what does not fit into the socket now waits here.
    """

    def __init__(self, connected: socket.socket) -> None:
        connected.setblocking(False)
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        self._socket = connected
        self._unsent: deque[tuple[bytes, tuple[int, ...]]] = deque()
        self._emptied = asyncio.Event()
        self._emptied.set()
        self._broken = False

    def send(self, body: bytes, fds: Sequence[int] = ()) -> None:
        """Send a packet, or keep it until it fits. Descriptors are copied: the caller may close its own.

        Raises:
            ConnectionError: The other side is gone.
            ControlError: This process has no descriptors left to copy into.
        """
        if self._broken:
            raise ConnectionError("the other side is gone")
        self._unsent.append((body, _copy_all(fds)))
        if self._emptied.is_set():
            self._flush()
        if self._broken:
            raise ConnectionError("the other side is gone")

    async def drain(self) -> None:
        """Wait until everything was sent, or can not be sent any more."""
        await self._emptied.wait()

    async def receive(self) -> tuple[bytes, list[int]] | None:
        """Receive a packet and its descriptors, which belong to the caller; None at the end.

        Raises:
            ControlError: It was cut, or it carried more than any message does.
        """
        while True:
            try:
                return self._read()
            except BlockingIOError:
                await self._wait_readable()
            except ConnectionError:
                return None

    def close(self) -> None:
        """Close it; what was not sent is dropped."""
        self._break()
        if self._socket.fileno() >= 0:
            with contextlib.suppress(RuntimeError):  # no loop runs any more: it watches nothing either
                asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()

    def _read(self) -> tuple[bytes, list[int]] | None:
        body, ancillary, flags, _ = self._socket.recvmsg(
            MAX_MESSAGE_BYTES + 1, _CMSG_BYTES, socket.MSG_CMSG_CLOEXEC
        )
        fds = array.array("i")
        for level, kind, data in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
        if flags & _CUT:
            _close_all(fds)
            fds = array.array("i")
        if flags & socket.MSG_TRUNC or len(body) > MAX_MESSAGE_BYTES:
            _close_all(fds)
            raise ControlError("a packet is longer than any message")
        return (body, list(fds)) if body else None

    async def _wait_readable(self) -> None:
        loop = asyncio.get_running_loop()
        ready = loop.create_future()
        loop.add_reader(self._socket, _set, ready)
        try:
            await ready
        finally:
            if self._socket.fileno() >= 0:
                loop.remove_reader(self._socket)

    def _flush(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._unsent:
                body, fds = self._unsent[0]
                _send_packet(self._socket, body, fds)
                self._unsent.popleft()
                _close_all(fds)
        except BlockingIOError:
            if self._emptied.is_set():
                self._emptied.clear()
                loop.add_writer(self._socket, self._flush)
            return
        except OSError:
            self._break()
            return
        if not self._emptied.is_set():
            self._emptied.set()
            loop.remove_writer(self._socket)

    def _break(self) -> None:
        self._broken = True
        for _, fds in self._unsent:
            _close_all(fds)
        self._unsent.clear()
        if not self._emptied.is_set():
            self._emptied.set()
            with contextlib.suppress(RuntimeError):
                asyncio.get_running_loop().remove_writer(self._socket)


def _copy_all(fds: Sequence[int]) -> tuple[int, ...]:
    copies: list[int] = []
    try:
        for fd in fds:
            copies.append(os.dup(fd))
    except OSError as error:
        _close_all(copies)
        raise ControlError(f"its descriptors cannot be copied: {error.strerror}") from error
    return tuple(copies)


def _send_packet(to: socket.socket, body: bytes, fds: Sequence[int]) -> None:
    beside = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    to.sendmsg([body], beside, socket.MSG_NOSIGNAL)


def _close_all(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)


def _set(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
