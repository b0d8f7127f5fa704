"""Exit 0 when a Docker Engine answers at its usual socket, else 1."""

from __future__ import annotations

import socket
import sys

USUAL_SOCKET = "/var/run/docker.sock"


def is_answering(path: str) -> bool:
    """Send the engine's own ping."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            connection.connect(path)
            connection.sendall(b"GET /_ping HTTP/1.0\r\nHost: engine\r\n\r\n")
            return b" 200 " in connection.recv(64)
    except OSError:
        return False


if __name__ == "__main__":
    sys.exit(0 if is_answering(*sys.argv[1:] or [USUAL_SOCKET]) else 1)
