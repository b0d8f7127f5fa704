"""`toolcrib credentials rotate`, as the administrator runs it: what it asks, says, and never says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from broker.cli import main
from credentials.bootstrap.roles import define_role
from credentials.dev_engines import put_client
from tests.broker.test_doctor import CONFIG, write_private
from tests.credentials.rotation.conftest import TARGET

TOKEN_URL = "https://login.example.org/token"
NAME, OLD, NEW = "mail-token", "an-old-value-of-24-signs", "a-new-value-of-24-signs!"


class Administrator:
    """Runs rotations."""

    def __init__(self, folder: Path, vault) -> None:
        self._token = vault.root_token.reveal()
        self._config, self._token_file = folder / "toolcrib.toml", folder / "token"
        lines = CONFIG.splitlines()
        address = [f'address = "{vault.address}"' if line.startswith("address") else line for line in lines]
        self._config.write_text("\n".join(address))
        write_private(folder / "role_id", vault.role_id.reveal().encode())
        write_private(folder / "secret_id", vault.secret_id.reveal().encode())
        write_private(self._token_file, self._token.encode())

    def run(self, *words: str, stdin: str = "", token: str = "") -> Result:
        options = ["--config", str(self._config), "--token-file", token or str(self._token_file)]
        said = CliRunner().invoke(main, ["credentials", "rotate", *words, *options], input=stdin)
        assert self._token not in said.output
        assert NEW not in said.output
        return said

    def run_as_broker(self, *words: str) -> Result:
        return CliRunner().invoke(main, ["credentials", *words, "--config", str(self._config)])

    def run_with_token_on_stdin(self, *words: str, stdin: str = "") -> Result:
        return self.run(*words, stdin=f"{self._token}\n{stdin}", token="-")


@pytest.fixture
def administrator(tmp_path: Path, vault) -> Administrator:
    vault.write(f"toolcrib-kv/data/{NAME}", data={"key": OLD, "other": OLD})
    return Administrator(tmp_path, vault)


def read(vault) -> dict[str, str]:
    values: dict[str, str] = vault.read(f"toolcrib-kv/data/{NAME}")["data"]["data"]
    return values


def test_takes_values_from_stdin(administrator, vault) -> None:
    said = administrator.run("kv", NAME, stdin=json.dumps({"key": NEW}))
    assert said.exit_code == 0, said.output
    assert read(vault) == {"key": NEW, "other": OLD}


def test_takes_the_token_and_then_the_values_from_stdin(administrator, vault) -> None:
    said = administrator.run_with_token_on_stdin("kv", NAME, stdin=json.dumps({"key": NEW}))
    assert said.exit_code == 0, said.output
    assert read(vault)["key"] == NEW


def test_makes_values_that_it_does_not_show(administrator, vault) -> None:
    said = administrator.run("kv", NAME, "--generate", "key", "--generate", "other:64", "-o", "json")
    values = read(vault)
    assert [len(values["key"]), len(values["other"])] == [32, 64]
    assert values["key"] not in said.output and values["other"] not in said.output
    assert json.loads(said.stdout)["rotated"] == f"secret {NAME}"


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"key": 1}', '{"key": {"a": "b"}}', f'{{"key": "{NEW}", "key": "{NEW}"}}', f'"{NEW}"'],
)
def test_refuses_what_is_no_object_of_strings(administrator, vault, text) -> None:
    said = administrator.run("kv", NAME, stdin=text)
    assert said.exit_code == 2
    assert read(vault)["key"] == OLD


@pytest.mark.parametrize("asked", ["", ":32", "key:", "key:x", "key:11", "key:99999", "key:-20"])
def test_refuses_to_make_what_it_cannot(administrator, vault, asked) -> None:
    said = administrator.run("kv", NAME, "--generate", asked)
    assert (said.exit_code, read(vault)["key"]) == (2, OLD)


@pytest.mark.parametrize(
    "words", [("database", TARGET), ("secret-id",), ("kv", NAME, "--destroy-older", "--generate", "key")]
)
def test_says_what_it_would_do_and_does_nothing_without_yes(administrator, vault, words) -> None:
    before = vault.audit_log.read_text().count("rotate-root")
    said = administrator.run(*words)
    assert said.exit_code == 2
    assert "say --yes to go on" in said.stderr
    assert (vault.audit_log.read_text().count("rotate-root"), read(vault)["key"]) == (before, OLD)


def test_says_before_that_nobody_will_know_the_password(administrator) -> None:
    said = administrator.run("database", TARGET)
    assert "nobody but Vault knows it" in said.stderr


@pytest.mark.parametrize("name", ["../x", "a/b", "", "A", "x" * 64])
def test_refuses_a_name_that_is_a_path(administrator, name) -> None:
    assert administrator.run("database", "--yes", name).exit_code == 2


def test_says_that_vault_has_no_directory(administrator) -> None:
    said = administrator.run("ldap", "--yes")
    assert said.exit_code != 0
    assert "no LDAP engine" in said.stderr


def test_names_what_is_not_known(administrator) -> None:
    said = administrator.run("database", "nowhere", "--yes")
    assert said.exit_code == 3
    assert "no database target nowhere" in said.stderr


def test_has_no_secret_id_to_rotate_where_the_broker_logs_in_otherwise(administrator, tmp_path) -> None:
    config = tmp_path / "toolcrib.toml"
    text = config.read_text().replace('method = "approle"', 'method = "jwt"\nrole = "broker"')
    text = text.replace('role_id_file = "role_id"\n', "").replace("secret_id_file", "token_file")
    config.write_text(text)
    said = administrator.run("secret-id", "--yes")
    assert said.exit_code == 2
    assert 'only the method "approle" has a secret id' in said.stderr


def test_rotates_a_client_secret_and_keeps_where_it_may_be_shown(administrator, vault) -> None:
    put_client(vault, "crm", TOKEN_URL, OLD)
    said = administrator.run("kv", "oauth2/crm", stdin=json.dumps({"client_secret": NEW}))
    assert said.exit_code == 0, said.output
    values = vault.read("toolcrib-kv/data/oauth2/crm")["data"]["data"]
    assert values == {"token_url": TOKEN_URL, "client_secret": NEW}


@pytest.mark.parametrize("name", ["oauth2/../mail", "other/crm", "oauth2/", "oauth2/a/b"])
def test_refuses_a_name_that_is_no_secrets(administrator, name) -> None:
    assert administrator.run("kv", name, "--generate", "key").exit_code == 2


def test_prints_the_public_key_of_an_oauth2_role(administrator, vault) -> None:
    role = {"engine": "oauth2", "grant": "token_exchange", "token_url": TOKEN_URL, "client_id": "crm"}
    vault.bootstrap(definitions=[define_role("crm", {**role, "issuer": "https://toolcrib.example.org"})])
    said = administrator.run_as_broker("jwks", "crm")
    [key] = json.loads(said.stdout)["keys"]
    assert (said.exit_code, key["kid"], key["alg"], "d" in key) == (0, "oauth2_crm-v1", "ES256", False)


def test_says_that_there_is_no_such_key(administrator) -> None:
    said = administrator.run_as_broker("jwks", "nobody")
    assert said.exit_code != 0
    assert "there is no key oauth2_nobody" in said.output
