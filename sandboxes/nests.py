"""Nests: the socket folder of one sandbox, made before the sandbox is born.

    with nests.make(uid) as nest:
        async with driver.create(SandboxSpec(..., socket_dir=nest.folder), name) as sandbox:
            ...                                      # later, when a call takes the sandbox:
            async with egress.open(call_id, nest, targets) as way_out:

The sockets of its one call are put into it when that call comes; a socket that is made later in a mounted
folder can be seen inside. Until then it is empty, but for the certificate of the sandbox's own authority
where its tools speak HTTP: what loads at birth may read that already. Rules:

1. A nest is root's and 0711, below a folder that only root may pass: its sandbox passes, and changes nothing.
2. A nest belongs to one run of the egress process, which clears its folder when it starts. When that run ends
   the nest is `lost`: nothing is ever opened in it again.
3. A nest serves one call.
4. The authority's key is never in it: the broker keeps it until the call takes the nest, and hands it over
   once.
"""

from __future__ import annotations

import asyncio
import itertools
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sandboxes.proxy.authority import Authority, make_authority

AUTHORITY_FOLDER = ".ca"
AUTHORITY_FILE = "ca.pem"
"""Where a sandbox finds what it has to trust; container_init.py says so to its handler."""

_FOLDER_MODE = 0o711
_FILE_MODE = 0o644


@dataclass(frozen=True, slots=True)
class HttpWish:
    """That a sandbox's tools speak HTTP.

    Attributes:
        opaque: Targets whose TLS ends in the sandbox: it has to trust what these show.
    """

    opaque: tuple[str, ...] = ()


class Nest:
    """The socket folder of one sandbox.

    Attributes:
        folder: On the host; mounted read-only at /run/toolcrib in the sandbox.
        uid: Who may use the sockets in it: the user of everything in the sandbox.
        lost: Set when the egress process that could serve it is gone.
        used: True once a call has opened its way out here.
    """

    def __init__(
        self, folder: Path, uid: int, authority: Authority | None = None, trusted_pem: str = ""
    ) -> None:
        self.folder, self.uid = folder, uid
        self.lost = asyncio.Event()
        self.used = False
        self._authority, self._trusted_pem = authority, trusted_pem
        self._door: socket.socket | None = None

    @property
    def name(self) -> str:
        """What the egress process calls it."""
        return self.folder.name

    def take_authority(self) -> tuple[str, str]:
        """Hand over certificate and key, in PEM; empty where there are none any more.

        Of a sandbox that waited until they would end soon, they are made anew, where it will read them.

        Raises:
            OSError: They cannot be written down.
        """
        taken, self._authority = self._authority, None
        if taken is not None and taken.ends_soon:
            taken = make_authority()
            _publish(self.folder, taken.certificate_pem + self._trusted_pem)
        return (taken.certificate_pem, taken.key_pem) if taken else ("", "")

    def keep_door(self, door: socket.socket) -> None:
        """Keep the socket that listens on the sandbox's loopback, for the call that takes this nest."""
        self.close_door()
        self._door = door

    def take_door(self) -> socket.socket | None:
        """Hand over that socket; None where there is none, or none any more."""
        taken, self._door = self._door, None
        return taken

    def close_door(self) -> None:
        """Close that socket, if no call took it."""
        if (door := self.take_door()) is not None:
            door.close()

    def contents(self) -> list[str]:
        """Name what calls have in it; nothing where it is not there any more."""
        try:
            return sorted(entry.name for entry in self.folder.iterdir() if entry.name != AUTHORITY_FOLDER)
        except FileNotFoundError:
            return []

    def clear(self) -> None:
        """Remove what an egress process left in it that could not do so itself."""
        for name in self.contents():
            shutil.rmtree(self.folder / name, ignore_errors=True)


class Nests:
    """The nests of one run of the egress process."""

    _numbers = itertools.count(1)  # over all runs: a name never comes again in one broker

    def __init__(self, root: Path) -> None:
        """Know where nests are made.

        Args:
            root: The folder that the egress process works in; it is there, and only root may pass it.
        """
        self._root = root
        self._open: set[Nest] = set()

    @contextmanager
    def make(self, uid: int, authority: Authority | None = None, trusted_pem: str = "") -> Iterator[Nest]:
        """Hold a nest for a sandbox, without sockets, and remove it once that has ended.

        Args:
            uid: Of the sandbox.
            authority: Its own, where its tools speak HTTP.
            trusted_pem: What it has to trust beside that, of opaque targets.

        Raises:
            OSError: It cannot be made.
        """
        folder = self._root / f"nest-{next(self._numbers)}-{uid}"
        folder.mkdir(mode=_FOLDER_MODE)
        folder.chmod(_FOLDER_MODE)  # the broker's umask may have taken some of it
        nest = Nest(folder, uid, authority, trusted_pem)
        self._open.add(nest)
        try:
            if authority is not None:
                _publish(folder, authority.certificate_pem + trusted_pem)
            yield nest
        finally:
            self._open.discard(nest)
            nest.close_door()
            shutil.rmtree(folder, ignore_errors=True)  # of a lost one nothing is left already

    def lose(self) -> None:
        """Say of every nest that it is lost."""
        for nest in self._open:
            nest.lost.set()


def _publish(folder: Path, trusted_pem: str) -> None:
    """Write down what the sandbox trusts, for everybody who sees the nest to read."""
    place = folder / AUTHORITY_FOLDER
    place.mkdir(mode=_FOLDER_MODE, exist_ok=True)
    place.chmod(_FOLDER_MODE)
    file = place / AUTHORITY_FILE
    file.write_text(trusted_pem)
    file.chmod(_FILE_MODE)
