"""The command line against a running Toolcrib, as people and scripts use it."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from broker.cli import main
from tests.e2e import grants
from tests.e2e.stack import SHOP, Crib
from tests.parts.crib import CACHE_DIR, DOWN

LOOKUP = ("call", "shop.v1.Orders/LookupOrder", '{"order_id": "A-1042"}')


class CommandLine:
    """Runs commands as one person or agent of the tenant."""

    def __init__(self, crib: Crib) -> None:
        self._crib = crib

    def run(self, *arguments: str | Path, role: str = "agent", stdin: str = "") -> Result:
        names = {"agent": "refund-desk", "reviewer": "rob", "author": "ada", "operator": "olga"}
        names["orchestrator"] = "front-office"
        profile = self._crib.profile(names[role], role).cert_path.parent
        environment = {"TOOLCRIB_PROFILE": str(profile), "COLUMNS": "80"}
        return CliRunner().invoke(main, [str(item) for item in arguments], input=stdin, env=environment)

    def read(self, *arguments: str | Path, role: str = "agent"):
        """Run a command that succeeds, and read its JSON."""
        result = self.run(*arguments, "-o", "json", role=role)
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)


@pytest.fixture
def cli(crib: Crib) -> Iterator[CommandLine]:
    yield CommandLine(crib)


@pytest.fixture
def cedar(tmp_path: Path) -> Path:
    path = tmp_path / "shop.cedar"
    path.write_text(grants.READ + grants.REFUND)
    return path


def fits(text: str) -> bool:
    return all(len(line) <= 80 for line in text.splitlines())


def says(result: Result, beginning: str) -> bool:
    """Tell whether a line on stderr begins so; on a busy machine one about the time comes first."""
    return any(line.startswith(beginning) for line in result.stderr.splitlines())


# --- call ---
def test_prints_a_result_on_stdout_and_the_rest_on_stderr(crib: Crib, cli: CommandLine):
    crib.grant(grants.READ)
    result = cli.run(*LOOKUP)
    assert json.loads(result.stdout)["order"]["orderId"] == "A-1042"
    assert says(result, "call c")


def test_takes_arguments_from_stdin(crib: Crib, cli: CommandLine):
    crib.grant(grants.READ)
    result = cli.run("call", "shop.v1.Orders/LookupOrder", "-", stdin='{"order_id": "A-1042"}')
    assert result.exit_code == 0


def test_replays_a_write_under_its_key(crib: Crib, cli: CommandLine):
    crib.grant(grants.DRAFT)
    arguments = json.dumps(
        {"order_id": "A-1042", "amount": {"minor_units": 100, "currency": "EUR"}, "comment": "dent"}
    )
    command = ("call", "shop.v1.Orders/CreateRefundDraft", arguments)
    first = cli.read(*command, "--key", uuid.uuid4().hex)
    second = cli.read(*command, "--key", first["key"])
    assert (first["replayed"], second["replayed"]) == (False, True)
    assert first["result"] == second["result"]


def test_prints_a_new_key_before_the_call(cli: CommandLine):
    result = cli.run("call", "shop.v1.Orders/IssueRefund", "{}", "--new-key")
    assert says(result, "key ")
    assert result.exit_code == 1


def test_says_every_violation_by_field_and_the_call(cli: CommandLine):
    result = cli.run("call", "shop.v1.Orders/LookupOrder", '{"order_id": "x", "colour": 1}')
    assert result.exit_code == 1
    assert says(result, "Error: REQUEST_INVALID")
    assert "\n  order_id: " in result.stderr
    assert "\n  colour: " in result.stderr
    assert "\n  call c" in result.stderr


def test_says_what_a_write_needs(cli: CommandLine):
    arguments = '{"order_id": "A-1042", "amount": {"minor_units": 1, "currency": "EUR"}}'
    result = cli.run("call", "shop.v1.Orders/IssueRefund", arguments)
    assert "KEY_REQUIRED" in result.stderr
    assert "--new-key" in result.stderr


def test_answers_4_when_the_broker_is_not_there(crib: Crib, cli: CommandLine, tmp_path: Path):
    profile = crib.profile("refund-desk").cert_path.parent
    for file in profile.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    text = (profile / "profile.toml").read_text().replace(crib.stack.address, "127.0.0.1:1")
    (tmp_path / "profile.toml").write_text(text)
    assert cli.run("tools", "list", "--profile", tmp_path).exit_code == 4


# --- tools ---
def test_lists_tools_in_80_columns(cli: CommandLine):
    result = cli.run("tools", "list")
    assert "shop.v1.Orders/CreateRefundDraft" in result.stdout
    assert fits(result.stdout)


def test_describes_a_tool_with_its_schemas(cli: CommandLine):
    found = cli.read("tools", "describe", "shop.v1.Orders/IssueRefund")
    assert found["effect"] == "WRITE"
    assert "payoutAccount" in found["arguments"]["properties"]


def test_exports_a_view_without_any_import_of_ours(cli: CommandLine, tmp_path: Path):
    written = cli.read("tools", "export", tmp_path, "shop")
    source = (tmp_path / "shop" / "v1" / "orders.proto").read_text()
    assert "service Orders" in source
    assert "toolcrib" not in source
    assert str(tmp_path / "shop.binpb") in {item["written"] for item in written}


def test_exports_nothing_under_a_name_that_is_none(cli: CommandLine, tmp_path: Path):
    result = cli.run("tools", "export", tmp_path / "out", "nothing")
    assert result.exit_code == 1
    assert not (tmp_path / "out").exists()


def test_checks_a_bundle_without_a_broker(tmp_path: Path):
    good = CliRunner().invoke(main, ["tools", "check", str(SHOP)])
    bad = CliRunner().invoke(main, ["tools", "check", str(tmp_path)])
    assert (good.exit_code, bad.exit_code) == (0, 3)
    assert "tool.yaml: error: is missing" in bad.stderr


def test_registers_what_is_there_already_as_the_same_version(crib: Crib, cli: CommandLine):
    engine = crib.stack.engine.base_url
    found = cli.read("tools", "register", SHOP, "--engine", engine, "--cache", CACHE_DIR, role="author")
    assert (found["state"], found["aliases"]) == ("USABLE", "stable")


def test_refuses_to_review_other_content_than_was_read(cli: CommandLine):
    result = cli.run("tools", "review", "shop", "1.0.0", "--accept", "--digest", "0" * 64, role="reviewer")
    assert result.exit_code == 1
    assert "digest: is not the version's" in result.stderr


def test_shows_a_version_without_deciding(cli: CommandLine):
    assert cli.read("tools", "review", "shop", "1.0.0", role="reviewer")["state"] == "USABLE"
    assert cli.read("tools", "promote", "shop", "1.0.0", role="reviewer")["aliases"] == "stable"


def test_lists_versions_with_who_registered_and_reviewed(cli: CommandLine):
    result = cli.run("tools", "versions", "shop")
    assert result.stdout.splitlines()[1].split()[-2:] == ["ada", "rob"]


# --- grants ---
def test_explains_what_a_tool_may_ask_for(cli: CommandLine):
    asked = ("egress", "explain", "--tool", "shop.v1.Orders/LookupOrder", "https://api.example/")
    found = cli.run(*asked, role="reviewer")
    assert (found.exit_code, fits(found.stdout)) == (0, True)
    assert found.stdout.startswith("answer  refused, by the check TARGET")
    assert cli.run(*asked).exit_code == 1  # an agent is told nothing of it


def test_checks_grants_and_changes_nothing(cli: CommandLine, cedar: Path):
    result = cli.run("grants", "check", cedar, role="reviewer")
    assert (result.exit_code, "3 changes" in result.stdout) == (0, True)
    assert cli.read("grants", "list", role="reviewer") == []


def test_says_where_grants_are_wrong(cli: CommandLine, cedar: Path):
    cedar.write_text("permit (principal, action, resource);")
    result = cli.run("grants", "check", cedar, role="reviewer")
    assert result.exit_code == 3
    assert "\n  shop.cedar:1: " in result.stderr


def test_applies_only_after_a_yes(cli: CommandLine, cedar: Path):
    no = cli.run("grants", "apply", cedar, role="reviewer", stdin="n\n")
    nobody = cli.run("grants", "apply", cedar, role="reviewer")
    assert (no.exit_code, nobody.exit_code) == (1, 1)
    assert cli.read("grants", "list", role="reviewer") == []
    yes = cli.run("grants", "apply", cedar, role="reviewer", stdin="y\n")
    assert yes.exit_code == 0
    assert len(cli.read("grants", "list", role="reviewer")) == 3


def test_shows_the_difference_policy_by_policy(cli: CommandLine, cedar: Path):
    cli.run("grants", "apply", cedar, "--yes", role="reviewer")
    cedar.write_text(cedar.read_text().replace("5000", "4000"))
    result = cli.run("grants", "diff", cedar, role="reviewer")
    assert result.stdout.startswith("replace refund-small\n")
    assert "\x1b" not in result.stdout
    assert [line[2] for line in result.stdout.splitlines() if "000" in line] == ["-", "+"]


def test_explains_who_would_be_allowed(cli: CommandLine, cedar: Path):
    cli.run("grants", "apply", cedar, "--yes", role="reviewer")
    arguments = '{"order_id": "A-1042", "amount": {"minor_units": 9000, "currency": "EUR"}}'
    command = ("grants", "explain", "--agent", "refund-desk", "--tool", "shop.v1.Orders/IssueRefund")
    found = cli.read(*command, "--arguments", arguments, role="reviewer")
    assert (found["decision"], found["grant_ids"]) == ("ask", ["refund-large"])


def test_opens_a_workflow_and_shows_what_it_holds(crib: Crib, cli: CommandLine):
    crib.grant(grants.READ)
    opened = cli.read("workflows", "open", "--agent", "refund-desk", "--ttl", "10m", role="orchestrator")
    assert cli.run(*LOOKUP, "--workflow", opened["handle"]).exit_code == 0
    shown = cli.run("workflows", "show", opened["id"], role="operator")
    assert "tool:shop.v1.Orders/LookupOrder" in shown.stdout
    assert cli.read("workflows", "show", "--agent", "refund-desk", role="reviewer")["holds untrusted"]
    assert cli.run("workflows", "open", "--agent", "x", role="reviewer").exit_code == 1
    assert cli.run("workflows", "open", "--agent", "x", "--ttl", "soon", role="orchestrator").exit_code == 2


def test_says_what_trusts_a_destination(crib: Crib, cli: CommandLine):
    listed = '[[destination]]\nvalue = "https://docs.example"\nmatch = "host"\nnote = "manuals"\n'
    crib.grant(grants.READ.replace("@targets", '@destinations("iban:DE1") @targets'), destinations=listed)
    rows = cli.read("destinations", "list", role="author")
    assert [(row["value"], row["by"]) for row in rows] == [
        ("https://docs.example", "destinations.toml"),
        ("iban:DE1", "read"),
    ]
    assert "manuals" in cli.run("destinations", "check", "https://docs.example/a", role="reviewer").stdout
    strange = cli.run("destinations", "check", "https://docs.example@evil.example/", role="reviewer")
    assert (strange.exit_code, "nothing trusts it" in strange.stderr) == (1, True)


def test_tells_an_agent_whose_command_it_is(cli: CommandLine):
    result = cli.run("grants", "list")
    assert (result.exit_code, "ROLE_REQUIRED" in result.stderr) == (1, True)


# --- calls ---
def test_shows_a_call_with_stages_login_and_container_in_80_columns(crib: Crib, cli: CommandLine):
    crib.grant(grants.READ)
    call_id = cli.read(*LOOKUP)["call_id"]
    shown = cli.run("calls", "show", call_id, role="operator").stdout
    assert fits(shown), [line for line in shown.splitlines() if len(line) > 80]
    assert "v-" in shown
    assert "  settle " in shown
    assert "not yet" not in shown


def test_shows_what_a_call_connected_to_in_80_columns(crib: Crib, cli: CommandLine):
    crib.grant(grants.READ)
    call_id = cli.read(*LOOKUP)["call_id"]
    shown = cli.run("egress", "log", call_id, role="operator").stdout
    (one,) = cli.read("egress", "log", call_id, role="operator")["connections"]
    assert (one["target"], one["outcome"]) == ("orders-db", "ended")
    assert one["bytes_up"] > 0 and one["bytes_down"] > 0
    assert "orders-db" in shown and fits(shown)
    assert "connections\n  orders-db 1" in cli.run("calls", "show", call_id, role="operator").stdout


def test_shows_an_agent_nothing_of_what_its_call_connected_to(crib: Crib, cli: CommandLine):
    crib.grant(grants.READ)
    call_id = cli.read(*LOOKUP)["call_id"]
    shown = cli.run("egress", "log", call_id)
    assert (shown.exit_code, shown.stdout) == (0, "")
    assert "agents are not shown any" in shown.stderr


def test_shows_the_agent_its_result_and_no_login(crib: Crib, cli: CommandLine):
    crib.grant(grants.READ)
    made = cli.read(*LOOKUP)
    shown = cli.read("calls", "show", made["call_id"])
    assert shown["result"] == made["result"]
    assert shown["leases"][0]["username"] == ""


def test_lists_calls_by_state_and_never_cuts_an_id(cli: CommandLine):
    cli.run(*LOOKUP)
    newest = cli.read("calls", "list", "--state", "refused", "--limit", "1")[0]
    table = cli.run("calls", "list", "--state", "REFUSED", "--limit", "3").stdout
    assert newest["reason"] == "NOT_GRANTED"
    assert newest["call_id"] in table
    assert fits(table)


# --- audit and doctor, beside the running broker ---
def test_verifies_the_audit_of_a_running_broker(crib: Crib, cli: CommandLine):
    found = cli.read("audit", "verify", "--config", crib.stack.state_dir / "toolcrib.toml")
    assert found["records"] > 0
    again = ("audit", "verify", "--config", crib.stack.state_dir / "toolcrib.toml")
    assert cli.read(*again, "--anchor", found["head"])["records"] >= found["records"]


def test_examines_a_running_broker_and_leaves_it_alone(crib: Crib, cli: CommandLine):
    crib.grant(grants.READ)
    examined = cli.run("doctor", "--config", crib.stack.state_dir / "toolcrib.toml", "-o", "json")
    findings = json.loads(examined.stdout)
    texts = {finding["subject"]: finding["text"] for finding in findings}
    problems = [finding["subject"] for finding in findings if finding["level"] == "problem"]
    assert (examined.exit_code, problems) == (3, [f"issuer {DOWN}"])  # the one that never answers
    assert f"epoch {crib.stack.broker.store.epoch.number} runs on it" in texts["state"]
    assert cli.run(*LOOKUP).exit_code == 0
