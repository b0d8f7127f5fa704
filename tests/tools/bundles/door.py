"""A stand-in for the way out, in a test's process: judges by the manifest's rules, injects, hands on.

So a bundle's handler can be tried against its server without a sandbox, and what it asks is held to the rules
of its own tool.yaml. It does what the proxy does with the proxy's own parts (rules, injector), one request a
connection; it can lose an answer after the server worked on the request.
"""

from __future__ import annotations

import http.client
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from credentials.injection import Injection
from sandboxes.proxy.access import HttpTarget
from sandboxes.proxy.injecting import Injector, OutgoingHead
from toolcrib.handler import Target
from tools.http_rules import Ask, Check, HttpRule, judge
from tools.manifest import Manifest, read_manifest

Said = tuple[int, list[tuple[str, str]], bytes]
"""Status, headers and body of an answer."""
BUNDLES = Path(__file__).parents[3] / "tools" / "bundles"


def read_rules(bundle: str, target: str) -> tuple[HttpRule, ...]:
    """Read what the manifest of a bundle allows at a target."""
    manifest: Manifest = read_manifest((BUNDLES / bundle / "tool.yaml").read_text())
    return manifest.targets[target].rules


class Door(ThreadingHTTPServer):
    """The way to one server.

    Attributes:
        injection: What is added; None: nothing.
        lose: A part of "METHOD /path": the answer to the next such request is lost, once.
        cut: A part of it: the connection ends in the middle of each such answer.
        twist: Makes another answer of the server's, given "METHOD /path".
        asked: Method, path and template of what was let through.
        refused: What was not.
    """

    daemon_threads = True

    def __init__(
        self, upstream: int, origin: str, rules: tuple[HttpRule, ...], ca_file: Path | None = None
    ) -> None:
        super().__init__(("127.0.0.1", 0), _Passage)
        self.upstream, self.origin, self.rules = upstream, origin, rules
        self.tls = ssl.create_default_context(cafile=str(ca_file)) if ca_file else None
        self.injection: Injection | None = None
        self.lose = self.cut = ""
        self.twist: Callable[[str, Said], Said] = lambda _, said: said
        self.asked: list[tuple[str, str, str]] = []
        self.refused: list[tuple[str, str, str]] = []

    def target(self, **settings: str) -> Target:
        """Give what a handler gets of it."""
        return Target("", "", settings, origins=(f"http://127.0.0.1:{self.server_address[1]}",))

    def connect(self) -> http.client.HTTPConnection:
        """Connect to the server; its certificate has to be for the origin's name."""
        connection = http.client.HTTPConnection("127.0.0.1", self.upstream, timeout=20)
        connection.connect()
        if self.tls is not None:
            name = self.origin.partition("://")[2]
            connection.sock = self.tls.wrap_socket(connection.sock, server_hostname=name)
        return connection

    def inject(self, head: OutgoingHead, body: bytes) -> OutgoingHead:
        """Add the credential as the proxy does."""
        target = HttpTarget("target", "127.0.0.1", self.upstream, (self.origin,))
        return Injector(self.injection, target).apply(head, body)


class _Passage(BaseHTTPRequestHandler):
    server: Door
    is_cut = False

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        headers = [(name.lower(), value) for name, value in self.headers.items()]
        verdict = judge(self.server.rules, Ask(self.command, path, query or None, headers))
        if verdict.check is not Check.ALLOWED or verdict.rule is None:
            self.server.refused.append((self.command, self.path, verdict.check))
            self.answer(403, [("toolcrib-egress", verdict.check.value)], b"toolcrib: refused")
            return
        self.server.asked.append((self.command, self.path, verdict.rule.path))
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        hidden = {*verdict.dropped, "host", "connection", "accept-encoding"}
        passed = tuple((name, value) for name, value in headers if name not in hidden)
        host = self.server.origin.partition("://")[2]
        head = OutgoingHead(self.command, path, query or None, (("host", host), *passed))
        line = f"{self.command} {path}"
        answer = self.server.twist(line, self.hand_on(self.server.inject(head, body), body))
        if self.server.lose and self.server.lose in line:
            self.server.lose = ""
            self.close_connection = True
            return
        self.is_cut = bool(self.server.cut) and self.server.cut in line
        self.answer(*answer)

    do_POST = do_PUT = do_HEAD = do_GET

    def hand_on(self, head: OutgoingHead, body: bytes) -> Said:
        connection = self.server.connect()
        connection.putrequest(head.method, head.target, skip_host=True, skip_accept_encoding=True)
        for name, value in head.headers:
            if name != "content-length":
                connection.putheader(name, value)
        connection.putheader("content-length", str(len(body)))
        connection.endheaders(body or None)
        response = connection.getresponse()
        content = response.read()
        connection.close()
        return response.status, response.getheaders(), content

    def answer(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
        self.send_response(status)
        own = ("connection", "content-length", "transfer-encoding", "date", "server")
        for name, value in headers:
            if name.lower() not in own:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if self.is_cut else content)
        self.close_connection = self.is_cut or self.close_connection

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@contextmanager
def serve(server: Any) -> Iterator[int]:
    """Run an HTTP server in a thread; its port."""
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server.server_address[1] if server.server_address[1] else server.socket.getsockname()[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
