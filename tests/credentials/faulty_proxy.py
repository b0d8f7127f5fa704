"""A proxy before Vault that carries every request out, and then does something wrong with the answer."""

from __future__ import annotations

import contextlib
import http.client
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


class Fault(Enum):
    """What becomes of the answer."""

    STATUS_500 = "500"
    CUT = "cut"
    LATE = "late"
    SLOW = "slow"


PAUSES: dict[Fault | None, float] = {Fault.LATE: 1.5, Fault.SLOW: 0.15}
"""Seconds: over and under the timeout of the tests' sessions."""


class FaultyProxy:
    """Passes requests on.

    Attributes:
        faults: What happens to the answers of paths that begin so, below /v1/.
        seen: How often a fault happened.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self.faults: dict[str, Fault] = {}
        self.seen = 0

    def find(self, path: str) -> Fault | None:
        """Say what happens to an answer."""
        for start, fault in self.faults.items():
            if path.removeprefix("/v1/").startswith(start):
                self.seen += 1
                return fault
        return None


@contextmanager
def run_faulty_proxy(vault_address: str) -> Iterator[FaultyProxy]:
    """Run one on loopback."""
    place = urlsplit(vault_address).netloc

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, answer = self._ask(body)
            fault = proxy.find(self.path)
            time.sleep(PAUSES.get(fault, 0.0))
            if fault is Fault.CUT:
                self.close_connection = True
                return
            if fault is Fault.STATUS_500:
                status, answer = 500, b'{"errors": ["it was carried out all the same"]}'
            with contextlib.suppress(OSError):
                self.send_response(status)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

        do_GET = do_POST = do_PUT = do_DELETE = do_LIST = pass_on

        def _ask(self, body: bytes) -> tuple[int, bytes]:
            connection = http.client.HTTPConnection(place, timeout=10)
            try:
                connection.request(self.command, self.path, body, dict(self.headers))
                answer = connection.getresponse()
                return answer.status, answer.read()
            finally:
                connection.close()

        def log_message(self, *_: object) -> None:
            """Stay silent."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), Handler) as server:
        proxy = FaultyProxy(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield proxy
        server.shutdown()
        thread.join()
