"""The doctor without its patients: what it says of certificates, files and missing parts; it only looks."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from broker.cli import main
from broker.doctor import Finding, Level, examine
from broker.doctor.identity import check_issuer
from broker.doctor.reach import check_tenants
from broker.doctor.vault import check_vault
from broker.settings import AppRoleLogin, Settings, read_settings
from broker.store.inspection import StateView, is_live, look_into
from broker.store.options import StoreOptions
from broker.store.records import StoreError
from broker.store.sqlite import open_store
from credentials.dev_vault import DevVault
from tests.broker.tokens.conftest import make_identity
from tests.parts.issuer import LocalIssuer
from tests.parts.vault import TARGET

MANIFEST = """
bundle: BUNDLE
version: 1.0.0
description: Looks up.
image: {command: [handler]}
credentials:
  one: {engine: ENGINE, role: ROLE, target: orders-db}
targets:
  orders-db: {kind: postgresql}
tools:
  shop.v1.Orders/Look: {credentials: [one], targets: [orders-db], deadline_seconds: 10}
"""
NOW = datetime.now(UTC)
CONFIG = """
environments = ["prod"]
run_dir = "run"
[server]
certificate = "server.pem"
private_key = "server.key"
client_ca = "server.pem"
trust_domain = "example.org"
[state]
path = "state.db"
key_file = "broker.key"
[vault]
address = "http://127.0.0.1:1"
[vault.login]
method = "approle"
role_id_file = "role_id"
secret_id_file = "secret_id"
[engine]
url = "unix:///nowhere/docker.sock"
[targets.orders-db]
kind = "postgresql"
host = "127.0.0.1"
port = 1
[tenants.shop]
"""


def write_private(path: Path, content: bytes) -> None:
    path.touch(mode=0o600)
    path.write_bytes(content)


def write_certificate(folder: Path, begins: datetime, ends: datetime) -> None:
    """Write server.pem and server.key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "broker")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    signed = builder.not_valid_before(begins).not_valid_after(ends).sign(key, hashes.SHA256())
    (folder / "server.pem").write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    write_private(folder / "server.key", key.private_bytes(encoding, form, serialization.NoEncryption()))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings of an installation whose files are in order, and whose parts are all missing."""
    (tmp_path / "toolcrib.toml").write_text(CONFIG)
    write_private(tmp_path / "broker.key", bytes(range(32)))
    write_private(tmp_path / "role_id", b"role")
    write_private(tmp_path / "secret_id", b"secret")
    write_certificate(tmp_path, NOW - timedelta(days=1), NOW + timedelta(days=365))
    return read_settings(tmp_path / "toolcrib.toml")


def app_role(settings: Settings) -> AppRoleLogin:
    assert isinstance(settings.vault.login, AppRoleLogin)
    return settings.vault.login


async def find(settings: Settings, subject: str) -> list[Finding]:
    return [finding for finding in await examine(settings) if finding.subject == subject]


async def test_names_every_part_that_is_missing(settings: Settings):
    findings = await examine(settings)
    missing = {finding.subject for finding in findings if finding.level is Level.PROBLEM}
    assert missing == {"engine", "class container", "Vault", "target orders-db"}
    assert all(finding.remedy for finding in findings if finding.level is not Level.OK)


@pytest.mark.parametrize("host", ["a..b", f"{'a' * 64}.example", "a\0b"])
async def test_goes_on_after_a_target_whose_host_is_no_name(settings: Settings, host: str):
    target = settings.targets["orders-db"].model_copy(update={"host": host})
    odd = settings.model_copy(update={"targets": {"orders-db": target}})
    [finding] = await find(odd, "target orders-db")
    assert finding.level is Level.PROBLEM


async def test_finds_nothing_wrong_with_a_state_that_is_still_to_be_made(settings: Settings):
    assert [finding.level for finding in await find(settings, "state")] == [Level.WARNING]


@pytest.mark.parametrize(
    ("begins", "ends", "level"),
    [
        (-100, -1, Level.PROBLEM),
        (1, 100, Level.PROBLEM),
        (-99, 1, Level.WARNING),
        (-1, 99, Level.OK),
    ],
)
async def test_judges_a_certificate_by_its_window(settings: Settings, begins: int, ends: int, level: Level):
    folder = settings.server.certificate.parent
    write_certificate(folder, NOW + timedelta(days=begins), NOW + timedelta(days=ends))
    assert [finding.level for finding in await find(settings, "server.certificate")] == [level]


async def test_finds_a_key_that_belongs_to_another_certificate(settings: Settings):
    other = settings.server.certificate.read_bytes()
    write_certificate(settings.server.certificate.parent, NOW, NOW + timedelta(days=1))
    settings.server.certificate.write_bytes(other)
    (found,) = await find(settings, "server.private_key")
    assert "is not the key" in found.text


async def test_finds_keys_that_others_may_read(settings: Settings):
    settings.state.key_file.chmod(0o644)
    app_role(settings).secret_id_file.chmod(0o640)
    texts = [finding.text for finding in await examine(settings) if "others may read it" in finding.text]
    assert len(texts) == 2


async def test_looks_into_a_state_that_a_broker_has_open(settings: Settings):
    store = await open_store(settings.state.path, StoreOptions(bytes(32), "k"))
    try:
        view = look_into(settings.state.path)
        assert (view.installation, view.live_epoch) == (store.epoch.installation, store.epoch.number)
        assert await store.tenants() == []  # it goes on
    finally:
        await store.close()


async def test_sees_that_no_broker_runs(settings: Settings):
    store = await open_store(settings.state.path, StoreOptions(bytes(32), "k"))
    assert is_live(settings.state.path)
    await store.close()
    assert not is_live(settings.state.path)
    assert look_into(settings.state.path).live_epoch == 0


async def test_takes_no_epoch(settings: Settings):
    for number in (1, 2):
        store = await open_store(settings.state.path, StoreOptions(bytes(32), "k"))
        assert store.epoch.number == number
        await store.close()
        await examine(settings)


async def test_calls_a_state_that_is_none_a_problem(settings: Settings):
    write_private(settings.state.path, b"not a database at all")
    assert [finding.level for finding in await find(settings, "state")] == [Level.PROBLEM]
    with pytest.raises(StoreError, match="cannot be read"):
        look_into(settings.state.path)


def test_ends_with_3_and_says_each_finding_in_a_line(settings: Settings, tmp_path: Path):
    result = CliRunner().invoke(main, ["doctor", "--config", str(tmp_path / "toolcrib.toml")])
    assert result.exit_code == 3
    lines = result.stdout.splitlines()
    assert sum(line.startswith("problem  ") and " → " in line for line in lines) == 4


def test_says_the_same_to_programs(settings: Settings, tmp_path: Path):
    result = CliRunner().invoke(main, ["doctor", "-o", "json", "--config", str(tmp_path / "toolcrib.toml")])
    assert {item["level"] for item in json.loads(result.stdout)} == {"ok", "warning", "problem"}


def test_refuses_a_configuration_with_an_unknown_key(tmp_path: Path):
    (tmp_path / "toolcrib.toml").write_text(CONFIG.replace("run_dir", "rundir"))
    result = CliRunner().invoke(main, ["doctor", "--config", str(tmp_path / "toolcrib.toml")])
    assert result.exit_code == 2
    assert 'did you mean "run_dir"' in result.stderr


# --- what tools need ---
def view_of(role: str, engine: str = "database", tenant: str = "shop", bundle: str = "orders") -> StateView:
    """A state in which one bundle is registered."""
    text = MANIFEST.replace("BUNDLE", bundle).replace("ENGINE", engine).replace("ROLE", role)
    return StateView("i1", 0, (1, 1), 0, 0, 0, ((tenant, text),))


def with_patterns(settings: Settings, roles: tuple[str, ...], targets: tuple[str, ...]) -> Settings:
    tenant = settings.tenants["shop"].model_copy(update={"vault_roles": roles, "targets": targets})
    return settings.model_copy(update={"tenants": {"shop": tenant}})


@pytest.mark.parametrize(
    ("roles", "targets", "words"),
    [
        (("shop-*",), ("orders-db",), []),
        ((), ("orders-db",), ["names the Vault role shop-read, which no pattern"]),
        (("shop-*",), (), ["names the target orders-db, which no pattern"]),
        (("shop-*", "old-*"), ("*",), ['vault_roles: the pattern "old-*" covers nothing']),
        (("shop-*",), ("orders-db", "gone"), ['targets: the pattern "gone" covers nothing']),
    ],
)
def test_compares_a_tenants_patterns_with_its_tools(settings: Settings, roles, targets, words) -> None:
    found = list(check_tenants(with_patterns(settings, roles, targets), view_of("shop-read")))
    assert len(found) == len(words)
    assert all(word in finding.text for word, finding in zip(words, found, strict=True))


def test_says_nothing_of_role_patterns_before_there_are_tools(settings: Settings) -> None:
    assert list(check_tenants(with_patterns(settings, ("shop-*",), ()), None)) == []


@pytest.fixture
def at_vault(settings: Settings, dev_vault: DevVault) -> Settings:
    """The same installation, with a Vault that is there."""
    write_private(app_role(settings).role_id_file, dev_vault.role_id.reveal().encode())
    write_private(app_role(settings).secret_id_file, dev_vault.secret_id.reveal().encode())
    dev_vault.install_role("doctor-read", TARGET, [])
    dev_vault.install_tenant_key("shop")
    return settings.model_copy(
        update={"vault": settings.vault.model_copy(update={"address": dev_vault.address})}
    )


async def problems(settings: Settings, view: StateView) -> list[str]:
    found = await check_vault(settings, view)
    return [finding.text for finding in found if finding.level is Level.PROBLEM]


async def test_finds_nothing_wrong_with_a_vault_that_holds_what_tools_need(at_vault: Settings) -> None:
    assert await problems(at_vault, view_of("doctor-read")) == []


async def test_names_the_role_that_a_tool_needs_and_vault_lacks(at_vault: Settings) -> None:
    [first, second] = await problems(at_vault, view_of("doctor-lost"))
    assert "Vault has no database role doctor-lost" in first
    assert "policy toolcrib-tool-database-doctor-lost: it is missing" in second


async def test_names_an_engine_that_the_server_lacks(at_vault: Settings) -> None:
    found = await problems(at_vault, view_of("people", engine="ldap"))
    assert any("Vault has no engine at ldap/" in text for text in found)


async def test_names_a_tenant_without_a_data_key(at_vault: Settings) -> None:
    tenants = {"newcomer": at_vault.tenants["shop"]}
    found = await problems(at_vault.model_copy(update={"tenants": tenants}), view_of("doctor-read"))
    assert found == ["data key of tenant newcomer: it is missing: the tenant's writes are refused"]


async def test_names_the_keys_of_an_issuer_or_says_why_there_are_none(tmp_path):
    with LocalIssuer() as served:
        url, file = served.keys_url, tmp_path / "keys.json"
        (good,) = await check_issuer(make_identity(jwks_url=url).issuers[0])
        served.down = True
        (down,) = await check_issuer(make_identity(jwks_url=url).issuers[0])
    (missing,) = await check_issuer(make_identity(jwks_file=file).issuers[0])
    assert (good.level, good.text) == (Level.OK, "1 key (k1); a broker reads them again every 300 s")
    assert (down.level, missing.level) == (Level.PROBLEM, Level.PROBLEM)
    assert "503" in down.text
    assert str(file) in missing.text
