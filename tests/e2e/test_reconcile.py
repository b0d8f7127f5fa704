"""A thousand calls: our record and OpenBao's log agree on every lease; what was tampered with is found."""

from __future__ import annotations

import json
import shutil
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import requests
from click.testing import CliRunner, Result

from broker.cli import main
from credentials.policies import TOKEN_ROLE, tool_policy_name
from tests.e2e import grants
from tests.e2e.lean_stack import LeanThread
from tests.e2e.stack import Crib
from tests.parts import REAL_PARTS, without

CALLS, AT_ONCE = 1000, 20
LOOKUP, DRAFT = "shop.v1.Orders/LookupOrder", "shop.v1.Orders/CreateRefundDraft"
ORDER = {"order_id": "A-1042"}
REFUND = {**ORDER, "amount": {"minor_units": "100", "currency": "EUR"}, "comment": "broken"}
DRAFT_ROLE = "shop-orders-draft"


@dataclass(frozen=True)
class Evidence:
    """Both sides, and how to compare them."""

    state_db: Path
    key_file: Path
    vault_log: Path

    def copy_to(self, folder: Path) -> Evidence:
        """Copy both sides, to be tampered with."""
        copied = replace(self, state_db=folder / "state.db", vault_log=folder / "vault.log")
        shutil.copy(self.state_db, copied.state_db)
        shutil.copy(self.vault_log, copied.vault_log)
        return copied

    def reconcile(self, *more: str) -> Result:
        """Run the command."""
        words = ["audit", "reconcile", "--vault-log", str(self.vault_log), "-o", "json", *more]
        places = ["--state-db", str(self.state_db), "--key-file", str(self.key_file)]
        return CliRunner().invoke(main, [*words, *places])

    def find(self, *more: str) -> list[dict[str, str]]:
        """Run it where something is to be found."""
        said = self.reconcile(*more)
        assert said.exit_code == 3, said.output
        found: list[dict[str, str]] = json.loads(said.stdout)
        return found

    def lines(self) -> list[str]:
        """The lines of Vault's log."""
        return self.vault_log.read_text().splitlines(keepends=True)

    def write(self, lines: list[str]) -> None:
        """Replace Vault's log."""
        self.vault_log.write_text("".join(lines))


@pytest.fixture(scope="module")
def crib(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crib]:
    """A Toolcrib that made a thousand calls, was restarted half way, and failed to mint for one call more."""
    for part in ("openbao", "postgres"):
        if without(part):
            pytest.skip(f"needs {part}")
    with LeanThread(tmp_path_factory.mktemp("lean") / "state") as crib:
        REAL_PARTS.append(f"OpenBao {crib.stack.vault.version}, PostgreSQL {crib.stack.postgres.version}")
        crib.grant(grants.READ + grants.DRAFT)
        make_calls(crib, CALLS // 2)
        crib.run(crib.stack.restart_broker())
        make_calls(crib, CALLS - CALLS // 2)
        fail_to_mint(crib)
        wait_until_ended(crib)
        yield crib


@pytest.fixture(scope="module")
def evidence(crib: Crib, tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    """Copies of both sides as they were after the run."""
    folder, copied = crib.stack.state_dir, tmp_path_factory.mktemp("evidence")
    words = ["store", "backup", "--config", str(folder / "toolcrib.toml"), str(copied / "state.db")]
    assert CliRunner().invoke(main, words).exit_code == 0
    shutil.copy(crib.stack.vault.audit_log, copied / "vault.log")
    return Evidence(copied / "state.db", folder / "broker.key", copied / "vault.log")


def make_calls(crib: Crib, count: int) -> None:
    """Call a tool that logs in, some calls at a time."""
    with crib.caller() as agent:
        for _ in range(count // AT_ONCE):
            running = [agent.start(LOOKUP, ORDER) for _ in range(AT_ONCE)]
            assert {agent.finish(LOOKUP, one).code for one in running} == {"OK"}


def fail_to_mint(crib: Crib) -> None:
    """Have Vault make a child token, and then no login: what it may grant is gone."""
    crib.stack.postgres.run_script("ALTER TABLE public.refund_drafts RENAME TO away")
    with crib.caller() as agent:
        assert agent.call(DRAFT, REFUND, key="k1").reason == "CREDENTIALS_UNAVAILABLE"
    crib.stack.postgres.run_script("ALTER TABLE public.away RENAME TO refund_drafts")


def wait_until_ended(crib: Crib) -> None:
    """Wait for what is ended after its answer."""
    deadline = time.monotonic() + 10
    while (crib.stack.broker.debts.count or crib.stack.vault.count_tokens()) and time.monotonic() < deadline:
        time.sleep(0.1)


def find_line(lines: list[str], *words: str) -> int:
    """Find the last line that has all these words."""
    return max(number for number, line in enumerate(lines) if all(word in line for word in words))


def test_finds_no_difference_in_a_thousand_calls(evidence: Evidence):
    said = evidence.reconcile()
    assert (said.exit_code, json.loads(said.stdout)) == (0, []), said.output
    assert f"leases: {CALLS} agree, 0 open, 1 given up before use, 0 different" in said.stderr


def test_finds_no_difference_beside_a_running_broker(crib: Crib):
    config = crib.stack.state_dir / "toolcrib.toml"
    words = ["audit", "reconcile", "--config", str(config), "--vault-log", str(crib.stack.vault.audit_log)]
    said = CliRunner().invoke(main, words)
    assert (said.exit_code, said.stdout) == (0, ""), said.output


def test_finds_a_tampered_line_of_vaults_log(evidence: Evidence, tmp_path: Path):
    copied = evidence.copy_to(tmp_path)
    lines = copied.lines()
    at = find_line(lines, '"type":"response"', f"create/{TOKEN_ROLE}", "orders-read")
    label = json.loads(lines[at])["response"]["auth"]["metadata"]
    lines[at] = lines[at].replace(label["digest"], "0" * 64)
    copied.write(lines)
    kinds = {one["difference"] for one in copied.find() if one["call"] == label["call_id"]}
    assert kinds == {"other label", "changed line"}


@pytest.mark.parametrize(
    "words",
    [
        ('"type":"response"', f"create/{TOKEN_ROLE}"),
        ('"type":"response"', "database/creds/", "lease_id"),
        ('"type":"response"', '"path":"sys/leases/revoke"'),
        ('"type":"response"', '"path":"auth/token/revoke-accessor"'),
        ('"type":"response"', "invalid accessor"),
        ('"type":"request"', '"path":"sys/leases/lookup"'),
    ],
)
def test_finds_a_line_that_was_taken_out(evidence: Evidence, tmp_path: Path, words: tuple[str, ...]):
    copied = evidence.copy_to(tmp_path)
    lines = copied.lines()
    del lines[find_line(lines, *words)]
    copied.write(lines)
    assert copied.find() != []


def test_finds_a_request_that_was_taken_out_with_its_answer(evidence: Evidence, tmp_path: Path):
    copied = evidence.copy_to(tmp_path)
    lines = copied.lines()
    lost = json.loads(lines[find_line(lines, '"secret":{"lease_id"')])["request"]["id"]
    copied.write([line for line in lines if lost not in line])
    (found,) = copied.find()
    assert found["difference"] == "not in Vault's log"


def test_finds_a_tampered_record_of_ours(evidence: Evidence, tmp_path: Path):
    copied = evidence.copy_to(tmp_path)
    with sqlite3.connect(copied.state_db) as state:
        state.execute("UPDATE audit SET payload = replace(payload, 'A', 'B') WHERE sequence = 500")
        state.execute("UPDATE audit SET payload = payload || ' ' WHERE sequence = 500")
    state.close()
    said = copied.reconcile()
    assert (said.exit_code, "record 500 was changed" in said.stderr) == (3, True)


def test_finds_a_child_that_was_made_with_a_stolen_session(crib: Crib, evidence: Evidence):
    """The thief copies the label of a real call, so that only the record tells them apart."""
    lines = evidence.lines()
    made = json.loads(lines[find_line(lines, '"type":"response"', f"create/{TOKEN_ROLE}", "orders-read")])
    child = make_foreign_child(crib, made["response"]["auth"]["metadata"])
    live = replace(evidence, state_db=crib.stack.state_dir / "state.db", vault_log=crib.stack.vault.audit_log)
    (found,) = live.find()
    assert (found["difference"], found["accessor"]) == ("not in our record", child["accessor"])
    assert found["lease"].startswith("database/creds/shop-orders-read/")


def make_foreign_child(crib: Crib, label: dict[str, str]) -> dict[str, str]:
    """Do what a thief of the broker's session can: make a child, read a login with it, end both."""
    session = {"X-Vault-Token": crib.stack.broker.vault._session.token.reveal()}
    base = f"{crib.stack.vault.address}/v1"
    wanted: Any = {
        "policies": [tool_policy_name("database", "shop-orders-read")],
        "ttl": "60s",
        "num_uses": 2,
        "no_default_policy": True,
        "renewable": False,
        "meta": dict(label),
    }
    url = f"{base}/auth/token/create/{TOKEN_ROLE}"
    child: dict[str, str] = requests.post(url, headers=session, json=wanted, timeout=10).json()["auth"]
    login = requests.get(
        f"{base}/database/creds/shop-orders-read",
        headers={"X-Vault-Token": child["client_token"]},
        timeout=10,
    ).json()
    requests.put(
        f"{base}/sys/leases/revoke",
        headers=session,
        json={"lease_id": login["lease_id"], "sync": True},
        timeout=10,
    )
    requests.post(
        f"{base}/auth/token/revoke-accessor",
        headers=session,
        json={"accessor": child["accessor"]},
        timeout=10,
    )
    return child
