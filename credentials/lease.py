"""What is asked of Vault for a call, and what came back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from credentials.secret import Secret

UNKNOWN_LEASE = "unknown/"
"""Prefix of the id of a lease that Vault may have made but did not tell us; the accessor follows."""
NO_LEASE = "none/"
"""Prefix of the id that we give where the engine makes no lease; engine, role and accessor follow."""
USER_NAME_KEYS = ("username", "user", "login")
"""Keys of a KV secret whose values are user names, which are no secrets."""


@dataclass(frozen=True, slots=True)
class CredentialWanted:
    """One credential that a tool's manifest asks for.

    Attributes:
        name: The manifest's name for it, for example "orders_read".
        engine: Name of a secrets engine, as `credentials.engines.ENGINES` has it.
        role: The engine's role, for example "shop-orders-read"; a KV secret's name, a transit key's name.
        max_signatures: How often this call may sign; for the engine "transit" only.
    """

    name: str
    engine: str
    role: str
    max_signatures: int = 1


@dataclass(frozen=True, slots=True)
class CallTag:
    """Which call it is. All but subject and agent label the child token and stand in clear in Vault's audit.

    Attributes:
        digest: The call's digest (an HMAC under the tenant's key), hex.
        subject: On whose behalf the call is made; "" for nobody's. Only a token exchange tells it, and only
            to the authorization server: it names a person, and the record has it under the call's id.
        agent: Who makes the call; told like the subject.
        is_rehearsal: There is no call: registration looks whether the credential could be had.
    """

    call_id: str
    tenant: str
    environment: str
    digest: str
    subject: str = ""
    agent: str = ""
    is_rehearsal: bool = False


class LeaseIds(Protocol):
    """Enough to end a lease: what the call record keeps of it."""

    @property
    def lease_id(self) -> str:
        """Vault's lease id; begins with `UNKNOWN_LEASE` or `NO_LEASE` where there is none."""

    @property
    def accessor(self) -> str:
        """Accessor of the child token under which the lease was read."""

    @property
    def engine(self) -> str:
        """The secrets engine that made it."""

    @property
    def role(self) -> str:
        """The engine's role."""


@dataclass(frozen=True, slots=True)
class OwedLease:
    """A lease that must still be ended: minted, then not confirmed dead.

    Attributes:
        lease_id: Vault's lease id; `UNKNOWN_LEASE` and the accessor where the answer was lost on the way.
        username: The minted user name; empty where there is none, or the answer was lost.
        expires: When Vault ends it by itself; None where that is not known.
    """

    credential: str
    lease_id: str
    accessor: str
    engine: str
    role: str
    username: str
    minted: datetime
    expires: datetime | None = None


@dataclass(frozen=True, slots=True)
class UsernamePassword:
    """A login; the user name is no secret."""

    username: str
    password: Secret

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """What must not leave."""
        return (self.password,)


@dataclass(frozen=True, slots=True)
class KeyValues:
    """The values of a secret that somebody put into Vault. They do not end with the call."""

    values: Mapping[str, Secret]
    version: int
    username: str = ""

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """What must not leave: every value but user names."""
        return tuple(value for key, value in self.values.items() if key not in USER_NAME_KEYS)


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """A certificate with its key, in PEM. `username` is the common name."""

    username: str
    certificate_pem: str
    private_key_pem: Secret
    chain_pem: str

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """What must not leave: the key's body, without the lines around it."""
        return (_armour_body(self.private_key_pem),)


@dataclass(frozen=True, slots=True)
class SshLogin:
    """A key with a certificate for one user name (the principal), in OpenSSH's formats."""

    username: str
    private_key: Secret
    certificate: str

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """What must not leave: the key's body, without the lines around it."""
        return (_armour_body(self.private_key),)


@dataclass(frozen=True, slots=True)
class Signed:
    """One signature made in Vault, raw bytes."""

    signature: bytes
    key_version: int


@dataclass(frozen=True, slots=True)
class Signer:
    """A key that signs in Vault and never leaves it.

    Attributes:
        sign: Signs one input; raises `CredentialsUnavailable`, also when `max_signatures` are used up.
    """

    algorithm: str
    max_signatures: int
    public_key_pem: str
    sign: Callable[[bytes], Awaitable[Signed]]
    username: str = ""

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """Nothing: the tool gets no secret."""
        return ()


@dataclass(frozen=True, slots=True)
class AccessToken:
    """A bearer token of an authorization server. It is added to requests at the door: no tool gets it.

    Attributes:
        expires: When it ends by itself.
        revoke: Lets it go, and asks the server to end it when nobody has it any more: only once, bounded in
            time, raises nothing.
    """

    token: Secret
    expires: datetime
    revoke: Callable[[], Awaitable[None]] | None = None
    username: str = ""

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """What must not leave."""
        return (self.token,)


Payload = UsernamePassword | KeyValues | ClientCertificate | SshLogin | Signer | AccessToken
"""What a tool gets of a credential, or what is added to its requests."""


@dataclass(frozen=True, slots=True)
class Lease:
    """One minted credential.

    Attributes:
        credential: The manifest's name for it.
        lease_id: Vault's lease id, or ours that begins with `NO_LEASE`.
        accessor: Accessor of the child token under which it was read.
        payload: What the tool gets.
        expires: When Vault ends it by itself.
        given_up: What was tried before it, and is confirmed dead.
    """

    credential: str
    lease_id: str
    accessor: str
    engine: str
    role: str
    payload: Payload
    minted: datetime
    expires: datetime
    given_up: tuple[OwedLease, ...] = ()

    @property
    def username(self) -> str:
        """The minted user name; no secret, and logged. Empty where there is none."""
        return self.payload.username

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """Everything in it that must not leave."""
        return self.payload.secrets

    async def revoke(self) -> None:
        """Have who gave it end it, where that is not Vault: once, for a moment, as well as it can be done."""
        if isinstance(self.payload, AccessToken) and self.payload.revoke is not None:
            await self.payload.revoke()

    def owed(self) -> OwedLease:
        """Return what of it may be written down, without the secret."""
        return OwedLease(
            self.credential,
            self.lease_id,
            self.accessor,
            self.engine,
            self.role,
            self.username,
            self.minted,
            self.expires,
        )


def _armour_body(pem: Secret) -> Secret:
    lines = pem.reveal().splitlines()
    return Secret("".join(line.strip() for line in lines if line and not line.startswith("-")))
