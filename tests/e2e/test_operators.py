"""What operators do on the command line: resolve a call, back up and restore the state, erase a tenant."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

from click.testing import CliRunner, Result

from broker.cli import main
from tests.e2e import grants
from tests.e2e.stack import Crib
from tests.e2e.test_resolution import BLIND, leave_in_doubt

WRITE = {"how": "fine"}


def run(crib: Crib, *words: str | Path) -> Result:
    """Run a command as the tenant's operator."""
    folder = crib.profile("olga", "operator").cert_path.parent
    return CliRunner().invoke(main, [*map(str, words)], env={"TOOLCRIB_PROFILE": str(folder)})


def test_resolves_a_call(crib: Crib):
    crib.grant(grants.MISCHIEF)
    key = uuid.uuid4().hex
    call_id = leave_in_doubt(crib, key)
    words = ["--happened", "--result", '{"effectNumber": "9"}', "--reason", "seen", "-o", "json"]
    said = run(crib, "calls", "resolve", call_id, *words)
    assert json.loads(said.output)["state"] == "SUCCEEDED"
    with crib.caller() as agent:
        assert agent.call(BLIND, {"how": "crash_after"}, key=key).result == {"effectNumber": "9"}


def test_asks_what_was_found(crib: Crib):
    said = run(crib, "calls", "resolve", "c0", "--reason", "seen")
    assert said.exit_code == 2
    assert "--happened or --not" in said.output


def test_backs_the_state_up_while_the_broker_runs(crib: Crib, tmp_path: Path):
    config = crib.stack.state_dir / "toolcrib.toml"
    said = run(crib, "store", "backup", "--config", config, tmp_path / "copy.db")
    assert said.exit_code == 0, said.output
    assert (tmp_path / "copy.db").stat().st_mode & 0o077 == 0


def test_restores_nothing_under_a_running_broker(crib: Crib, tmp_path: Path):
    config = crib.stack.state_dir / "toolcrib.toml"
    run(crib, "store", "backup", "--config", config, tmp_path / "copy.db")
    fast = config.with_name("fast.toml")
    fast.write_text(config.read_text().replace("[state]\n", "[state]\nepoch_seconds = 1.0\n"))
    said = run(crib, "store", "restore", "--config", fast, tmp_path / "copy.db")
    assert said.exit_code == 3
    assert "another broker has it" in said.output


def test_erases_what_is_kept_of_a_tenant(crib: Crib):
    crib.grant(grants.MISCHIEF)
    key = uuid.uuid4().hex
    with crib.caller() as agent:
        done = agent.call(BLIND, WRITE, key=key)
        assert run(crib, "tenants", "erase", "shop", "--yes").exit_code == 0
        again = agent.call(BLIND, WRITE, key=key)
        later = agent.call(BLIND, WRITE, key=uuid.uuid4().hex)
    assert (done.code, later.code) == ("OK", "OK")
    assert (again.reason, again.details["effect"]) == ("RESULT_INVALID", "APPLIED")


def test_verifies_the_audit_after_an_erasure(crib: Crib):
    run(crib, "tenants", "erase", "shop", "--yes")
    said = run(crib, "audit", "verify", "--config", crib.stack.state_dir / "toolcrib.toml")
    assert said.exit_code == 0, said.output


def test_erases_no_other_tenant(crib: Crib):
    said = run(crib, "tenants", "erase", "rival", "--yes")
    assert said.exit_code == 1
    assert "REQUEST_INVALID" in said.output
