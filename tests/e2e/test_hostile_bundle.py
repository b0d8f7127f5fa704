"""A bundle that attacks whoever runs it: nothing is got, the record says why, and no answer names a secret.

A whole broker, real containers, a login that is minted for each call. What reads, opens or fills something is
run once more without a sandbox, where it succeeds: the control.
"""

from __future__ import annotations

import base64
import importlib.util
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from broker.dev import DevOptions
from credentials.lease import Lease, UsernamePassword
from sandboxes.engine import Engine
from tests.e2e.caller import Reply
from tests.e2e.stack import ROOT, Crib, CribThread
from tests.e2e.test_story import get_call
from tests.parts import without
from tests.parts.crib import CACHE_DIR, wait_until_clean
from toolcrib.v1 import broker_pb2

pytestmark = [pytest.mark.engine, pytest.mark.openbao, pytest.mark.postgres]

BUNDLE = ROOT / "tests" / "bundles" / "hostile"
ATTACK, ATTACK_ONCE = "hostile.v1.Hostile/Attack", "hostile.v1.Hostile/AttackOnce"
FOLDERS = ["/tmp", "/var/tmp", "/dev/shm", "/opt/bundle", "/run/toolcrib", "/"]
GRANTS = f"""
@id("hostile") @targets("orders-db")
permit (
    principal == Agent::"refund-desk",
    action in [Action::"{ATTACK}", Action::"{ATTACK_ONCE}", Action::"hostile.v1.Hostile/Count"],
    resource == Environment::"dev"
);
"""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, engine: Engine) -> Iterator[Crib]:
    for part in ("openbao", "postgres"):
        if without(part):
            pytest.skip(f"needs {part}")
    options = DevOptions(bundles=(BUNDLE,), tenants=("shop",), engine_url=engine.base_url)
    with CribThread(tmp_path_factory.mktemp("hostile") / "state", CACHE_DIR, options) as crib:
        crib.grant(GRANTS)
        yield crib


@pytest.fixture
def crib(running: Crib) -> Iterator[Crib]:
    running.rest()
    yield running
    assert wait_until_clean(running) == {}


@pytest.fixture
def minted(crib: Crib, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every password that the broker mints from now on, as itself and in two disguises."""
    vault, seen = crib.stack.broker.vault, list[str]()
    mint = vault.mint

    async def note(*arguments: Any) -> list[Lease]:
        leases = await mint(*arguments)
        for lease in leases:
            assert isinstance(lease.payload, UsernamePassword)
            password = lease.payload.password.reveal()
            seen.extend((password, password.encode().hex(), base64.b64encode(password.encode()).decode()))
        return leases

    monkeypatch.setattr(vault, "mint", note)
    return seen


@pytest.fixture(scope="module")
def bare() -> ModuleType:
    """The attacks, to be run here, without a sandbox."""
    spec = importlib.util.spec_from_file_location("attacks", BUNDLE / "handler" / "attacks.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def attack(crib: Crib, how: str, *arguments: str, method: str = ATTACK) -> tuple[Reply, broker_pb2.Call]:
    """Let the tool attack; gives the agent's answer and the record."""
    key = secrets.token_hex(8) if method == ATTACK_ONCE else ""
    with crib.caller() as agent:
        reply = agent.call(method, {"how": how, "arguments": list(arguments)}, key=key)
    return reply, get_call(crib, reply.call_id)


def told(reply: Reply, record: broker_pb2.Call) -> str:
    """Return all that agent and people see of a call."""
    return f"{reply} {record} {record.message} {record.tool_log}"


def expect_nothing_got(crib: Crib, how: str, *arguments: str) -> list[str]:
    """See that an attack got nothing and that the record says so; gives what was tried, with its errors."""
    reply, record = attack(crib, how, *arguments)
    assert (reply.reason, reply.details["tool_code"]) == ("TOOL_FAILED", "NOTHING_GOT"), reply
    assert broker_pb2.CallState.Name(record.state) == "FAILED"
    assert record.message == reply.message
    return reply.message.removeprefix("NOTHING_GOT: ").split(", ")


# --- the machine -----------------------------------------------------------------------------------------
def test_reads_nothing_of_the_host(crib: Crib, tmp_path: Path, bare: ModuleType):
    secret = tmp_path / "secret"
    secret.write_text("the host's")
    state = str(crib.stack.state_dir / "toolcrib.toml")
    tried = expect_nothing_got(crib, "read_host", str(secret), state)
    assert len(tried) == 7
    assert [line for line in bare.read_host([str(secret), state]) if "the host's" in line], "the control"


def test_reaches_nothing_by_a_socket_of_its_own(crib: Crib, bare: ModuleType):
    ports = [crib.stack.address.rpartition(":")[2], str(crib.stack.postgres.port)]
    tried = expect_nothing_got(crib, "open_sockets", *ports)
    assert f"tcp {ports[0]} ECONNREFUSED" in tried
    with socket.create_server(("127.0.0.1", 0)) as listener:
        here = listener.getsockname()
        assert bare.gather([("tcp", lambda: bare.connect(here))]) == [f"tcp: {here}"], "the control"


def test_finds_nothing_of_another_call(crib: Crib, tmp_path: Path, bare: ModuleType):
    reply, _ = attack(crib, "leave_mark", *FOLDERS)
    assert reply.result["got"] == ["/tmp: written"]
    tried = expect_nothing_got(crib, "find_mark", *FOLDERS)
    assert [line.split()[1] for line in tried] == ["ENOENT"] * len(FOLDERS) + ["EACCES"]
    bare.leave_mark([str(tmp_path)])
    assert bare.find_mark([str(tmp_path)])[0].endswith("here"), "the control"


def test_starts_no_more_processes_than_it_may(crib: Crib):
    assert expect_nothing_got(crib, "fork") == ["fork EAGAIN"]


def test_fills_nothing_but_its_own_memory(crib: Crib, tmp_path: Path, bare: ModuleType):
    assert expect_nothing_got(crib, "fill", "/tmp", "8") == ["write ENOSPC"]
    assert bare.fill([str(tmp_path), "8"]) == ["filled"], "the control"


# --- its credential --------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("how", "reason", "mark"),
    [
        ("print_it", "", "SECRET_IN_LOG"),
        ("answer_it", "", "SECRET_IN_RESULT"),
        ("answer_it_as_a_word", "SECRET_IN_RESULT", "SECRET_IN_RESULT"),
        ("fail_with_it", "TOOL_FAILED", "SECRET_IN_ERROR"),
        ("raise_it", "TOOL_FAILED", "SECRET_IN_LOG"),
        ("name_a_process_after_it", "DEADLINE_EXCEEDED", ""),
    ],
)
def test_tells_nobody_its_credential(crib: Crib, minted: list[str], how: str, reason: str, mark: str):
    reply, record = attack(crib, how)
    assert (reply.reason, list(record.marks)) == (reason, [mark] if mark else [])
    assert len(minted) == 3
    assert [secret for secret in minted if secret in told(reply, record)] == []


def test_tells_what_is_no_secret(crib: Crib):
    """The control: the same ways let through what is none."""
    reply, record = attack(crib, "flood", "1")
    assert reply.result["got"] == ["x" * 100]
    _, record = attack(crib, "flood_log", "1")
    assert "x" * 1000 in record.tool_log


# --- time and size ---------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("how", "argument", "reason"),
    [
        ("sleep", "0.1", ""),
        ("sleep", "60", "DEADLINE_EXCEEDED"),
        ("flood", "40", ""),
        ("flood", "100000", "OUTPUT_TOO_LARGE"),
        ("eat_memory", "8", ""),
        ("eat_memory", "500", "TOOL_CRASHED"),
        ("end_silently", "", "TOOL_CRASHED"),
    ],
)
def test_is_ended_where_it_takes_more_than_it_may(crib: Crib, how: str, argument: str, reason: str):
    reply, record = attack(crib, how, argument)
    state = "FAILED" if reason else "SUCCEEDED"
    assert (reply.reason, broker_pb2.CallState.Name(record.state)) == (reason, state), reply
    assert record.message == reply.message


def test_keeps_little_of_a_flooded_log(crib: Crib):
    reply, record = attack(crib, "flood_log", "10000")
    assert reply.code == "OK"
    assert 1024 < len(record.tool_log) <= 17 * 1024


# --- lies ------------------------------------------------------------------------------------------------
LIES = {
    "unknown_field": "RESULT_INVALID",
    "wrong_type": "RESULT_INVALID",
    "no_message": "RESULT_INVALID",
    "too_long": "RESULT_INVALID",
    "too_many": "RESULT_INVALID",
    "other_message": "RESULT_INVALID",
    "no_utf8": "RESULT_INVALID",
    "no_frame": "TOOL_CRASHED",
    "claim_much": "OUTPUT_TOO_LARGE",
    "artefact": "TOOL_CRASHED",
    "loaded_again": "TOOL_CRASHED",
    "odd_failure": "TOOL_FAILED",
}


@pytest.mark.parametrize("how", LIES)
def test_believes_no_lie(crib: Crib, minted: list[str], how: str):
    reply, record = attack(crib, how)
    assert (reply.reason, broker_pb2.CallState.Name(record.state)) == (LIES[how], "FAILED"), reply
    assert record.message == reply.message
    assert [secret for secret in minted if secret in told(reply, record)] == []
    assert not {"\x1b", "\u202e"} & set(reply.message + record.message)


def test_signs_nothing_for_a_credential_that_it_does_not_have(crib: Crib):
    assert attack(crib, "sign")[0].result["word"] == "fine"  # it was told no, and went on


def test_takes_the_first_of_two_answers(crib: Crib):
    assert attack(crib, "answer_twice")[0].result["word"] == "first"


def test_says_that_a_write_with_a_broken_result_was_done(crib: Crib, minted: list[str]):
    reply, record = attack(crib, "unknown_field", method=ATTACK_ONCE)
    assert (reply.reason, reply.details["effect"]) == ("RESULT_INVALID", "APPLIED")
    assert [secret for secret in minted if secret in told(reply, record)] == []


@pytest.mark.parametrize("how", ["no_frame", "raise_it", "end_silently"])
def test_does_not_guess_whether_a_lying_write_happened(crib: Crib, minted: list[str], how: str):
    reply, record = attack(crib, how, method=ATTACK_ONCE)
    assert reply.reason == "IN_DOUBT"
    assert broker_pb2.CallState.Name(record.state) == "IN_DOUBT"
    assert [secret for secret in minted if secret in told(reply, record)] == []
