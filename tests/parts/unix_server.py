"""A server on a unix socket in a thread of its own, one connection after the other."""

from __future__ import annotations

import socket
import threading
from abc import ABC, abstractmethod
from pathlib import Path


class UnixServer(ABC):
    """Listens from its making on; `serve_one` says what is done with a connection.

    What `serve_one` uses has to be there before `__init__` is called.
    """

    def __init__(self, path: Path) -> None:
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(path))
        self._listening.listen()
        self._thread = threading.Thread(target=self._serve, name=type(self).__name__)
        self._thread.start()

    @abstractmethod
    def serve_one(self, connection: socket.socket) -> None:
        """Serve a connection; it is closed afterwards."""

    def close(self) -> None:
        """Take nothing more."""
        self._listening.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)
        self._listening.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            with connection:
                self.serve_one(connection)
