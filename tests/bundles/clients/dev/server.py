"""Echoes the headers of requests that carry the right token, over HTTP or, in a folder "closed", over TLS.

    python3 -P server.py FOLDER

What it answers holds the token: who must not have it must not see it.
"""

from __future__ import annotations

import json
import ssl
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[4]))

from tests.credentials.certificates import Authority


class Echo(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    token = ""

    def do_GET(self) -> None:
        is_known = self.headers.get("Authorization") == f"Bearer {self.token}"
        said = (
            {"path": self.path, "headers": {name.lower(): value for name, value in self.headers.items()}}
            if is_known
            else {"error": "no token"}
        )
        body = json.dumps(said).encode()
        self.send_response(200 if is_known else 401)
        self.send_header("Content-Type", "application/json")
        self.send_header("X-Token", self.headers.get("Authorization", ""))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def main(folder: Path) -> None:
    Echo.token = json.loads((folder / "settings.json").read_text())["secrets"]["clients-key"]["token"]
    server = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    if folder.name == "closed":
        authority = Authority(folder, "ca")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*authority.issue("closed", "closed.example"))
        server.socket = context.wrap_socket(server.socket, server_side=True)
    (folder / "port").write_text(str(server.server_port))
    server.serve_forever()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
