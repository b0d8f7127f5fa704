"""Exit 0 when a Docker Engine answers at DOCKER_HOST or at the usual socket, else 1."""

from __future__ import annotations

import os
import socket
import sys
from urllib.parse import urlsplit


def connect(address: str) -> socket.socket:
    """Open a connection to "unix:///path" or "tcp://host:port"."""
    parts = urlsplit(address)
    if parts.scheme == "tcp":
        return socket.create_connection((parts.hostname or "", parts.port or 2375), timeout=5)
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(5)
    connection.connect(parts.path)
    return connection


def is_answering(address: str) -> bool:
    """Send the engine's own ping."""
    try:
        with connect(address) as connection:
            connection.sendall(b"GET /_ping HTTP/1.0\r\nHost: engine\r\n\r\n")
            return b" 200 " in connection.recv(64)
    except OSError:
        return False


if __name__ == "__main__":
    sys.exit(0 if is_answering(os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock") else 1)
