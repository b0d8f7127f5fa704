"""What runs the handlers of the process driver: a server that forks one process a sandbox.

It stands for the Docker Engine: it is not the broker's child, so it and what it runs survive a killed broker.
A forked handler that has not got its Start frame ends with the connection, as a container's init does; one
that has got it goes on, as an orphaned container does, until it is ended by its id.

    python -m tests.chaos.process_engine SOCKET BUNDLE_FOLDER

One line of JSON a request, one a reply: {"op": "create", "labels": …} → {"id": …}, and from then on the
connection is the handler's; {"op": "list"}; {"op": "end", "id": …}.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import signal
import socket
import sys
import uuid
from pathlib import Path
from typing import Any

from toolcrib.handler import Handler
from toolcrib.handler.frames import Frames

PREFIX = "process-"


class ProcessEngine:
    """Forks handlers and knows them by id."""

    def __init__(self, listener: socket.socket, handler: Handler) -> None:
        self._listener, self._handler = listener, handler
        self._running: dict[str, tuple[int, dict[str, str]]] = {}

    def serve(self) -> None:
        """Answer one connection after the other, for ever."""
        while True:
            connection, _ = self._listener.accept()
            with connection, contextlib.suppress(OSError, ValueError):
                self._answer(connection)
            self._reap()

    def _answer(self, connection: socket.socket) -> None:
        request = json.loads(_read_line(connection))
        if request["op"] == "create":
            self._create(connection, request["labels"])
            return
        if request["op"] == "list":
            processes = {name: labels for name, (_, labels) in self._running.items()}
            reply: dict[str, Any] = {"processes": processes}
        else:
            reply = {"ended": self._end(request["id"])}
        connection.sendall(json.dumps(reply).encode() + b"\n")

    def _create(self, connection: socket.socket, labels: dict[str, str]) -> None:
        name = PREFIX + uuid.uuid4().hex
        # First: from then on the handler may speak, and does.
        connection.sendall(json.dumps({"id": name}).encode() + b"\n")
        pid = os.fork()
        if pid == 0:
            self._listener.close()
            _run(self._handler, connection.fileno())
        self._running[name] = (pid, labels)

    def _end(self, name: str) -> bool:
        """Kill a process and wait for it; whoever is not there has ended."""
        pid, _ = self._running.pop(name, (0, {}))
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)
        return True

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while (pid := os.waitpid(-1, os.WNOHANG)[0]) != 0:
                ended = [name for name, (known, _) in self._running.items() if known == pid]
                for name in ended:
                    del self._running[name]


def _run(handler: Handler, descriptor: int) -> None:
    """Be the handler; never returns."""
    try:
        handler.run(Frames(descriptor, descriptor))
    finally:
        os._exit(0)


def _read_line(connection: socket.socket) -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        if not (piece := connection.recv(4096)):
            raise OSError("nobody asked")
        line += piece
    return line


def main() -> None:
    """Load the bundle's handler once, then serve."""
    socket_path, bundle = Path(sys.argv[1]), sys.argv[2]
    sys.path.insert(0, bundle)
    module = importlib.import_module("handler")
    if not hasattr(module, "handler"):
        module = importlib.import_module("handler.__main__")
    handler: Handler = module.handler
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(socket_path.with_suffix(".new")))
    listener.listen(512)
    socket_path.with_suffix(".new").rename(socket_path)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    gc.collect()
    gc.freeze()  # what is there now is shared with the children as long as nobody touches it
    gc.disable()
    ProcessEngine(listener, handler).serve()


if __name__ == "__main__":
    main()
