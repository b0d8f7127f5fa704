"""A server that reads requests as Vault does and then does something odd. For tests only."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

HOST = "127.0.0.1"


@dataclass
class OddServer:
    """What it does with a request, and what it got.

    Attributes:
        act: Called with the connection for each request; False: the connection is closed.
        got: The head of each request that it carried out.
    """

    address: str
    act: Callable[[socket.socket], bool]
    got: list[str] = field(default_factory=list)
    connections: list[socket.socket] = field(default_factory=list)


def answer(status: int = 200, body: object = None, *, head: str = "") -> Callable[[socket.socket], bool]:
    """Answer like a Vault, and wait for the next request."""
    text = body if isinstance(body, bytes) else json.dumps({} if body is None else body).encode()

    def act(connection: socket.socket) -> bool:
        connection.sendall(
            f"HTTP/1.1 {status} X\r\n{head}Content-Length: {len(text)}\r\n\r\n".encode() + text
        )
        return True

    return act


def close(_: socket.socket) -> bool:
    """Carry it out, and close the connection without a word."""
    return False


def answer_and_close(connection: socket.socket) -> bool:
    """Answer as if the connection would stay, and close it."""
    answer()(connection)
    return False


def in_turn(*acts: Callable[[socket.socket], bool]) -> Callable[[socket.socket], bool]:
    """Do one after the other."""
    left = iter(acts)

    def act(connection: socket.socket) -> bool:
        return next(left)(connection)

    return act


def say_nothing(connection: socket.socket) -> bool:
    """Keep the connection and never answer."""
    with contextlib.suppress(OSError):
        while connection.recv(1024):
            pass
    return False


def drip(connection: socket.socket) -> bool:
    """Answer so slowly that no single piece is late."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n{")
    with contextlib.suppress(OSError):
        while True:
            connection.sendall(b" " * 64)
            time.sleep(0.05)
    return False


@contextmanager
def run_odd_server(
    act: Callable[[socket.socket], bool], context: ssl.SSLContext | None = None
) -> Iterator[OddServer]:
    """Run one on loopback."""
    listener = socket.create_server((HOST, 0))
    scheme = "https" if context else "http"
    server = OddServer(f"{scheme}://{HOST}:{listener.getsockname()[1]}", act)
    threads: list[threading.Thread] = []

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                connection.settimeout(20)
                threads.append(threading.Thread(target=_serve, args=(server, connection, context)))
                threads[-1].start()

    threads.append(threading.Thread(target=accept))
    threads[0].start()
    yield server
    for one in (listener, *server.connections):
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
        one.close()
    for thread in threads:
        thread.join()


def _serve(server: OddServer, connection: socket.socket, context: ssl.SSLContext | None) -> None:
    with contextlib.suppress(OSError):
        if context is not None:
            connection = context.wrap_socket(connection, server_side=True)
        server.connections.append(connection)
        while (head := _read_request(connection)) is not None:
            server.got.append(head)
            if not server.act(connection):
                break
    connection.close()


def _read_request(connection: socket.socket) -> str | None:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(65_536)
        if not piece:
            return None
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    lengths = [
        line.split(b":")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")
    ]
    while len(body) < int(lengths[0] if lengths else 0):
        body += connection.recv(65_536)
    return head.decode()
