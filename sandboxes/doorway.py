"""The way from the broker to init: a unix socket that is there until init has come through it, once.

It lies in a folder of its own that one sandbox has mounted, read-only, at /run/init. Init connects before it
starts the handler; with that the socket and its folder are taken away, so that no handler ever sees them.

The engine is not on this way: it does not see what is said, need not keep up with a flood (an engine whose
reader stops draining hangs on kill and inspect for over 20 seconds), and costs a call no time.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
from pathlib import Path

NAME = "s"


class Doorway:
    """The socket of one sandbox.

    Attributes:
        folder: On the host; what the sandbox has mounted.
    """

    def __init__(self, root: Path, name: str, uid: int) -> None:
        """Make the folder and listen.

        Args:
            root: Where all of them are; only root may pass it.
            name: Of the sandbox; no other has it.
            uid: Who may connect.

        Raises:
            OSError: They cannot be made.
        """
        self.folder = root / name
        self.folder.mkdir(mode=0o711)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            self.folder.chmod(0o711)  # the broker's umask may have taken some of it
            self._bind(uid)
        except BaseException:
            self.close()
            raise

    async def accept(self) -> socket.socket:
        """Wait for init, and take everything away behind it.

        Raises:
            OSError: It is closed.
        """
        connected, _ = await asyncio.get_running_loop().sock_accept(self._listener)
        self.close()
        return connected

    def close(self) -> None:
        """Take socket and folder away; nobody comes through any more."""
        self._listener.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _bind(self, uid: int) -> None:
        """Bind by way of a descriptor: the whole path may be over the 108 bytes that a socket's may have."""
        place = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._listener.bind(f"/proc/self/fd/{place}/{NAME}")
            os.chmod(NAME, 0o600, dir_fd=place)
            with contextlib.suppress(PermissionError):  # without root there is one user only
                os.chown(NAME, uid, uid, dir_fd=place, follow_symlinks=False)
            self._listener.listen(1)
        finally:
            os.close(place)
