"""Attack: who has a call's child token asks Vault's engines for more than the role is meant to give.

A thief of the broker's session can make such children. Each question first succeeds with a policy that names
the path alone (the control), and is then denied by ours, which names the parameters, too.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from credentials.bootstrap.roles import define_role
from credentials.dev_vault import DevVault
from credentials.engines.pki import make_request
from credentials.policies import tool_policy_name
from credentials.secret import Secret
from tests.credentials.engines.conftest import ask_as

COMMAND = "/usr/bin/true"
NAME = "asks.tools.test"
ROLES = {
    "pki": {"engine": "pki", "name": NAME},
    "ssh": {"engine": "ssh", "principal": "git", "force_command": COMMAND},
    "transit": {"engine": "transit", "type": "ed25519"},
}
PATHS = {"pki": "toolcrib-pki/sign/", "ssh": "toolcrib-ssh/sign/", "transit": "toolcrib-sign/sign/"}
Ask = Callable[..., tuple[int, dict[str, Any]]]


def role_of(engine: str) -> str:
    return f"asks-for-more-{engine}"


@pytest.fixture(scope="module")
def vault(dev_vault: DevVault) -> DevVault:
    dev_vault.bootstrap(
        definitions=[define_role(role_of(engine), fields) for engine, fields in ROLES.items()]
    )
    for engine, path in PATHS.items():
        policy = f'path "{path}{role_of(engine)}" {{ capabilities = ["update"] }}'
        dev_vault.write(f"sys/policies/acl/asks-for-more-{engine}", policy=policy)
    return dev_vault


@pytest.fixture
def ask(vault: DevVault) -> Iterator[Ask]:
    """Asks as a child with some policy."""
    made: list[Secret] = []

    def as_child(policy: str, path: str, body: dict[str, object]) -> tuple[int, dict[str, Any]]:
        answer = vault.write("auth/token/create", policies=[policy], ttl="60s", no_default_policy=True)
        made.append(Secret(answer["auth"]["client_token"]))
        return ask_as(vault, made[-1], path, body)

    yield as_child
    for token in made:
        vault.write("auth/token/revoke", token=token.reveal())


def ours(engine: str) -> str:
    return tool_policy_name(engine, role_of(engine))


def plain(engine: str) -> str:
    return f"asks-for-more-{engine}"


def without_command() -> dict[str, object]:
    form = serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    public_key = ed25519.Ed25519PrivateKey.generate().public_key().public_bytes(*form).decode()
    return {"public_key": public_key, "ttl": "60s", "critical_options": {"source-address": "127.0.0.1"}}


def for_weeks() -> dict[str, object]:
    request = make_request(ec.generate_private_key(ec.SECP256R1()), NAME)
    end = (datetime.now(UTC) + timedelta(days=20)).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"csr": request, "common_name": NAME, "not_after": end}


def many_at_once() -> dict[str, object]:
    text = base64.b64encode(b"x").decode()
    return {"input": text, "batch_input": [{"input": text}] * 50}


def test_control_a_path_alone_lets_the_forced_command_be_dropped(ask) -> None:
    status, answer = ask(plain("ssh"), PATHS["ssh"] + role_of("ssh"), without_command())
    certificate = serialization.load_ssh_public_identity(answer["data"]["signed_key"].strip().encode())
    assert isinstance(certificate, serialization.SSHCertificate)
    assert status == 200
    assert b"force-command" not in certificate.critical_options


def test_control_a_path_alone_lets_a_certificate_outlast_the_role(ask) -> None:
    status, answer = ask(plain("pki"), PATHS["pki"] + role_of("pki"), for_weeks())
    certificate = x509.load_pem_x509_certificate(answer["data"]["certificate"].encode())
    assert status == 200
    assert certificate.not_valid_after_utc > datetime.now(UTC) + timedelta(days=10)


def test_control_a_path_alone_lets_many_texts_be_signed_at_once(ask) -> None:
    status, answer = ask(plain("transit"), PATHS["transit"] + role_of("transit"), many_at_once())
    assert (status, len(answer["data"]["batch_results"])) == (200, 50)


@pytest.mark.parametrize(
    ("engine", "make_body", "more"),
    [
        ("ssh", without_command, "critical_options"),
        ("pki", for_weeks, "not_after"),
        ("transit", many_at_once, "batch_input"),
    ],
)
def test_gets_no_more_than_the_role_gives(ask, engine, make_body, more) -> None:
    body = make_body()
    assert ask(ours(engine), PATHS[engine] + role_of(engine), body)[0] == 403
    del body[more]
    body |= {} if engine == "transit" else {"ttl": "60s"}
    assert ask(ours(engine), PATHS[engine] + role_of(engine), body)[0] == 200
