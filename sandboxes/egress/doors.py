"""The sockets of one call: one folder for the call, one folder in it for each target, one socket in that.

Folders are root's, 0711: a sandbox can pass, not look around or change. A socket is 0600 and belongs to its
sandbox's user. The peer's user id is not asked for, since under some runtimes it reads 0: the folder that a
container gets mounted, and the socket's owner, say whose it is.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from sandboxes.egress.addresses import socket_name
from sandboxes.egress.control import Configure, ConnectionEntry, TargetEntry
from sandboxes.egress.relay import Connection

_BACKLOG = 16


@dataclass(frozen=True, slots=True)
class Root:
    """The folder that holds every call's folder.

    Attributes:
        descriptor: The open folder; names are looked up in it, so that no link can lead elsewhere.
    """

    descriptor: int

    def clear(self) -> None:
        """Remove whatever is in it: nothing there belongs to a process that lives."""
        for name in os.listdir(self.descriptor):  # noqa: PTH208 - of a descriptor
            self.remove(name)

    def remove(self, name: str) -> None:
        """Remove one call's folder, if it is there."""
        try:
            shutil.rmtree(name, dir_fd=self.descriptor)
        except FileNotFoundError:
            return
        except NotADirectoryError:
            os.unlink(name, dir_fd=self.descriptor)


class Doors:
    """The open sockets of one call and its connections."""

    def __init__(self, root: Root, call: str, rules: Configure) -> None:
        self._root = root
        self._call = call
        self._rules = rules
        self._servers: list[asyncio.Server] = []
        self._live: set[Connection] = set()
        self._ended: list[ConnectionEntry] = []
        self._attempts = 0
        self._is_closed = False

    async def open(self, uid: int, targets: Sequence[TargetEntry]) -> None:
        """Make folder and sockets; on an error nothing is left.

        Raises:
            OSError: They cannot be made; FileExistsError when the call is open already.
        """
        os.mkdir(self._call, dir_fd=self._root.descriptor)
        try:
            folder = _enter(self._call, self._root.descriptor)
            try:
                for target in targets:
                    await self._open_target(folder, target, uid)
            finally:
                os.close(folder)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> list[ConnectionEntry]:
        """End every connection, remove sockets and folder, and say what there was."""
        self._is_closed = True
        self._stop_listening()
        for connection in list(self._live):
            connection.abort()
        for connection in list(self._live):
            await connection.ended.wait()
        self._root.remove(self._call)
        return self._ended

    async def _open_target(self, folder: int, target: TargetEntry, uid: int) -> None:
        os.mkdir(target.name, dir_fd=folder)
        place = _enter(target.name, folder)
        try:
            door = _bind(place, socket_name(target.kind, target.name), uid)
        finally:
            os.close(place)
        loop = asyncio.get_running_loop()
        server = await loop.create_unix_server(lambda: self._accept(target), sock=door, backlog=_BACKLOG)
        self._servers.append(server)

    def _accept(self, target: TargetEntry) -> asyncio.Protocol:
        rules = self._rules
        return Connection(
            target, self._admit, self._note_end, rules.connect_timeout_seconds, rules.buffer_bytes
        ).inside

    def _admit(self, connection: Connection) -> bool:
        if self._is_closed:
            return False
        self._attempts += 1
        if self._attempts >= self._rules.connections_in_all:
            self._stop_listening()  # a sandbox that connects in a loop must not cost others their time
        admitted = len(self._live) < self._rules.connections_at_once
        self._live.add(connection)
        return admitted

    def _note_end(self, connection: Connection) -> None:
        if connection in self._live and len(self._ended) < self._rules.connections_in_all:
            self._ended.append(connection.entry())
        self._live.discard(connection)

    def _stop_listening(self) -> None:
        for server in self._servers:
            server.close()
        self._servers.clear()


def _enter(name: str, parent: int) -> int:
    """Open a new folder and let others pass through it, not list it."""
    descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    os.fchmod(descriptor, 0o711)
    return descriptor


def _bind(folder: int, name: str, uid: int) -> socket.socket:
    """Bind by a short relative path: the whole one may be over the 108 bytes that a socket's may have."""
    door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        os.fchdir(folder)
        door.bind(name)  # 0600 from the first moment, by the process's umask
        os.chown(name, uid, -1, follow_symlinks=False)
    except BaseException:
        door.close()
        raise
    finally:
        os.chdir("/")
    return door
