"""Attack: somebody has the broker's token, and asks Vault for everything that it might give.

It gives no tool's secret directly; what it can make is a child for one call's credential, through one token
role, with a label that stands in Vault's audit. The controls ask the same with a token whose policy is broad.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from requests.adapters import HTTPAdapter

from credentials.bootstrap.roles import define_role
from credentials.dev_engines import make_static_login, put_client, put_secret
from credentials.dev_postgres import DevPostgres
from credentials.dev_vault import DevVault
from credentials.policies import MAX_CHILD_USES, tool_policy_name
from credentials.secret import Secret
from tests.parts import REAL_PARTS, without
from tests.parts.vault import TARGET

DENIED = 403
CREATE = "auth/token/create/toolcrib-call"
PUBLIC_KEY = Ed25519PrivateKey.generate().public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
BODIES: Mapping[str, dict[str, object]] = {
    "pki": {"common_name": "NAME.example.org", "ttl": "60s"},
    "ssh": {"public_key": PUBLIC_KEY.decode(), "ttl": "60s"},
    "transit": {"input": base64.b64encode(b"pay everything").decode()},
    "oauth2": {"input": base64.b64encode(b"I am everybody").decode(), "key_version": 1},
}
SECRETS = [
    ("database", "get", "database/creds/{name}-db"),
    ("database_static", "get", "database/static-creds/{name}-login"),
    ("kv", "get", "toolcrib-kv/data/{name}-kv"),
    ("pki", "post", "toolcrib-pki/issue/{name}-pki"),
    ("ssh", "post", "toolcrib-ssh/sign/{name}-ssh"),
    ("transit", "post", "toolcrib-sign/sign/{name}-sign"),
    ("oauth2", "get", "toolcrib-kv/data/oauth2/{name}-crm"),
    ("oauth2", "post", "toolcrib-sign/sign/oauth2_{name}-crm"),
]
"""How each engine gives out its secret, by the role of a tool."""
ROLES = {
    "database": "db",
    "database_static": "login",
    "kv": "kv",
    "pki": "pki",
    "ssh": "ssh",
    "transit": "sign",
    "oauth2": "crm",
}
TOKEN_URL = "https://login.example.org/token"


def define_roles(name: str) -> list[Any]:
    """A role of each engine for one tool."""
    return [
        define_role(f"{name}-db", {"target": TARGET, "grants": []}),
        define_role(
            f"{name}-login", {"engine": "database_static", "target": TARGET, "username": f"{name}-stays"}
        ),
        define_role(f"{name}-kv", {"engine": "kv"}),
        define_role(f"{name}-pki", {"engine": "pki", "name": f"{name}.example.org"}),
        define_role(f"{name}-ssh", {"engine": "ssh", "principal": name, "force_command": "true"}),
        define_role(f"{name}-sign", {"engine": "transit", "type": "ed25519"}),
        define_role(
            f"{name}-crm",
            {
                "engine": "oauth2",
                "grant": "token_exchange",
                "token_url": TOKEN_URL,
                "client_id": name,
                "issuer": "https://toolcrib.example.org",
            },
        ),
    ]


@pytest.fixture(scope="module")
def vault(tmp_path_factory, dev_postgres: DevPostgres) -> Iterator[DevVault]:
    """A Vault with tools "mine" and "theirs", which have a role of each engine."""
    if without("openbao"):
        pytest.skip("without openbao, as TOOLCRIB_WITHOUT says")
    with DevVault(tmp_path_factory.mktemp("stolen")) as server:
        REAL_PARTS.append(f"OpenBao {server.version}")
        server.connect_database(TARGET, dev_postgres)
        for name in ("mine", "theirs"):
            make_static_login(dev_postgres, f"{name}-stays")
            put_secret(server, f"{name}-kv", {"token": f"{name}-0123456789"})
            put_client(server, f"{name}-crm", TOKEN_URL, f"{name}-0123456789")
        definitions = define_roles("mine") + define_roles("theirs")
        server.bootstrap(definitions=definitions, tenants=["acme"])
        server.write(
            "sys/policies/acl/broad",
            policy='path "*" { capabilities = ["create", "read", "update", "delete", "list", "sudo"] }',
        )
        yield server
        server.write("sys/leases/revoke-prefix/database/creds", sync=True)
        for name in ("mine", "theirs"):
            dev_postgres.run_script(f'DROP ROLE "{name}-stays";')


class Holder:
    """Whoever holds a token."""

    def __init__(self, vault: DevVault, token: Secret) -> None:
        self._base, self._token = f"{vault.address}/v1/", token

    def ask(self, method: str, path: str, body: Any = None, address: str = "127.0.0.1") -> requests.Response:
        """Send one request, from an address of this machine."""
        with requests.Session() as http:
            http.trust_env = False
            http.mount("http://", _From(address))
            headers = {"X-Vault-Token": self._token.reveal()}
            return http.request(method.upper(), self._base + path, json=body, headers=headers, timeout=10)


class _From(HTTPAdapter):
    """Connects from a given address."""

    def __init__(self, address: str) -> None:
        self._address = address
        super().__init__()

    def init_poolmanager(self, *args: Any, **values: Any) -> None:
        super().init_poolmanager(*args, **values, source_address=(self._address, 0))


@pytest.fixture
def thief(vault: DevVault) -> Iterator[Holder]:
    """Has the token of a broker's session."""
    body = {"role_id": vault.role_id.reveal(), "secret_id": vault.secret_id.reveal()}
    auth = vault.write("auth/approle/login", **body)["auth"]
    yield Holder(vault, Secret(auth["client_token"]))
    vault.write("auth/token/revoke-accessor", accessor=auth["accessor"])


@pytest.fixture
def careless(vault: DevVault) -> Iterator[Holder]:
    """The control: has the token of a session with a broad policy."""
    auth = vault.write("auth/token/create", policies=["broad"], ttl="5m")["auth"]
    yield Holder(vault, Secret(auth["client_token"]))
    vault.write("auth/token/revoke-accessor", accessor=auth["accessor"])


def child_body(policy: str, **changes: object) -> dict[str, object]:
    """What the broker sends for a child, with changes; None leaves a field out."""
    body: dict[str, object] = {
        "policies": [policy],
        "ttl": "60s",
        "num_uses": 5,
        "no_default_policy": True,
        "renewable": False,
        "display_name": "toolcrib",
        "meta": {"call_id": "call-7", "tenant": "acme", "environment": "prod", "digest": "5e3c"},
    }
    return {name: value for name, value in {**body, **changes}.items() if value is not None}


def policy_of(engine: str, name: str) -> str:
    return tool_policy_name(engine, f"{name}-{ROLES[engine]}")


def make_child(vault: DevVault, thief: Holder, policy: str, **changes: object) -> Holder:
    made = thief.ask("post", CREATE, child_body(policy, **changes))
    assert made.status_code == 200, made.text
    return Holder(vault, Secret(made.json()["auth"]["client_token"]))


def body_of(engine: str, name: str) -> dict[str, object] | None:
    body = BODIES.get(engine)
    return None if body is None else json.loads(json.dumps(body).replace("NAME", name))


def read_audit(vault: DevVault) -> list[dict[str, Any]]:
    return [json.loads(line) for line in vault.audit_log.read_text().splitlines()]


# --- secrets ---
@pytest.mark.parametrize(("engine", "method", "path"), SECRETS)
def test_reads_no_tools_secret(thief: Holder, careless: Holder, engine: str, method: str, path: str) -> None:
    request = (method, path.format(name="mine"), body_of(engine, "mine"))
    assert careless.ask(*request).status_code == 200
    assert thief.ask(*request).status_code == DENIED


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("get", f"database/config/{TARGET}", None),
        ("list", "toolcrib-kv/metadata", None),
        ("post", "toolcrib-kv/data/mine-kv", {"data": {"token": "changed-0123456789"}}),
        ("post", "toolcrib-pki/sign-verbatim", {"csr": "x"}),
        ("get", "toolcrib-sign/export/signing-key/mine-sign", None),
        ("post", "toolcrib-sign/keys/mine-sign/rotate", {}),
        ("post", "toolcrib-kv/metadata/oauth2/mine-crm", {"custom_metadata": {"token_url": "https://evil"}}),
        ("post", "toolcrib-sign/keys/oauth2_mine-crm/rotate", {}),
        ("get", "transit/export/encryption-key/toolcrib-acme", None),
        ("post", "transit/encrypt/toolcrib-acme", {"plaintext": "eA=="}),
        ("post", "transit/keys/toolcrib-acme/config", {"deletion_allowed": False}),
    ],
)
def test_gets_around_no_engines_own_doors(thief: Holder, careless: Holder, method, path, body) -> None:
    assert careless.ask(method, path, body).status_code != DENIED
    assert thief.ask(method, path, body).status_code == DENIED


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("get", "sys/mounts", None),
        ("list", "sys/policies/acl", None),
        ("post", "sys/policies/acl/toolcrib-tool-kv-mine-kv", {"policy": 'path "x" {}'}),
        ("post", "sys/policies/acl/toolcrib-broker", {"policy": ""}),
        ("post", "auth/token/roles/toolcrib-call", {"allowed_policies_glob": ["toolcrib-tool-*"]}),
        ("post", "auth/approle/role/toolcrib-broker", {"token_period": 30}),
        ("post", "auth/approle/role/toolcrib-broker/secret-id", {}),
        ("get", "auth/approle/role/toolcrib-broker/role-id", None),
        ("post", "database/roles/mine-db", {"db_name": TARGET}),
        ("post", "database/rotate-root/nowhere", {}),
        ("get", "sys/audit", None),
        ("list", "auth/token/accessors", None),
        ("list", "sys/leases/lookup/database/creds", None),
        ("post", "sys/leases/revoke-prefix/toolcrib-sign", {}),
        ("post", "auth/token/create", {}),
        ("post", "auth/token/create-orphan", {}),
    ],
)
def test_changes_and_lists_nothing(vault, thief: Holder, careless: Holder, method, path, body) -> None:
    assert thief.ask(method, path, body).status_code == DENIED
    assert careless.ask(method, path, body).status_code != DENIED
    vault.bootstrap(definitions=define_roles("mine"))


def test_is_worth_nothing_at_another_address(thief: Holder, careless: Holder) -> None:
    request = ("get", "auth/token/lookup-self", None, "127.0.0.2")
    assert careless.ask(*request).status_code == 200
    assert thief.ask(*request).status_code == DENIED


# --- children ---
@pytest.mark.parametrize(
    "changes",
    [
        {"policies": ["root"]},
        {"policies": ["broad"]},
        {"policies": ["toolcrib-broker"]},
        {"policies": ["toolcrib-tool-kv-mine-kv", "default"]},
        {"policies": None},
        {"no_default_policy": False},
        {"no_default_policy": None},
        {"renewable": True},
        {"num_uses": None},
        {"ttl": None},
        {"meta": None},
        {"period": "24h"},
        {"explicit_max_ttl": "24h"},
        {"no_parent": True},
        {"type": "batch"},
        {"id": "chosen-by-the-thief"},
        {"entity_alias": "somebody"},
    ],
    ids=str,
)
def test_makes_no_child_but_of_the_one_kind(vault, thief: Holder, changes) -> None:
    policy = policy_of("kv", "mine")
    assert thief.ask("post", CREATE, child_body(policy)).status_code == 200
    assert thief.ask("post", CREATE, child_body(policy, **changes)).status_code != 200
    possible = {name: value for name, value in changes.items() if name not in ("id", "entity_alias")}
    if possible.get("type") == "batch":
        possible["num_uses"] = None  # such tokens do not count
    made = Holder(vault, vault.root_token).ask("post", "auth/token/create", child_body(policy, **possible))
    assert made.status_code == 200


def test_makes_children_that_end_with_the_session(vault: DevVault, thief: Holder) -> None:
    policy = policy_of("kv", "theirs")
    child = make_child(vault, thief, policy, ttl="1000h", num_uses=5000)
    told = child.ask("get", "auth/token/lookup-self")
    assert told.status_code == DENIED  # it may not even look at itself
    [found] = [token for token in vault.list_tokens() if token["policies"] == [policy]]
    assert (found["orphan"], found.get("period", 0), found["ttl"] <= 3600) == (False, 0, True)
    assert found["num_uses"] <= MAX_CHILD_USES
    thief.ask("post", "auth/token/revoke-self", {})
    assert child.ask("get", "toolcrib-kv/data/theirs-kv").status_code == DENIED


@pytest.mark.parametrize(("engine", "method", "path"), SECRETS)
def test_makes_a_child_of_one_tool_that_reads_no_other(vault, thief, engine, method, path) -> None:
    child = make_child(vault, thief, policy_of(engine, "mine"))
    foreign = child.ask(method, path.format(name="theirs"), body_of(engine, "theirs"))
    own = child.ask(method, _own_path(path), _own_body(engine))
    assert (own.status_code, foreign.status_code) == (200, DENIED), own.text


def _own_path(path: str) -> str:
    """The way in which the broker itself asks; the engine pki signs a request there."""
    return path.format(name="mine").replace("/issue/", "/sign/")


def _own_body(engine: str) -> dict[str, object] | None:
    if engine != "pki":
        return body_of(engine, "mine")
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    csr = request.public_bytes(Encoding.PEM).decode()
    return {"csr": csr, "common_name": "mine.example.org", "ttl": "60s"}


@pytest.mark.parametrize("path", [CREATE, "auth/token/create", "auth/token/renew-self", "sys/leases/revoke"])
def test_makes_a_child_that_has_none_of_the_sessions_rights(vault, thief: Holder, path: str) -> None:
    child = make_child(vault, thief, policy_of("kv", "mine"))
    body = child_body(policy_of("kv", "theirs")) if "create" in path else {"lease_id": "x", "sync": True}
    assert child.ask("post", path, body).status_code == DENIED


# --- what remains, and where it is seen ---
def test_gets_a_secret_in_two_requests_that_both_stand_in_the_audit(vault, thief: Holder) -> None:
    label = {"call_id": "call-of-the-thief", "tenant": "acme", "environment": "prod", "digest": "0"}
    child = make_child(vault, thief, policy_of("kv", "theirs"), meta=label)
    assert child.ask("get", "toolcrib-kv/data/theirs-kv").status_code == 200
    seen = [
        (entry["request"]["path"], entry["auth"]["metadata"] == label)
        for entry in read_audit(vault)
        if entry["type"] == "response" and "call-of-the-thief" in json.dumps(entry)
    ]
    assert seen == [(CREATE, False), ("toolcrib-kv/data/theirs-kv", True)]


def test_makes_a_child_without_a_call_id_that_stands_out_in_the_audit(vault, thief: Holder) -> None:
    make_child(vault, thief, policy_of("kv", "theirs"), meta={})
    made = [
        entry["response"]["auth"]
        for entry in read_audit(vault)
        if entry["type"] == "response"
        and entry["request"]["path"] == CREATE
        and "auth" in entry.get("response", {})
    ]
    assert "call_id" not in (made[-1].get("metadata") or {})
    assert made[-1]["accessor"]  # by which it can be ended
