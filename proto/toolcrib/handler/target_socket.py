"""A connection to a target that ends when its time is over, and that gives no more than it may.

    connection = TargetSocket(context.targets["orders"].socket_path, 10.0, 1024 * 1024)

For clients that take a socket: a server that drips, or that sends without end, is cut off wherever the client
happens to read, also where it counts nothing itself (header lines, trailers, replies of many lines).

It is not imported by `toolcrib.handler`: only its users pay for it.
"""

from __future__ import annotations

import socket
import time
from typing import Any


class TargetSocket(socket.socket):
    """A connected unix socket with one deadline and one allowance for all of its life."""

    def __init__(self, path: str, seconds: float, most_bytes: int) -> None:
        """Connect.

        Args:
            path: A target's `socket_path`.
            seconds: From now until it ends.
            most_bytes: How much can be received.

        Raises:
            OSError: It cannot be connected.
        """
        super().__init__(socket.AF_UNIX, socket.SOCK_STREAM)
        self._end, self._left = time.monotonic() + seconds, most_bytes
        try:
            self._hurry()
            self.connect(path)
        except BaseException:
            self.close()
            raise

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        """Receive; what `makefile` reads comes through here.

        Raises:
            OSError: The time is over, or more came than may.
        """
        self._hurry()
        count = super().recv_into(buffer, nbytes, flags)
        self._left -= count
        if self._left < 0:
            raise OSError("the target sent more than it may")
        return count

    def sendall(self, data: Any, flags: int = 0) -> None:
        """Send all.

        Raises:
            OSError: The time is over, or the target is gone.
        """
        self._hurry()
        super().sendall(data, flags)

    def _hurry(self) -> None:
        seconds = self._end - time.monotonic()
        if seconds <= 0:
            raise TimeoutError("the time for the target is over")
        self.settimeout(seconds)
