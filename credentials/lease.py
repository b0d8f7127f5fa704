"""What is asked of Vault for a call, and what came back."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from credentials.secret import Secret

UNKNOWN_LEASE = "unknown/"
"""Prefix of the id of a lease that Vault may have made but did not tell us; the accessor follows."""


@dataclass(frozen=True, slots=True)
class CredentialWanted:
    """One credential that a tool's manifest asks for.

    Attributes:
        name: The manifest's name for it, for example "orders_read".
        engine: Vault's secrets engine; "database" is the only one so far.
        role: The engine's role, for example "shop-orders-read".
    """

    name: str
    engine: str
    role: str


@dataclass(frozen=True, slots=True)
class CallTag:
    """What a child token is labelled with. It stands in clear in Vault's audit: no secret belongs here.

    Attributes:
        digest: The call's digest (an HMAC under the tenant's key), hex.
    """

    call_id: str
    tenant: str
    environment: str
    digest: str


class LeaseIds(Protocol):
    """Enough to end a lease: what the call record keeps of it."""

    @property
    def lease_id(self) -> str:
        """Vault's lease id."""

    @property
    def accessor(self) -> str:
        """Accessor of the child token under which the lease was read."""


@dataclass(frozen=True, slots=True)
class OwedLease:
    """A lease that must still be ended: minted, then not confirmed dead.

    Attributes:
        lease_id: Vault's lease id; `UNKNOWN_LEASE` and the accessor where the answer was lost on the way.
        username: The minted user name; empty where the answer was lost.
    """

    credential: str
    lease_id: str
    accessor: str
    username: str
    minted: datetime


@dataclass(frozen=True, slots=True)
class Lease:
    """One minted credential.

    Attributes:
        credential: The manifest's name for it.
        lease_id: Vault's lease id.
        accessor: Accessor of the child token under which it was read.
        username: The minted user name; no secret, and logged.
        ttl_seconds: After this Vault ends it by itself.
    """

    credential: str
    lease_id: str
    accessor: str
    username: str
    password: Secret
    minted: datetime
    ttl_seconds: int

    def owed(self) -> OwedLease:
        """Return what of it may be written down, without the secret."""
        return OwedLease(self.credential, self.lease_id, self.accessor, self.username, self.minted)
