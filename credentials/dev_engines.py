"""What an operator lays beneath the engines (docs/engines/), for development and tests: CAs, secrets, logins.

Roles and policies are written by `DevVault.bootstrap`, as for an operator.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from credentials.dev_postgres import VAULT_ROLE, DevPostgres
from credentials.engines import DEFAULT_MOUNTS
from credentials.engines.oauth2.assertion import AssertionKey
from credentials.engines.oauth2.role import key_name, secret_path
from credentials.engines.transit import write_public

KV, PKI, SSH, TRANSIT = (DEFAULT_MOUNTS[plugin] for plugin in ("kv", "pki", "ssh", "transit"))


class Writer(Protocol):
    """A Vault that one may write to and read from."""

    def write(self, path: str, **values: object) -> dict[str, Any]:
        """Write, and return the answer."""

    def read(self, path: str) -> dict[str, Any]:
        """Read, and return the answer."""


def install_authorities(vault: Writer) -> None:
    """Make the CAs of the engines pki and ssh."""
    vault.write(
        f"{PKI}/root/generate/internal",
        common_name="Toolcrib development CA for tools",
        key_type="ec",
        key_bits=256,
        ttl="744h",
    )
    # Each revocation writes the whole list anew: without this it would be slower with each call.
    tidy = {"tidy_revoked_certs": True, "tidy_cert_store": True, "safety_buffer": "60s"}
    vault.write(f"{PKI}/config/auto-tidy", enabled=True, interval_duration="10m", **tidy)
    vault.write(f"{SSH}/config/ca", generate_signing_key=True, key_type="ed25519")


def read_client_authority(vault: Writer) -> str:
    """Return the certificate, in PEM, by which a target knows the certificates of tools."""
    return str(vault.read(f"{PKI}/cert/ca")["data"]["certificate"])


def read_revocation_list(vault: Writer) -> str:
    """Return the list of revoked certificates, in PEM, as it is now."""
    return str(vault.read(f"{PKI}/cert/crl")["data"]["certificate"])


def read_ssh_authority(vault: Writer) -> str:
    """Return the public key, in OpenSSH's format, by which a target knows the certificates of tools."""
    return str(vault.read(f"{SSH}/config/ca")["data"]["public_key"]).strip()


def put_secret(vault: Writer, name: str, values: Mapping[str, str]) -> None:
    """Write a new version of a secret."""
    vault.write(f"{KV}/data/{name}", data=dict(values))


def read_assertion_keys(vault: Writer, role: str) -> list[dict[str, str]]:
    """Return the public keys, as JWKs, by which a server knows the assertions of a role of oauth2."""
    name = key_name(role)
    said = vault.read(f"{TRANSIT}/keys/{name}")["data"]
    public = {int(number): write_public(str(one["public_key"])) for number, one in said["keys"].items()}
    return AssertionKey(name, str(said["type"]), public, int(said["latest_version"])).to_jwks()["keys"]


def put_client(vault: Writer, role: str, token_url: str, client_secret: str = "", ca_pem: str = "") -> None:
    """Write the values of a role of the engine oauth2; what is empty is left out."""
    values = {"token_url": token_url, "client_secret": client_secret, "ca_pem": ca_pem}
    put_secret(vault, secret_path(role), {key: value for key, value in values.items() if value})


def make_static_login(postgres: DevPostgres, username: str, grants: Sequence[str] = ()) -> None:
    """Make a login of which Vault can change the password and end the sessions.

    Args:
        postgres: The target.
        username: Its name.
        grants: What it may do, for example "SELECT ON notes".
    """
    statements = [
        f'CREATE ROLE "{username}" LOGIN CONNECTION LIMIT 8',
        f'GRANT "{username}" TO {VAULT_ROLE} WITH ADMIN TRUE, INHERIT TRUE',
        *(f'GRANT {grant} TO "{username}"' for grant in grants),
    ]
    postgres.run_script(";\n".join(statements) + ";")
