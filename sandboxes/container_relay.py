"""The proxy's place inside a sandbox: from a port of its own loopback to the forward door of its nest.

It stands beside init in the image, and runs in a process that init forks before it starts the handler. Only
the standard library is used, and of that what init has loaded already.

Rules:
    * it is not dumpable, as init is, and holds no descriptor of init's but the listener: a handler, which has
      the same uid, can end it, and has then no proxy; there is nothing else to take from it;
    * at most MOST_LINKS connections, at most a chunk held for each direction. More wait to be accepted, and
      while an end does not take its bytes the other is not read: nothing grows;
    * an end of one side is passed on as the end of that half; an error ends both, with a reset;
    * it dies with init.
"""

from __future__ import annotations

import _socket
import ctypes
import os
import select
import signal
import struct

MOST_LINKS = 64
DOOR = "/run/toolcrib/.proxy/s"

_LISTENER = 3  # the one descriptor that is kept
_DESCRIPTORS = 4_096
_CHUNK = 32_768
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE = 1, 4
_RESET = struct.pack("ii", 1, 0)  # struct linger: on, no time


class Half:
    """The bytes of one direction; at most a chunk of them is held.

    Attributes:
        is_over: The source's end was passed on.
    """

    def __init__(self, source: _socket.socket, sink: _socket.socket) -> None:
        self.source, self.sink = source, sink
        self.is_over = False
        self._held = b""
        self._at_end = False

    def register(self, wanted: dict[int, int]) -> None:
        """Say what is waited for; an end that nothing is waited for at would wake us for ever."""
        if self._held:
            wanted[self.sink.fileno()] = wanted.get(self.sink.fileno(), 0) | select.POLLOUT
        elif not self._at_end:
            wanted[self.source.fileno()] = wanted.get(self.source.fileno(), 0) | select.POLLIN

    def move(self, ready: dict[int, int]) -> None:
        """Move what can be moved now.

        Raises:
            OSError: One of the ends is broken.
        """
        try:
            if not self._held and not self._at_end and self.source.fileno() in ready:
                self._held = self.source.recv(_CHUNK)
                self._at_end = not self._held
            if self._held:
                self._held = self._held[self.sink.send(self._held) :]
        except BlockingIOError:
            return
        if self._at_end and not self.is_over:
            self.is_over = True
            self.sink.shutdown(_socket.SHUT_WR)


class Link:
    """One connection of the handler's, and its way to the door."""

    def __init__(self, inside: _socket.socket) -> None:
        """Connect to the door.

        Raises:
            OSError: There is none, no call is open, or it takes no more.
        """
        self._inside = inside
        self._outside = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        try:
            for end in (self._inside, self._outside):
                end.setblocking(False)
            self._outside.connect(DOOR)
        except OSError:
            self.break_off()
            raise
        self.halves = (Half(self._inside, self._outside), Half(self._outside, self._inside))

    def move(self, ready: dict[int, int]) -> bool:
        """Move what can be moved; False once it is over."""
        try:
            for half in self.halves:
                half.move(ready)
        except OSError:
            self.break_off()
            return False
        if all(half.is_over for half in self.halves):
            self._inside.close()
            self._outside.close()
            return False
        return True

    def break_off(self) -> None:
        """End both, so that the handler's client sees an error and not an end."""
        try:
            self._inside.setsockopt(_socket.SOL_SOCKET, _socket.SO_LINGER, _RESET)
        finally:
            self._inside.close()
            self._outside.close()


def serve(listener: int) -> None:
    """Relay until init ends.

    Args:
        listener: Descriptor of a listening TCP socket.
    """
    door = _take_over(listener)
    links: list[Link] = []
    while True:
        wanted: dict[int, int] = {}
        if len(links) < MOST_LINKS:
            wanted[_LISTENER] = select.POLLIN
        for link in links:
            for half in link.halves:
                half.register(wanted)
        poll = select.poll()
        for descriptor, events in wanted.items():
            poll.register(descriptor, events)
        ready = dict(poll.poll())
        links = [link for link in links if link.move(ready)]
        if _LISTENER in ready and (fresh := _accept(door)) is not None:
            links.append(fresh)


def _take_over(listener: int) -> _socket.socket:
    """Keep the listener alone of all that init has open; above all, the broker's socket is not kept."""
    libc = ctypes.CDLL(None)
    for option, value in ((_PR_SET_DUMPABLE, 0), (_PR_SET_PDEATHSIG, signal.SIGKILL)):
        if libc.prctl(option, value, 0, 0, 0) != 0:
            os._exit(1)
    os.dup2(listener, _LISTENER)
    os.closerange(_LISTENER + 1, _DESCRIPTORS)
    empty = os.open("/dev/null", os.O_RDWR)
    for descriptor in range(_LISTENER):
        os.dup2(empty, descriptor)
    os.close(empty)
    door = _socket.socket(fileno=_LISTENER)
    door.setblocking(False)
    return door


def _accept(door: _socket.socket) -> Link | None:
    try:
        accepted, _ = door._accept()  # type: ignore[attr-defined]  # socket itself costs 5 ms at start
        return Link(_socket.socket(fileno=accepted))
    except OSError:
        return None  # it went away, or there is no door: its client sees a connection that was reset
