"""The HTTP proxy's listening socket, made by the broker on a sandbox's own loopback.

A socket stays in the network namespace that it was made in, whoever holds it, and so do the connections that
it accepts. So the proxy takes a sandbox's connections itself, and nothing in the sandbox has to carry them.

Rules:
1. The namespace is entered by a thread that is begun for this alone and ends with it: no other work of the
   broker is ever done in there, and no thread comes back from there.
2. Nothing is made unless the thread is known to be in another namespace than the broker: a port of the host's
   own loopback would be a proxy for everybody on the host.
3. What cannot be made is done without: init then carries the connections (sandboxes/container_relay.py). That
   is so without CAP_SYS_ADMIN, before Linux 5.8, where the engine's processes cannot be seen, and under
   gVisor, whose network the kernel does not know.
"""

from __future__ import annotations

import ctypes
import logging
import os
import socket
import threading
from pathlib import Path

from sandboxes.container_init import PROXY

_BACKLOG = 64
_CLONE_NEWNET = 0x40000000
_OWN_NETWORK = Path("/proc/thread-self/ns/net")

_libc = ctypes.CDLL(None, use_errno=True)
_logger = logging.getLogger(__name__)


def open_inner_door(process: int) -> socket.socket | None:
    """Listen at the proxy's place in a process's network namespace. Blocks for less than a millisecond.

    Args:
        process: A pidfd of a process of the sandbox, before it has run anything of a tool's author.

    Returns:
        The socket, which the caller closes; None where it cannot be made.
    """
    made: list[socket.socket] = []
    outside = _network()
    visitor = threading.Thread(target=_visit, args=(process, outside, made), name="inner door")
    try:
        visitor.start()
    except RuntimeError as error:  # there are no more threads to be had
        _logger.warning("no thread to enter a sandbox's network: %s", error)
        return None
    visitor.join()
    return made[0] if made else None


def _visit(process: int, outside: tuple[int, int], made: list[socket.socket]) -> None:
    """Enter, make the socket, and end."""
    try:
        if _libc.setns(process, _CLONE_NEWNET) != 0:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error))
        if _network() == outside:
            raise OSError("the sandbox has no network of its own")
        made.append(_listen())
    except OSError as error:
        _logger.debug("a sandbox's connections to the proxy are relayed by its init: %s", error)


def _listen() -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        listener.bind(PROXY)
        if listener.getsockname() != PROXY:
            raise OSError("it is not where it was asked for")
        listener.listen(_BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


def _network() -> tuple[int, int]:
    """Tell which network namespace this thread is in."""
    found = _OWN_NETWORK.stat()
    return found.st_dev, found.st_ino
