"""The configuration: what is wrong is named with its remedy, and nothing is guessed."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker.settings import SettingsInvalid, read_settings

GOOD = """
environments = ["prod", "staging"]
run_dir = "run"
[server]
certificate = "server.pem"
private_key = "server.key"
client_ca = "/etc/toolcrib/ca.pem"
trust_domain = "example.org"
[state]
path = "state.db"
key_file = "broker.key"
[vault]
address = "http://127.0.0.1:8200"
[vault.login]
method = "approle"
role_id_file = "role_id"
secret_id_file = "secret_id"
[targets.orders-db]
kind = "postgresql"
host = "127.0.0.1"
port = 5432
settings = { database = "shop" }
[tenants.shop]
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "toolcrib.toml"
    path.write_text(text)
    return path


def test_reads_paths_relative_to_the_file_that_names_them(tmp_path):
    settings = read_settings(write(tmp_path, GOOD))
    assert settings.state.path == tmp_path / "state.db"
    assert settings.server.client_ca == Path("/etc/toolcrib/ca.pem")
    assert settings.default_environment == "prod"


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (GOOD.replace("trust_domain", "trust_domian"), 'did you mean "trust_domain"?'),
        (GOOD.replace("[tenants.shop]", "[tenants.shop]\nmax_request_byte = 3"), "max_request_bytes"),
        (GOOD.replace('kind = "postgresql"', 'kind = "mysql"'), "targets.orders-db.kind"),
        (GOOD.replace("port = 5432", "port = 70000"), "targets.orders-db.port"),
        (GOOD.replace('environments = ["prod", "staging"]', "environments = []"), "environments"),
        (GOOD.replace("[tenants.shop]", "tenants = {}"), "tenants"),
        (GOOD.replace("[state]", 'platform_operators = ["pia"]\n[state]'), '"pia" is no operator'),
        (
            GOOD.replace(
                "[state]", 'platform_operators = ["spiffe://example.org/tenant/a/agent/pia"]\n[state]'
            ),
            "spiffe://example.org/tenant/TENANT/operator/NAME",
        ),
        ("environments = [", "is no TOML"),
    ],
)
def test_names_the_key_and_the_remedy(tmp_path, wrong, named):
    with pytest.raises(SettingsInvalid, match=named.replace("?", r"\?").replace("[", r"\[")):
        read_settings(write(tmp_path, wrong))


def test_refuses_a_file_that_is_not_there(tmp_path):
    with pytest.raises(SettingsInvalid, match="--config"):
        read_settings(tmp_path / "nowhere.toml")
