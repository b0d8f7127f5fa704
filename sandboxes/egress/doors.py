"""The sockets of one call: in its sandbox's nest one folder for each target, one socket in that.

The nest is there before (sandboxes/nests.py), and stays until its sandbox has ended.

Folders are root's, 0711: a sandbox can pass, not look around or change. A socket is 0600 and belongs to its
sandbox's user. The peer's user id is not asked for, since under some runtimes it reads 0: the folder that a
container gets mounted, and the socket's owner, say whose it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from sandboxes.egress.addresses import socket_name
from sandboxes.egress.control import Configure, ConnectionEntry, TargetEntry
from sandboxes.egress.relay import Connection

_BACKLOG = 16


@dataclass(frozen=True, slots=True)
class Root:
    """The folder that holds every nest.

    Attributes:
        descriptor: The open folder; names are looked up in it, so that no link can lead elsewhere.
    """

    descriptor: int

    def clear(self) -> None:
        """Remove whatever is in it: nothing there belongs to a process that lives."""
        for name in os.listdir(self.descriptor):  # noqa: PTH208 - of a descriptor
            _remove(name, self.descriptor)

    def clear_nest(self, nest: str, names: Iterable[str]) -> None:
        """Remove folders of one nest, if that is there; what else is in it is the broker's."""
        with contextlib.suppress(FileNotFoundError), _entered(nest, self.descriptor) as folder:
            for name in names:
                _remove(name, folder)


class Doors:
    """The open sockets of one call and its connections."""

    def __init__(self, root: Root, nest: str, rules: Configure) -> None:
        self._root = root
        self._nest = nest
        self._rules = rules
        self._servers: list[asyncio.Server] = []
        self._made: list[str] = []
        self._live: set[Connection] = set()
        self._ended: list[ConnectionEntry] = []
        self._attempts = 0
        self._is_closed = False

    async def open(self, uid: int, targets: Sequence[TargetEntry]) -> None:
        """Make the sockets; on an error nothing is left.

        Raises:
            OSError: They cannot be made; FileExistsError when the nest is another call's.
        """
        with _entered(self._nest, self._root.descriptor) as folder:
            try:
                for target in targets:
                    await self._open_target(folder, target, uid)
            except BaseException:
                await self.close()
                raise

    async def close(self) -> list[ConnectionEntry]:
        """End every connection, empty the nest, and say what there was."""
        self._is_closed = True
        self._stop_listening()
        for connection in list(self._live):
            connection.abort()
        for connection in list(self._live):
            await connection.ended.wait()
        self._root.clear_nest(self._nest, self._made)
        return self._ended

    async def _open_target(self, folder: int, target: TargetEntry, uid: int) -> None:
        os.mkdir(target.name, dir_fd=folder)  # fails where the nest serves another call already
        self._made.append(target.name)
        with _entered(target.name, folder) as place:
            door = _bind(place, socket_name(target.kind, target.name), uid)
        loop = asyncio.get_running_loop()
        server = await loop.create_unix_server(lambda: self._accept(target), sock=door, backlog=_BACKLOG)
        self._servers.append(server)

    def _accept(self, target: TargetEntry) -> asyncio.Protocol:
        return Connection(target, self._rules, self._admit, self._note_end).inside

    def _admit(self, connection: Connection) -> bool:
        if self._is_closed:
            return False
        self._attempts += 1
        if self._attempts >= self._rules.connections_in_all:
            self._stop_listening()  # a sandbox that connects in a loop must not cost others their time
        if self._attempts > self._rules.connections_in_all:
            return False  # it was accepted in one turn with the last one; it is reset, and reaches nothing
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


@contextmanager
def _entered(name: str, parent: int) -> Iterator[int]:
    """Hold a folder open that others may pass through, not list."""
    descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        os.fchmod(descriptor, 0o711)
        yield descriptor
    finally:
        os.close(descriptor)


def _remove(name: str, parent: int) -> None:
    """Remove a folder with everything in it, or a file; it need not be there."""
    try:
        shutil.rmtree(name, dir_fd=parent)
    except FileNotFoundError:
        return
    except NotADirectoryError:
        os.unlink(name, dir_fd=parent)


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
