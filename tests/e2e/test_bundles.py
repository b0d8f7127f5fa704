"""The bundles that come with Toolcrib, over a whole broker, real sandboxes and their own real targets."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest

from broker.dev import ALL_BUNDLES, DevOptions
from sandboxes.engine import Engine
from tests.e2e.caller import Reply
from tests.e2e.stack import Crib, CribThread
from tests.e2e.test_story import get_call
from tests.parts import without
from tests.parts.crib import CACHE_DIR, wait_until_clean
from toolcrib.v1 import broker_pb2, broker_pb2_grpc

pytestmark = [pytest.mark.engine, pytest.mark.openbao, pytest.mark.postgres]

PAGES = "http://pages.example"
DESTINATIONS = (
    *(
        f"{PAGES}/{name}"
        for name in (
            *("offers.html", "readme.md", "prices.json", "plain.txt"),
            *("moved", "chunked", "packed", "flood", "gone.txt"),
        )
    ),
    "http://elsewhere.example/offers.html",
    "ann@customer.example",
)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, engine: Engine) -> Iterator[Crib]:
    for part in ("openbao", "postgres"):
        if without(part):
            pytest.skip(f"needs {part}")
    bundles = tuple(folder for folder in ALL_BUNDLES if folder.name != "shop")
    options = DevOptions(bundles=bundles, tenants=("shop", "rival"), engine_url=engine.base_url)
    with CribThread(tmp_path_factory.mktemp("bundles") / "state", CACHE_DIR, options) as crib:
        listed = "".join(f'[[destination]]\nvalue = "{value}"\nnote = "test"\n' for value in DESTINATIONS)
        for tenant in ("shop", "rival"):
            crib.grant(allow_all(crib), tenant=tenant, destinations=listed)
        fetch(crib, "Page", "offers.html")  # starts the process that cleans pages; it stays
        yield crib


def allow_all(crib: Crib) -> str:
    """Write a grant for every tool of the bundles."""
    tools = ", ".join(f'Action::"{method}"' for method in crib.contracts)
    targets = ", ".join(crib.stack.targets.targets)
    return (
        f'@id("bundles") @targets("{targets}")\n'
        f'permit (principal == Agent::"refund-desk", action in [{tools}], resource == Environment::"dev");'
    )


@pytest.fixture
def crib(running: Crib) -> Iterator[Crib]:
    running.rest()
    yield running
    assert wait_until_clean(running) == {}


def call(crib: Crib, method: str, request: dict[str, Any], *, key: str = "", tenant: str = "shop") -> Reply:
    with crib.caller(tenant=tenant) as agent:
        return agent.call(method, request, key=key)


# --- web -------------------------------------------------------------------------------------------------
def fetch(crib: Crib, kind: str, path: str) -> Reply:
    return call(crib, f"web.v1.Web/Fetch{kind}", {"url": f"{PAGES}/{path}"})


def test_gives_a_page_without_what_a_reader_does_not_see(crib: Crib):
    reply = fetch(crib, "Page", "offers.html")
    assert (reply.result["title"], reply.result["answer"]["status"]) == ("Offers & prices", 200)
    assert "A kettle for 29.90 EUR" in reply.result["body"]
    assert "Sale ends on Friday." in reply.result["body"]
    for hidden in ("Assistant", "mallory", "steal", "script"):
        assert hidden not in reply.result["body"]
    served = (ALL_BUNDLES[1] / "dev" / "pages" / "offers.html").read_text()
    assert "mallory" in served, "the control: it is in what the site served"


def test_gives_each_kind_of_document(crib: Crib):
    assert "a<b && c>d" in fetch(crib, "Text", "plain.txt").result["body"]
    assert "tracker.example" not in fetch(crib, "Markdown", "readme.md").result["body"]
    assert '"kettle"' in fetch(crib, "Json", "prices.json").result["body"]
    assert fetch(crib, "Page", "prices.json").details["tool_code"] == "MEDIA_TYPE_OTHER"


def test_follows_no_redirect_and_unpacks_nothing(crib: Crib):
    moved = fetch(crib, "Page", "moved").result
    assert (moved["answer"]["status"], moved["answer"]["location"], moved["body"]) == (
        302,
        "http://elsewhere.example/offers.html",
        "",
    )
    assert fetch(crib, "Text", "packed").details["tool_code"] == "PAGE_UNAVAILABLE"


def test_reads_chunks_and_caps_floods(crib: Crib):
    assert fetch(crib, "Text", "chunked").result["body"] == "in three parts"
    flood = fetch(crib, "Text", "flood").result
    assert (len(flood["body"]), flood["answer"]["isCut"]) == (256 * 1024, True)


def test_reaches_no_site_that_was_not_declared(crib: Crib):
    reply = call(crib, "web.v1.Web/FetchText", {"url": "http://elsewhere.example/offers.html"})
    assert reply.details["tool_code"] == "SITE_UNKNOWN"


@pytest.mark.parametrize(
    "url",
    [
        f"{PAGES}/a\r\nX-Injected: 1",
        f"{PAGES}/a b",
        "http://user@pages.example/",
        "https://pages.example/",
        "file:///etc/passwd",
        f"{PAGES}/\u202e",
    ],
)
def test_refuses_an_url_that_could_become_more(crib: Crib, url: str):
    assert call(crib, "web.v1.Web/FetchText", {"url": url}).code == "INVALID_ARGUMENT"


# --- files -----------------------------------------------------------------------------------------------
def folder_of(crib: Crib, tenant: str = "shop") -> Path:
    return crib.stack.targets.targets["files-store"].folder / "files" / tenant


def write(crib: Crib, path: str, text: str, *, if_match: str = "", key: str = "") -> Reply:
    request = {"path": path, "text": text, "ifMatch": if_match}
    return call(crib, "files.v1.Files/WriteFile", request, key=key or secrets.token_hex(8))


def read(crib: Crib, path: str, tenant: str = "shop") -> tuple[Reply, bytes]:
    reply = call(crib, "files.v1.Files/ReadFile", {"path": path}, tenant=tenant)
    if reply.code != "OK":
        return reply, b""
    request = broker_pb2.GetArtefactRequest(call_id=reply.call_id, name=reply.result["artefact"])
    with crib.profile("refund-desk", tenant=tenant).connect() as channel:
        return reply, broker_pb2_grpc.BrokerStub(channel).GetArtefact(request).content


def test_writes_a_file_and_gives_it_back_as_an_artefact(crib: Crib):
    written = write(crib, "new/of today/note.txt", "first")
    reply, content = read(crib, "new/of today/note.txt")
    assert (written.code, content) == ("OK", b"first"), written
    assert reply.result["sha256"] == written.result["sha256"] == hashlib.sha256(b"first").hexdigest()
    listed = call(crib, "files.v1.Files/ListFolder", {"path": "new/of today"}).result["entries"]
    assert [(entry["name"], entry["sizeBytes"]) for entry in listed] == [("note.txt", "5")]


def test_writes_over_nothing_but_what_was_read(crib: Crib):
    first = write(crib, "kept.txt", "first").result["sha256"]
    assert write(crib, "kept.txt", "second").details["tool_code"] == "FILE_EXISTS"
    assert write(crib, "kept.txt", "second", if_match="0" * 64).details["tool_code"] == "FILE_CHANGED"
    assert write(crib, "kept.txt", "second", if_match=first).code == "OK"
    assert read(crib, "kept.txt")[1] == b"second"


def test_keeps_tenants_apart(crib: Crib):
    write(crib, "ours.txt", "ours")
    assert read(crib, "ours.txt", tenant="rival")[0].details["tool_code"] == "FILE_UNKNOWN"
    names = call(crib, "files.v1.Files/ListFolder", {"path": ""}).result["entries"]
    assert {"name": "ours.txt", "isFolder": False, "sizeBytes": "4"} in names
    assert not [entry for entry in names if entry["name"].startswith(".")]


@pytest.mark.parametrize(
    "path", ["../rival/welcome.txt", "/etc/passwd", "%2e%2e/rival/welcome.txt", "a\0b", ".toolcrib/x", "a//b"]
)
def test_refuses_a_path_that_leads_elsewhere(crib: Crib, path: str):
    assert read(crib, path)[0].code == "INVALID_ARGUMENT"


def test_follows_no_link_of_the_folder(crib: Crib):
    (folder_of(crib) / "link.txt").symlink_to(folder_of(crib, "rival") / "welcome.txt")
    (folder_of(crib) / "away").symlink_to(folder_of(crib, "rival"))
    found = [read(crib, path)[0].details["tool_code"] for path in ("link.txt", "away/welcome.txt")]
    assert set(found) <= {"STORE_DENIED", "FILE_UNKNOWN"}


# --- notes -----------------------------------------------------------------------------------------------
NOTE = {"to": "ann@customer.example", "subject": "Your lämp is shipped", "body": "Dear Ann,\n.\nit left.\n"}


def mailbox(crib: Crib) -> list[EmailMessage]:
    folder = crib.stack.targets.targets["notes-mail"].folder / "mail"
    return [message_from_bytes(file.read_bytes(), policy=policy.default) for file in folder.glob("*.eml")]


def test_drafts_a_note_once_however_often_it_is_sent(crib: Crib):
    key = secrets.token_hex(8)
    replies = [call(crib, "notes.v1.Notes/DraftNote", NOTE, key=key) for _ in range(3)]
    assert [(reply.code, reply.replayed) for reply in replies] == [("OK", False), ("OK", True), ("OK", True)]
    (note,) = (item for item in mailbox(crib) if item["X-Toolcrib-Call"] == replies[0].call_id)
    assert (note["To"], note["Subject"], note["X-Recipients"]) == (
        NOTE["to"],
        NOTE["subject"],
        "drafts@shop.example",
    )
    assert note.get_content().splitlines() == NOTE["body"].splitlines()
    assert note["Message-ID"] == replies[0].result["messageId"]


def test_lets_nothing_become_a_header_of_a_note(crib: Crib):
    for change in (
        {"subject": "Hello\r\nBcc: mallory@evil.example"},
        {"to": "ann@customer.example\nBcc: mallory@evil.example"},
        {"to": "ann@customer.example, mallory@evil.example"},
    ):
        reply = call(crib, "notes.v1.Notes/DraftNote", NOTE | change, key=secrets.token_hex(8))
        assert reply.code == "INVALID_ARGUMENT"


def test_drafts_nothing_for_an_address_that_nobody_listed(crib: Crib):
    request = NOTE | {"to": "mallory@evil.example"}
    reply = call(crib, "notes.v1.Notes/DraftNote", request, key=secrets.token_hex(8))
    assert reply.code != "OK"
    assert [note for note in mailbox(crib) if note["To"] == "mallory@evil.example"] == []


# --- shell -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("text", ["", "if a<b && c>d", "$(id) `id` ; exit 1\n\n", "ünï\u0000cödé " * 300])
def test_answers_from_a_shell_script(crib: Crib, text: str):
    for algorithm, name in (("ALGORITHM_SHA256", "sha256"), ("ALGORITHM_SHA512", "sha512")):
        request = {"text": text, "algorithm": algorithm}
        reply = call(crib, "shell.v1.Checksum/SumText", request)
        size = len(text.encode())
        assert reply.result == {
            "checksum": hashlib.new(name, text.encode()).hexdigest(),
            "sizeBytes": size,
        }
        assert get_call(crib, reply.call_id).tool_log == ""
