"""A small file server for `toolcrib dev`: a folder for each tenant; GET, PUT, MKCOL, MOVE; a password.

    python3 -P server.py FOLDER

It keeps the files in FOLDER/files, listens on a free port of 127.0.0.1 and writes its number to FOLDER/port.
It speaks as much of WebDAV as nginx does with its dav module and JSON listings, and besides the `If` header
of a MOVE with the etag of what it replaces. Paths are walked part by part without following a link; a part
that is "..", ".", empty, or holds a zero byte or a slash once it is decoded, is no path.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import os
import re
import stat
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

MOST_BYTES = 4 * 1024 * 1024
_SEED = {"welcome.txt": "Welcome to this folder.\n", "reports/march.csv": "item,sold\nkettle,12\nlamp,7\n"}
_CONDITION = re.compile(r'<[^<>]*> \(\[("[^"]*")\]\)')
_LOOK = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Refused(Exception):
    """A request that is answered with a status alone."""

    def __init__(self, status: int) -> None:
        super().__init__(str(status))
        self.status = status


class FileServer(ThreadingHTTPServer):
    """One folder, and who may enter."""

    def __init__(self, root: Path, reader: Mapping[str, str], writer: Mapping[str, str]) -> None:
        super().__init__(("127.0.0.1", 0), Files)
        self.root = root
        self.authorizations = (_authorization(reader), _authorization(writer))
        self.writing = threading.Lock()


class Files(BaseHTTPRequestHandler):
    """Answers one request."""

    server: FileServer
    protocol_version = "HTTP/1.1"
    server_version = "toolcrib-files"

    def do_GET(self) -> None:
        """Give a file, or list a folder whose address ends with a slash."""
        self._answer(self._get)

    def do_PUT(self) -> None:
        """Write a whole file, in one rename."""
        self._answer(self._put)

    def do_MKCOL(self) -> None:
        """Make a folder."""
        self._answer(self._make)

    def do_MOVE(self) -> None:
        """Rename a file, under the conditions of Overwrite and If."""
        self._answer(self._move)

    def _answer(self, act: object) -> None:
        try:
            body = self._body()
            self._check_login()
            status, answer, headers = act(body)  # type: ignore[operator]
        except Refused as refused:
            status, answer, headers = refused.status, b"", {}
        except (FileNotFoundError, NotADirectoryError):
            status, answer, headers = (404 if self.command == "GET" else 409), b"", {}
        except OSError:
            status, answer, headers = 403, b"", {}
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(answer))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer)

    def _check_login(self) -> None:
        given = self.headers.get("Authorization", "").encode()
        is_reader, is_writer = (hmac.compare_digest(given, known) for known in self.server.authorizations)
        if not is_writer and not (is_reader and self.command == "GET"):
            raise Refused(403 if is_reader else 401)

    def _get(self, _: bytes) -> tuple[int, bytes, dict[str, str]]:
        parts, is_folder = read_path(self.path)
        with self._folder(parts if is_folder else parts[:-1]) as place:
            if is_folder:
                return (
                    200,
                    json.dumps(list(list_entries(place))).encode(),
                    {"Content-Type": "application/json"},
                )
            if stat.S_ISDIR(os.stat(parts[-1], dir_fd=place, follow_symlinks=False).st_mode):
                return 301, b"", {"Location": f"{self.path}/"}
            content = read_at(place, parts[-1])
        return 200, content, {"Content-Type": "application/octet-stream", "ETag": make_tag(content)}

    def _put(self, body: bytes) -> tuple[int, bytes, dict[str, str]]:
        parts, is_folder = read_path(self.path)
        if is_folder:
            raise Refused(409)
        with self.server.writing, self._folder(parts[:-1]) as place:
            fresh = f".new-{threading.get_ident()}"
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
            with os.fdopen(os.open(fresh, flags, 0o600, dir_fd=place), "wb") as file:
                file.write(body)
                file.flush()
                os.fsync(file.fileno())
            os.rename(fresh, parts[-1], src_dir_fd=place, dst_dir_fd=place)
        return 201, b"", {}

    def _make(self, _: bytes) -> tuple[int, bytes, dict[str, str]]:
        parts, _is_folder = read_path(self.path)
        with self.server.writing, self._folder(parts[:-1]) as place:
            try:
                os.mkdir(parts[-1], 0o700, dir_fd=place)
            except FileExistsError:
                found = os.stat(parts[-1], dir_fd=place, follow_symlinks=False)
                raise Refused(405 if stat.S_ISDIR(found.st_mode) else 409) from None
        return 201, b"", {}

    def _move(self, _: bytes) -> tuple[int, bytes, dict[str, str]]:
        source, _is_folder = read_path(self.path)
        target, _is_folder = read_path(urlsplit(self.headers.get("Destination", "")).path)
        with self.server.writing, self._folder(source[:-1]) as here, self._folder(target[:-1]) as there:
            self._check_conditions(there, target[-1])
            os.rename(source[-1], target[-1], src_dir_fd=here, dst_dir_fd=there)
        return 201, b"", {}

    def _check_conditions(self, folder: int, name: str) -> None:
        try:
            tag = make_tag(read_at(folder, name))
        except FileNotFoundError:
            tag = ""
        wanted = _CONDITION.fullmatch(self.headers.get("If", ""))
        if (tag and self.headers.get("Overwrite") == "F") or (wanted and wanted[1] != tag):
            raise Refused(412)

    @contextlib.contextmanager
    def _folder(self, parts: list[str]) -> Iterator[int]:
        """Hold a folder's descriptor; a link on the way is an error."""
        place = os.open(self.server.root, _LOOK)
        try:
            for part in parts:
                below = os.open(part, _LOOK, dir_fd=place)
                os.close(place)
                place = below
            yield place
        finally:
            os.close(place)

    def _body(self) -> bytes:
        length = int(self.headers.get("Content-Length") or 0)
        if length > MOST_BYTES:
            self.close_connection = True
            raise Refused(413)
        return self.rfile.read(length)

    def log_message(self, *_: object) -> None:
        """Log nothing: there may be a password in it."""


def _authorization(login: Mapping[str, str]) -> bytes:
    pair = f"{login['username']}:{login['password']}".encode()
    return b"Basic " + base64.b64encode(pair)


def read_path(address: str) -> tuple[list[str], bool]:
    """Take an address apart; True where it ends with a slash.

    Raises:
        Refused: It has a part that leads elsewhere, or none at all.
    """
    path = address.partition("?")[0]
    parts = [unquote(part, errors="strict") for part in path.strip("/").split("/")]
    if not path.startswith("/") or any(
        part in ("", ".", "..") or "\0" in part or "/" in part for part in parts
    ):
        raise Refused(400)
    return parts, path.endswith("/")


def list_entries(folder: int) -> Iterator[dict[str, object]]:
    """List a folder as nginx does."""
    with os.scandir(folder) as entries:
        for entry in entries:
            found = entry.stat(follow_symlinks=False)
            kinds = {stat.S_IFDIR: "directory", stat.S_IFREG: "file"}
            kind = kinds.get(stat.S_IFMT(found.st_mode), "other")
            size = {"size": found.st_size} if kind == "file" else {}
            yield {"name": entry.name, "type": kind, **size}


def read_at(folder: int, name: str) -> bytes:
    """Read a regular file of a folder; a link is an error."""
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise Refused(403)
        return file.read()


def make_tag(content: bytes) -> str:
    """Name a content, in quotes as HTTP wants it."""
    return f'"{hashlib.sha256(content).hexdigest()}"'


def seed(root: Path, tenants: Iterable[str]) -> None:
    """Put two files into the folder of each tenant."""
    for tenant in tenants:
        for name, text in _SEED.items():
            file = root / tenant / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)


def main() -> None:
    """Serve until somebody ends this process."""
    folder = Path(sys.argv[1])
    known = json.loads((folder / "settings.json").read_text())
    root = folder / "files"
    seed(root, known["tenants"])
    server = FileServer(root, known["secrets"]["files-read"], known["secrets"]["files-write"])
    (folder / "port.new").write_text(str(server.server_address[1]))
    (folder / "port.new").rename(folder / "port")
    server.serve_forever()


if __name__ == "__main__":
    main()
