"""Each form of injection, end to end: real broker, container, proxy and target.

A probing tool (tests/bundles/injection) asks the target, then looks for the secret wherever a tool can: start
frame, variables, arguments of processes, files. It gets what it looks for disguised, so that the request does
not hold it.
"""

from __future__ import annotations

import base64
import os
import secrets
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from sandboxes.engine import Engine
from tests.e2e.caller import Reply, ToolCaller
from tests.e2e.injection_stack import InjectionStack, InjectionThread, give_known_token, open_api
from tests.e2e.stack import Crib
from tests.e2e.test_engines import end_sandboxes, wait_until_resolved
from tests.e2e.test_story import get_call
from tests.parts import without
from tests.parts.crib import CACHE_DIR, wait_until_clean
from tests.parts.nginx import NginxTarget
from tests.parts.stopped import stop
from toolcrib.v1 import broker_pb2

pytestmark = [pytest.mark.engine, pytest.mark.openbao, pytest.mark.postgres, pytest.mark.nginx]

SERVICE = "injection.v1.Injection"
PULL = {
    "repository": "acme/website",
    "head": "agents/faster-checkout",
    "base": "main",
    "title": "Make the checkout faster",
    "body": "It asked **twice**.",
}
NOTE = {"contactId": "C-1002", "text": "Called about the frost."}
DESTINATION = '[[destination]]\nvalue = "acme/website"\nnote = "our own site"\n'


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, engine: Engine, nginx: NginxTarget) -> Iterator[Crib]:
    for part in ("openbao", "postgres"):
        if without(part):
            pytest.skip(f"needs {part}")
    folder = tmp_path_factory.mktemp("injection") / "state"
    with open_api() as api, InjectionThread(folder, CACHE_DIR, engine.base_url, nginx, api) as crib:
        crib.grant(read_grants(crib), destinations=DESTINATION)
        search(crib, "price")  # starts the process that cleans Markdown; it stays
        yield crib


def read_grants(crib: Crib) -> str:
    """Take the bundles' own grants, with their @egress, and one for the probing tool."""
    tools = ", ".join(f'Action::"{method}"' for method in crib.contracts if method.startswith(SERVICE))
    own = (
        '@id("injection") @targets("forms, door, s3, api")\n'
        f'permit (principal == Agent::"refund-desk", action in [{tools}], resource == Environment::"dev");'
    )
    proposed = (file.read_text() for file in sorted(crib.stack.grants_dir.glob("*.cedar")))
    return "\n".join([own, *proposed])


@pytest.fixture
def crib(running: Crib) -> Iterator[Crib]:
    running.rest()
    stack_of(running).tokens.forget()
    yield running
    assert wait_until_clean(running) == {}


def stack_of(crib: Crib) -> InjectionStack:
    assert isinstance(crib.stack, InjectionStack)
    return crib.stack


def call(crib: Crib, method: str, request: Mapping[str, Any], *, subject: str = "", key: str = "") -> Reply:
    profile = crib.stack.profile("refund-desk", subject=subject)
    with ToolCaller(profile, crib.contracts) as agent:
        return agent.call(method, request, key=key)


def search(crib: Crib, words: str) -> Reply:
    return call(crib, "github.v1.GitHub/SearchIssues", {"repository": "acme/website", "words": words})


def probe(crib: Crib, name: str, secret: str, *, subject: str = "", **fields: Any) -> dict[str, Any]:
    """Have the probing tool ask a target and look for a secret; the call must succeed."""
    needle = bytes(byte ^ 0x5A for byte in secret.encode())
    encoded = base64.b64encode(needle).decode()
    reply = call(crib, f"{SERVICE}/{name}", {"needle": encoded, **fields}, subject=subject)
    assert reply.code == "OK", f"{reply.reason}: {reply.message}"
    return {**reply.result, "call_id": reply.call_id}


def check_absent(result: Mapping[str, Any], form: str) -> None:
    """See that the tool had nothing of the secret, and that it looked."""
    assert (result["status"], result["credentials"]) == (200, [form]), result["body"]
    assert (result["places"], result["inAnswer"]) == ([], False)
    assert result["files"] > 3, "the control: it looked through files"


# --- nginx: bearer, basic, header, query --------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "echo"),
    [
        ("Bearer", "authorization: B"),
        ("Basic", "authorization: B"),
        ("Header", "x-api-key: "),
        ("Query", "query: api_"),
    ],
)
def test_adds_what_nginx_wants_and_takes_it_out_of_the_answer(crib: Crib, name: str, echo: str):
    form = name.lower()
    secret = stack_of(crib).wanted[form]
    result = probe(crib, name, secret, target="forms", path=f"/{form}")
    check_absent(result, form)
    assert "[redacted]" in result["body"].partition(echo)[2]


@pytest.mark.parametrize("path", ["/bearer", "/basic", "/header", "/query"])
def test_control_nginx_refuses_who_sends_nothing(crib: Crib, path: str):
    assert probe(crib, "Plain", "", target="forms", path=path)["status"] == 401


@pytest.mark.parametrize(("name", "path"), [("Bearer", "/bearer"), ("Basic", "/basic")])
def test_drops_the_tools_own_login(crib: Crib, name: str, path: str):
    own = {"Authorization": "Bearer the-tools-own-token", "Cookie": "session=the-tools-own"}
    result = probe(crib, name, "", target="forms", path=path, headers=own)
    assert (result["status"], "the-tools-own" in result["body"]) == (200, False)


def test_records_what_was_added_and_what_was_taken_out(crib: Crib):
    result = probe(crib, "Bearer", "", target="forms", path="/bearer")
    (connection,) = get_call(crib, result["call_id"]).connections
    assert (connection.target, connection.method, connection.status) == ("forms", "GET", 200)
    assert (connection.injected, connection.stripped > 0) == ("bearer", True)


def test_control_a_secret_that_the_tool_gets_is_found_in_its_frame(crib: Crib):
    result = probe(crib, "Given", stack_of(crib).wanted["bearer"])
    assert (result["credentials"], result["places"]) == (["KeyValues"], ["start frame"])


def test_control_the_search_finds_what_is_in_a_file_or_a_variable(crib: Crib):
    places = probe(crib, "Plain", secrets.token_urlsafe(24), plant=True)["places"]
    assert places == ["variable PLANTED", "file /tmp/planted"]


# --- nginx: client certificate ------------------------------------------------------------------------------
def test_shows_a_client_certificate_whose_key_the_tool_never_had(crib: Crib):
    result = probe(crib, "Certificate", "PRIVATE KEY-----", target="door", path="/whoami")
    check_absent(result, "client_certificate")
    assert result["body"] == "CN=injection-client.tools.test"


def test_control_nginx_refuses_who_shows_no_certificate(crib: Crib):
    assert probe(crib, "Plain", "", target="door", path="/whoami")["status"] == 400


# --- moto: SigV4 --------------------------------------------------------------------------------------------
OBJECT = "/tenant-objects/shop/welcome.txt"


def test_signs_requests_with_a_key_that_the_tool_never_had(crib: Crib):
    secret = crib.stack.targets.secrets["s3-read"]["secret_access_key"]
    result = probe(crib, "Signed", secret, target="s3", path=OBJECT)
    check_absent(result, "sigv4")
    assert result["body"] == "Welcome to this bucket.\n"


def test_control_moto_refuses_what_nobody_signed(crib: Crib):
    assert probe(crib, "Plain", "", target="s3", path=OBJECT)["status"] == 403


# --- an authorization server: client credentials, token exchange --------------------------------------------
def test_gets_a_token_for_the_tools_own_client(crib: Crib):
    token = secrets.token_urlsafe(32)
    give_known_token(stack_of(crib).tokens, token)
    result = probe(crib, "Application", token, target="api", path="/echo")
    check_absent(result, "bearer")
    assert '"Bearer [redacted]"' in result["body"]
    assert '"client_id": "injection-app"' in result["body"]


def test_exchanges_a_token_for_the_calls_subject(crib: Crib):
    token = secrets.token_urlsafe(32)
    give_known_token(stack_of(crib).tokens, token)
    result = probe(crib, "OnBehalf", token, subject="maria", target="api", path="/echo")
    check_absent(result, "bearer")
    assert '"sub": "maria"' in result["body"]
    assert '"act": {"sub": "refund-desk"}' in result["body"]


def test_exchanges_nothing_on_nobodys_behalf(crib: Crib):
    reply = call(crib, f"{SERVICE}/OnBehalf", {"target": "api", "path": "/echo"})
    assert reply.reason == "CREDENTIALS_UNAVAILABLE"
    assert stack_of(crib).tokens.asked == []


def test_control_the_api_refuses_who_has_no_token(crib: Crib):
    assert probe(crib, "Plain", "", target="api", path="/echo")["status"] == 401


# --- the bundles that come with Toolcrib, with their own grants ---------------------------------------------
def test_searches_issues_and_opens_one_pull_request_for_a_key(crib: Crib):
    found = search(crib, "checkout").result["issues"]
    assert [issue["title"] for issue in found] == ["Checkout is slow"]
    key = secrets.token_hex(8)
    replies = [call(crib, "github.v1.GitHub/OpenDraftPullRequest", PULL, key=key) for _ in range(2)]
    assert [(reply.code, reply.replayed) for reply in replies] == [("OK", False), ("OK", True)]
    assert replies[0].result["number"] == replies[1].result["number"]


def test_gives_each_user_their_own_contacts(crib: Crib):
    found = {}
    for subject in ("maria", "tom"):
        reply = call(crib, "crm.v1.Crm/FindContacts", {}, subject=subject)
        found[subject] = [contact["contactId"] for contact in reply.result["contacts"]]
    assert found == {"maria": ["C-1001", "C-1002"], "tom": ["C-2001"]}


def test_adds_no_note_to_another_users_contact(crib: Crib):
    note = {"contactId": "C-2001", "text": "Called."}
    reply = call(crib, "crm.v1.Crm/AddNote", note, subject="maria", key=secrets.token_hex(8))
    assert reply.details["tool_code"] == "CONTACT_UNKNOWN"
    reply = call(crib, "crm.v1.Crm/AddNote", note, subject="tom", key=secrets.token_hex(8))
    assert reply.code == "OK"


def add_note(crib: Crib) -> int:
    """Add a note; its number, by which notes are counted."""
    reply = call(crib, "crm.v1.Crm/AddNote", NOTE, subject="maria", key=secrets.token_hex(8))
    return int(reply.result["noteId"].removeprefix("N-"))


def strand(crib: Crib, target: str, method: str, request: Mapping[str, Any], subject: str = "") -> Reply:
    """Begin a write whose target stalls, and kill its sandbox once the request lies before the target."""
    process = crib.stack.targets.find_process(target)
    stack_of(crib).at_start = lambda: stop(process)
    profile = crib.stack.profile("refund-desk", subject=subject)
    try:
        with ToolCaller(profile, crib.contracts) as agent:
            future = agent.start(method, request, key=secrets.token_hex(8), timeout=60)
            wait_for_bytes(crib.stack.targets.targets[target].port)
            crib.run(end_sandboxes(crib))
            return agent.finish(method, future)
    finally:
        os.kill(process, signal.SIGCONT)


def wait_for_bytes(port: int) -> None:
    """Wait until bytes lie before a stopped server that it has not read (proc(5): net/tcp)."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            _, local, _, state, queues, *_ = line.split()
            ends = int(local.split(":")[1], 16), int(queues.split(":")[1], 16)
            if state == "01" and ends[0] == port and ends[1] > 0:
                return
        time.sleep(0.02)
    pytest.fail("nothing came to the target")


def test_sends_a_note_in_doubt_again_and_adds_it_once(crib: Crib):
    before = add_note(crib)
    reply = strand(crib, "crm", "crm.v1.Crm/AddNote", NOTE, subject="maria")
    assert reply.reason == "IN_DOUBT"
    assert wait_until_resolved(crib, reply.call_id).state == broker_pb2.SUCCEEDED
    assert add_note(crib) == before + 2


def test_finds_out_that_an_object_in_doubt_was_not_put(crib: Crib):
    name = f"made/{secrets.token_hex(8)}.txt"
    reply = strand(crib, "s3", "s3.v1.Objects/PutObject", {"name": name, "text": "hello"})
    assert reply.reason == "IN_DOUBT"
    assert wait_until_resolved(crib, reply.call_id).state == broker_pb2.FAILED


def test_puts_an_object_and_reads_it_again(crib: Crib):
    name = f"made/{secrets.token_hex(8)}.txt"
    put = {"name": name, "text": "hello"}
    assert call(crib, "s3.v1.Objects/PutObject", put, key=secrets.token_hex(8)).code == "OK"
    assert call(crib, "s3.v1.Objects/GetObject", {"name": name}).result["text"] == "hello"
    names = call(crib, "s3.v1.Objects/ListObjects", {"prefix": "made/"}).result["objects"]
    assert name in [entry["name"] for entry in names]
