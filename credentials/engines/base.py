"""What a secrets engine of Vault has to say so that the session can mint and end with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from credentials.lease import CredentialWanted, Payload
from credentials.secret import Secret
from credentials.vault_api import VaultApi

DEFAULT_MOUNTS: Mapping[str, str] = {
    "database": "database",
    "kv": "toolcrib-kv",
    "pki": "toolcrib-pki",
    "ssh": "toolcrib-ssh",
    "transit": "toolcrib-sign",
    "ldap": "ldap",
}
"""Where an operator's Vault has each engine, unless `vault.mounts` says otherwise. The tenants' data keys
have a transit mount of their own (credentials/transit.py)."""


@dataclass(frozen=True, slots=True)
class Minted:
    """What an engine gave.

    Attributes:
        lease_id: Vault's lease; "" where the engine makes none.
        ttl_seconds: When it ends by itself; at most what was asked for.
    """

    lease_id: str
    payload: Payload
    ttl_seconds: int


class SecretsEngine(Protocol):
    """One kind of credential. It keeps nothing between calls: what must survive a crash is in a lease's ids.

    Attributes:
        name: What manifests call it.
        plugin: Vault's type of the mount, and the key in `DEFAULT_MOUNTS`.
        exclusive: True where the role is one login: calls take turns, and `retire` changes it after each.
    """

    name: str
    plugin: str
    exclusive: bool

    def child_uses(self, wanted: CredentialWanted) -> int:
        """Say how many requests the child may make: one more than are needed, as the last one ends it."""

    def child_policy(self, mount: str, role: str) -> str:
        """Return the HCL of a child token: what one credential of this role needs, and nothing else."""

    def session_policy(self, mount: str) -> str:
        """Return the HCL that the broker's session needs for this engine. It must give out no credential."""

    def lease_prefixes(self, mount: str) -> tuple[str, ...]:
        """Return what the ids of its leases begin with; empty where it makes none."""

    async def read(
        self, api: VaultApi, child: Secret, mount: str, wanted: CredentialWanted, ttl_seconds: int
    ) -> Minted:
        """Get the credential with the child.

        Raises:
            VaultFault: Vault refused, or gave no answer; the child is ended by the caller.
        """

    async def retire(self, api: VaultApi, session: Secret, mount: str, role: str) -> None:
        """Make worthless what no lease and no child ends; does nothing where there is no such thing.

        Called after the lease was ended, perhaps again, perhaps by another broker; returns when it is certain.

        Raises:
            VaultFault: It is not certain.
        """

    async def find_problems(self, api: VaultApi, session: Secret, mount: str, role: str) -> list[str]:
        """Say what makes a role unfit: not there, too broad, or its credentials could not be ended.

        Raises:
            VaultFault: Vault gave no answer.
        """
