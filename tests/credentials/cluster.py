"""The part of a Kubernetes API server that Vault asks: whose service account a token is."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"


class Cluster:
    """Reviews tokens for whoever may ask.

    Attributes:
        accounts: Namespace and name of the service account, by token.
        reviewer: The token that may ask.
    """

    def __init__(self, address: str, reviewer: str) -> None:
        self.address, self.reviewer = address, reviewer
        self.accounts: dict[str, tuple[str, str]] = {}

    def review(self, token: str) -> dict[str, object]:
        """Say whose a token is, as Kubernetes does."""
        if token not in self.accounts:
            return {"authenticated": False, "error": "unknown token"}
        namespace, name = self.accounts[token]
        groups = ["system:serviceaccounts", f"system:serviceaccounts:{namespace}"]
        user = {"username": f"system:serviceaccount:{namespace}:{name}", "uid": "1", "groups": groups}
        return {"authenticated": True, "user": user}


@contextmanager
def run_cluster(certificate: Path, private_key: Path, reviewer: str) -> Iterator[Cluster]:
    """Serve the reviews over https on loopback."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            asked = json.loads(self.rfile.read(length))
            allowed = self.headers["Authorization"] == f"Bearer {cluster.reviewer}"
            if self.path != REVIEWS or not allowed:
                self.send_error(403)
                return
            body = json.dumps(asked | {"status": cluster.review(asked["spec"]["token"])}).encode()
            self.send_response(201)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Stay silent."""

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, private_key)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        cluster = Cluster(f"https://127.0.0.1:{server.server_port}", reviewer)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield cluster
        server.shutdown()
        thread.join()
