"""A Toolcrib whose parts can be broken and mended again while it runs.

Vault is reached through a tap that can hold answers back; the state lies on a disk of its own that can be
full, or fail to sync; the engine is a private one that can be killed; the clock can be set.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from broker.app import Hooks
from broker.dev import DevOptions, DevStack
from credentials.child_process import HOST
from sandboxes.engine import Folders, PrivateEngine, start_engine
from tests.e2e.stack import CribThread
from tests.parts.crib import Switchboard

CHUNK = 65_536


class Tap:
    """Passes TCP on to a server, and its answers back: at once, later, when told, or never.

    Attributes:
        delay_seconds: How long each answer is held back; the request has been carried out by then.
        refusing: Connections are closed as they come, as where nothing listens.
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._listener = socket.create_server((HOST, 0))
        self.address = f"http://{HOST}:{self._listener.getsockname()[1]}"
        self.delay_seconds = 0.0
        self.refusing = False
        self._open: set[socket.socket] = set()
        self._mended = threading.Event()
        self._mended.set()
        threading.Thread(target=self._accept, name="tap", daemon=True).start()

    def stall(self) -> None:
        """Hold every answer back until `mend`, also those under way."""
        self._mended.clear()

    def refuse(self) -> None:
        """Close what is open and whatever comes."""
        self.refusing = True
        for one in list(self._open):
            close(one)

    def mend(self) -> None:
        """Pass everything on as it comes."""
        self.delay_seconds, self.refusing = 0.0, False
        self._mended.set()

    def close(self) -> None:
        """End it."""
        self.refuse()
        self._mended.set()
        close(self._listener)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                try:
                    far = None if self.refusing else socket.create_connection(self._target)
                except OSError:
                    far = None
                if far is None:
                    close(near)
                    continue
                self._open |= {near, far}
                for give, take, holds in ((near, far, False), (far, near, True)):
                    threading.Thread(target=self._pass, args=(give, take, holds), daemon=True).start()

    def _pass(self, give: socket.socket, take: socket.socket, holds: bool) -> None:
        with contextlib.suppress(OSError):
            while data := give.recv(CHUNK):
                if holds:
                    time.sleep(self.delay_seconds)
                    self._mended.wait()
                take.sendall(data)
        for one in (give, take):
            close(one)
            self._open.discard(one)


def close(one: socket.socket) -> None:
    """Close a socket that another thread may be waiting at."""
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()


class Disk:
    """An ext4 on a loop device whose backing file lies on a small tmpfs.

    Where the ext4 is full, writing fails (ENOSPC). Where the tmpfs is full, writing works and the sync of it
    fails (EIO), as on a disk that breaks.
    """

    def __init__(self, folder: Path) -> None:
        self._backing, self.folder = folder / "backing", folder / "disk"
        self._fillers = (self._backing / "filler", self.folder / "filler")
        self._mounted: list[Path] = []
        self._frozen = False
        try:
            self._make()
        except BaseException:
            self.close()
            raise

    def fill(self, database: Path) -> None:
        """Leave no room for anything that the database writes from now on."""
        self._empty_log(database)
        self._fill(self.folder / "filler")

    def break_sync(self, database: Path) -> None:
        """Let the sync of everything fail that the database writes from now on.

        What is free is given back to the tmpfs first, so that all that is written needs room there.
        """
        self._empty_log(database)
        subprocess.run(["fstrim", self.folder], check=True)
        self._fill(self._backing / "filler")

    def hang(self) -> None:
        """Let whoever writes wait."""
        subprocess.run(["fsfreeze", "--freeze", self.folder], check=True)
        self._frozen = True

    def mend(self) -> None:
        """Make room again, and let who waits go on."""
        if self._frozen:
            subprocess.run(["fsfreeze", "--unfreeze", self.folder], check=True)
            self._frozen = False
        for filler in self._fillers:
            filler.unlink(missing_ok=True)

    def close(self) -> None:
        """Take it away."""
        self.mend()
        for place in reversed(self._mounted):
            subprocess.run(["umount", "--lazy", place], check=True)
        self._mounted.clear()

    def _make(self) -> None:
        for place in (self._backing, self.folder):
            place.mkdir(parents=True)
        image = self._backing / "image"
        self._mount(["-t", "tmpfs", "-o", "size=40m,mode=700", "tmpfs"], self._backing)
        with image.open("wb") as file:
            file.truncate(32 * 1024 * 1024)
        subprocess.run(["mkfs.ext4", "-q", "-O", "^has_journal", "-m", "0", image], check=True)
        self._mount(["-o", "loop,errors=continue", str(image)], self.folder)

    def _mount(self, arguments: list[str], place: Path) -> None:
        subprocess.run(["mount", *arguments, place], check=True)
        self._mounted.append(place)

    def _empty_log(self, database: Path) -> None:
        """Let SQLite give the room of its write-ahead log back."""
        with closing(sqlite3.connect(database)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        # The first sync after a failure tells of that failure, and only the next one of itself.
        for check in (False, True):
            subprocess.run(["sync", "--file-system", self.folder], check=check, capture_output=True)

    @staticmethod
    def _fill(filler: Path) -> None:
        with filler.open("wb", buffering=0) as file:
            for size in (CHUNK, 512, 1):
                with contextlib.suppress(OSError):
                    while file.write(b"x" * size):
                        pass
            with contextlib.suppress(OSError):
                os.fsync(file.fileno())


class OwnEngine:
    """A private engine that can be killed, and started again at the same socket."""

    def __init__(self, run: Path, state: Path) -> None:
        self._folders = Folders(run, state)
        self._engine: PrivateEngine = start_engine(self._folders)
        self.base_url = self._engine.base_url
        self._dead = self._stalled = False

    def _pid(self) -> int:
        return int(self._folders.pid_file.read_text())

    def kill(self) -> None:
        """End the engine as the kernel would: it ends nothing of its own."""
        os.kill(self._pid(), signal.SIGKILL)
        self._dead = True

    def stall(self) -> None:
        """Let it answer nobody."""
        os.kill(self._pid(), signal.SIGSTOP)
        self._stalled = True

    def mend(self) -> None:
        """Start it again, when it was killed; let it go on, when it was stopped."""
        if self._stalled:
            os.kill(self._pid(), signal.SIGCONT)
            self._stalled = False
        if self._dead:
            self._engine.stop()
            self._engine = start_engine(self._folders)
            self._dead = False

    def close(self) -> None:
        """End it."""
        self.mend()
        self._engine.stop()


class BreakableStack(DevStack):
    """A DevStack whose broker reaches Vault through a tap and keeps its state on a disk of its own."""

    disk: Disk
    tap: Tap

    def _settings_text(self) -> str:
        host, port = self.vault.address.removeprefix("http://").split(":")
        self.tap = Tap(host, int(port))
        self._stack.callback(self.tap.close)
        text = super()._settings_text().replace(self.vault.address, self.tap.address)
        path = f'path = "{self.disk.folder / "state.db"}"'
        return text.replace('path = "state.db"', f"{path}\nepoch_seconds = 2")


class BreakableThread(CribThread):
    """Runs a BreakableStack in a thread."""

    def __init__(self, folder: Path, cache_dir: Path, options: DevOptions, disk: Disk) -> None:
        self.switchboard = Switchboard()
        hooks = Hooks(clock=self.switchboard.clock)
        super().__init__(folder, cache_dir, options, hooks)
        self.stack = self._stack = BreakableStack(folder, cache_dir, hooks=hooks, options=options)
        self.stack.disk = disk


@contextlib.contextmanager
def own_disk(folder: Path) -> Iterator[Disk]:
    """Hold a disk."""
    disk = Disk(folder)
    try:
        yield disk
    finally:
        disk.close()


@contextlib.contextmanager
def own_engine(run: Path, state: Path) -> Iterator[OwnEngine]:
    """Hold a private engine."""
    engine = OwnEngine(run, state)
    try:
        yield engine
    finally:
        engine.close()
