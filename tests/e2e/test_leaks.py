"""What a real tool tells of real secrets goes nowhere: 50 canaries from Vault and a minted login.

Covered here, in real containers: one call a channel tells all 51 secrets in every disguise at once (stdout,
stderr, result, error text, a crash, an artefact, progress), and single bytes by exit code and signal; then
everything is searched that anybody can see of it: the agent's answers, the record as people read it, the
broker's log, its metrics, the state file and what it holds when opened, and while a call runs the engine's
`inspect` and environment and arguments of every process. The full product, one secret and one disguise a
call, is in tests/broker/test_leaks.py.
"""

from __future__ import annotations

import asyncio
import base64
import inspect
import json
import logging
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from click.testing import CliRunner
from prometheus_client import generate_latest

from broker.cli import main
from broker.dev import DATABASE, DevOptions, DevStack
from credentials.dev_engines import put_secret
from credentials.lease import KeyValues, Lease, UsernamePassword
from sandboxes.engine import Engine
from tests.broker import disguises
from tests.broker.test_leaks import list_texts
from tests.e2e.caller import Reply
from tests.e2e.stack import ROOT, Crib, CribThread
from tests.e2e.test_story import get_call
from tests.parts import REAL_PARTS, without
from tests.parts.crib import CACHE_DIR, wait_until_clean
from toolcrib.v1 import broker_pb2

pytestmark = [pytest.mark.engine, pytest.mark.openbao, pytest.mark.postgres]

SING, SING_ONCE = "canary.v1.Canary/Sing", "canary.v1.Canary/SingOnce"
CANARIES = {f"canary-{number:02}": f"cAnary/{number:02}-+{secrets.token_urlsafe(12)}" for number in range(50)}
SOURCE = inspect.getsource(disguises)
GRANTS = """
@id("sing") @targets("orders-db")
permit (
    principal == Agent::"refund-desk",
    action in [Action::"canary.v1.Canary/Sing", Action::"canary.v1.Canary/SingOnce"],
    resource == Environment::"dev"
);
"""


class CanaryStack(DevStack):
    """A DevStack whose Vault keeps the canaries."""

    def _configure_vault(self) -> None:
        put_secret(self.vault, "canaries", CANARIES)
        super()._configure_vault()


class CanaryThread(CribThread):
    """Runs a CanaryStack in a thread."""

    def __init__(self, folder: Path, options: DevOptions) -> None:
        super().__init__(folder, CACHE_DIR, options)
        self._stack = CanaryStack(folder, CACHE_DIR, options=options)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, engine: Engine) -> Iterator[Crib]:
    for part in ("openbao", "postgres"):
        if without(part):
            pytest.skip(f"needs {part}")
    bundle = ROOT / "tests" / "bundles" / "canary"
    options = DevOptions(bundles=(bundle,), tenants=("shop",), engine_url=engine.base_url)
    with CanaryThread(tmp_path_factory.mktemp("canary") / "state", options) as crib:
        REAL_PARTS.append(f"OpenBao {crib.stack.vault.version}, PostgreSQL {crib.stack.postgres.version}")
        crib.grant(GRANTS)
        yield crib


@pytest.fixture
def crib(running: Crib) -> Iterator[Crib]:
    running.rest()
    yield running
    assert wait_until_clean(running) == {}


@pytest.fixture
def minted(crib: Crib, monkeypatch: pytest.MonkeyPatch) -> list[UsernamePassword]:
    """Every login that the broker mints from now on."""
    vault, seen = crib.stack.broker.vault, list[UsernamePassword]()
    mint = vault.mint

    async def note(*arguments: Any) -> list[Lease]:
        leases = await mint(*arguments)
        seen.extend(lease.payload for lease in leases if isinstance(lease.payload, UsernamePassword))
        return leases

    monkeypatch.setattr(vault, "mint", note)
    return seen


def sing(crib: Crib, channel: str, *, number: int = -1, method: str = SING, key: str = "") -> Reply:
    with crib.caller() as agent:
        request = {"channel": channel, "disguises": SOURCE, "number": number}
        return agent.call(method, request, key=key, timeout=60)


class Search:
    """Looks for every disguise of every secret."""

    def __init__(self, minted: list[UsernamePassword]) -> None:
        told = [*CANARIES.values(), *(login.password.reveal() for login in minted)]
        self._needles = {
            f"{secret[:9]} {name}": disguise(secret).encode()
            for secret in told
            for name, disguise in disguises.DISGUISES.items()
        }

    def find(self, where: str, data: bytes) -> list[str]:
        return [f"{name} in {where}" for name, needle in self._needles.items() if needle in data]

    def find_all(self, places: dict[str, bytes]) -> list[str]:
        return [found for where, data in places.items() for found in self.find(where, data)]


def write_out(thing: Any) -> bytes:
    """Write every text of a thing as it is: JSON would hide it."""
    return "\n".join(list_texts(thing)).encode()


def read_state(crib: Crib, call_ids: list[str]) -> dict[str, bytes]:
    """The state's files, what they hold of some calls when opened, and the audit."""
    folder = crib.stack.settings.state.path.parent
    places = {path.name: path.read_bytes() for path in folder.glob("state.db*") if path.is_file()}
    store = crib.stack.broker.store
    opened = [crib.run(store.get_call("shop", call_id)) for call_id in call_ids]
    audit = [record.payload for record in crib.run(_read_audit(crib))]
    return {**places, "opened rows": write_out(opened), "audit": write_out(audit)}


async def _read_audit(crib: Crib) -> list[Any]:
    return [record async for record in crib.stack.broker.store.audit_records()]


def read_everything(crib: Crib, replies: list[Reply], log: str) -> dict[str, bytes]:
    """All that anybody can see once the calls have ended."""
    records = [get_call(crib, reply.call_id) for reply in replies]
    return {
        "agent": write_out(replies),
        "record": "\n".join(_list_fields(records)).encode(),
        "log": log.encode(),
        "metrics": generate_latest(crib.stack.broker.metrics.registry),
        **read_state(crib, [reply.call_id for reply in replies]),
    }


def _list_fields(records: list[broker_pb2.Call]) -> Iterator[str]:
    for record in records:
        yield from (record.message, record.tool_log, *record.labels, str(record))


CHANNELS = {
    "result": ("OK", ["SECRET_IN_RESULT"]),
    "stdout": ("OK", ["SECRET_IN_LOG"]),
    "stderr": ("OK", ["SECRET_IN_LOG"]),
    "error text": ("ABORTED", ["SECRET_IN_ERROR"]),
    "crash": ("ABORTED", ["SECRET_IN_LOG"]),
    "artefact": ("ABORTED", []),  # its manifest allows none; where one is allowed: test_artefacts.py
    "progress": ("OK", []),
}


@pytest.mark.parametrize("channel", CHANNELS)
def test_nothing_of_51_secrets_in_any_disguise_leaves_by(
    crib: Crib, channel: str, minted: list[UsernamePassword], caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.DEBUG)
    reply = sing(crib, channel)
    found = Search(minted).find_all(read_everything(crib, [reply], caplog.text))
    record = get_call(crib, reply.call_id)
    assert found == []
    assert (reply.code == "OK", list(record.marks)) == (CHANNELS[channel][0] == "OK", CHANNELS[channel][1])
    assert {lease.credential for lease in record.leases} == {"canaries", "login"}


@pytest.mark.parametrize("channel", ["exit code", "signal"])
def test_exit_codes_and_signals_say_nothing(crib: Crib, channel: str, caplog: pytest.LogCaptureFixture):
    replies = [sing(crib, channel, number=number) for number in (0, 50)]
    records = [get_call(crib, reply.call_id) for reply in replies]
    assert {(reply.code, reply.message, reply.reason) for reply in replies} == {
        (replies[0].code, replies[0].message, "TOOL_CRASHED")
    }
    assert {record.tool_log for record in records} == {"init: the handler ended with an error\n"}


def test_a_result_keeps_what_holds_no_secret(crib: Crib):
    result = sing(crib, "result", number=0).result
    assert result["innocent"] == "kept"
    assert set(result["texts"]) == {"[redacted]"}
    assert base64.b64decode(result["data"]) == b"[redacted]"
    assert all(name.startswith("[redacted]") for name in result["notes"])


def test_a_write_that_told_its_secrets_has_succeeded_and_is_replayed_without(
    crib: Crib, minted: list[UsernamePassword]
):
    key = secrets.token_hex(8)
    replies = [sing(crib, "result", method=SING_ONCE, key=key) for _ in range(2)]
    assert [(reply.code, reply.replayed) for reply in replies] == [("OK", False), ("OK", True)]
    assert replies[0].result == replies[1].result
    assert Search(minted).find("agent", write_out(replies)) == []
    record = get_call(crib, replies[0].call_id)
    assert broker_pb2.CallState.Name(record.state) == "SUCCEEDED"


# --- while it runs ---------------------------------------------------------------------------------------
def read_processes() -> bytes:
    """Arguments and environment of every process of this machine."""
    parts = []
    for folder in Path("/proc").glob("[0-9]*"):
        for name in ("cmdline", "environ"):
            try:
                parts.append((folder / name).read_bytes())
            except OSError:
                continue
    return b"\n".join(parts)


def test_nothing_shows_from_outside_while_a_call_runs(crib: Crib, minted: list[UsernamePassword]):
    with crib.caller() as agent:
        request = {"channel": "nobody", "disguises": "DISGUISES = {'raw': str}", "number": -1}
        call = agent.start(SING, request, timeout=60)
        (container,) = wait_for_containers(crib)
        inspected = json.dumps(crib.stack.engine.client.inspect_container(container)).encode()
        processes = read_processes()
        (running,) = crib.stack.broker.path.running
        places = {"inspect": inspected, "processes": processes, **read_state(crib, [running.call_id])}
        assert agent.finish(SING, call).code == "OK"
    assert Search(minted).find_all(places) == []
    assert b"toolcrib" in inspected
    assert b"/opt/toolcrib/init.py" in processes


def wait_for_containers(crib: Crib) -> list[str]:
    deadline = time.monotonic() + 20
    while not (found := crib.run(crib.stack.broker.fleet.leftovers())) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(1)  # it has its start frame by then
    return list(found)


# --- the login -------------------------------------------------------------------------------------------
def log_in(crib: Crib, login: UsernamePassword) -> bool:
    async def connect() -> None:
        connection = await asyncpg.connect(
            host="127.0.0.1",
            port=crib.stack.postgres.port,
            user=login.username,
            password=login.password.reveal(),
            database=DATABASE,
            timeout=5,
        )
        await connection.close()

    try:
        asyncio.run(connect())
    except (asyncpg.InvalidPasswordError, asyncpg.InvalidAuthorizationSpecificationError):
        return False
    return True


def test_a_captured_login_is_refused_two_seconds_after_the_answer(crib: Crib, minted: list[UsernamePassword]):
    with crib.caller() as agent:
        request = {"channel": "nobody", "disguises": "DISGUISES = {'raw': str}", "number": -1}
        call = agent.start(SING, request, timeout=60)
        wait_for_containers(crib)
        assert log_in(crib, minted[0]), "the control: it is good while the call runs"
        agent.finish(SING, call)
    time.sleep(2)
    assert not log_in(crib, minted[0])


def test_a_login_that_was_told_is_dead_when_the_answer_comes(crib: Crib, minted: list[UsernamePassword]):
    reply = sing(crib, "result")
    assert reply.code == "OK"
    assert not log_in(crib, minted[0])


def test_a_secret_that_was_told_is_named_to_the_audit(crib: Crib):
    reply = sing(crib, "stdout")
    events = [json.loads(record.payload) for record in crib.run(_read_audit(crib))]
    told = [
        event for event in events if event["kind"] == "secret.leaked" and event["call_id"] == reply.call_id
    ]
    assert sorted(event["details"]["credential"] for event in told) == ["canaries", "login"]
    assert {event["details"]["channel"] for event in told} == {"log"}


def test_people_see_the_mark(crib: Crib):
    reply = sing(crib, "stdout", number=0)
    folder = crib.profile("olga", "operator").cert_path.parent
    environment = {"TOOLCRIB_PROFILE": str(folder)}
    shown = CliRunner().invoke(main, ["calls", "show", reply.call_id], env=environment)
    listed = CliRunner().invoke(main, ["calls", "show", reply.call_id, "-o", "json"], env=environment)
    assert "SECRET_IN_LOG" in shown.output
    assert json.loads(listed.output)["marks"] == ["SECRET_IN_LOG"]
    assert [lease["engine"] for lease in json.loads(listed.output)["leases"]] == ["kv", "database"]


# --- last, because it leaves the canaries in the state ---------------------------------------------------
def test_the_search_sees_what_is_no_secret(crib: Crib, monkeypatch: pytest.MonkeyPatch):
    """The control: the same tool, search and places, with canaries that are no secrets to the broker."""
    unknown = property(lambda _self: ())
    monkeypatch.setattr(KeyValues, "secrets", unknown)
    replies = [sing(crib, channel) for channel in ("result", "stdout", "error text")]
    monkeypatch.undo()
    places = read_everything(crib, replies, "")
    search = Search([])
    assert len(search.find("agent", places["agent"])) > 1000
    assert len(search.find("record", places["record"])) > 1000
    assert len(search.find("opened rows", places["opened rows"])) > 1000
