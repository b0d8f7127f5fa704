"""One pool of connections to the engine's unix socket.

The client's own adapter keeps a pool for each URL, so that nearly every call connects anew, and leaves the
socket open where connecting fails; this one keeps one pool and closes what it opened.
"""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

from docker.transport.unixconn import UnixHTTPAdapter, UnixHTTPConnection, UnixHTTPConnectionPool


class EngineAdapter(UnixHTTPAdapter):  # type: ignore[misc]
    """Sends every request through the one pool."""

    def __init__(self, socket_path: Path, timeout_seconds: float, pool_size: int) -> None:
        super().__init__(f"http+unix://{socket_path}", timeout_seconds, max_pool_size=pool_size)
        self._pool = _Pool("http+docker://engine", str(socket_path), timeout_seconds, maxsize=pool_size)

    def get_connection(self, url: str, proxies: Any = None) -> UnixHTTPConnectionPool:
        """Give the pool, whatever the URL."""
        return self._pool

    def close(self) -> None:
        """Close every connection that is not in use."""
        self._pool.close()
        super().close()


class _Pool(UnixHTTPConnectionPool):  # type: ignore[misc]
    def _new_conn(self) -> UnixHTTPConnection:
        return _Connection(self.base_url, self.socket_path, self.timeout)


class _Connection(UnixHTTPConnection):  # type: ignore[misc]
    def connect(self) -> None:
        """Connect, or leave nothing open."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(self.timeout)
            connection.connect(self.unix_socket)
        except BaseException:
            connection.close()
            raise
        self.sock = connection
