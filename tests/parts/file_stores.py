"""Two real file servers with the same folders: the sample bundle's own, and nginx with its dav module."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from credentials import child_process
from credentials.child_process import HOST, Launch, attempts, find_free_port
from credentials.errors import PartUnavailable
from tests.parts.nginx import NGINX
from tests.parts.unix_server import UnixServer

SERVER = Path(__file__).parent.parent.parent / "tools" / "bundles" / "files" / "dev" / "server.py"
READER, WRITER, PASSWORD = "reader", "writer", "for-tests"
_UID = 65433
_NGINX = """\
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 64; }}
http {{
  access_log off;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  map $request_method $door {{ GET readers; default writers; }}
  server {{
    listen {host}:{port};
    root {folder}/files;
    client_body_temp_path {folder}/files/.new;
    client_max_body_size 4m;
    dav_methods PUT MKCOL MOVE;
    create_full_put_path off;
    dav_access user:rw;
    autoindex on;
    autoindex_format json;
    disable_symlinks on;
    auth_basic files;
    auth_basic_user_file {folder}/$door;
  }}
}}
"""


class FileStore:
    """A file server with a folder for each of two tenants.

    Attributes:
        files: The folder that holds the tenants' folders.
        port: On loopback.
    """

    def __init__(self, kind: str) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="toolcrib-files-"))
        self.files, self.port = self._folder / "files", 0
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self._folder.chmod(0o755)
            for tenant in ("shop", "rival"):
                (self.files / tenant).mkdir(parents=True)
            (self._start_nginx if kind == "nginx" else self._start_own)()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the server and remove its folder."""
        if self._process is not None:
            child_process.stop(self._process, signal.SIGTERM)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _start_own(self) -> None:
        logins = {name: {"username": name, "password": PASSWORD} for name in (READER, WRITER)}
        known = {"tenants": [], "secrets": {"files-read": logins[READER], "files-write": logins[WRITER]}}
        (self._folder / "settings.json").write_text(json.dumps(known))
        self._start([sys.executable, "-P", str(SERVER), str(self._folder)], None)
        for _ in attempts(10.0):
            if (self._folder / "port").exists():
                self.port = int((self._folder / "port").read_text())
                return
        raise PartUnavailable(f"{SERVER} did not start")

    def _start_nginx(self) -> None:
        if not NGINX.exists():
            raise PartUnavailable("nginx is missing: run deploy/setup/targets.sh")
        self.port = find_free_port()
        settings = self._folder / "nginx.conf"
        settings.write_text(_NGINX.format(folder=self._folder, host=HOST, port=self.port))
        lines = [f"{name}:{{PLAIN}}{PASSWORD}\n" for name in (WRITER, READER)]
        (self._folder / "writers").write_text(lines[0])
        (self._folder / "readers").write_text("".join(lines))
        uid = _UID if child_process.is_root() else None
        if uid is not None:
            for path in (self._folder, *self._folder.rglob("*")):
                os.chown(path, uid, uid)
        self._start([str(NGINX), "-e", "stderr", "-p", str(self._folder), "-c", str(settings)], uid)
        for _ in attempts(10.0):
            with socket.socket() as probe:
                if probe.connect_ex((HOST, self.port)) == 0:
                    return
        raise PartUnavailable(f"nginx did not start: {child_process.read_end(self._folder / 'log')}")

    def _start(self, command: list[str], uid: int | None) -> None:
        launch = Launch(command, self._folder, self._folder / "log", death_signal=signal.SIGTERM, uid=uid)
        self._process = child_process.start(launch)


class Relay(UnixServer):
    """A unix socket whose connections are carried to a TCP port, as egress does; it may lose some.

    Attributes:
        path: The socket.
        seen: First lines of the requests that came, in order.
        adds: Value of the header Authorization that is added to each, as the HTTP proxy does.
        loses: Told the number of a connection, from 0, answers "" (carry it), "request" (drop it before the
            server sees it) or "answer" (the server works on it, and nobody hears of it).
    """

    def __init__(self, path: Path, port: int) -> None:
        self.path, self.seen, self.adds = path, list[str](), ""
        self.loses: Callable[[int], str] = lambda _: ""
        self._port = port
        super().__init__(path)

    def serve_one(self, connection: socket.socket) -> None:
        """Carry one request and its answer, or lose it."""
        request = _read_request(connection)
        lost = self.loses(len(self.seen))
        line, rest = request.split(b"\r\n", 1)
        self.seen.append(line.decode())
        request = line + f"\r\nAuthorization: {self.adds}\r\n".encode() + rest
        if lost == "request":
            return
        with socket.create_connection((HOST, self._port), timeout=10) as server:
            server.sendall(request)
            answer = b""
            while part := server.recv(65_536):
                answer += part
        if lost != "answer":
            connection.sendall(answer)


def _read_request(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(65_536)
    head, _, body = data.partition(b"\r\n\r\n")
    lengths = [line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
    wanted = int(lengths[0].partition(b":")[2]) if lengths else 0
    while len(body) < wanted:
        body += connection.recv(65_536)
    return head + b"\r\n\r\n" + body
