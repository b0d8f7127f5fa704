"""What the bundle `files` says of a file server that lies, or does more than it says."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.parts.handlers import load_handler
from tests.parts.unix_server import UnixServer
from toolcrib.handler import testing
from toolcrib.handler.context import Target

BUNDLE = Path(__file__).parent.parent.parent / "tools" / "bundles" / "files"
OLD = b"what was there"
Answer = Callable[[str, str], bytes]
"""(method, path) -> the whole answer."""


def reply(status: int, body: bytes = b"", head: str = "") -> bytes:
    return f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n{head}\r\n".encode("latin-1") + body


class LyingServer(UnixServer):
    """Answers each connection's one request as it is told."""

    def __init__(self, path: Path) -> None:
        self.target = Target("", str(path), {"host": "files.example"})
        self.answer: Answer = lambda _method, _path: reply(404)
        self.heard: list[bytes] = []
        super().__init__(path)

    def serve_one(self, connection: socket.socket) -> None:
        with connection.makefile("rb") as stream:
            head = b"".join(iter(stream.readline, b"\r\n"))
            sizes = [line for line in head.lower().splitlines() if line.startswith(b"content-length:")]
            stream.read(int(sizes[0].split(b":")[1]) if sizes else 0)
            self.heard.append(head)
            method, path, _ = head.decode().split(" ", 2)
            connection.sendall(self.answer(method, path))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with load_handler(BUNDLE, tmp_path_factory.mktemp("bundle"), "files.v1.files_pb2") as loaded:
        yield loaded


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LyingServer]:
    made = LyingServer(tmp_path / "files.sock")
    yield made
    made.close()


def run(bundle: Any, server: LyingServer, method: str, **fields: Any) -> testing.Run:
    handler, messages = bundle
    target = fields.pop("target", server.target)
    return testing.run(
        handler,
        f"files.v1.Files/{method}",
        getattr(messages, f"{method}Request")(**fields),
        targets={"files-store": target},
        idempotency_key="a1b2",
        tenant="shop",
    )


def keep(moved: bytes, tag: str = "") -> Answer:
    """Behave until the MOVE; the file is there already."""
    answers = {"PUT": reply(201), "MKCOL": reply(201), "MOVE": moved}
    found = reply(200, OLD, f"ETag: {tag}\r\n" if tag else "")
    return lambda method, path: answers.get(method) or (reply(404) if ".toolcrib" in path else found)


def replace(bundle: Any, server: LyingServer) -> testing.Run:
    digest = hashlib.sha256(OLD).hexdigest()
    return run(bundle, server, "WriteFile", path="a.txt", text="new", if_match=digest)


@pytest.mark.parametrize(
    ("status", "code", "effect"),
    [
        (200, "WRITE_UNKNOWN", "unknown"),  # neither "made" nor "replaced": who knows
        (202, "WRITE_UNKNOWN", "unknown"),
        (207, "WRITE_UNKNOWN", "unknown"),
        (302, "WRITE_UNKNOWN", "unknown"),
        (404, "WRITE_UNKNOWN", "unknown"),  # the content is gone: a MOVE took it away
        (502, "WRITE_UNKNOWN", "unknown"),
        (403, "STORE_DENIED", "none"),
        (409, "STORE_REFUSED", "none"),
        (412, "FILE_CHANGED", "none"),
    ],
)
def test_says_of_a_move_only_what_it_knows(
    bundle: Any, server: LyingServer, status: int, code: str, effect: str
) -> None:
    server.answer = keep(reply(status))
    failure = replace(bundle, server).failure
    assert failure is not None and (failure.code, failure.effect) == (code, effect)


@pytest.mark.parametrize(
    ("tag", "sent"),
    [
        ('"abc"', True),
        ('W/"abc"', False),  # weak ones never match, so nothing could be written
        ('"a"]) (Not <DAV:no-lock>', False),
        ("\u00e9", False),
        ('"a\tb"', False),
        ("abc", False),
    ],
)
def test_gives_no_tag_back_that_is_none(bundle: Any, server: LyingServer, tag: str, sent: bool) -> None:
    server.answer = keep(reply(204), tag)
    assert replace(bundle, server).failure is None
    head = server.heard[-1].decode()
    assert (head.startswith("MOVE "), f"([{tag}])" in head, "If:" in head) == (True, sent, sent)


@pytest.mark.parametrize(
    "listing",
    [
        b"[",
        b"{}x",
        b'{"a": 1}',
        b"[1]",
        b'[{"name": "a", "type": "file", "size": 1e999}]',
        b'[{"name": "a", "type": "file", "size": 99999999999999999999}]',
        b'[{"name": "\\ud800", "type": "file", "size": 1}]',
        b'[{"name": "a", "type": "socket", "size": 1}]',
        b"[" * 100_000,
    ],
)
def test_says_that_a_listing_cannot_be_read(bundle: Any, server: LyingServer, listing: bytes) -> None:
    server.answer = lambda _method, _path: reply(200, listing)
    failure = run(bundle, server, "ListFolder", path="").failure
    assert failure is not None and failure.code == "LISTING_UNREADABLE"


@pytest.mark.parametrize("mark", [b"", b"[1]", b'{"path": 1}', b'{"other": "x"}', b"[" * 100_000, b"\xff"])
def test_says_that_a_mark_cannot_be_read(bundle: Any, server: LyingServer, mark: bytes) -> None:
    server.answer = lambda _method, path: reply(200, mark) if path.endswith(".json") else reply(404)
    failure = run(bundle, server, "LookupWrite", idempotency_key="a1b2").failure
    assert failure is not None and (failure.code, failure.effect) == ("MARK_UNREADABLE", "unknown")


def test_says_that_it_is_not_set_up(bundle: Any, server: LyingServer) -> None:
    """Not "unknown": a write would be in doubt for a setting."""
    path = server.target.socket_path
    wrong: tuple[dict[str, Any], ...] = ({"target": Target("", path, {"host": "files example"})},)
    for change in wrong:
        failure = run(bundle, server, "WriteFile", path="a.txt", text="new", **change).failure
        assert failure is not None and (failure.code, failure.effect) == ("TARGET_NOT_SET_UP", "none")
