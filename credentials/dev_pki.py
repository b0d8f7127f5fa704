"""The CA of development and tests: certificates for brokers and callers, from the OpenBao of `DevVault`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from credentials.secret import Secret

_CA_TTL_SECONDS = 10 * 365 * 86_400


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate with its key and the CA that signed it, in PEM."""

    cert_pem: str
    key_pem: Secret
    ca_pem: str


class Writer(Protocol):
    """A Vault that one may write to."""

    def write(self, path: str, **values: object) -> dict[str, Any]:
        """Write, and return the answer."""


def install_pki(vault: Writer) -> None:
    """Make the CA."""
    vault.write("sys/mounts/pki", type="pki", config={"max_lease_ttl": f"{_CA_TTL_SECONDS}s"})
    vault.write(
        "pki/root/generate/internal",
        common_name="Toolcrib development CA",
        key_type="ec",
        key_bits=256,
        ttl=f"{_CA_TTL_SECONDS}s",
    )
    vault.write(
        "pki/roles/identity",
        allowed_uri_sans=["spiffe://*"],
        allow_any_name=True,
        require_cn=False,
        key_type="ec",
        key_bits=256,
        max_ttl=f"{30 * 86_400}s",
        not_before_duration="30s",
    )


def issue_certificate(
    vault: Writer, spiffe_id: str, ttl_seconds: int, server_names: Sequence[str]
) -> Certificate:
    """Issue a certificate for an identity; see `DevVault.issue_certificate`."""
    addresses = [name for name in server_names if name.replace(".", "").isdigit() or ":" in name]
    data = vault.write(
        "pki/issue/identity",
        uri_sans=spiffe_id,
        alt_names=",".join(name for name in server_names if name not in addresses),
        ip_sans=",".join(addresses),
        ttl=f"{ttl_seconds}s",
    )["data"]
    return Certificate(data["certificate"], Secret(data["private_key"]), data["issuing_ca"])
