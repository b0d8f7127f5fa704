"""What Vault has to hold is written, checked and wanted at registration by one and the same definition."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from click.testing import CliRunner, Result

from broker.cli import main
from broker.cli.connection import explain
from credentials.statements import REVOCATION
from tests.e2e.stack import MISCHIEF, SHOP, Crib
from toolcrib.v1 import registry_pb2, registry_pb2_grpc
from tools.source import compile_bundle

ROLE = "database/roles/shop-orders-read"
ROLES_FILES = [
    word for folder in (SHOP, MISCHIEF) for word in ("--roles", str(folder / "dev" / "roles.toml"))
]


class Administrator:
    """Runs `toolcrib vault` with Vault's root token, from a file."""

    def __init__(self, crib: Crib, folder: Path) -> None:
        self._config = str(crib.stack.state_dir / "toolcrib.toml")
        self._token = folder / "token"
        self._token.touch(mode=0o600)
        self._token.write_text(crib.stack.vault.root_token.reveal())

    def run(self, command: str, *words: str, token: bool = True) -> Result:
        last = ["--token-file", str(self._token)] if token else []
        return CliRunner().invoke(main, ["vault", command, *words, "--config", self._config, *last])

    def plan(self, *words: str) -> dict[str, Any]:
        return json.loads(self.run("bootstrap", "--plan", *ROLES_FILES, *words, "-o", "json").stdout)


@pytest.fixture
def administrator(crib: Crib, tmp_path: Path) -> Iterator[Administrator]:
    """After each test Vault is as it was."""
    admin = Administrator(crib, tmp_path)
    yield admin
    admin.run("bootstrap", "--apply", *ROLES_FILES)


def register(crib: Crib, manifest: str, tenant: str = "tight") -> str:
    """Register a version of the shop with a manifest of its own; the violations that it is refused with."""
    source = compile_bundle(SHOP)
    request = registry_pb2.RegisterToolRequest(
        descriptor_set=source.descriptor_set, manifest_yaml=manifest, image_id="sha256:" + "0" * 64
    )
    with crib.profile("ada", "author", tenant).connect() as channel:
        try:
            registry_pb2_grpc.RegistryStub(channel).RegisterTool(request)
        except grpc.RpcError as error:
            return explain(error).message
    return ""


def versions(crib: Crib, tenant: str = "tight") -> list[str]:
    with crib.profile("rob", "reviewer", tenant).connect() as channel:
        stub = registry_pb2_grpc.RegistryStub(channel)
        found = stub.ListVersions(registry_pb2.ListVersionsRequest(bundle="shop")).versions
    return [version.version for version in found]


def manifest(version: str, *changes: tuple[str, str]) -> str:
    text = compile_bundle(SHOP).manifest_yaml.replace("version: 1.0.0", f"version: {version}")
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return text


# --- the command line ---
def test_finds_nothing_to_do_and_nothing_wrong_in_a_running_toolcrib(administrator: Administrator):
    again = administrator.run("bootstrap", "--apply", *ROLES_FILES)
    assert again.stdout == "nothing to do: Vault holds this already\n"
    assert administrator.run("check", token=False).exit_code == 0
    assert administrator.run("check").exit_code == 0


def test_shows_what_it_would_change_and_then_changes_it(crib: Crib, administrator: Administrator):
    crib.stack.vault.write(ROLE, db_name="orders-db", creation_statements=[], revocation_statements=[])
    planned = administrator.plan()
    assert [change["subject"] for change in planned["changes"]] == ["database role shop-orders-read"]
    assert crib.stack.vault.read(ROLE)["data"]["revocation_statements"] == []
    said = administrator.run("bootstrap", "--apply", *ROLES_FILES)
    assert "change   database role shop-orders-read" in said.stdout
    assert crib.stack.vault.read(ROLE)["data"]["revocation_statements"] == [REVOCATION]


def test_finds_what_somebody_widened(crib: Crib, administrator: Administrator):
    crib.stack.vault.write("auth/token/roles/toolcrib-call", allowed_policies="root")
    said = administrator.run("check", token=False)
    assert said.exit_code == 3
    assert "token role toolcrib-call: allowed_policies is ['root'] and should be []" in said.stdout


def test_plans_for_a_bundle_that_is_not_registered_yet(administrator: Administrator, tmp_path: Path):
    folder = tmp_path / "newcomer"
    folder.mkdir()
    (folder / "tool.yaml").write_text(manifest("1.0.0", ("role: shop-orders-read", "role: new-read")))
    planned = administrator.plan(str(folder))
    assert [change["subject"] for change in planned["changes"]] == ["policy toolcrib-tool-database-new-read"]
    assert [problem["subject"] for problem in planned["problems"]] == ["database role new-read"]


def test_shows_the_token_nowhere(crib: Crib, administrator: Administrator):
    token = crib.stack.vault.root_token.reveal()
    for command in (("bootstrap", "--plan"), ("check",), ("bootstrap", "--plan", "-o", "json")):
        assert token not in administrator.run(*command).output


def test_refuses_to_plan_with_a_token_that_may_not_look(crib: Crib, administrator: Administrator, tmp_path):
    weak = crib.stack.vault.write("auth/token/create", policies=["default"], ttl="60s")["auth"]
    (tmp_path / "token").write_text(weak["client_token"])
    said = administrator.run("bootstrap", "--plan")
    (tmp_path / "token").write_text(crib.stack.vault.root_token.reveal())
    assert said.exit_code == 1
    assert "list sys/policies/acl: permission denied" in said.stderr


# --- registration ---
@pytest.mark.parametrize(
    ("version", "change", "words"),
    [
        (
            "1.0.1",
            ("role: shop-orders-read", "role: shop-nothing"),
            "Vault has no database role shop-nothing",
        ),
        (
            "1.0.2",
            ("engine: database, role: shop-orders-draft", "engine: ldap, role: draft"),
            "no engine at ldap/",
        ),
        (
            "1.0.3",
            ("engine: database, role: shop-orders-draft", "engine: kv, role: draft"),
            "no engine at toolcrib-kv/",
        ),
    ],
)
def test_refuses_a_tool_whose_credential_vault_cannot_give(crib: Crib, version: str, change, words: str):
    before = versions(crib)
    said = register(crib, manifest(version, change))
    assert "BUNDLE_INVALID" in said and "tool.yaml: credentials.orders_" in said and words in said
    assert versions(crib) == before


def test_refuses_a_tool_whose_logins_could_outlive_their_calls(crib: Crib, administrator: Administrator):
    crib.stack.vault.write(ROLE, db_name="orders-db", creation_statements=[], revocation_statements=[])
    said = register(crib, manifest("1.0.4"))
    assert "tool.yaml: credentials.orders_read" in said and "a login could outlive its call" in said


def test_refuses_a_tool_whose_policy_gives_more(crib: Crib, administrator: Administrator):
    name = "sys/policies/acl/toolcrib-tool-database-shop-orders-read"
    crib.stack.vault.write(name, policy='path "database/*" { capabilities = ["read"] }')
    assert "not exactly the right" in register(crib, manifest("1.0.5"))


def test_registers_nothing_while_vault_does_not_answer(crib: Crib):
    crib.stack.vault.seal()
    try:
        said = register(crib, manifest("1.0.6"))
    finally:
        crib.stack.vault.unseal()
    assert "CREDENTIALS_UNAVAILABLE" in said
    assert "1.0.6" not in versions(crib)


def test_registers_what_vault_can_give(crib: Crib):
    assert register(crib, manifest("1.0.7")) == ""
    assert "1.0.7" in versions(crib)
