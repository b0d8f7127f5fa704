"""Seals what the state keeps of a tenant, with the tenant's data key: AES-256-GCM (NIST SP 800-38D).

A data key is made by Vault, kept wrapped in the store, and unwrapped by Vault again: the state's disk and its
backups say nothing without Vault, and nothing at all once the tenant's key in Vault is deleted. Rules:

1. What is sealed is bound to its tenant and context: moved to another row it does not open.
2. A sealed value names its data key. A value of a key that the store no longer has is erased, not broken.
3. No key, no change: when Vault does not give the key, sealing fails and nothing is written in clear.
4. Unwrapped keys stay in memory for a bounded time, in bounded number. While Vault does not answer they serve
   SPARE_SECONDS longer, so that a call whose tool has run can still be recorded.
5. Many that need one key at once make one request.

The form: version (1 byte) | id of the data key (8) | nonce (12, random) | ciphertext with tag (16 more).
A random nonce is good for 2^32 values under one key (SP 800-38D, section 8.3).
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from broker.store.cipher import KeyErased
from broker.store.records import StoreError
from credentials.errors import CredentialsUnavailable, DataKeyGone
from credentials.secret import Secret
from credentials.transit import DataKey

VERSION = 1
ID_BYTES = 8
NONCE_BYTES = 12
TAG_BYTES = 16
HEADER_BYTES = 1 + ID_BYTES + NONCE_BYTES
KEY_BYTES = 32
MAX_AGE_SECONDS = 300.0
SPARE_SECONDS = 120.0
MAX_KEYS = 1024


class KeyUnavailable(StoreError):
    """A tenant's data key cannot be had now. Nothing was sealed or opened."""


class SealBroken(StoreError):
    """A sealed value does not open: it was changed, or stands where it does not belong."""


class Shelf(Protocol):
    """Where wrapped data keys are kept: the store."""

    async def tenant_key(self, tenant: str) -> bytes | None:
        """Read a tenant's wrapped data key."""

    async def put_tenant_key(self, tenant: str, wrapped: bytes) -> bytes:
        """Keep one; returns the one that is kept, which may be an earlier one."""


class Wrapper(Protocol):
    """What makes and unwraps data keys: Vault's transit engine."""

    async def make_data_key(self, tenant: str) -> DataKey:
        """Have a data key made for a tenant."""

    async def unwrap(self, tenant: str, wrapped: bytes) -> Secret:
        """Unwrap a data key; it comes in base64."""


@dataclass(frozen=True, slots=True)
class _Held:
    """An unwrapped key, from `fetched` on the monotonic clock."""

    key_id: bytes
    aead: AESGCM
    fetched: float


class TenantCipher:
    """Seals and opens by tenant. It can do neither before `connect`."""

    def __init__(
        self,
        *,
        max_age_seconds: float = MAX_AGE_SECONDS,
        max_keys: int = MAX_KEYS,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_age_seconds, self._max_keys, self._monotonic = max_age_seconds, max_keys, monotonic
        self._held: OrderedDict[str, _Held] = OrderedDict()
        self._fetches: dict[str, asyncio.Task[_Held]] = {}
        self._shelf: Shelf | None = None
        self._wrapper: Wrapper | None = None

    def connect(self, shelf: Shelf, wrapper: Wrapper) -> None:
        """Say where keys are kept and unwrapped: the store is open before Vault is."""
        self._shelf, self._wrapper = shelf, wrapper

    def forget(self, tenant: str) -> None:
        """Drop a tenant's key from memory: it was erased. What is being fetched now is not kept either."""
        self._held.pop(tenant, None)
        self._fetches.pop(tenant, None)

    async def prepare(self, tenant: str) -> None:
        """Have a tenant's key at hand, so that what a call comes to can be sealed if Vault is gone by then.

        Raises:
            KeyUnavailable: Vault does not give the key.
        """
        await self._key(tenant)

    async def seal(self, tenant: str, context: bytes, plain: bytes) -> bytes:
        """Seal a value of a tenant; makes the tenant's data key when there is none.

        Raises:
            KeyUnavailable: Vault does not give the key.
        """
        held = await self._key(tenant)
        nonce = os.urandom(NONCE_BYTES)
        head = bytes([VERSION]) + held.key_id
        return head + nonce + held.aead.encrypt(nonce, plain, _associate(head, tenant, context))

    async def open(self, tenant: str, context: bytes, sealed: bytes) -> bytes:
        """Open a sealed value.

        Raises:
            KeyErased: The key that sealed it is gone for good.
            KeyUnavailable: Vault does not give the key.
            SealBroken: It was changed, or sealed for another tenant or context.
        """
        if len(sealed) < HEADER_BYTES + TAG_BYTES or sealed[0] != VERSION:
            raise SealBroken("a stored value has no form that this program seals in; nothing is read from it")
        key_id = sealed[1 : 1 + ID_BYTES]
        held = await self._key_to_open(tenant)
        if held.key_id != key_id:
            raise KeyErased(f'the key that sealed it was erased; tenant "{tenant}" has another one')
        nonce, body = sealed[1 + ID_BYTES : HEADER_BYTES], sealed[HEADER_BYTES:]
        try:
            return held.aead.decrypt(nonce, body, _associate(sealed[: 1 + ID_BYTES], tenant, context))
        except InvalidTag as error:
            raise SealBroken("a stored value was changed, or stands where it does not belong") from error

    async def _key_to_open(self, tenant: str) -> _Held:
        """Get the key that the tenant has; to read never makes one."""
        shelf, _ = self._parts()
        if self._fresh(tenant) is None and await shelf.tenant_key(tenant) is None:
            raise KeyErased(f'tenant "{tenant}" has no data key: it was erased')
        try:
            return await self._key(tenant)
        except KeyUnavailable as error:
            if isinstance(error.__cause__, DataKeyGone):
                raise KeyErased(f'the key in Vault of tenant "{tenant}" was deleted') from error
            raise

    async def _key(self, tenant: str) -> _Held:
        held = self._fresh(tenant)
        if held is not None:
            return held
        fetch = self._fetches.get(tenant)
        if fetch is None:
            fetch = self._fetches[tenant] = asyncio.create_task(self._fetch(tenant), name=f"key of {tenant}")
            fetch.add_done_callback(lambda done: self._end_fetch(tenant, done))
        try:
            # Whoever is cancelled while it waits does not take the key from the others.
            return await asyncio.shield(fetch)
        except CredentialsUnavailable as error:
            return self._spare(tenant, error)
        except DataKeyGone as error:
            self._held.pop(tenant, None)
            raise KeyUnavailable(
                f'Vault has no key that opens the data key of tenant "{tenant}" any more. '
                f"Was it erased there? Then run `toolcrib tenants erase {tenant}`; else bring that key back"
            ) from error

    def _fresh(self, tenant: str) -> _Held | None:
        held = self._held.get(tenant)
        if held is None or self._monotonic() - held.fetched >= self._max_age_seconds:
            return None
        self._held.move_to_end(tenant)
        return held

    def _spare(self, tenant: str, error: CredentialsUnavailable) -> _Held:
        held = self._held.get(tenant)
        if held is None or self._monotonic() - held.fetched >= self._max_age_seconds + SPARE_SECONDS:
            self._held.pop(tenant, None)
            raise KeyUnavailable(f"{error}; nothing of the tenant is read or written without it") from error
        return held

    def _end_fetch(self, tenant: str, done: asyncio.Task[_Held]) -> None:
        if self._fetches.get(tenant) is done:
            del self._fetches[tenant]
        if not done.cancelled():
            done.exception()  # those who wait for it have it

    async def _fetch(self, tenant: str) -> _Held:
        shelf, wrapper = self._parts()
        wrapped = await shelf.tenant_key(tenant)
        if wrapped is None:
            made = await wrapper.make_data_key(tenant)
            wrapped = await shelf.put_tenant_key(tenant, made.wrapped)
            key = made.key if wrapped == made.wrapped else await wrapper.unwrap(tenant, wrapped)
        else:
            key = await wrapper.unwrap(tenant, wrapped)
        held = _Held(_key_id(wrapped), AESGCM(_decode(key)), self._monotonic())
        if self._fetches.get(tenant) is asyncio.current_task():
            self._keep(tenant, held)
        return held

    def _keep(self, tenant: str, held: _Held) -> None:
        self._held[tenant] = held
        self._held.move_to_end(tenant)
        while len(self._held) > self._max_keys:
            self._held.popitem(last=False)

    def _parts(self) -> tuple[Shelf, Wrapper]:
        if self._shelf is None or self._wrapper is None:
            raise KeyUnavailable("the broker is still starting: there is no session at Vault yet")
        return self._shelf, self._wrapper


def _key_id(wrapped: bytes) -> bytes:
    return hashlib.sha256(b"toolcrib data key id" + wrapped).digest()[:ID_BYTES]


def _associate(head: bytes, tenant: str, context: bytes) -> bytes:
    """Join what a value is bound to, so that no two joins of different parts are equal."""
    name = tenant.encode()
    return head + len(name).to_bytes(4, "big") + name + context


def _decode(key: Secret) -> bytes:
    raw = base64.b64decode(key.reveal(), validate=True)
    if len(raw) != KEY_BYTES:
        raise KeyUnavailable(f"Vault gave a data key of {len(raw)} bytes; {KEY_BYTES} are needed")
    return raw
