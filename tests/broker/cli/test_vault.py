"""`toolcrib vault` without a Vault: what it prints for a reviewer, and what it refuses to begin with."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from broker.cli import main
from tests.broker.test_doctor import CONFIG, write_private

SHOP = Path(__file__).parents[3] / "tools" / "bundles" / "shop"
TOKEN = "s.0123456789abcdef"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "toolcrib.toml"
    path.write_text(CONFIG)
    return path


def run(*words: str | Path, stdin: str = "") -> Result:
    return CliRunner().invoke(main, ["vault", *map(str, words)], input=stdin)


def test_prints_the_policies_of_a_bundle_exactly_as_they_have_to_stand_in_vault() -> None:
    said = run("policy", "--tool", SHOP)
    assert said.exit_code == 0
    assert re.findall(r"^# Policy (.*)$", said.stdout, re.MULTILINE) == [
        "toolcrib-tool-database-shop-orders-draft",
        "toolcrib-tool-database-shop-orders-read",
        "toolcrib-tool-database-shop-orders-refund",
    ]
    assert 'path "database/creds/shop-orders-read" { capabilities = ["read"] }\n' in said.stdout


def test_prints_the_brokers_policy_for_the_engines_that_are_used() -> None:
    said = run("policy", "--broker", "--tool", SHOP)
    assert said.stdout.startswith("# Policy toolcrib-broker\n")
    assert 'path "database/roles/*"' in said.stdout
    assert "toolcrib-kv" not in said.stdout and "toolcrib-tool-database-shop" not in said.stdout


def test_prints_policies_for_programs(config: Path) -> None:
    said = json.loads(run("policy", "--config", config, "-o", "json").stdout)
    assert list(said) == ["toolcrib-broker"]


def test_asks_what_to_print() -> None:
    said = run("policy")
    assert (said.exit_code, said.stdout) == (2, "")
    assert "--config FILE, --tool BUNDLE" in said.stderr


def test_asks_whether_to_plan_or_to_apply(config: Path) -> None:
    said = run("bootstrap", "--config", config, "--token-file", "-", stdin=TOKEN)
    assert said.exit_code == 2
    assert "--plan" in said.stderr and "--apply" in said.stderr


def test_takes_no_token_from_the_command_line(config: Path) -> None:
    said = run("bootstrap", "--plan", "--config", config, "--token", TOKEN)
    assert said.exit_code == 2


def test_takes_no_token_from_a_file_that_others_may_read(config: Path, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(TOKEN)
    token.chmod(0o644)
    said = run("bootstrap", "--plan", "--config", config, "--token-file", token)
    assert said.exit_code == 2
    assert "chmod 600" in said.stderr and TOKEN not in said.output


@pytest.mark.parametrize("text", ["", "\n", "two words\x07", "täken"])
def test_refuses_what_is_no_token(config: Path, text: str) -> None:
    said = run("bootstrap", "--plan", "--config", config, "--token-file", "-", stdin=text)
    assert (said.exit_code, said.stdout) == (2, "")
    assert "stdin: holds no token" in said.stderr


def test_says_that_vault_does_not_answer(config: Path, tmp_path: Path) -> None:
    write_private(tmp_path / "token", TOKEN.encode())
    said = run("bootstrap", "--apply", "--config", config, "--token-file", tmp_path / "token")
    assert said.exit_code == 3
    assert "is Vault running there?" in said.stderr and TOKEN not in said.output


def test_checks_nothing_and_says_so_when_vault_does_not_answer(config: Path, tmp_path: Path) -> None:
    write_private(tmp_path / "role_id", b"role")
    write_private(tmp_path / "secret_id", b"secret")
    said = run("check", "--config", config)
    assert said.exit_code == 3
    assert said.stdout.startswith("problem  the broker's login: ")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--roles", "none.toml"], "none.toml: cannot be read"),
        (["nowhere"], "nowhere: has no tool.yaml"),
    ],
)
def test_names_the_file_that_it_cannot_use(config: Path, words: list[str], expected: str) -> None:
    said = run("bootstrap", "--plan", "--config", config, "--token-file", "-", *words, stdin=TOKEN)
    assert said.exit_code == 2
    assert expected in said.stderr
