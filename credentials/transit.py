"""Data keys of tenants, wrapped by Vault's transit engine: one transit key a tenant, `toolcrib-TENANT`.

Vault makes a data key and gives it twice: as it is, to use and forget, and wrapped, to keep. Who has
the wrapped one and no right at the tenant's transit key has nothing; when the transit key is deleted, nobody
has anything. Rules:

1. The broker may make and unwrap data keys. It may neither make nor delete nor change a transit key: who can
   delete one erases a tenant, and that is the operator's to do.
2. Requests go through the session, with its timeouts and errors; a key is never retried under another name.
3. "The key is gone" is only what Vault says in these words; every other answer says nothing about the key.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias, TypeVar

from credentials.errors import Cause, CredentialsUnavailable, DataKeyGone
from credentials.secret import Secret
from credentials.vault_api import VaultApi, VaultFault

T = TypeVar("T")
Work: TypeAlias = Callable[[VaultApi, Secret], Awaitable[T]]

DATA_KEY_BITS = 256
MOUNT = "transit"
KEY_PREFIX = "toolcrib-"
_TENANT_SHAPE = re.compile(r"^[a-z0-9][a-z0-9._-]{0,62}$")
_GONE = ("encryption key not found", "message authentication failed", "ciphertext or signature version is")


class Asker(Protocol):
    """A session that can make a request with its own token."""

    async def ask(self, subject: str, work: Work[T]) -> T:
        """Make a request with the session's token."""


@dataclass(frozen=True, slots=True)
class DataKey:
    """A new data key.

    Attributes:
        key: The key itself, in base64.
        wrapped: What to keep in its place.
    """

    key: Secret
    wrapped: bytes


class Transit:
    """Makes and unwraps the data keys of tenants."""

    def __init__(self, session: Asker) -> None:
        self._session = session

    async def make_data_key(self, tenant: str) -> DataKey:
        """Have a data key made for a tenant.

        Raises:
            CredentialsUnavailable: Vault does not give one; the message says what to mend.
        """
        name = transit_key_name(tenant)

        async def make(api: VaultApi, token: Secret) -> DataKey:
            answer = await api.make_data_key(token, name, DATA_KEY_BITS)
            return DataKey(Secret(answer["plaintext"]), answer["ciphertext"].encode())

        try:
            return await self._session.ask(f'data key of tenant "{tenant}"', _saying_gone(make))
        except DataKeyGone as error:
            text = f'tenant "{tenant}" has no key in Vault: make it, `vault write -f {MOUNT}/keys/{name}`'
            raise CredentialsUnavailable(text, Cause.UNKNOWN) from error

    async def unwrap(self, tenant: str, wrapped: bytes) -> Secret:
        """Unwrap a data key; it comes in base64.

        Raises:
            DataKeyGone: Vault has no key any more that opens it.
            CredentialsUnavailable: Vault does not answer, or may not.
        """
        name, text = transit_key_name(tenant), wrapped.decode("ascii", "replace")

        async def unwrap(api: VaultApi, token: Secret) -> Secret:
            return Secret(await api.unwrap_data_key(token, name, text))

        return await self._session.ask(f'data key of tenant "{tenant}"', _saying_gone(unwrap))


def transit_key_name(tenant: str) -> str:
    """Name a tenant's key in the transit engine.

    Raises:
        ValueError: The name is none of a tenant, and could name another path in Vault.
    """
    if not _TENANT_SHAPE.match(tenant):
        raise ValueError(f'"{tenant}" is no tenant name; use a-z, 0-9, ".", "_" and "-"')
    return KEY_PREFIX + tenant


def _saying_gone(work: Work[T]) -> Work[T]:
    """Tell a key that is gone from every other trouble."""

    async def ask(api: VaultApi, token: Secret) -> T:
        try:
            return await work(api, token)
        except VaultFault as fault:
            if fault.cause is Cause.INVALID and any(words in str(fault) for words in _GONE):
                raise DataKeyGone(str(fault)) from fault
            raise

    return ask
