"""What a secrets engine of Vault has to say so that the session can mint and end with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from credentials.errors import Cause
from credentials.lease import CallTag, CredentialWanted, Payload, UsernamePassword
from credentials.secret import Secret
from credentials.vault_api import VaultApi, VaultFault, take

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
MAX_TTL_SECONDS = 3600
"""No call lasts longer; a role that allows more would let a stolen session make what outlives it."""
MIN_PERIOD_SECONDS = 7200
"""Of a login that stays. Twice the longest call: Vault's own rotations would end calls too often."""
MIN_SECRET_LENGTH = 12
"""What is shorter can be guessed, and is found in any text when answers are searched for it."""


Mounts = Mapping[str, str]
"""Mount path by plugin; a key for each in `DEFAULT_MOUNTS`."""


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be made, for which call.

    Attributes:
        ttl_seconds: It has to end by itself after this.
    """

    wanted: CredentialWanted
    tag: CallTag
    ttl_seconds: int

    @property
    def role(self) -> str:
        """The engine's role."""
        return self.wanted.role


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
        plugin: Vault's type of the mount where its roles are, and the key in `DEFAULT_MOUNTS`.
        plugins: This one, and those of the other mounts that it needs.
        exclusive: True where the role is one login: calls take turns, and `retire` changes it after each.
        asks_elsewhere: True where it waits for another server than Vault, which may be slow.
    """

    name: str
    plugin: str
    plugins: tuple[str, ...]
    exclusive: bool
    asks_elsewhere: bool

    def child_uses(self, wanted: CredentialWanted) -> int:
        """Say how many requests the child may make: one more than are needed, as the last one ends it."""

    def child_policy(self, mounts: Mounts, role: str) -> str:
        """Return the HCL of a child token: what one credential of this role needs, and nothing else."""

    def session_policy(self, mounts: Mounts) -> str:
        """Return the HCL that the broker's session needs for this engine. It must give out no credential."""

    def lease_prefixes(self, mounts: Mounts) -> tuple[str, ...]:
        """Return what the ids of its leases begin with; empty where it makes none."""

    async def read(self, api: VaultApi, child: Secret, mounts: Mounts, order: Order) -> Minted:
        """Get the credential with the child.

        Raises:
            VaultFault: Vault refused, or gave no answer; the child is ended by the caller.
        """

    async def retire(self, api: VaultApi, session: Secret, mounts: Mounts, role: str) -> None:
        """Make worthless what no lease and no child ends; does nothing where there is no such thing.

        Called after the lease was ended, perhaps again, perhaps by another broker. Returns once it is sure.

        Raises:
            VaultFault: It is not certain.
        """

    async def find_problems(self, api: VaultApi, session: Secret, mounts: Mounts, role: str) -> list[str]:
        """Say what makes a role unfit: not there, too broad, or its credentials could not be ended.

        Raises:
            VaultFault: Vault gave no answer.
        """


async def read_definition(api: VaultApi, session: Secret, path: str) -> dict[str, Any] | None:
    """Read what Vault says of a role, a key or a secret; None where it has none.

    Raises:
        VaultFault: Vault gave no answer.
    """
    try:
        return take(await api.ask("get", path, session), "data")
    except VaultFault as fault:
        if fault.cause is Cause.UNKNOWN:
            return None
        raise


def read_login(data: Mapping[str, Any]) -> UsernamePassword:
    """Take a login out of an answer.

    Raises:
        VaultFault: User name or password is no text.
    """
    username, password = data["username"], data["password"]
    if not (isinstance(username, str) and isinstance(password, str) and username and password):
        raise VaultFault("Vault's answer has no user name and password", Cause.INVALID)
    return UsernamePassword(username, Secret(password))


def check_shared_password(data: Mapping[str, Any], ttl_seconds: int) -> None:
    """See that the password of a login that stays is no guess, and holds for the whole call.

    Raises:
        VaultFault: It is too short, or Vault itself would change it during the call.
    """
    if len(data["password"]) < MIN_SECRET_LENGTH:
        text = f"the password is shorter than {MIN_SECRET_LENGTH} characters: set a password policy"
        raise VaultFault(text, Cause.ROLE_UNSAFE)
    if int(data["ttl"]) < ttl_seconds:
        # The caller ends what failed here, which rotates it now: the next call has the whole period.
        text = "Vault would change the password during the call, so it is changed now; try again"
        raise VaultFault(text, Cause.OVERLOADED)


def explain_unusable(error: Exception) -> VaultFault:
    """Say that an answer lacks what it has to have; the error's text may hold the secret: it is not told."""
    return VaultFault(f"Vault's answer cannot be used ({type(error).__name__})", Cause.INVALID)


def find_ttl_problems(definition: Mapping[str, Any]) -> list[str]:
    """Say whether a role's `max_ttl` could outlast every call; Vault's 0 stands for weeks."""
    if 0 < int(definition.get("max_ttl") or 0) <= MAX_TTL_SECONDS:
        return []
    return [f"its max_ttl must be set, to {MAX_TTL_SECONDS} s at most: credentials could outlast every call"]


def find_differences(definition: Mapping[str, Any], required: Mapping[str, tuple[object, str]]) -> list[str]:
    """Say which fields of a role are not as they have to be.

    Args:
        definition: What Vault has; a field that it lacks counts as false, and as empty.
        required: By field: what it has to be, and why.
    """
    return [
        f"its {name} must be {_spell(value)}: {why}"
        for name, (value, why) in required.items()
        if (definition.get(name) or None) != (value or None)
    ]


def _spell(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value) if value else "empty"
