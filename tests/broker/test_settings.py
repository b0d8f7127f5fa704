"""The configuration: what is wrong is named with its remedy, and nothing is guessed."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker.settings import SettingsInvalid, read_settings
from broker.vault_login import make_login, make_tuning
from credentials.logins import ClientCertificate, Jwt, StaticToken

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
        (GOOD.replace("http://127.0.0.1:8200", "http://vault.example:8200"), "use https://"),
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


LOGIN = GOOD[GOOD.index("[vault.login]") : GOOD.index("[targets.orders-db]")]
LOGINS = {
    "jwt": ('role = "broker"\ntoken_file = "jwt"', Jwt),
    "kubernetes": ('role = "broker"', Jwt),
    "cert": ('role = "broker"\ncertificate = "c.pem"\nprivate_key = "/etc/c.key"', ClientCertificate),
    "token": ('token_file = "token"', StaticToken),
}


def with_login(method: str, fields: str, development: bool = True) -> str:
    text = GOOD.replace(LOGIN, f'[vault.login]\nmethod = "{method}"\n{fields}\n')
    return f"development = {str(development).lower()}\n{text}"


@pytest.mark.parametrize("method", LOGINS)
def test_reads_each_way_to_log_in(tmp_path, method):
    settings = read_settings(write(tmp_path, with_login(method, LOGINS[method][0])))
    assert settings.vault.login.method == method
    assert all(file.is_absolute() for file in settings.vault.login.files.values())
    with pytest.raises(SettingsInvalid, match="vault.login: .*cannot be read"):
        make_login(settings.vault)


@pytest.mark.parametrize("method", LOGINS)
def test_makes_each_login(tmp_path, method):
    text = with_login(method, LOGINS[method][0].replace("/etc/", ""))
    for name in ("jwt", "c.pem", "c.key", "token", "account"):
        (tmp_path / name).write_text("something")
    if method == "kubernetes":
        text = text.replace('role = "broker"', 'role = "broker"\ntoken_file = "account"')
    vault = read_settings(write(tmp_path, text)).vault
    assert isinstance(make_login(vault), LOGINS[method][1])
    shown = make_tuning(vault).certificate
    assert shown == ((tmp_path / "c.pem", tmp_path / "c.key") if method == "cert" else None)


def test_refuses_a_static_token_outside_development(tmp_path):
    text = with_login("token", 'token_file = "token"', development=False)
    with pytest.raises(SettingsInvalid, match='method "token" is for development only'):
        read_settings(write(tmp_path, text))


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (GOOD.replace('method = "approle"', 'method = "password"'), "vault.login"),
        (GOOD.replace(LOGIN, ""), "vault.login"),
        (GOOD.replace("secret_id_file", "secret_file"), 'did you mean "secret_id_file"?'),
        (with_login("jwt", 'role = ""\ntoken_file = "t"'), "vault.login.jwt.role"),
        (GOOD.replace("[vault.login]", "renew_second = 1\n[vault.login]"), 'did you mean "renew_seconds"?'),
        (GOOD.replace("[vault.login]", "renew_seconds = 0\n[vault.login]"), "vault.renew_seconds"),
        (GOOD.replace("[vault.login]", 'mounts = {nomad = "x"}\n[vault.login]'), "vault.mounts.nomad"),
        (GOOD.replace("[vault.login]", 'mounts = {kv = "../x"}\n[vault.login]'), "vault.mounts.kv"),
    ],
)
def test_names_what_is_wrong_with_vault(tmp_path, wrong, named):
    with pytest.raises(SettingsInvalid, match=named.replace("?", r"\?").replace("[", r"\[")):
        read_settings(write(tmp_path, wrong))


def test_puts_the_operators_mounts_over_the_usual_ones(tmp_path):
    text = GOOD.replace("[vault.login]", 'mounts = { database = "team/db" }\n[vault.login]')
    mounts = make_tuning(read_settings(write(tmp_path, text)).vault).mounts
    assert (mounts["database"], mounts["kv"]) == ("team/db", "toolcrib-kv")
