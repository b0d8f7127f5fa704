"""A Vault with two roles of each engine, one broken, and a login at a target for the static ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import requests

from credentials.bootstrap.roles import define_role
from credentials.dev_engines import make_static_login, put_client, put_secret
from credentials.dev_postgres import DevPostgres
from credentials.dev_vault import DevVault
from credentials.engines import DEFAULT_MOUNTS, ENGINES
from credentials.lease import CallTag, CredentialWanted
from credentials.policies import TOKEN_ROLE, tool_policy_name
from credentials.secret import Secret
from tests.parts.token_server import Client, TokenServer
from tests.parts.vault import TARGET

A, B, BROKEN, NONE = "a", "b", "broken", "none"
TAG = CallTag("c019b00000000aaaaaaaaaaaaa", "acme", "staging", "5e3c", "maria", "refund-desk")
NAMES = tuple(name for name, engine in ENGINES.items() if engine.plugin != "ldap")
"""The engines that every Vault and OpenBao has."""
PASSWORD = "correct horse battery staple"
COMMAND = "/usr/bin/true"
OTHER_LOGIN = "database-static-x"

DEFINITIONS: dict[str, dict[str, Any]] = {
    "database": {"target": TARGET, "grants": []},
    "database_static": {"engine": "database_static", "target": TARGET},
    "kv": {"engine": "kv"},
    "pki": {"engine": "pki"},
    "ssh": {"engine": "ssh", "principal": "git", "force_command": COMMAND},
    "transit": {"engine": "transit", "type": "ed25519"},
    "oauth2": {"engine": "oauth2", "grant": "client_credentials", "scope": "read"},
}
"""What a roles file says of each engine's role."""
SECRET_PATHS = {
    "database": "creds/{role}",
    "database_static": "static-creds/{role}",
    "kv": "data/{role}",
    "pki": "sign/{role}",
    "ssh": "sign/{role}",
    "transit": "sign/{role}",
    "oauth2": "data/oauth2/{role}",
}
"""What gives out a credential, by engine."""


@dataclass(frozen=True, slots=True)
class Ids:
    """What the call record keeps of a lease."""

    lease_id: str
    accessor: str
    engine: str
    role: str


def role_of(engine: str, which: str = A) -> str:
    """Name a role; Vault wants different names for a database's dynamic and static ones."""
    return f"{engine.replace('_', '-')}-{which}"


def wanted(engine: str, which: str = A, max_signatures: int = 1) -> list[CredentialWanted]:
    """Return what a manifest with one credential of an engine wants."""
    return [CredentialWanted("thing", engine, role_of(engine, which), max_signatures)]


def secret_path(engine: str, which: str) -> str:
    """Return the path that gives out a role's credential."""
    path = SECRET_PATHS[engine].format(role=role_of(engine, which))
    return f"{DEFAULT_MOUNTS[ENGINES[engine].plugin]}/{path}"


def install(vault: DevVault, postgres: DevPostgres, tokens: TokenServer, which: str) -> None:
    """Make what the engines need, and a role of each."""
    client = role_of("oauth2", which)
    tokens.clients[client] = Client(secret=f"{PASSWORD} {which}", scopes=frozenset({"read"}))
    put_client(vault, client, tokens.token_url, f"{PASSWORD} {which}")
    login = role_of("database_static", which)
    make_static_login(postgres, login)
    put_secret(vault, role_of("kv", which), {"username": "robot", "password": f"{PASSWORD} {which}"})
    more = {"database_static": {"username": login}, "pki": {"name": f"{which}.tools.test"}}
    more["oauth2"] = {"token_url": tokens.token_url, "client_id": client}
    vault.bootstrap(
        definitions=[
            define_role(role_of(engine, which), fields | more.get(engine, {}))
            for engine, fields in DEFINITIONS.items()
        ]
    )


def break_roles(vault: DevVault) -> None:
    """Make a role of each engine that is not fit to mint from, as somebody might by hand."""
    broken = {engine: role_of(engine, BROKEN) for engine in NAMES}
    creation = ['CREATE ROLE "{{name}}"']
    vault.write(f"database/roles/{broken['database']}", db_name=TARGET, creation_statements=creation)
    login = {"db_name": TARGET, "username": OTHER_LOGIN, "rotation_period": 86_400}
    vault.write(f"database/static-roles/{broken['database_static']}", **login)
    put_secret(vault, broken["kv"], {"password": "short"})
    vault.write(f"toolcrib-pki/roles/{broken['pki']}", allow_any_name=True)
    user = {"allowed_users": "*", "default_user": "root", "default_extensions": {"permit-pty": ""}}
    vault.write(f"toolcrib-ssh/roles/{broken['ssh']}", key_type="ca", allow_user_certificates=True, **user)
    vault.write(f"toolcrib-sign/keys/{broken['transit']}", type="ed25519", exportable=True)
    role = {"grant": "client_credentials", "token_url": "http://login.example.org/token", "client_id": "x"}
    vault.write(f"toolcrib-kv/metadata/oauth2/{broken['oauth2']}", custom_metadata=role)
    put_client(vault, broken["oauth2"], role["token_url"], PASSWORD)
    vault.bootstrap(roles=list(broken.items()))


def ask_as(
    vault: DevVault, token: Secret, path: str, body: Mapping[str, Any] | None = None
) -> tuple[int, dict[str, Any]]:
    """Ask with some token: read, or write where there is a body. Returns the status and the answer."""
    method = "GET" if body is None else "POST"
    headers = {"X-Vault-Token": token.reveal()}
    answer = requests.request(method, f"{vault.address}/v1/{path}", headers=headers, json=body, timeout=10)
    return answer.status_code, answer.json() if answer.content else {}


def make_child(vault: DevVault, session_token: Secret, engine: str, which: str) -> Secret:
    """Make a child as a broker does, or a thief with its token; it may ask a hundred times."""
    body = {
        "policies": [tool_policy_name(engine, role_of(engine, which))],
        "ttl": "60s",
        "num_uses": 100,
        "no_default_policy": True,
        "renewable": False,
        "meta": {"call_id": "c1"},
    }
    status, answer = ask_as(vault, session_token, f"auth/token/create/{TOKEN_ROLE}", body)
    assert status == 200, answer
    return Secret(answer["auth"]["client_token"])


@pytest.fixture
def session_token(engines_vault: DevVault) -> Iterator[Secret]:
    """A broker's token, as a thief has it; what hangs under it goes with it."""
    login = {"role_id": engines_vault.role_id.reveal(), "secret_id": engines_vault.secret_id.reveal()}
    token = Secret(engines_vault.write("auth/approle/login", **login)["auth"]["client_token"])
    yield token
    engines_vault.write("auth/token/revoke", token=token.reveal())


@pytest.fixture(scope="package")
def token_server() -> Iterator[TokenServer]:
    """An authorization server, for every test of these."""
    with TokenServer() as server:
        yield server


@pytest.fixture(scope="package")
def engines_vault(
    dev_vault: DevVault, dev_postgres: DevPostgres, token_server: TokenServer
) -> Iterator[DevVault]:
    """The shared Vault with the roles."""
    for which in (A, B):
        install(dev_vault, dev_postgres, token_server, which)
    make_static_login(dev_postgres, OTHER_LOGIN)
    break_roles(dev_vault)
    yield dev_vault
    for which in (A, B, BROKEN):
        dev_vault.delete(f"database/static-roles/{role_of('database_static', which)}")
    logins = [role_of("database_static", A), role_of("database_static", B), OTHER_LOGIN]
    dev_postgres.run_script("".join(f'DROP ROLE "{name}";' for name in logins))
