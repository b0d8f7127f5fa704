"""Certificates for SSH, made for one call: one user name, one command. Vault's SSH engine as a CA.

The key is made here and only its public half goes to Vault. A certificate cannot be taken back: it ends by
its time, which is the call's. What it can do until then is its role's forced command.

Vault lets whoever may sign replace a role's critical options, and an empty list of allowed ones allows all:
that would drop the forced command. So a child may send a key and a time and nothing else, and what Vault
signed is read before it is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import SSHCertificate, SSHCertificateType

from credentials.engines.base import (
    Minted,
    Mounts,
    Order,
    find_differences,
    find_ttl_problems,
    read_definition,
)
from credentials.errors import Cause
from credentials.lease import CredentialWanted, SshLogin
from credentials.secret import Secret
from credentials.transport import VaultFault
from credentials.vault_api import VaultApi, take

MAX_BACKDATE_SECONDS = 300
"""How long before now a certificate may begin, for targets whose clock is late."""
SOURCE_ADDRESS = "source-address"
"""The critical option that an operator may add: from where the certificate is good."""
_ONE_USER = "the certificate is for one user name"
REQUIRED: Mapping[str, tuple[object, str]] = {
    "key_type": ("ca", "certificates are wanted, no passwords"),
    "allow_user_certificates": (True, "the certificate is for a user"),
    "allow_host_certificates": (False, "the certificate is for a user"),
    "allowed_users_template": (False, _ONE_USER),
    "default_user_template": (False, _ONE_USER),
    "allow_empty_principals": (False, _ONE_USER),
    "default_extensions": ({}, "no terminal and no forwarding"),
    "default_extensions_template": (False, "no terminal and no forwarding"),
    "allowed_extensions": ("", "no terminal and no forwarding"),
}
"""What a role has to say, field by field."""


class SshEngine:
    """Certificates for one user name and one command: each call has one of its own."""

    name = plugin = "ssh"
    plugins: tuple[str, ...] = (plugin,)
    exclusive = False
    asks_elsewhere = False

    def child_uses(self, wanted: CredentialWanted) -> int:
        """One has the key signed."""
        return 2

    def child_policy(self, mounts: Mounts, role: str) -> str:
        """Let it have keys signed for one role, as the role says."""
        return (
            f'path "{mounts[self.plugin]}/sign/{role}" {{\n'
            '  capabilities        = ["update"]\n'
            '  required_parameters = ["public_key", "ttl"]\n'
            '  allowed_parameters  = { "public_key" = [], "ttl" = [] }\n'
            "}\n"
        )

    def session_policy(self, mounts: Mounts) -> str:
        """Let it read definitions, which hold no secret."""
        return f'path "{mounts[self.plugin]}/roles/*" {{ capabilities = ["read"] }}\n'

    def lease_prefixes(self, mounts: Mounts) -> tuple[str, ...]:
        """There are none: a certificate cannot be taken back."""
        return ()

    async def read(self, api: VaultApi, child: Secret, mounts: Mounts, order: Order) -> Minted:
        """Make a key and have it signed. Vault names the certificate after the child, and so the call."""
        key = Ed25519PrivateKey.generate()
        body = {"public_key": _write_public(key), "ttl": f"{order.ttl_seconds}s"}
        answer = await api.ask("post", f"{mounts[self.plugin]}/sign/{order.role}", child, body)
        text = str(take(answer, "data", "signed_key")["signed_key"]).strip()
        certificate = _read_certificate(text)
        problems = find_certificate_problems(certificate, key, order.ttl_seconds)
        if problems:
            raise VaultFault(f"Vault signed something else: {'; '.join(problems)}", Cause.ROLE_UNSAFE)
        principal = certificate.valid_principals[0].decode()
        return Minted("", SshLogin(principal, _write_private(key), text + "\n"), order.ttl_seconds)

    async def retire(self, api: VaultApi, session: Secret, mounts: Mounts, role: str) -> None:
        """Nothing can be done: the certificate ends by its time."""

    async def find_problems(self, api: VaultApi, session: Secret, mounts: Mounts, role: str) -> list[str]:
        """See that the role gives short certificates for one user name and one command."""
        definition = await read_definition(api, session, f"{mounts[self.plugin]}/roles/{role}")
        if definition is None:
            return [f"Vault has no ssh role {role}; write it with `toolcrib vault bootstrap`"]
        problems = find_differences(definition, REQUIRED) + find_ttl_problems(definition)
        user = definition.get("default_user") or ""
        if not user or set(user) & set(",*") or definition.get("allowed_users") != user:
            problems.append("its allowed_users must be its default_user, exactly one name")
        options = definition.get("default_critical_options") or {}
        if set(options) - {SOURCE_ADDRESS} != {"force-command"} or not options.get("force-command"):
            problems.append(
                "its default_critical_options must force one command, and nothing else but addresses"
            )
        if int(definition.get("not_before_duration") or 0) > MAX_BACKDATE_SECONDS:
            problems.append(f"its not_before_duration must be {MAX_BACKDATE_SECONDS} s at most")
        return problems


def role_fields(principal: str, command: str, max_ttl_seconds: int) -> dict[str, Any]:
    """Return a role for certificates with one user name and one forced command."""
    return {
        **{field: value for field, (value, _) in REQUIRED.items()},
        "allowed_users": principal,
        "default_user": principal,
        "default_critical_options": {"force-command": command},
        "max_ttl": max_ttl_seconds,
        "ttl": max_ttl_seconds,
    }


def find_certificate_problems(
    certificate: SSHCertificate, key: Ed25519PrivateKey, ttl_seconds: int
) -> list[str]:
    """Say what makes a certificate more than was asked for."""
    checks = {
        "it is not for our key": certificate.public_key() == key.public_key(),
        "it is not for a user": certificate.type is SSHCertificateType.USER,
        "it is not for exactly one user name": len(certificate.valid_principals) == 1,
        "it forces no command": bool(certificate.critical_options.get(b"force-command")),
        "it has extensions": not certificate.extensions,
        "it is valid for too long": (
            certificate.valid_before - certificate.valid_after <= ttl_seconds + MAX_BACKDATE_SECONDS
        ),
    }
    return [problem for problem, is_fine in checks.items() if not is_fine]


def _read_certificate(text: str) -> SSHCertificate:
    try:
        certificate = serialization.load_ssh_public_identity(text.encode())
        if isinstance(certificate, SSHCertificate):
            certificate.verify_cert_signature()
            return certificate
    except (ValueError, UnsupportedAlgorithm, InvalidSignature) as error:
        raise VaultFault("Vault answered with no certificate", Cause.INVALID) from error
    raise VaultFault("Vault answered with no certificate", Cause.INVALID)


def _write_public(key: Ed25519PrivateKey) -> str:
    encoding, form = serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    return key.public_key().public_bytes(encoding, form).decode()


def _write_private(key: Ed25519PrivateKey) -> Secret:
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH
    return Secret(key.private_bytes(encoding, form, serialization.NoEncryption()).decode())
