"""The crm bundle's handler on its local CRM with tokens of its authorization server."""

from __future__ import annotations

import base64
import json
import runpy
import socket
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest

from credentials.injection import Form, Injection
from tests.parts.handlers import load_handler
from tests.parts.issuer import Mint
from tests.tools.bundles.door import BUNDLES, Door, Said, read_rules, serve
from toolcrib.handler import Handler, testing

CRM = BUNDLES / "crm"
NOTE = {"contact_id": "C-1001", "text": "Called about the lamp."}
KEY = "ab" * 32


class Bench(NamedTuple):
    """The handler, its messages, the way out, and the server behind it."""

    handler: Handler
    messages: ModuleType
    door: Door
    office: Any
    mint: Mint
    url: str

    def login(self, subject: str, client: str = "crm-read") -> None:
        """Inject a token of this subject from now on."""
        token = self.exchange(self.assertion(subject), client)[1]["access_token"]
        self.door.injection = Injection("crm", Form.BEARER, {"token": token})

    def assertion(self, subject: str, **changes: Any) -> str:
        claims = {"aud": self.url, "sub": subject, "tenant": "test", "jti": uuid.uuid4().hex, **changes}
        return self.mint.sign(self.mint.claims(time.time(), **claims))

    def exchange(self, assertion: str, client: str, secret: str = "s3cret") -> tuple[int, dict[str, Any]]:
        form = {
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "subject_token": assertion,
            "audience": "https://crm.example",
            "scope": {"crm-read": "contacts.read"}.get(client, "notes.write"),
        }
        pair = base64.b64encode(f"{client}:{secret}".encode()).decode()
        headers = {"Authorization": f"Basic {pair}"}
        request = urllib.request.Request(self.url, urllib.parse.urlencode(form).encode(), headers)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.loads(error.read())

    def run(self, name: str, fields: dict[str, Any], key: str = KEY) -> Any:
        request = getattr(self.messages, f"{name}Request")(**fields)
        targets = {"crm": self.door.target()}
        return testing.run(self.handler, f"crm.v1.Crm/{name}", request, targets=targets, idempotency_key=key)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Handler, ModuleType]]:
    with load_handler(CRM, tmp_path_factory.mktemp("crm"), "crm.v1.crm_pb2") as found:
        yield found


@pytest.fixture
def bench(loaded: tuple[Handler, ModuleType], tmp_path: Path) -> Iterator[Bench]:
    program = runpy.run_path(str(CRM / "dev" / "server.py"))
    mint = Mint("https://toolcrib.example")
    (tmp_path / "jwks.json").write_text(json.dumps(mint.key_set()))
    clients = {"crm-read": "s3cret", "crm-write": "s3cret"}
    office = program["Office"](clients, ["test"], tmp_path / "jwks.json")
    server = program["CrmServer"](office, socket.create_server(("127.0.0.1", 0)))
    with serve(server) as port:
        with serve(door := Door(port, "http://crm.example", read_rules("crm", "crm"))):
            yield Bench(*loaded, door, office, mint, f"http://127.0.0.1:{port}/oauth2/token")
    assert door.refused == [], "the handler asks what its manifest does not allow"


def test_finds_the_contacts_of_its_user_alone(bench: Bench):
    found = {}
    for subject in ("maria", "tom"):
        bench.login(subject)
        found[subject] = [contact.contact_id for contact in bench.run("FindContacts", {}).result.contacts]
    assert found == {"maria": ["C-1001", "C-1002"], "tom": ["C-2001"]}


def test_says_that_there_are_more(bench: Bench):
    bench.login("maria")
    found = bench.run("FindContacts", {"text": "e", "limit": 1}).result
    assert (len(found.contacts), found.more) == (1, True)


def test_gets_nothing_without_a_token(bench: Bench):
    run = bench.run("FindContacts", {})
    assert (run.failure.code, run.failure.effect) == ("CRM_DENIED", "none")


def test_adds_a_note_once_for_a_key(bench: Bench):
    bench.login("maria", "crm-write")
    runs = [bench.run("AddNote", NOTE) for _ in range(3)]
    assert {run.result.note_id for run in runs} == {"N-1"}
    assert [note["author"] for note in bench.office.notes] == ["maria"]


def test_does_not_know_when_the_answer_is_lost_and_sends_it_again(bench: Bench):
    bench.login("maria", "crm-write")
    bench.door.lose = "POST"
    run = bench.run("AddNote", NOTE)
    assert (run.failure.code, run.failure.effect) == ("NOTE_UNKNOWN", "unknown")
    assert bench.run("AddNote", NOTE).result.note_id == "N-1"
    assert len(bench.office.notes) == 1


def test_adds_no_note_to_somebody_elses_contact(bench: Bench):
    bench.login("maria", "crm-write")
    run = bench.run("AddNote", NOTE | {"contact_id": "C-2001"})
    assert (run.failure.code, run.failure.effect, bench.office.notes) == ("CONTACT_UNKNOWN", "none", [])


def test_refuses_a_key_that_holds_another_note(bench: Bench):
    bench.login("maria", "crm-write")
    bench.run("AddNote", NOTE)
    run = bench.run("AddNote", NOTE | {"text": "Something else."})
    assert (run.failure.code, run.failure.effect) == ("KEY_TAKEN", "none")


@pytest.mark.parametrize(
    ("status", "code", "effect"),
    [
        (202, "NOTE_UNKNOWN", "unknown"),
        (204, "NOTE_UNKNOWN", "unknown"),
        (408, "NOTE_UNKNOWN", "unknown"),
        (409, "NOTE_UNKNOWN", "unknown"),
        (503, "NOTE_UNKNOWN", "unknown"),
        (302, "NOTE_REFUSED", "none"),
        (413, "NOTE_REFUSED", "none"),
        (422, "KEY_TAKEN", "none"),
    ],
)
def test_says_no_only_where_the_crm_does(bench: Bench, status: int, code: str, effect: str):
    bench.login("maria", "crm-write")

    def twist(line: str, said: Said) -> Said:
        return status, [("Location", "http://elsewhere.example/v1")], b"{}"

    bench.door.twist = twist
    run = bench.run("AddNote", NOTE)
    assert (run.failure.code, run.failure.effect) == (code, effect)


@pytest.mark.parametrize("body", [b"", b"[]", b'{"id": 7}', b'{"id": "N-1", "id": "../x"}', b"9" * 9_999])
def test_does_not_know_when_the_new_notes_id_cannot_be_read(bench: Bench, body: bytes):
    bench.login("maria", "crm-write")
    bench.door.twist = lambda line, said: (201, [], body)
    run = bench.run("AddNote", NOTE)
    assert (run.failure.code, run.failure.effect) == ("NOTE_UNKNOWN", "unknown")


def test_takes_no_part_of_an_answer_for_the_whole(bench: Bench):
    bench.login("maria")
    bench.door.cut = "GET"
    assert bench.run("FindContacts", {}).failure.code == "CRM_UNAVAILABLE"


def test_goes_where_no_redirect_leads(bench: Bench):
    """Control: a client that follows one would ask for it, at the same way out."""
    bench.login("maria")
    bench.door.twist = lambda line, said: (302, [("Location", "/v1/contacts?text=all&limit=1")], b"")
    assert bench.run("FindContacts", {}).failure.code == "ANSWER_UNREADABLE"
    assert len(bench.door.asked) == 1
    with pytest.raises(urllib.error.HTTPError):  # round and round
        urllib.request.urlopen(bench.door.target().origins[0] + "/v1/contacts?text=me&limit=1")
    assert len(bench.door.asked) > 2


def test_writes_nothing_with_a_token_for_reading(bench: Bench):
    bench.login("maria", "crm-read")
    assert bench.run("AddNote", NOTE).failure.code == "CRM_DENIED"
    assert bench.office.notes == []


# --- the local authorization server ------------------------------------------------------------------------
@pytest.mark.parametrize(
    "changes",
    [
        {"sub": "mallory"},
        {"tenant": "rival"},
        {"aud": "https://elsewhere.example/token"},
        {"iss": "https://elsewhere.example"},
        {"exp": 1},
        {"jti": None},
    ],
)
def test_the_server_takes_no_assertion_that_is_not_right(bench: Bench, changes: dict[str, Any]):
    assertion = bench.assertion(changes.pop("sub", "maria"), **changes)
    assert bench.exchange(assertion, "crm-read") == (400, {"error": "invalid_grant"})


def test_the_server_takes_an_assertion_once(bench: Bench):
    assertion = bench.assertion("maria")
    assert [bench.exchange(assertion, "crm-read")[0] for _ in range(2)] == [200, 400]


def test_the_server_takes_no_assertion_of_another_key(bench: Bench):
    bench.mint.rotate("k1", "k1")
    assert bench.exchange(bench.assertion("maria"), "crm-read")[0] == 400


def test_the_server_wants_the_clients_secret(bench: Bench):
    assert bench.exchange(bench.assertion("maria"), "crm-read", "guess")[0] == 401
