"""A web server on loopback for tests of the way out: it says what it was asked, plain or over TLS."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from sandboxes.proxy.access import HttpTarget
from sandboxes.proxy.authority import Authority, Leaves, make_authority


class Echo(BaseHTTPRequestHandler):
    """Answers each request with itself, as JSON."""

    protocol_version = "HTTP/1.1"
    timeout = 30

    def handle_any(self) -> None:
        """Answer."""
        length = int(self.headers.get("content-length", 0))
        asked = {
            "method": self.command,
            "path": self.path,
            "headers": {name.lower(): value for name, value in self.headers.items()},
            "body": self.rfile.read(length).decode(),
        }
        body = json.dumps(asked).encode()
        assert isinstance(self.server, WebOrigin)
        self.server.asked.append(f"{self.command} {self.path}")
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PUT = handle_any

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class WebOrigin(ThreadingHTTPServer):
    """The server.

    Attributes:
        asked: The requests so far, "GET /path".
        authority: Signed its certificate; None without TLS.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, authority: Authority | None = None, host: str = "api.example") -> None:
        super().__init__(("127.0.0.1", 0), Echo)
        self.asked: list[str] = []
        self.authority, self.host = authority, host
        self._tls = Leaves(authority).context(host) if authority else None

    def finish_request(self, request, client_address) -> None:
        """Serve a connection; the handshake is in its own thread."""
        if self._tls is None:
            super().finish_request(request, client_address)
            return
        request.settimeout(30)
        with self._tls.wrap_socket(request, server_side=True) as opened:
            super().finish_request(opened, client_address)

    def handle_error(self, *_: object) -> None:
        """Say nothing: a client went away."""

    def target(self, name: str) -> HttpTarget:
        """Declare it, as an operator does."""
        scheme, pem = ("https", self.authority.certificate_pem) if self.authority else ("http", "")
        return HttpTarget(name, "127.0.0.1", self.server_port, (f"{scheme}://{self.host}",), pem)


@contextmanager
def serving(host: str = "api.example", *, tls: bool = False) -> Iterator[WebOrigin]:
    """Hold a server that runs."""
    server = WebOrigin(make_authority() if tls else None, host)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
