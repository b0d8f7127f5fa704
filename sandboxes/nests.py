"""Nests: the socket folder of one sandbox, made before the sandbox is born.

    with nests.make(uid) as nest:
        async with driver.create(SandboxSpec(..., socket_dir=nest.folder), name) as sandbox:
            ...                                      # later, when a call takes the sandbox:
            async with egress.open(call_id, nest, targets) as way_out:

A waiting sandbox has an empty one. The egress process puts the sockets of its one call into it; a socket that
is made later in a mounted folder can be seen inside. Rules:

1. A nest is root's and 0711, below a folder that only root may pass: its sandbox passes, and changes nothing.
2. A nest belongs to one run of the egress process, which clears its folder when it starts. When that run ends
   the nest is `lost`: nothing is ever opened in it again.
3. A nest serves one call.
"""

from __future__ import annotations

import asyncio
import itertools
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_FOLDER_MODE = 0o711


class Nest:
    """The socket folder of one sandbox.

    Attributes:
        folder: On the host; mounted read-only at /run/toolcrib in the sandbox.
        uid: Who may use the sockets in it: the user of everything in the sandbox.
        lost: Set when the egress process that could serve it is gone.
        used: True once a call has opened its way out here.
    """

    def __init__(self, folder: Path, uid: int) -> None:
        self.folder, self.uid = folder, uid
        self.lost = asyncio.Event()
        self.used = False

    @property
    def name(self) -> str:
        """What the egress process calls it."""
        return self.folder.name

    def contents(self) -> list[str]:
        """Name what is in it; nothing where it is not there any more."""
        try:
            return sorted(entry.name for entry in self.folder.iterdir())
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
    def make(self, uid: int) -> Iterator[Nest]:
        """Hold an empty nest for a sandbox, and remove it once that has ended.

        Raises:
            OSError: It cannot be made.
        """
        folder = self._root / f"nest-{next(self._numbers)}-{uid}"
        folder.mkdir(mode=_FOLDER_MODE)
        folder.chmod(_FOLDER_MODE)  # the broker's umask may have taken some of it
        nest = Nest(folder, uid)
        self._open.add(nest)
        try:
            yield nest
        finally:
            self._open.discard(nest)
            shutil.rmtree(folder, ignore_errors=True)  # of a lost one nothing is left already

    def lose(self) -> None:
        """Say of every nest that it is lost."""
        for nest in self._open:
            nest.lost.set()
