"""Each secrets engine end to end: a call through broker and container to a real target, and what stays of it.

The database engine has tests of its own (test_story.py and others); LDAP is in tests/ldap.
"""

from __future__ import annotations

import asyncio
import base64
import socket
import ssl
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from sandboxes.engine import Engine
from tests.e2e.engine_stack import REPORTS, EngineStack, EngineThread
from tests.e2e.stack import Crib
from tests.e2e.test_story import get_call
from tests.parts import REAL_PARTS, without
from tests.parts.crib import CACHE_DIR, wait_until_clean
from tests.parts.nginx import NAME, NginxTarget
from tests.parts.sshd import SshdTarget
from toolcrib.v1 import broker_pb2

pytestmark = [
    pytest.mark.engine,
    pytest.mark.openbao,
    pytest.mark.postgres,
    pytest.mark.nginx,
    pytest.mark.sshd,
]

GRANTS = """
@id("engines") @targets("quotes, portal, thief, orders-db, notes")
permit (
    principal == Agent::"refund-desk",
    action in [
        Action::"engines.v1.Engines/Quote", Action::"engines.v1.Engines/WhoAmI",
        Action::"engines.v1.Engines/Sign", Action::"engines.v1.Engines/Report",
        Action::"git.v1.Branches/ListBranches", Action::"git.v1.Branches/PushBranch"
    ],
    resource == Environment::"dev"
);
"""
PUSH = {
    "repository": "notes",
    "branch": "agents/first",
    "base": "main",
    "files": [{"path": "README.md", "content": "# Notes\n"}],
    "message": "Say what it is",
}


@pytest.fixture(scope="module")
def running(
    tmp_path_factory: pytest.TempPathFactory, engine: Engine, nginx: NginxTarget, running_sshd: SshdTarget
) -> Iterator[Crib]:
    for part in ("openbao", "postgres"):
        if without(part):
            pytest.skip(f"needs {part}")
    folder = tmp_path_factory.mktemp("engines") / "state"
    with EngineThread(folder, CACHE_DIR, engine.base_url, nginx, running_sshd) as crib:
        REAL_PARTS.append(f"OpenBao {crib.stack.vault.version}, PostgreSQL {crib.stack.postgres.version}")
        crib.grant(GRANTS)
        yield crib


@pytest.fixture
def crib(running: Crib, sshd: SshdTarget) -> Iterator[Crib]:
    running.rest()
    yield running
    assert wait_until_clean(running) == {}


def stack_of(crib: Crib) -> EngineStack:
    assert isinstance(crib.stack, EngineStack)
    return crib.stack


def call(crib: Crib, method: str, arguments: Mapping[str, Any] | None = None, **options: Any) -> Any:
    """Call a tool that must succeed; the result, and the call's record once its leases are dead."""
    with crib.caller() as agent:
        reply = agent.call(method, arguments or {}, **options)
    assert reply.code == "OK", f"{reply.reason}: {reply.message}"
    return reply.result, wait_until_dead(crib, reply.call_id)


def wait_until_dead(crib: Crib, call_id: str) -> broker_pb2.Call:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        record = get_call(crib, call_id)
        if all(lease.HasField("confirmed_dead") for lease in record.leases):
            return record
        time.sleep(0.05)
    pytest.fail(f"the end of its leases is not confirmed: {record.leases}")


# --- kv ----------------------------------------------------------------------------------------------------
def test_asks_a_server_with_an_api_key_from_kv(crib: Crib):
    result, record = call(crib, "engines.v1.Engines/Quote")
    assert result == {"text": "Measure twice, cut once."}
    assert [(lease.engine, lease.role) for lease in record.leases] == [("kv", "engines-api-key")]


# --- pki ---------------------------------------------------------------------------------------------------
def knock(nginx: NginxTarget, folder: Path, captured: Mapping[str, str]) -> str:
    """Ask nginx with a captured certificate from outside: its status line."""
    file = folder / "captured.pem"
    file.write_text(captured["certificate_pem"] + captured["private_key_pem"])
    context = ssl.create_default_context(cadata=nginx.ca_pem)
    context.load_cert_chain(file)
    with socket.create_connection(("127.0.0.1", nginx.port), timeout=10) as door:
        with context.wrap_socket(door, server_hostname=NAME) as stream:
            stream.sendall(f"GET /whoami HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\n\r\n".encode())
            return b"".join(iter(lambda: stream.recv(4096), b"")).decode().partition("\r\n")[0]


def test_shows_a_server_a_certificate_of_its_own(crib: Crib):
    result, record = call(crib, "engines.v1.Engines/WhoAmI")
    assert result == {"name": "CN=engines-client.tools.test"}
    assert (record.leases[0].engine, record.leases[0].role) == ("pki", "engines-client")


def test_a_captured_certificate_is_refused_once_the_target_reads_the_list(crib: Crib, tmp_path: Path):
    stack = stack_of(crib)
    call(crib, "engines.v1.Engines/WhoAmI", {"betray": True})
    captured = stack.thief.take()
    # Vault has put it on its list by now. The target has to read that: until then it knows of nothing.
    assert knock(stack.nginx, tmp_path, captured) == "HTTP/1.1 200 OK"
    stack.read_lists()
    assert knock(stack.nginx, tmp_path, captured) == "HTTP/1.1 400 Bad Request"


def test_the_target_still_serves_the_next_call_after_it_read_the_list(crib: Crib):
    call(crib, "engines.v1.Engines/WhoAmI")
    stack_of(crib).read_lists()
    assert call(crib, "engines.v1.Engines/WhoAmI")[0] == {"name": "CN=engines-client.tools.test"}


# --- ssh ---------------------------------------------------------------------------------------------------
def test_pushes_a_branch_with_a_certificate_of_its_own(crib: Crib, sshd: SshdTarget):
    result, record = call(crib, "git.v1.Branches/PushBranch", PUSH, key=uuid.uuid4().hex)
    assert result["commit"] == sshd.git("notes", "rev-parse", "agents/first")
    assert sshd.git("notes", "show", "agents/first:README.md") == "# Notes"
    lease = record.leases[0]
    assert (lease.username, lease.engine, lease.role) == ("git", "ssh", "git-notes-push")


def test_names_the_call_in_the_targets_log(crib: Crib, sshd: SshdTarget):
    _, record = call(crib, "git.v1.Branches/ListBranches", {"repository": "notes"})
    accepted = [line for line in sshd.log.splitlines() if "Accepted publickey for git" in line]
    assert record.call_id in accepted[-1]


def test_pushes_once_for_a_key(crib: Crib, sshd: SshdTarget):
    key = uuid.uuid4().hex
    first, _ = call(crib, "git.v1.Branches/PushBranch", PUSH, key=key)
    again, _ = call(crib, "git.v1.Branches/PushBranch", PUSH, key=key)
    assert again == first
    assert sshd.git("notes", "rev-list", "--count", "main..agents/first") == "1"


def test_finds_out_about_a_push_in_doubt(crib: Crib, sshd: SshdTarget):
    with sshd.held_answers() as held, crib.caller() as agent:
        future = agent.start("git.v1.Branches/PushBranch", PUSH, key=uuid.uuid4().hex, timeout=90)
        while not held.exists():
            time.sleep(0.05)
        crib.run(end_sandboxes(crib))
        reply = agent.finish("git.v1.Branches/PushBranch", future)
    assert reply.reason == "IN_DOUBT"
    record = wait_until_resolved(crib, reply.call_id)
    assert record.state == broker_pb2.SUCCEEDED


async def end_sandboxes(crib: Crib) -> None:
    driver = crib.stack.broker.fleet
    for container in await driver.leftovers():
        await driver.end_container(container)


def wait_until_resolved(crib: Crib, call_id: str) -> broker_pb2.Call:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        record = get_call(crib, call_id)
        if record.state != broker_pb2.IN_DOUBT:
            return record
        time.sleep(0.2)
    pytest.fail("the call stayed in doubt")


# --- transit -----------------------------------------------------------------------------------------------
def test_gets_signatures_of_a_key_that_stays_in_vault(crib: Crib):
    result, _ = call(crib, "engines.v1.Engines/Sign", {"texts": ["invoice 1", "invoice 2"]})
    key = load_pem_public_key(result["publicKeyPem"].encode())
    assert isinstance(key, Ed25519PublicKey)
    one, two = (base64.b64decode(signature) for signature in result["signatures"])
    key.verify(one, b"invoice 1")
    key.verify(two, b"invoice 2")
    with pytest.raises(InvalidSignature):
        key.verify(one, b"invoice 2")


def test_signs_no_oftener_than_the_manifest_says(crib: Crib):
    result, _ = call(crib, "engines.v1.Engines/Sign", {"texts": ["one", "two", "three"]})
    assert len(result["signatures"]) == 2
    assert "its manifest allows 2" in result["refusal"]


# --- database_static ---------------------------------------------------------------------------------------
def log_in(crib: Crib, captured: Mapping[str, str]) -> str:
    postgres = crib.stack.postgres

    async def connect() -> str:
        connection = await asyncpg.connect(
            host=postgres.host,
            port=postgres.port,
            database=postgres.database,
            user=captured["username"],
            password=captured["password"],
            ssl=False,
        )
        await connection.close()
        return "let in"

    try:
        return asyncio.run(connect())
    except asyncpg.InvalidPasswordError:
        return "refused"


def test_logs_in_as_the_one_login_that_stays(crib: Crib):
    assert call(crib, "engines.v1.Engines/Report")[0] == {"username": REPORTS}
    assert call(crib, "engines.v1.Engines/Report")[0] == {"username": REPORTS}


def test_a_captured_password_is_refused_after_the_call(crib: Crib):
    call(crib, "engines.v1.Engines/Report", {"betray": True})
    assert log_in(crib, stack_of(crib).thief.take()) == "refused"


def test_control_the_password_is_good_while_nobody_changes_it(crib: Crib):
    current = crib.stack.vault.read("database/static-creds/engines-reports")["data"]
    assert log_in(crib, current) == "let in"
