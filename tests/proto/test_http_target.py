"""Plain HTTP through a unix socket: nothing becomes a second request, no answer takes more than it may."""

from __future__ import annotations

import gzip
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from toolcrib.handler.context import Target
from toolcrib.handler.http_target import HttpAnswer, HttpFailed, HttpRequest, send

Answer = Callable[[socket.socket], None]


class Server:
    """Reads one request and answers as it is told."""

    def __init__(self, path: Path) -> None:
        self.target = Target(str(path.parent), str(path), {})
        self.heard = b""
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(path))
        self._listening.listen()

    def ask(self, answer: bytes | Answer, *, seconds: float = 5.0, **changes: object) -> HttpAnswer:
        thread = threading.Thread(target=self._answer, args=(answer,))
        thread.start()
        fields = {"method": "GET", "path": "/a?b=c", "host": "pages.example", **changes}
        try:
            return send(self.target, HttpRequest(**fields), seconds)  # type: ignore[arg-type]
        finally:
            thread.join(10)

    def close(self) -> None:
        self._listening.close()

    def _answer(self, answer: bytes | Answer) -> None:
        connection, _ = self._listening.accept()
        with connection:
            self.heard = connection.recv(65_536)
            while b"Content-Length" in self.heard and self.heard.endswith(b"\r\n\r\n"):
                self.heard += connection.recv(65_536)
            try:
                if callable(answer):
                    answer(connection)
                else:
                    connection.sendall(answer)
            except OSError:
                return  # the client had enough


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path / "web.sock")
    yield made
    made.close()


def test_sends_one_plain_request(server: Server) -> None:
    answer = server.ask(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-A: 1\r\nX-A: 2\r\n\r\nhi")
    assert answer == HttpAnswer(200, {"content-length": "2", "x-a": "1"}, b"hi", is_cut=False)
    assert server.heard.startswith(b"GET /a?b=c HTTP/1.1\r\n")
    assert {b"Host: pages.example", b"Accept-Encoding: identity"} <= set(server.heard.split(b"\r\n"))


def test_sends_a_body_with_its_length(server: Server) -> None:
    server.ask(b"HTTP/1.1 204 \r\n\r\n", method="PUT", body=b"three")
    assert b"Content-Length: 5\r\n" in server.heard
    assert server.heard.endswith(b"\r\n\r\nthree")


def test_puts_chunks_together(server: Server) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert server.ask(head + b"2\r\nab\r\n1\r\nc\r\n0\r\n\r\n").body == b"abc"


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffff\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
    ],
)
def test_reads_no_more_than_it_may(server: Server, head: bytes) -> None:
    answer = server.ask(head + b"x" * 5000, most_bytes=1000)
    assert (answer.body, answer.is_cut) == (b"x" * 1000, True)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + gzip.compress(bytes(1_000_000)),
        b"HTTP/1.1 101 Switching\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n",
    ],
)
def test_gives_no_answer_that_cannot_be_read(server: Server, answer: bytes) -> None:
    with pytest.raises(HttpFailed) as failed:
        server.ask(answer)
    assert failed.value.was_sent


def drip(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    end = time.monotonic() + 5
    while time.monotonic() < end:
        connection.sendall(b"x")
        time.sleep(0.05)


def continue_for_ever(connection: socket.socket) -> None:
    end = time.monotonic() + 5
    while time.monotonic() < end:
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        time.sleep(0.01)


@pytest.mark.parametrize("answer", [drip, continue_for_ever])
def test_ends_in_time_however_slowly_the_server_drips(server: Server, answer: Answer) -> None:
    with pytest.raises(HttpFailed):
        server.ask(answer, seconds=0.3)


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n",  # read(-1) means: all there is
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",  # trailers
        b"",
    ],
)
def test_takes_no_flood_whatever_it_is_called(server: Server, head: bytes) -> None:
    given = 0

    def flood(connection: socket.socket) -> None:
        nonlocal given
        connection.sendall(head)
        line = b"HTTP/1.1 100 Continue\r\n\r\n" if not head else b"X-A: 1\r\n"
        while given < 64 * 1024 * 1024:
            connection.sendall(line * 4096)
            given += len(line) * 4096

    with pytest.raises(HttpFailed):
        server.ask(flood, most_bytes=1000, seconds=20.0)
    assert given < 8 * 1024 * 1024


def test_says_that_nothing_was_sent_where_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(HttpFailed) as failed:
        send(Target("", str(tmp_path / "none.sock"), {}), HttpRequest("GET", "/", "a.example"), 1.0)
    assert not failed.value.was_sent


@pytest.mark.parametrize(
    "change",
    [
        {"path": "/a\r\nX-Injected: 1"},
        {"path": "/a b"},
        {"path": "http://other.example/"},
        {"path": "/\u00e9"},
        {"host": "a.example\r\nX-Injected: 1"},
        {"host": "user@a.example"},
        {"headers": {"Accept": "text/html\r\nX-Injected: 1"}},
        {"headers": {"Accept": "\u202e"}},
    ],
)
def test_sends_nothing_that_could_become_more(tmp_path: Path, change: dict[str, object]) -> None:
    fields = {"method": "GET", "path": "/", "host": "a.example", **change}
    with pytest.raises(ValueError, match="holds|begins|a name"):
        send(Target("", str(tmp_path / "none.sock"), {}), HttpRequest(**fields), 1.0)  # type: ignore[arg-type]
