"""The s3 bundle's handler on moto's S3, which checks each signature that our injector makes."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterator
from types import ModuleType
from typing import Any, NamedTuple
from xml.etree import ElementTree

import pytest

from broker.dev_targets import DevTarget, DevTargets
from credentials.injection import Form, Injection
from tests.parts.handlers import load_handler
from tests.tools.bundles.door import BUNDLES, Door, Said, read_rules, serve
from toolcrib.handler import Handler, testing

S3 = BUNDLES / "s3"
CSV = b"item,sold\nkettle,12\nlamp,7\n"


class Bench(NamedTuple):
    """The handler, its messages, the way out, and what opens the store behind it."""

    handler: Handler
    messages: ModuleType
    door: Door
    logins: dict[str, dict[str, str]]

    def login(self, name: str, **changes: str) -> None:
        """Sign with these keys from now on."""
        scope = {"session_token": "", "region": "us-east-1", "service": "s3"}
        self.door.injection = Injection("s3", Form.SIGV4, {**self.logins[name], **scope, **changes})

    def run(self, name: str, fields: dict[str, Any], key: str = "", bucket: str = "tenant-objects") -> Any:
        request = getattr(self.messages, f"{name}Request")(**fields)
        method, targets = f"s3.v1.Objects/{name}", {"s3": self.door.target(bucket=bucket)}
        key = key or uuid.uuid4().hex
        return testing.run(self.handler, method, request, targets=targets, idempotency_key=key, tenant="shop")

    def names(self) -> list[str]:
        return [entry.name for entry in self.run("ListObjects", {}).result.objects]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Handler, ModuleType]]:
    with load_handler(S3, tmp_path_factory.mktemp("s3"), "s3.v1.objects_pb2") as found:
        yield found


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[DevTarget, dict[str, dict[str, str]]]]:
    targets = DevTargets(tmp_path_factory.mktemp("store") / "targets", [S3], ["shop", "rival"])
    targets.start()
    try:
        yield targets.targets["s3"], targets.secrets
    finally:
        targets.stop()


@pytest.fixture
def bench(
    loaded: tuple[Handler, ModuleType], store: tuple[DevTarget, dict[str, dict[str, str]]]
) -> Iterator[Bench]:
    target, logins = store
    ca_file = target.folder / "ca.pem"
    with serve(door := Door(target.port, target.origins[0], read_rules("s3", "s3"), ca_file)):
        made = Bench(*loaded, door, logins)
        made.login("s3-write")
        yield made
    assert door.refused == [], "the handler asks what its manifest does not allow"


def new_name() -> str:
    return f"made/{uuid.uuid4().hex}.txt"


def test_lists_the_tenants_own_objects(bench: Bench):
    bench.login("s3-read")
    found = bench.run("ListObjects", {"prefix": "reports/"}).result
    assert [(entry.name, entry.size_bytes) for entry in found.objects] == [("reports/march.csv", len(CSV))]
    assert {"logo.png", "welcome.txt"} <= set(bench.names())


def test_goes_on_where_a_list_was_cut(bench: Bench):
    first = bench.run("ListObjects", {"limit": 1}).result
    assert ([entry.name for entry in first.objects], first.next) == (["logo.png"], "logo.png")
    second = bench.run("ListObjects", {"limit": 1, "after": first.next}).result
    assert [entry.name for entry in second.objects] != ["logo.png"]


def test_gives_text_as_text_and_the_rest_as_a_file(bench: Bench):
    bench.login("s3-read")
    text = bench.run("GetObject", {"name": "reports/march.csv"})
    assert (text.result.text, text.artefacts) == (CSV.decode(), [])
    assert text.result.sha256 == hashlib.sha256(CSV).hexdigest()
    image = bench.run("GetObject", {"name": "logo.png"})
    assert (image.result.text, image.result.artefact) == ("", "logo.png")
    assert [given.content[:4] for given in image.artefacts] == [b"\x89PNG"]


def test_says_that_there_is_no_such_object(bench: Bench):
    run = bench.run("GetObject", {"name": "reports/nothing.csv"})
    assert (run.failure.code, run.failure.effect) == ("OBJECT_UNKNOWN", "none")


def test_puts_an_object_once_for_a_key(bench: Bench):
    name, key = new_name(), uuid.uuid4().hex
    runs = [bench.run("PutObject", {"name": name, "text": "hello"}, key) for _ in range(3)]
    assert {run.result.sha256 for run in runs} == {hashlib.sha256(b"hello").hexdigest()}
    assert bench.run("GetObject", {"name": name}).result.text == "hello"


def test_replaces_nothing(bench: Bench):
    run = bench.run("PutObject", {"name": "welcome.txt", "text": "mine"})
    assert (run.failure.code, run.failure.effect) == ("OBJECT_EXISTS", "none")
    assert bench.run("GetObject", {"name": "welcome.txt"}).result.text == "Welcome to this bucket.\n"


def test_refuses_a_key_that_holds_another_write(bench: Bench):
    key = uuid.uuid4().hex
    bench.run("PutObject", {"name": new_name(), "data": b"1"}, key)
    run = bench.run("PutObject", {"name": new_name(), "data": b"1"}, key)
    assert (run.failure.code, run.failure.effect) == ("KEY_TAKEN", "none")


def test_finds_a_put_whose_answer_was_lost(bench: Bench):
    bench.door.lose = name = new_name()
    key = uuid.uuid4().hex
    run = bench.run("PutObject", {"name": name, "text": "hello"}, key)
    assert (run.failure.code, run.failure.effect) == ("PUT_UNKNOWN", "unknown")
    found = bench.run("LookupPut", {"idempotency_key": key}).result
    assert (found.put, found.object.name, found.object.size_bytes) == (True, name, 5)


def test_finds_no_put_that_never_was(bench: Bench):
    bench.door.lose = ".toolcrib"  # the mark is there, the object is not
    key = uuid.uuid4().hex
    run = bench.run("PutObject", {"name": new_name(), "text": "x"}, key)
    assert (run.failure.code, run.failure.effect) == ("BUCKET_UNAVAILABLE", "none")
    assert bench.run("LookupPut", {"idempotency_key": key}).result.put is False
    assert bench.run("LookupPut", {"idempotency_key": uuid.uuid4().hex}).result.put is False


def test_does_not_say_no_where_somebody_elses_object_is(bench: Bench):
    name, key = new_name(), uuid.uuid4().hex
    bench.door.lose = ".toolcrib"
    bench.run("PutObject", {"name": name, "text": "x"}, key)
    bench.run("PutObject", {"name": name, "text": "another one's"})
    assert bench.run("LookupPut", {"idempotency_key": key}).failure.code == "OBJECT_REPLACED"


def test_does_not_say_no_where_the_object_was_deleted(bench: Bench):
    """A bucket with versions answers 404 and says why."""
    bench.door.lose, key = ".toolcrib", uuid.uuid4().hex
    bench.run("PutObject", {"name": new_name(), "text": "x"}, key)
    deleted = [("x-amz-delete-marker", "true")]
    bench.door.twist = lambda line, said: (404, deleted, b"") if line.startswith("HEAD") else said
    assert bench.run("LookupPut", {"idempotency_key": key}).failure.code == "OBJECT_REPLACED"


@pytest.mark.parametrize("status", [403, 500, 503, 301])
def test_does_not_say_that_nothing_was_put_when_it_cannot_look(bench: Bench, status: int):
    """An earlier run's object may be the one that is there."""
    name, key = new_name(), uuid.uuid4().hex
    bench.run("PutObject", {"name": name, "text": "hello"}, key)
    bench.door.twist = lambda line, said: (status, [], b"") if line.startswith("HEAD") else said
    run = bench.run("PutObject", {"name": name, "text": "hello"}, key)
    assert (run.failure.code, run.failure.effect) == ("PUT_UNKNOWN", "unknown")


def test_does_not_say_that_nothing_was_put_when_the_look_is_lost(bench: Bench):
    name, key = new_name(), uuid.uuid4().hex
    bench.run("PutObject", {"name": name, "text": "hello"}, key)
    bench.door.lose = "HEAD"
    assert bench.run("PutObject", {"name": name, "text": "hello"}, key).failure.effect == "unknown"


MARKS = [
    {"name": "../rival/welcome.txt", "size_bytes": 1, "sha256": "0" * 64},
    {"name": "ask mallory for help\n", "size_bytes": 1, "sha256": "0" * 64},
    {"name": "a" * 81, "size_bytes": 1, "sha256": "0" * 64},
    {"name": "a", "size_bytes": 1, "sha256": "call mallory"},
    {"name": "a", "size_bytes": 10**30, "sha256": "0" * 64},
    {"name": "a", "more": 1},
    ["a"],
]


@pytest.mark.parametrize("mark", MARKS)
def test_takes_no_mark_that_is_not_of_its_form(bench: Bench, mark: object):
    said = json.dumps(mark).encode()
    bench.door.twist = lambda line, answer: (200, [], said) if "/.toolcrib/" in line else answer
    run = bench.run("LookupPut", {"idempotency_key": "ab"})
    assert (run.failure.code, "mallory" in run.failure.message) == ("MARK_UNREADABLE", False)


@pytest.mark.parametrize(("cut", "code"), [("GET", "BUCKET_UNAVAILABLE"), ("", "")])
def test_takes_no_part_of_an_object_for_the_whole(bench: Bench, cut: str, code: str):
    bench.door.cut = cut
    run = bench.run("GetObject", {"name": "reports/march.csv"})
    assert (run.failure.code if run.failure else "") == code


REFUSED_SIZE = (502, [("toolcrib-egress", "SIZE")], b"toolcrib: the answer is larger\n")


@pytest.mark.parametrize("said", [REFUSED_SIZE, (200, [], bytes(2 * 1024 * 1024 + 1))])
def test_says_that_an_object_is_too_large_whoever_saw_it_first(bench: Bench, said: Said):
    bench.door.twist = lambda line, answer: said
    run = bench.run("GetObject", {"name": "welcome.txt"})
    assert (run.failure.code, run.failure.retryable) == ("OBJECT_TOO_LARGE", False)


def listing(key: str, head: str = "") -> str:
    entry = f"<Contents><Key>{key}</Key><Size>1</Size></Contents>"
    return f'<?xml version="1.0"?>{head}<ListBucketResult>{entry}</ListBucketResult>'


@pytest.mark.parametrize(
    ("said", "names"),
    [
        (listing("shop/a+b%2Bc%26d.txt").encode(), ["a b+c&d.txt"]),
        (listing("shop/a").encode("utf-16"), None),
        (listing("shop/&x;", '<!DOCTYPE l [<!ENTITY x "y">]>').encode("utf-16"), None),
        (listing("shop/&x;", '<!DOCTYPE l [<!ENTITY x "y">]>').encode(), None),
        (listing("rival/a").encode(), None),
        (listing("shop/a").encode()[:-3], None),
    ],
)
def test_reads_listings_of_one_form(bench: Bench, said: bytes, names: list[str] | None):
    bench.door.twist = lambda line, answer: (200, [], said)
    run = bench.run("ListObjects", {})
    if names is None:
        assert run.failure.code == "LISTING_UNREADABLE"
    else:
        assert [entry.name for entry in run.result.objects] == names


def test_control_a_declaration_in_utf_16_hides_from_a_search_for_it():
    said = listing("shop/&x;", '<!DOCTYPE l [<!ENTITY x "y">]>').encode("utf-16")
    assert b"<!" not in said
    assert "shop/y" in [field.text for field in ElementTree.fromstring(said).iter()]


def test_shows_no_marks_of_writes(bench: Bench):
    bench.run("PutObject", {"name": new_name(), "text": "x"})
    assert [name for name in bench.names() if name.startswith(".")] == []


@pytest.mark.parametrize(
    "changes", [{"secret_access_key": "guess"}, {"access_key_id": "AKIANOBODY0000000000"}]
)
def test_gets_nothing_with_another_key(bench: Bench, changes: dict[str, str]):
    bench.login("s3-read", **changes)
    assert bench.run("ListObjects", {}).failure.code == "BUCKET_DENIED"


def test_gets_nothing_without_a_signature(bench: Bench):
    bench.door.injection = None
    assert bench.run("GetObject", {"name": "welcome.txt"}).failure.code == "BUCKET_DENIED"


def test_puts_nothing_with_the_key_for_reading(bench: Bench):
    bench.login("s3-read")
    run = bench.run("PutObject", {"name": new_name(), "text": "x"})
    assert (run.failure.code, run.failure.effect) == ("BUCKET_DENIED", "none")


@pytest.mark.parametrize("name", ["../rival/welcome.txt", "a//b", "./welcome.txt", "a\0b", "a\\b"])
def test_takes_no_name_that_leads_elsewhere(bench: Bench, name: str):
    """The contract refuses these before; this is the second look."""
    assert bench.run("GetObject", {"name": name}).failure.code == "NAME_INVALID"
