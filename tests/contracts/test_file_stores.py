"""What the bundle `files` asks of a file server, its own small one and nginx: whole, once, only there."""

from __future__ import annotations

import base64
import hashlib
import http.client
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.parts import without
from tests.parts.file_stores import PASSWORD, READER, WRITER, FileStore, Relay
from tests.parts.handlers import load_handler
from toolcrib.handler import testing
from toolcrib.handler.context import Target

BUNDLE = Path(__file__).parent.parent.parent / "tools" / "bundles" / "files"
KEY = "a1b2c3"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The bundle's handler as it is in its image, and its messages."""
    with load_handler(BUNDLE, tmp_path_factory.mktemp("bundle"), "files.v1.files_pb2") as loaded:
        yield loaded


@pytest.fixture(scope="module", params=["own", pytest.param("nginx", marks=pytest.mark.nginx)])
def store(request: pytest.FixtureRequest) -> Iterator[FileStore]:
    if request.param == "nginx" and without("nginx"):
        pytest.skip("needs nginx")
    made = FileStore(request.param)
    yield made
    made.stop()


def basic(name: str) -> str:
    """The header by which a login is shown; the way out adds it."""
    return f"Basic {base64.b64encode(f'{name}:{PASSWORD}'.encode()).decode()}"


class Desk:
    """Runs the handler against a store."""

    def __init__(self, bundle: Any, store: FileStore, relay: Relay) -> None:
        self.handler, self.messages = bundle
        self.store, self.relay = store, relay
        self.login = ""

    def run(self, method: str, key: str = KEY, **fields: Any) -> testing.Run:
        kind = getattr(self.messages, f"{method}Request")
        name = self.login or (WRITER if method == "WriteFile" else READER)
        self.relay.adds = basic(name)
        return testing.run(
            self.handler,
            f"files.v1.Files/{method}",
            kind(**fields),
            targets={"files-store": Target("", str(self.relay.path), {"host": "files.example"})},
            idempotency_key=key,
            tenant="shop",
        )

    def write(self, path: str, text: str, **more: Any) -> testing.Run:
        return self.run("WriteFile", path=path, text=text, **more)

    def happened(self, key: str = KEY) -> bool:
        return bool(self.run("LookupWrite", idempotency_key=key).result.written)


@pytest.fixture
def desk(bundle: Any, store: FileStore, tmp_path: Path) -> Iterator[Desk]:
    relay = Relay(tmp_path / "store.sock", store.port)
    yield Desk(bundle, store, relay)
    relay.close()


def code(run: testing.Run) -> str:
    return run.failure.code if run.failure else ""


def test_writes_reads_and_lists(desk: Desk) -> None:
    assert not code(desk.write("plain/sub folder/a+b@c.txt", "héllo", key="plain1"))
    read = desk.run("ReadFile", path="plain/sub folder/a+b@c.txt")
    assert [file.content.decode() for file in read.artefacts] == ["héllo"]
    assert read.result.sha256 == hashlib.sha256("héllo".encode()).hexdigest()
    listed = desk.run("ListFolder", path="plain").result.entries
    assert [(entry.name, entry.is_folder) for entry in listed] == [("sub folder", True)]


def test_says_what_there_is_not(desk: Desk) -> None:
    desk.write("there/file.txt", "x", key="there1")
    assert code(desk.run("ReadFile", path="there/none.txt")) == "FILE_UNKNOWN"
    assert code(desk.run("ReadFile", path="there")) == "IS_FOLDER"
    assert code(desk.run("ListFolder", path="none")) == "FOLDER_UNKNOWN"
    below = desk.write("there/file.txt/below", "x", key="there2")
    assert code(below) in ("PATH_TAKEN", "STORE_REFUSED"), below


def test_writes_over_nothing_but_what_was_read(desk: Desk) -> None:
    first = desk.write("over.txt", "first", key="over1").result.sha256
    assert code(desk.write("over.txt", "second", key="over2")) == "FILE_EXISTS"
    assert code(desk.write("over.txt", "second", key="over3", if_match="0" * 64)) == "FILE_CHANGED"
    assert not code(desk.write("over.txt", "second", key="over4", if_match=first))
    assert (desk.store.files / "shop" / "over.txt").read_text() == "second"


def test_refuses_a_key_that_holds_another_write(desk: Desk) -> None:
    desk.write("taken.txt", "first", key="taken1")
    assert code(desk.write("other.txt", "second", key="taken1")) == "KEY_TAKEN"


REQUESTS = 7  # of one write with one folder: see test_knows_how_many_requests_a_write_takes


def test_knows_how_many_requests_a_write_takes(desk: Desk) -> None:
    desk.write("counted/file.txt", "x", key="counted1")
    assert len(desk.relay.seen) == REQUESTS
    assert desk.relay.seen[-1].startswith("MOVE ")


@pytest.mark.parametrize("lost", ["request", "answer"])
@pytest.mark.parametrize("number", range(REQUESTS))
def test_writes_once_wherever_the_first_run_broke(desk: Desk, lost: str, number: int) -> None:
    path, key = f"broken/{lost}{number}.txt", f"broken{lost}{number}"
    desk.relay.loses = lambda at: lost if at == number else ""
    broken = desk.write(path, "once", key=key)
    assert broken.failure is not None
    is_moved = (desk.store.files / "shop" / path).exists()
    assert (number == REQUESTS - 1 and lost == "answer") == is_moved
    assert broken.failure.effect == ("unknown" if number == REQUESTS - 1 else "none")
    assert desk.happened(key) == is_moved
    again = desk.write(path, "once", key=key)
    assert not code(again)
    assert desk.happened(key)
    assert (desk.store.files / "shop" / path).read_text() == "once"


def test_writes_not_again_what_was_changed_since(desk: Desk) -> None:
    desk.write("since.txt", "mine", key="since1")
    (desk.store.files / "shop" / "since.txt").write_text("somebody else's")
    assert not code(desk.write("since.txt", "mine", key="since1"))
    assert (desk.store.files / "shop" / "since.txt").read_text() == "somebody else's"


def test_lets_a_reader_write_nothing(desk: Desk) -> None:
    desk.login = READER
    assert code(desk.write("denied.txt", "x", key="denied1")) == "STORE_DENIED"
    desk.login = ""
    assert not code(desk.write("denied.txt", "x", key="denied1")), "the control"


def test_follows_no_link(desk: Desk) -> None:
    (desk.store.files / "rival" / "secret.txt").write_text("theirs")
    (desk.store.files / "shop" / "link.txt").symlink_to(desk.store.files / "rival" / "secret.txt")
    (desk.store.files / "shop" / "away").symlink_to(desk.store.files / "rival")
    for path in ("link.txt", "away/secret.txt"):
        assert (desk.store.files / "shop" / path).read_text() == "theirs", "the control: it leads there"
        assert code(desk.run("ReadFile", path=path)) in ("STORE_DENIED", "FILE_UNKNOWN")


@pytest.mark.parametrize(
    "path", ["../rival/secret.txt", "/rival/secret.txt", "a/../../rival/x", "a//b", "a\0b", "."]
)
def test_looks_at_a_path_once_more(desk: Desk, path: str) -> None:
    assert code(desk.run("ReadFile", path=path)) == "PATH_INVALID"
    assert desk.relay.seen == []


@pytest.mark.parametrize(
    "path",
    [
        "/shop/../rival/s.txt",
        "/shop/%2e%2e/rival/s.txt",
        "/shop/..%2frival/s.txt",
        "/shop/%00",
        "/../../etc/passwd",
    ],
)
def test_the_server_lets_no_path_lead_out(desk: Desk, path: str) -> None:
    """What a handler that was taken over could send; within the root nginx resolves `..` by itself."""
    (desk.store.files / "s.txt").write_text("not a tenant's")
    (desk.store.files.parent / "outside.txt").write_text("outside")
    connection = http.client.HTTPConnection("127.0.0.1", desk.store.port, timeout=5)
    connection.request("GET", path, headers={"Authorization": basic(READER)})
    answer = connection.getresponse()
    assert answer.status in (400, 403, 404)
    assert b"outside" not in answer.read()
    connection.close()
