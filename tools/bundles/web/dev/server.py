"""A small site for `toolcrib dev`: the files of pages/, and a few addresses that misbehave.

    python3 -P server.py FOLDER

Listens on a free port of 127.0.0.1 and writes its number to FOLDER/port.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PAGES = Path(__file__).parent / "pages"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".json": "application/json",
    ".md": "text/markdown; charset=utf-8",
    ".txt": "text/plain; charset=utf-8",
}


class Site(BaseHTTPRequestHandler):
    """Answers GET."""

    protocol_version = "HTTP/1.1"
    server_version = "toolcrib-pages"

    def do_GET(self) -> None:
        """Answer one address."""
        path = self.path.partition("?")[0]
        act = _ODD.get(path)
        if act is not None:
            act(self)
            return
        page = PAGES / path.rpartition("/")[2]
        if path.count("/") == 1 and page.suffix in TYPES and page.is_file():
            self.answer(200, page.read_bytes(), {"Content-Type": TYPES[page.suffix]})
        else:
            self.answer(404, b"There is no such page.\n", {"Content-Type": "text/plain"})

    def answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        """Send a whole answer."""
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


def _move(site: Site) -> None:
    site.answer(302, b"", {"Location": "http://elsewhere.example/offers.html"})


def _chunk(site: Site) -> None:
    site.send_response(200)
    site.send_header("Content-Type", "text/plain")
    site.send_header("Transfer-Encoding", "chunked")
    site.end_headers()
    for part in (b"in ", b"three ", b"parts"):
        site.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
    site.wfile.write(b"0\r\n\r\n")


def _pack(site: Site) -> None:
    headers = {"Content-Type": "text/plain", "Content-Encoding": "gzip"}
    site.answer(200, b"\x1f\x8b\x08", headers)


def _flood(site: Site) -> None:
    site.answer(200, b"x" * 2_000_000, {"Content-Type": "text/plain"})


_ODD: dict[str, Callable[[Site], None]] = {
    "/moved": _move,
    "/chunked": _chunk,
    "/packed": _pack,
    "/flood": _flood,
}


def main() -> None:
    """Serve until somebody ends this process."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    folder = Path(sys.argv[1])
    (folder / "port.new").write_text(str(server.server_address[1]))
    (folder / "port.new").rename(folder / "port")
    server.serve_forever()


if __name__ == "__main__":
    main()
